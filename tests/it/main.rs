//! The real binary against the lab.

#![allow(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

#[path = "../common/mod.rs"]
mod common;

mod apply;
mod archived;
mod arguments;
mod backend;
mod backend_by_hand;
mod check_run;
mod demanded_headers;
mod documents;
mod dry_runs;
mod explanations;
mod gate;
mod guards;
mod history;
mod in_flight;
mod key_crashes;
mod keys;
mod live_locks;
mod locks;
mod lost;
mod module_folders;
mod nothing_found;
mod objects;
mod others;
mod output;
mod perils;
mod proxies;
mod readers;
mod refusals;
mod regions;
mod round_trips;
mod state_keys;
mod topologies;
mod verdicts;
mod workspaces;

use common::bench;
