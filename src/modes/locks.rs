//! Takes Terraform's locks before a re-key, and releases them on every way out.

use std::collections::BTreeSet;

use super::Run;
use super::looked::Looked;
use crate::aws::{Bucket, WriteAs};
use crate::check::{Failure, FailureReason};
use crate::github;
use crate::inputs::Lock;
use crate::lock::{self, LockInfo, Refused};
use crate::names::printable;
use crate::plan::{Goal, Plan};
use crate::report::Report;
use crate::survey::{Found, Survey};

impl Run<'_> {
    /// Locks the states that are to be re-keyed, or of which old versions are; returns whether
    /// the run may go on.
    pub(super) async fn lock(
        &self,
        report: &mut Report,
        goal: &Goal,
        looked: &Looked,
        plan: &Plan,
    ) -> bool {
        if self.request.lock != Lock::S3 {
            return true;
        }
        let Looked { bucket, survey, .. } = looked;
        let mut to_lock = self.states_with_versions(looked);
        to_lock.extend(plan.rekeys().map(|(at, _)| survey.states[at].key.clone()));
        if to_lock.is_empty() {
            self.look_for_locks(report, bucket, survey, &to_lock).await;
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
                () = self.look_for_locks(report, bucket, survey, &to_lock) => {}
                () = self.cancelled.asked() => {}
            }
        };
        let (taken, ()) = tokio::join!(taking, looking);
        match taken {
            Ok(false) => false,
            Ok(true) => {
                self.log.line(&format!("{} locks taken", infos.len()));
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
        survey: &Survey,
        to_lock: &BTreeSet<String>,
    ) {
        let others = survey.states.iter().filter(|state| {
            !to_lock.contains(&state.key) && matches!(state.found, Found::Readable(_))
        });
        let others = others.map(|state| state.key.clone()).collect();
        for (key, by) in lock::on(bucket, others).await {
            if by.is_of_this_program() {
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
