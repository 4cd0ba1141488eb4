//! What a run is worth when things go wrong: crashes, faults, races, secrets, and the real
//! Terraform beside it, each counted, as a Markdown page.
//!
//! `--write` puts the page into docs/reliability.md. `--part NAME` tries one part alone:
//! crashes, faults, races, canary, fuzz, terraform or found.

#![allow(clippy::print_stdout, reason = "the tables are for whoever started it")]

#[path = "../tests/common/mod.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "shared with the tests")]
mod common;
#[path = "../tests/reliability/suite/mod.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "shared with the tests")]
mod suite;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use suite::{Bounds, Part};

const ALL: Bounds = Bounds { stride: 1, seeds: 2000, seconds: 60 };
/// Three minutes of hostile input.
const FUZZ: Bounds = Bounds { seconds: 180, ..ALL };
const PAGE: &str = "docs/reliability.md";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut write, mut only) = (false, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--write" => write = true,
            "--part" => only = Some(rest.next().context("--part NAME")?.as_str()),
            other => bail!("{other} is not known"),
        }
    }
    ensure!(!write || only.is_none(), "the page has all parts");
    common::built::build("reliability");

    let began = Instant::now();
    let mut parts: Vec<Part> = Vec::new();
    for name in ["crashes", "faults", "races", "canary", "fuzz", "terraform", "found"] {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let part = match name {
            "crashes" => suite::crashes::part(ALL).await?,
            "faults" => suite::faults::part(ALL).await?,
            "races" => suite::races::part(ALL).await?,
            "canary" => suite::canary::part(ALL).await?,
            "fuzz" => suite::fuzz::part(FUZZ).await?,
            "terraform" => suite::terraform::part(ALL).await?,
            _ => suite::found::part(),
        };
        println!("{}", part.markdown());
        parts.push(part);
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("{minutes:.0} minutes");
    let defects: Vec<&str> =
        parts.iter().flat_map(|part| &part.defects).map(String::as_str).collect();
    if write {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE), page(&parts, minutes)?)?;
    }
    ensure!(defects.is_empty(), "{} defects:\n\n{}", defects.len(), defects.join("\n\n"));
    Ok(())
}

fn page(parts: &[Part], minutes: f64) -> Result<String> {
    let today = Command::new("date").args(["--utc", "+%F"]).output().context("date")?.stdout;
    let mut text = format!(
        "# Reliability\n\n\
         Written by `cargo run --example reliability -- --write` on {}, version {}, in {minutes:.0} minutes. The \
         real binary runs as GitHub's runner would run it, against an AWS in one process \
         ([the lab](../lab)): what is counted here is the action's own behaviour, not Amazon's. `cargo test` \
         tries a part of the same cases.\n",
        String::from_utf8_lossy(&today).trim(),
        env!("CARGO_PKG_VERSION"),
    );
    for part in parts {
        text.push('\n');
        text.push_str(&part.markdown());
    }
    Ok(text)
}
