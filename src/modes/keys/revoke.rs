//! `revoke`: takes a compromised principal out of the key policy.

use serde_json::Value;

use super::{Run, Target, asked, refused};
use crate::check::{Failure, FailureReason};
use crate::doctor;
use crate::key_policy::{self, Revoked};
use crate::names::printable;
use crate::principal::Principal;
use crate::report::{KeyReport, Report};

impl Run<'_> {
    pub(super) async fn revoke(
        &self,
        report: &mut Report,
        key: &mut KeyReport,
    ) -> Result<(), Failure> {
        let admin = &self.request.key_admin;
        let Target { arn: target, aws, keys, .. } = self.target_key(report, key).await?;
        let id = target.as_str();
        let text = keys.policy(id).await.map_err(|e| refused(&e))?;
        let before: Value = serde_json::from_str(&text).map_err(|_| {
            Failure::new(
                FailureReason::KeyChangeFailed,
                "the key policy could not be read as JSON",
                format!("aws kms get-key-policy --key-id {target}"),
            )
        })?;
        let mut after = before.clone();
        for arn in &self.request.deploy_principals {
            let who = Principal::of_arn(arn);
            let Revoked { policy, changed, remaining } =
                key_policy::revoke(&after, &who).map_err(|why| {
                    let remedy = "Give the key another administrator first";
                    Failure::new(FailureReason::LastAdministrator, why, remedy)
                })?;
            if !changed {
                key.notes.push(format!("The key policy does not name {arn}"));
            }
            key.notes.extend(remaining);
            after = policy;
        }
        let grants = keys.grants(id).await;
        report.requests = aws.requests().count();
        match grants {
            Ok(grants) => {
                for grant in grants {
                    let named = self.request.deploy_principals.contains(&grant.grantee);
                    let (who, what) = (printable(&grant.grantee), grant.operations.join(", "));
                    key.notes.push(format!(
                        "{} {who}: {what}. No policy shows it; to end it: aws kms revoke-grant --key-id {id} \
                         --grant-id {}",
                        if named { "A GRANT REMAINS for" } else { "There is a grant for" },
                        printable(&grant.id)
                    ));
                }
            }
            Err(error) => key.notes.push(format!(
                "Grants could not be seen ({error}); they let through whom no policy names"
            )),
        }
        key.notes.push(
            "Left to do in the principal's own account: rotate its credentials, end its sessions, and take the \
             key out of its IAM policy. Whoever administers the key's account by kms:* still decrypts"
                .into(),
        );
        if after == before {
            report.checks.push(doctor::key_policy(target, &Ok(before.to_string()), None));
            return Ok(());
        }
        key.diff = Some(key_policy::diff(&before, &after));
        let step =
            format!("take {} out of the key policy", self.request.deploy_principals.join(", "));
        let text = after.to_string();
        let put = asked(keys.put_policy(id, &text));
        if self.step(key, step, admin.confirms_target(), put).await?.is_none() {
            key.notes.push(format!("To do it, run again with `confirm: {}`", target.id()));
            return Ok(());
        }
        let text = keys.policy(id).await.map_err(|e| refused(&e))?;
        let now: Value = serde_json::from_str(&text).unwrap_or_default();
        report.requests = aws.requests().count();
        if !key_policy::same(&now, &after) {
            return Err(Failure::new(
                FailureReason::KeyChangeFailed,
                "the key policy does not show yet what it was told, or somebody else has changed it meanwhile",
                "Run again without `confirm`, and look at the difference",
            ));
        }
        report.checks.push(doctor::key_policy(target, &Ok(now.to_string()), None));
        Ok(())
    }
}
