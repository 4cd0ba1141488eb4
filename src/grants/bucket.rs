//! The statements that a principal needs to use the states in S3, finished and ready to paste.

use serde_json::{Value, json};

use super::{document, elements, put_policy};
use crate::names::LOCK_SUFFIX;

/// More states than a policy has room for become the bucket.
const NAMED: usize = 20;

/// The ARNs of states, or patterns for them. A name that ends in `/` stands for all below it.
pub(super) fn objects(partition: &str, bucket: &str, states: &[String]) -> Vec<String> {
    let whole = format!("arn:{partition}:s3:::{bucket}");
    let of_state = |state: &String| match state.ends_with('/') {
        true => format!("{whole}/{state}*"),
        false if state.is_empty() => format!("{whole}/*"),
        false => format!("{whole}/{state}"),
    };
    match states {
        few if !few.is_empty() && few.len() <= NAMED => few.iter().map(of_state).collect(),
        _ => vec![format!("{whole}/*")],
    }
}

/// What a principal needs of S3.
#[derive(Debug, Clone, Copy)]
pub struct InBucket<'a> {
    /// The user or role.
    pub principal: &'a str,
    /// `aws`, `aws-cn`, …
    pub partition: &'a str,
    /// The bucket's name.
    pub bucket: &'a str,
    /// The account that owns it, where that is known.
    pub owner: Option<&'a str>,
    /// The states' object keys.
    pub states: &'a [String],
    /// The states are written, too.
    pub writes: bool,
    /// They are re-encrypted in place and no other way.
    pub in_place: bool,
    /// A lock object is taken beside each.
    pub locks: bool,
    /// Writes carry an ACL.
    pub acl: bool,
    /// Writes carry the lock of a state that Object Lock keeps.
    pub retains: bool,
}

impl InBucket<'_> {
    /// What goes where: bucket policy and IAM policy, each enough to mend its side.
    pub fn remedy(&self) -> String {
        let Self { principal, bucket, .. } = *self;
        let account = principal.split(':').nth(4).unwrap_or_default();
        let owner = self.owner.unwrap_or("of the bucket's owner");
        let sides = match self.owner == Some(account) {
            true => "Bucket and principal are in one account: either side is enough",
            false => "Both sides have to grant it; what is there already stays",
        };
        let tags = match self.writes {
            true => ". The tagging actions are needed where a state has tags",
            false => "",
        };
        let in_bucket = self.statements(Some(principal));
        let in_iam = document(&self.statements(None));
        let put = put_policy(principal, &self.policy_name())
            .unwrap_or_else(|| "in IAM's console".to_owned());
        format!(
            "{sides}{tags}\n\n\
             In the bucket policy of {bucket}, with credentials of account {owner}: take the policy there is, add \
             what is below to its \"Statement\" list, put it back. Where a statement of the same Sid is there \
             already, put actions and resources into that one: the Sids of a policy have to differ\n\
             aws s3api get-bucket-policy --bucket {bucket} --query Policy --output text > bucket-policy.json\n\
             aws s3api put-bucket-policy --bucket {bucket} --policy file://bucket-policy.json\n\
             {}\n\n\
             In the IAM policy of {principal}, with credentials of account {account}: as a policy of its own, with \
             what is below as iam-policy.json\n{put}\n{in_iam:#}\n\nThen run again",
            elements(&in_bucket)
        )
    }

    /// What the IAM side's policy is called: it replaces one of the same name, so that its first
    /// state is in the name, too.
    fn policy_name(&self) -> String {
        let purpose = if self.writes { "TerraformState" } else { "TerraformStateRead" };
        let first = self.states.first().map_or("", String::as_str);
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let name = format!("{purpose}-{}-{first}", self.bucket);
        name.chars().map(plain).take(128).collect()
    }

    /// The statements; `principal`: for the bucket policy, which names it.
    fn statements(&self, principal: Option<&str>) -> Vec<Value> {
        let one = |name: &str, actions: &[&str], resources: Vec<String>| {
            let mut statement = json!({
                "Sid": name, "Effect": "Allow", "Action": actions, "Resource": resources,
            });
            if let Some(principal) = principal {
                statement["Sid"] = super::sid(name, principal).into();
                statement["Principal"] = json!({ "AWS": principal });
            }
            statement
        };
        let objects = objects(self.partition, self.bucket, self.states);
        let locks = objects.iter().map(|object| format!("{object}{LOCK_SUFFIX}")).collect();
        let mut actions = vec!["s3:GetObject"];
        if self.writes {
            actions.push("s3:PutObject");
            // A copy of a tagged object takes both, and S3 tells of tags only who may read them
            // (S3 API Reference, CopyObject, HeadObject).
            actions.extend(["s3:GetObjectTagging", "s3:PutObjectTagging"]);
            actions.extend(self.in_place.then_some("s3:UpdateObjectEncryption"));
            actions.extend(self.acl.then_some("s3:PutObjectAcl"));
            if self.retains {
                actions.extend(["s3:PutObjectRetention", "s3:PutObjectLegalHold"]);
            }
        }
        let mut all = vec![one("TerraformState", &actions, objects)];
        if self.writes && self.locks {
            let actions = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"];
            all.push(one("TerraformStateLock", &actions, locks));
        }
        let whole = format!("arn:{}:s3:::{}", self.partition, self.bucket);
        all.push(one("TerraformStateList", &["s3:ListBucket"], vec![whole]));
        all
    }
}
