//! The key modes. Each looks, says what it would do, and does only what `confirm` allows.

mod create;
mod recover;
mod retire;
mod revoke;
mod variable;

use std::time::Duration;

use super::{Run, aws_failure};
use crate::aws::{Aws, AwsError, Bucket, KeyDescription, Keys, Kind};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
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
        let result = match self.request.mode {
            Mode::CreateKey => Box::pin(self.create_key(report, &mut key)).await,
            Mode::RetireKey => Box::pin(self.retire_key(report, &mut key)).await,
            Mode::RecoverKey => Box::pin(self.recover_key(report, &mut key)).await,
            _ => Box::pin(self.revoke(report, &mut key)).await,
        };
        if let Err(failure) = result {
            report.failures.push(failure);
        }
        for step in &key.steps {
            let mark = if step.done { "done" } else { "not done" };
            self.log.line(&format!("{mark}: {}", step.what));
        }
        report.changed |= key.steps.iter().any(|step| step.done);
        report.key = Some(key);
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

/// AWS did not do it.
fn refused(error: &AwsError) -> Failure {
    let remedy = match error.kind {
        Kind::Denied => "Grant this principal the named action on the key, in the key's account",
        Kind::Credentials => return aws_failure(error),
        _ => "Run again: what is done is not done twice",
    };
    let malformed = error.code.as_deref() == Some("MalformedPolicyDocumentException");
    let remedy = if malformed {
        "KMS takes only principals that exist (check names, paths and accounts of `deploy-principals`), and only \
         a policy that the caller can change again"
    } else {
        remedy
    };
    Failure::new(FailureReason::KeyChangeFailed, error.to_string(), remedy)
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

impl KeyReport {
    /// Adds something to be done.
    fn step(&mut self, what: impl Into<String>, done: bool) {
        self.steps.push(KeyStep { what: what.into(), done });
    }
}
