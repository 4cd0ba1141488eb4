//! The key modes. Each looks, says what it would do, and does only what `confirm` allows.
//! Every write is a [`Run::step`], so that a run that is to stop begins none any more, and
//! what was done is told however the run ends.

mod create;
mod recover;
mod retire;
mod revoke;
mod variable;

use std::time::Duration;

use super::{Run, aws_failure};
use crate::aws::{Aws, AwsError, Bucket, KeyDescription, Keys, Kind};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::explain;
use crate::inputs::Mode;
use crate::names::KeyArn;
use crate::report::{KeyReport, KeyStep, Report};

/// How often a call is repeated while KMS does not know yet what it was told: changes take
/// up to some seconds to be seen (KMS Developer Guide, "Eventual consistency").
const PATIENCE: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// The key that a mode acts on.
struct Target<'a> {
    arn: &'a KeyArn,
    aws: Aws,
    keys: Keys,
    bucket: Bucket,
    described: KeyDescription,
}

impl Run<'_> {
    pub(super) async fn key_mode(&self, report: &mut Report) {
        let mut key = KeyReport::default();
        let result = tokio::select! {
            result = self.key_steps(report, &mut key) => result,
            // What has been done until now is in the report.
            () = self.cancelled.grace_over() => Ok(()),
        };
        report.failures.extend(result.err());
        if self.cancelled.is_set() {
            let stopped = self.stopped();
            if !report.failures.contains(&stopped) {
                report.failures.push(stopped);
            }
        }
        if let Some(step) = key.in_hand.take() {
            report.changed = true;
            key.notes.push(format!(
                "«{step}» got no clear answer, or none before the run was cut off: whether it was done is not \
                 known. A run without `confirm` shows it"
            ));
        }
        for step in &key.steps {
            let mark = if step.done { "done" } else { "not done" };
            self.log.line(&format!("{mark}: {}", step.what));
        }
        report.changed |= key.steps.iter().any(|step| step.done);
        report.key = Some(key);
    }

    async fn key_steps(&self, report: &mut Report, key: &mut KeyReport) -> Result<(), Failure> {
        match self.request.mode {
            Mode::CreateKey => Box::pin(self.create_key(report, key)).await,
            Mode::RetireKey => Box::pin(self.retire_key(report, key)).await,
            Mode::RecoverKey => Box::pin(self.recover_key(report, key)).await,
            _ => Box::pin(self.revoke(report, key)).await,
        }
    }

    /// Takes a step where that `may` be done, and enters it; returns what it came to. A run
    /// that is asked to stop begins none.
    async fn step<T>(
        &self,
        key: &mut KeyReport,
        what: impl Into<String>,
        may: bool,
        write: impl Future<Output = Result<T, Untaken>>,
    ) -> Result<Option<T>, Failure> {
        let what = what.into();
        let stopped = may && self.cancelled.is_set();
        if !may || stopped {
            key.steps.push(KeyStep { what, done: false });
            return if stopped { Err(self.stopped()) } else { Ok(None) };
        }
        key.in_hand = Some(what.clone());
        match write.await {
            Ok(written) => {
                key.in_hand = None;
                key.steps.push(KeyStep { what, done: true });
                Ok(Some(written))
            }
            Err(Untaken { failure, perhaps }) => {
                key.in_hand.take_if(|_| !perhaps);
                Err(failure)
            }
        }
    }

    /// The target key, which the inputs have made sure of, with the clients in its region.
    async fn target_key(
        &self,
        report: &mut Report,
        key: &mut KeyReport,
    ) -> Result<Target<'_>, Failure> {
        let target = self.request.key_admin.target.as_ref().ok_or_else(|| {
            Failure::new(FailureReason::InvalidInput, "`target-key` is missing", "Give its ARN")
        })?;
        let aws =
            Aws::connect(self.environment, target.region()).await.map_err(|e| aws_failure(&e))?;
        let keys = aws.keys();
        let (caller, described) = tokio::join!(aws.caller(&[]), keys.describe(target.as_str()));
        report.requests = aws.requests().count();
        let caller = caller.map_err(|e| aws_failure(&e))?;
        report.caller = Some(caller.clone());
        // KMS lets no other account manage a key; and from here on its bare id says which.
        if caller.account != target.account() {
            return Err(Failure::new(
                FailureReason::KeyChangeFailed,
                format!(
                    "{target} is not in account {}, which these credentials are of",
                    caller.account
                ),
                "Run this mode with a role of the key's account",
            ));
        }
        let arn = Check::new(CheckId::KeyArn, Status::Pass, target.as_str());
        report.checks.push(arn);
        match described {
            Ok(described) if described.aws_managed => Err(Failure::new(
                FailureReason::KeyUnusable,
                format!("{target} is managed by AWS; nobody else can change it"),
                "Give a customer-managed key",
            )),
            Ok(described) => {
                key.arn = Some(target.as_str().to_owned());
                let owner = self.request.bucket_owner.as_deref().unwrap_or(target.account());
                let bucket = aws.bucket(&self.request.bucket, Some(owner), None);
                Ok(Target { arn: target, aws, keys, bucket, described })
            }
            Err(error) if error.kind == Kind::KeyNotFound => Err(Failure::new(
                FailureReason::KeyGone,
                format!("{target} does not exist ({error})"),
                "If it was deleted, nothing under it can be read any more, and nobody can bring it back. \
                 Check region, account and id first",
            )),
            Err(error) => Err(refused(&error)),
        }
    }
}

/// AWS did not do it, perhaps after steps that were done.
fn refused(error: &AwsError) -> Failure {
    let reason = match error.kind {
        Kind::Credentials => FailureReason::Credentials,
        Kind::NoBucket => FailureReason::BucketMissing,
        _ => FailureReason::KeyChangeFailed,
    };
    let operation = error.operation;
    let remedy = match error.kind {
        _ if error.code.as_deref() == Some("MalformedPolicyDocumentException") => {
            "KMS takes only principals that exist (check names, paths and accounts of `deploy-principals`), and only \
             a policy that the caller can change again"
                .to_owned()
        }
        Kind::Denied if operation.starts_with("s3:") => {
            format!("Grant this principal {operation} on the bucket")
        }
        Kind::Denied => {
            "Grant this principal the named action on the key, in the key's account".to_owned()
        }
        _ => {
            let fix = explain::fix(error).unwrap_or("Re-run");
            format!("{fix}. Completed steps are not repeated")
        }
    };
    Failure::new(reason, error.to_string(), remedy)
}

/// Repeats a call while KMS does not know the key yet.
async fn patiently<T>(call: impl AsyncFn() -> Result<T, AwsError>) -> Result<T, AwsError> {
    for _ in 1..PATIENCE {
        match call().await {
            Err(error) if error.kind == Kind::KeyNotFound || error.kind == Kind::NotFound => {
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
    call().await
}

/// Why a step was not taken.
#[derive(Debug)]
struct Untaken {
    failure: Failure,
    /// It may have been taken all the same.
    perhaps: bool,
}

impl Untaken {
    fn by(error: &AwsError) -> Self {
        Self { failure: refused(error), perhaps: error.kind.is_ambiguous() }
    }
}

/// A write of KMS's as a step takes it.
async fn asked<T>(call: impl Future<Output = Result<T, AwsError>>) -> Result<T, Untaken> {
    call.await.map_err(|e| Untaken::by(&e))
}

impl KeyReport {
    /// Adds something that would be done.
    fn would(&mut self, what: impl Into<String>) {
        self.steps.push(KeyStep { what: what.into(), done: false });
    }

    /// Adds to the last step what came of it.
    fn came_to(&mut self, what: &str) {
        if let Some(step) = self.steps.last_mut() {
            step.what.push_str(&format!(": {what}"));
        }
    }
}
