//! What is to become of a module's backend files. Pure: the files as read, what is wanted, and
//! what may be done with files of others.

use super::compare::flag;
use super::folder::{self, ConfigFile};
use super::required::is_too_old_for_locks;
use super::{
    BackendConfig, BackendFormat, Difference, ParsedBackend, Value, differences, edit, extras,
    is_rendered, parse, render,
};
use crate::inputs::OnExisting;

/// What is wanted of a folder, and what may be done for it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What the block is to say.
    pub config: &'a BackendConfig,
    /// The region that Terraform takes where the block has none.
    pub ambient_region: Option<&'a str>,
    /// The file that is written where there is no block; `None`: no file is ever written.
    pub file: Option<(&'a str, BackendFormat)>,
    /// What may be done with a block that means something else.
    pub on_existing: OnExisting,
    /// A file may be replaced though that drops content of it.
    pub discard_extras: bool,
    /// A key may be taken out of a block that was written by hand.
    pub removes_key: bool,
    /// A block may keep a key that is not asked for.
    pub allow_downgrade: bool,
}

/// What is to become of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Its name.
    pub file: String,
    /// What is to be done.
    pub decision: Decision,
    /// In what it differs from what is wanted; for a refusal, what speaks against the file.
    pub differences: Vec<String>,
    /// Of bucket, key and region, those that the block leaves to `terraform init`.
    pub left_out: Vec<String>,
    /// With this decision carried out, Terraform's writes name their encryption.
    pub encrypts: bool,
    /// How Terraform locks the state, with this decision carried out.
    pub locking: Locking,
}

/// How Terraform locks a state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locking {
    /// By an object beside the state (`use_lockfile`).
    pub in_s3: bool,
    /// By an item of this DynamoDB table (`dynamodb_table`).
    pub table: Option<String>,
    /// The `required_version` that only versions without `use_lockfile` satisfy.
    pub too_old: Option<String>,
}

impl Locking {
    fn of(block: &ParsedBackend, files: &[ConfigFile]) -> Self {
        let in_s3 = flag(block, "use_lockfile") == Some(true);
        let all = files.iter().filter_map(|file| file.parsed.as_ref().ok());
        let mut constraints = all.flat_map(|parsed| &parsed.required_versions);
        let too_old = constraints.find(|it| in_s3 && is_too_old_for_locks(it)).cloned();
        let table = match block.attributes.get("dynamodb_table") {
            Some(Value::String(table)) if !table.is_empty() => Some(table.clone()),
            _ => None,
        };
        Self { in_s3, table, too_old }
    }
}

/// What is to be done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It means what is wanted.
    AsWanted,
    /// It is to have this text, whole.
    Write(String),
    /// It is to have this text, in which only the block's settings are others.
    Edit(String),
    /// It means something else and is left as it is, as was asked for.
    Leave,
    /// Nothing may be written.
    Refuse(Refusal),
}

/// Why a file stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It means something else, and is not to be changed.
    Differs,
    /// Its block is for another state, or another backend.
    Elsewhere,
    /// Its block sets something by an expression.
    Unresolved,
    /// Its block has a key, and none is asked for.
    Downgrade,
    /// Its block has a customer-provided key (SSE-C).
    CustomerKey,
    /// Replacing it would drop something.
    WouldDrop,
    /// It is a link: its target may be other stacks' file, too.
    Link,
    /// What it says could not be set without changing anything else.
    NotEditable,
    /// Which block Terraform takes, or what it says, cannot be told.
    Unclear,
}

/// Decides for a folder's configuration files; for [`BackendFormat::TfBackend`], for that one file.
pub fn decide(files: &[ConfigFile], wanted: &Wanted<'_>) -> Vec<Judgement> {
    let own = |name: &str| files.iter().find(|file| file.name == name);
    let deciding = match wanted.file {
        Some((name, BackendFormat::TfBackend)) => {
            Ok(own(name).filter(|file| !file.is_blank()).into_iter().collect())
        }
        _ => folder::deciding(files),
    };
    match (deciding, wanted.file) {
        (Err(why), file) => {
            let name = file.map_or("backend.tf", |(name, _)| name);
            vec![Judgement::refuse(name, Refusal::Unclear, vec![why])]
        }
        (Ok(deciding), Some((name, format))) if deciding.is_empty() => {
            vec![without_a_block(name, format, own(name), files, wanted)]
        }
        (Ok(deciding), _) => {
            deciding.into_iter().map(|file| with_a_block(file, files, wanted)).collect()
        }
    }
}

/// No file has a block.
fn without_a_block(
    name: &str,
    format: BackendFormat,
    existing: Option<&ConfigFile>,
    files: &[ConfigFile],
    wanted: &Wanted<'_>,
) -> Judgement {
    if let Some(other) = folder::replacement(name, files) {
        let why = format!("OpenTofu reads `{other}` in place of `{name}`: put the block there");
        return Judgement::refuse(name, Refusal::Unclear, vec![why]);
    }
    let text = render(wanted.config, format);
    let encrypts = wanted.config.sends_a_header();
    let written = parse(&text, format.into()).ok();
    let locking = written.map(|it| Locking::of(&it, files)).unwrap_or_default();
    let judge = |decision, differences| Judgement {
        file: name.to_owned(),
        decision,
        differences,
        left_out: Vec::new(),
        encrypts,
        locking: locking.clone(),
    };
    let Some(existing) = existing.filter(|file| !file.is_blank()) else {
        return judge(Decision::Write(text), Vec::new());
    };
    let (Ok(parsed), Some(content)) = (&existing.parsed, &existing.text) else {
        return existing.unreadable();
    };
    let missing = lines(&differences(wanted.config, parsed, wanted.ambient_region));
    match wanted.on_existing {
        OnExisting::Ignore => judge(Decision::Leave, missing),
        OnExisting::Keep => Judgement::refuse(name, Refusal::Differs, missing),
        OnExisting::Overwrite if wanted.discard_extras => judge(Decision::Write(text), missing),
        OnExisting::Overwrite => {
            let dropped = lines(&extras(wanted.config, parsed));
            Judgement::refuse(name, Refusal::WouldDrop, [missing, dropped].concat())
        }
        OnExisting::Edit => judge(Decision::Edit(appended(content, &text)), missing),
    }
}

/// A block below what a file has already.
fn appended(content: &str, block: &str) -> String {
    let newline = if content.contains("\r\n") { "\r\n" } else { "\n" };
    let begin = if content.ends_with('\n') { newline.to_owned() } else { newline.repeat(2) };
    format!("{content}{begin}{}", block.replace('\n', newline))
}

/// Terraform takes the block of this file.
fn with_a_block(file: &ConfigFile, files: &[ConfigFile], wanted: &Wanted<'_>) -> Judgement {
    let (Ok(existing), Some(text)) = (&file.parsed, &file.text) else { return file.unreadable() };
    let own = wanted
        .file
        .filter(|(name, format)| *name == file.name && is_rendered(text, existing, *format));
    let region = match own {
        Some(_) => wanted.config.region.clone(),
        None => region(wanted.config, existing),
    };
    let config = &BackendConfig { region, ..wanted.config.clone() };
    let all = differences(config, existing, wanted.ambient_region);
    let (left_out, rest): (Vec<_>, Vec<_>) =
        all.clone().into_iter().partition(Difference::is_left_out);
    let judge = |decision: Decision, differences: &[Difference]| {
        let after = match &decision {
            Decision::Write(text) | Decision::Edit(text) => parse(text, existing.syntax).ok(),
            _ => None,
        };
        let after = after.as_ref().unwrap_or(existing);
        Judgement {
            file: file.name.clone(),
            left_out: match own {
                None => left_out.iter().map(|it| it.attribute.clone()).collect(),
                Some(_) => Vec::new(),
            },
            decision,
            differences: lines(differences),
            encrypts: after.encrypts(),
            locking: Locking::of(after, files),
        }
    };
    let refuse = |why, differences: &[Difference]| judge(Decision::Refuse(why), differences);
    let edits = match wanted.on_existing {
        OnExisting::Ignore if all.is_empty() => return judge(Decision::AsWanted, &[]),
        OnExisting::Ignore => return judge(Decision::Leave, &all),
        OnExisting::Edit => true,
        // Without a file of its own, nothing is written whatever is asked for.
        OnExisting::Overwrite => wanted.file.is_none(),
        OnExisting::Keep => false,
    };
    if config.kms_key_id().is_some() && existing.attributes.contains_key("sse_customer_key") {
        return refuse(Refusal::CustomerKey, &all);
    }
    if let (Some((_, format)), true) = (own, wanted.on_existing != OnExisting::Keep) {
        return match all.is_empty() {
            true => judge(Decision::AsWanted, &[]),
            false => judge(Decision::Write(render(&keeping(config, existing), format)), &all),
        };
    }
    if !edits {
        return match (wanted.on_existing, wanted.file) {
            _ if all.is_empty() => judge(Decision::AsWanted, &[]),
            (OnExisting::Overwrite, Some((name, format))) => {
                let dropped = extras(config, existing);
                if name != file.name || !(dropped.is_empty() || wanted.discard_extras) {
                    return refuse(Refusal::WouldDrop, &[all, dropped].concat());
                }
                judge(Decision::Write(render(config, format)), &all)
            }
            _ => refuse(Refusal::Differs, &all),
        };
    }
    if rest.is_empty() {
        return judge(Decision::AsWanted, &[]);
    }
    if rest.iter().any(|it| it.is_of_place() && !it.is_unresolved()) {
        return refuse(Refusal::Elsewhere, &rest);
    }
    if rest.iter().any(Difference::is_unresolved) {
        return refuse(Refusal::Unresolved, &rest);
    }
    let a_key = |it: &Difference| it.attribute == "kms_key_id" && it.wanted.is_none();
    if rest.iter().any(a_key) && !wanted.removes_key {
        return match wanted.allow_downgrade {
            true => judge(Decision::Leave, &rest),
            false => refuse(Refusal::Downgrade, &rest),
        };
    }
    if wanted.file.is_none() {
        return refuse(Refusal::Differs, &rest);
    }
    let changes: Vec<(&str, Option<Value>)> =
        rest.iter().map(|it| (it.attribute.as_str(), it.wanted.clone())).collect();
    match edit(text, existing.syntax, &changes) {
        Some(text) => judge(Decision::Edit(text), &rest),
        None => refuse(Refusal::NotEditable, &rest),
    }
}

/// The region that a block of the user's is held against: where none is given, the key's, which
/// must be the bucket's; else its own.
fn region(wanted: &BackendConfig, existing: &ParsedBackend) -> String {
    let of_key = || wanted.kms_key_id()?.split(':').nth(3);
    let own = || match existing.attributes.get("region") {
        Some(Value::String(region)) => Some(region.as_str()),
        _ => None,
    };
    let given = Some(wanted.region.as_str()).filter(|region| !region.is_empty());
    given.or_else(of_key).or_else(own).unwrap_or_default().to_owned()
}

/// What is wanted, with the lock, the ACL and the prefix that a file has beyond that.
fn keeping(wanted: &BackendConfig, existing: &ParsedBackend) -> BackendConfig {
    let string = |name: &str| match existing.attributes.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    BackendConfig {
        acl: wanted.acl().map(str::to_owned).or_else(|| string("acl")),
        use_lockfile: wanted.use_lockfile || existing.attributes.contains_key("use_lockfile"),
        workspace_key_prefix: wanted
            .workspace_key_prefix
            .clone()
            .or_else(|| string("workspace_key_prefix")),
        ..wanted.clone()
    }
}

fn lines(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(ToString::to_string).collect()
}

impl Judgement {
    fn refuse(file: &str, why: Refusal, differences: Vec<String>) -> Self {
        Self {
            file: file.to_owned(),
            decision: Decision::Refuse(why),
            differences,
            left_out: Vec::new(),
            encrypts: false,
            locking: Locking::default(),
        }
    }
}

impl ConfigFile {
    fn is_blank(&self) -> bool {
        self.text.as_deref().is_some_and(|text| text.trim().is_empty())
    }

    fn unreadable(&self) -> Judgement {
        let why = self.parsed.as_ref().err().map_or("", String::as_str);
        Judgement::refuse(
            &self.name,
            Refusal::Unclear,
            vec![format!("it could not be read: {why}")],
        )
    }
}
