//! Who may do what with KMS, and which key policies it takes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kms::Call;
use crate::policy::{Policies, statements, texts};
use crate::world::{Failure, Key, Principal, World, policies_of};

impl World {
    /// Asks the policies about a KMS action under a key policy.
    pub(crate) fn may_under(
        &self,
        who: &Principal,
        action: &str,
        arn: &str,
        policy: &Value,
        mut context: BTreeMap<String, String>,
    ) -> Result<(), Failure> {
        let owner = arn.split(':').nth(4).unwrap_or_default();
        context.insert("kms:CallerAccount".into(), who.identity.account.clone());
        let policy = effective(policy);
        let policies =
            Policies { resource: Some(&policy), needs_delegation: true, ..policies_of(who) };
        self.decide(who, action, arn, owner, context, &policies, "AccessDeniedException", 400)
    }

    /// Asks the caller's own policies about a KMS action that has no key to ask, or an alias,
    /// which has no policy of its own.
    pub(crate) fn may_in_kms(
        &self,
        who: &Principal,
        action: &str,
        resource: &str,
        mut context: BTreeMap<String, String>,
    ) -> Result<(), Failure> {
        let account = &who.identity.account;
        context.insert("kms:CallerAccount".into(), account.clone());
        let policies = policies_of(who);
        let code = "AccessDeniedException";
        self.decide(who, action, resource, account, context, &policies, code, 400)
    }

    /// AWS, "Key policies", principals: users and roles that IAM does not know are refused, and
    /// so is the id that stands for a deleted one.
    fn is_valid_principal(&self, principal: &str) -> bool {
        let is_account = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        if principal == "*" || is_account(principal) {
            return true;
        }
        let ["arn", "aws", service, "", account, tail] =
            principal.splitn(6, ':').collect::<Vec<_>>()[..]
        else {
            return false;
        };
        let known = |arn: &str| {
            self.roles.contains_key(arn)
                || self.principals.values().any(|who| who.identity.arn == arn)
        };
        let session = |tail: &str| tail.split('/').next().unwrap_or_default().to_owned();
        is_account(account)
            && match (service, tail.split_once('/')) {
                ("iam", None) => tail == "root",
                ("iam", Some(("user" | "role", _))) => known(principal),
                // A session's ARN has the role's name without its path.
                ("sts", Some(("assumed-role", rest))) => {
                    let name = session(rest);
                    let of = format!("arn:aws:iam::{account}:role/");
                    let mut arns = self
                        .roles
                        .keys()
                        .map(String::as_str)
                        .chain(self.principals.values().map(|who| who.identity.arn.as_str()));
                    arns.any(|arn| arn.starts_with(&of) && arn.rsplit('/').next() == Some(&*name))
                }
                ("sts", Some(("federated-user", _))) => true,
                _ => false,
            }
    }
}

/// AWS: the policy of a key that is made without one.
pub(crate) fn default_policy(account: &str) -> Value {
    json!({
        "Version": "2012-10-17",
        "Id": "key-default-1",
        "Statement": [{
            "Sid": "Enable IAM User Permissions", "Effect": "Allow",
            "Principal": { "AWS": format!("arn:aws:iam::{account}:root") },
            "Action": "kms:*", "Resource": "*",
        }],
    })
}

fn malformed(message: &str) -> Failure {
    Failure::new("MalformedPolicyDocumentException", 400, message)
}

/// AWS, PutKeyPolicy: each statement names its principals. One without `Action` or `Resource`
/// is taken and has no effect.
fn parsed(text: &str) -> Result<Value, Failure> {
    // AWS, "Creating a key policy": 32 kilobytes of Latin-1 without control characters.
    if text.len() > 32_768 {
        return Err(Failure::new("LimitExceededException", 400, "The policy is too long."));
    }
    let fits = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}');
    let policy: Value = Some(text)
        .filter(|text| text.chars().all(fits))
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| malformed("Syntax errors in policy."))?;
    let is_whole = |statement: &Value| {
        ["Allow", "Deny"].iter().any(|effect| statement["Effect"] == *effect)
            && !(statement["Principal"].is_null() && statement["NotPrincipal"].is_null())
    };
    if policy.is_object() && statements(&policy).count() > 0 && statements(&policy).all(is_whole) {
        Ok(policy)
    } else {
        Err(malformed("The new key policy is not a valid policy document."))
    }
}

/// The statements of a key policy that have an effect.
fn effective(policy: &Value) -> Value {
    let has = |statement: &Value, names: [&str; 2]| names.iter().any(|n| !statement[n].is_null());
    let all = statements(policy)
        .filter(|s| has(s, ["Action", "NotAction"]) && has(s, ["Resource", "NotResource"]));
    json!({ "Statement": all.collect::<Vec<_>>() })
}

impl Call<'_> {
    /// The policy that the request brings for a key, if KMS takes it.
    pub(crate) fn new_policy(&self, arn: &str) -> Result<Value, Failure> {
        let policy = parsed(self.input["Policy"].as_str().unwrap_or_default())?;
        let invalid = statements(&policy)
            .flat_map(|s| texts(&s["Principal"]["AWS"]).into_iter().chain(texts(&s["Principal"])))
            .any(|principal| !self.world.is_valid_principal(principal));
        if invalid {
            let message = "Policy contains a statement with one or more invalid principals.";
            return Err(malformed(message));
        }
        // AWS, PutKeyPolicy: the caller must be able to put the next one, unless the request
        // bypasses that check.
        let after = self.world.may_under(
            self.who,
            "kms:PutKeyPolicy",
            arn,
            &policy,
            self.bypass_condition(),
        );
        if after.is_err() && self.input["BypassPolicyLockoutSafetyCheck"] != true {
            let message =
                "The new key policy will not allow you to update the key policy in the future.";
            return Err(malformed(message));
        }
        Ok(policy)
    }

    /// AWS: the condition key of CreateKey and PutKeyPolicy.
    pub(crate) fn bypass_condition(&self) -> BTreeMap<String, String> {
        let bypasses = self.input["BypassPolicyLockoutSafetyCheck"] == true;
        [("kms:BypassPolicyLockoutSafetyCheck".to_owned(), bypasses.to_string())].into()
    }

    /// A key that the caller may manage. AWS: most of these operations take a key's id or ARN
    /// and no alias, and do not go across accounts.
    pub(crate) fn own_key(
        &self,
        action: &str,
        context: BTreeMap<String, String>,
    ) -> Result<&Key, Failure> {
        let key = self.listed_key(action, context)?;
        self.same_account(key)?;
        Ok(key)
    }

    /// Likewise, of any account.
    pub(crate) fn listed_key(
        &self,
        action: &str,
        context: BTreeMap<String, String>,
    ) -> Result<&Key, Failure> {
        let arn = self.key_arn("KeyId")?;
        self.world.may_use_key(self.who, action, &arn, context)
    }

    pub(crate) fn same_account(&self, key: &Key) -> Result<(), Failure> {
        if key.account() == self.who.identity.account {
            return Ok(());
        }
        Err(Failure::new("AccessDeniedException", 400, "not available across accounts"))
    }

    /// The ARN of a key that is not named by an alias.
    pub(crate) fn key_arn(&self, parameter: &str) -> Result<String, Failure> {
        let id = self.input[parameter].as_str().unwrap_or_default();
        if id.is_empty() {
            let message = format!(
                "1 validation error detected: Value null at '{parameter}' failed to satisfy \
                 constraint: Member must not be null"
            );
            return Err(Failure::new("ValidationException", 400, message));
        }
        if id.starts_with("alias/") || id.contains(":alias/") {
            return Err(Failure::new("NotFoundException", 400, format!("Invalid keyId {id}")));
        }
        self.arn_of(parameter)
    }
}
