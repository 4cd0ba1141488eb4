//! One line of `state-keys`: what it may be, what it is mistaken for, and what it stands for.

use super::{Names, Workspace};
use crate::names::printable;

/// What Terraform puts before a workspace's name in an object key, unless the block has a
/// `workspace_key_prefix` (Terraform: `internal/backend/remote-state/s3/backend.go`).
pub(super) const WORKSPACES: &str = "env:";
/// The workspace whose state has no prefix (Terraform: `backend.DefaultStateName`).
const DEFAULT: &str = "default";
const WORKSPACE: &str = "{workspace}";
const NO_WORKSPACE: &str = "`{workspace}` needs the environment variable TF_WORKSPACE";
const PLACEHOLDERS: &str = "{environment}, {module} and {workspace}";

/// A line, without the module that it may begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The template of one object key, or of one for each module.
    Single(&'a str),
    /// `env:/*/TEMPLATE`
    Workspaces(&'a str),
    /// `TEMPLATE/*`
    Below(&'a str),
    /// `*`
    WholeBucket,
}

impl<'a> Line<'a> {
    /// Sorts a line.
    ///
    /// # Errors
    /// What the line is, and what to write instead, where S3 would take it for an object key
    /// that nobody means.
    pub(super) fn read(line: &'a str) -> Result<Self, String> {
        if let Some(what) = mistaken(line) {
            return Err(format!("`{}`: {what}", printable(line)));
        }
        let read = match (line.strip_prefix("env:/*/"), line.strip_suffix("/*")) {
            _ if line == "*" => Self::WholeBucket,
            (Some(key), _) => Self::Workspaces(key),
            (None, Some(prefix)) => Self::Below(prefix),
            (None, None) => Self::Single(line),
        };
        if read.template().contains(['*', '?', '[', ']']) {
            return Err(format!(
                "`{}` is no pattern of this action: a `*` is understood only in `PREFIX/*` (every object below a \
                 prefix), `env:/*/KEY` (one stack in all its workspaces) and `*` (the whole bucket)",
                printable(line)
            ));
        }
        Ok(read)
    }

    /// The template, where there is one.
    pub(super) fn template(&self) -> &'a str {
        match self {
            Self::Single(template) | Self::Workspaces(template) | Self::Below(template) => template,
            Self::WholeBucket => "",
        }
    }
}

/// What a line that is no object key is instead, and what to write.
fn mistaken(line: &str) -> Option<String> {
    if let Some(name) = variable(line) {
        return Some(format!(
            "a variable was not expanded (`{}`); give the value itself, or one of the placeholders {PLACEHOLDERS}",
            printable(name)
        ));
    }
    if line.contains('<') && line.contains('>') {
        return Some(format!(
            "it has a placeholder in angle brackets; give the value itself, or one of {PLACEHOLDERS}"
        ));
    }
    if let Some(key) = address(line) {
        let key = if key.is_empty() { "KEY".to_owned() } else { printable(key) };
        return Some(format!(
            "it is an address; give the object's key alone, `{key}`, and the bucket's name in `bucket`"
        ));
    }
    let quote = |c: char| matches!(c, '"' | '\'' | '`');
    let enclosed = line.starts_with(['[', '{']) && line.ends_with([']', '}']);
    if enclosed && line.contains(quote)
        || line.starts_with("- ")
        || matches!(line, "-" | "[" | "]")
        || line.contains(',')
        || keys_of(line) > 1
    {
        return Some(
            "it is written as a list; give one key a line, without brackets, dashes, quotes or commas"
                .into(),
        );
    }
    if line.starts_with(quote) || line.ends_with(quote) {
        return Some("it has quotes; give the key without them".into());
    }
    if line.starts_with('#') {
        return Some("it is a comment; `state-keys` takes object keys only".into());
    }
    if line.contains(": ") || line.ends_with(':') {
        return Some("it is a mapping; write `MODULE=KEY`".into());
    }
    None
}

/// `$NAME`, `${NAME}`, `${{ expression }}`, `$(command)` or `%NAME%`.
fn variable(line: &str) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    for (at, _) in line.match_indices('$') {
        let rest = &line[at + 1..];
        let end_of = |end: &str| rest.find(end).map_or(rest.len(), |found| found + end.len());
        let length = match rest.chars().next() {
            Some('{') if rest.starts_with("{{") => end_of("}}"),
            Some('{') => end_of("}"),
            Some('(') => end_of(")"),
            Some(c) if begins(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            _ => continue,
        };
        return Some(&line[at..at + 1 + length]);
    }
    for (at, _) in line.match_indices('%') {
        let rest = &line[at + 1..];
        let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if rest.starts_with(begins) && rest[length..].starts_with('%') {
            return Some(&line[at..at + length + 2]);
        }
    }
    None
}

/// The object key of a URL or an ARN, as far as it can be told.
fn address(line: &str) -> Option<&str> {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c));
    let host = line.split('/').next().unwrap_or_default();
    let rest = match line.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && !scheme.contains(odd) => rest,
        _ if line.to_ascii_lowercase().starts_with("arn:") => line,
        _ if host.ends_with(".amazonaws.com") => line,
        _ => return None,
    };
    Some(rest.split_once('/').map_or("", |(_, key)| key))
}

/// How many words of a line look like a key of their own. A key may have spaces.
fn keys_of(line: &str) -> usize {
    let is_key = |word: &&str| {
        word.contains(['{', '=']) || word.ends_with(".tfstate") || word.ends_with("/*")
    };
    line.split_whitespace().filter(is_key).count()
}

/// An object key and, where a workspace's state is there, what Terraform calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) object: String,
    pub(super) workspace: Option<Workspace>,
}

/// The object key of a module's own state. Terraform keeps a workspace's state at
/// `<workspace_key_prefix>/<workspace>/<key>` and the default one's at `<key>`, so the block's
/// `key` is what follows the workspace's name (Terraform: `s3/backend_state.go`, `path`).
pub(super) fn of_module(template: &str, module: &str, names: Names<'_>) -> Result<Placed, String> {
    if template.contains(WORKSPACE) {
        return of_workspace(template, Some(module), names)?.ok_or_else(|| {
            format!(
                "`{}` gives module `{module}` no key that Terraform could have: it keeps a workspace's state at \
                 PREFIX/WORKSPACE/KEY; write `env:/{{workspace}}/KEY`",
                printable(template)
            )
        });
    }
    let object = expand(template, Some(module), names)?;
    let Some(rest) = object.strip_prefix("env:/") else {
        return Ok(Placed { object, workspace: None });
    };
    match rest.split_once('/') {
        Some((DEFAULT, key)) => Err(format!(
            "`{}` is no key of module `{module}`: Terraform keeps the state of the workspace `default` without a \
             prefix; write `{}`",
            printable(&object),
            printable(key)
        )),
        Some((workspace, key)) if !workspace.is_empty() && !key.is_empty() => {
            let workspace = Workspace { prefix: WORKSPACES.to_owned(), key: key.to_owned() };
            Ok(Placed { object, workspace: Some(workspace) })
        }
        _ => Err(format!(
            "`{}` is no key of module `{module}`: Terraform keeps a workspace's state at env:/WORKSPACE/KEY",
            printable(&object)
        )),
    }
}

/// The object key of a state of no module.
pub(super) fn of_none(
    template: &str,
    module: Option<&str>,
    names: Names<'_>,
) -> Result<String, String> {
    match of_workspace(template, module, names)? {
        Some(placed) => Ok(placed.object),
        None => expand(template, module, names),
    }
}

/// A prefix, without its slash.
pub(super) fn prefix(
    template: &str,
    module: Option<&str>,
    names: Names<'_>,
) -> Result<String, String> {
    if template.contains(WORKSPACE) && names.workspace == Some(DEFAULT) {
        return Err(format!(
            "`{}/*` names no prefix: TF_WORKSPACE is `default`, whose states have none; write their keys",
            printable(template)
        ));
    }
    expand(template, module, names)
}

/// A template in which `{workspace}` stands where Terraform puts the workspace's name.
fn of_workspace(
    template: &str,
    module: Option<&str>,
    names: Names<'_>,
) -> Result<Option<Placed>, String> {
    let Some((before, after)) = template.split_once(WORKSPACE) else { return Ok(None) };
    let prefix = if before.is_empty() { Some("") } else { before.strip_suffix('/') };
    let (Some(prefix), Some(key)) = (prefix, after.strip_prefix('/')) else { return Ok(None) };
    if key.is_empty() || key.contains(WORKSPACE) {
        return Ok(None);
    }
    let (prefix, key) = (expand(prefix, module, names)?, expand(key, module, names)?);
    let object = match names.workspace.ok_or(NO_WORKSPACE)? {
        DEFAULT => key.clone(),
        workspace if prefix.is_empty() => format!("{workspace}/{key}"),
        workspace => format!("{prefix}/{workspace}/{key}"),
    };
    Ok(Some(Placed { object, workspace: Some(Workspace { prefix, key }) }))
}

/// Puts the names in the place of their placeholders.
pub(super) fn expand(
    template: &str,
    module: Option<&str>,
    names: Names<'_>,
) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            return Err(format!("`{}` has `{{` without `}}`", printable(template)));
        };
        match (name, module) {
            ("environment", _) => out.push_str(names.environment),
            ("module", Some(".")) => {
                return Err(format!(
                    "`{}` gives the module `.` no key, since it has no name for `{{module}}`; write `.=KEY`",
                    printable(template)
                ));
            }
            ("module", Some(module)) => out.push_str(module),
            ("workspace", _) => out.push_str(names.workspace.ok_or(NO_WORKSPACE)?),
            _ => {
                return Err(format!(
                    "`{}` has the unknown placeholder `{{{}}}`; known are {PLACEHOLDERS}",
                    printable(template),
                    printable(name)
                ));
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_refused_with_what_to_write() {
        for (line, part) in [
            ("prod/*.tfstate", "is no pattern"),
            ("*.tfstate", "is no pattern"),
            ("**", "is no pattern"),
            ("prod/**", "is no pattern"),
            ("prod*", "is no pattern"),
            ("*/infra.tfstate", "is no pattern"),
            ("prod/*/infra.tfstate", "is no pattern"),
            ("env:/*/a/*", "is no pattern"),
            ("env:/*/*", "is no pattern"),
            ("prod/infra.tfstat?", "is no pattern"),
            ("prod/[ab].tfstate", "is no pattern"),
            ("s3://bucket/prod/infra.tfstate", "alone, `prod/infra.tfstate`"),
            ("s3://bucket", "alone, `KEY`"),
            ("https://bucket.s3.amazonaws.com/k", "alone, `k`"),
            ("bucket.s3.us-east-1.amazonaws.com/k", "alone, `k`"),
            ("arn:aws:s3:::bucket/k", "alone, `k`"),
            ("$STACK/infra.tfstate", "(`$STACK`)"),
            ("prod/${STACK}.tfstate", "(`${STACK}`)"),
            ("${{ vars.STACK }}/infra", "(`${{ vars.STACK }}`)"),
            ("$(basename x)", "(`$(basename x)`)"),
            ("%STACK%/infra", "(`%STACK%`)"),
            ("<environment>/infra", "in angle brackets"),
            ("[\"a\", \"b\"]", "as a list"),
            ("['a']", "as a list"),
            ("- prod/infra.tfstate", "as a list"),
            ("[", "as a list"),
            ("a.tfstate,b.tfstate", "as a list"),
            ("a.tfstate b.tfstate", "as a list"),
            ("{environment} {environment}-bootstrap", "as a list"),
            ("\"prod/infra.tfstate\"", "has quotes"),
            ("# the states", "is a comment"),
            ("infra: prod/infra.tfstate", "is a mapping"),
        ] {
            let problem = Line::read(line).unwrap_err();
            assert!(problem.contains(part), "{line}: {problem}");
        }
    }

    #[test]
    fn keys_and_the_three_patterns_are_taken() {
        for (line, read) in [
            ("prod/infra.tfstate", Line::Single("prod/infra.tfstate")),
            ("env:/blue/team a/x", Line::Single("env:/blue/team a/x")),
            ("a=b", Line::Single("a=b")),
            ("{environment}/{module}.tfstate", Line::Single("{environment}/{module}.tfstate")),
            ("prod/*", Line::Below("prod")),
            ("env:/*", Line::Below("env:")),
            ("env:/*/a/{module}", Line::Workspaces("a/{module}")),
            ("*", Line::WholeBucket),
        ] {
            assert_eq!(Line::read(line), Ok(read), "{line}");
        }
    }

    #[test]
    fn a_workspaces_prefix_is_terraforms_and_no_part_of_the_key() {
        for (template, workspace, object, backend) in [
            ("a/infra", None, "a/infra", None),
            ("env:/blue/a/infra", None, "env:/blue/a/infra", Some(("env:", "a/infra"))),
            ("env:/{environment}/{module}", None, "env:/prod/infra", Some(("env:", "infra"))),
            ("env:/{workspace}/a/{module}", Some("b"), "env:/b/a/infra", Some(("env:", "a/infra"))),
            ("env:/{workspace}/a/{module}", Some("default"), "a/infra", Some(("env:", "a/infra"))),
            ("w/s/{workspace}/k", Some("b"), "w/s/b/k", Some(("w/s", "k"))),
            ("w/s/{workspace}/k", Some("default"), "k", Some(("w/s", "k"))),
            ("{workspace}/k", Some("b"), "b/k", Some(("", "k"))),
        ] {
            let names = Names { environment: "prod", workspace };
            let placed = of_module(template, "infra", names).unwrap();
            let found = placed.workspace.as_ref().map(|w| (w.prefix.as_str(), w.key.as_str()));
            assert_eq!((placed.object.as_str(), found), (object, backend), "{template}");
        }
    }

    #[test]
    fn what_terraform_has_no_key_for_is_refused() {
        for (template, part) in [
            ("states/{workspace}.tfstate", "PREFIX/WORKSPACE/KEY"),
            ("states/{workspace}", "PREFIX/WORKSPACE/KEY"),
            ("a-{workspace}/k", "PREFIX/WORKSPACE/KEY"),
            ("env:/{workspace}/{workspace}", "PREFIX/WORKSPACE/KEY"),
            ("env:/default/a/infra", "write `a/infra`"),
            ("env:/blue", "env:/WORKSPACE/KEY"),
            ("env:/blue/", "env:/WORKSPACE/KEY"),
        ] {
            let names = Names { environment: "prod", workspace: Some("blue") };
            let problem = of_module(template, "infra", names).unwrap_err();
            assert!(problem.contains(part), "{template}: {problem}");
        }
    }

    #[test]
    fn further_states_are_objects_and_no_more() {
        let names = |workspace| Names { environment: "prod", workspace };
        for (template, workspace, object) in [
            ("env:/default/x", None, "env:/default/x"),
            ("states/{workspace}.tfstate", Some("blue"), "states/blue.tfstate"),
            ("env:/{workspace}/x", Some("default"), "x"),
        ] {
            assert_eq!(of_none(template, None, names(workspace)).as_deref(), Ok(object));
        }
        prefix("env:/{workspace}", None, names(Some("default"))).unwrap_err();
        let below = prefix("env:/{workspace}", None, names(Some("blue")));
        assert_eq!(below.as_deref(), Ok("env:/blue"));
    }
}
