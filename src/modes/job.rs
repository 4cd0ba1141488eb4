//! Carries a plan out: one state first where only S3 can tell, then the others side by side.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, StreamExt};

use super::{Run, findings};
use crate::aws::{Bucket, Budget, OldVersion, WriteAs};
use crate::check::{CheckId, Failure, FailureReason, Status};
use crate::history::History;
use crate::plan::{self, Plan};
use crate::preflight::Access;
use crate::rekey::{self, Outcome};
use crate::report::Report;
use crate::survey::{Found, Survey};

/// Objects re-keyed at the same time.
const PARALLEL: usize = 32;

/// What the re-key works with.
pub(super) struct Job<'a, 'r> {
    pub run: &'a Run<'r>,
    pub bucket: &'a Bucket,
    pub budget: &'a Budget,
    pub survey: &'a Survey,
    pub plan: &'a Plan,
    pub access: Option<Access>,
    pub in_place: bool,
}

/// Whether a state has a version to fall back on.
pub(super) fn has_version(survey: &Survey, at: usize) -> bool {
    survey.states[at].found.seen().is_some_and(|seen| seen.version_id.is_some())
}

impl Job<'_, '_> {
    /// Returns the outcome of each state that was begun, by its place in the survey.
    pub async fn rekey(&self) -> Vec<(usize, Option<Outcome>)> {
        let mut todo: Vec<(usize, WriteAs)> =
            self.plan.rekeys().map(|(at, write)| (at, write.clone())).collect();
        let mut done = Vec::new();
        if self.access == Some(Access::OnlyS3CanTell) {
            let first = todo.iter().position(|(at, _)| has_version(self.survey, *at));
            let Some(first) = first else { return done };
            let (at, write) = todo.remove(first);
            self.run.log.line("only S3 can tell whether the key may be used: one state goes first");
            let outcome = self.one(at, &write).await;
            let good = matches!(outcome, Outcome::Rekeyed(_) | Outcome::ByAnother(_));
            done.push((at, Some(outcome)));
            if !good {
                done.extend(todo.into_iter().map(|(at, _)| (at, None)));
                return done;
            }
        }
        let stop = AtomicBool::new(false);
        let stop = &stop;
        let rest = stream::iter(todo)
            .map(|(at, write)| async move {
                if stop.load(Ordering::Relaxed) || self.run.cancelled.is_set() {
                    return (at, None);
                }
                let outcome = self.one(at, &write).await;
                if matches!(outcome, Outcome::Restored(_) | Outcome::Lost { .. }) {
                    stop.store(true, Ordering::Relaxed);
                }
                (at, Some(outcome))
            })
            .buffer_unordered(PARALLEL)
            .collect::<Vec<_>>()
            .await;
        done.extend(rest);
        done
    }

    async fn one(&self, at: usize, write: &WriteAs) -> Outcome {
        let state = &self.survey.states[at];
        let Found::Readable(before) = &state.found else {
            // A plan re-keys readable states only.
            return Outcome::Vanished;
        };
        rekey::rekey(self.bucket, self.budget, &state.key, before, write, self.in_place).await
    }

    /// Enters the outcomes into the report, and what they left behind into the history.
    pub fn settle(
        &self,
        report: &mut Report,
        outcomes: &[(usize, Option<Outcome>)],
        history: Option<&mut History>,
    ) {
        let mut left_behind = Vec::new();
        for (at, outcome) in outcomes {
            let Some(outcome) = outcome else {
                let why = "not begun, since the run was stopped or the first state failed";
                findings::skipped(&mut report.objects[*at], why);
                continue;
            };
            let state = &self.survey.states[*at];
            let failure = findings::settled(&mut report.objects[*at], state, outcome);
            if matches!(
                outcome,
                Outcome::Rekeyed(_)
                    | Outcome::Changed(..)
                    | Outcome::Restored(_)
                    | Outcome::Lost { .. }
            ) {
                report.changed = true;
            }
            self.run.log.line(&match &failure {
                Some(failure) => format!("{}: FAILED, {}", plan::name(state), failure.message),
                None => format!("{}: re-keyed and read back, same content", plan::name(state)),
            });
            report.failures.extend(failure);
            if let (Outcome::Rekeyed(after), Some(seen)) = (outcome, state.found.seen()) {
                // A copy leaves the former version behind; in place, there is none.
                if seen.version_id.is_some() && seen.version_id != after.seen.version_id {
                    left_behind.push((state.key.clone(), seen));
                }
            }
        }
        if let Some(history) = history {
            let target = self.run.request.key.as_ref().map_or("", |key| key.as_str());
            for (key, seen) in left_behind {
                let version = OldVersion {
                    id: seen.version_id.clone().unwrap_or_default(),
                    written_at: seen.last_modified.clone(),
                };
                history.add(key, version, &seen.server_side, target);
            }
        }
        if self.access == Some(Access::OnlyS3CanTell)
            && matches!(outcomes.first(), Some((_, Some(Outcome::Rekeyed(_)))))
        {
            shown_by_s3(report);
        }
        if self.run.cancelled.is_set() {
            report.failures.push(Failure::new(
                FailureReason::Cancelled,
                "the run was cancelled; states that were in hand are finished, the others untouched",
                "Run again: what is done is not done twice",
            ));
        }
    }
}

/// The first state was written and read under the key: that is better evidence than a dry run.
fn shown_by_s3(report: &mut Report) {
    for check in &mut report.checks {
        if matches!(check.id, CheckId::GrantKeyPolicy | CheckId::GrantIamPolicy)
            && check.status == Status::Unknown
        {
            check.status = Status::Warn;
            check.evidence = format!(
                "S3 has written and read a state under the key for this principal, though: {}",
                check.evidence
            );
        }
    }
}
