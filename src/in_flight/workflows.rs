//! Which workflows may write states: found by the text of a checkout's `.github/workflows`. Pure.
//!
//! A look at the text, not at YAML: what it takes for a command may be a name or an echo, and
//! that only makes one workflow more whose runs count.

use std::collections::{BTreeMap, BTreeSet};

use super::Workflows;
use crate::names::printable;

/// Where a repository's workflows are.
pub const FOLDER: &str = ".github/workflows";

/// Commands that write states, and how variables for them are named.
const TOOLS: [&str; 5] = ["terraform", "tofu", "terragrunt", "tf", "tg"];
/// Subcommands that write no state (developer.hashicorp.com/terraform/cli/commands); all others
/// count, those that a variable names too.
const READS: [&str; 16] = [
    "init",
    "plan",
    "validate",
    "fmt",
    "output",
    "show",
    "version",
    "providers",
    "graph",
    "get",
    "test",
    "-version",
    "--version",
    "-v",
    "-help",
    "--help",
];
/// Subcommands that surely write, wherever a line break or a comma stands before them.
const WRITES: [&str; 10] = [
    "apply",
    "destroy",
    "import",
    "state",
    "taint",
    "untaint",
    "refresh",
    "run-all",
    "run",
    "workspace",
];
/// Modes of this action that write neither a state nor a backend file that Terraform would use.
const LOOKS: [&str; 2] = ["plan", "verify"];
/// Programs that run what stands elsewhere.
const WRAPPERS: [&str; 10] =
    ["make", "just", "task", "bash", "sh", "source", "python", "python3", "npm", "npx"];

/// What the text of a file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    writes: bool,
    /// `uses:` of a path in the repository.
    local: BTreeSet<String>,
    /// What runs that does not stand here.
    unseen: BTreeSet<String>,
}

/// The workflows of a checkout that may write states. `read` gives a file's text; an `Err` is a
/// file that is there and cannot be read.
pub fn of_checkout(
    names: &[String],
    read: impl Fn(&str) -> Result<Option<String>, ()>,
) -> Workflows {
    let (mut files, mut others) = (BTreeSet::new(), BTreeSet::new());
    let mut unseen = BTreeSet::new();
    let mut known = BTreeMap::new();
    for name in names {
        let mut open = vec![format!("{FOLDER}/{name}")];
        let (mut seen, mut writes) = (BTreeSet::new(), false);
        while let Some(path) = open.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let said = known.entry(path.clone()).or_insert_with(|| match read(&path) {
                Ok(text) => text.map(|text| said(&text)),
                Err(()) => Some(Said { writes: true, ..Said::default() }),
            });
            match said {
                Some(said) => {
                    writes |= said.writes;
                    unseen.extend(said.unseen.iter().map(|what| format!("`{what}` in {name}")));
                    open.extend(said.local.iter().flat_map(|local| candidates(local)));
                }
                None if path.ends_with("action.yaml") => {
                    // Neither this file nor the `action.yml` beside it.
                    let other = format!("{}yml", path.trim_end_matches("yaml"));
                    if !matches!(known.get(&other), Some(Some(_))) {
                        let folder = path.trim_end_matches("/action.yaml");
                        unseen.insert(format!("`./{}` in {name}", printable(folder)));
                    }
                }
                None if !path.ends_with("action.yml") => {
                    unseen.insert(format!("`{}` in {name}", printable(&path)));
                }
                None => {}
            }
        }
        if writes { &mut files } else { &mut others }.insert(name.clone());
    }
    Workflows { files, others: Some(others), unseen }
}

/// The files that a `uses: ./…` may mean; an `action.yml` is looked at first.
fn candidates(local: &str) -> Vec<String> {
    if local.ends_with(".yml") || local.ends_with(".yaml") {
        return vec![local.to_owned()];
    }
    let folder = if local.is_empty() { String::new() } else { format!("{local}/") };
    vec![format!("{folder}action.yaml"), format!("{folder}action.yml")]
}

fn said(text: &str) -> Said {
    let mut said = Said::default();
    // A command may go on in the next line.
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let lines: Vec<&str> = joined.lines().filter(|line| !is_comment(line)).collect();
    said.writes |= lines.iter().any(|line| line.trim() == "image: Dockerfile")
        && lines.iter().any(|line| line.contains("Terraform state under a KMS key"));
    for (at, line) in lines.iter().enumerate() {
        if let Some(used) = value_of(line, "uses") {
            said.used(used, at, &lines);
        } else {
            let next = lines.get(at + 1).map(|line| words(line)).unwrap_or_default();
            said.writes |= runs_a_tool(&words(line), &next);
            said.unseen.extend(wrappers(line));
        }
    }
    said
}

impl Said {
    fn used(&mut self, used: &str, at: usize, lines: &[&str]) {
        let what = used.split('@').next().unwrap_or_default();
        if let Some(local) = what.strip_prefix("./") {
            self.local.insert(local.trim_end_matches('/').to_owned());
            return;
        }
        let name = what.rsplit('/').next().unwrap_or_default().to_lowercase();
        let name = name.split(':').next().unwrap_or_default();
        if name == "tfstate-kms" {
            self.writes |= !only_looks(at, lines);
        } else if what.contains("/.github/workflows/") {
            self.unseen.insert(printable(used));
        } else if !name.starts_with("setup-") && TOOLS[..3].iter().any(|tool| name.contains(tool)) {
            // Such as dflook/terraform-apply.
            let mut parts = name.split('-');
            self.writes |= !parts.any(|part| READS.contains(&part) || part == "docs");
        }
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The step of this line names a mode, in so many words, that only looks.
fn only_looks(at: usize, lines: &[&str]) -> bool {
    let begins = |line: &&&str| line.trim_start().starts_with("- ");
    let column = indent(lines[at].replacen("- ", "  ", 1).as_str());
    let ends = |line: &&&str| !line.trim().is_empty() && indent(line) < column;
    let above = lines[..=at].iter().rposition(|line| begins(&line) && indent(line) < column);
    let below = lines[at + 1..].iter().position(|line| ends(&line));
    let step = &lines[above.unwrap_or(at)..below.map_or(lines.len(), |count| at + 1 + count)];
    let mut modes = step.iter().filter_map(|line| value_of(line, "mode"));
    modes.next().is_some_and(|mode| LOOKS.contains(&mode)) && modes.next().is_none()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The value of a key in a line of YAML, without quotes and a comment.
fn value_of<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let line = line.trim_start().trim_start_matches("- ").trim_start_matches(['{', ' ', '"', '\'']);
    let rest = line.strip_prefix(key)?.trim_start_matches(['"', '\'']).trim_start();
    let value = rest.strip_prefix(':')?;
    let value = value.split(" #").next().unwrap_or_default();
    Some(value.trim_matches([' ', '\t', '"', '\'', '}', ',']))
}

/// Words, and `,` where one or a quote, a bracket or the like stood; `;` ends a command.
fn words(line: &str) -> Vec<String> {
    let mut text = String::new();
    for c in line.chars() {
        match c {
            ',' | '[' | ']' => text.push_str(" , "),
            '"' | '\'' | '`' | '(' | ')' => text.push(' '),
            ';' | '|' | '&' | '<' | '>' => text.push_str(" ; "),
            c => text.push(c),
        }
    }
    text.split_whitespace().map(str::to_owned).collect()
}

/// `/usr/bin/terraform`, `terraform.exe`, `hashicorp/terraform:1.9` and `$TF` are tools.
fn is_tool(word: &str) -> bool {
    let variable = word.starts_with('$');
    if word.ends_with(':') || word.contains('=') {
        return false;
    }
    let name = word.trim_matches(['$', '{', '}']).to_lowercase();
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = name.split([':', '@']).next().unwrap_or_default().trim_end_matches(".exe");
    // A variable is named by its writer, and the short names are commands of nobody else's.
    let name = name.trim_end_matches("_bin").trim_end_matches("_cmd");
    TOOLS.contains(&name) && (variable || word == word.to_lowercase())
}

/// Some command of this line is a tool's, and may write.
fn runs_a_tool(line: &[String], next: &[String]) -> bool {
    line.iter().enumerate().any(|(at, word)| is_tool(word) && may_write(&line[at + 1..], next))
}

fn may_write(rest: &[String], next: &[String]) -> bool {
    let command: Vec<&str> =
        rest.iter().map(String::as_str).take_while(|word| *word != ";").collect();
    let migrates = |word: &&str| word.contains("migrate-state") || word.contains("force-copy");
    if command.iter().any(migrates) {
        return true;
    }
    let mut apart = false;
    for word in &command {
        match *word {
            "," => apart = true,
            word if READS.contains(&word) => return false,
            // An option, or the value of one that comes before the subcommand.
            word if word.starts_with('-') => {}
            word => return !apart || WRITES.contains(&word),
        }
    }
    // A folded scalar, or a list of arguments, goes on in the next line.
    let ended = rest.len() > command.len();
    let first = next.iter().find(|word| !matches!(word.as_str(), "," | "-"));
    !ended && first.is_some_and(|word| WRITES.contains(&word.as_str()))
}

/// Commands of a line that run what stands elsewhere.
fn wrappers(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches("- ");
    let run = value_of(line, "run").unwrap_or(line);
    let commands = run.split([';', '|', '&']).map(str::trim);
    let wraps = commands.filter(|command| {
        let mut words = command.split_whitespace();
        let Some(first) = words.next() else { return false };
        let elsewhere =
            first.starts_with("./") || first.starts_with("../") || first.ends_with(".sh");
        elsewhere || (WRAPPERS.contains(&first) && words.next().is_none_or(|word| word != "-c"))
    });
    // Its arguments may hold anything.
    wraps
        .map(|command| printable(&command.split_whitespace().take(2).collect::<Vec<_>>().join(" ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(text: &str) -> bool {
        said(text).writes
    }

    #[test]
    fn commands_that_may_write_count() {
        for run in [
            "terraform apply -auto-approve",
            "terraform -chdir=\"terraform/$stack\" destroy",
            "cd infra && tofu import a b",
            "terragrunt run-all apply",
            "terragrunt run --all apply",
            "terraform state rm x",
            "terraform init -migrate-state",
            "terraform ${{ inputs.command }}",
            "terraform \"$COMMAND\"",
            "$TF apply",
            "${TERRAFORM} apply",
            "docker run hashicorp/terraform:1.9 apply",
            "/usr/local/bin/terraform apply",
            "terraform init && terraform apply",
            "terraform workspace new x",
        ] {
            assert!(writes(&format!("      - run: {run}\n")), "{run}");
            assert!(writes(&format!("        run: |\n          {run}\n")), "{run}");
        }
        for text in [
            "run: |\n  terraform \\\n    apply\n",
            "run: >\n  terraform\n  apply\n",
            "- {run: terraform apply}\n",
            "args: [\"terraform\", \"apply\"]\n",
            "uses: dflook/terraform-apply@v1\n",
            "uses: gruntwork-io/terragrunt-action@v2\n",
            "- uses: cabalmail/tfstate-kms@v1\n  with:\n    kms-key-id: x\n",
            "uses: \"docker://ghcr.io/cabalmail/tfstate-kms:v1\"\n",
        ] {
            assert!(writes(text), "{text}");
        }
    }

    #[test]
    fn what_only_reads_does_not() {
        for text in [
            "run: terraform init\nrun: terraform plan -lock=false\n",
            "run: terraform fmt -check && terraform validate\n",
            "run: tofu output -json | jq .\n",
            "# then terraform apply\n  # terraform apply\n",
            "uses: hashicorp/setup-terraform@v4\nwith:\n  terraform_wrapper: false\n",
            "uses: dflook/terraform-plan@v1\n",
            "working-directory: terraform\nrun: make\n",
            "paths: [terraform, modules]\n",
            "jobs:\n  terraform:\n    runs-on: ubuntu-latest\n",
            "path: terraform\nname: Terraform\n",
            "- name: x\n  uses: cabalmail/tfstate-kms@v1\n  with:\n    mode: verify\n- run: x\n",
        ] {
            assert!(!writes(text), "{text}");
        }
        // Another step's mode is not this one's, nor one that is computed.
        for mode in ["mode: apply\n- with:\n    mode: plan\n", "mode: ${{ inputs.mode }}\n"] {
            let text = format!("- uses: cabalmail/tfstate-kms@v1\n  with:\n    {mode}");
            assert!(writes(&text), "{text}");
        }
    }

    #[test]
    fn what_is_called_in_the_repository_is_followed_and_what_is_not_is_named() {
        let files = BTreeMap::from([
            ("a.yml", "jobs:\n  a:\n    uses: ./.github/workflows/called.yml\n"),
            ("called.yml", "steps:\n  - uses: ./.github/actions/deploy\n"),
            ("b.yml", "steps:\n  - uses: ./\n"),
            ("c.yml", "jobs:\n  c:\n    uses: o/r/.github/workflows/x.yml@main\n"),
            ("d.yml", "steps:\n  - run: make deploy\n  - run: |\n      ./go.sh\n      bash x.sh\n"),
            ("e.yml", "steps:\n  - uses: ./gone\n"),
            ("loop.yml", "uses: ./.github/workflows/loop.yml\n"),
            ("odd.yml", ""),
        ]);
        let names: Vec<String> = files.keys().map(|name| (*name).to_owned()).collect();
        let own = include_str!("../../action.yml");
        let found = of_checkout(&names, |path| match path {
            ".github/actions/deploy/action.yml" => Ok(Some("- run: tofu apply\n".to_owned())),
            "action.yml" => Ok(Some(own.to_owned())),
            ".github/workflows/odd.yml" => Err(()),
            path => Ok(path
                .strip_prefix(".github/workflows/")
                .and_then(|name| files.get(name))
                .map(|text| (*text).to_owned())),
        });
        let files: Vec<&str> = found.files.iter().map(String::as_str).collect();
        assert_eq!(files, ["a.yml", "b.yml", "called.yml", "odd.yml"]);
        let unseen: Vec<&str> = found.unseen.iter().map(String::as_str).collect();
        assert_eq!(
            unseen,
            [
                "`./go.sh` in d.yml",
                "`./gone` in e.yml",
                "`bash x.sh` in d.yml",
                "`make deploy` in d.yml",
                "`o/r/.github/workflows/x.yml@main` in c.yml",
            ]
        );
    }

    #[test]
    fn the_ready_to_use_workflows_are_told_apart() {
        let writers = [
            include_str!("../../examples/workflows/infra.yml"),
            include_str!("../../examples/workflows/quiesce.yml"),
            include_str!("../../examples/workflows/destroy_terraform.yml"),
            include_str!("../../examples/workflows/migrate-state.yml"),
        ];
        assert!(writers.into_iter().all(writes));
        assert!(!writes(include_str!("../../examples/workflows/verify-nightly.yml")));
    }
}
