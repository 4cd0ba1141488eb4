//! Reads policy documents, as far as the doctor's questions go. Pure.
//!
//! This is no evaluation: a statement with conditions counts as «perhaps», and what is
//! not understood is reported as unknown, never as fine.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::names::KeyArn;
use crate::principal::{Named, Principal, account_of};

/// How far a policy lets a principal go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// A statement without conditions allows it.
    Allowed,
    /// Only statements with conditions allow it.
    Perhaps,
    /// Nothing allows it, or a statement without conditions denies it.
    Not,
}

/// What is too wide about a key policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Width {
    /// What everyone may, without a condition; here and below, of what leads to decrypting.
    pub everyone: BTreeSet<&'static str>,
    /// What everyone may, under conditions.
    pub everyone_if: BTreeSet<&'static str>,
    /// Whole accounts other than the key's own, and what they may.
    pub accounts: BTreeMap<String, BTreeSet<&'static str>>,
    /// Principals that no longer exist: KMS shows their ids.
    pub remnants: Vec<String>,
    /// The key's own account decides by its IAM policies.
    pub own_account: bool,
}

/// What lets one decrypt, or lets one let oneself: a grant, another key policy, or a re-encryption
/// under a key of one's own.
const DECRYPTING: [&str; 4] =
    ["kms:Decrypt", "kms:CreateGrant", "kms:PutKeyPolicy", "kms:ReEncryptFrom"];

/// A statement without a name.
const UNNAMED: &str = "(without Sid)";

/// A policy's statements.
#[derive(Debug, Clone)]
pub struct Policy(Vec<Value>);

impl Policy {
    /// Reads a document; `None` when it is not a policy.
    pub fn parse(text: &str) -> Option<Self> {
        let document: Value = serde_json::from_str(text).ok()?;
        let statements = match document.get("Statement")? {
            Value::Array(statements) => statements.clone(),
            one => vec![one.clone()],
        };
        Some(Self(statements))
    }

    /// What a key policy says to a principal on its own side. Within the key's account the
    /// principal's own policies may decide, where the key policy leaves it to the account.
    pub fn reach(&self, action: &str, who: &Principal) -> Reach {
        let mut reach = Reach::Not;
        let mut doubt = false;
        for statement in &self.0 {
            let named = names(statement, who);
            if !covers(statement, action) || named == Named::No {
                continue;
            }
            let certain = statement.get("Condition").is_none() && named == Named::Yes;
            match (statement["Effect"].as_str(), certain) {
                (Some("Deny"), true) => return Reach::Not,
                (Some("Deny"), false) => doubt = true,
                (Some("Allow"), true) => reach = Reach::Allowed,
                (Some("Allow"), false) if reach == Reach::Not => reach = Reach::Perhaps,
                _ => {}
            }
        }
        if doubt && reach == Reach::Allowed { Reach::Perhaps } else { reach }
    }

    /// The statement without conditions that denies an action to a principal.
    pub fn denied_by(&self, action: &str, who: &Principal) -> Option<String> {
        let denies = |statement: &&Value| {
            statement["Effect"] == "Deny"
                && statement.get("Condition").is_none()
                && covers(statement, action)
                && names(statement, who) == Named::Yes
        };
        let sid = |statement: &Value| statement["Sid"].as_str().unwrap_or(UNNAMED).to_owned();
        self.0.iter().find(denies).map(sid)
    }

    /// Whether the policy allows an action, without conditions, to the principal by its own ARN or
    /// to everyone, and does not leave it to the principal's account.
    pub fn names_itself(&self, action: &str, who: &Principal) -> bool {
        self.reach(action, who) == Reach::Allowed && self.by_itself(action, who) == Reach::Allowed
    }

    /// Whether the policy allows an action, without conditions, to the principal's account alone, so
    /// that the account's IAM policies decide.
    pub fn leaves_to_account(&self, action: &str, who: &Principal) -> bool {
        self.reach(action, who) == Reach::Allowed && self.by_itself(action, who) == Reach::Not
    }

    fn by_itself(&self, action: &str, who: &Principal) -> Reach {
        // Nobody's account is empty, so no entry means this one by its account.
        self.reach(action, &Principal { account: String::new(), ..who.clone() })
    }

    /// Who may decrypt beside those who should, be it by a detour.
    pub fn width(&self, key: &KeyArn) -> Width {
        let mut width = Width::default();
        for statement in &self.0 {
            let ways = DECRYPTING.into_iter().filter(|action| covers(statement, action));
            let ways: BTreeSet<&'static str> = ways.collect();
            if statement["Effect"] != "Allow" || ways.is_empty() {
                continue;
            }
            if statement.get("NotPrincipal").is_some() {
                width.everyone_if.extend(&ways);
            }
            for principal in principals(statement) {
                let account = account_of(&principal);
                if principal == "*" {
                    match statement.get("Condition") {
                        Some(_) => width.everyone_if.extend(&ways),
                        None => width.everyone.extend(&ways),
                    }
                } else if account == Some(key.account()) {
                    width.own_account = true;
                } else if let Some(account) = account {
                    width.accounts.entry(account.to_owned()).or_default().extend(&ways);
                } else if !principal.starts_with("arn:") {
                    width.remnants.push(principal);
                }
            }
        }
        width
    }

    /// The denials of a bucket policy that would hit a write with these headers by this
    /// principal. `Err`: a denial of which that is not clear.
    pub fn denies_write(
        &self,
        resource: &str,
        headers: &[(&str, &str)],
        who: Option<&Principal>,
    ) -> Vec<Result<String, String>> {
        let mut hits = Vec::new();
        for statement in &self.0 {
            let hit = |patterns: &Value| texts(patterns).any(|pattern| like(pattern, resource));
            let meant = match statement.get("NotResource") {
                Some(not) => !hit(not),
                None => hit(&statement["Resource"]),
            };
            let concerned =
                statement["Effect"] == "Deny" && covers(statement, "s3:PutObject") && meant;
            let named = match who {
                Some(who) => names(statement, who),
                None if principals(statement).iter().any(|entry| entry == "*") => Named::Yes,
                None => Named::Perhaps,
            };
            if !concerned || named == Named::No {
                continue;
            }
            let id = statement["Sid"].as_str().unwrap_or(UNNAMED).to_owned();
            match (conditions_hold(&statement["Condition"], headers), named) {
                (Some(true), Named::Yes) => hits.push(Ok(id)),
                (Some(false), _) => {}
                _ => hits.push(Err(id)),
            }
        }
        hits
    }
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let list = match value {
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    };
    list.into_iter().filter_map(Value::as_str)
}

fn covers(statement: &Value, action: &str) -> bool {
    let action = action.to_lowercase();
    let hit =
        |patterns: &Value| texts(patterns).any(|pattern| like(&pattern.to_lowercase(), &action));
    match statement.get("NotAction") {
        Some(not) => !hit(not),
        None => hit(&statement["Action"]),
    }
}

fn principals(statement: &Value) -> Vec<String> {
    match &statement["Principal"] {
        Value::String(one) => vec![one.clone()],
        other => texts(&other["AWS"]).map(str::to_owned).collect(),
    }
}

/// Whether a statement means this principal. `NotPrincipal` is not followed: it excepts
/// sessions and accounts by rules of their own.
fn names(statement: &Value, who: &Principal) -> Named {
    if statement.get("NotPrincipal").is_some() {
        return Named::Perhaps;
    }
    let entries = principals(statement);
    let named = |wanted| entries.iter().any(|entry| who.named_by(entry) == wanted);
    match (named(Named::Yes), named(Named::Perhaps)) {
        (true, _) => Named::Yes,
        (false, true) => Named::Perhaps,
        (false, false) => Named::No,
    }
}

/// Whether all conditions hold for a write with these headers; `None`: not understood.
fn conditions_hold(condition: &Value, headers: &[(&str, &str)]) -> Option<bool> {
    let Some(operators) = condition.as_object() else { return Some(true) };
    let mut all = true;
    for (operator, keys) in operators {
        for (key, wanted) in keys.as_object()? {
            let key = key.to_lowercase();
            let value = match key.as_str() {
                // Every request of this action and of Terraform goes over TLS.
                "aws:securetransport" => Some("true"),
                key if key.starts_with("s3:x-amz-") => headers
                    .iter()
                    .find(|(name, _)| key.strip_prefix("s3:") == Some(name))
                    .map(|(_, v)| *v),
                _ => return None,
            };
            let (base, if_exists) = match operator.strip_suffix("IfExists") {
                Some(base) => (base, true),
                None => (operator.as_str(), false),
            };
            let any = |matches: fn(&str, &str) -> bool| {
                value.map(|value| texts(wanted).any(|wanted| matches(wanted, value)))
            };
            let equal: fn(&str, &str) -> bool = |a, b| a == b;
            let hit = match base {
                "Null" => {
                    texts(wanted).any(|w| (w == "true") == value.is_none())
                        || wanted.as_bool().is_some_and(|w| w == value.is_none())
                }
                "Bool" => match (wanted.as_bool(), value) {
                    (Some(wanted), Some(value)) => wanted.to_string() == value,
                    _ => any(equal)?,
                },
                "StringEquals" => any(equal).unwrap_or(if_exists),
                "StringLike" => any(like).unwrap_or(if_exists),
                // These two are one: both take wildcards (IAM User Guide, "Amazon Resource
                // Name (ARN) condition operators").
                "ArnEquals" | "ArnLike" => any(arn_like).unwrap_or(if_exists),
                // A negated operator holds for a header that is not sent.
                "StringNotEquals" => any(equal).is_none_or(|hit| !hit),
                "StringNotLike" => any(like).is_none_or(|hit| !hit),
                "ArnNotEquals" | "ArnNotLike" => any(arn_like).is_none_or(|hit| !hit),
                _ => return None,
            };
            all &= hit;
        }
    }
    Some(all)
}

/// Wildcards in an ARN: each of the six parts is compared on its own.
fn arn_like(pattern: &str, arn: &str) -> bool {
    let (patterns, parts) = (pattern.splitn(6, ':'), arn.splitn(6, ':'));
    patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| like(pattern, part))
}

/// Wildcards `*` and `?`, as policies use them.
fn like(pattern: &str, text: &str) -> bool {
    let (mut patterns, mut rest) = (pattern.split('*'), text);
    let first = patterns.next().unwrap_or_default();
    let Some(after) = strip(rest, first) else { return false };
    rest = after;
    let mut tail: Vec<&str> = patterns.collect();
    let Some(last) = tail.pop() else { return rest.is_empty() };
    for part in tail {
        let Some(at) = rest
            .char_indices()
            .map(|(at, _)| at)
            .chain([rest.len()])
            .find(|&at| strip(&rest[at..], part).is_some())
        else {
            return false;
        };
        rest = strip(&rest[at..], part).unwrap_or_default();
    }
    rest.char_indices()
        .map(|(at, _)| at)
        .chain([rest.len()])
        .any(|at| strip(&rest[at..], last).is_some_and(str::is_empty))
}

/// Takes a part without `*` from the beginning of a text.
fn strip<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    let mut rest = text.chars();
    for wanted in part.chars() {
        let c = rest.next()?;
        if wanted != '?' && wanted != c {
            return None;
        }
    }
    Some(rest.as_str())
}

#[cfg(test)]
mod tests;
