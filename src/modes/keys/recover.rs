//! `recover-key`: takes a scheduled deletion back, and shows that the states read again.

use super::{PATIENCE, PAUSE, Run, Target, asked, refused};
use crate::aws::Budget;
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::names::printable;
use crate::plan;
use crate::report::{KeyReport, Report};
use crate::survey::{Found, Survey};

impl Run<'_> {
    pub(super) async fn recover_key(
        &self,
        report: &mut Report,
        key: &mut KeyReport,
    ) -> Result<(), Failure> {
        let (request, admin) = (self.request, &self.request.key_admin);
        let Target { arn: target, aws, keys, bucket, described } =
            self.target_key(report, key).await?;
        let (cancel, enable) = match described.state.as_str() {
            "PendingDeletion" => (true, true),
            "Disabled" => (false, true),
            "Enabled" => (false, false),
            other => {
                return Err(Failure::new(
                    FailureReason::KeyUnusable,
                    format!(
                        "{target} is in the state {}, from which this mode does not lead back",
                        printable(other)
                    ),
                    format!("aws kms describe-key --key-id {target}"),
                ));
            }
        };
        if cancel {
            let date = described.deletion_date.as_deref().unwrap_or("an unknown date");
            self.log.line(&format!("the key would be deleted on {date}"));
        }
        let may = admin.confirms_target();
        if cancel {
            let write = asked(keys.cancel_deletion(target.id()));
            self.step(key, "cancel the scheduled deletion", may, write).await?;
        }
        if enable {
            self.step(key, "enable the key", may, asked(keys.enable(target.id()))).await?;
        }
        if enable && !may {
            key.notes.push(format!("To do it, run again with `confirm: {}`", target.id()));
            return Ok(());
        }
        let now = keys.describe(target.as_str()).await.map_err(|e| refused(&e))?;
        if now.state != "Enabled" {
            return Err(Failure::new(
                FailureReason::KeyChangeFailed,
                format!("{target} is {} afterwards", printable(&now.state)),
                "Run again: KMS may take some seconds",
            ));
        }
        report.checks.push(Check::new(CheckId::KeyUsable, Status::Pass, "Enabled"));
        // S3 sees a key's new state only after a while.
        let budget = Budget::new(0);
        let mut survey = None;
        for attempt in 0..PATIENCE {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * (1 << attempt)).await;
            }
            let taken = Survey::take(&bucket, &request.layout, &budget, |_| false).await;
            let taken = taken.map_err(|e| refused(&e))?;
            let shut =
                taken.states.iter().any(|state| matches!(state.found, Found::Unreadable { .. }));
            survey = Some(taken);
            if !shut {
                break;
            }
        }
        report.requests = aws.requests().count();
        let states = survey.map(|survey| survey.states).unwrap_or_default();
        let under = |found: &Found| {
            found.seen().is_some_and(|seen| seen.server_side.kms_key() == Some(target.as_str()))
        };
        let mut shut = Vec::new();
        let mut read = 0;
        for state in &states {
            match &state.found {
                Found::Unreadable { error, .. } => {
                    shut.push(format!("{} ({error})", plan::name(state)))
                }
                Found::Refused(error) | Found::Failed(error) => {
                    shut.push(format!("{} ({error})", plan::name(state)));
                }
                found if under(found) => read += 1,
                _ => {}
            }
        }
        if shut.is_empty() {
            let evidence = format!("{read} states under the key read to their end");
            let status = if read > 0 { Status::Pass } else { Status::Unknown };
            report.checks.push(Check::new(CheckId::ObjectReadable, status, evidence));
            return Ok(());
        }
        report.checks.push(Check::new(CheckId::ObjectReadable, Status::Fail, shut.join("; ")));
        Err(Failure::new(
            FailureReason::StateUnreadable,
            format!("the key is enabled, but not every state reads: {}", shut.join("; ")),
            "S3 may take some minutes to see it; if it stays so, this principal lacks kms:Decrypt or s3:GetObject",
        ))
    }
}
