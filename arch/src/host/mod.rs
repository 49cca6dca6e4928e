//! Stand-ins for the machine, so that everything above this crate runs in host tests.
//!
//! | file | in place of |
//! |---|---|
//! | `cells.rs` | the registers of coprocessor 15, as `cp15` reads and writes them |
//! | `registers.rs` | a CPU that has trapped, or has an interrupt: what tests put into registers |
//! | `frame.rs` | `hypmap`, which only the machine has |
//! | `heap.rs` | the heap of the image |

pub(crate) mod cells;
pub mod frame;
pub mod heap;
pub mod registers;
