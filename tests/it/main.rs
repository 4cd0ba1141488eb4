//! The real binary against the lab.

#[path = "../common/mod.rs"]
mod common;

mod apply;
mod backend;
mod bench;
mod guards;
mod objects;
mod output;
mod round_trips;
