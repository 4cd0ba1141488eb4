//! One difference, and how it is said.

use std::fmt;

use super::{Value, is_unprintable};

/// The most characters of one value (or name) that are shown.
const MAX_SHOWN: usize = 200;

/// What a [`Difference`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Wanted, and the file does not have it.
    Missing,
    /// The file says something else than what is wanted.
    Changed,
    /// The file sets what is to be unset.
    Unwanted,
    /// Beyond what is compared; overwriting the file would drop it.
    Extra,
    /// The file is not one configuration of the S3 backend.
    File,
}

/// Something that an existing file says differently.
///
/// `Display` gives one line without control characters, in which no value is long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What it is about.
    pub kind: DifferenceKind,
    /// The attribute, or the part of the file ("backend", "cloud", "other content").
    pub attribute: String,
    /// What the file says; none where it says nothing.
    pub found: Option<Value>,
    /// What is wanted; none where it is not to be there.
    pub wanted: Option<Value>,
    /// What would happen with the file as it is, or (for [`DifferenceKind::Extra`]) without it.
    pub consequence: Option<&'static str>,
}

impl Difference {
    /// It is about where the state lies, which is never changed in a file written by hand.
    pub fn is_of_place(&self) -> bool {
        const PLACE: [&str; 4] = ["bucket", "key", "region", "workspace_key_prefix"];
        self.kind == DifferenceKind::File || PLACE.contains(&self.attribute.as_str())
    }

    /// The file leaves it out, so that it may be given to `terraform init` (partial
    /// configuration) or by the environment.
    pub fn is_left_out(&self) -> bool {
        let empty = matches!(&self.found, Some(Value::String(text)) if text.is_empty());
        match self.attribute.as_str() {
            "bucket" | "key" => self.found.is_none(),
            "region" => self.found.is_none() || empty,
            _ => false,
        }
    }

    /// The file sets it by something that is no literal, so that its value is not known.
    pub fn is_unresolved(&self) -> bool {
        self.kind != DifferenceKind::File
            && matches!(self.found, Some(Value::Other(_) | Value::Hidden))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_shown(f, &self.attribute)?;
        match &self.found {
            Some(found) => write!(f, ": the file says {}", Shown(found))?,
            None => f.write_str(": the file has none")?,
        }
        match &self.wanted {
            Some(wanted) => write!(f, ", wanted {}", Shown(wanted))?,
            None if self.kind == DifferenceKind::Extra => {}
            None => f.write_str(", wanted none")?,
        }
        match self.consequence {
            Some(consequence) => write!(f, "; {consequence}"),
            None => Ok(()),
        }
    }
}

/// A value as shown.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => {
                f.write_str("\"")?;
                write_shown(f, text)?;
                f.write_str("\"")
            }
            Value::Bool(value) => value.fmt(f),
            Value::Number(number) => write_shown(f, number),
            Value::Other(kind) => f.write_str(kind),
            Value::Hidden => f.write_str("(not shown)"),
        }
    }
}

/// Writes `text` with what cannot be shown as `\u{…}`, and cut where it is long.
fn write_shown(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut room = MAX_SHOWN;
    for c in text.chars() {
        let shown = match c {
            '"' | '\\' => format!("\\{c}"),
            c if is_unprintable(c) => c.escape_unicode().to_string(),
            c => c.to_string(),
        };
        let length = shown.chars().count();
        if length > room {
            return f.write_str("…");
        }
        room -= length;
        f.write_str(&shown)?;
    }
    Ok(())
}
