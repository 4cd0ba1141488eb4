//! The two statements that a principal needs to use a key across an account border,
//! finished and ready to paste.

use serde_json::json;

use crate::aws::Caller;
use crate::names::KeyArn;

/// What SSE-KMS and the backend need, as the runbook grants it.
pub const ACTIONS: [&str; 4] =
    ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"];

/// Both statements, with where they go.
pub fn statements(caller: Option<&Caller>, key: &KeyArn) -> String {
    let (principal, account) = match caller {
        Some(caller) => (principal(&caller.arn), caller.account.clone()),
        None => ("<DEPLOY_PRINCIPAL_ARN>".to_owned(), "its own account".to_owned()),
    };
    let in_key_policy = json!({
        "Sid": "DeployPrincipalUse",
        "Effect": "Allow",
        "Principal": { "AWS": principal },
        "Action": ACTIONS,
        "Resource": "*",
    });
    let in_iam_policy = json!({
        "Sid": "TerraformStateKms",
        "Effect": "Allow",
        "Action": ACTIONS,
        "Resource": key.as_str(),
    });
    format!(
        "In the key policy of {key} (account {}):\n{in_key_policy:#}\nIn the IAM policy of {principal} \
         (account {account}):\n{in_iam_policy:#}",
        key.account()
    )
}

/// The principal that policies name: an assumed role's session ARN has lost the role's
/// path, so a role with a path has to be corrected by hand.
pub fn principal(arn: &str) -> String {
    let Some((head, session)) = arn.split_once(":assumed-role/") else { return arn.to_owned() };
    let role = session.split('/').next().unwrap_or(session);
    format!("{}:role/{role}", head.replacen(":sts:", ":iam:", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_become_their_role() {
        assert_eq!(
            principal("arn:aws:sts::222222222222:assumed-role/cicd/run-1"),
            "arn:aws:iam::222222222222:role/cicd"
        );
        let user = "arn:aws:iam::222222222222:user/terraform";
        assert_eq!(principal(user), user);
    }
}
