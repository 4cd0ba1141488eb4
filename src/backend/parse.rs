//! Reading an existing backend configuration.

use std::collections::BTreeMap;

use hcl_edit::expr::Expression;
use hcl_edit::structure::{Attribute, Block, BlockLabel, Body, Structure};
use hcl_edit::template::{Element, Template};

use super::{ParsedBackend, Syntax, Value, json};

/// The longest file that is read. Backend configurations are a few hundred bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// The byte order mark that Terraform takes at the start of a file.
pub(super) const BOM: char = '\u{feff}';

/// The blocks beside `backend` that say where a state is kept (Terraform:
/// `configs/parser_config.go`).
pub(super) const OTHERS: [&str; 2] = ["cloud", "state_store"];

/// Why a file could not be read. Says nothing of what the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Terraform could not read it either.
    #[error("not valid {what} at line {line}, column {column}")]
    Syntax {
        /// The language.
        what: &'static str,
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
    },
    /// No backend configuration is that long.
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// Reads a file as Terraform would: one leading byte order mark and CRLF are taken, comments and
/// layout mean nothing.
///
/// # Errors
///
/// When the file is not valid in its syntax, or far too long.
pub fn parse(text: &str, syntax: Syntax) -> Result<ParsedBackend, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError::TooLong);
    }
    let text = text.strip_prefix(BOM).unwrap_or(text);
    if syntax == Syntax::Json {
        return json::parse(text);
    }
    let body = body(text)?;
    let mut parsed = ParsedBackend { comments: has_comments(text), ..ParsedBackend::empty(syntax) };
    match syntax {
        Syntax::Attributes => parsed.attributes = attributes(&body),
        _ => file(&body, &mut parsed),
    }
    Ok(parsed)
}

/// The syntax tree of HCL text without a byte order mark.
pub(super) fn body(text: &str) -> Result<Body, ParseError> {
    text.parse().map_err(|error: hcl_edit::parser::Error| {
        let location = error.location();
        ParseError::Syntax { what: "HCL", line: location.line(), column: location.column() }
    })
}

/// Whether there is a comment in HCL text; a string over several lines may pass for one.
fn has_comments(text: &str) -> bool {
    text.lines().any(|line| {
        let outside: String = line.split('"').step_by(2).collect();
        ["#", "//", "/*"].iter().any(|mark| outside.contains(mark))
    })
}

/// The blocks that hold Terraform's own settings. Any number of them may share these.
pub(super) fn is_settings(block: &Block) -> bool {
    block.has_ident("terraform") && block.labels.is_empty()
}

/// A `.tf` file's top level.
fn file(body: &Body, parsed: &mut ParsedBackend) {
    for structure in body {
        match structure {
            Structure::Block(block) if is_settings(block) => {
                for inner in &block.body {
                    settings(inner, parsed);
                }
            }
            other => parsed.beside(name(other)),
        }
    }
}

/// One setting within a `terraform` block.
fn settings(structure: &Structure, parsed: &mut ParsedBackend) {
    match structure {
        Structure::Block(block) if block.has_ident("backend") => {
            if parsed.backends.is_empty() {
                parsed.attributes = attributes(&block.body);
            }
            parsed.backends.push(backend_type(block));
        }
        Structure::Block(block) if OTHERS.contains(&block.ident.as_str()) => {
            parsed.others.push(block.ident.to_string());
        }
        other => {
            if let Structure::Attribute(attribute) = other
                && let ("required_version", Some(Value::String(constraint))) =
                    (attribute.key.as_str(), literal(&attribute.value))
            {
                parsed.required_versions.push(constraint);
            }
            parsed.beside(name(other));
        }
    }
}

fn name(structure: &Structure) -> &str {
    match structure {
        Structure::Attribute(attribute) => attribute.key.as_str(),
        Structure::Block(block) => block.ident.as_str(),
    }
}

/// The block's one label. With none or several, which Terraform refuses, something that is no type.
fn backend_type(block: &Block) -> String {
    block.labels.iter().map(BlockLabel::as_str).collect::<Vec<_>>().join(" ")
}

/// A backend's attributes, and its blocks as attributes of unknown value.
fn attributes(body: &Body) -> BTreeMap<String, Value> {
    body.iter()
        .filter_map(|structure| match structure {
            Structure::Attribute(Attribute { key, value, .. }) => {
                literal(value).map(|value| (key.to_string(), hide(key.as_str(), value)))
            }
            Structure::Block(block) => Some((block.ident.to_string(), Value::Other("a block"))),
        })
        .collect()
}

/// The literal that an expression is; `None` for `null`.
fn literal(expression: &Expression) -> Option<Value> {
    Some(match expression {
        Expression::Null(_) => return None,
        Expression::Bool(value) => Value::Bool(*value.value()),
        Expression::Number(value) => {
            let number = value.value().to_string();
            Value::Number(number.strip_suffix(".0").unwrap_or(&number).to_owned())
        }
        Expression::String(value) => Value::String(value.value().to_owned()),
        Expression::StringTemplate(template) => interpolated(template.iter()),
        Expression::HeredocTemplate(heredoc) => plain(&heredoc.template),
        Expression::Parenthesis(inner) => return literal(inner.inner()),
        Expression::Array(_) => Value::Other("a list"),
        Expression::Object(_) => Value::Other("an object"),
        _ => Value::Other("an expression"),
    })
}

/// `"${x}"` is `x` itself (HCL spec, "Template Interpolation Unwrapping"); any other template with
/// an interpolation is not worked out.
fn interpolated<'a>(mut elements: impl Iterator<Item = &'a Element>) -> Value {
    match (elements.next(), elements.next()) {
        (Some(Element::Interpolation(inner)), None) => literal(&inner.expr),
        _ => None,
    }
    .unwrap_or(Value::Other("an expression"))
}

/// A heredoc without interpolation. One with CRLF, or indented with lines of nothing but blanks,
/// may come out with other whitespace than in Terraform, but always with a newline in it, which no
/// setting of the S3 backend may have.
fn plain(template: &Template) -> Value {
    template
        .iter()
        .map(|element| match element {
            Element::Literal(text) => Some(text.as_str()),
            _ => None,
        })
        .collect::<Option<String>>()
        .map_or(Value::Other("an expression"), Value::String)
}

/// Attributes whose strings and numbers may be shown. Of any other one the value is dropped: it may
/// be a credential (`access_key`, `secret_key`, `token`, `sse_customer_key`, a proxy's address), or
/// one in disguise.
const SHOWN: &[&str] = &[
    "acl",
    "bucket",
    "custom_ca_bundle",
    "dynamodb_endpoint",
    "dynamodb_table",
    "encrypt",
    "endpoint",
    "force_path_style",
    "iam_endpoint",
    "key",
    "kms_key_id",
    "max_retries",
    "profile",
    "region",
    "retry_mode",
    "role_arn",
    "session_name",
    "shared_credentials_file",
    "sts_endpoint",
    "sts_region",
    "use_lockfile",
    "workspace_key_prefix",
];

/// `value`, unless it may be a secret. `true`, `false` and mere kinds of values tell none.
pub(super) fn hide(name: &str, value: Value) -> Value {
    match value {
        // An endpoint may come with a user's name and password.
        Value::String(text) if name.ends_with("endpoint") && text.contains('@') => Value::Hidden,
        Value::String(_) | Value::Number(_) if !SHOWN.contains(&name) => Value::Hidden,
        shown => shown,
    }
}
