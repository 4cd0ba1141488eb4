//! Every operation fails in every manner, once and always.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aws_lab::{Effect, Matcher};

use super::way::{Way, With};
use super::{Bounds, Part, canary, defects, each, table};
use crate::common::Ran;
use crate::common::bench::Bench;

/// Every operation of the first two is tried; of the others, those that come only there.
const WAYS: [Way; 6] = [
    Way { mode: "apply", with: With::Guards, in_place: false },
    Way { mode: "rollback", with: With::Guards, in_place: false },
    Way { mode: "apply", with: With::Everything, in_place: false },
    Way { mode: "apply", with: With::Refusal, in_place: false },
    Way { mode: "apply", with: With::Guards, in_place: true },
    Way { mode: "apply", with: With::History, in_place: true },
];

/// An interrupted run ends within this time.
const PATIENCE: f64 = 7.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Error(u16, &'static str),
    /// No answer.
    Timeout,
    /// No answer, and the run is interrupted a second later.
    Interrupted,
    ResetBefore,
    ResetAfter,
    Truncated,
    /// An error in an answer of status 200, as CopyObject has them.
    ErrorIn200,
}

const FAULTS: [Fault; 11] = [
    Fault::Error(500, "InternalError"),
    Fault::Error(503, "SlowDown"),
    Fault::Error(429, "TooManyRequests"),
    Fault::Error(400, "ExpiredToken"),
    Fault::Error(403, "RequestTimeTooSkewed"),
    Fault::ErrorIn200,
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::Truncated,
    Fault::Timeout,
    Fault::Interrupted,
];

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Error(status, code) => format!("{status} {code}"),
            Self::Timeout => "no answer".into(),
            Self::Interrupted => "no answer, SIGINT".into(),
            Self::ResetBefore => "reset before".into(),
            Self::ResetAfter => "reset after".into(),
            Self::Truncated => "truncated".into(),
            Self::ErrorIn200 => "error in a 200".into(),
        }
    }

    fn effect(self) -> Effect {
        match self {
            Self::Error(status, code) => Effect::fail(status, code),
            Self::Timeout | Self::Interrupted => Effect::Timeout,
            Self::ResetBefore => Effect::ResetBefore,
            Self::ResetAfter => Effect::ResetAfter,
            Self::Truncated => Effect::Truncate,
            Self::ErrorIn200 => Effect::fail(200, "InternalError"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    way: Way,
    operation: &'static str,
    fault: Fault,
    always: bool,
}

/// What a run came to: nothing, for success, or the failure reason.
async fn spoiled(case: Case) -> Result<String> {
    let Case { way, operation, fault, always } = case;
    let bench = way.bench().await;
    let matcher = Matcher::every(operation);
    let matcher = if always { matcher } else { matcher.nth(1) };
    bench.lab.inject(matcher, fault.effect());
    let ran = match fault {
        Fault::Interrupted => interrupted(&bench, way, operation)?,
        Fault::Timeout => way.run_with(&bench, &[("TFSTATE_KMS_ATTEMPT_TIMEOUT", "2")]),
        _ => way.run(&bench),
    };
    way.intact(&bench)?;
    canary::not_shown(&bench, &ran.log)?;
    let reason = ran.outputs.get("failure-reason").cloned().unwrap_or_default();
    if ran.code == 0 {
        ensure!(reason.is_empty(), "green, and yet {reason}");
        ensure!(way.done(&bench) == way.keys().len(), "green, and a state is not as wanted");
    } else {
        ensure!(!reason.is_empty(), "failed without a reason (exit {})\n{}", ran.code, ran.log);
        ensure!(reason != "internal", "internal\n{}", ran.log);
        ensure!(reason != "concurrent-writes", "blames others\n{}", ran.log);
        let told = ran.log.lines().any(|line| line.starts_with("::error title="));
        ensure!(told, "no annotation\n{}", ran.log);
    }
    bench.lab.clear_faults();
    way.to_the_end(&bench)?;
    Ok(reason)
}

/// Interrupts a run a second after it began to wait for the answer.
fn interrupted(bench: &Bench, way: Way, operation: &str) -> Result<Ran> {
    let variables = way.variables(bench);
    tokio::task::block_in_place(|| {
        let mut child = bench.workspace.start(&variables);
        let asked = || bench.lab.log().iter().any(|entry| entry.operation == operation);
        while child.try_wait()?.is_none() && !asked() {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_secs(1));
        let pid = child.id().to_string();
        if child.try_wait()?.is_none() {
            std::process::Command::new("kill").args(["-INT", &pid]).status()?;
        }
        let began = Instant::now();
        let ran = bench.workspace.finish(child, &variables);
        let seconds = began.elapsed().as_secs_f64();
        ensure!(seconds < PATIENCE, "it took {seconds:.1} s to end");
        Ok(ran)
    })
}

/// What an undisturbed run calls.
async fn operations(way: Way) -> BTreeSet<&'static str> {
    let bench = way.bench().await;
    way.converged(&bench, &way.run(&bench)).expect("an undisturbed run");
    let log = bench.lab.log();
    // A handful of names, for the life of the process.
    log.into_iter().map(|entry| &*entry.operation.leak()).collect()
}

/// Each operation with each fault.
pub async fn part(bounds: Bounds) -> Result<Part> {
    let mut rows: Vec<(Way, &str)> = Vec::new();
    for (at, way) in WAYS.into_iter().enumerate() {
        // The same operation for another end: the restore, an old version.
        let again: &[&str] = match way.with {
            With::Refusal => &["CopyObject", "PutObject"],
            With::History => &["UpdateObjectEncryption"],
            _ => &[],
        };
        for operation in operations(way).await {
            let new = !rows.iter().any(|(_, known)| *known == operation);
            if at < 2 || new || again.contains(&operation) {
                rows.push((way, operation));
            }
        }
    }
    let mut cases = Vec::new();
    for (way, operation) in &rows {
        for fault in FAULTS {
            if fault == Fault::ErrorIn200 && *operation != "CopyObject" {
                continue;
            }
            let case = |always| Case { way: *way, operation, fault, always };
            cases.extend([case(false), case(true)]);
        }
    }
    let tried = bounds.of(cases);
    let total = tried.len();
    let outcomes = each(tried, 8, spoiled).await;

    let mut cells: BTreeMap<(String, &str, Fault), [String; 2]> = BTreeMap::new();
    let (mut good, mut clear) = (0, 0);
    for (case, outcome) in &outcomes {
        let cell = match outcome {
            Ok(reason) if reason.is_empty() => {
                good += 1;
                "✓".to_owned()
            }
            Ok(reason) => {
                clear += 1;
                reason.clone()
            }
            Err(_) => "**defect**".into(),
        };
        let both = cells.entry((case.way.name(), case.operation, case.fault)).or_default();
        both[usize::from(case.always)] = cell;
    }
    let mut head = vec!["run".to_owned(), "operation".to_owned()];
    head.extend(FAULTS.map(Fault::name));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(way, operation)| {
            let cell = |fault| {
                cells.get(&(way.name(), *operation, fault)).map_or(
                    "–".into(),
                    |[once, always]| {
                        if once == always { once.clone() } else { format!("{once} / {always}") }
                    },
                )
            };
            let mut row = vec![way.name(), format!("`{operation}`")];
            row.extend(FAULTS.map(cell));
            row
        })
        .collect();
    let text = format!(
        "Each operation that a run calls fails in each manner, its first time / every time. ✓ is \
         success: by another attempt, or since the operation only adds to the report. Otherwise the \
         cell has the failure reason. Without an answer an attempt is given up after two seconds here \
         (`TFSTATE_KMS_ATTEMPT_TIMEOUT`); one more column interrupts the run after one, and it must end \
         within {PATIENCE} s. Whatever came, the bytes must be those of before, under the encryption of \
         before or the one that is wanted, and an undisturbed run must converge.\n\n\
         **{total} cases: {good} successes, {clear} clear errors, {} others.**\n\n{}",
        total - good - clear,
        table(&head, &rows)
    );
    Ok(Part { title: "Faults", text, defects: defects(&outcomes) })
}
