//! The gate's verdict as a check and a failure. Pure.

use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::gate::Gate;
use crate::inputs::{Probe, Request};
use crate::names::{KeyArn, printable};
use crate::plan::Goal;
use crate::report::Report;

/// Enters the gate's verdict in the place of a former one: a check, and a failure where it is
/// open or a named way could not tell.
pub fn gate(report: &mut Report, goal: &Goal, request: &Request, gate: Gate) {
    let scope = report.gate_evidence.as_ref().map(|evidence| evidence.scope.clone());
    let scope = scope.unwrap_or_default();
    let id = CheckId::Gate;
    let check = match &gate {
        Gate::Off => return,
        Gate::Holds => Check::new(
            id,
            Status::Pass,
            format!("holds {scope}: full session GET 200, probe HEAD 200, probe GET 403"),
        ),
        Gate::Open(state) => {
            let cause = open_cause(report, goal, request, state);
            let message =
                format!("`{state}` was read without a grant on the key, {scope}: {cause}");
            let remedy = match under_the_key(report, goal, state) {
                true => {
                    "Take kms:Decrypt from every principal that is not meant to have it: in the key policy, in IAM \
                     policies of the key's account, and in grants (aws kms list-grants)"
                }
                false => "Put it under the key: run mode `apply`",
            };
            report.failures.push(Failure::new(FailureReason::GateOpen, message.clone(), remedy));
            Check::new(id, Status::Fail, message).remedy(remedy)
        }
        Gate::Inconclusive(why) => {
            let message = format!("the gate could not be tried: {why}");
            // A run that failed before has more to say than this.
            let seen =
                report.failures.is_empty() && report.objects.iter().any(|row| row.after.is_some());
            if seen && request.probe == Probe::Auto {
                report.warnings.push(message.clone());
            } else if seen {
                report.failures.push(Failure::new(
                    FailureReason::GateInconclusive,
                    message.clone(),
                    "Mend what is named, or set `probe: auto` to take it for a warning",
                ));
            }
            Check::new(id, Status::Unknown, message)
        }
    };
    report.checks.retain(|check| check.id != id);
    report.checks.push(check);
    report.gate = gate;
}

fn under_the_key(report: &Report, goal: &Goal, state: &str) -> bool {
    let now = report.objects.iter().find(|row| row.key == state).and_then(|row| row.after.as_ref());
    now.is_some_and(|now| now.kms_key.as_deref() == goal.key().map(KeyArn::as_str))
}

/// Why the probe may have been able to read the state.
fn open_cause(report: &Report, goal: &Goal, request: &Request, state: &str) -> String {
    let now = report.objects.iter().find(|row| row.key == state).and_then(|row| row.after.as_ref());
    let wanted = goal.key().map(KeyArn::as_str);
    if let Some(now) = now.filter(|now| now.kms_key.as_deref() != wanted) {
        return match &now.kms_key {
            Some(key) => format!(
                "it is not under the wanted key but under {}; every principal of the account may use aws/s3",
                printable(key)
            ),
            None => format!("it is not under the key ({})", now.algorithm),
        };
    }
    let home = goal.key().map(KeyArn::account);
    let own = report.caller.as_ref().is_some_and(|caller| Some(caller.account.as_str()) == home);
    // What the check on the key policy has read of it.
    let everyone = match report.check(CheckId::KeyPolicy).map(|check| check.status) {
        Some(Status::Fail) => Some(true),
        Some(Status::Pass | Status::Warn) => Some(false),
        _ => None,
    };
    let by_role = report.gate_evidence.as_ref().is_some_and(|evidence| evidence.way == "role");
    match &request.probe_role {
        _ if everyone == Some(true) => "the key policy allows everyone (Principal *)".into(),
        Some(role) if by_role && role.split(':').nth(4) == home => {
            let perhaps = match everyone {
                None => "the key policy allows everyone (Principal *), or ",
                _ => "",
            };
            format!(
                "probably {perhaps}the key policy, a grant or its own policies give {role} kms:Decrypt on the key"
            )
        }
        Some(role) if by_role => {
            format!("probably {role} has kms:Decrypt on the key, on both sides")
        }
        _ if own && everyone.is_none() => {
            "probably the key policy allows everyone (Principal *), or a grant names this principal"
                .into()
        }
        _ => "probably a grant, or a key policy that names the session".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::{Environment, resolve};
    use crate::report::{Action, Encryption, ObjectReport};

    const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn cause(of_policy: Option<Status>) -> String {
        let variables = [
            ("STATE_KMS_KEY_ID", KEY),
            ("TF_ENVIRONMENT", "production"),
            ("TF_STATE_BUCKET", "cabal-tf-backend"),
        ];
        let (request, _) = resolve(&Environment::from(variables));
        let request = request.unwrap_or_else(|refused| panic!("{:?}", refused.problems));
        let mut report = Report::new();
        let principal = crate::principal::Principal::of_arn("arn:aws:iam::111122223333:user/a");
        let arn = "arn:aws:iam::111122223333:user/a".to_owned();
        let account = "111122223333".to_owned();
        report.caller = Some(crate::aws::Caller { arn, account, principal });
        let under = Encryption { algorithm: "aws:kms".into(), kms_key: Some(KEY.into()) };
        report.objects = vec![ObjectReport {
            module: None,
            key: "production".into(),
            action: Action::Kept,
            before: None,
            after: Some(under),
            version_id: None,
            lineage: None,
            serial: None,
            size: None,
            same_content: None,
            read_at: None,
            detail: None,
        }];
        report.checks.extend(of_policy.map(|status| Check::new(CheckId::KeyPolicy, status, "")));
        open_cause(&report, &Goal::of(&request), &request, "production")
    }

    #[test]
    fn a_key_policy_that_was_read_is_not_guessed_at() {
        assert!(cause(None).contains("probably the key policy allows everyone"));
        assert!(cause(Some(Status::Unknown)).contains("probably the key policy allows everyone"));
        for status in [Status::Pass, Status::Warn] {
            assert!(!cause(Some(status)).contains('*'), "{}", cause(Some(status)));
        }
        assert_eq!(cause(Some(Status::Fail)), "the key policy allows everyone (Principal *)");
    }
}
