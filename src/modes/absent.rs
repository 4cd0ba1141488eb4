//! States that were named, or expected by a pattern, and are not there.

use super::Run;
use super::looked::Looked;
use crate::aws::AwsError;
use crate::check::{Failure, FailureReason};
use crate::inputs::Mode;
use crate::layout::{Layout, Pattern};
use crate::names::{may_be_state, printable, some_of};
use crate::plan::Goal;
use crate::survey::{Found, Survey};

/// How many objects of the bucket a message names.
const SHOWN: usize = 10;
/// How many are asked for: a page may begin with lock objects.
const ASKED: i32 = 50;

/// What is to be said of states that are not there.
#[derive(Debug, Default)]
pub(super) struct Absences {
    pub(super) warnings: Vec<String>,
    /// What forbids the run.
    pub(super) refusals: Vec<Failure>,
    /// What `verify` has not been able to verify.
    pub(super) unverified: Option<Failure>,
}

impl Run<'_> {
    /// Judges what is not there. Only where nothing was found, and there is a key to be used or
    /// a rollback, this takes a request: what is in the bucket shows which name is wrong.
    pub(super) async fn absences(&self, goal: &Goal, looked: &Looked) -> Absences {
        let (layout, survey) = (&self.request.layout, &looked.survey);
        let missing = Missing::of(layout, survey);
        let mut there = String::new();
        if *goal != Goal::Unset && (missing.all || !survey.unmatched.is_empty()) {
            there = tokio::select! {
                listed = looked.bucket.some_keys(ASKED) => in_the_bucket(&self.request.bucket, listed),
                () = self.cancelled.asked() => String::new(),
            };
        }
        let mut absences = Absences::default();
        if *goal != Goal::Unset || self.request.require_state {
            absences.refusals = survey.unmatched.iter().map(|p| unmatched(p, &there)).collect();
        }
        if *goal == Goal::Unset || missing.names.is_empty() {
            return absences;
        }
        if missing.all && self.request.mode == Mode::Verify {
            absences.unverified = Some(nothing_to_verify(&missing, &there));
        } else if missing.all {
            absences.warnings.push(greenfield(goal, &missing, &there));
        } else if !layout.patterns.is_empty() {
            absences.warnings.push(format!(
                "{} not exist, so `verified` is false: correct `state-keys`, or leave out what is not there yet",
                missing.subject()
            ));
        }
        absences
    }
}

/// The named states that do not exist.
struct Missing {
    names: Vec<String>,
    /// None of the named ones exists.
    all: bool,
}

impl Missing {
    fn of(layout: &Layout, survey: &Survey) -> Self {
        let named: Vec<&str> = layout.keys().map(|(_, key)| key).collect();
        let is_absent = |key: &&&str| {
            let state = survey.states.iter().find(|state| state.key == **key);
            state.is_some_and(|state| matches!(state.found, Found::Absent { .. }))
        };
        let names: Vec<String> = named.iter().filter(is_absent).map(|key| printable(key)).collect();
        Self { all: !names.is_empty() && names.len() == named.len(), names }
    }

    fn list(&self) -> String {
        some_of(self.names.iter().map(|name| format!("`{name}`")), SHOWN, ", ")
    }

    fn subject(&self) -> String {
        let verb = if self.names.len() == 1 { "does" } else { "do" };
        format!("{} {verb}", self.list())
    }
}

fn unmatched(pattern: &Pattern, there: &str) -> Failure {
    let message = match pattern {
        Pattern::Below(prefix) => format!("there is no state below `{prefix}`"),
        Pattern::Workspaces { key, .. } => {
            format!(
                "no workspace has a state: nothing matches `{pattern}`, and `{key}` does not exist"
            )
        }
        Pattern::WholeBucket => "there is no state in the bucket".to_owned(),
    };
    Failure::new(
        FailureReason::StateMissing,
        format!("{message}{there}"),
        "Correct that line in `state-keys`, or `bucket` and `environment`; leave the line out until the first \
         state is there",
    )
}

fn greenfield(goal: &Goal, missing: &Missing, there: &str) -> String {
    let then = match goal {
        Goal::Under(_) => "Terraform's first write puts them under the key; if",
        Goal::Unset | Goal::SseS3 => "If",
    };
    format!(
        "none of the states exists yet: {}{there}. {then} they should be there already, correct `bucket`, \
         `environment` or `state-keys`",
        missing.list()
    )
}

fn nothing_to_verify(missing: &Missing, there: &str) -> Failure {
    Failure::new(
        FailureReason::StateMissing,
        format!(
            "none of the states exists, so there is nothing to verify: {}{there}",
            missing.list()
        ),
        "Correct `bucket`, `environment` or `state-keys`; for a new environment, run mode `verify` after the first \
         apply",
    )
}

/// The beginning of the bucket's listing, as the end of a sentence.
fn in_the_bucket(bucket: &str, listed: Result<(Vec<String>, bool), AwsError>) -> String {
    let (keys, more) = match listed {
        Ok(listed) => listed,
        Err(error) => return format!(" (what is in {bucket} could not be listed: {error})"),
    };
    let keys: Vec<&String> = keys.iter().filter(|key| may_be_state(key)).collect();
    if keys.is_empty() && !more {
        return format!(" ({bucket} is empty)");
    }
    let shown: Vec<String> =
        keys.iter().take(SHOWN).map(|key| format!("`{}`", printable(key))).collect();
    let rest = if more || keys.len() > shown.len() { ", and more" } else { "" };
    format!(" ({bucket} holds {}{rest})", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_objects_are_named_and_no_locks() {
        let keys = |n: usize| (0..n).map(|n| format!("k{n}")).collect::<Vec<_>>();
        let said = in_the_bucket("b", Ok((keys(12), false)));
        assert!(said.contains("`k9`, and more") && !said.contains("k10"), "{said}");
        let mixed = vec!["a/".to_owned(), "a/x.tflock".to_owned(), "a/x".to_owned()];
        assert_eq!(in_the_bucket("b", Ok((mixed, false))), " (b holds `a/x`)");
        assert_eq!(in_the_bucket("b", Ok((Vec::new(), false))), " (b is empty)");
    }
}
