//! Carries a plan out: one state first where only S3 can tell, then the others side by side.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, StreamExt};

use super::{Run, findings};
use crate::aws::{Bucket, Budget, OldVersion, WriteAs};
use crate::check::{CheckId, Status};
use crate::denials::Remedies;
use crate::history::{History, Old};
use crate::inputs::Strategy;
use crate::plan::{self, Plan};
use crate::preflight::Access;
use crate::rekey::{Done, Outcome, Rekey};
use crate::report::Report;
use crate::survey::{Found, Readable, Survey};

/// Objects re-keyed at the same time.
const PARALLEL: usize = 32;

/// What the re-key works with.
pub(super) struct Job<'a, 'r> {
    pub run: &'a Run<'r>,
    pub bucket: &'a Bucket,
    pub budget: &'a Budget,
    pub survey: &'a mut Survey,
    pub plan: &'a Plan,
    pub access: Option<Access>,
    pub in_place: bool,
    /// The bucket keeps every version from now on.
    pub versioned: bool,
    /// What to do where S3 refuses a state.
    pub remedies: &'a Remedies,
}

/// One state to be re-keyed, with what the survey read.
struct Todo {
    at: usize,
    write: WriteAs,
    before: Readable,
}

/// Whether a state has a version to fall back on, in a bucket with versioning on or not.
pub(super) fn has_version(survey: &Survey, at: usize, versioned: bool) -> bool {
    survey.states[at].found.seen().is_some_and(|seen| seen.outlives(versioned).is_some())
}

impl Job<'_, '_> {
    /// The states to be re-keyed. Their bodies move out of the survey, so that each gives
    /// back its share of the memory with its end; those that are held already go first, since
    /// the others may have to wait for that.
    fn todo(&mut self) -> Vec<Todo> {
        let mut todo = Vec::new();
        for (at, write) in self.plan.rekeys() {
            // A plan re-keys readable states only.
            let Found::Readable(found) = &mut self.survey.states[at].found else { continue };
            let body = found.body.take();
            let before = Readable { body, ..(**found).clone() };
            todo.push(Todo { at, write: write.clone(), before });
        }
        todo.sort_by_key(|one| one.before.body.is_none());
        // Those that wait for their turn hold nothing: one that is under way may need the room,
        // for what another writer has made larger.
        todo.iter_mut().skip(PARALLEL).for_each(|one| one.before.body = None);
        todo
    }

    /// Returns what became of each state, by its place in the survey; `None`: not begun.
    pub async fn rekey(&mut self) -> Vec<(usize, Option<Done>)> {
        let mut todo = self.todo();
        let only_s3 = self.access == Some(Access::OnlyS3CanTell);
        let rekey = Rekey {
            bucket: self.bucket,
            budget: self.budget,
            // A state in place has no old version: where nothing has shown that it will be
            // readable, a run that is killed would leave it locked.
            in_place: AtomicBool::new(self.in_place && !only_s3),
            only_in_place: self.run.request.strategy == Strategy::InPlace,
            versioned: self.versioned,
        };
        let mut done = Vec::new();
        if only_s3 {
            let kept = |one: &Todo| has_version(self.survey, one.at, self.versioned);
            let first = todo.iter().position(kept).filter(|_| !self.run.cancelled.is_set());
            let Some(first) = first else {
                return todo.into_iter().map(|one| (one.at, None)).collect();
            };
            let first = todo.remove(first);
            // It may have to wait for room, which nobody else would give back.
            todo.iter_mut().for_each(|one| one.before.body = None);
            let state = &self.survey.states[first.at];
            self.run.log.line(&format!(
                "only S3 can tell whether the key may be used: one state goes first, {}, of which the version {} \
                 is kept as it is",
                plan::name(state),
                first.before.seen.version_id.as_deref().unwrap_or("null")
            ));
            let result = self.one(&rekey, &first.write, first.at, first.before).await;
            let good = matches!(result.outcome, Outcome::Rekeyed(_) | Outcome::ByAnother(_));
            done.push((first.at, Some(result)));
            if !good {
                done.extend(todo.into_iter().map(|one| (one.at, None)));
                return done;
            }
        }
        let stop = AtomicBool::new(false);
        let (stop, rekey, job) = (&stop, &rekey, &*self);
        let rest = stream::iter(todo)
            .map(|Todo { at, write, before }| async move {
                if stop.load(Ordering::Relaxed) || job.run.cancelled.is_set() {
                    return (at, None);
                }
                let done = job.one(rekey, &write, at, before).await;
                if matches!(
                    done.outcome,
                    Outcome::Restored { .. }
                        | Outcome::Superseded(..)
                        | Outcome::Lost { .. }
                        | Outcome::Ignored(_)
                        | Outcome::Changed(..)
                ) {
                    stop.store(true, Ordering::Relaxed);
                }
                (at, Some(done))
            })
            .buffer_unordered(PARALLEL)
            .collect::<Vec<_>>()
            .await;
        done.extend(rest);
        done
    }

    async fn one(&self, rekey: &Rekey<'_>, write: &WriteAs, at: usize, before: Readable) -> Done {
        tokio::select! {
            done = rekey.state(&self.survey.states[at].key, before, write) => done,
            () = self.run.cancelled.grace_over() => {
                let outcome = Outcome::Abandoned(self.run.cancelled.reason());
                Done { outcome, wrote: true, alone: false }
            }
        }
    }

    /// Enters the outcomes into the report, and what they left behind into the history.
    /// Returns the states of which others may have written versions, too: these are to be
    /// listed anew.
    pub fn settle(
        &self,
        report: &mut Report,
        results: &[(usize, Option<Done>)],
        mut history: Option<&mut History>,
    ) -> Vec<String> {
        let mut shared = Vec::new();
        for (at, done) in results {
            let Some(Done { outcome, wrote, alone }) = done else {
                let why = "not begun, since the run was stopped or another state failed";
                findings::skipped(&mut report.objects[*at], why);
                continue;
            };
            report.changed |= wrote;
            let state = &self.survey.states[*at];
            let failure =
                findings::settled(&mut report.objects[*at], state, outcome, self.remedies);
            self.run.log.line(&match (&failure, outcome) {
                (Some(failure), _) => format!("{}: FAILED, {}", plan::name(state), failure.message),
                (None, Outcome::ByAnother(_)) => format!(
                    "{}: another writer has written a newer state under the key; read",
                    plan::name(state)
                ),
                (None, _) => format!("{}: re-keyed and read back, same content", plan::name(state)),
            });
            report.failures.extend(failure);
            match (outcome, state.found.seen()) {
                (Outcome::Rekeyed(after), Some(seen)) if *alone => {
                    // Not every server names the version `null`.
                    let [was, is] = [&seen.version_id, &after.seen.version_id]
                        .map(|id| id.as_deref().unwrap_or("null"));
                    if was == is {
                        // In place, or a `null` over another: nothing is left behind.
                    } else if is == "null" {
                        // While versioning is suspended, a write ends an older `null`, too.
                        shared.push(state.key.clone());
                    } else if let Some(history) = &mut history {
                        let written_at = seen.last_modified;
                        let version = OldVersion { id: was.to_owned(), written_at };
                        let (key, encryption) = (state.key.clone(), seen.server_side.clone());
                        history.add(Old { key, version, encryption });
                    }
                }
                _ => shared.push(state.key.clone()),
            }
        }
        let first = results.first().and_then(|(_, done)| done.as_ref());
        if self.access == Some(Access::OnlyS3CanTell)
            && first.is_some_and(|done| matches!(done.outcome, Outcome::Rekeyed(_)))
        {
            shown_by_s3(report);
        }
        shared
    }
}

/// The first state was written and read under the key: that is better evidence than a dry run.
fn shown_by_s3(report: &mut Report) {
    for check in &mut report.checks {
        if matches!(check.id, CheckId::GrantKeyPolicy | CheckId::GrantIamPolicy)
            && matches!(check.status, Status::Unknown | Status::Fail)
        {
            check.status = Status::Warn;
            check.evidence = format!(
                "S3 has written and read a state under the key for this principal, though: {}",
                check.evidence
            );
        }
    }
}
