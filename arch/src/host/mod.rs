//! Stand-ins for the machine, so that everything above this crate runs in host tests.
//!
//! | file | stands for |
//! |---|---|
//! | `cells.rs` | coprocessor registers, as `cp15` accesses them |
//! | `registers.rs` | a CPU with a trap or an interrupt: setters for tests |
//! | `frame.rs` | `hypmap` |
//! | `heap.rs` | the heap of the image |

pub(crate) mod cells;
pub mod frame;
pub mod heap;
pub mod registers;
