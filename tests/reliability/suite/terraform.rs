//! The real Terraform writes again and again, without a lock and with its own S3 lock, while
//! the action re-keys its state back and forth.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aws_lab::Topology;
use serde_json::Value;

use super::way::locks;
use super::{Bounds, Part, table};
use crate::common::bench::{Bench, workspace};
use crate::common::terraform::Terraform;
use crate::common::{BUCKET, KEYS, Workspace};

const TITLE: &str = "Terraform beside the action";

/// Who keeps the two apart.
#[derive(Debug, Clone, Copy)]
struct Locking {
    name: &'static str,
    /// The input `lock`.
    input: &'static str,
    /// Terraform's argument.
    argument: &'static str,
    /// How a run of the action that comes second may end, beside having done all.
    gives_way: Option<&'static str>,
}

const WITHOUT: Locking = Locking {
    name: "without a lock",
    input: "none",
    argument: "-lock=false",
    gives_way: Some("concurrent-writes"),
};
/// The action waits for a lock 60 seconds, and a round of Terraform takes one or two.
const WITH: Locking = Locking {
    name: "with the S3 lock",
    input: "s3",
    argument: "-lock-timeout=60s",
    gives_way: None,
};
const MODES: [&str; 2] = ["apply", "rollback"];
/// How much longer than it should take it may take on a slow machine until each side has done
/// something.
const SLOW: u32 = 10;

/// The number that a module of this round has as its output.
fn module(workspace: &Workspace, round: u64) {
    let text = format!("resource \"terraform_data\" \"this\" {{\n  input = {round}\n}}\n");
    std::fs::write(workspace.module("infra").join("main.tf"), text).unwrap();
}

/// Terraform was refused a lock, and the holder had released it when Terraform asked who that
/// is. It waits only for a holder that it knows of (`-lock-timeout` or not), and so gives up,
/// having written nothing (internal/states/statemgr/locker.go, `LockWithContext`).
fn gave_up_at_a_released_lock(log: &str) -> bool {
    // It breaks lines by their width.
    let log = log.split_whitespace().collect::<Vec<_>>().join(" ");
    let said =
        ["Error acquiring the state lock", "unable to retrieve file from S3 bucket", "NoSuchKey"];
    said.iter().all(|text| log.contains(text))
}

/// What the loop of the action has done, by mode.
#[derive(Default)]
struct Done {
    runs: [AtomicUsize; 2],
    gave_way: [AtomicUsize; 2],
    /// States, by all of them.
    rekeyed: AtomicUsize,
}

impl Done {
    /// It has shown something.
    fn shows(&self) -> bool {
        let something = |done: &AtomicUsize| done.load(Ordering::Relaxed) > 0;
        self.runs.iter().all(something) && something(&self.rekeyed)
    }
}

/// What the loop of Terraform has done.
struct Written {
    /// `terraform apply` that went through, each with a serial of its own.
    rounds: u64,
    /// Those that had to be run again for a lock that was gone.
    again: u64,
}

/// One `terraform apply` after the other, each with the old backend.tf or with the new one
/// in turn, as long as it goes on.
fn writer(
    bench: &Bench,
    terraform: &Terraform,
    goes_on: impl Fn() -> bool,
    lock: Locking,
) -> Result<Written> {
    let environment = bench.lab.env("deploy");
    let folder = bench.workspace.module("infra");
    let (mut round, mut again) = (0, 0);
    while goes_on() {
        round += 1;
        let key = if round % 2 == 0 { bench.key.as_str() } else { "" };
        let backend = bench.variables("deploy", "backend", key, &[("INPUT_LOCK", lock.input)]);
        let ran = bench.workspace.run(&backend);
        ensure!(ran.code == 0, "mode backend\n{}", ran.log);
        module(&bench.workspace, round);
        terraform.init(&environment, &folder);
        let arguments = ["apply", "-auto-approve", "-input=false", lock.argument, "-no-color"];
        loop {
            let (code, log) = terraform.call(&environment, &folder, &arguments);
            if code == 0 {
                break;
            }
            ensure!(gave_up_at_a_released_lock(&log), "terraform apply no. {round}: {log}");
            again += 1;
            // A lock that is never had would go round for ever.
            ensure!(again <= round, "terraform apply no. {round}, again and again: {log}");
        }
    }
    Ok(Written { rounds: round, again })
}

/// `apply` and `rollback` in turn, from a checkout of its own, until it is over.
fn rekeyer(bench: &Bench, over: &AtomicBool, done: &Done, lock: Locking) -> Result<()> {
    let checkout = workspace();
    for at in [0, 1].into_iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let (mode, key) = (MODES[at], [bench.key.as_str(), ""][at]);
        let more = [("INPUT_PROBE", "off"), ("INPUT_LOCK", lock.input)];
        let ran = checkout.run(&bench.variables("deploy", mode, key, &more));
        let reason = ran.output("failure-reason");
        let how = match (ran.code, reason) {
            (0, "") => &done.runs,
            (1, reason) if Some(reason) == lock.gives_way => &done.gave_way,
            (code, reason) => bail!("{mode} ended with {code}: {reason}\n{}", ran.log),
        };
        how[at].fetch_add(1, Ordering::Relaxed);
        let rekeyed = ran.output("rekeyed").parse().unwrap_or(0);
        done.rekeyed.fetch_add(rekeyed, Ordering::Relaxed);
    }
    Ok(())
}

/// Both loops side by side, one way and the other.
pub async fn part(bounds: Bounds) -> Result<Part> {
    let Some(terraform) = Terraform::find() else {
        let text = "SKIPPED: terraform is not on PATH.".to_owned();
        return Ok(Part { title: TITLE, text, defects: Vec::new() });
    };
    let (mut defects, mut rows) = (Vec::new(), Vec::new());
    for lock in [WITHOUT, WITH] {
        match side_by_side(bounds, &terraform, lock).await {
            Ok(more) => rows.extend(
                more.into_iter().map(|(what, number)| vec![lock.name.to_owned(), what, number]),
            ),
            Err(error) => defects.push(format!("{}: {error:#}", lock.name)),
        }
    }
    let text = format!(
        "For {} seconds each, on one state: `terraform apply` in a loop, with the old backend.tf and the new \
         one in turn, and `apply` and `rollback` in a loop beside it. Every round of Terraform must be there, \
         no serial may go back, the last plan must be clean, and both modes must have done their work: with \
         the lock always, without it in some runs. Terraform gives up at once, whatever its \
         `-lock-timeout`, where a lock that it was refused is released before it has read who holds it; it is \
         then run again.\n\n{}",
        bounds.seconds,
        table(&["", "", "number"], &rows)
    );
    Ok(Part { title: TITLE, text, defects })
}

async fn side_by_side(
    bounds: Bounds,
    terraform: &Terraform,
    lock: Locking,
) -> Result<Vec<(String, String)>> {
    // Only Terraform's own state is there: what is re-keyed is what both are at.
    let bench = Bench::with(Topology::Roles, |world| {
        KEYS.iter().for_each(|key| world.remove_object(BUCKET, key));
    })
    .await;
    let (over, done) = (AtomicBool::new(false), Done::default());
    let (began, wanted) = (Instant::now(), Duration::from_secs(bounds.seconds));
    let goes_on = || {
        let passed = began.elapsed();
        passed < wanted || !done.shows() && passed < wanted * SLOW
    };
    let (written, ended) = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let rekeyer = scope.spawn(|| rekeyer(&bench, &over, &done, lock));
            let written = writer(&bench, terraform, goes_on, lock);
            over.store(true, Ordering::Relaxed);
            (written, rekeyer.join())
        })
    });
    ended.map_err(|_| anyhow::anyhow!("the re-keying loop panicked"))??;
    let Written { rounds, again } = written?;
    ensure!(done.shows(), "in {:.0?} not every mode has done something", began.elapsed());
    let mut rows = vec![("`terraform apply`".to_owned(), rounds.to_string())];
    if again > 0 {
        rows.push(("run again, the lock being gone".to_owned(), again.to_string()));
    }
    for (how, runs) in [("done", &done.runs), ("gave way", &done.gave_way)] {
        for (mode, runs) in MODES.iter().zip(runs) {
            rows.push((format!("`{mode}` {how}"), runs.load(Ordering::Relaxed).to_string()));
        }
    }
    let kept = tokio::task::block_in_place(|| kept(&bench, terraform, rounds))?;
    rows.extend(kept.into_iter().map(|(what, number)| (what.to_owned(), number)));
    ensure!(locks(&bench, &KEYS).is_empty(), "a lock was left behind");
    Ok(rows)
}

/// That nothing of what Terraform wrote was lost.
fn kept(bench: &Bench, terraform: &Terraform, rounds: u64) -> Result<[(&'static str, String); 4]> {
    let versions: Vec<Value> = {
        let world = bench.lab.world();
        let versions = world.versions(BUCKET, KEYS[0]).iter();
        versions.map(|version| serde_json::from_slice(&version.body)).collect::<Result<_, _>>()?
    };
    let mut serials: Vec<u64> = Vec::new();
    let mut inputs: Vec<u64> = Vec::new();
    for version in &versions {
        serials.push(version["serial"].as_u64().context("a serial")?);
        let input = &version["resources"][0]["instances"][0]["attributes"]["input"]["value"];
        inputs.extend(input.as_u64());
    }
    ensure!(serials.is_sorted(), "a serial went back: {serials:?}");
    let copies = serials.len();
    serials.dedup();
    inputs.dedup();
    ensure!(copies > serials.len(), "nothing was ever re-keyed: {serials:?}");
    ensure!(inputs == (1..=rounds).collect::<Vec<_>>(), "a round is missing: {inputs:?}");
    let code = terraform.plan(&bench.lab, "deploy", &bench.workspace.module("infra"));
    ensure!(code == 0, "the last plan is not clean (exit {code})");
    Ok([
        ("versions of the state", copies.to_string()),
        ("of them re-keys", (copies - serials.len()).to_string()),
        ("serials lost", "0".into()),
        ("last plan", "no changes".into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lock_that_is_gone_is_tried_again() {
        let gone = "Error: Error acquiring the state lock\n\nunable to retrieve file from S3 bucket 'b' with\nkey \
                    'k.tflock': operation error S3: GetObject, StatusCode: 404, NoSuchKey:";
        assert!(gave_up_at_a_released_lock(gone));
        assert!(gave_up_at_a_released_lock(&gone.replace("from S3", "from\nS3")));
        for other in ["NoSuchKey", "Error acquiring the state lock"] {
            assert!(!gave_up_at_a_released_lock(&gone.replace(other, "")), "{other}");
        }
    }
}
