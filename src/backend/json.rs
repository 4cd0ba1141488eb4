//! A backend block in Terraform's JSON syntax: read, and edited where it stands.
//!
//! <https://developer.hashicorp.com/terraform/language/syntax/json>: a block is an object, or a
//! list of objects where there are several; `//` is a comment.

use std::collections::BTreeMap;

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstNode, CstObject, CstRootNode};

use super::parse::{OTHERS, hide};
use super::{ParseError, ParsedBackend, Syntax, Value};

/// Reads a file without its byte order mark.
pub(super) fn parse(text: &str) -> Result<ParsedBackend, ParseError> {
    let found = Found::new(&tree(text)?);
    let attributes = found.blocks.first().map(|(_, block)| attributes(block));
    let backends = found.blocks.into_iter().map(|(name, _)| name).collect();
    Ok(ParsedBackend { backends, attributes: attributes.unwrap_or_default(), ..found.rest })
}

/// Sets (or, with `None`, removes) attributes of the first backend block.
pub(super) fn edit(text: &str, changes: &[(&str, Option<Value>)]) -> Option<String> {
    let root = tree(text).ok()?;
    let (_, block) = Found::new(&root).blocks.into_iter().next()?;
    for (name, value) in changes {
        match (block.get(name), value) {
            (Some(found), Some(value)) => found.set_value(input(value)?),
            (Some(found), None) => found.remove(),
            (None, Some(value)) => drop(block.append(name, input(value)?)),
            (None, None) => {}
        }
    }
    Some(root.to_string())
}

fn input(value: &Value) -> Option<CstInputValue> {
    match value {
        // What a template would take for more than itself (`${`) no caller sets.
        Value::String(text) => Some(CstInputValue::String(text.clone())),
        Value::Bool(value) => Some(CstInputValue::Bool(*value)),
        Value::Number(_) | Value::Other(_) | Value::Hidden => None,
    }
}

/// The syntax tree of strict JSON.
fn tree(text: &str) -> Result<CstRootNode, ParseError> {
    // This reader bounds the depth; the other one keeps the layout.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text)
        .and_then(|_| serde_json::from_str::<serde_json::Value>(text))
    {
        let (line, column) = (error.line(), error.column());
        return Err(ParseError::Syntax { what: "JSON", line, column });
    }
    CstRootNode::parse(text, &ParseOptions::default()).map_err(|_| ParseError::Syntax {
        what: "JSON",
        line: 1,
        column: 1,
    })
}

/// What is declared in a file.
struct Found {
    /// The backend blocks with their types.
    blocks: Vec<(String, CstObject)>,
    /// All that is not in them.
    rest: ParsedBackend,
}

impl Found {
    fn new(root: &CstRootNode) -> Self {
        let mut found = Self { blocks: Vec::new(), rest: ParsedBackend::empty(Syntax::Json) };
        for top in objects(root.value()) {
            for (name, value) in properties(&top) {
                match name.as_str() {
                    "terraform" => objects(value).iter().for_each(|it| found.settings(it)),
                    other => found.other(other),
                }
            }
        }
        found
    }

    /// One `terraform` block.
    fn settings(&mut self, settings: &CstObject) {
        for (name, value) in properties(settings) {
            match name.as_str() {
                "backend" => {
                    for (label, blocks) in objects(value).iter().flat_map(properties) {
                        let blocks = objects(blocks).into_iter();
                        self.blocks.extend(blocks.map(|block| (label.clone(), block)));
                    }
                }
                name if OTHERS.contains(&name) => self.rest.others.push(name.to_owned()),
                other => {
                    let constraint = value.as_ref().and_then(literal);
                    if let ("required_version", Some(Value::String(text))) = (other, constraint) {
                        self.rest.required_versions.push(text);
                    }
                    self.other(other);
                }
            }
        }
    }

    fn other(&mut self, name: &str) {
        match name {
            "//" => self.rest.comments = true,
            name => self.rest.beside(name),
        }
    }
}

/// The objects of a block: one, or a list of them.
fn objects(value: Option<CstNode>) -> Vec<CstObject> {
    let Some(value) = value else { return Vec::new() };
    match value.as_array() {
        Some(list) => list.elements().into_iter().filter_map(|one| one.as_object()).collect(),
        None => value.as_object().into_iter().collect(),
    }
}

fn properties(object: &CstObject) -> Vec<(String, Option<CstNode>)> {
    let all = object.properties().into_iter();
    all.map(|property| (property.decoded_name().unwrap_or_default(), property.value())).collect()
}

fn attributes(block: &CstObject) -> BTreeMap<String, Value> {
    let all = properties(block).into_iter().filter(|(name, _)| name != "//");
    all.filter_map(|(name, value)| literal(&value?).map(|value| (name, value)))
        .map(|(name, value)| (name.clone(), hide(&name, value)))
        .collect()
}

/// The literal that a value is; `None` for `null`. A string is a template.
fn literal(value: &CstNode) -> Option<Value> {
    Some(match value.to_serde_value()? {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => {
            let number = number.to_string();
            Value::Number(number.strip_suffix(".0").unwrap_or(&number).to_owned())
        }
        serde_json::Value::String(text) if text.contains("${") || text.contains("%{") => {
            Value::Other("an expression")
        }
        serde_json::Value::String(text) => Value::String(text),
        serde_json::Value::Array(_) => Value::Other("a list"),
        serde_json::Value::Object(_) => Value::Other("an object"),
    })
}
