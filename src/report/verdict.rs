//! The verdict: one judgement of the whole run, which headline, annotation, check run and output
//! all repeat.

use serde::Serialize;

use super::{Action, FileAction, Report};
use crate::check::{CheckId, Status};
use crate::inputs::Mode;

/// How far the states are protected, as far as this run has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
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
            Self::Unprotected => "unprotected",
            Self::Failed => "failed",
        }
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
    let judged = matches!(report.mode, Some(Mode::Apply | Mode::Verify)) || rollback;
    if !judged {
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
        // A version that is readable without the key is only a warning of the check.
        let exposed = check.id == CheckId::History && check.status == Status::Warn;
        let unknown = DECIDING.contains(&check.id) && check.status == Status::Unknown;
        if exposed || unknown {
            open.push(check.evidence.clone());
        }
    }
    open
}
