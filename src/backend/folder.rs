//! A module's folder: which of its files has the backend block that counts.
//!
//! Terraform reads every `.tf` and `.tf.json` file, and lets override files replace the block
//! (<https://developer.hashicorp.com/terraform/language/files/override>; in its source,
//! `configs/parser_config_dir.go` and `configs/module.go`). OpenTofu also reads `.tofu` and
//! `.tofu.json` files, in place of the `.tf` file of the same name
//! (<https://opentofu.org/docs/language/files/>).

use super::{ParseError, ParsedBackend, Syntax, parse};

/// The endings of configuration files; those of OpenTofu's alone come first.
const ENDINGS: [(&str, Syntax); 4] = [
    (".tofu.json", Syntax::Json),
    (".tofu", Syntax::Native),
    (".tf.json", Syntax::Json),
    (".tf", Syntax::Native),
];

/// One configuration file of a folder.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// Its name.
    pub name: String,
    /// Its text; `None` where it is not UTF-8.
    pub text: Option<String>,
    /// What it says.
    pub parsed: Result<ParsedBackend, String>,
    /// It may hold a backend block, as far as its bytes tell.
    mentions: bool,
}

impl ConfigFile {
    /// Reads a file's content.
    pub fn new(name: &str, content: &[u8]) -> Self {
        let syntax = ending(name).map_or(Syntax::Native, |(_, syntax)| syntax);
        Self::read_as(name, content, syntax)
    }

    /// The same, in a given syntax.
    pub fn read_as(name: &str, content: &[u8], syntax: Syntax) -> Self {
        let text = std::str::from_utf8(content).ok();
        let parsed = match text.map(|text| parse(text, syntax)) {
            Some(parsed) => parsed.map_err(|error: ParseError| error.to_string()),
            None => Err("not UTF-8 text".to_owned()),
        };
        let has = |word: &str| content.windows(word.len()).any(|at| at == word.as_bytes());
        let mentions = has("terraform") && (has("backend") || has("cloud") || has("state_store"));
        Self { name: name.to_owned(), text: text.map(str::to_owned), parsed, mentions }
    }

    fn declares(&self) -> bool {
        self.parsed.as_ref().is_ok_and(ParsedBackend::declares)
    }

    fn is_of_opentofu(&self) -> bool {
        ending(&self.name).is_some_and(|(ending, _)| ending.starts_with(".tofu"))
    }

    fn is_override(&self) -> bool {
        let stem = ending(&self.name).and_then(|(ending, _)| self.name.strip_suffix(ending));
        let stem = stem.unwrap_or_default();
        stem == "override" || stem.ends_with("_override")
    }
}

/// Whether Terraform or OpenTofu reads a file of that name (Terraform: `IsIgnoredFile`).
pub fn is_configuration(name: &str) -> bool {
    let ignored = name.starts_with('.')
        || name.ends_with('~')
        || (name.starts_with('#') && name.ends_with('#'));
    !ignored && ending(name).is_some()
}

fn ending(name: &str) -> Option<(&'static str, Syntax)> {
    ENDINGS.into_iter().find(|(ending, _)| name.ends_with(ending))
}

/// Which files' backend blocks count; none where there is no block. They are one file, unless
/// Terraform and OpenTofu read different ones.
///
/// # Errors
///
/// Why that cannot be told, or why neither program would take it.
pub(super) fn deciding(files: &[ConfigFile]) -> Result<Vec<&ConfigFile>, String> {
    let unclear = files.iter().find_map(|file| {
        let why = file.parsed.as_ref().err().filter(|_| file.mentions)?;
        Some(format!("`{}` may have a backend block and could not be read: {why}", file.name))
    });
    if let Some(unclear) = unclear {
        return Err(unclear);
    }
    let of_terraform: Vec<&ConfigFile> =
        files.iter().filter(|file| !file.is_of_opentofu()).collect();
    let terraform = block_of(&of_terraform)?;
    let of_opentofu: Vec<&ConfigFile> =
        files.iter().filter(|file| replacement(&file.name, files).is_none()).collect();
    let opentofu = block_of(&of_opentofu)?;
    match (terraform, opentofu) {
        (Some(terraform), Some(opentofu)) if terraform.name != opentofu.name => {
            Ok(vec![terraform, opentofu])
        }
        (Some(terraform), None) => Err(format!(
            "OpenTofu reads `{}` in place of `{}`, and so finds no backend block",
            replacement(&terraform.name, files).unwrap_or_default(),
            terraform.name
        )),
        (found, other) => Ok(found.or(other).into_iter().collect()),
    }
}

/// The file that OpenTofu reads in place of the one of that name.
pub(super) fn replacement<'a>(name: &str, files: &'a [ConfigFile]) -> Option<&'a str> {
    let twin = match (name.strip_suffix(".tf"), name.strip_suffix(".tf.json")) {
        (Some(stem), _) => format!("{stem}.tofu"),
        (None, Some(stem)) => format!("{stem}.tofu.json"),
        (None, None) => return None,
    };
    files.iter().map(|file| file.name.as_str()).find(|other| *other == twin)
}

/// The file with the block that one program takes: the last override file's, else the only one.
fn block_of<'a>(files: &[&'a ConfigFile]) -> Result<Option<&'a ConfigFile>, String> {
    let mut declaring: Vec<&ConfigFile> =
        files.iter().copied().filter(|file| file.declares()).collect();
    declaring.sort_by(|a, b| a.name.cmp(&b.name));
    let (overrides, primary): (Vec<_>, Vec<_>) =
        declaring.into_iter().partition(|file| file.is_override());
    let blocks = |file: &ConfigFile| {
        file.parsed.as_ref().map_or(0, |parsed| parsed.backends.len() + parsed.others.len())
    };
    let doubled = overrides.iter().find(|file| blocks(file) > 1);
    if primary.iter().map(|file| blocks(file)).sum::<usize>() > 1 || doubled.is_some() {
        let names: Vec<String> = doubled
            .into_iter()
            .chain(primary.iter().filter(|_| doubled.is_none()))
            .map(|file| format!("`{}`", file.name))
            .collect();
        return Err(format!(
            "more than one backend block, in {}: Terraform takes one only",
            names.join(" and ")
        ));
    }
    Ok(overrides.last().or(primary.last()).copied())
}
