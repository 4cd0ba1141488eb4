//! Policy evaluation: pure, one request against the policies that apply to it.
//!
//! After "Policy evaluation logic" of the IAM User Guide, as far as S3, KMS and STS
//! need it here: an explicit deny wins; in one account either side may allow; across an
//! account border both must; a session policy limits what the identity brings along.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's ARN, or the role's (not the session's).
    pub arn: String,
    /// For a role session or a federated user: its own ARN.
    pub session_arn: Option<String>,
    /// Twelve digits.
    pub account: String,
}

impl Identity {
    /// The ARN that AWS shows: the session's, where there is one.
    pub fn shown(&self) -> &str {
        self.session_arn.as_deref().unwrap_or(&self.arn)
    }
}

/// What is asked.
#[derive(Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub identity: &'a Identity,
    /// Such as `s3:GetObject`.
    pub action: &'a str,
    /// The resource's ARN.
    pub resource: &'a str,
    /// The account that owns the resource.
    pub owner: &'a str,
    /// Condition keys and their values.
    pub context: BTreeMap<String, String>,
}

/// The policies that apply.
#[derive(Debug, Default)]
pub struct Policies<'a> {
    /// Of the user or role.
    pub identity: Vec<&'a Value>,
    /// Passed when the session was made.
    pub session: Option<&'a Value>,
    /// Of the bucket or key.
    pub resource: Option<&'a Value>,
    /// KMS: IAM policies count only where the key policy delegates to the account. In
    /// S3 they count by themselves.
    pub needs_delegation: bool,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allow,
    /// Denied, and the clause that AWS puts into the message. It names one side only,
    /// even where both are missing.
    Deny(&'static str),
}

/// How a resource policy's statement names a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// By the account, which leaves the decision to that account's policies.
    Account,
    /// By the user's or role's ARN: limited by a session policy.
    Identity,
    /// By the session's ARN, or everyone: a session policy does not limit that.
    Session,
}

/// Decides.
pub fn evaluate(request: &Request<'_>, policies: &Policies<'_>) -> Decision {
    let denied = |policy: &Value, resource_policy: bool| {
        statements(policy).any(|s| {
            s["Effect"] == "Deny"
                && applies(s, request)
                && (!resource_policy || named(s, request.identity).is_some())
        })
    };
    if policies.identity.iter().any(|p| denied(p, false)) {
        return Decision::Deny("with an explicit deny in an identity-based policy");
    }
    if policies.session.is_some_and(|p| denied(p, false)) {
        return Decision::Deny("with an explicit deny in a session policy");
    }
    if policies.resource.is_some_and(|p| denied(p, true)) {
        return Decision::Deny("with an explicit deny in a resource-based policy");
    }
    let allowed =
        |policy: &Value| statements(policy).any(|s| s["Effect"] == "Allow" && applies(s, request));
    let identity = policies.identity.iter().any(|p| allowed(p));
    let session = policies.session.is_none_or(allowed);
    let granted: Vec<Named> = policies
        .resource
        .into_iter()
        .flat_map(statements)
        .filter(|s| s["Effect"] == "Allow" && applies(s, request))
        .filter_map(|s| named(s, request.identity))
        .collect();

    if request.identity.account != request.owner {
        return if !identity {
            Decision::Deny("because no identity-based policy allows the")
        } else if !session {
            Decision::Deny("because no session policy allows the")
        } else if granted.is_empty() {
            Decision::Deny("because no resource-based policy allows the")
        } else {
            Decision::Allow
        };
    }
    let delegated = !policies.needs_delegation || granted.contains(&Named::Account);
    let by_identity = identity && session && delegated;
    let by_resource =
        granted.contains(&Named::Session) || (granted.contains(&Named::Identity) && session);
    if by_identity || by_resource {
        Decision::Allow
    } else if !session {
        Decision::Deny("because no session policy allows the")
    } else if identity {
        Decision::Deny("because no resource-based policy allows the")
    } else {
        Decision::Deny("because no identity-based policy allows the")
    }
}

pub(crate) fn statements(policy: &Value) -> impl Iterator<Item = &Value> {
    list(&policy["Statement"]).into_iter()
}

/// A value that may stand alone or in a list.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}

pub(crate) fn texts(value: &Value) -> Vec<&str> {
    list(value).into_iter().filter_map(Value::as_str).collect()
}

fn applies(statement: &Value, request: &Request<'_>) -> bool {
    let one = |patterns: &Value, value: &str, fold: bool| {
        texts(patterns).into_iter().any(|pattern| like(pattern, value, fold))
    };
    let action = match &statement["NotAction"] {
        Value::Null => one(&statement["Action"], request.action, true),
        not => !one(not, request.action, true),
    };
    // In a key policy, `*` means the key.
    let resource = match (&statement["NotResource"], &statement["Resource"]) {
        (Value::Null, Value::Null) => true,
        (Value::Null, resource) => one(resource, request.resource, false),
        (not, _) => !one(not, request.resource, false),
    };
    action && resource && conditions(&statement["Condition"], &request.context)
}

/// The condition keys that a request lacks, of all statements for its action and resource.
pub(crate) fn missing_keys(request: &Request<'_>, policies: &[Value]) -> BTreeSet<String> {
    let any = |statement: &&Value| {
        let mut bare = (*statement).clone();
        bare.as_object_mut().map(|bare| bare.remove("Condition"));
        applies(&bare, request)
    };
    let operators = policies.iter().flat_map(statements).filter(any).flat_map(|statement| {
        statement["Condition"].as_object().into_iter().flat_map(serde_json::Map::values)
    });
    operators
        .flat_map(|keys| keys.as_object().into_iter().flat_map(serde_json::Map::keys))
        .filter(|key| !request.context.contains_key(*key))
        .cloned()
        .collect()
}

fn named(statement: &Value, identity: &Identity) -> Option<Named> {
    let principal = &statement["Principal"];
    if principal == "*" {
        return Some(Named::Session);
    }
    let root = format!(":iam::{}:root", identity.account);
    let mut best = None;
    for text in texts(&principal["AWS"]) {
        let named = if text == "*" || Some(text) == identity.session_arn.as_deref() {
            Named::Session
        } else if text == identity.arn {
            Named::Identity
        } else if text == identity.account || text.ends_with(&root) {
            Named::Account
        } else {
            continue;
        };
        best = match best {
            None | Some(Named::Account) => Some(named),
            Some(Named::Identity) if named == Named::Session => Some(named),
            kept => kept,
        };
    }
    best
}

fn conditions(condition: &Value, context: &BTreeMap<String, String>) -> bool {
    let Some(operators) = condition.as_object() else { return true };
    operators.iter().all(|(operator, keys)| {
        let keys = keys.as_object();
        keys.is_some_and(|keys| {
            keys.iter().all(|(key, wanted)| holds(operator, context.get(key), wanted))
        })
    })
}

/// One operator. A negated one holds for a missing key, another one does not, and `…IfExists`
/// holds for it always.
fn holds(operator: &str, value: Option<&String>, wanted: &Value) -> bool {
    let (base, if_exists) = match operator.strip_suffix("IfExists") {
        Some(base) => (base, true),
        None => (operator, false),
    };
    if base == "Null" {
        return texts(wanted).contains(&if value.is_none() { "true" } else { "false" });
    }
    let negated = base.contains("Not");
    let Some(value) = value else { return if_exists || negated };
    let pattern = base.contains("Like") || base.starts_with("Arn");
    let hit = list(wanted).into_iter().any(|wanted| match wanted {
        Value::String(text) if pattern => like(text, value, false),
        Value::String(text) => text == value,
        Value::Bool(flag) => flag.to_string() == *value,
        _ => false,
    });
    hit != negated
}

/// Wildcards `*` and `?`.
fn like(pattern: &str, text: &str, fold: bool) -> bool {
    let prepare = |s: &str| -> Vec<char> {
        if fold { s.to_lowercase().chars().collect() } else { s.chars().collect() }
    };
    let (pattern, text) = (prepare(pattern), prepare(text));
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && (pattern[p] == '?' || (pattern[p] == text[t] && pattern[p] != '*'))
        {
            p += 1;
            t += 1;
        } else if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if let Some((at, from)) = star {
            p = at + 1;
            t = from + 1;
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROLE: &str = "arn:aws:iam::222222222222:role/cicd";
    const SESSION: &str = "arn:aws:sts::222222222222:assumed-role/cicd/run";

    fn allow(principal: Value) -> Value {
        json!({ "Statement": { "Effect": "Allow", "Principal": principal, "Action": "kms:Decrypt", "Resource": "*" } })
    }

    fn decide(
        owner: &str,
        identity: Option<Value>,
        session: Option<Value>,
        resource: Option<Value>,
    ) -> Decision {
        let who = Identity {
            arn: ROLE.into(),
            session_arn: Some(SESSION.into()),
            account: "222222222222".into(),
        };
        let request = Request {
            identity: &who,
            action: "kms:Decrypt",
            resource: "arn:aws:kms:us-east-1:1:key/x",
            owner,
            context: BTreeMap::new(),
        };
        let policies = Policies {
            identity: identity.iter().collect(),
            session: session.as_ref(),
            resource: resource.as_ref(),
            needs_delegation: true,
        };
        evaluate(&request, &policies)
    }

    #[test]
    fn both_sides_are_needed_across_accounts() {
        let mine = || {
            Some(
                json!({ "Statement": [{ "Effect": "Allow", "Action": "kms:*", "Resource": "*" }] }),
            )
        };
        let key = |p| Some(allow(p));
        let other = "111111111111";
        for (identity, resource, allowed) in [
            (mine(), key(json!({ "AWS": ROLE })), true),
            (mine(), key(json!({ "AWS": "arn:aws:iam::222222222222:root" })), true),
            (mine(), key(json!("*")), true),
            (None, key(json!({ "AWS": ROLE })), false),
            (None, key(json!("*")), false),
            (mine(), key(json!({ "AWS": "arn:aws:iam::222222222222:role/other" })), false),
            (mine(), None, false),
        ] {
            let what = format!("{identity:?} {resource:?}");
            assert_eq!(
                decide(other, identity, None, resource) == Decision::Allow,
                allowed,
                "{what}"
            );
        }
    }

    #[test]
    fn session_policies_limit_the_identity_but_not_everyone() {
        let mine = || {
            Some(
                json!({ "Statement": [{ "Effect": "Allow", "Action": "kms:*", "Resource": "*" }] }),
            )
        };
        let empty = || Some(json!({ "Statement": [] }));
        let own = "222222222222";
        let root = json!({ "AWS": "arn:aws:iam::222222222222:root" });
        for (resource, allowed) in [
            (json!({ "AWS": ROLE }), false),
            (json!({ "AWS": SESSION }), true),
            (json!("*"), true),
            (root, false),
        ] {
            let what = format!("{resource}");
            let decision = decide(own, mine(), empty(), Some(allow(resource)));
            assert_eq!(decision == Decision::Allow, allowed, "{what}");
        }
        assert_eq!(
            decide(
                own,
                mine(),
                None,
                Some(allow(json!({ "AWS": "arn:aws:iam::222222222222:root" })))
            ),
            Decision::Allow
        );
        assert!(
            matches!(
                decide(own, mine(), None, Some(json!({ "Statement": [] }))),
                Decision::Deny(_)
            ),
            "no delegation"
        );
    }

    #[test]
    fn a_deny_wins_and_conditions_count() {
        let deny = json!({ "Statement": [
            { "Effect": "Allow", "Action": "*", "Resource": "*" },
            { "Effect": "Deny", "Action": "kms:Decrypt", "Resource": "*" },
        ] });
        assert!(matches!(
            decide("222222222222", Some(deny), None, Some(allow(json!("*")))),
            Decision::Deny(_)
        ));
        let context = BTreeMap::from([(
            "kms:ViaService".to_owned(),
            "s3.us-east-1.amazonaws.com".to_owned(),
        )]);
        let via = json!({ "StringEquals": { "kms:ViaService": "s3.us-east-1.amazonaws.com" } });
        assert!(conditions(&via, &context) && !conditions(&via, &BTreeMap::new()));
        assert!(conditions(&json!({ "StringNotEquals": { "a": "b" } }), &BTreeMap::new()));
        assert!(conditions(&json!({ "StringEqualsIfExists": { "a": "b" } }), &BTreeMap::new()));
        assert!(conditions(&json!({ "Null": { "a": "true" } }), &BTreeMap::new()));
        assert!(conditions(
            &json!({ "StringLike": { "kms:ViaService": ["x", "s3.*"] } }),
            &context
        ));
    }

    #[test]
    fn wildcards() {
        assert!(like("arn:aws:s3:::b/*", "arn:aws:s3:::b/a/b", false));
        assert!(!like("arn:aws:s3:::b/*", "arn:aws:s3:::b", false));
        assert!(like("s3:Get*", "s3:getobject", true));
        assert!(like("a?c*", "abcd", false) && !like("a?c", "abcd", false));
    }
}
