//! What happens between a guest's exit and its next entry.

pub mod inject;
