//! Other workflow runs that may be writing the states, or carry an old backend.tf. Pure.
//!
//! Every run that is active counts, older or newer, but for those that are known to do
//! nothing but stand at this same check: of these the one that began first goes first, so
//! that two never wait for one another. That is sound because the later one cannot have
//! passed the check already: it looked after it had begun, and so the earlier one had begun
//! and was active at its every look. «Begun» is therefore the first job's start, not the
//! time at which the run was asked for.

pub mod workflows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_smithy_types::DateTime;

use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::github::{ApiError, Job, WorkflowRun};
use crate::names::{printable, some_of};

/// Whose runs are looked for (input `in-flight`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InFlight {
    /// All workflows of the repository that may write states, this one, and these files. Not
    /// having the right to look is a warning, but for named files.
    Auto(Vec<String>),
    /// These files. Not being able to look is an error.
    Files(Vec<String>),
    /// Nobody's.
    None,
}

/// The workflows whose runs count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workflows {
    /// Their files.
    pub files: BTreeSet<String>,
    /// Where they were found in a checkout: its other files. A workflow that the checkout does
    /// not have may be another branch's, and its runs count too.
    pub others: Option<BTreeSet<String>>,
    /// What they run that could not be looked into.
    pub unseen: BTreeSet<String>,
}

impl Workflows {
    fn concern(&self, run: &WorkflowRun) -> bool {
        let elsewhere = |others: &BTreeSet<String>| {
            let is_file = run.workflow.ends_with(".yml") || run.workflow.ends_with(".yaml");
            is_file && !others.contains(&run.workflow)
        };
        self.files.contains(&run.workflow) || self.others.as_ref().is_some_and(elsewhere)
    }
}

impl std::fmt::Display for Workflows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = self.files.iter().map(|file| printable(file));
        write!(f, "workflows looked at: {}", some_of(files, 20, ", "))?;
        if self.others.is_some() {
            f.write_str(", and any that this checkout does not have")?;
        }
        f.write_str("; not seen: other repositories")?;
        if !self.unseen.is_empty() {
            write!(f, ", {}", some_of(self.unseen.iter().cloned(), 10, ", "))?;
        }
        Ok(())
    }
}

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The workflows.
    pub workflows: Workflows,
    /// A branch, or `*`.
    pub branch: &'a str,
    /// This run's id.
    pub own: u64,
    /// The name of this job's runner, by which it is found among the run's jobs.
    pub runner: Option<&'a str>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Runs to be waited for.
    pub busy: Vec<WorkflowRun>,
    /// Runs that have been held back (for an approval, or by a concurrency group) since before
    /// this job: they carry a backend.tf of before, and waiting does not help.
    pub stale: Vec<WorkflowRun>,
    /// A run was let pass since it stands at this same check.
    pub by_step: bool,
    /// Whose runs were looked for.
    pub workflows: Workflows,
    /// Why a later look failed; then these are the runs of the last one that did not.
    pub later: Option<Blind>,
}

impl Found {
    /// Nobody is in the way.
    pub fn is_clear(&self) -> bool {
        self.busy.is_empty() && self.stale.is_empty()
    }
}

/// Why it cannot be said which runs are active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blind {
    /// What happened.
    pub why: String,
    /// What to do about it.
    pub remedy: &'static str,
    /// The job has no right to look: looking again does not help, and `in-flight: auto` lets
    /// it pass with a warning.
    pub no_right: bool,
    /// Seconds since 1970 before which GitHub answers no more requests.
    pub until: Option<u64>,
}

impl Blind {
    /// Without a right to look.
    pub fn no_right(why: impl Into<String>, remedy: &'static str) -> Self {
        Self { why: why.into(), remedy, no_right: true, until: None }
    }

    /// For a reason that may pass, or be mended.
    pub fn failed(why: impl Into<String>, remedy: &'static str) -> Self {
        Self { why: why.into(), remedy, no_right: false, until: None }
    }
}

impl From<ApiError> for Blind {
    fn from(error: ApiError) -> Self {
        let why = error.to_string();
        match error {
            ApiError::Forbidden(_) | ApiError::NotFound(_) => Self::no_right(
                why,
                "Give the job `permissions: actions: read`, or set `in-flight: none` where nothing else \
                 writes these states",
            ),
            ApiError::RateLimited(until) => Self {
                until: Some(until),
                ..Self::failed(
                    why,
                    "Run again after that, or let this step wait with `in-flight-timeout` (seconds)",
                )
            },
            ApiError::Unavailable(_) | ApiError::Other(_) => Self::failed(
                why,
                "Run again when GitHub answers, or let this step wait with `in-flight-timeout` (seconds); \
                 `in-flight: none` does without, where nothing else writes these states",
            ),
        }
    }
}

/// A look at a repository: its active runs, and the jobs of those that [`to_examine`] names,
/// as far as they could be had.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// All active runs, this one included.
    pub runs: Vec<WorkflowRun>,
    /// By the run's id.
    pub jobs: BTreeMap<u64, Vec<Job>>,
}

/// The runs that concern the question.
fn concerned<'r>(question: &Question<'_>, runs: &'r [WorkflowRun]) -> Vec<&'r WorkflowRun> {
    runs.iter()
        .filter(|run| run.id != question.own && question.workflows.concern(run))
        .filter(|run| question.branch == "*" || run.branch == question.branch)
        .collect()
}

/// The runs whose jobs have to be known for a judgement: none, where nobody is active.
pub fn to_examine(question: &Question<'_>, runs: &[WorkflowRun]) -> Vec<u64> {
    let examined = ["in_progress", "waiting", "pending"];
    let others: Vec<u64> = concerned(question, runs)
        .iter()
        .filter(|run| examined.contains(&run.status.as_str()))
        .map(|run| run.id)
        .collect();
    if others.is_empty() { others } else { [vec![question.own], others].concat() }
}

/// Whether a run was asked for before this job began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// It may have built its backend.tf from the variable of before.
    Before,
    /// It has built it from the variable of today.
    After,
    /// GitHub does not show yet when this job began; a later look can tell.
    Unclear,
}

/// Who is in the way. What is not known is taken for the worse.
pub fn judge(question: &Question<'_>, look: &Look) -> Found {
    let own_jobs = look.jobs.get(&question.own);
    let own_job = own_jobs.and_then(|jobs| {
        let runner = |job: &&Job| Some(job.runner.as_str()) == question.runner;
        let running = |job: &&Job| job.status == "in_progress" && job.started_at.is_some();
        jobs.iter().filter(running).find(runner)
    });
    let own_run = look.runs.iter().find(|run| run.id == question.own);
    let own_began = own_run.and_then(|run| began(run, own_jobs?));
    let mut found = Found { workflows: question.workflows.clone(), ..Found::default() };
    for run in concerned(question, &look.runs) {
        let jobs = look.jobs.get(&run.id);
        // A re-run of failed jobs works with the files of the first attempt.
        let asked = match (own_job, own_run) {
            (Some(job), _) if is_later(run.created_at, job.started_at) => Asked::After,
            (None, Some(own)) if is_later(run.created_at, own.started_at) => Asked::Unclear,
            _ => Asked::Before,
        };
        let held_back = ["completed", "waiting", "pending"];
        let under_way = jobs
            .is_none_or(|jobs| jobs.iter().any(|job| !held_back.contains(&job.status.as_str())));
        // Then it has nothing of before.
        let has_not_begun = !run.again && jobs.is_some_and(|jobs| !jobs.iter().any(Job::has_begun));
        match (run.status.as_str(), asked) {
            ("pending", _) if has_not_begun => {}
            ("waiting", Asked::Before) => found.stale.push(run.clone()),
            ("pending", Asked::Before) if !under_way => found.stale.push(run.clone()),
            ("waiting" | "pending", Asked::After) if !under_way => {}
            _ => {
                let step = own_job.and_then(|job| job.step.as_deref());
                let at_this_check = step.zip(jobs).is_some_and(|(step, jobs)| only_at(step, jobs));
                let theirs = jobs.and_then(|jobs| began(run, jobs));
                let later = theirs
                    .zip(own_began)
                    .is_some_and(|(theirs, ours)| (theirs, run.id) > (ours, question.own));
                if at_this_check && later {
                    found.by_step = true;
                } else {
                    found.busy.push(run.clone());
                }
            }
        }
    }
    found
}

/// When a run began in truth: the start of its attempt's first job that had a runner. It does
/// not change any more once there is one, so that two runs see the same.
fn began(run: &WorkflowRun, jobs: &[Job]) -> Option<DateTime> {
    let mut first = None;
    for job in jobs.iter().filter(|job| job.has_begun()) {
        // One of which it is not known may be the first.
        let started = job.started_at?;
        // A re-run of failed jobs lists those of before as well.
        if started >= run.started_at? && first.is_none_or(|first| started < first) {
            first = Some(started);
        }
    }
    first
}

/// Surely later: a time of which only the second is known may be any of that second, and one that
/// is not known any at all.
fn is_later(one: Option<DateTime>, other: Option<DateTime>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one.secs() > other.secs())
}

/// All that a run is doing is this step.
fn only_at(step: &str, jobs: &[Job]) -> bool {
    let mut open = jobs.iter().filter(|job| job.status != "completed").peekable();
    open.peek().is_some()
        && open.all(|job| job.status == "in_progress" && job.step.as_deref() == Some(step))
}

/// How long to pause between two looks, having waited this long already. A look takes about ten
/// requests, and a job's token has 1,000 an hour for the whole repository (docs.github.com,
/// «Rate limits for the REST API»).
pub fn pause(waited: Duration, patience: Duration) -> Duration {
    let (least, most) = (Duration::from_secs(15), Duration::from_secs(120));
    // A short patience wants a few looks all the same.
    (waited / 5).clamp(least, most).min((patience / 20).max(Duration::from_secs(1)))
}

fn list(runs: &[WorkflowRun]) -> String {
    let shown = runs.iter().map(|run| {
        let (workflow, status) = (printable(&run.workflow), printable(&run.status));
        format!("{workflow} ({status}) {}", printable(&run.url))
    });
    some_of(shown, 10, ", ")
}

/// The check and, where a write is to follow, the refusal.
pub fn report(
    found: &Result<Found, Blind>,
    strict: bool,
    writes: bool,
) -> (Check, Option<Failure>) {
    let refusal = |evidence: &str, remedy: &str| {
        Some(Failure::new(FailureReason::RunInFlight, evidence, remedy))
    };
    let (status, evidence, remedy, failure) = match found {
        Ok(found) if found.is_clear() => {
            let evidence = format!("no other run is active; {}", found.workflows);
            return (Check::new(CheckId::NoRunInFlight, Status::Pass, evidence), None);
        }
        Ok(found) => {
            let (mut evidence, remedy) = if found.stale.is_empty() {
                (
                    format!("queued or running: {}", list(&found.busy)),
                    "Wait until it has ended, or let this step wait with `in-flight-timeout` (seconds). One that is \
                     queued for the very runner that this job has cannot begin: cancel it",
                )
            } else {
                (
                    format!(
                        "held back, for an approval or by a concurrency group, since before this job, with a \
                         backend.tf of before: {}",
                        list(&found.stale)
                    ),
                    "Reject it, or cancel it and, after this run, re-run all of its jobs (not the failed ones alone, \
                     which keep the old file): if it goes on, its Terraform writes the state back as it was",
                )
            };
            evidence.push_str(&format!("; {}", found.workflows));
            if let Some(blind) = &found.later {
                evidence.push_str(&format!("; the last look failed ({})", blind.why));
            }
            let failure = refusal(&evidence, remedy);
            (Status::Fail, evidence, remedy, failure)
        }
        Err(blind) => {
            let evidence = format!("unknown ({})", blind.why);
            let failure =
                (strict || !blind.no_right).then(|| refusal(&evidence, blind.remedy)).flatten();
            (Status::Unknown, evidence, blind.remedy, failure)
        }
    };
    // A run that only looks says what it sees.
    let status = if status == Status::Fail && !writes { Status::Warn } else { status };
    let check = Check::new(CheckId::NoRunInFlight, status, evidence).remedy(remedy);
    (check, failure.filter(|_| writes))
}

#[cfg(test)]
mod tests;
