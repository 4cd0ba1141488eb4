//! The backend block: where a module's folder has it, what it says, how that differs from what is
//! wanted, and the text that says so.
//!
//! Strings in, strings out; reading and writing files is left to the caller. The rules are those
//! of Terraform's S3 backend (<https://developer.hashicorp.com/terraform/language/backend/s3>), of
//! HCL's native syntax (<https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md>) and of its
//! JSON syntax (<https://developer.hashicorp.com/terraform/language/syntax/json>), tried out with
//! Terraform 1.11.

mod compare;
mod decide;
mod difference;
mod edit;
mod folder;
mod json;
mod parse;
mod render;
mod required;

#[cfg(test)]
mod edit_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use compare::{differences, extras};
pub use decide::{Decision, Judgement, Locking, Refusal, Wanted, decide};
pub use difference::{Difference, DifferenceKind};
pub use edit::edit;
pub use folder::{ConfigFile, is_configuration};
pub use parse::{MAX_BYTES, ParseError, parse};
pub use render::{is_rendered, render};

/// The backend type that this module writes.
const S3: &str = "s3";

/// Terraform's own `workspace_key_prefix`.
const WORKSPACES: &str = "env:";

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
    /// `encrypt = true` without a key: Terraform then sends the header for SSE-S3.
    pub encrypt: bool,
    /// The canned ACL sent with every write. Empty counts as none.
    pub acl: Option<String>,
    /// Whether Terraform locks the state with an object beside it.
    pub use_lockfile: bool,
    /// The prefix of the workspaces' states; `None` where the state is of no workspace.
    pub workspace_key_prefix: Option<String>,
}

impl BackendConfig {
    /// The key, unless it is empty.
    fn kms_key_id(&self) -> Option<&str> {
        self.kms_key_id.as_deref().filter(|key| !key.is_empty())
    }

    /// Whether Terraform's writes name their encryption.
    fn sends_a_header(&self) -> bool {
        self.encrypt || self.kms_key_id().is_some()
    }

    /// The prefix, where it is another than the one that Terraform takes by itself.
    fn own_prefix(&self) -> Option<&str> {
        self.workspace_key_prefix.as_deref().filter(|prefix| *prefix != WORKSPACES)
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

/// How an existing file is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// `.tf` and `.tofu`.
    Native,
    /// `.tf.json` and `.tofu.json`.
    Json,
    /// The bare attributes of a `-backend-config` file.
    Attributes,
}

impl From<BackendFormat> for Syntax {
    fn from(format: BackendFormat) -> Self {
        match format {
            BackendFormat::Tf => Self::Native,
            BackendFormat::TfBackend => Self::Attributes,
        }
    }
}

/// What an existing file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedBackend {
    /// How the file was read.
    pub syntax: Syntax,
    /// The types of the backend blocks, in file order. Terraform takes exactly one; none in
    /// [`Syntax::Attributes`].
    pub backends: Vec<String>,
    /// The attributes of the first backend block (or of the file, in [`Syntax::Attributes`]),
    /// without those set to `null`, which Terraform reads as unset.
    pub attributes: BTreeMap<String, Value>,
    /// The other places for a state that the file declares, `cloud` and `state_store`: Terraform
    /// refuses them beside a backend.
    pub others: Vec<String>,
    /// The names of the settings and blocks beside the backend, each once, in file order.
    pub other_content: Vec<String>,
    /// The `required_version` constraints, where they are literals.
    pub required_versions: Vec<String>,
    /// Whether there are comments.
    pub comments: bool,
}

impl ParsedBackend {
    /// A file that says nothing yet.
    fn empty(syntax: Syntax) -> Self {
        Self {
            syntax,
            backends: Vec::new(),
            attributes: BTreeMap::new(),
            others: Vec::new(),
            other_content: Vec::new(),
            required_versions: Vec::new(),
            comments: false,
        }
    }

    /// Whether it says where a state is kept.
    pub fn declares(&self) -> bool {
        !self.backends.is_empty() || !self.others.is_empty()
    }

    /// Whether Terraform's writes name their encryption.
    fn encrypts(&self) -> bool {
        compare::flag(self, "encrypt") == Some(true)
    }

    /// Notes content that is not the backend's.
    fn beside(&mut self, name: &str) {
        if !self.other_content.iter().any(|known| known == name) {
            self.other_content.push(name.to_owned());
        }
    }
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
