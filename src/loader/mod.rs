//! How a kernel comes into a guest's memory, for whoever builds guests while the machine boots.
//!
//! | file | question |
//! |---|---|
//! | `kernel` | which kind of kernel is in a module, and where does it want to be? |
//! | `place` | where do kernel, tree and RAM disk go? |
//! | `copy` | how do their bytes get there? |
//! | `nodes` | which nodes do all guests' trees have? |

use alloc::string::String;
use core::fmt;

pub mod copy;
pub mod kernel;
pub mod nodes;
pub mod place;

/// Why a guest cannot be loaded, in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
