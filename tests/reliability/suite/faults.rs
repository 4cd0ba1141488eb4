//! Every operation fails in every manner, once and always.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aws_lab::{Effect, Matcher, Struck};

use super::way::{Way, With, named_locks, way};
use super::{Bounds, Part, canary, defects, each, table};
use crate::common::bench::Bench;
use crate::common::{KEYS, Ran};

/// Every operation of the first two is tried; of the others, those that come only there.
const WAYS: [Way; 13] = [
    way("apply", With::Guards, false),
    way("rollback", With::Guards, false),
    way("apply", With::Others, false),
    way("apply", With::Everything, false),
    way("rollback", With::Everything, false),
    way("apply", With::Refusal, false),
    way("apply", With::Guards, true),
    way("apply", With::History, true),
    way("create-key", With::Nothing, false),
    way("retire-key", With::Nothing, false),
    way("retire-key", With::Needed, false),
    way("recover-key", With::Nothing, false),
    way("revoke", With::Nothing, false),
];

/// The same operation once more, for another end.
fn again(way: Way) -> &'static [&'static str] {
    match (way.mode, way.with) {
        (_, With::Others) => &["ListRepositoryRuns"],
        ("rollback", With::Everything) => &["CopyObject", "PutObject", "DeleteObject"],
        // The restore; an old version.
        (_, With::Refusal) => &["CopyObject", "PutObject"],
        (_, With::History) => &["UpdateObjectEncryption"],
        // What shows that a key is needed.
        (_, With::Needed) => {
            &["DescribeKey", "GetBucketConfiguration", "HeadObject", "ListObjectVersions"]
        }
        ("retire-key" | "recover-key" | "revoke", _) => &["DescribeKey"],
        _ => &[],
    }
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// An operation.
    Every(&'static str),
    /// The same, on the lock of one state alone.
    OfTheLock(&'static str),
    /// The second reading of one state, which follows its re-key.
    ReadBack,
}

/// Those that are less than an operation.
const SINGLE: [(Way, Target); 6] = [
    (way("apply", With::Everything, false), Target::OfTheLock("GetObject")),
    (way("apply", With::Everything, false), Target::OfTheLock("PutObject")),
    (way("rollback", With::Everything, false), Target::OfTheLock("PutObject")),
    (way("apply", With::Nothing, false), Target::ReadBack),
    (way("apply", With::Nothing, true), Target::ReadBack),
    (way("rollback", With::Nothing, false), Target::ReadBack),
];

impl Target {
    fn name(self) -> String {
        match self {
            Self::Every(operation) => format!("`{operation}`"),
            Self::OfTheLock(operation) => format!("`{operation}` of a lock"),
            Self::ReadBack => "`GetObject`, read back".into(),
        }
    }

    fn matcher(self, always: bool) -> Matcher {
        let (matcher, first) = match self {
            Self::Every(operation) => (Matcher::every(operation), 1),
            Self::OfTheLock(operation) => {
                (Matcher::every(operation).key(&format!("{}.tflock", KEYS[0])), 1)
            }
            Self::ReadBack => (Matcher::every("GetObject").key(KEYS[0]), 2),
        };
        if always { matcher.from(first) } else { matcher.nth(first) }
    }
}

/// A run ends by itself within this time, whatever it is answered.
const LIMIT: Duration = Duration::from_secs(240);
/// An interrupted run ends within this time.
const PATIENCE: f64 = 7.0;
/// An attempt is given up after two seconds.
const HURRY: [(&str, &str); 1] = [("TFSTATE_KMS_ATTEMPT_TIMEOUT", "2")];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Error(u16, &'static str),
    /// An error of some proxy's, though the request was carried out.
    After(u16),
    /// No answer.
    Timeout,
    /// No answer, and the run is interrupted a second later.
    Interrupted,
    ResetBefore,
    ResetAfter,
    Truncated,
    /// The answer stops in the middle.
    Stalled,
    /// An error in an answer of status 200, as CopyObject has them.
    ErrorIn200,
}

const FAULTS: [Fault; 13] = [
    Fault::Error(500, "InternalError"),
    Fault::Error(503, "SlowDown"),
    Fault::Error(429, "TooManyRequests"),
    Fault::Error(400, "ExpiredToken"),
    Fault::Error(403, "RequestTimeTooSkewed"),
    Fault::ErrorIn200,
    Fault::After(520),
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::Truncated,
    Fault::Stalled,
    Fault::Timeout,
    Fault::Interrupted,
];

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Error(status, code) => format!("{status} {code}"),
            Self::After(status) => format!("{status} after the deed"),
            Self::Timeout => "no answer".into(),
            Self::Interrupted => "no answer, SIGINT".into(),
            Self::ResetBefore => "reset before".into(),
            Self::ResetAfter => "reset after".into(),
            Self::Truncated => "truncated".into(),
            Self::Stalled => "stalled".into(),
            Self::ErrorIn200 => "error in a 200".into(),
        }
    }

    fn effect(self) -> Effect {
        match self {
            Self::Error(status, code) => Effect::fail(status, code),
            Self::After(status) => Effect::fail_after(status, "WebServerReturnedAnUnknownError"),
            Self::Timeout | Self::Interrupted => Effect::Timeout,
            Self::ResetBefore => Effect::ResetBefore,
            Self::ResetAfter => Effect::ResetAfter,
            Self::Truncated => Effect::Truncate,
            Self::Stalled => Effect::Stall,
            Self::ErrorIn200 => Effect::fail(200, "InternalError"),
        }
    }

    fn is_for(self, target: Target) -> bool {
        self != Self::ErrorIn200 || target == Target::Every("CopyObject")
    }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    way: Way,
    target: Target,
    fault: Fault,
    always: bool,
}

impl Case {
    /// A body that stops is waited for 20 seconds by the SDK, and asked for three times.
    fn takes_minutes(&self) -> bool {
        let reads = matches!(self.target, Target::Every("GetObject") | Target::ReadBack);
        self.fault == Fault::Stalled && self.always && reads
    }
}

/// What a run came to.
#[derive(Debug)]
struct Came {
    /// Nothing, for success, or the failure reason.
    reason: String,
    /// Locks that it has left, and said so.
    locks: usize,
    /// It has left its check run open, and said so.
    open: bool,
}

async fn spoiled(case: Case) -> Result<Came> {
    let Case { way, target, fault, always } = case;
    let bench = way.bench().await;
    let struck = bench.lab.inject(target.matcher(always), fault.effect());
    let ran = match fault {
        Fault::Interrupted => interrupted(&bench, way, &struck)?,
        Fault::Timeout | Fault::Stalled => way.run_within(&bench, &HURRY, LIMIT)?,
        _ => way.run_within(&bench, &[], LIMIT)?,
    };
    ensure!(struck.times() > 0, "it was never struck\n{}", ran.log);
    way.intact(&bench)?;
    let (changed, done) = (ran.output("changed"), way.done(&bench));
    ensure!(changed != "false" || done == 0, "{done} changed, and it says none\n{}", ran.log);
    canary::not_shown(&bench, &ran.log)?;
    let reason = ran.outputs.get("failure-reason").cloned().unwrap_or_default();
    if ran.code == 0 {
        ensure!(reason.is_empty(), "green, and yet {reason}");
        ensure!(done == way.all(), "green, and not all is as wanted");
    } else {
        ensure!(!reason.is_empty(), "failed without a reason (exit {})\n{}", ran.code, ran.log);
        ensure!(reason != "internal", "internal\n{}", ran.log);
        ensure!(reason != "concurrent-writes", "blames others\n{}", ran.log);
        let told = ran.log.lines().any(|line| line.starts_with("::error title="));
        ensure!(told, "no annotation\n{}", ran.log);
    }
    let locks = named_locks(&bench, &way.keys(), &ran)?.len();
    // From the interruption on S3 answers every release.
    ensure!(locks == 0 || fault != Fault::Interrupted, "{locks} locks were left\n{}", ran.log);
    let open = left_open(&bench, &ran)?;
    bench.lab.clear_faults();
    way.to_the_end(&bench)?;
    Ok(Came { reason, locks, open })
}

/// Whether the run has left its check run open. Then it has said so.
fn left_open(bench: &Bench, ran: &Ran) -> Result<bool> {
    let open = bench.lab.world().github.check_runs.iter().any(|one| one["status"] != "completed");
    let said = ["the check run could not be completed", "no check run could be posted"];
    let said = said.iter().any(|text| ran.log.contains(text));
    ensure!(!open || said, "its check run was left open, unsaid\n{}", ran.log);
    Ok(open)
}

/// Interrupts a run a second after it began to wait for the answer.
fn interrupted(bench: &Bench, way: Way, struck: &Struck) -> Result<Ran> {
    let variables = way.variables(bench);
    tokio::task::block_in_place(|| {
        let mut child = bench.workspace.start(&variables);
        while child.try_wait()?.is_none() && struck.times() == 0 {
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

/// What is to fail on which way: the rows of the table.
async fn targets() -> Vec<(Way, Target)> {
    let mut rows: Vec<(Way, Target)> = Vec::new();
    for (at, way) in WAYS.into_iter().enumerate() {
        for operation in operations(way).await {
            let target = Target::Every(operation);
            let new = !rows.iter().any(|(_, known)| *known == target);
            if at < 2 || new || again(way).contains(&operation) {
                rows.push((way, target));
            }
        }
    }
    rows.extend(SINGLE);
    rows
}

/// Each operation with each fault.
pub async fn part(bounds: Bounds) -> Result<Part> {
    let rows = targets().await;
    let mut cases = Vec::new();
    for (way, target) in &rows {
        for fault in FAULTS.into_iter().filter(|fault| fault.is_for(*target)) {
            let case = |always| Case { way: *way, target: *target, fault, always };
            cases.extend([case(false), case(true)]);
        }
    }
    if !bounds.is_whole() {
        cases.retain(|case| !case.takes_minutes());
    }
    let mut tried = bounds.of(cases.clone());
    // No column goes without a case.
    for (fault, always) in FAULTS.iter().flat_map(|fault| [(fault, false), (fault, true)]) {
        let of_it = |case: &&Case| case.fault == *fault && case.always == always;
        if !tried.iter().any(|case| of_it(&case)) {
            let own: Vec<&Case> = cases.iter().filter(of_it).collect();
            tried.push(*own[own.len() / 2]);
        }
    }
    let total = tried.len();
    let outcomes = each(tried, 10, spoiled).await;

    let mut cells: BTreeMap<(String, Target, Fault), [String; 2]> = BTreeMap::new();
    let (mut good, mut clear, mut left, mut open) = (0, 0, 0, 0);
    for (case, outcome) in &outcomes {
        let cell = match outcome {
            Ok(came) => {
                left += usize::from(came.locks > 0);
                open += usize::from(came.open);
                if came.reason.is_empty() {
                    good += 1;
                    "✓".to_owned()
                } else {
                    clear += 1;
                    came.reason.clone()
                }
            }
            Err(_) => "**defect**".into(),
        };
        let both = cells.entry((case.way.name(), case.target, case.fault)).or_default();
        both[usize::from(case.always)] = cell;
    }
    let mut head = vec!["run".to_owned(), "request".to_owned()];
    head.extend(FAULTS.map(Fault::name));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(way, target)| {
            let cell = |fault| {
                cells.get(&(way.name(), *target, fault)).map_or("–".into(), |[once, always]| {
                    if once == always { once.clone() } else { format!("{once} / {always}") }
                })
            };
            let mut row = vec![way.name(), target.name()];
            row.extend(FAULTS.map(cell));
            row
        })
        .collect();
    let text = format!(
        "Each operation that a run calls fails in each manner, its first time / every time; a lock's \
         requests and the reading back of a state also alone. ✓ is success: by another attempt, or since \
         the operation only adds to the report. Otherwise the cell has the failure reason. Each fault was \
         struck. «after the deed»: it is carried out, and a proxy answers with an error. «truncated» and \
         «stalled»: half of the answer comes, of its head where it has no body; then the connection is \
         closed, or stays open. There, and without an answer, an attempt is given up after two seconds \
         here (`TFSTATE_KMS_ATTEMPT_TIMEOUT`; a body that stops, by the SDK's own measure). One more \
         column interrupts the run after one second, and it must end within {PATIENCE} s, and leave no \
         lock. Whatever came, the bytes must be those of before, under the encryption of before or the \
         one that is wanted; the run must end by itself; each lock that is left must be named with the \
         command that releases it; a check run must be completed, or said not to be; and an undisturbed \
         run must converge.\n\n\
         **{total} cases: {good} successes, {clear} clear errors, {} others.** {left} runs left a lock, and \
         {open} a check run open, and said so.\n\n{}",
        total - good - clear,
        table(&head, &rows)
    );
    Ok(Part { title: "Faults", text, defects: defects(&outcomes) })
}
