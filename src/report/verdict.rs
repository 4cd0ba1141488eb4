//! The verdict: one judgement of the whole run, which headline, annotation, check run and output
//! all repeat.

use serde::Serialize;

use super::{Action, FileAction, Report};
use crate::check::{CheckId, Status};
use crate::inputs::Mode;

/// How far the states are protected, as far as this run has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every current state is under the key and was read back, and no noncurrent version that
    /// was looked for is readable without it.
    Protected,
    /// Every current state is; something else is not, or was not looked at.
    Partly,
    /// A rollback: the states are under SSE-S3, as was asked for.
    Unprotected,
    /// Something that was asked for does not hold.
    Failed,
}

impl Verdict {
    /// As the output `verdict` has it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::Partly => "partly",
            Self::Unprotected => "unprotected on purpose",
            Self::Failed => "failed",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// What is unknown in these leaves open whether a state can be read without the key.
const DECIDING: [CheckId; 7] = [
    CheckId::ObjectReadable,
    CheckId::ObjectEncrypted,
    CheckId::ObjectKey,
    CheckId::ContentUnchanged,
    CheckId::History,
    CheckId::Gate,
    CheckId::Replication,
];

/// The verdict on a run, with what it leaves open; `None` where no state was to be protected: in
/// modes that only write files, plan or act on a key, and without a key.
pub(super) fn of(report: &Report) -> (Option<Verdict>, Vec<String>) {
    let rollback = report.mode == Some(Mode::Rollback);
    // Without a mode the inputs were refused.
    if !report.mode.is_none_or(Mode::judges_states) {
        return (None, Vec::new());
    }
    if !report.failures.is_empty() {
        return (Some(Verdict::Failed), Vec::new());
    }
    if rollback {
        return (Some(Verdict::Unprotected), Vec::new());
    }
    if report.target.kms_key_arn.is_none() {
        return (None, Vec::new());
    }
    let open = open(report);
    let verdict = if open.is_empty() { Verdict::Protected } else { Verdict::Partly };
    (Some(verdict), open)
}

/// What keeps a run that has not failed from being sure.
fn open(report: &Report) -> Vec<String> {
    let mut open = Vec::new();
    if !report.objects.iter().any(|object| object.after.is_some()) {
        open.push("no state exists yet".to_owned());
        return open;
    }
    let absent = report.objects.iter().filter(|object| object.action == Action::Absent).count();
    if report.expects_by_pattern && absent > 0 {
        open.push(format!("{absent} of the named states do not exist"));
    }
    let left = |file: &&super::FileReport| file.action == FileAction::Left;
    for file in report.backend_files.iter().filter(left) {
        open.push(format!("{}, left as it is, names another encryption", file.path));
    }
    for check in &report.checks {
        // A version or a copy that is readable without the key is only a warning of the check.
        let tells = matches!(check.id, CheckId::History | CheckId::Replication);
        let exposed = tells && check.status == Status::Warn;
        let unknown = DECIDING.contains(&check.id) && check.status == Status::Unknown;
        if exposed || unknown {
            open.push(match check.id {
                CheckId::Replication => format!("replication: {}", check.evidence),
                _ => check.evidence.clone(),
            });
        }
    }
    if open.is_empty() && !report.verified {
        open.push("not everything could be verified".to_owned());
    }
    open
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::check::Check;
    use crate::names::KeyArn;
    use crate::plan::Goal;
    use crate::report::{Encryption, ObjectReport};

    const KEY: &str = "arn:aws:kms:us-east-1:111111111111:key/5c0ffee1-2222-4333-8444-555555555555";

    /// The verdict on a run in which all is as it should be, but for this change.
    fn verdict(change: impl FnOnce(&mut Report)) -> Option<&'static str> {
        let under = Encryption { algorithm: "aws:kms".into(), kms_key: Some(KEY.into()) };
        let mut report = Report::new();
        report.mode = Some(Mode::Verify);
        report.set_target(&Goal::Under(KeyArn::parse(KEY).unwrap()));
        report.objects.push(ObjectReport {
            module: None,
            key: "production".into(),
            action: Action::Kept,
            before: Some(under.clone()),
            after: Some(under),
            version_id: None,
            lineage: None,
            serial: None,
            size: None,
            same_content: None,
            read_at: Some("2026-11-23T10:00:00Z".into()),
            detail: None,
        });
        change(&mut report);
        report.finish(Duration::ZERO);
        assert_eq!(report.left_open.is_empty(), report.verdict != Some(Verdict::Partly));
        report.verdict.map(Verdict::id)
    }

    #[test]
    fn some_unknown_checks_count_and_every_failed_one() {
        for id in CheckId::ALL.iter().copied() {
            let with =
                |status| verdict(|report| report.checks.push(Check::new(id, status, "seen")));
            let unknown = if DECIDING.contains(&id) { "partly" } else { "protected" };
            let exposed = matches!(id, CheckId::History | CheckId::Replication);
            let warned = if exposed { "partly" } else { "protected" };
            assert_eq!(with(Status::Pass), Some("protected"), "{id:?}");
            assert_eq!(with(Status::Unknown), Some(unknown), "{id:?}");
            assert_eq!(with(Status::Warn), Some(warned), "{id:?}");
            assert_eq!(with(Status::Fail), Some("failed"), "{id:?}");
        }
    }

    #[test]
    fn what_is_absent_or_was_not_read_is_not_protected() {
        assert_eq!(verdict(|report| report.objects.clear()), Some("partly"));
        assert_eq!(verdict(|report| report.objects[0].read_at = None), Some("partly"));
        let absent = |report: &mut Report| {
            let mut other = report.objects[0].clone();
            (other.action, other.after, other.read_at) = (Action::Absent, None, None);
            report.objects.push(other);
        };
        assert_eq!(verdict(absent), Some("protected"));
        let expected = |report: &mut Report| {
            absent(report);
            report.expects_by_pattern = true;
        };
        assert_eq!(verdict(expected), Some("partly"));
    }

    #[test]
    fn each_mode_has_its_words() {
        for mode in [Mode::Backend, Mode::Plan, Mode::CreateKey, Mode::Revoke] {
            assert_eq!(verdict(|report| report.mode = Some(mode)), None);
        }
        assert_eq!(verdict(|report| report.set_target(&Goal::Unset)), None);
        let rollback = |report: &mut Report| report.mode = Some(Mode::Rollback);
        assert_eq!(verdict(rollback), Some("unprotected on purpose"));
    }
}
