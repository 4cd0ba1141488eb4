//! Takes Terraform's locks before a re-key, and releases them on every way out.

use std::collections::BTreeSet;

use super::Run;
use super::backend_files::Files;
use super::looked::Looked;
use crate::aws::{Bucket, WriteAs};
use crate::backend::Locking;
use crate::check::{Failure, FailureReason};
use crate::github;
use crate::inputs::{Lock, Mode};
use crate::lock::{self, LockInfo, Refused};
use crate::names::printable;
use crate::plan::{Goal, Plan, Step};
use crate::report::Report;
use crate::survey::{Found, State};

impl Run<'_> {
    /// Whether this run takes Terraform's lock in S3 before it writes a state.
    fn takes_lock(&self, locking: Option<&Locking>) -> bool {
        match self.request.lock {
            Lock::S3 => true,
            Lock::None => false,
            Lock::Auto => locking.is_some_and(|locking| locking.in_s3),
        }
    }

    /// Looks at the locks that this run does not take, of the states that it is about to re-key;
    /// and at those of states that are not there yet: a first apply may be about to write one.
    /// Returns the failures.
    pub(super) async fn locks_of_others(
        &self,
        report: &mut Report,
        goal: &Goal,
        looked: &Looked,
        plan: &Plan,
        files: &Files<'_>,
    ) -> Vec<Failure> {
        let (mut in_s3, mut in_tables) = (Vec::new(), Vec::new());
        if !matches!(self.request.mode, Mode::Apply | Mode::Rollback) || *goal == Goal::Unset {
            return Vec::new();
        }
        let mut absent = BTreeSet::new();
        for (state, step) in looked.survey.states.iter().zip(&plan.steps) {
            let locking = files.locking(state.module.as_deref());
            let takes = self.takes_lock(locking);
            let is_absent = matches!(state.found, Found::Absent { .. });
            let rekeyed = matches!(step, Step::Rekey(_));
            // Where the block is seen and declares no lock, Terraform takes none.
            let may_be = !takes && (locking.is_none() || self.request.lock == Lock::None);
            if (rekeyed && may_be) || (is_absent && takes) {
                in_s3.push(state.key.clone());
            }
            let table = locking.and_then(|locking| locking.table.clone());
            if let (Some(table), true) = (table, rekeyed || is_absent) {
                in_tables.push((state.key.clone(), table));
            }
            if is_absent {
                absent.insert(state.key.clone());
            }
        }
        let bucket = &looked.bucket;
        let (objects, items) = tokio::join!(
            lock::on(bucket, in_s3),
            lock::in_tables(&looked.aws, bucket.name(), in_tables)
        );
        let mut failures = Vec::new();
        for (key, found) in objects {
            match found {
                Ok(Some(by)) if absent.contains(&key) => {
                    let (holder, id) = (by.holder(), printable(&by.id));
                    failures.push(failure(&Refused::Held { key, holder, id }));
                }
                Ok(Some(by)) => report.warnings.push(locked(&key, "", &by, TAKES_NONE)),
                Ok(None) => {}
                Err(error) => self.log.line(&format!(
                    "state `{}`: whether Terraform's lock in S3 is held is unknown ({error})",
                    printable(&key)
                )),
            }
        }
        for (key, table, found) in items {
            let (state, table) = (printable(&key), printable(&table));
            match found {
                Ok(Some(by)) => {
                    let place = format!(" in the DynamoDB table {table}");
                    report.warnings.push(locked(&key, &place, &by, TAKES_NO_ITEM));
                }
                Ok(None) => {}
                Err(error) => report.warnings.push(format!(
                    "state `{state}`: whether its lock in the DynamoDB table {table} is held is unknown ({error}). \
                     Grant dynamodb:GetItem on the table, and run no apply meanwhile"
                )),
            }
        }
        failures
    }

    /// Locks the states that are to be re-keyed, or of which old versions are; returns whether
    /// the run may go on.
    pub(super) async fn lock(
        &self,
        report: &mut Report,
        goal: &Goal,
        looked: &Looked,
        plan: &Plan,
        files: &Files<'_>,
    ) -> bool {
        let Looked { bucket, survey, .. } = looked;
        let with_versions = self.states_with_versions(looked);
        let takes = |state: &&State| self.takes_lock(files.locking(state.module.as_deref()));
        let states: Vec<&State> = survey.states.iter().filter(takes).collect();
        if states.is_empty() {
            return true;
        }
        let rekeyed: BTreeSet<&String> =
            plan.rekeys().map(|(at, _)| &survey.states[at].key).collect();
        let keys = states.iter().map(|state| &state.key);
        let to_lock: BTreeSet<String> = keys
            .filter(|key| rekeyed.contains(key) || with_versions.contains(*key))
            .cloned()
            .collect();
        if to_lock.is_empty() {
            self.look_for_locks(report, bucket, &states, &to_lock).await;
            return true;
        }
        self.log.group("Locks");
        let url = github::run_url(self.environment);
        let variable = |name| self.environment.get(name).unwrap_or("unknown");
        let who = format!("{}@{}", variable("GITHUB_ACTOR"), variable("GITHUB_REPOSITORY"));
        let mode = self.request.mode.as_str();
        let info = |key: &String| LockInfo::new(mode, &who, url.as_deref(), bucket.name(), key);
        let infos: Vec<(String, LockInfo)> =
            to_lock.iter().map(|key| (key.clone(), info(key))).collect();
        let write = match goal.key() {
            Some(key) => WriteAs::Kms(key.as_str().to_owned()),
            None => WriteAs::S3,
        };
        let waits = |key: &str, holder: &str| {
            self.log.line(&format!("waiting for the lock of `{key}`: {holder}"));
        };
        let patience = self.request.lock_timeout;
        let taking = self.locks.take(bucket, &infos, &write, patience, self.cancelled, waits);
        let looking = async {
            tokio::select! {
                () = self.look_for_locks(report, bucket, &states, &to_lock) => {}
                () = self.cancelled.asked() => {}
            }
        };
        let (taken, ()) = tokio::join!(taking, looking);
        match taken {
            Ok(false) => false,
            Ok(true) => {
                let locks = if infos.len() == 1 { "lock" } else { "locks" };
                self.log.line(&format!("{} {locks} taken", infos.len()));
                true
            }
            Err(refused) => {
                report.failures.extend(refused.iter().map(failure));
                false
            }
        }
    }

    /// Says which of the states that are not to be locked have a lock of this program's: of a
    /// run that was killed after it had re-keyed them, nobody else would.
    async fn look_for_locks(
        &self,
        report: &mut Report,
        bucket: &Bucket,
        states: &[&State],
        to_lock: &BTreeSet<String>,
    ) {
        let others = states.iter().filter(|state| {
            !to_lock.contains(&state.key) && matches!(state.found, Found::Readable(_))
        });
        let others = others.map(|state| state.key.clone()).collect();
        for (key, by) in lock::on(bucket, others).await {
            if let Ok(Some(by)) = by
                && by.is_of_this_program()
            {
                report.warnings.push(format!(
                    "state `{}` is locked: {}. {}{}",
                    printable(&key),
                    by.holder(),
                    IF_IT_IS_GONE,
                    printable(&by.id)
                ));
            }
        }
    }

    /// Releases what is held, before the states are only looked at.
    pub(super) async fn unlock(&self) {
        // What fails now is tried once more at the end of the run, and said then.
        let _ = self.locks.release().await;
    }
}

const TAKES_NONE: &str =
    "This run does not take it: set `lock: auto` or `lock: s3`, or run again when it is free";
const TAKES_NO_ITEM: &str = "This run takes no lock there: run again when it is free";

/// A lock of another that does not stop this run.
fn locked(key: &str, place: &str, by: &LockInfo, what: &str) -> String {
    format!("state `{}` is locked{place}: {}. {what}", printable(key), by.holder())
}

const IF_IT_IS_GONE: &str = "If that is gone, for instance a run that was killed, release the lock in the \
                             stack's folder: terraform force-unlock ";

/// A lock that stays behind.
pub(crate) fn not_released(problem: String) -> Failure {
    Failure::new(
        FailureReason::StateLocked,
        problem,
        "Until it is released, Terraform refuses to change this state",
    )
}

fn failure(refused: &Refused) -> Failure {
    let reason = FailureReason::StateLocked;
    match refused {
        Refused::Held { key, holder, id } => Failure::new(
            reason,
            format!("state `{key}` is locked: {holder}"),
            format!("Wait for its holder (`lock-timeout`, seconds). {IF_IT_IS_GONE}{id}"),
        ),
        Refused::NotReleasable { key, why } => Failure::new(
            reason,
            format!(
                "state `{key}` was not locked, since this principal could not release it ({why})"
            ),
            format!("Grant s3:DeleteObject on `{key}.tflock`, or set `lock: none`"),
        ),
        Refused::Failed { key, why } => Failure::new(
            reason,
            format!("state `{key}` could not be locked ({why})"),
            format!(
                "Grant s3:GetObject, s3:PutObject and s3:DeleteObject on `{key}.tflock`, and the key that it is \
                 under, if it is there; one that a killed run has left and nobody can read is an object to be \
                 deleted. No state was changed"
            ),
        ),
    }
}
