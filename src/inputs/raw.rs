//! The inputs as the runner hands them over: texts, unchecked.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::Deserialize;

use super::{Problem, Secret};
use crate::names::printable;

/// Every input of this version, as the text that was given; an empty one is `None`.
///
/// The runner sets `INPUT_` and the upper-case name; spaces become `_`, hyphens stay.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RawInputs {
    pub(super) mode: Option<String>,
    pub(super) kms_key_id: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) modules: Option<String>,
    pub(super) bucket: Option<String>,
    pub(super) bucket_owner: Option<String>,
    pub(super) region: Option<String>,
    pub(super) state_keys: Option<String>,
    pub(super) working_directory: Option<String>,
    pub(super) require_state: Option<String>,
    pub(super) backend_format: Option<String>,
    pub(super) lock: Option<String>,
    pub(super) lock_timeout: Option<String>,
    pub(super) strategy: Option<String>,
    pub(super) probe: Option<String>,
    pub(super) probe_role_arn: Option<String>,
    pub(super) must_read: Option<String>,
    pub(super) deploy_principals: Option<String>,
    pub(super) acl: Option<String>,
    pub(super) history: Option<String>,
    pub(super) in_flight: Option<String>,
    pub(super) in_flight_branch: Option<String>,
    pub(super) in_flight_timeout: Option<String>,
    pub(super) allow_downgrade: Option<String>,
    pub(super) require_encryption: Option<String>,
    pub(super) on_existing: Option<String>,
    pub(super) discard_extras: Option<String>,
    pub(super) encrypt: Option<String>,
    pub(super) summary: Option<String>,
    pub(super) report_path: Option<String>,
    pub(super) github_token: Option<Secret>,
    pub(super) check_run: Option<String>,
    pub(super) time_limit: Option<String>,
    pub(super) target_key: Option<String>,
    pub(super) alias: Option<String>,
    pub(super) rotation_days: Option<String>,
    pub(super) deletion_days: Option<String>,
    pub(super) confirm: Option<String>,
    pub(super) set_variable: Option<String>,
    pub(super) abandon_versions: Option<String>,
    pub(super) key_policy: Option<String>,
}

/// The names of [`RawInputs`], as action.yml spells them.
pub const KNOWN: [&str; 41] = [
    "mode",
    "kms-key-id",
    "environment",
    "modules",
    "bucket",
    "bucket-owner",
    "region",
    "state-keys",
    "working-directory",
    "require-state",
    "backend-format",
    "lock",
    "lock-timeout",
    "strategy",
    "probe",
    "probe-role-arn",
    "must-read",
    "deploy-principals",
    "acl",
    "history",
    "in-flight",
    "in-flight-branch",
    "in-flight-timeout",
    "allow-downgrade",
    "require-encryption",
    "on-existing",
    "discard-extras",
    "encrypt",
    "summary",
    "report-path",
    "github-token",
    "check-run",
    "time-limit",
    "target-key",
    "alias",
    "rotation-days",
    "deletion-days",
    "confirm",
    "set-variable",
    "abandon-versions",
    "key-policy",
];

/// The process environment, read once.
#[derive(Default, Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    unreadable: Vec<String>,
}

// A derived Debug would print credentials.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// Takes the variables of this process. One that is not UTF-8 is remembered by
    /// name and reported, instead of a panic at its first use.
    pub fn of_process() -> Self {
        Self::from_os(std::env::vars_os())
    }

    pub(crate) fn from_os(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut this = Self::default();
        for (name, value) in variables {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => {
                    this.variables.insert(name, value);
                }
                (Ok(name), Err(_)) => this.unreadable.push(name),
                (Err(_), _) => {}
            }
        }
        this
    }

    /// The variable's value; an empty or blank one counts as not given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).map(str::trim).filter(|v| !v.is_empty())
    }

    /// The inputs, with warnings for names that nobody knows.
    ///
    /// # Errors
    /// A [`Problem`] for each input that this version cannot honour or cannot read.
    pub fn inputs(&self) -> (RawInputs, Vec<String>, Vec<Problem>) {
        let mut warnings = Vec::new();
        let mut problems = Vec::new();
        let mut given: Vec<(String, String)> = Vec::new();
        for name in self.unreadable.iter().filter(|name| concerns_us(name)) {
            problems.push(Problem::new(name, "its value is not UTF-8 text"));
        }
        for variable in self.variables.keys() {
            let Some(value) = self.get(variable) else { continue };
            let Some(name) = variable.strip_prefix("INPUT_").map(str::to_lowercase) else {
                continue;
            };
            if KNOWN.contains(&name.as_str()) {
                given.push((variable.clone(), value.to_owned()));
            } else {
                warnings.push(unknown(&name));
            }
        }
        let raw = match envy::prefixed("INPUT_").from_iter(given) {
            Ok(raw) => raw,
            // Every field is an optional text, so there is nothing left to go wrong;
            // envy's own message would repeat the value.
            Err(_) => {
                problems.push(Problem::new("inputs", "could not be read from the environment"));
                RawInputs::default()
            }
        };
        (raw, warnings, problems)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self::from_os(variables.map(|(name, value)| (name.into(), value.into())))
    }
}

fn concerns_us(name: &str) -> bool {
    ["INPUT_", "TF_", "AWS_", "GITHUB_"].iter().any(|prefix| name.starts_with(prefix))
        || name == "STATE_KMS_KEY_ID"
}

fn unknown(name: &str) -> String {
    let nearest = KNOWN
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3));
    let hint = nearest.map(|(_, known)| format!("; did you mean `{known}`?")).unwrap_or_default();
    format!("input `{}` is unknown and has no effect{hint}", printable(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn hyphens_stay_and_empty_is_not_given() {
        let environment =
            Environment::from([("INPUT_KMS-KEY-ID", " x "), ("INPUT_MODE", ""), ("OTHER", "y")]);
        let (raw, warnings, problems) = environment.inputs();
        assert_eq!(raw.kms_key_id.as_deref(), Some("x"));
        assert_eq!(raw.mode, None);
        assert!(warnings.is_empty() && problems.is_empty());
    }

    #[test]
    fn every_known_name_is_a_field() {
        for name in KNOWN {
            let variable = format!("INPUT_{}", name.to_uppercase());
            let environment = Environment::from([(variable.as_str(), "marker")]);
            let (raw, ..) = environment.inputs();
            let shown = format!("{raw:?}");
            assert!(shown.contains("marker") || raw.github_token.is_some(), "{name}");
            assert!(!(shown.contains("marker") && raw.github_token.is_some()), "{name}");
        }
    }

    #[test]
    fn unknown_names_are_warned_of_with_the_nearest() {
        let (_, warnings, _) = Environment::from([("INPUT_KMS_KEY_ID", "x")]).inputs();
        assert_eq!(
            warnings,
            ["input `kms_key_id` is unknown and has no effect; did you mean `kms-key-id`?"]
        );
        let (_, warnings, _) = Environment::from([("INPUT_COLOUR", "x")]).inputs();
        assert_eq!(warnings, ["input `colour` is unknown and has no effect"]);
    }

    #[test]
    fn values_that_are_not_text_are_named() {
        let bad = OsString::from_vec(vec![0xff]);
        let environment =
            Environment::from_os([("INPUT_BUCKET".into(), bad.clone()), ("UNRELATED".into(), bad)]);
        let (_, _, problems) = environment.inputs();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().contains("`INPUT_BUCKET` its value is not UTF-8 text"));
    }
}
