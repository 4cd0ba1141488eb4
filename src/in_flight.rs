//! Other workflow runs that may be writing the states, or carry an old backend.tf. Pure.
//!
//! Every run that is active counts, older or newer, but for those that are known to stand
//! at this same check: of these the earlier one goes first, so that two never wait for one
//! another. That is sound because the later one cannot have passed the check already: the
//! earlier one was active at its every look.

use std::collections::BTreeSet;

use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::github::WorkflowRun;
use crate::names::{printable, some_of};

/// Whose runs are looked for (input `in-flight`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InFlight {
    /// The usual files as far as the repository has them, and this workflow. Not being able
    /// to look is a warning.
    Auto,
    /// These files. Not being able to look is an error.
    Files(Vec<String>),
    /// Nobody's.
    None,
}

/// The workflows of cabal-infra that write states.
pub const USUAL: [&str; 3] = ["infra.yml", "quiesce.yml", "destroy_terraform.yml"];

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The workflow files.
    pub files: BTreeSet<String>,
    /// A branch, or `*`.
    pub branch: &'a str,
    /// This run's id.
    pub own: u64,
    /// When this run began, where that is known.
    pub began: Option<&'a str>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Runs to be waited for.
    pub busy: Vec<WorkflowRun>,
    /// Runs that have waited for an approval since before this one: they carry a backend.tf
    /// of before, and waiting does not help.
    pub stale: Vec<WorkflowRun>,
}

impl Found {
    /// Nobody is in the way.
    pub fn is_clear(&self) -> bool {
        self.busy.is_empty() && self.stale.is_empty()
    }
}

/// The runs that concern the question.
pub fn concerned<'r>(question: &Question<'_>, runs: &'r [WorkflowRun]) -> Vec<&'r WorkflowRun> {
    runs.iter()
        .filter(|run| run.id != question.own && question.files.contains(&run.workflow))
        .filter(|run| question.branch == "*" || run.branch == question.branch)
        .collect()
}

/// Who is in the way. `at_this_check` are runs that are known to stand at this check, too.
pub fn judge(
    question: &Question<'_>,
    runs: &[WorkflowRun],
    at_this_check: &BTreeSet<u64>,
) -> Found {
    let mut found = Found::default();
    for run in concerned(question, runs) {
        let before = question
            .began
            .is_none_or(|began| (run.started_at.as_str(), run.id) < (began, question.own));
        if run.status == "waiting" {
            // A later one has built its backend.tf from the variable of today.
            if before {
                found.stale.push(run.clone());
            }
        } else if before || !at_this_check.contains(&run.id) {
            found.busy.push(run.clone());
        }
    }
    found
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
    found: &Result<Found, String>,
    strict: bool,
    writes: bool,
) -> (Check, Option<Failure>) {
    let id = CheckId::NoRunInFlight;
    let (check, failure) = match found {
        Ok(found) if !found.stale.is_empty() => {
            let evidence = format!(
                "waiting for an approval since before this run, with a backend.tf of before: {}",
                list(&found.stale)
            );
            let remedy = "Reject it, or cancel it and run it again after this one: if it is approved, its \
                          Terraform writes the state back as it was";
            let failure = Failure::new(FailureReason::RunInFlight, evidence.clone(), remedy);
            (Check::new(id, Status::Fail, evidence).remedy(remedy), Some(failure))
        }
        Ok(found) if !found.busy.is_empty() => {
            let evidence = format!("queued or running: {}", list(&found.busy));
            let remedy =
                "Wait until it has ended, or let this step wait with `in-flight-timeout` (seconds)";
            let failure = Failure::new(FailureReason::RunInFlight, evidence.clone(), remedy);
            (Check::new(id, Status::Fail, evidence).remedy(remedy), Some(failure))
        }
        Ok(_) => (Check::new(id, Status::Pass, "no other run of these workflows is active"), None),
        Err(why) => {
            let evidence = format!("unknown ({why})");
            let remedy = "Give the job `permissions: actions: read`, or set `in-flight: none` where nothing \
                          else writes these states";
            let failure =
                strict.then(|| Failure::new(FailureReason::RunInFlight, evidence.clone(), remedy));
            (Check::new(id, Status::Unknown, evidence).remedy(remedy), failure)
        }
    };
    // A run that only looks says what it sees.
    match check.status {
        Status::Fail if !writes => (Check { status: Status::Warn, ..check }, None),
        _ => (check, failure.filter(|_| writes)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(id: u64, status: &str, started_at: &str) -> WorkflowRun {
        WorkflowRun {
            id,
            workflow: "infra.yml".into(),
            status: status.into(),
            branch: "main".into(),
            started_at: started_at.into(),
            url: format!("https://github.com/o/r/actions/runs/{id}"),
        }
    }

    fn question(own: u64, began: &str) -> Question<'_> {
        let files = ["infra.yml".to_owned()].into();
        Question { files, branch: "*", own, began: Some(began) }
    }

    #[test]
    fn who_counts() {
        let at = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let judged = |runs: &[WorkflowRun], here: &[u64]| {
            let found = judge(&question(5, "t5"), runs, &at(here));
            let ids = |runs: &[WorkflowRun]| runs.iter().map(|run| run.id).collect::<Vec<_>>();
            (ids(&found.busy), ids(&found.stale))
        };
        // Itself does not, everyone else does, older or newer.
        let all =
            [run(5, "in_progress", "t5"), run(4, "queued", "t4"), run(6, "in_progress", "t6")];
        assert_eq!(judged(&all, &[]), (vec![4, 6], vec![]));
        // At this same check, the earlier goes first.
        assert_eq!(judged(&all, &[4, 6]), (vec![4], vec![]));
        // An approval: only one that has waited since before is a hindrance.
        let waiting = [run(4, "waiting", "t4"), run(6, "waiting", "t6")];
        assert_eq!(judged(&waiting, &[]), (vec![], vec![4]));
        // Not knowing when this run began, all are from before.
        let unknown = Question { began: None, ..question(5, "") };
        assert_eq!(judge(&unknown, &waiting, &at(&[])).stale.len(), 2);
        let other = Question { branch: "release", ..question(5, "t5") };
        assert!(judge(&other, &all, &at(&[])).is_clear());
    }

    proptest! {
        /// However they start: of two that see one another at the check, exactly one waits.
        #[test]
        fn two_at_the_check_never_wait_for_one_another(a in 0_u64..50, b in 0_u64..50, s in 0..3, t in 0..3) {
            prop_assume!(a != b);
            let (s, t) = (format!("t{s}"), format!("t{t}"));
            let runs = [run(a, "in_progress", &s), run(b, "in_progress", &t)];
            let here = [a, b].into();
            let waits = |own, began: &str| !judge(&question(own, began), &runs, &here).is_clear();
            prop_assert!(waits(a, &s) != waits(b, &t));
        }
    }
}
