//! From the runner's texts to a checked [`Request`].
//!
//! Raw and resolved are two types. Resolving makes no network call, reads no file,
//! and reports every problem at once.

mod key_admin;
mod options;
mod raw;
mod secret;
mod values;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use key_admin::{CREATE_WORDS, KeyAdmin};
use options::list;
pub use options::{FileFormat, History, Lock, Mode, OnExisting, Probe, Strategy};
pub use raw::{Environment, KNOWN, RawInputs};
pub use secret::Secret;
pub use values::attempt_timeout;
use values::words;

use crate::in_flight::InFlight;
use crate::layout::{Layout, Names};
use crate::names::{self, KeyArn, KeyArnError, printable};

/// Something wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The input, or the variable that it was taken from.
    pub input: String,
    /// What is wrong and what to give instead.
    pub message: String,
}

impl Problem {
    /// A problem with the input of that name.
    pub fn new(input: &str, message: impl Into<String>) -> Self {
        Self { input: printable(input), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.input, self.message)
    }
}

/// The canned ACLs of S3 that Terraform's backend and a copy take.
const CANNED_ACLS: [&str; 7] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
];

/// Where the runner wants things.
#[derive(Debug, Clone, Default)]
pub struct Runner {
    /// The checkout; every path that is handed on is relative to it.
    pub workspace: PathBuf,
    /// `GITHUB_OUTPUT`
    pub output: Option<PathBuf>,
    /// `GITHUB_STEP_SUMMARY`
    pub summary: Option<PathBuf>,
}

impl Runner {
    /// As the runner's variables say; the current folder is the workspace otherwise.
    pub fn of(environment: &Environment) -> Self {
        let path = |name| environment.get(name).map(PathBuf::from);
        Self {
            workspace: path("GITHUB_WORKSPACE").unwrap_or_else(|| PathBuf::from(".")),
            output: path("GITHUB_OUTPUT"),
            summary: path("GITHUB_STEP_SUMMARY"),
        }
    }
}

/// A region, and how far it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenRegion {
    /// Its name.
    pub name: String,
    /// By the input or TF_VAR_AWS_REGION: another one is an error. A region of AWS_REGION or
    /// AWS_DEFAULT_REGION may be any tool's, and yields to the bucket's.
    pub asked_for: bool,
}

/// A checked request: every name in it is well formed.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to do.
    pub mode: Mode,
    /// The key that everything is to be under; `None`: SSE-S3, as before.
    pub key: Option<KeyArn>,
    /// The environment's name in the state keys.
    pub environment: String,
    /// The states.
    pub layout: Layout,
    /// The state bucket.
    pub bucket: String,
    /// The account that must own the bucket.
    pub bucket_owner: Option<String>,
    /// The region, where one is given.
    pub region: Option<GivenRegion>,
    /// Holds `<module>/backend.tf`; relative to the workspace.
    pub working_directory: PathBuf,
    /// A missing state is an error.
    pub require_state: bool,
    /// The kind of backend file.
    pub file_format: FileFormat,
    /// How Terraform locks.
    pub lock: Lock,
    /// How long to wait for the holder of a lock.
    pub lock_timeout: Duration,
    /// How objects are re-keyed.
    pub strategy: Strategy,
    /// How the gate is tried.
    pub probe: Probe,
    /// The role for it.
    pub probe_role: Option<String>,
    /// Roles that must be able to read the states.
    pub must_read: Vec<String>,
    /// The deploy principals' ARNs, paths included.
    pub deploy_principals: Vec<String>,
    /// What to do about old versions.
    pub history: History,
    /// The canned ACL of every write.
    pub acl: Option<String>,
    /// An empty variable over an encrypted object is no error.
    pub allow_downgrade: bool,
    /// An empty variable is an error.
    pub require_encryption: bool,
    /// What to do with a differing backend file.
    pub on_existing: OnExisting,
    /// A file may be replaced though that drops content of it.
    pub discard_extras: bool,
    /// Backend blocks are to say `encrypt = true` also without a key.
    pub encrypt: bool,
    /// Whether to write the job summary.
    pub summary: bool,
    /// Where the report goes; relative to the workspace.
    pub report_path: PathBuf,
    /// Bytes that state bodies may take in memory, all together.
    pub memory: u64,
    /// For the key modes.
    pub key_admin: KeyAdmin,
    /// Whose runs must not be under way at a write.
    pub in_flight: InFlight,
    /// Only on this branch; `None` and `*` are any.
    pub in_flight_branch: Option<String>,
    /// How long to wait for them.
    pub in_flight_timeout: Duration,
    /// How long the whole run may take.
    pub time_limit: Duration,
    /// For GitHub's REST API.
    pub github_token: Option<Secret>,
    /// Also post a check run.
    pub check_run: bool,
}

impl Request {
    /// The folder of a module, relative to the workspace.
    pub fn module_folder(&self, module: &str) -> PathBuf {
        match module {
            "." => self.working_directory.clone(),
            module => self.working_directory.join(module),
        }
    }
}

/// What resolving the inputs came to.
#[derive(Debug)]
pub struct Refused {
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// The mode, where that much is known.
    pub mode: Option<Mode>,
    /// An alias or a bare id that was given as the key: KMS may know what it stands for.
    pub key_to_look_up: Option<String>,
}

/// Where a path for the report can be told before the rest is known to be right.
pub const DEFAULT_REPORT: &str = "tfstate-kms-report.json";

/// Memory for state bodies where `TFSTATE_KMS_MEMORY_MIB` does not say otherwise.
const DEFAULT_MEMORY_MIB: u64 = 256;

/// Resolves the inputs and their fallbacks; also returns the warnings.
///
/// # Errors
/// [`Refused`], with all problems of the run.
pub fn resolve(environment: &Environment) -> (Result<Request, Refused>, Vec<String>) {
    let (raw, warnings, problems) = environment.inputs();
    let resolver = Resolver { environment, problems, key_to_look_up: None };
    let unused = resolver.unused_workspace(raw.state_keys.as_deref());
    (resolver.request(raw), warnings.into_iter().chain(unused).collect())
}

struct Resolver<'a> {
    environment: &'a Environment,
    problems: Vec<Problem>,
    key_to_look_up: Option<String>,
}

impl Resolver<'_> {
    fn request(mut self, raw: RawInputs) -> Result<Request, Refused> {
        let mode = self.choice("mode", raw.mode.clone(), Mode::Apply);
        let known_mode =
            self.problems.iter().all(|problem| problem.input != "mode").then_some(mode);
        let key = self.key(raw.kms_key_id.clone(), mode);
        if mode == Mode::Rollback && key.is_some() {
            self.problem(
                "mode",
                "is `rollback`, but STATE_KMS_KEY_ID (or `kms-key-id`) still names a key: the next \
                 apply would put the states under it again. Clear the variable first",
            );
        }
        let environment = self.environment_name(raw.environment.clone());
        let key_admin = self.key_admin(&raw, mode, &environment, key.as_ref());
        let modules = self.modules(raw.modules);
        let layout = self.layout(raw.state_keys.as_deref(), &modules, &environment);
        let bucket = self.bucket(raw.bucket);
        let bucket_owner = raw
            .bucket_owner
            .filter(|owner| {
                self.check(
                    "bucket-owner",
                    owner,
                    !names::is_account(owner),
                    "is not an account id of twelve digits",
                )
            })
            .or_else(|| key.as_ref().map(|key| key.account().to_owned()));
        let region = self.region(raw.region, key.as_ref().filter(|_| !mode.is_about_a_key()));
        let lock = self.choice("lock", raw.lock, Lock::Auto);
        let lock_timeout = self.seconds("lock-timeout", raw.lock_timeout, 60);
        let probe = self.choice("probe", raw.probe, Probe::Auto);
        let mut probe_roles = self.arns("probe-role-arn", raw.probe_role_arn);
        match (probe, probe_roles.len()) {
            (Probe::Role, 0) => self.problem("probe-role-arn", "is required with `probe: role`"),
            (_, 2..) => self.problem("probe-role-arn", "takes one ARN"),
            // It would be left out in silence. `off` only switches it off.
            (Probe::WebIdentity | Probe::Federation, 1) => {
                self.problem("probe-role-arn", "goes with `probe: auto` and `probe: role` only");
            }
            _ => {}
        }
        let probe_role = probe_roles.pop();
        self.timeouts();
        let in_flight = self.in_flight(raw.in_flight);
        let in_flight_branch = raw.in_flight_branch.filter(|branch| {
            // GitHub's runs name the branch alone; `refs/heads/main` would match nobody.
            let odd = |c: char| c.is_control() || c.is_whitespace();
            let wrong = branch.starts_with("refs/") || branch.chars().any(odd);
            let problem = "must be the name of a branch, without `refs/heads/`, or `*`";
            self.check("in-flight-branch", branch, wrong, problem)
        });
        let in_flight_timeout = self.seconds("in-flight-timeout", raw.in_flight_timeout, 0);
        // An hour, and what the run is told to wait.
        let patience = Duration::from_secs(3600) + in_flight_timeout + lock_timeout;
        let time_limit = self.seconds("time-limit", raw.time_limit, patience.as_secs());
        if time_limit.is_zero() {
            self.problem("time-limit", "must be at least one second");
        }
        let acl = raw.acl.filter(|acl| {
            let problem = format!("is not a canned ACL of S3; it takes {}", list(&CANNED_ACLS));
            self.check("acl", acl, !CANNED_ACLS.contains(&acl.as_str()), &problem)
        });
        let request = Request {
            mode,
            key,
            environment,
            layout,
            bucket,
            bucket_owner,
            region,
            working_directory: self.path("working-directory", raw.working_directory, "terraform"),
            require_state: self.flag("require-state", raw.require_state, false),
            file_format: self.choice("backend-format", raw.backend_format, FileFormat::Tf),
            lock,
            lock_timeout,
            strategy: self.choice("strategy", raw.strategy, Strategy::Auto),
            probe,
            probe_role,
            must_read: self.arns("must-read", raw.must_read),
            deploy_principals: self.arns("deploy-principals", raw.deploy_principals),
            history: self.choice("history", raw.history, History::Report),
            acl,
            allow_downgrade: self.flag("allow-downgrade", raw.allow_downgrade, false),
            require_encryption: self.flag("require-encryption", raw.require_encryption, false),
            on_existing: self.choice("on-existing", raw.on_existing, OnExisting::Edit),
            discard_extras: self.flag("discard-extras", raw.discard_extras, false),
            encrypt: self.flag("encrypt", raw.encrypt, false),
            summary: self.flag("summary", raw.summary, true),
            report_path: self.path("report-path", raw.report_path, DEFAULT_REPORT),
            memory: self.memory(),
            key_admin,
            in_flight,
            in_flight_branch,
            in_flight_timeout,
            time_limit,
            github_token: raw.github_token.filter(|token| !token.is_empty()),
            check_run: self.flag("check-run", raw.check_run, false),
        };
        if request.mode == Mode::Backend && request.file_format == FileFormat::None {
            self.problem(
                "backend-format",
                "is `none`, which leaves mode `backend` nothing to write",
            );
        }
        if self.problems.is_empty() {
            Ok(request)
        } else {
            let Self { problems, key_to_look_up, .. } = self;
            Err(Refused { problems, mode: known_mode, key_to_look_up })
        }
    }

    fn key(&mut self, input: Option<String>, mode: Mode) -> Option<KeyArn> {
        let variable = self.environment.get("STATE_KMS_KEY_ID").map(str::to_owned);
        if let (Some(input), Some(variable)) = (&input, &variable)
            && input != variable
        {
            let message = format!(
                "is `{}`, but STATE_KMS_KEY_ID is `{}`; give one of them, or both alike",
                printable(input),
                printable(variable)
            );
            self.problem("kms-key-id", message);
        }
        match KeyArn::parse(&input.or(variable)?) {
            Ok(arn) => Some(arn),
            Err(error) => {
                // Mode `backend` works without a network.
                if let KeyArnError::Alias(text) | KeyArnError::BareId(text) = &error
                    && mode != Mode::Backend
                {
                    self.key_to_look_up = Some(text.clone());
                }
                self.problem("kms-key-id", error.to_string());
                None
            }
        }
    }

    fn environment_name(&mut self, input: Option<String>) -> String {
        let [short, long] =
            ["TF_ENVIRONMENT", "TF_VAR_ENVIRONMENT"].map(|name| self.environment.get(name));
        let name = match (input, short, long) {
            // Whoever names it in the step has settled what the variables leave open.
            (Some(name), ..) => name,
            (None, Some(short), Some(long)) if short != long => {
                let message = format!(
                    "is not given, and TF_ENVIRONMENT (`{}`) and TF_VAR_ENVIRONMENT (`{}`) differ; \
                     give `environment`",
                    printable(short),
                    printable(long)
                );
                self.problem("environment", message);
                return String::new();
            }
            (None, Some(name), _) | (None, None, Some(name)) => name.to_owned(),
            (None, None, None) => {
                self.problem(
                    "environment",
                    "is required: the input, TF_ENVIRONMENT or TF_VAR_ENVIRONMENT. Variables do \
                     not reach an action by themselves: pass it by `with:`",
                );
                return String::new();
            }
        };
        if let Some(problem) = names::component_problem(&name) {
            self.check("environment", &name, true, &problem.replacen("it ", "", 1));
        }
        name
    }

    fn modules(&mut self, input: Option<String>) -> Vec<String> {
        let text = input
            .or_else(|| self.environment.get("TF_MODULE").map(str::to_owned))
            .unwrap_or_else(|| "infra dns".to_owned());
        let mut modules: Vec<(&str, String)> = Vec::new();
        for name in words(&text) {
            match names::module_path(name) {
                Err(problem) => {
                    self.check("modules", name, true, &problem.replacen("it ", "", 1));
                }
                Ok(_) if modules.iter().any(|(known, _)| *known == name) => {}
                Ok(path) => {
                    if let Some((twin, _)) = modules.iter().find(|(_, known)| *known == path) {
                        self.problem(
                            "modules",
                            format!("names one folder twice, as `{twin}` and as `{name}`"),
                        );
                    }
                    modules.push((name, path));
                }
            }
        }
        modules.into_iter().map(|(_, path)| path).collect()
    }

    fn layout(&mut self, templates: Option<&str>, modules: &[String], environment: &str) -> Layout {
        let names = Names { environment, workspace: self.environment.get("TF_WORKSPACE") };
        let bad_workspace = names.workspace.and_then(names::component_problem);
        if let Some(problem) = bad_workspace
            && templates.is_some_and(|t| t.contains("{workspace}"))
        {
            self.problem("TF_WORKSPACE", format!("cannot be used in a state key: {problem}"));
        }
        // A nameless environment was reported already; its keys would only repeat that.
        let nameless = environment.is_empty();
        let result = match templates {
            None => Layout::cabal(modules, environment),
            Some(text) => {
                let lines: Vec<&str> =
                    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                Layout::from_templates(&lines, modules, names)
            }
        };
        result.unwrap_or_else(|problems| {
            for problem in problems.into_iter().filter(|_| !nameless) {
                self.problem("state-keys", format!("cannot be used: {problem}"));
            }
            Layout::default()
        })
    }

    /// With TF_WORKSPACE, Terraform's state is not at the plain key.
    fn unused_workspace(&self, templates: Option<&str>) -> Option<String> {
        let workspace = self.environment.get("TF_WORKSPACE").filter(|name| *name != "default")?;
        let heeded = templates.is_some_and(|t| t.contains("{workspace}") || t.contains("env:/"));
        let name = printable(workspace);
        (!heeded).then(|| {
            format!(
                "TF_WORKSPACE is `{name}`, so Terraform keeps the states at env:/{name}/KEY, which no line of \
                 `state-keys` names: write `env:/{{workspace}}/KEY`"
            )
        })
    }

    fn bucket(&mut self, input: Option<String>) -> String {
        let given = input.or_else(|| self.environment.get("TF_STATE_BUCKET").map(str::to_owned));
        let Some(bucket) = given else {
            self.problem("bucket", "is required: the input, or TF_STATE_BUCKET");
            return String::new();
        };
        if let Some(problem) = names::bucket_name_problem(&bucket) {
            self.problem("bucket", format!("is `{}`: {problem}", printable(&bucket)));
        }
        bucket
    }

    /// `key`: the key that the states are to be under. S3 takes a key of the bucket's region only.
    fn region(&mut self, input: Option<String>, key: Option<&KeyArn>) -> Option<GivenRegion> {
        let fallbacks = ["TF_VAR_AWS_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"];
        let (name, region) = match input {
            Some(region) => ("region", region),
            None => fallbacks.iter().find_map(|name| {
                self.environment.get(name).map(|value| (*name, value.to_owned()))
            })?,
        };
        if region.contains("***") {
            self.problem(
                name,
                "is `***`, which GitHub prints in the place of a secret; pass the value itself",
            );
            return None;
        }
        let asked_for = matches!(name, "region" | "TF_VAR_AWS_REGION");
        if !self.check(name, &region, !names::is_region(&region), "is not the name of a region") {
            return None;
        }
        match key.map(KeyArn::region).filter(|of_key| *of_key != region) {
            Some(of_key) if asked_for => {
                let message = format!(
                    "is `{region}`, but the key is in {of_key}: S3 takes a key of the bucket's own region only. \
                     Give the bucket's region and a key of it"
                );
                self.problem(name, message);
                None
            }
            Some(of_key) => Some(GivenRegion { name: of_key.to_owned(), asked_for }),
            None => Some(GivenRegion { name: region, asked_for }),
        }
    }
}

#[cfg(test)]
mod tests;
