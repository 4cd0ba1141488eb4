//! Writes, compares and edits key policies. Pure.
//!
//! Edits touch what they are about and nothing else, and never take the last administrator.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::grants::{self, StateBucket};
use crate::principal::{Principal, account_of};

/// How the deploy principals may use the key.
#[derive(Debug, Clone, Copy)]
pub enum Usage<'a> {
    /// By any call: the runbook's four actions.
    Direct,
    /// Through S3 in this region, and for these states of the bucket only.
    ThroughS3 {
        /// The bucket's region.
        region: &'a str,
        /// The bucket.
        bucket: StateBucket<'a>,
        /// The states' object keys.
        states: &'a [String],
    },
}

/// The policy of a new key (Part 1 of the runbook): the account administers it, the deploy
/// principals use it.
pub fn wanted(partition: &str, account: &str, principals: &[String], usage: Usage<'_>) -> Value {
    let mut statements = vec![json!({
        "Sid": "RootAdmin",
        "Effect": "Allow",
        "Principal": { "AWS": format!("arn:{partition}:iam::{account}:root") },
        "Action": "kms:*",
        "Resource": "*",
    })];
    match usage {
        Usage::Direct => statements.push(grants::key_policy_statement(principals)),
        Usage::ThroughS3 { region, bucket, states } => {
            let hardened =
                grants::hardened_statements(principals, partition, region, bucket, states);
            statements.extend(hardened.as_array().cloned().unwrap_or_default());
        }
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// The statements of a policy.
fn statements(policy: &Value) -> Vec<Value> {
    match &policy["Statement"] {
        Value::Array(statements) => statements.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    }
}

fn with_statements(policy: &Value, statements: Vec<Value>) -> Value {
    let mut policy = policy.clone();
    policy["Statement"] = Value::Array(statements);
    policy
}

/// A text or a list of texts.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// As it was before: one text, or a list.
fn as_before(was: &Value, texts: Vec<String>) -> Value {
    match (&texts[..], was) {
        ([one], Value::String(_)) => Value::String(one.clone()),
        _ => texts.into(),
    }
}

/// The AWS principals of a statement.
fn principals(statement: &Value) -> Vec<String> {
    match &statement["Principal"] {
        Value::String(everyone) => vec![everyone.clone()],
        by_kind => texts(&by_kind["AWS"]),
    }
}

/// An account by its id, whichever way and in whichever partition it is named.
fn same_account_form(entry: &str) -> &str {
    account_of(entry).unwrap_or(entry)
}

/// A statement without what has no meaning: its name, the order and the number of lists.
fn meaning(statement: &Value) -> Value {
    let sorted = |texts: Vec<String>| texts.into_iter().collect::<BTreeSet<String>>();
    let lower = |texts: Vec<String>| texts.into_iter().map(|t| t.to_lowercase()).collect();
    let mut out = Map::new();
    for (name, value) in statement.as_object().into_iter().flatten() {
        let value = match name.as_str() {
            "Sid" => continue,
            "Principal" | "NotPrincipal" => {
                let kinds: Map<String, Value> = match value {
                    Value::Object(kinds) => kinds
                        .iter()
                        .map(|(kind, entries)| {
                            let all = texts(entries)
                                .iter()
                                .map(|e| same_account_form(e).to_owned())
                                .collect();
                            (kind.clone(), json!(sorted(all)))
                        })
                        .collect(),
                    everyone => {
                        Map::from_iter([("AWS".to_owned(), json!(sorted(texts(everyone))))])
                    }
                };
                Value::Object(kinds)
            }
            "Action" | "NotAction" => json!(sorted(lower(texts(value)))),
            "Resource" | "NotResource" => json!(sorted(texts(value))),
            "Condition" => {
                let mut operators = Map::new();
                for (operator, keys) in value.as_object().into_iter().flatten() {
                    let keys: Map<String, Value> = keys
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(key, values)| (key.to_lowercase(), json!(sorted(texts(values)))))
                        .collect();
                    operators.insert(operator.clone(), keys.into());
                }
                operators.into()
            }
            _ => value.clone(),
        };
        out.insert(name.clone(), value);
    }
    out.into()
}

/// The meaning apart from whom it is for.
fn grant_of(statement: &Value) -> Value {
    let mut grant = meaning(statement);
    if let Some(grant) = grant.as_object_mut() {
        grant.remove("Principal");
    }
    grant
}

/// Whether two policies mean the same.
pub fn same(a: &Value, b: &Value) -> bool {
    let meanings = |policy: &Value| {
        let mut all: Vec<String> =
            statements(policy).iter().map(|one| meaning(one).to_string()).collect();
        all.sort();
        all
    };
    meanings(a) == meanings(b)
}

/// What of the wanted policy another lacks: for each statement, the principals who have no
/// such grant. More than what is wanted is no lack.
pub fn lacking(policy: &Value, wanted: &Value) -> Vec<(String, Vec<String>)> {
    let existing = statements(policy);
    statements(wanted)
        .iter()
        .filter_map(|statement| {
            let lacks: Vec<String> = principals(statement)
                .into_iter()
                .filter(|who| !existing.iter().any(|one| gives(one, statement, who)))
                .collect();
            let sid = statement["Sid"].as_str().unwrap_or_default().to_owned();
            (!lacks.is_empty()).then_some((sid, lacks))
        })
        .collect()
}

/// Whether a statement gives someone at least what the wanted one gives.
fn gives(statement: &Value, wanted: &Value, who: &str) -> bool {
    let (one, needed) = (meaning(statement), meaning(wanted));
    let actions = texts(&one["Action"]);
    let covers = |action: &String| actions.iter().any(|a| a == action || a == "kms:*" || a == "*");
    one["Effect"] == "Allow"
        && one.get("NotAction").is_none()
        && texts(&needed["Action"]).iter().all(covers)
        && principals(statement).iter().any(|one| same_account_form(one) == same_account_form(who))
        && one["Resource"] == json!(["*"])
        && (one.get("Condition").is_none() || one.get("Condition") == needed.get("Condition"))
}

/// The policy with what it lacks of the wanted one. All other statements stay as they are.
pub fn grant(policy: &Value, wanted: &Value) -> Value {
    let mut all = statements(policy);
    for (sid, who) in lacking(policy, wanted) {
        let Some(model) = statements(wanted).into_iter().find(|one| one["Sid"] == sid.as_str())
        else {
            continue;
        };
        let twin = all.iter_mut().find(|one| {
            grant_of(one) == grant_of(&model) && one["Principal"]["AWS"] != Value::Null
        });
        match twin {
            Some(twin) => {
                let mut list = texts(&twin["Principal"]["AWS"]);
                list.extend(who);
                twin["Principal"]["AWS"] = list.into();
            }
            None => {
                let mut statement = model;
                statement["Principal"]["AWS"] = as_before(&Value::String(String::new()), who);
                statement["Sid"] = unused_sid(&all, &sid).into();
                all.push(statement);
            }
        }
    }
    with_statements(policy, all)
}

/// KMS wants the names of a policy's statements to differ.
fn unused_sid(statements: &[Value], sid: &str) -> String {
    let taken = |name: &str| statements.iter().any(|one| one["Sid"] == name);
    let numbered = (2_u32..).map(|n| format!("{sid}{n}"));
    std::iter::once(sid.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

/// A principal taken out of a policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Revoked {
    /// The policy without it.
    pub policy: Value,
    /// Whether anything was there to be taken out.
    pub changed: bool,
    /// Statements that may still let it through, and why.
    pub remaining: Vec<String>,
}

/// The condition keys that name principals.
const NAMING: [&str; 3] = ["aws:principalarn", "aws:userid", "aws:username"];

/// Takes a principal out of every statement that allows something: out of the lists of
/// principals and out of conditions that name it. What denies stays: taking it out of a denial
/// would give it more.
///
/// # Errors
/// When nobody would be left who may change the policy.
pub fn revoke(policy: &Value, who: &Principal) -> Result<Revoked, String> {
    let mut remaining = Vec::new();
    let mut kept = Vec::new();
    for statement in statements(policy) {
        match statement["Effect"].as_str() {
            Some("Allow") => kept.extend(without(&statement, who, &mut remaining)),
            _ => kept.push(except(&statement, who, &mut remaining)),
        }
    }
    let after = with_statements(policy, kept);
    let (before, left) = (administrators(policy), administrators(&after));
    if left.is_empty() {
        return Err(format!(
            "without {} nobody could change the key policy any more: its administrators are {}",
            who.arn,
            before.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(Revoked { changed: after != *policy, policy: after, remaining })
}

fn is_named(entry: &str, who: &Principal) -> bool {
    let session = |entry: &str| {
        // A session of the role: arn:…:sts::ACCOUNT:assumed-role/NAME/SESSION
        let name = who.arn.rsplit('/').next().unwrap_or_default();
        who.arn.contains(":role/")
            && entry.contains(&format!(":sts::{}:assumed-role/{name}/", who.account))
    };
    entry == who.arn || session(entry)
}

/// An allowing statement without the principal; `None` when nobody is left in it.
fn without(statement: &Value, who: &Principal, remaining: &mut Vec<String>) -> Option<Value> {
    let mut out = statement.clone();
    let name = statement["Sid"].as_str().unwrap_or("(without Sid)").to_owned();
    let listed = &statement["Principal"]["AWS"];
    let entries = texts(listed);
    if entries.iter().any(|entry| is_named(entry, who)) {
        let left: Vec<String> = entries.into_iter().filter(|entry| !is_named(entry, who)).collect();
        let others = statement["Principal"].as_object().is_some_and(|kinds| kinds.len() > 1);
        match (left.is_empty(), others) {
            (true, false) => return None,
            (true, true) => {
                out["Principal"].as_object_mut()?.remove("AWS");
            }
            (false, _) => out["Principal"]["AWS"] = as_before(listed, left),
        }
    }
    if let Some(operators) = out.get_mut("Condition").and_then(Value::as_object_mut) {
        for (operator, keys) in operators {
            // A negated list excepts those whom it names.
            if operator.contains("Not") {
                continue;
            }
            for (key, values) in keys.as_object_mut().into_iter().flatten() {
                let was = texts(values);
                if !NAMING.contains(&key.to_lowercase().as_str())
                    || !was.iter().any(|value| is_named(value, who))
                {
                    continue;
                }
                let left: Vec<String> =
                    was.into_iter().filter(|value| !is_named(value, who)).collect();
                // A condition that nobody can meet allows nothing.
                if left.is_empty() {
                    return None;
                }
                *values = as_before(values, left);
            }
        }
    }
    let still = |entry: &String| entry == "*" || account_of(entry) == Some(&who.account);
    if principals(&out).iter().any(still) {
        remaining.push(format!(
            "{name} lets in everyone, or whoever the policies of account {} let in",
            who.account
        ));
    } else if out.get("NotPrincipal").is_some() {
        remaining.push(format!("{name} lets in all but a few (NotPrincipal)"));
    }
    Some(out)
}

/// A denying statement in which the principal is not excepted any more.
fn except(statement: &Value, who: &Principal, remaining: &mut Vec<String>) -> Value {
    let mut out = statement.clone();
    let excepted = &statement["NotPrincipal"]["AWS"];
    let entries = texts(excepted);
    if entries.iter().any(|entry| is_named(entry, who)) {
        let left: Vec<String> = entries.into_iter().filter(|entry| !is_named(entry, who)).collect();
        if left.is_empty() {
            let name = statement["Sid"].as_str().unwrap_or("(without Sid)");
            remaining
                .push(format!("{name} excepts nobody else from what it denies; change it by hand"));
        } else {
            out["NotPrincipal"]["AWS"] = as_before(excepted, left);
        }
    }
    out
}

/// Who may change the policy, without conditions.
pub fn administrators(policy: &Value) -> BTreeSet<String> {
    let may = |statement: &Value| {
        let actions = texts(&meaning(statement)["Action"]);
        statement["Effect"] == "Allow"
            && statement.get("Condition").is_none()
            && actions
                .iter()
                .any(|a| ["kms:*", "*", "kms:put*", "kms:putkeypolicy"].contains(&a.as_str()))
    };
    statements(policy).iter().filter(|one| may(one)).flat_map(principals).collect()
}

/// A policy as it is shown and compared by people.
pub fn pretty(policy: &Value) -> String {
    format!("{policy:#}\n")
}

/// What changes, line by line.
pub fn diff(before: &Value, after: &Value) -> String {
    let (before, after) = (pretty(before), pretty(after));
    let diff = similar::TextDiff::from_lines(&before, &after);
    diff.unified_diff()
        .context_radius(3)
        .header("key policy now", "key policy afterwards")
        .to_string()
}

#[cfg(test)]
mod tests;
