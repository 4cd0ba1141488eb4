//! The statements that a principal needs to use a key across an account border, finished
//! and ready to paste.

use std::fmt;

use serde_json::{Value, json};

use crate::aws::Caller;
use crate::names::{KeyArn, LOCK_SUFFIX};

/// What SSE-KMS and the backend need, as the runbook grants it.
pub const ACTIONS: [&str; 4] =
    ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"];

/// What is known of the two sides of a grant; `None`: no evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sides {
    /// The key policy grants it.
    pub key_policy: Option<bool>,
    /// The principal's own IAM policy grants it.
    pub iam: Option<bool>,
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |side| match side {
            Some(true) => "grants it",
            Some(false) => "does not grant it",
            None => "is not known",
        };
        write!(f, "the key policy {}, the IAM side {}", word(self.key_policy), word(self.iam))
    }
}

/// A single principal as a text, as the runbook writes it.
fn one_or_all(principals: &[String]) -> Value {
    match principals {
        [one] => json!(one),
        all => json!(all),
    }
}

/// The statement of the key policy (Part 1 of the runbook).
pub fn key_policy_statement(principals: &[String]) -> Value {
    json!({
        "Sid": "DeployPrincipalUse",
        "Effect": "Allow",
        "Principal": { "AWS": one_or_all(principals) },
        "Action": ACTIONS,
        "Resource": "*",
    })
}

/// The statement of the principal's IAM policy (Part 2 of the runbook).
pub fn iam_policy_statement(key: &KeyArn) -> Value {
    json!({
        "Sid": "TerraformStateKms",
        "Effect": "Allow",
        "Action": ACTIONS,
        "Resource": key.as_str(),
    })
}

/// The state bucket, as the statements for its states need it.
#[derive(Debug, Clone, Copy)]
pub struct StateBucket<'a> {
    /// Its name.
    pub name: &'a str,
    /// S3 Bucket Keys are on by default; `None`: that may not be read.
    pub bucket_keys: Option<bool>,
}

/// Where hardened statements hold: through S3, and for these states and their locks only. A
/// name that ends in `/` stands for all below it. More states than a policy has room for
/// become the bucket.
///
/// With S3 Bucket Keys the encryption context is the bucket's ARN, whatever the object (S3
/// User Guide, "Reducing the cost of SSE-KMS with Amazon S3 Bucket Keys"). So that ARN is
/// named, too, unless they are known to be off.
fn through_s3(partition: &str, region: &str, bucket: StateBucket<'_>, states: &[String]) -> Value {
    const NAMED: usize = 20;
    let whole = format!("arn:{partition}:s3:::{}", bucket.name);
    let of_state = |state: &String| match state.ends_with('/') {
        true => vec![format!("{whole}/{state}*")],
        false => vec![format!("{whole}/{state}"), format!("{whole}/{state}{LOCK_SUFFIX}")],
    };
    let mut arns: Vec<String> = match states {
        few if !few.is_empty() && few.len() <= NAMED => few.iter().flat_map(of_state).collect(),
        _ => vec![format!("{whole}/*")],
    };
    if bucket.bucket_keys != Some(false) {
        arns.push(whole);
    }
    let host = match partition {
        "aws-cn" => "amazonaws.com.cn",
        _ => "amazonaws.com",
    };
    json!({
        "StringEquals": { "kms:ViaService": format!("s3.{region}.{host}") },
        "StringLike": { "kms:EncryptionContext:aws:s3:arn": arns },
    })
}

/// What S3 does with the key for a principal; DescribeKey stays a direct call.
const THROUGH_S3: [&str; 2] = ["kms:Decrypt", "kms:GenerateDataKey"];

/// The statements for the key policy (Part 1 of the runbook), hardened: with S3 as the only
/// way to the key, and only for these states and their locks.
pub fn hardened_statements(
    principals: &[String],
    partition: &str,
    region: &str,
    bucket: StateBucket<'_>,
    states: &[String],
) -> Value {
    let principal = one_or_all(principals);
    json!([
        {
            "Sid": "DeployPrincipalUseThroughS3",
            "Effect": "Allow",
            "Principal": { "AWS": principal },
            "Action": THROUGH_S3,
            "Resource": "*",
            "Condition": through_s3(partition, region, bucket, states),
        },
        {
            "Sid": "DeployPrincipalDescribe",
            "Effect": "Allow",
            "Principal": { "AWS": principal },
            "Action": "kms:DescribeKey",
            "Resource": "*",
        },
    ])
}

/// The same for the principal's IAM policy (Part 2 of the runbook).
pub fn hardened_iam_statements(key: &KeyArn, bucket: StateBucket<'_>, states: &[String]) -> Value {
    json!([
        {
            "Sid": "TerraformStateKmsThroughS3",
            "Effect": "Allow",
            "Action": THROUGH_S3,
            "Resource": key.as_str(),
            "Condition": through_s3(key.partition(), key.region(), bucket, states),
        },
        {
            "Sid": "TerraformStateKmsDescribe",
            "Effect": "Allow",
            "Action": "kms:DescribeKey",
            "Resource": key.as_str(),
        },
    ])
}

/// The hardened statements that may be missing, with where they go.
pub fn hardened(
    caller: Option<&Caller>,
    key: &KeyArn,
    sides: Sides,
    bucket: StateBucket<'_>,
    states: &[String],
) -> String {
    let principal = named(caller);
    let account = caller.map_or("its own account", |caller| caller.account.as_str());
    let about = about_bucket_keys(bucket).map(|about| format!("; {about}")).unwrap_or_default();
    let (partition, region) = (key.partition(), key.region());
    let of_key =
        hardened_statements(std::slice::from_ref(&principal), partition, region, bucket, states);
    let of_iam = hardened_iam_statements(key, bucket, states);
    let statements = texts(&principal, account, key, sides, &of_key, &of_iam);
    format!("Or, hardened (through S3 only, and for these states only{about}):\n{statements}")
}

/// What is to be said of the hardened statements, where S3 Bucket Keys may be on.
pub fn about_bucket_keys(bucket: StateBucket<'_>) -> Option<&'static str> {
    match bucket.bucket_keys {
        Some(false) => None,
        Some(true) => Some(
            "S3 Bucket Keys are on in the bucket: KMS is told the bucket's ARN only, so a key policy cannot tell \
             its objects apart",
        ),
        None => Some(
            "the bucket's own ARN is for S3 Bucket Keys: leave it out where they are off (aws s3api \
             get-bucket-encryption)",
        ),
    }
}

/// The statements that are missing on the sides that are not known to grant, with where
/// they go.
pub fn statements(caller: Option<&Caller>, key: &KeyArn, sides: Sides) -> String {
    let principal = named(caller);
    let account = caller.map_or("its own account", |caller| caller.account.as_str());
    let mut text = texts(
        &principal,
        account,
        key,
        sides,
        &key_policy_statement(std::slice::from_ref(&principal)),
        &iam_policy_statement(key),
    );
    text.push('\n');
    text.push_str(&how(&principal, account, key, sides));
    if caller.is_some_and(|caller| caller.principal.guessed) {
        text.push_str(
            "\nIf the role has a path, put it into its ARN: a session does not show it (`deploy-principals` \
             or AWS_ROLE_ARN tells this action)",
        );
    }
    text
}

/// What a role that only reads needs of the key.
const READ: [&str; 2] = ["kms:Decrypt", "kms:DescribeKey"];

fn reader_in_key_policy(role: &str) -> Value {
    json!({
        "Sid": "StateReaderUse",
        "Effect": "Allow",
        "Principal": { "AWS": role },
        "Action": READ,
        "Resource": "*",
    })
}

fn reader_in_iam_policy(key: &KeyArn) -> Value {
    json!({
        "Sid": "TerraformStateKmsRead",
        "Effect": "Allow",
        "Action": READ,
        "Resource": key.as_str(),
    })
}

/// The statements of [`reader_statements`], each with the side that it is for.
pub fn reader_documents(role: &str, key: &KeyArn, sides: Sides) -> Vec<(&'static str, Value)> {
    let of_key = (sides.key_policy != Some(true)).then(|| reader_in_key_policy(role));
    let of_iam = (sides.iam != Some(true)).then(|| reader_in_iam_policy(key));
    let (of_key, of_iam) =
        (of_key.map(|one| ("key-policy", one)), of_iam.map(|one| ("iam-policy", one)));
    of_key.into_iter().chain(of_iam).collect()
}

/// The same as [`statements`] for a role that only reads.
pub fn reader_statements(role: &str, key: &KeyArn, sides: Sides) -> String {
    let (in_key_policy, in_iam_policy) = (reader_in_key_policy(role), reader_in_iam_policy(key));
    let account = role.split(':').nth(4).unwrap_or_default();
    let statements = texts(role, account, key, sides, &in_key_policy, &in_iam_policy);
    format!("{statements}\n{}", how(role, account, key, sides))
}

fn texts(
    principal: &str,
    account: &str,
    key: &KeyArn,
    sides: Sides,
    in_key_policy: &Value,
    in_iam_policy: &Value,
) -> String {
    let mut parts = Vec::new();
    if sides.key_policy != Some(true) {
        let owner = key.account();
        parts.push(format!("In the key policy of {key} (account {owner}):\n{in_key_policy:#}"));
    }
    if sides.iam != Some(true) {
        parts.push(format!(
            "In the IAM policy of {principal} (account {account}):\n{in_iam_policy:#}"
        ));
    }
    parts.join("\n")
}

/// How what [`texts`] prints gets to its place: the commands, each to be run with credentials
/// of the account that is named.
fn how(principal: &str, account: &str, key: &KeyArn, sides: Sides) -> String {
    let mut parts = Vec::new();
    if sides.key_policy != Some(true) {
        let (owner, region) = (key.account(), key.region());
        parts.push(format!(
            "To change the key policy, in account {owner}: take the policy there is, add what is above to its \
             \"Statement\" list, put it back\n\
             aws kms get-key-policy --region {region} --key-id {key} --policy-name default --query Policy \
             --output text > key-policy.json\n\
             aws kms put-key-policy --region {region} --key-id {key} --policy-name default --policy \
             file://key-policy.json"
        ));
    }
    if sides.iam != Some(true) {
        let put = put_policy(principal).unwrap_or_else(|| "in IAM's console".to_owned());
        parts.push(format!(
            "To change the IAM policy, in account {account}: as a policy of its own, with what is above as \
             iam-policy.json inside {{\"Version\": \"2012-10-17\", \"Statement\": [ … ]}}\n{put}"
        ));
    }
    parts.join("\n")
}

/// The command that gives a user or role a policy of its own. `None`: the ARN is of neither,
/// or not one to be put into a shell (IAM User Guide, «IAM and AWS STS quotas»: names are
/// letters, digits and `+=,.@_-`).
fn put_policy(principal: &str) -> Option<String> {
    let (kind, path) = principal.split(':').nth(5)?.split_once('/')?;
    let name = path.rsplit('/').next()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    let fit = ["role", "user"].contains(&kind) && !name.is_empty() && name.bytes().all(plain);
    fit.then(|| {
        format!(
            "aws iam put-{kind}-policy --{kind}-name {name} --policy-name TerraformStateKms --policy-document \
             file://iam-policy.json"
        )
    })
}

/// The caller as policies name it.
pub fn named(caller: Option<&Caller>) -> String {
    caller.map_or("<DEPLOY_PRINCIPAL_ARN>".to_owned(), |caller| caller.principal.arn.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:us-east-1:111111111111:key/5c0ffee1-2222-4333-8444-555555555555";

    #[test]
    fn only_what_may_be_missing_is_printed() {
        let key = KeyArn::parse(KEY).unwrap();
        let text = |key_policy, iam| {
            let role = "arn:aws:iam::222222222222:role/plan";
            reader_statements(role, &key, Sides { key_policy, iam })
        };
        let both = text(None, None);
        assert!(both.contains("StateReaderUse") && both.contains("TerraformStateKmsRead"));
        assert!(!text(Some(true), Some(false)).contains("StateReaderUse"));
        assert!(!text(Some(false), Some(true)).contains("TerraformStateKmsRead"));
    }

    #[test]
    fn the_commands_are_those_of_the_side_that_is_missing() {
        let key = KeyArn::parse(KEY).unwrap();
        let role = "arn:aws:iam::222222222222:role/ci/plan";
        let text = |key_policy, iam| how(role, "222222222222", &key, Sides { key_policy, iam });
        let (of_key, of_iam) =
            ("aws kms put-key-policy", "aws iam put-role-policy --role-name plan ");
        let both = text(None, None);
        assert!(both.contains(of_key) && both.contains(of_iam), "{both}");
        assert!(!text(Some(true), Some(false)).contains(of_key));
        assert!(!text(Some(false), Some(true)).contains(of_iam));
        let user = put_policy("arn:aws:iam::222222222222:user/terraform");
        assert!(user.unwrap().starts_with("aws iam put-user-policy --user-name terraform "));
        for other in [
            "<DEPLOY_PRINCIPAL_ARN>",
            "arn:aws:iam::1:root",
            "arn:aws:iam::1:role/a;b",
            "a:b:c:d:e:role/",
        ] {
            assert_eq!(put_policy(other), None, "{other}");
        }
    }

    #[test]
    fn the_hardened_variant_names_service_and_states() {
        let key = KeyArn::parse(KEY).unwrap();
        let with = |states: &[String], bucket_keys| {
            let (partition, region) = (key.partition(), key.region());
            let bucket = StateBucket { name: "b", bucket_keys };
            hardened_statements(&["p".into()], partition, region, bucket, states).to_string()
        };
        let hardened = |states: &[String]| with(states, Some(false));
        let text = hardened(&["production".into()]);
        assert!(text.contains("s3.us-east-1.amazonaws.com"));
        let exact = r#"["arn:aws:s3:::b/production","arn:aws:s3:::b/production.tflock"]"#;
        assert!(text.contains(exact), "{text}");
        for bucket_keys in [Some(true), None] {
            let text = with(&["production".into()], bucket_keys);
            assert!(text.contains(r#".tflock","arn:aws:s3:::b"]"#), "{text}");
        }
        assert!(hardened(&["env:/".into()]).contains(r#"["arn:aws:s3:::b/env:/*"]"#));
        let many: Vec<String> = (0..5000).map(|n| format!("state-{n}")).collect();
        let text = hardened(&many);
        assert!(text.contains(r#"["arn:aws:s3:::b/*"]"#) && text.len() < 2000, "{text}");
    }
}
