//! The statements that a principal needs to use a key across an account border, and the states
//! under it, finished and ready to paste.

mod bucket;

use std::fmt;

pub use bucket::InBucket;
use bucket::objects;
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

/// Where hardened statements hold: through S3, and for these states and their locks only.
///
/// With S3 Bucket Keys the encryption context is the bucket's ARN, whatever the object (S3
/// User Guide, "Reducing the cost of SSE-KMS with Amazon S3 Bucket Keys"). So that ARN is
/// named, too, unless they are known to be off.
fn through_s3(partition: &str, region: &str, bucket: StateBucket<'_>, states: &[String]) -> Value {
    let with_lock = |object: String| match object.ends_with('*') {
        true => vec![object],
        false => vec![object.clone(), format!("{object}{LOCK_SUFFIX}")],
    };
    let objects = objects(partition, bucket.name, states);
    let mut arns: Vec<String> = objects.into_iter().flat_map(with_lock).collect();
    if bucket.bucket_keys != Some(false) {
        arns.push(format!("arn:{partition}:s3:::{}", bucket.name));
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

/// A grant that a principal lacks, and how it is made.
struct Grant<'a> {
    principal: &'a str,
    account: &'a str,
    key: &'a KeyArn,
    sides: Sides,
    /// What the policy on the IAM side is for: it replaces one of the same name, so that this and
    /// the key's id are its name.
    purpose: &'a str,
    /// The statements, in one or more variants.
    variants: Vec<Variant>,
    /// The principal's ARN may lack the role's path.
    guessed: bool,
}

/// One way to grant it.
struct Variant {
    title: String,
    of_key: Vec<Value>,
    of_iam: Vec<Value>,
}

/// The elements of a "Statement" list.
fn elements(statements: &[Value]) -> String {
    let all: Vec<String> = statements.iter().map(|one| format!("{one:#}")).collect();
    all.join(",\n")
}

impl Grant<'_> {
    /// Where what goes, for the sides that are not known to grant. Each side by itself is enough
    /// to mend it.
    fn text(&self) -> String {
        let mut parts = Vec::new();
        let own = self.account == self.key.account();
        let both = self.sides.key_policy != Some(true) && self.sides.iam != Some(true);
        if both && own {
            parts.push(
                "Key and principal are in one account: there the key policy's side is enough"
                    .to_owned(),
            );
        } else if both {
            parts.push("Both sides have to grant it; what is there already stays".to_owned());
        }
        if self.variants.len() > 1 {
            parts.push("Take ONE variant, the same on each side".to_owned());
        }
        if self.sides.key_policy != Some(true) {
            parts.push(self.in_key_policy());
        }
        if self.sides.iam != Some(true) {
            parts.push(self.in_iam_policy());
        }
        if self.guessed {
            let path = "If the role has a path, put it into its ARN: a session does not show it (`deploy-principals` \
                        or AWS_ROLE_ARN tells this action)";
            parts.push(path.to_owned());
        }
        parts.push("Then run again".to_owned());
        parts.join("\n\n")
    }

    fn in_key_policy(&self) -> String {
        let key = self.key;
        let (owner, region) = (key.account(), key.region());
        let way = format!(
            "In the key policy of {key}, with credentials of account {owner}: take the policy there is, add what \
             is below to its \"Statement\" list, put it back. Where a statement of the same Sid is there \
             already, put principal and actions into that one, or, if its \"Condition\" is another one, give the new \
             one another Sid: the Sids of a policy have to differ\n\
             aws kms get-key-policy --region {region} --key-id {key} --policy-name default --query Policy \
             --output text > key-policy.json\n\
             aws kms put-key-policy --region {region} --key-id {key} --policy-name default --policy \
             file://key-policy.json"
        );
        self.with_variants(way, |variant| elements(&variant.of_key))
    }

    fn in_iam_policy(&self) -> String {
        let name = format!("{}-{}", self.purpose, self.key.id());
        let put =
            put_policy(self.principal, &name).unwrap_or_else(|| "in IAM's console".to_owned());
        let way = format!(
            "In the IAM policy of {}, with credentials of account {}: as a policy of its own, with what is below \
             as iam-policy.json\n{put}",
            self.principal, self.account
        );
        self.with_variants(way, |variant| format!("{:#}", document(&variant.of_iam)))
    }

    fn with_variants(&self, way: String, text: impl Fn(&Variant) -> String) -> String {
        let one = self.variants.len() == 1;
        let shown = self.variants.iter().map(|variant| match one {
            true => text(variant),
            false => format!("{}:\n{}", variant.title, text(variant)),
        });
        std::iter::once(way).chain(shown).collect::<Vec<_>>().join("\n")
    }
}

/// A Sid for one principal's statement, in a policy that may have the same for others: letters
/// and digits (IAM User Guide, "IAM JSON policy elements: Sid").
fn sid(purpose: &str, principal: &str) -> String {
    let account = principal.split(':').nth(4).unwrap_or_default();
    let name = principal.rsplit('/').next().unwrap_or_default();
    let name = name.chars().filter(char::is_ascii_alphanumeric);
    std::iter::once(purpose).chain([account]).flat_map(str::chars).chain(name).collect()
}

/// A policy of these statements.
fn document(statements: &[Value]) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

fn variant(title: &str, of_key: Value, of_iam: Value) -> Variant {
    let list = |value| match value {
        Value::Array(all) => all,
        one => vec![one],
    };
    Variant { title: title.to_owned(), of_key: list(of_key), of_iam: list(of_iam) }
}

/// What the deploy principal lacks on the sides that are not known to grant: as the runbook has
/// it, and, where the bucket and its states are given, hardened.
pub fn of_deploy(
    caller: Option<&Caller>,
    key: &KeyArn,
    sides: Sides,
    hardened: Option<(StateBucket<'_>, &[String])>,
) -> String {
    let principal = named(caller);
    let account = caller.map_or("its own account", |caller| caller.account.as_str());
    let names = std::slice::from_ref(&principal);
    let mut variants =
        vec![variant("Plain", key_policy_statement(names), iam_policy_statement(key))];
    if let Some((bucket, states)) = hardened {
        let about = about_bucket_keys(bucket).map(|about| format!("; {about}")).unwrap_or_default();
        let (partition, region) = (key.partition(), key.region());
        variants.push(variant(
            &format!("Hardened (through S3 only, and for these states only{about})"),
            hardened_statements(names, partition, region, bucket, states),
            hardened_iam_statements(key, bucket, states),
        ));
    }
    let purpose = "TerraformStateKms";
    let guessed = caller.is_some_and(|caller| caller.principal.guessed);
    Grant { principal: &principal, account, key, sides, purpose, variants, guessed }.text()
}

/// What a role is given on one key.
struct RoleGrant {
    /// Its Sid in a key policy.
    sid: &'static str,
    /// What the policy on the IAM side is for.
    purpose: &'static str,
    actions: &'static [&'static str],
}

const READS: RoleGrant = RoleGrant {
    sid: "StateReaderUse",
    purpose: "TerraformStateKmsRead",
    actions: &["kms:Decrypt", "kms:DescribeKey"],
};

/// S3 User Guide, "Replicating encrypted objects": kms:Decrypt on the source's key.
const REPLICATES: RoleGrant = RoleGrant {
    sid: "StateReplication",
    purpose: "TerraformStateKmsReplication",
    actions: &["kms:Decrypt"],
};

impl RoleGrant {
    /// For the key policy, where each role has a Sid of its own, since several may be added to one.
    fn in_key_policy(&self, role: &str) -> Value {
        json!({
            "Sid": sid(self.sid, role),
            "Effect": "Allow",
            "Principal": { "AWS": role },
            "Action": self.actions,
            "Resource": "*",
        })
    }

    fn in_iam_policy(&self, key: &KeyArn) -> Value {
        json!({
            "Sid": self.purpose,
            "Effect": "Allow",
            "Action": self.actions,
            "Resource": key.as_str(),
        })
    }

    fn text(&self, role: &str, key: &KeyArn, sides: Sides) -> String {
        let account = role.split(':').nth(4).unwrap_or_default();
        let variants = vec![variant("Plain", self.in_key_policy(role), self.in_iam_policy(key))];
        let (principal, purpose) = (role, self.purpose);
        Grant { principal, account, key, sides, purpose, variants, guessed: false }.text()
    }
}

/// The same for a role that only reads.
pub fn of_reader(role: &str, key: &KeyArn, sides: Sides) -> String {
    READS.text(role, key, sides)
}

/// The statements of [`of_reader`], each with the side that it is for.
pub fn reader_documents(role: &str, key: &KeyArn, sides: Sides) -> Vec<(&'static str, Value)> {
    let of_key = ("key-policy", sides.key_policy, READS.in_key_policy(role));
    let of_iam = ("iam-policy", sides.iam, READS.in_iam_policy(key));
    let missing = [of_key, of_iam].into_iter().filter(|(_, side, _)| *side != Some(true));
    missing.map(|(name, _, statement)| (name, statement)).collect()
}

/// The same for the role that S3 replicates as.
pub fn of_replication(role: &str, key: &KeyArn, sides: Sides) -> String {
    REPLICATES.text(role, key, sides)
}

/// The command that gives a user or role a policy of its own. `None`: the ARN is of neither,
/// or not one to be put into a shell (IAM User Guide, «IAM and AWS STS quotas»: names are
/// letters, digits and `+=,.@_-`).
fn put_policy(principal: &str, policy: &str) -> Option<String> {
    let (kind, path) = principal.split(':').nth(5)?.split_once('/')?;
    let name = path.rsplit('/').next()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    let fit = ["role", "user"].contains(&kind) && !name.is_empty() && name.bytes().all(plain);
    fit.then(|| {
        format!(
            "aws iam put-{kind}-policy --{kind}-name {name} --policy-name {policy} --policy-document \
             file://iam-policy.json"
        )
    })
}

/// The caller as policies name it.
pub fn named(caller: Option<&Caller>) -> String {
    caller.map_or("<DEPLOY_PRINCIPAL_ARN>".to_owned(), |caller| caller.principal.arn.clone())
}

#[cfg(test)]
mod tests;
