//! The old versions of the states: looked at in every mode, re-keyed where that is asked for.

use std::collections::BTreeSet;

use super::Run;
use super::looked::Looked;
use crate::aws::{Bucket, Keys};
use crate::check::{Failure, FailureReason};
use crate::history::{self, History, Listed, RekeyedVersions};
use crate::inputs::{History as HistoryMode, Mode, Strategy};
use crate::names::some_of;
use crate::plan::Goal;
use crate::report::Report;
use crate::survey::Survey;

impl Run<'_> {
    /// Old versions can only go in place, whatever the states are re-keyed by.
    fn versions_may_go(&self, looked: &Looked) -> bool {
        self.request.strategy == Strategy::InPlace || !looked.aws.custom_endpoint()
    }

    /// The states of which old versions are to be re-keyed.
    pub(super) fn states_with_versions(&self, looked: &Looked) -> BTreeSet<String> {
        let rekeys = self.request.history == HistoryMode::Rekey && self.request.mode == Mode::Apply;
        let history = looked.history.as_ref().filter(|_| rekeys && self.versions_may_go(looked));
        let versions = history.into_iter().flat_map(History::exposed);
        versions.filter(|old| old.can_go()).map(|old| old.key.clone()).collect()
    }

    /// Re-keys what may be re-keyed, and enters the check. `proven`: dry runs have shown that
    /// this principal may use the key.
    pub(super) async fn finish_history(
        &self,
        report: &mut Report,
        goal: &Goal,
        looked: &Looked,
        history: &mut History,
        may_write: bool,
        proven: bool,
    ) {
        let Some(key) = goal.key() else { return };
        let states = looked.survey.keys();
        let rekeys = self.request.history == HistoryMode::Rekey && self.request.mode == Mode::Apply;
        // An old version has no older one behind it: it must be certain to stay readable.
        let readable = proven
            || report.objects.iter().any(|row| {
                let now = row.after.as_ref().filter(|_| row.read_at.is_some());
                now.is_some_and(|now| now.kms_key.as_deref() == Some(key.as_str()))
            });
        let wanted = rekeys && may_write && report.failures.is_empty();
        let stay = history.exposed().filter(|old| !old.can_go()).count();
        if rekeys && stay > 0 {
            report.warnings.push(format!(
                "{stay} old versions stay readable without the key: S3 re-encrypts no unencrypted or DSSE version \
                 in place. Let them age out (see the check history), or delete them"
            ));
        }
        let blocked = if !wanted || !history.exposed().any(history::Old::can_go) {
            None
        } else if !self.versions_may_go(looked) {
            Some(
                "it is done by S3's UpdateObjectEncryption, which a server that does not know it takes for an \
                 overwrite; it is not sent to this endpoint unless `strategy: in-place` is set",
            )
        } else if !readable {
            Some("nothing has shown yet that this principal reads what is under the key")
        } else {
            let rekey = history::RekeyVersions {
                bucket: &looked.bucket,
                budget: &looked.budget,
                kms_key: key.as_str(),
                careful: looked.aws.custom_endpoint(),
                versioned: looked.versioned(),
            };
            let before = history.clone();
            let ended = tokio::select! {
                all = rekey.run(history, || self.cancelled.is_set()) => Some(all),
                () = self.cancelled.grace_over() => None,
            };
            let all = ended.unwrap_or_else(|| {
                // What was in hand is re-encrypted, or not.
                *history = before;
                history.unseen(&states, "the run was stopped while old versions were re-keyed");
                let mut all = RekeyedVersions { wrote: true, ..Default::default() };
                if rekey.careful {
                    all.problems.push(
                        "the run was stopped before it had seen what became of a request; a server that does \
                         not know the operation may have overwritten the current state with it: run mode \
                         `verify`, and do not write the states before"
                            .to_owned(),
                    );
                }
                all
            });
            self.log.line(&format!("old versions re-keyed in place: {}", all.done));
            report.changed |= all.wrote;
            if !all.problems.is_empty() && all.wrote {
                let keys = looked.aws.keys();
                self.look_at_old_versions_again(&looked.bucket, &keys, &states, history).await;
            }
            if !all.archived.is_empty() {
                report.warnings.push(format!(
                    "{} archived noncurrent versions stay readable without the key, since S3 does not re-encrypt \
                     them: {}. Restore them (aws s3api restore-object --version-id) and re-run, or let them age out",
                    all.archived.len(),
                    some_of(all.archived, 10, ", ")
                ));
            }
            if !all.problems.is_empty() {
                report.failures.push(Failure::new(
                    FailureReason::HistoryRekey,
                    some_of(all.problems, 10, "; "),
                    "It needs s3:UpdateObjectEncryption, s3:GetObjectVersion, kms:Encrypt, kms:Decrypt, \
                     kms:GenerateDataKey and kms:ReEncrypt*; a locked version cannot be changed",
                ));
            }
            None
        };
        if let Some(why) = blocked {
            report.warnings.push(format!("`history: rekey` did nothing: {why}"));
        }
        let settings = looked.settings.as_ref();
        let versioned = settings.and_then(|found| found.versioning.as_ref().ok().copied());
        // A bucket that has never had versioning names no version; one where it is suspended
        // names `null`, and may keep older ones (S3 User Guide, "Working with objects in a
        // versioning-suspended bucket").
        let mut seen =
            looked.survey.states.iter().filter_map(|state| state.found.seen()).peekable();
        let unnamed = seen.peek().is_some() && seen.all(|seen| seen.version_id.is_none());
        if versioned == Some(false) && unnamed {
            history.never_versioned();
        }
        report.exposed_versions = history.output();
        let check = history.check(&self.request.bucket, &states, versioned);
        let required = self.request.history == HistoryMode::Require
            && report.failures.is_empty()
            && !history.is_closed();
        if required && matches!(self.request.mode, Mode::Apply | Mode::Verify) {
            report.failures.push(Failure::new(
                FailureReason::VersionsExposed,
                format!("`history: require`: {}", check.evidence),
                check.remedy.clone().unwrap_or_else(|| {
                    "Grant s3:ListBucketVersions on the bucket, and s3:GetObjectVersion on the states".to_owned()
                }),
            ));
        }
        report.checks.push(check);
    }

    /// Lists and looks at the old versions of these states anew, which others, or a restore,
    /// may have made more of.
    pub(super) async fn look_at_old_versions_again(
        &self,
        bucket: &Bucket,
        keys: &Keys,
        states: &[String],
        history: &mut History,
    ) {
        let before = &*history;
        let again = async {
            let listed = history::list(bucket, states).await;
            let mut later = history::look(bucket, listed, before.target()).await;
            later.ask_for_managers(keys, before.managers().clone()).await;
            later
        };
        let later = tokio::select! {
            later = again => Some(later),
            () = self.cancelled.asked() => None,
        };
        match later {
            Some(later) => history.replace(states, later),
            None => history.unseen(states, "the run was stopped before it was looked at again"),
        }
    }
}

/// The states whose versions are to be listed anew, and so are taken out of the listing: it was
/// made beside the survey, and the two have not met the same version of these.
pub(super) fn to_list_again(listed: &mut Option<Listed>, survey: &Survey) -> Vec<String> {
    let mut again = Vec::new();
    let Some(listed) = listed else { return again };
    listed.retain(|(key, versions)| {
        let surveyed = survey.states.iter().find(|state| state.key == *key);
        // Not every server names a version when an object is read.
        let read = surveyed.and_then(|state| state.found.seen()?.version_id.as_ref());
        let current = versions.as_ref().ok().map(|versions| versions.current.as_ref());
        let same = read.is_none() || current.is_none_or(|current| current == read);
        if !same {
            again.push(key.clone());
        }
        same
    });
    again
}

/// The old versions of the states that were listed before, and of those that are to be listed
/// now.
pub(super) async fn old_versions(
    bucket: &Bucket,
    listed: Option<Listed>,
    now: &[String],
    target: &str,
) -> Option<History> {
    let mut listed = listed?;
    listed.extend(history::list(bucket, now).await);
    Some(history::look(bucket, listed, target).await)
}
