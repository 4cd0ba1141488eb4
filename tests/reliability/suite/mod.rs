//! What a run is worth when things go wrong, counted: each part is a table of cases that
//! the real binary goes through against the lab. `cargo test` takes a part of the cases,
//! `cargo run --example reliability` all of them.

mod answers;
pub mod canary;
pub mod crashes;
pub mod faults;
pub mod found;
pub mod fuzz;
mod keys;
pub mod races;
pub mod terraform;
mod way;

use std::fmt::Write as _;
use std::future::Future;

use anyhow::Result;
use futures_util::{StreamExt, stream};

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Each so-many-th of the cases of a table.
    pub stride: usize,
    /// Interleavings.
    pub seeds: u64,
    /// How long Terraform is left to it.
    pub seconds: u64,
}

impl Bounds {
    /// The cases that are tried: at least one, and of a part not only the first.
    fn of<C>(self, cases: Vec<C>) -> Vec<C> {
        let first = (self.stride / 2).min(cases.len().saturating_sub(1));
        cases.into_iter().skip(first).step_by(self.stride).collect()
    }

    /// All of them.
    fn is_whole(self) -> bool {
        self.stride == 1
    }
}

/// What a part came to.
#[derive(Debug)]
pub struct Part {
    /// Its heading.
    pub title: &'static str,
    /// What was tried and found, in Markdown.
    pub text: String,
    /// The cases that did not end as they must.
    pub defects: Vec<String>,
}

impl Part {
    /// Heading, text and defects.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n", self.title, self.text.trim_end());
        if !self.defects.is_empty() {
            let _ = writeln!(text, "\n**{} did not end as they must:**\n", self.defects.len());
            for defect in &self.defects {
                let _ = writeln!(text, "- {}", defect.lines().next().unwrap_or_default());
            }
        }
        text
    }
}

/// Takes every case through, several at once; the outcomes in the cases' order. A case that
/// panics has failed.
async fn each<C, T, F>(cases: Vec<C>, at_once: usize, one: impl Fn(C) -> F) -> Vec<(C, Result<T>)>
where
    C: Copy + std::fmt::Debug,
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut outcomes: Vec<_> = stream::iter(cases.into_iter().enumerate())
        .map(|(at, case)| {
            let task = tokio::spawn(one(case));
            async move {
                let ended = task.await.unwrap_or_else(|panic| Err(panic.into()));
                (at, case, ended.map_err(|error| error.context(format!("{case:?}"))))
            }
        })
        // Some wait for long, and nobody is to wait for them.
        .buffer_unordered(at_once)
        .collect()
        .await;
    outcomes.sort_by_key(|(at, ..)| *at);
    outcomes.into_iter().map(|(_, case, outcome)| (case, outcome)).collect()
}

/// The defects among outcomes.
fn defects<C, T>(outcomes: &[(C, Result<T>)]) -> Vec<String> {
    let failed = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err());
    failed.map(|error| format!("{error:#}")).collect()
}

/// A Markdown table.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}
