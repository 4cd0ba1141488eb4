//! Comparing by meaning: what Terraform would do with the existing file, and what it is to do.

use super::{BackendConfig, BackendFormat, Difference, DifferenceKind, ParsedBackend, S3, Value};

/// The attributes that [`BackendConfig`] speaks for.
const OWN: &[&str] = &["bucket", "key", "region", "encrypt", "kms_key_id", "acl", "use_lockfile"];

const ELSEWHERE: &str = "Terraform would look for the state elsewhere";

/// How an existing file differs from what is wanted; empty when both mean the same.
///
/// An unset or empty region is `ambient_region`, the one from `AWS_REGION` or `AWS_DEFAULT_REGION`.
pub fn differences(
    wanted: &BackendConfig,
    existing: &ParsedBackend,
    ambient_region: Option<&str>,
) -> Vec<Difference> {
    let mut list = whole_file(existing);
    let is_s3 = match existing.format {
        BackendFormat::Tf => existing.backends.first().is_some_and(|name| name == S3),
        BackendFormat::TfBackend => true,
    };
    // Another backend's attributes have meanings of their own.
    if is_s3 {
        let bucket = string("bucket", existing, Some(&wanted.bucket), Some(ELSEWHERE));
        let key = string("key", existing, Some(&wanted.key), Some(ELSEWHERE));
        list.extend(bucket.into_iter().chain(key));
        list.extend(region(wanted, existing, ambient_region));
        list.extend(encryption(wanted, existing));
        list.extend(acl(wanted, existing));
        list.extend(lock(wanted, existing));
        list.extend(extra(existing));
    }
    list
}

/// What keeps the file from being one configuration of the S3 backend, and what is beside it.
fn whole_file(existing: &ParsedBackend) -> Vec<Difference> {
    let mut list = Vec::new();
    let mut push = |kind, attribute: &str, found, wanted, consequence| {
        let attribute = attribute.to_owned();
        list.push(Difference { kind, attribute, found, wanted, consequence });
    };
    let s3 = || Some(Value::String(S3.to_owned()));
    if existing.format == BackendFormat::Tf {
        match existing.backends.first() {
            None => push(
                DifferenceKind::File,
                "backend",
                None,
                s3(),
                Some("Terraform would keep the state in a local file"),
            ),
            Some(name) if name != S3 => {
                let found = Some(Value::String(name.clone()));
                push(DifferenceKind::File, "backend", found, s3(), Some(ELSEWHERE));
            }
            Some(_) => {}
        }
    }
    if existing.backends.len() > 1 {
        push(
            DifferenceKind::File,
            "backend blocks",
            Some(Value::Number(existing.backends.len().to_string())),
            Some(Value::Number("1".to_owned())),
            Some("Terraform refuses more than one"),
        );
    }
    if existing.cloud {
        push(
            DifferenceKind::File,
            "cloud",
            Some(Value::Other("a block")),
            None,
            Some("Terraform takes either a backend or a cloud block"),
        );
    }
    if !existing.other_content.is_empty() {
        push(
            DifferenceKind::Extra,
            "other content",
            Some(Value::String(existing.other_content.join(", "))),
            None,
            Some("overwriting the file would drop it"),
        );
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
fn flag(existing: &ParsedBackend, name: &str) -> Option<bool> {
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
    const DEFAULT_LOST: &str = "encrypt = true without kms_key_id: the next write would be \
                                AES256, whatever the bucket's default";
    const OTHER_KEY: &str = "the next write would be under another key";
    const STILL: &str = "the next write would be under this key";
    const EMPTY: &str = "Terraform refuses an empty kms_key_id";

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
    if encrypt != Some(false) {
        let lost = encrypt == Some(true) && matches!(key, Text::Absent) && !own_key;
        list.push(differs("encrypt", existing, None, lost.then_some(DEFAULT_LOST)));
    }
    match (encrypt, key) {
        (_, Text::Absent) => {}
        (_, Text::Is("")) => list.push(differs("kms_key_id", existing, None, Some(EMPTY))),
        // Not sent, hence as good as absent.
        (Some(false), Text::Is(_)) => {}
        (Some(true), Text::Is(_)) => list.push(differs("kms_key_id", existing, None, Some(STILL))),
        (None, Text::Is(_)) | (_, Text::Unknown) => {
            list.push(differs("kms_key_id", existing, None, None));
        }
    }
    list
}

/// `acl`: empty is unset.
fn acl(wanted: &BackendConfig, existing: &ParsedBackend) -> Option<Difference> {
    if matches!(text(existing, "acl"), Text::Is("")) && wanted.acl().is_none() {
        return None;
    }
    let consequence = wanted.acl().is_some().then_some("the next write would not carry this ACL");
    string("acl", existing, wanted.acl(), consequence)
}

/// `use_lockfile`: false is unset.
fn lock(wanted: &BackendConfig, existing: &ParsedBackend) -> Option<Difference> {
    const WITHOUT: &str = "Terraform would take no lock in S3";
    let found = flag(existing, "use_lockfile");
    (found != Some(wanted.use_lockfile)).then(|| {
        let consequence = (found == Some(false)).then_some(WITHOUT);
        let wanted = wanted.use_lockfile.then_some(Value::Bool(true));
        differs("use_lockfile", existing, wanted, consequence)
    })
}

/// Everything that overwriting would drop.
fn extra(existing: &ParsedBackend) -> impl Iterator<Item = Difference> {
    existing.attributes.iter().filter(|(name, _)| !OWN.contains(&name.as_str())).map(
        |(name, value)| Difference {
            kind: DifferenceKind::Extra,
            attribute: name.clone(),
            found: Some(value.clone()),
            wanted: None,
            consequence: Some(dropped(name)),
        },
    )
}

/// What dropping an attribute would do.
fn dropped(name: &str) -> &'static str {
    match name {
        "dynamodb_table" => "overwriting would drop the lock table",
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
