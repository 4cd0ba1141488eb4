//! Single values of inputs, each checked.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::{DEFAULT_MEMORY_MIB, Environment, Problem, Resolver, Runner};
use crate::in_flight::InFlight;
use crate::names::{self, printable};

impl Resolver<'_> {
    pub(super) fn problem(&mut self, input: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(input, message));
    }

    /// Reports `value` when it is wrong, and says whether it may be used.
    pub(super) fn check(&mut self, input: &str, value: &str, wrong: bool, problem: &str) -> bool {
        if wrong {
            self.problem(input, format!("is `{}`: it {problem}", printable(value)));
        }
        !wrong
    }

    pub(super) fn choice<T: FromStr<Err = String>>(
        &mut self,
        input: &str,
        raw: Option<String>,
        default: T,
    ) -> T {
        match raw.map(|text| text.parse()) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(message)) => {
                self.problem(input, message);
                default
            }
        }
    }

    /// YAML 1.2's booleans, as the runner's own toolkit reads them.
    pub(super) fn flag(&mut self, input: &str, raw: Option<String>, default: bool) -> bool {
        match raw.as_deref() {
            None => default,
            Some("true" | "True" | "TRUE") => true,
            Some("false" | "False" | "FALSE") => false,
            Some(other) => {
                let message = format!("is `{}`; it takes true or false", printable(other));
                self.problem(input, message);
                default
            }
        }
    }

    /// The bytes that state bodies may take; a variable and no input, since it is a matter
    /// of the runner's size.
    pub(super) fn memory(&mut self) -> u64 {
        const NAME: &str = "TFSTATE_KMS_MEMORY_MIB";
        let Some(text) = self.environment.get(NAME) else { return DEFAULT_MEMORY_MIB << 20 };
        let mebibytes = text.parse::<u64>().ok().filter(|n| (1..=1 << 20).contains(n));
        self.check(NAME, text, mebibytes.is_none(), "must be a number of MiB from 1 to 1048576");
        mebibytes.unwrap_or(DEFAULT_MEMORY_MIB) << 20
    }

    /// Refuses a time-out that [`attempt_timeout`] would pass over.
    pub(super) fn timeouts(&mut self) {
        if let Some(text) = self.environment.get(ATTEMPT_TIMEOUT) {
            let wrong = seconds_given(text).is_none();
            self.check(ATTEMPT_TIMEOUT, text, wrong, "must be a number of seconds from 1 to 600");
        }
    }

    pub(super) fn in_flight(&mut self, raw: Option<String>) -> InFlight {
        let Some(text) = raw else { return InFlight::Auto(Vec::new()) };
        let mut words: Vec<&str> = words(&text).collect();
        if words == ["none"] {
            return InFlight::None;
        }
        let auto = words.first() == Some(&"auto");
        if auto {
            words.remove(0);
        }
        if words.is_empty() && !auto {
            self.problem("in-flight", "names no file; `none` switches it off");
        }
        for file in &words {
            let named = file.strip_suffix(".yml").or(file.strip_suffix(".yaml"));
            let wrong = named.is_none_or(str::is_empty) || file.contains('/');
            let problem =
                "must be `auto`, `none` or file names of .github/workflows, such as `infra.yml`";
            self.check("in-flight", file, wrong, problem);
        }
        let files = words.into_iter().map(str::to_owned).collect();
        if auto { InFlight::Auto(files) } else { InFlight::Files(files) }
    }

    pub(super) fn seconds(&mut self, input: &str, raw: Option<String>, default: u64) -> Duration {
        const MOST: u64 = 24 * 60 * 60;
        let Some(text) = raw else { return Duration::from_secs(default) };
        let seconds = text.parse::<u64>().ok().filter(|seconds| *seconds <= MOST);
        self.check(input, &text, seconds.is_none(), "must be a number of seconds, at most 86400");
        Duration::from_secs(seconds.unwrap_or(default))
    }

    /// ARNs of roles or users, by commas, spaces or lines.
    pub(super) fn arns(&mut self, input: &str, raw: Option<String>) -> Vec<String> {
        let text = raw.unwrap_or_default();
        let mut arns: Vec<String> = Vec::new();
        for arn in words(&text) {
            let wrong = !names::is_principal_arn(arn);
            if self.check(input, arn, wrong, "is not the ARN of an IAM role or user")
                && !arns.iter().any(|known| known == arn)
            {
                arns.push(arn.to_owned());
            }
        }
        arns
    }

    /// A path that stays below the workspace.
    pub(super) fn path(&mut self, input: &str, raw: Option<String>, default: &str) -> PathBuf {
        let text = raw.unwrap_or_else(|| default.to_owned());
        let path = Path::new(&text);
        let workspace = Runner::of(self.environment).workspace;
        let relative = path.strip_prefix(&workspace).unwrap_or(path);
        let climbs = relative
            .components()
            .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir));
        if climbs || text.chars().any(char::is_control) {
            self.check(input, &text, true, "must be a path below the workspace, without `..`");
        }
        relative.components().filter(|part| *part != Component::CurDir).collect()
    }
}

const ATTEMPT_TIMEOUT: &str = "TFSTATE_KMS_ATTEMPT_TIMEOUT";

fn seconds_given(text: &str) -> Option<u64> {
    text.parse().ok().filter(|seconds| (1..=600).contains(seconds))
}

/// How long one attempt of a call to AWS may take, from the request to the end of an answer
/// without a streamed body; a matter of the network, and so a variable and no input. By
/// default 150 s: a copy of 5 GB inside S3 takes about a minute.
pub fn attempt_timeout(environment: &Environment) -> Duration {
    let given = environment.get(ATTEMPT_TIMEOUT).and_then(seconds_given);
    Duration::from_secs(given.unwrap_or(150))
}

/// The items of a list by commas, spaces or lines.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\t', '\n', '\r']).filter(|word| !word.is_empty())
}
