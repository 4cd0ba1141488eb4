//! Which objects of the bucket are an environment's states, and whose they are.
//!
//! Pure: templates and names in, object keys out.

mod template;

use std::collections::BTreeSet;
use std::fmt;

use crate::names::{module_path, object_key_problem, printable};
use template::{Line, WORKSPACES};

/// The state keys of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// One for each module, in the order of the input `modules`.
    pub modules: Vec<ModuleState>,
    /// Further single states, of no module.
    pub others: Vec<String>,
    /// Every object that one of these matches is a state, but for lock objects.
    pub patterns: Vec<Pattern>,
}

/// A Terraform root module (a stack) and the key of its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleState {
    /// The module's folder below the working directory; `.` is the working directory itself.
    pub module: String,
    /// The object key of its state, a workspace's prefix included. With `all_workspaces`, that of
    /// the workspace `default`, which need not exist.
    pub key: String,
    /// What its workspace has to do with the key; `None`: nothing.
    pub workspace: Option<Workspace>,
    /// Its states are those of all workspaces: one of [`Layout::patterns`] finds them.
    pub all_workspaces: bool,
}

/// How Terraform makes the object key of a workspace other than `default`: prefix, workspace
/// and key, joined by slashes. The workspace `default` has the key alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// The block's `workspace_key_prefix`; Terraform's own default is `env:`.
    pub prefix: String,
    /// The block's `key`.
    pub key: String,
}

impl ModuleState {
    /// What the module's backend block says as `key`. It is not the object's key where that is
    /// a workspace's: Terraform would add the prefix once more and plan from an empty state.
    pub fn backend_key(&self) -> &str {
        self.workspace.as_ref().map_or(&self.key, |workspace| &workspace.key)
    }

    /// What the block has to say as `workspace_key_prefix`, where that is not Terraform's default.
    pub fn workspace_key_prefix(&self) -> Option<&str> {
        let prefix = self.workspace.as_ref().map(|workspace| workspace.prefix.as_str());
        prefix.filter(|prefix| *prefix != WORKSPACES)
    }
}

/// Where states are that only a listing can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Everything below a prefix, which ends in a slash.
    Below(String),
    /// A stack in all its workspaces, `default` included.
    Workspaces {
        /// Its module.
        module: Option<String>,
        /// The key in its backend block.
        key: String,
    },
    /// Everything in the bucket.
    WholeBucket,
}

impl Pattern {
    /// What every object that it matches begins with, but for a default workspace's.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Below(prefix) => prefix,
            Self::Workspaces { .. } => "env:/",
            Self::WholeBucket => "",
        }
    }

    /// Whether an object is one of its states. A workspace's name has no slash (Terraform:
    /// `validWorkspaceName`).
    pub fn matches(&self, object: &str) -> bool {
        match self {
            Self::Below(prefix) => object.starts_with(prefix),
            Self::WholeBucket => true,
            Self::Workspaces { key, .. } => {
                let of_workspace = object.strip_prefix(self.prefix());
                object == key
                    || of_workspace
                        .and_then(|rest| rest.split_once('/'))
                        .is_some_and(|(workspace, rest)| !workspace.is_empty() && rest == key)
            }
        }
    }

    /// The module that its states belong to.
    pub fn module(&self) -> Option<&str> {
        match self {
            Self::Workspaces { module, .. } => module.as_deref(),
            Self::Below(_) | Self::WholeBucket => None,
        }
    }

    /// The object key of the default workspace, which no listing below the prefix names.
    pub fn default_key(&self) -> Option<&str> {
        match self {
            Self::Workspaces { key, .. } => Some(key),
            Self::Below(_) | Self::WholeBucket => None,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(prefix) => write!(f, "{prefix}*"),
            Self::Workspaces { key, .. } => write!(f, "env:/*/{key}"),
            Self::WholeBucket => f.write_str("*"),
        }
    }
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
                workspace: None,
                all_workspaces: false,
            })
            .collect();
        Self { modules, ..Self::default() }.checked()
    }

    /// Reads the input `state-keys`, one template a line.
    ///
    /// `MODULE=TEMPLATE` gives one module its key. Of the other lines, the first
    /// one with `{module}` and without `{workspace}` or `*` gives each remaining module
    /// its key; with a single module, the first line that is no prefix does. What is
    /// left names further states: a line that ends in `/*` is a prefix, `env:/*/KEY` is a
    /// stack in all its workspaces, and `*` is the whole bucket.
    ///
    /// # Errors
    /// A sentence for each thing that is wrong.
    pub fn from_templates(
        lines: &[&str],
        modules: &[String],
        names: Names<'_>,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let Sorted { explicit, mut plain, listed } = Sorted::of(lines, modules, &mut problems);
        let unassigned = modules.len() - explicit.len();
        let has_module = |line: &Line<'_>| line.template().contains("{module}");
        let is_best = |line: &Line<'_>| {
            matches!(line, Line::Single(text) if !text.contains("{workspace}")) && has_module(line)
        };
        let own = plain
            .iter()
            .position(is_best)
            .or_else(|| plain.iter().position(has_module))
            .or_else(|| (unassigned == 1 && !plain.is_empty()).then_some(0));
        let own = (unassigned > 0).then_some(own).flatten().map(|at| plain.remove(at));

        let mut layout = Self::default();
        let mut without = Vec::new();
        for module in modules {
            let line = explicit.iter().find(|(m, _)| *m == module).map(|(_, line)| *line).or(own);
            match line.map(|line| layout.add_module(module, line, names)) {
                Some(added) => problems.extend(added.err()),
                None => without.push(format!("module `{module}`")),
            }
        }
        for line in plain.iter().chain(&listed) {
            let each: Vec<Option<&str>> = match has_module(line) {
                true => modules.iter().map(|module| Some(module.as_str())).collect(),
                false => vec![None],
            };
            for module in each {
                problems.extend(layout.add_further(*line, module, names).err());
            }
        }
        if !without.is_empty() && listed.is_empty() {
            problems.push(format!(
                "no line gives {} a key: use `{{module}}` in a line, or `MODULE=KEY`",
                without.join(", ")
            ));
        }
        if problems.is_empty() { layout.checked() } else { Err(problems) }
    }

    fn add_module(&mut self, module: &str, line: Line<'_>, names: Names<'_>) -> Result<(), String> {
        let all_workspaces = matches!(line, Line::Workspaces(_));
        let placed = template::of_module(line.template(), module, names)?;
        if all_workspaces {
            if placed.workspace.is_some() {
                let template = printable(line.template());
                return Err(format!("`env:/*/{template}` names a workspace twice"));
            }
            let (module, key) = (Some(module.to_owned()), placed.object.clone());
            self.patterns.push(Pattern::Workspaces { module, key });
        }
        self.modules.push(ModuleState {
            module: module.to_owned(),
            key: placed.object,
            workspace: placed.workspace,
            all_workspaces,
        });
        Ok(())
    }

    fn add_further(
        &mut self,
        line: Line<'_>,
        module: Option<&str>,
        names: Names<'_>,
    ) -> Result<(), String> {
        match line {
            Line::Single(template) => self.others.push(template::of_none(template, module, names)?),
            Line::Below(template) => {
                let prefix = template::prefix(template, module, names)?;
                self.patterns.push(Pattern::Below(format!("{prefix}/")));
            }
            Line::Workspaces(template) => {
                let key = template::expand(template, module, names)?;
                let module = module.map(str::to_owned);
                self.patterns.push(Pattern::Workspaces { module, key });
            }
            Line::WholeBucket => self.patterns.push(Pattern::WholeBucket),
        }
        Ok(())
    }

    /// Drops repetitions and refuses what would make two modules share a state.
    fn checked(mut self) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        if self.modules.is_empty() && self.others.is_empty() && self.patterns.is_empty() {
            problems.push("`modules` and `state-keys` together name no state".to_owned());
        }
        let place = |state: &ModuleState| {
            (state.workspace_key_prefix().map(str::to_owned), state.backend_key().to_owned())
        };
        for (at, state) in self.modules.iter().enumerate() {
            let twin = self.modules[..at].iter().find(|other| place(other) == place(state));
            if let Some(twin) = twin {
                problems.push(format!(
                    "modules `{}` and `{}` would share the state `{}`; give each its own key with \
                     `state-keys`, or name only one of them in `modules`",
                    twin.module,
                    state.module,
                    printable(state.backend_key())
                ));
            }
        }
        let modules = self.modules.iter().map(|state| state.key.as_str());
        let patterns = self.patterns.iter().filter_map(|pattern| match pattern {
            Pattern::Below(prefix) => Some(prefix.strip_suffix('/').unwrap_or(prefix)),
            Pattern::Workspaces { key, .. } => Some(key.as_str()),
            Pattern::WholeBucket => None,
        });
        for key in modules.chain(self.others.iter().map(String::as_str)).chain(patterns) {
            if let Some(problem) = object_key_problem(key) {
                let problem = format!("key `{}`: {problem}", printable(key));
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        let mut seen: BTreeSet<String> = self.modules.iter().map(|s| s.key.clone()).collect();
        self.others.retain(|key| seen.insert(key.clone()));
        if problems.is_empty() { Ok(self) } else { Err(problems) }
    }

    /// The single keys, each with its module.
    pub fn keys(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        let named = self.modules.iter().filter(|state| !state.all_workspaces);
        let modules = named.map(|s| (Some(s.module.as_str()), s.key.as_str()));
        modules.chain(self.others.iter().map(|key| (None, key.as_str())))
    }

    /// The states as a policy names them: single keys, and prefixes that end in a slash. The
    /// whole bucket is the empty prefix.
    pub fn for_policies(&self) -> Vec<String> {
        let mut all: Vec<String> = self.keys().map(|(_, key)| key.to_owned()).collect();
        for pattern in &self.patterns {
            all.push(pattern.prefix().to_owned());
            all.extend(pattern.default_key().map(str::to_owned));
        }
        let mut seen = BTreeSet::new();
        all.retain(|key| seen.insert(key.clone()));
        all
    }
}

/// The lines by what they are for.
#[derive(Default)]
struct Sorted<'a> {
    /// `MODULE=TEMPLATE`
    explicit: Vec<(&'a String, Line<'a>)>,
    /// Lines that may give modules their keys.
    plain: Vec<Line<'a>>,
    /// Prefixes and the whole bucket.
    listed: Vec<Line<'a>>,
}

impl<'a> Sorted<'a> {
    fn of(lines: &[&'a str], modules: &'a [String], problems: &mut Vec<String>) -> Self {
        let mut sorted = Self::default();
        for &line in lines {
            let assigned = line.split_once('=').and_then(|(name, template)| {
                let name = module_path(name.trim()).ok()?;
                modules.iter().find(|module| **module == name).map(|m| (m, template.trim()))
            });
            match Line::read(assigned.map_or(line, |(_, template)| template)) {
                Ok(read) => problems.extend(sorted.add(assigned.map(|(m, _)| m), read, line).err()),
                Err(problem) => problems.push(problem),
            }
        }
        sorted
    }

    fn add(
        &mut self,
        module: Option<&'a String>,
        read: Line<'a>,
        line: &str,
    ) -> Result<(), String> {
        let listed = matches!(read, Line::Below(_) | Line::WholeBucket);
        match module {
            Some(module) if self.explicit.iter().any(|(known, _)| *known == module) => {
                return Err(format!("module `{module}` is given two keys"));
            }
            Some(module) if listed => {
                return Err(format!(
                    "`{}` gives module `{module}` no key of its own: write `{module}=KEY`, or \
                     `{module}=env:/*/KEY` for all its workspaces; a prefix goes on a line without a module",
                    printable(line)
                ));
            }
            Some(module) => self.explicit.push((module, read)),
            None if listed => self.listed.push(read),
            None => self.plain.push(read),
        }
        Ok(())
    }
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
        assert_eq!(layout.patterns, [Pattern::Below("env:/production/".to_owned())]);
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
            (&["{environment}//{module}"][..], "`//`"),
            (&["infra=env:/*", "dns=x"][..], "gives module `infra` no key of its own"),
            (&["infra=*", "dns=x"][..], "gives module `infra` no key of its own"),
            (&["infra=x", "dns=env:/blue/x"][..], "would share the state `x`"),
            (&["infra=x", "dns=env:/*/x"][..], "would share the state `x`"),
            (&["infra=env:/*/env:/a/x", "dns=x"][..], "names a workspace twice"),
        ] {
            let problems = Layout::from_templates(lines, &two, NAMES).unwrap_err().join("; ");
            assert!(problems.contains(part), "{lines:?}: {problems}");
        }
    }

    #[test]
    fn a_workspaces_prefix_never_reaches_the_backend_key() {
        let names = Names { environment: "production", workspace: Some("blue") };
        let lines = ["infra=env:/{workspace}/{environment}/infra", "dns=env:/green/dns"];
        let layout = Layout::from_templates(&lines, &modules(&["infra", "dns"]), names).unwrap();
        let [infra, dns] = &layout.modules[..] else { panic!("{layout:?}") };
        assert_eq!(infra.key, "env:/blue/production/infra");
        assert_eq!((infra.backend_key(), infra.workspace_key_prefix()), ("production/infra", None));
        assert_eq!((dns.key.as_str(), dns.backend_key()), ("env:/green/dns", "dns"));
        let other = Layout::from_templates(&["w/{workspace}/{module}"], &modules(&["a"]), names);
        let state = &other.unwrap().modules[0];
        assert_eq!((state.backend_key(), state.workspace_key_prefix()), ("a", Some("w")));
    }

    #[test]
    fn a_stack_in_all_its_workspaces_is_a_pattern() {
        let two = modules(&["infra", "dns"]);
        let layout = Layout::from_templates(&["env:/*/s/{module}", "*"], &two, NAMES).unwrap();
        assert_eq!(layout.keys().count(), 0);
        assert_eq!(layout.modules[1].backend_key(), "s/dns");
        let shown: Vec<String> = layout.patterns.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["env:/*/s/infra", "env:/*/s/dns", "*"]);
        assert_eq!(layout.for_policies(), ["env:/", "s/infra", "s/dns", ""]);
        let of_dns = &layout.patterns[1];
        assert_eq!(of_dns.module(), Some("dns"));
        for (object, is) in [
            ("s/dns", true),
            ("env:/blue/s/dns", true),
            ("env:/blue/s/infra", false),
            ("env:/blue/more/s/dns", false),
            ("env:/s/dns", false),
            ("env://s/dns", false),
            ("other/s/dns", false),
        ] {
            assert_eq!(of_dns.matches(object), is, "{object}");
        }
    }

    #[test]
    fn modules_are_paths_and_one_may_have_no_name() {
        let two = modules(&["network/vpc", "."]);
        let layout = Layout::from_templates(&["./network/vpc=vpc", ".=root"], &two, NAMES);
        assert_eq!(keys(&layout.unwrap()), [(Some("network/vpc"), "vpc"), (Some("."), "root")]);
        let layout = Layout::from_templates(&["{module}", ".=root"], &two, NAMES).unwrap();
        assert_eq!(keys(&layout)[0].1, "network/vpc");
        let problems = Layout::from_templates(&["{module}"], &two, NAMES).unwrap_err();
        assert!(problems[0].contains("write `.=KEY`"), "{problems:?}");
    }
}
