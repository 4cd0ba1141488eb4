//! Comparing by meaning: what Terraform would do with the existing file, and what it is to do.

use super::{
    BackendConfig, Difference, DifferenceKind, ParsedBackend, S3, Syntax, Value, WORKSPACES,
};

/// The attributes that every comparison looks at.
const COMPARED: &[&str] = &["bucket", "key", "region", "encrypt", "kms_key_id"];

const ELSEWHERE: &str = "Terraform would look for the state elsewhere";

/// How an existing file differs in meaning from what is wanted; empty when both mean the same.
/// What it says beyond that ([`extras`]) is no difference.
///
/// An unset or empty region is `ambient_region`, the one from `AWS_REGION` or `AWS_DEFAULT_REGION`.
pub fn differences(
    wanted: &BackendConfig,
    existing: &ParsedBackend,
    ambient_region: Option<&str>,
) -> Vec<Difference> {
    let mut list = whole_file(existing);
    // Another backend's attributes have meanings of their own.
    if is_s3(existing) {
        let bucket = string("bucket", existing, Some(&wanted.bucket), Some(ELSEWHERE));
        let key = string("key", existing, Some(&wanted.key), Some(ELSEWHERE));
        list.extend(bucket.into_iter().chain(key));
        list.extend(region(wanted, existing, ambient_region));
        list.extend(encryption(wanted, existing));
        list.extend(acl(wanted, existing));
        list.extend(lock(wanted, existing));
        list.extend(workspaces(wanted, existing));
    }
    list
}

/// Everything that replacing the file by what is wanted would drop.
pub fn extras(wanted: &BackendConfig, existing: &ParsedBackend) -> Vec<Difference> {
    let mut list = Vec::new();
    let mut push = |attribute: &str, found, consequence| {
        let (kind, attribute) = (DifferenceKind::Extra, attribute.to_owned());
        let consequence = Some(consequence);
        list.push(Difference { kind, attribute, found: Some(found), wanted: None, consequence });
    };
    let kept = |name: &str| match name {
        "acl" => wanted.acl().is_some(),
        "use_lockfile" => wanted.use_lockfile || flag(existing, name) == Some(false),
        "workspace_key_prefix" => wanted.own_prefix().is_some(),
        name => COMPARED.contains(&name),
    };
    if !existing.other_content.is_empty() {
        let names = Value::String(existing.other_content.join(", "));
        push("other content", names, "overwriting the file would drop it");
    }
    for (name, value) in &existing.attributes {
        if !is_s3(existing) || !kept(name) {
            push(name, value.clone(), dropped(name));
        }
    }
    if existing.comments {
        push("comments", Value::Other("some"), "overwriting the file would drop them");
    }
    list
}

fn is_s3(existing: &ParsedBackend) -> bool {
    existing.syntax == Syntax::Attributes
        || existing.backends.first().is_some_and(|name| name == S3)
}

/// What keeps the file from being one configuration of the S3 backend.
fn whole_file(existing: &ParsedBackend) -> Vec<Difference> {
    let mut list = Vec::new();
    let mut push = |attribute: &str, found, wanted, consequence| {
        let (kind, attribute) = (DifferenceKind::File, attribute.to_owned());
        let consequence = Some(consequence);
        list.push(Difference { kind, attribute, found, wanted, consequence });
    };
    let s3 = || Some(Value::String(S3.to_owned()));
    if existing.syntax != Syntax::Attributes {
        match existing.backends.first() {
            None => push("backend", None, s3(), "Terraform would keep the state in a local file"),
            Some(name) if name != S3 => {
                push("backend", Some(Value::String(name.clone())), s3(), ELSEWHERE);
            }
            Some(_) => {}
        }
    }
    if existing.backends.len() > 1 {
        push(
            "backend blocks",
            Some(Value::Number(existing.backends.len().to_string())),
            Some(Value::Number("1".to_owned())),
            "Terraform refuses more than one",
        );
    }
    for other in &existing.others {
        push(other, Some(Value::Other("a block")), None, "Terraform refuses it beside a backend");
    }
    list
}

/// An attribute's value where a string is expected. Terraform turns numbers and booleans into
/// strings.
enum Text<'a> {
    Absent,
    Is(&'a str),
    Unknown,
}

fn text<'a>(existing: &'a ParsedBackend, name: &str) -> Text<'a> {
    match existing.attributes.get(name) {
        None => Text::Absent,
        Some(Value::String(text) | Value::Number(text)) => Text::Is(text),
        Some(Value::Bool(true)) => Text::Is("true"),
        Some(Value::Bool(false)) => Text::Is("false"),
        Some(Value::Other(_) | Value::Hidden) => Text::Unknown,
    }
}

/// An attribute's value where a boolean is expected; `None` when it cannot be told. Terraform turns
/// `"true"` and `"1"`, `"false"` and `"0"` into booleans, and refuses anything else.
pub(super) fn flag(existing: &ParsedBackend, name: &str) -> Option<bool> {
    match existing.attributes.get(name) {
        None => Some(false),
        Some(Value::Bool(value)) => Some(*value),
        Some(Value::String(text)) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        Some(Value::Number(_) | Value::Other(_) | Value::Hidden) => None,
    }
}

/// The difference in one of our own attributes.
fn differs(
    name: &str,
    existing: &ParsedBackend,
    wanted: Option<Value>,
    consequence: Option<&'static str>,
) -> Difference {
    let found = existing.attributes.get(name).cloned();
    let kind = match (&found, &wanted) {
        (None, _) => DifferenceKind::Missing,
        (Some(_), Some(_)) => DifferenceKind::Changed,
        (Some(_), None) => DifferenceKind::Unwanted,
    };
    Difference { kind, attribute: name.to_owned(), found, wanted, consequence }
}

/// Compares a string as it stands.
fn string(
    name: &str,
    existing: &ParsedBackend,
    wanted: Option<&str>,
    consequence: Option<&'static str>,
) -> Option<Difference> {
    let same = match text(existing, name) {
        Text::Absent => wanted.is_none(),
        Text::Is(found) => Some(found) == wanted,
        Text::Unknown => false,
    };
    (!same).then(|| {
        differs(name, existing, wanted.map(|text| Value::String(text.to_owned())), consequence)
    })
}

/// `region`: empty, like unset, is the ambient one.
fn region(
    wanted: &BackendConfig,
    existing: &ParsedBackend,
    ambient: Option<&str>,
) -> Option<Difference> {
    const UNSET: &str = "unset, it is AWS_REGION or AWS_DEFAULT_REGION";
    let ambient = ambient.unwrap_or_default();
    let (found, consequence) = match text(existing, "region") {
        Text::Absent | Text::Is("") => (Some(ambient), Some(UNSET)),
        Text::Is(region) => (Some(region), None),
        Text::Unknown => (None, None),
    };
    let wanted =
        Some(wanted.region.as_str()).filter(|region| !region.is_empty()).unwrap_or(ambient);
    (found != Some(wanted))
        .then(|| differs("region", existing, Some(Value::String(wanted.to_owned())), consequence))
}

/// `encrypt` and `kms_key_id`. Headers are sent only with `encrypt = true`: the key's, or AES256
/// when there is no key, which overrides a bucket's default key.
fn encryption(wanted: &BackendConfig, existing: &ParsedBackend) -> Vec<Difference> {
    const AES256: &str =
        "encrypt = true without kms_key_id: the next write would be AES256, outside the key";
    const NOT_SENT: &str = "kms_key_id without encrypt = true is not sent: the next write would \
                            be as the bucket's default has it";
    const DEFAULT: &str = "the next write would be as the bucket's default has it";
    const OTHER_KEY: &str = "the next write would be under another key";
    const STILL: &str = "the next write would be under this key";
    const EMPTY: &str = "Terraform refuses an empty kms_key_id";
    const NO_HEADER: &str = "the next write would send no header for its encryption";

    let encrypt = flag(existing, "encrypt");
    let key = text(existing, "kms_key_id");
    // With a customer-provided key, `encrypt = true` sends that.
    let own_key = existing.attributes.contains_key("sse_customer_key");
    let mut list = Vec::new();
    if let Some(arn) = wanted.kms_key_id() {
        if encrypt != Some(true) {
            let consequence = match (encrypt, &key) {
                (None, _) => None,
                (Some(_), Text::Absent) => Some(DEFAULT),
                (Some(_), _) => Some(NOT_SENT),
            };
            list.push(differs("encrypt", existing, Some(Value::Bool(true)), consequence));
        }
        let consequence = match (encrypt, &key) {
            (_, Text::Is("")) => Some(EMPTY),
            (Some(true), Text::Absent) if !own_key => Some(AES256),
            (Some(true), Text::Is(_)) => Some(OTHER_KEY),
            _ => None,
        };
        list.extend(string("kms_key_id", existing, Some(arn), consequence));
        return list;
    }
    // `encrypt = true` alone is SSE-S3, as it was before.
    match encrypt {
        Some(false) if wanted.encrypt => {
            list.push(differs("encrypt", existing, Some(Value::Bool(true)), Some(NO_HEADER)));
        }
        None => {
            let wanted = wanted.encrypt.then_some(Value::Bool(true));
            list.push(differs("encrypt", existing, wanted, None));
        }
        Some(_) => {}
    }
    match (encrypt, key) {
        (_, Text::Absent) => {}
        (_, Text::Is("")) => list.push(differs("kms_key_id", existing, None, Some(EMPTY))),
        // Not sent, hence as good as absent; but not once `encrypt` is set.
        (Some(false), Text::Is(_)) if !wanted.encrypt => {}
        (Some(_), Text::Is(_)) => list.push(differs("kms_key_id", existing, None, Some(STILL))),
        (None, Text::Is(_)) | (_, Text::Unknown) => {
            list.push(differs("kms_key_id", existing, None, None));
        }
    }
    list
}

/// `acl`, where one is asked for.
fn acl(wanted: &BackendConfig, existing: &ParsedBackend) -> Option<Difference> {
    let acl = wanted.acl()?;
    string("acl", existing, Some(acl), Some("the next write would not carry this ACL"))
}

/// `use_lockfile`, where it is asked for.
fn lock(wanted: &BackendConfig, existing: &ParsedBackend) -> Option<Difference> {
    const WITHOUT: &str = "Terraform would take no lock in S3";
    let found = flag(existing, "use_lockfile");
    (wanted.use_lockfile && found != Some(true)).then(|| {
        let consequence = (found == Some(false)).then_some(WITHOUT);
        differs("use_lockfile", existing, Some(Value::Bool(true)), consequence)
    })
}

/// `workspace_key_prefix`, where the state is a workspace's.
fn workspaces(wanted: &BackendConfig, existing: &ParsedBackend) -> Option<Difference> {
    let prefix = wanted.workspace_key_prefix.as_deref()?;
    let is_default = prefix == WORKSPACES;
    match text(existing, "workspace_key_prefix") {
        Text::Absent if is_default => None,
        _ => string("workspace_key_prefix", existing, Some(prefix), Some(ELSEWHERE)),
    }
}

/// What dropping an attribute would do.
fn dropped(name: &str) -> &'static str {
    match name {
        "dynamodb_table" => "overwriting would drop the lock table",
        "use_lockfile" => "overwriting would drop the lock",
        "workspace_key_prefix" => {
            "overwriting would move the other workspaces' states to the prefix env:"
        }
        "sse_customer_key" => "without it, states written under it cannot be read",
        "access_key"
        | "assume_role"
        | "assume_role_with_web_identity"
        | "profile"
        | "role_arn"
        | "secret_key"
        | "shared_config_files"
        | "shared_credentials_file"
        | "shared_credentials_files"
        | "token" => "overwriting would change whom Terraform acts as",
        "allowed_account_ids" | "forbidden_account_ids" => {
            "overwriting would drop this guard against the wrong account"
        }
        _ => "overwriting would drop it",
    }
}
