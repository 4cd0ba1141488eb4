//! Leads through a mode, stage by stage. Each stage's decisions are pure functions
//! elsewhere; here they are put in order, logged and reported.

mod absent;
mod backend_files;
mod findings;
mod folders;
mod gate;
mod in_flight;
mod job;
mod keys;
mod locks;
mod looked;
mod old_versions;
mod states;

pub(crate) use locks::not_released;
pub use states::stands_for;

use std::path::Path;

use crate::aws::{Aws, AwsError, Kind};
use crate::cancel::{Cancelled, Why};
use crate::check::{Failure, FailureReason};
use crate::explain;
use crate::github::{Annotation, Log};
use crate::inputs::{Environment, Mode, Request};
use crate::lock::Locks;
use crate::plan::Goal;
use crate::report::Report;

/// What every stage of a run works with.
pub struct Run<'a> {
    /// The process environment.
    pub environment: &'a Environment,
    /// What was asked for.
    pub request: &'a Request,
    /// The workspace, which relative paths start from.
    pub workspace: &'a Path,
    /// The log.
    pub log: &'a Log,
    /// Set when the run should stop.
    pub cancelled: &'a Cancelled,
    /// Terraform's locks that the run holds.
    pub locks: &'a Locks,
}

impl Run<'_> {
    /// Carries the mode out. What there is to say goes into the report.
    pub async fn execute(&self, report: &mut Report) {
        let goal = Goal::of(self.request);
        report.set_target(&goal);
        // The key modes make the key that the variable is to name.
        let about_states = !self.request.mode.is_about_a_key();
        if self.request.require_encryption && about_states && goal == Goal::Unset {
            report.failures.push(Failure::new(
                FailureReason::EncryptionRequired,
                "STATE_KMS_KEY_ID (or `kms-key-id`) is empty, and `require-encryption` is set",
                "Set the variable to the key's ARN on the GitHub environment, and pass it by `with:`; a \
                 job without `environment:` does not see a GitHub environment's variables",
            ));
            return;
        }
        if about_states && !self.module_folders(report) {
            return;
        }
        match self.request.mode {
            Mode::Backend => self.backend_mode(report),
            Mode::CreateKey | Mode::RetireKey | Mode::RecoverKey | Mode::Revoke => {
                self.key_mode(report).await;
            }
            Mode::Plan | Mode::Apply | Mode::Verify | Mode::Rollback => {
                self.states(report, &goal).await;
            }
        }
    }

    /// A region to sign the first requests for: the inputs', else the key's, which must be
    /// the bucket's. S3 says when it is another one.
    async fn connect(&self, report: &mut Report) -> Option<Aws> {
        let request = self.request;
        let region = request
            .key
            .as_ref()
            .map(|key| key.region())
            .or(request.region.as_ref().map(|region| region.name.as_str()))
            .unwrap_or("us-east-1");
        let connected = tokio::select! {
            connected = Aws::connect(self.environment, region) => connected,
            () = self.cancelled.asked() => {
                report.failures.push(self.stopped());
                return None;
            }
        };
        match connected {
            Ok(aws) => Some(aws),
            Err(error) => {
                report.failures.push(aws_failure(&error));
                None
            }
        }
    }

    /// Has the runner mask these values. Elsewhere the command would only show them.
    fn mask(&self, secrets: &[String]) {
        if self.environment.get("GITHUB_ACTIONS") == Some("true") {
            secrets.iter().for_each(|secret| self.log.mask(secret));
        }
    }

    /// The failure of a run that was asked to stop.
    fn stopped(&self) -> Failure {
        let what = if self.request.mode.is_about_a_key() { "step" } else { "state" };
        match self.cancelled.why() {
            Some(Why::TimeLimit) => Failure::new(
                FailureReason::TimeLimit,
                format!(
                    "the run has taken longer than {} s (`time-limit`); no further {what} was begun",
                    self.request.time_limit.as_secs()
                ),
                "Run again: what is done is not done twice. The log says what took so long",
            ),
            _ => Failure::new(
                FailureReason::Cancelled,
                format!("the run was cancelled; no further {what} was begun"),
                "Run again: what is done is not done twice",
            ),
        }
    }

    /// Writes a statement as a file beside the report: GitHub masks parts of pasted ones.
    fn keep_statement(&self, report: &mut Report, name: &str, statement: &serde_json::Value) {
        let folder = self.request.report_path.parent().unwrap_or(Path::new(""));
        let path = folder.join(format!("tfstate-kms-{name}.json"));
        let text = format!("{statement:#}\n");
        match crate::files::write_below(self.workspace, &path, text.as_bytes()) {
            Ok(()) => report.statements.push(path.display().to_string()),
            Err(error) => {
                report.warnings.push(format!("{} could not be written: {error}", path.display()));
            }
        }
    }

    fn notice(&self, title: &str, message: &str) {
        self.log.annotate(Annotation::Notice, title, message);
    }
}

/// What a call that failed as a whole means for the run.
fn aws_failure(error: &AwsError) -> Failure {
    let reason = match error.kind {
        Kind::Credentials => FailureReason::Credentials,
        Kind::NoBucket => FailureReason::BucketMissing,
        Kind::Denied => FailureReason::StateUnreadable,
        _ => FailureReason::AwsUnavailable,
    };
    let remedy = match explain::fix(error) {
        Some(fix) => format!("{fix}. Nothing was changed"),
        None if error.kind == Kind::Denied => {
            "Grant the named action; the README lists what each mode needs".to_owned()
        }
        None => "Nothing was changed. Re-run when the named cause is fixed".to_owned(),
    };
    Failure::new(reason, error.to_string(), remedy)
}
