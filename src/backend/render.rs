//! Writing a backend configuration.

use super::{BackendConfig, BackendFormat, ParsedBackend, S3, Value, is_unprintable};

/// The file for `config`: two-space indent, every `=` aligned to the longest name (as `terraform
/// fmt` does it), LF, one final newline.
pub fn render(config: &BackendConfig, format: BackendFormat) -> String {
    let attributes = attributes(config);
    let width = attributes.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = |indent: &str| {
        attributes
            .iter()
            .map(|(name, value)| format!("{indent}{name:width$} = {value}\n"))
            .collect::<String>()
    };
    match format {
        BackendFormat::Tf => {
            format!("terraform {{\n  backend \"{S3}\" {{\n{}  }}\n}}\n", lines("    "))
        }
        BackendFormat::TfBackend => lines(""),
    }
}

/// Whether a file is, byte for byte, one that [`render`] writes: then it holds nothing else, and
/// may be replaced whole.
pub fn is_rendered(text: &str, existing: &ParsedBackend, format: BackendFormat) -> bool {
    let string = |name: &str| match existing.attributes.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let config = BackendConfig {
        bucket: string("bucket").unwrap_or_default(),
        key: string("key").unwrap_or_default(),
        region: string("region").unwrap_or_default(),
        kms_key_id: string("kms_key_id"),
        encrypt: existing.attributes.contains_key("encrypt"),
        acl: string("acl"),
        use_lockfile: existing.attributes.contains_key("use_lockfile"),
        workspace_key_prefix: string("workspace_key_prefix"),
    };
    render(&config, format) == text
}

/// The literal for a value; `None` for one that no setting of this program has.
pub(super) fn literal(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(quoted(text)),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(_) | Value::Other(_) | Value::Hidden => None,
    }
}

/// Names and HCL literals, in the order in which they are written.
fn attributes(config: &BackendConfig) -> Vec<(&'static str, String)> {
    let mut list = vec![
        ("bucket", quoted(&config.bucket)),
        ("key", quoted(&config.key)),
        ("region", quoted(&config.region)),
    ];
    if config.encrypt || config.kms_key_id().is_some() {
        list.push(("encrypt", "true".to_owned()));
    }
    if let Some(key) = config.kms_key_id() {
        list.push(("kms_key_id", quoted(key)));
    }
    if let Some(acl) = config.acl() {
        list.push(("acl", quoted(acl)));
    }
    if config.use_lockfile {
        list.push(("use_lockfile", "true".to_owned()));
    }
    if let Some(prefix) = config.own_prefix() {
        list.push(("workspace_key_prefix", quoted(prefix)));
    }
    list
}

/// A quoted HCL template that evaluates to `text` (HCL spec, "Quoted Templates" and "Template
/// Literals"): nothing in it ends the string or starts an interpolation or a directive.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '$' | '%' if chars.peek() == Some(&'{') => out.extend([c, c]),
            c if is_unprintable(c) => out.push_str(&code(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// HCL's escape for a character by its number: four digits, or eight where four are too few.
fn code(c: char) -> String {
    let number = u32::from(c);
    if number <= 0xffff { format!("\\u{number:04x}") } else { format!("\\U{number:08x}") }
}
