//! A part of what `cargo run --example reliability` tries.

#![allow(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

#[path = "../common/mod.rs"]
mod common;
mod suite;

use std::io::Write;

use suite::{Bounds, Part};

/// What fits into a test run.
const SOME: Bounds = Bounds { stride: 61, seeds: 30, seconds: 4 };

fn without_defects(part: &Part) {
    assert!(part.defects.is_empty(), "{}\n{}", part.markdown(), part.defects.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_loses_nothing_and_the_next_one_converges() {
    without_defects(&suite::crashes::part(SOME).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_ends_in_success_or_in_a_clear_error() {
    without_defects(&suite::faults::part(SOME).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_serial_is_lost_whoever_comes_between() {
    without_defects(&suite::races::part(SOME).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_shown_whatever_happens() {
    without_defects(&suite::canary::part(SOME).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_input_stays_text() {
    without_defects(&suite::fuzz::part(SOME).await.unwrap());
}

#[test]
fn what_was_found_is_not_found_again() {
    without_defects(&suite::found::part());
}

#[tokio::test(flavor = "multi_thread")]
async fn terraform_beside_the_action_loses_nothing() {
    let part = suite::terraform::part(SOME).await.unwrap();
    if part.text.starts_with("SKIPPED") {
        // Past the test harness, which would show it only on failure.
        let _ = writeln!(std::io::stderr(), "{}", part.text);
    }
    without_defects(&part);
}
