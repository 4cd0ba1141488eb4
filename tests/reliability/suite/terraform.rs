//! The real Terraform writes again and again, without a lock and with its own S3 lock, while
//! the action re-keys its state back and forth.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_lab::Topology;
use serde_json::Value;

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
    /// How a run of the action that comes second may end.
    gives_way: &'static str,
}

const WITHOUT: Locking = Locking {
    name: "without a lock",
    input: "none",
    argument: "-lock=false",
    gives_way: "concurrent-writes",
};
const WITH: Locking = Locking {
    name: "with the S3 lock",
    input: "s3",
    argument: "-lock-timeout=60s",
    gives_way: "state-locked",
};

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

/// What the loop of Terraform has done.
struct Written {
    /// `terraform apply` that went through, each with a serial of its own.
    rounds: u64,
    /// Those that had to be run again for a lock that was gone.
    again: u64,
}

/// One `terraform apply` after the other, each with the old backend.tf or with the new one
/// in turn.
fn writer(bench: &Bench, terraform: &Terraform, until: Instant, lock: Locking) -> Result<Written> {
    let environment = bench.lab.env("deploy");
    let folder = bench.workspace.module("infra");
    let (mut round, mut again) = (0, 0);
    while Instant::now() < until {
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

/// `apply` and `rollback` in turn, from a checkout of its own; how they ended.
fn rekeyer(bench: &Bench, over: &AtomicBool, lock: Locking) -> Result<BTreeMap<String, usize>> {
    let checkout = workspace();
    let mut ended = BTreeMap::new();
    let mut runs = 0;
    while !over.load(Ordering::Relaxed) {
        let (mode, key) = [("apply", bench.key.as_str()), ("rollback", "")][runs % 2];
        runs += 1;
        let more = [("INPUT_PROBE", "off"), ("INPUT_LOCK", lock.input)];
        let ran = checkout.run(&bench.variables("deploy", mode, key, &more));
        let reason = ran.output("failure-reason").to_owned();
        let known =
            (ran.code == 0) == reason.is_empty() && ["", lock.gives_way].contains(&reason.as_str());
        ensure!(known, "{mode} ended with {}: {reason}\n{}", ran.code, ran.log);
        let how = if reason.is_empty() { "done" } else { "gave way" };
        *ended.entry(format!("`{mode}` {how}")).or_default() += 1;
    }
    Ok(ended)
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
         no serial may go back, and the last plan must be clean. Terraform gives up at once, whatever its \
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
    let bench = Bench::with(Topology::Roles, |world| world.remove_object(BUCKET, KEYS[0])).await;
    let over = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(bounds.seconds);
    let (written, ended) = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let rekeyer = scope.spawn(|| rekeyer(&bench, &over, lock));
            let written = writer(&bench, terraform, until, lock);
            over.store(true, Ordering::Relaxed);
            (written, rekeyer.join())
        })
    });
    let ended = ended.map_err(|_| anyhow::anyhow!("the re-keying loop panicked"))??;
    let Written { rounds, again } = written?;
    let mut rows = vec![("`terraform apply`".to_owned(), rounds.to_string())];
    if again > 0 {
        rows.push(("run again, the lock being gone".to_owned(), again.to_string()));
    }
    rows.extend(ended.iter().map(|(how, runs)| (how.clone(), runs.to_string())));
    let kept = tokio::task::block_in_place(|| kept(&bench, terraform, rounds))?;
    rows.extend(kept.into_iter().map(|(what, number)| (what.to_owned(), number)));
    let locks = KEYS
        .iter()
        .filter(|key| bench.lab.world().current(BUCKET, &format!("{key}.tflock")).is_some());
    ensure!(locks.count() == 0, "a lock was left behind");
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
