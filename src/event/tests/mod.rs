//! One file per subject: rules first, then models that check them on random histories.

mod adversary;
mod fifo;
mod interdomain;
mod model;
mod poll;
mod ports;
mod reset;
mod restore;
mod setup;
mod stress;
mod support;
mod two_level;
mod virq;
