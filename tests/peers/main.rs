//! Real clients and servers that are not ours: Terraform, the AWS CLI, moto, ministack, LocalStack.
//!
//! A peer that is not on PATH is skipped with a line that says so; with
//! `TFSTATE_KMS_PEERS=require` a missing one is a failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

#[path = "../common/mod.rs"]
mod common;

mod aws_cli;
mod by_hand;
mod emulators;
mod moto;
mod server;
mod terraform;
mod workspaces;

use std::io::Write;
use std::path::PathBuf;

use aws_lab::{Lab, Topology, cabal};
use common::Workspace;

/// The program, or `None` after saying that it is missing.
fn peer(name: &str) -> Option<PathBuf> {
    let found = common::on_path(name);
    if found.is_none() {
        let required = std::env::var("TFSTATE_KMS_PEERS").is_ok_and(|value| value == "require");
        assert!(!required, "{name} is not on PATH");
        // Past the test harness, which would show it only on failure.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {name} is not on PATH");
    }
    found
}

fn workspace() -> Workspace {
    Workspace::new(env!("CARGO_BIN_EXE_tfstate-kms").as_ref())
}

async fn lab(topology: Topology) -> (Lab, String) {
    let world = cabal(topology);
    let key = world.state_key_arn().to_owned();
    (Lab::start(world).await.unwrap(), key)
}
