//! Which objects of the bucket are an environment's states, and whose they are.
//!
//! Pure: templates and names in, object keys out.

use std::collections::BTreeSet;

use crate::names::{object_key_problem, printable};

/// The state keys of one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// One for each module, in the order of the input `modules`.
    pub modules: Vec<ModuleState>,
    /// Further single states, of no module.
    pub others: Vec<String>,
    /// Prefixes under which every object but a lock object is a state.
    pub prefixes: Vec<String>,
}

/// A Terraform root module (a stack) and the key of its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleState {
    /// The module's folder name.
    pub module: String,
    /// The object key that its backend block names.
    pub key: String,
}

/// What the templates may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// `{environment}`
    pub environment: &'a str,
    /// `{workspace}`; `None` when nothing says which one.
    pub workspace: Option<&'a str>,
}

impl Layout {
    /// Cabal's layout: the module `dns` at `<environment>-bootstrap`, every other
    /// one at `<environment>` (make-terraform.sh).
    ///
    /// # Errors
    /// A sentence for each thing that is wrong, such as two modules on one key.
    pub fn cabal(modules: &[String], environment: &str) -> Result<Self, Vec<String>> {
        let modules = modules
            .iter()
            .map(|module| ModuleState {
                module: module.clone(),
                key: if module == "dns" {
                    format!("{environment}-bootstrap")
                } else {
                    environment.to_owned()
                },
            })
            .collect();
        Self { modules, others: Vec::new(), prefixes: Vec::new() }.checked()
    }

    /// Reads the input `state-keys`, one template a line.
    ///
    /// `MODULE=TEMPLATE` gives one module its key. Of the other lines, the first
    /// one with `{module}` and without `{workspace}` gives each remaining module
    /// its key; with a single module, the first line that is no prefix does. What is
    /// left names further states; a line that ends in `/*` is a prefix.
    ///
    /// # Errors
    /// A sentence for each thing that is wrong.
    pub fn from_templates(
        lines: &[&str],
        modules: &[String],
        names: Names<'_>,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut explicit: Vec<(&String, &str)> = Vec::new();
        let mut plain: Vec<&str> = Vec::new();
        let mut prefixes: Vec<&str> = Vec::new();
        for &line in lines {
            let assigned = line.split_once('=').and_then(|(name, template)| {
                modules.iter().find(|m| *m == name.trim()).map(|m| (m, template.trim()))
            });
            match assigned {
                Some(pair) if explicit.iter().any(|(m, _)| *m == pair.0) => {
                    problems.push(format!("module `{}` is given two keys", pair.0));
                }
                Some(pair) => explicit.push(pair),
                None => match line.strip_suffix("/*") {
                    Some(prefix) => prefixes.push(prefix),
                    None => plain.push(line),
                },
            }
        }

        let unassigned = modules.len() - explicit.len();
        let own = plain
            .iter()
            .position(|t| t.contains("{module}") && !t.contains("{workspace}"))
            .or_else(|| plain.iter().position(|t| t.contains("{module}")))
            .or_else(|| (unassigned == 1 && !plain.is_empty()).then_some(0));
        let own = (unassigned > 0).then_some(own).flatten().map(|at| plain.remove(at));

        let mut expand = |template: &str, module: Option<&str>| {
            expand(template, module, names).map_err(|problem| problems.push(problem)).ok()
        };
        let mut states = Vec::new();
        let mut without = Vec::new();
        for module in modules {
            let template = explicit.iter().find(|(m, _)| *m == module).map(|(_, t)| *t).or(own);
            match template {
                Some(template) => states.extend(
                    expand(template, Some(module))
                        .map(|key| ModuleState { module: module.clone(), key }),
                ),
                None => without.push(module.as_str()),
            }
        }
        let mut expand_for_all = |templates: &[&str]| -> Vec<String> {
            let mut keys = Vec::new();
            for template in templates {
                if template.contains("{module}") {
                    keys.extend(modules.iter().filter_map(|m| expand(template, Some(m))));
                } else {
                    keys.extend(expand(template, None));
                }
            }
            keys
        };
        let others = expand_for_all(&plain);
        let prefixes =
            expand_for_all(&prefixes).into_iter().map(|p| format!("{p}/")).collect::<Vec<_>>();
        if !without.is_empty() && prefixes.is_empty() {
            problems.push(format!(
                "no line gives {} a key: use `{{module}}` in a line, or `MODULE=KEY`",
                without.iter().map(|m| format!("module `{m}`")).collect::<Vec<_>>().join(", ")
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Self { modules: states, others, prefixes }.checked()
    }

    /// Drops repetitions and refuses what would make two modules share a state.
    fn checked(mut self) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        if self.keys().next().is_none() && self.prefixes.is_empty() {
            problems.push("`modules` and `state-keys` together name no state".to_owned());
        }
        for (at, state) in self.modules.iter().enumerate() {
            if let Some(problem) = object_key_problem(&state.key) {
                problems.push(format!("key `{}`: {problem}", printable(&state.key)));
            }
            if let Some(twin) = self.modules[..at].iter().find(|other| other.key == state.key) {
                problems.push(format!(
                    "modules `{}` and `{}` would share the state `{}`; give each its own key with \
                     `state-keys`, or name only one of them in `modules`",
                    twin.module, state.module, state.key
                ));
            }
        }
        for key in self.others.iter().chain(&self.prefixes) {
            if let Some(problem) = object_key_problem(key.trim_end_matches('/')) {
                problems.push(format!("key `{}`: {problem}", printable(key)));
            }
        }
        let mut seen: BTreeSet<String> = self.modules.iter().map(|s| s.key.clone()).collect();
        self.others.retain(|key| seen.insert(key.clone()));
        if problems.is_empty() { Ok(self) } else { Err(problems) }
    }

    /// The single keys, each with its module.
    pub fn keys(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        let modules = self.modules.iter().map(|s| (Some(s.module.as_str()), s.key.as_str()));
        modules.chain(self.others.iter().map(|key| (None, key.as_str())))
    }
}

fn expand(template: &str, module: Option<&str>, names: Names<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        if before.ends_with('$') {
            return Err(format!(
                "`{}` has `${{`, so a variable was not expanded; give the value itself",
                printable(template)
            ));
        }
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            return Err(format!("`{}` has `{{` without `}}`", printable(template)));
        };
        match (name, module) {
            ("environment", _) => out.push_str(names.environment),
            ("module", Some(module)) => out.push_str(module),
            ("workspace", _) => match names.workspace {
                Some(workspace) => out.push_str(workspace),
                None => {
                    return Err("`{workspace}` needs the environment variable TF_WORKSPACE".into());
                }
            },
            _ => {
                return Err(format!(
                    "`{}` has the unknown placeholder `{{{}}}`; known are {{environment}}, \
                     {{module}} and {{workspace}}",
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

    const NAMES: Names<'_> = Names { environment: "production", workspace: None };

    fn modules(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn keys(layout: &Layout) -> Vec<(Option<&str>, &str)> {
        layout.keys().collect()
    }

    #[test]
    fn cabal_puts_dns_at_bootstrap() {
        let layout = Layout::cabal(&modules(&["infra", "dns"]), "stage").unwrap();
        assert_eq!(keys(&layout), [(Some("infra"), "stage"), (Some("dns"), "stage-bootstrap")]);
        let problems = Layout::cabal(&modules(&["infra", "net"]), "stage").unwrap_err();
        assert!(problems[0].contains("`infra` and `net` would share the state `stage`"));
    }

    #[test]
    fn templates_give_each_module_its_key() {
        let layout = Layout::from_templates(
            &["states/{environment}/{module}.tfstate", "shared.tfstate", "env:/{environment}/*"],
            &modules(&["infra", "dns"]),
            NAMES,
        )
        .unwrap();
        assert_eq!(
            keys(&layout),
            [
                (Some("infra"), "states/production/infra.tfstate"),
                (Some("dns"), "states/production/dns.tfstate"),
                (None, "shared.tfstate")
            ]
        );
        assert_eq!(layout.prefixes, ["env:/production/"]);
    }

    #[test]
    fn a_line_can_name_its_module() {
        let layout = Layout::from_templates(
            &["infra={environment}", "dns={environment}-bootstrap", "a=b"],
            &modules(&["infra", "dns"]),
            NAMES,
        )
        .unwrap();
        assert_eq!(
            keys(&layout),
            [(Some("infra"), "production"), (Some("dns"), "production-bootstrap"), (None, "a=b")]
        );
    }

    #[test]
    fn a_single_module_takes_the_first_line() {
        let layout =
            Layout::from_templates(&["a/{environment}", "b"], &modules(&["infra"]), NAMES).unwrap();
        assert_eq!(keys(&layout), [(Some("infra"), "a/production"), (None, "b")]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let two = modules(&["infra", "dns"]);
        for (lines, part) in [
            (&["one.tfstate"][..], "no line gives module `infra`, module `dns` a key"),
            (&["{module}.tfstate", "infra=dns.tfstate"][..], "would share the state `dns.tfstate`"),
            (&["{modul}"][..], "unknown placeholder `{modul}`"),
            (&["{module"][..], "without `}`"),
            (&["{workspace}/{module}"][..], "needs the environment variable TF_WORKSPACE"),
            (&["infra=a", "infra=b", "dns=c"][..], "`infra` is given two keys"),
            (&["{module}/../x"][..], "must not contain `.` or `..`"),
        ] {
            let problems = Layout::from_templates(lines, &two, NAMES).unwrap_err().join("; ");
            assert!(problems.contains(part), "{lines:?}: {problems}");
        }
    }
}
