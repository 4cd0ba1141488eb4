//! `backend.tf`: what it is to say, what an existing one says, and how the two differ.
//!
//! Strings in, strings out; reading and writing files is left to the caller. The rules are those
//! of Terraform's S3 backend (<https://developer.hashicorp.com/terraform/language/backend/s3>) and
//! of the HCL native syntax (<https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md>),
//! tried out with Terraform 1.11.

mod compare;
mod difference;
mod parse;
mod render;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use compare::differences;
pub use difference::{Difference, DifferenceKind};
pub use parse::{MAX_BYTES, ParseError, parse};
pub use render::render;

/// The backend type that this module writes.
const S3: &str = "s3";

/// What a backend block is to say.
///
/// Values are written as HCL strings, whatever they hold; whether one can be a bucket, region or
/// key name is for the caller to check. Terraform reads every string in Unicode's normal form C, so
/// that a name in another form ends up at another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// The bucket that holds the state.
    pub bucket: String,
    /// The object key of the default workspace's state.
    pub key: String,
    /// The bucket's region. Empty counts as unset: Terraform then takes `AWS_REGION` or
    /// `AWS_DEFAULT_REGION`.
    pub region: String,
    /// The ARN of the key that states are written under, sent only together with `encrypt = true`,
    /// hence always written with it. Empty counts as none.
    pub kms_key_id: Option<String>,
    /// The canned ACL sent with every write. Empty counts as none.
    pub acl: Option<String>,
    /// Whether Terraform locks the state with an object beside it.
    pub use_lockfile: bool,
}

impl BackendConfig {
    /// The key, unless it is empty.
    fn kms_key_id(&self) -> Option<&str> {
        self.kms_key_id.as_deref().filter(|key| !key.is_empty())
    }

    /// The canned ACL, unless it is empty.
    fn acl(&self) -> Option<&str> {
        self.acl.as_deref().filter(|acl| !acl.is_empty())
    }
}

/// The two shapes that a backend configuration comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendFormat {
    /// A `terraform` block around a `backend "s3"` block, for a `.tf` file.
    Tf,
    /// The bare attributes, for `terraform init -backend-config=FILE`.
    TfBackend,
}

/// What an existing file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedBackend {
    /// The shape that the file was read as.
    pub format: BackendFormat,
    /// The types of the backend blocks, in file order. Terraform takes exactly one; none in
    /// [`BackendFormat::TfBackend`].
    pub backends: Vec<String>,
    /// The attributes of the first backend block (or of the file, in
    /// [`BackendFormat::TfBackend`]), without those set to `null`, which Terraform reads as unset.
    pub attributes: BTreeMap<String, Value>,
    /// Whether there is a `cloud` block, which Terraform refuses beside a backend.
    pub cloud: bool,
    /// The names of the settings and blocks beside the backend, each once, in file order.
    pub other_content: Vec<String>,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string without interpolation.
    String(String),
    /// `true` or `false`.
    Bool(bool),
    /// A number, as Terraform would write it as a string.
    Number(String),
    /// Anything that is not one literal, said in a word or two ("an expression", "a block").
    /// Terraform takes neither variables nor functions in a backend block.
    Other(&'static str),
    /// Not kept, as the attribute may hold a secret.
    Hidden,
}

/// Whether a character cannot be seen, or disturbs how its neighbours are shown: controls, line
/// separators, and Unicode's direction and tag characters.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}
