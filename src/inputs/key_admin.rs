//! The inputs of the key modes.

use super::{Mode, RawInputs, Resolver};
use crate::names::{KeyArn, printable};

/// What the key modes are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyAdmin {
    /// The key that `retire-key`, `recover-key` and `revoke` act on.
    pub target: Option<KeyArn>,
    /// The key's alias, with `alias/`.
    pub alias: String,
    /// Days between rotations; `None`: as KMS has it (365).
    pub rotation_days: Option<i32>,
    /// Days until a scheduled deletion is carried out.
    pub deletion_days: i32,
    /// What may be written.
    pub confirm: Vec<String>,
    /// The GitHub environment whose variable STATE_KMS_KEY_ID is to be set.
    pub set_variable: Option<String>,
    /// So many old versions may become unreadable for good.
    pub abandon_versions: Option<usize>,
    /// The key policy's statements allow the use through S3 and for the states only.
    pub hardened: bool,
}

/// Words that `confirm` takes in mode `create-key`.
pub const CREATE_WORDS: [&str; 3] = ["create", "policy", "variable"];

/// KMS: the bounds of a rotation period and of a deletion's waiting time, in days.
const ROTATION: std::ops::RangeInclusive<i32> = 90..=2560;
const DELETION: std::ops::RangeInclusive<i32> = 7..=30;

impl KeyAdmin {
    /// Whether `confirm` has the word.
    pub fn confirms(&self, word: &str) -> bool {
        self.confirm.iter().any(|given| given == word)
    }

    /// Whether `confirm` names the target key, by its id or its ARN.
    pub fn confirms_target(&self) -> bool {
        self.target
            .as_ref()
            .is_some_and(|key| self.confirms(key.id()) || self.confirms(key.as_str()))
    }
}

impl Resolver<'_> {
    pub(super) fn key_admin(
        &mut self,
        raw: &RawInputs,
        mode: Mode,
        environment: &str,
        variable: Option<&KeyArn>,
    ) -> KeyAdmin {
        let create = mode == Mode::CreateKey;
        let acts = mode.is_about_a_key() && !create;
        for (input, given, used) in [
            ("target-key", raw.target_key.is_some(), acts),
            ("alias", raw.alias.is_some(), create),
            ("rotation-days", raw.rotation_days.is_some(), create),
            ("set-variable", raw.set_variable.is_some(), create),
            ("key-policy", raw.key_policy.is_some(), create),
            ("deletion-days", raw.deletion_days.is_some(), mode == Mode::RetireKey),
            ("abandon-versions", raw.abandon_versions.is_some(), mode == Mode::RetireKey),
            ("confirm", raw.confirm.is_some(), mode.is_about_a_key()),
        ] {
            if given && !used {
                let message = format!("has no meaning in mode `{}`; remove it", mode.as_str());
                self.problem(input, message);
            }
        }
        if matches!(mode, Mode::CreateKey | Mode::Revoke) && raw.deploy_principals.is_none() {
            let whom = if create { "who use the key" } else { "to be taken out of the key policy" };
            self.problem(
                "deploy-principals",
                format!("is required: the ARNs of the principals {whom}"),
            );
        }
        if !mode.is_about_a_key() {
            return KeyAdmin::default();
        }
        let target = raw.target_key.as_deref().and_then(|text| match KeyArn::parse(text) {
            Ok(arn) => Some(arn),
            Err(error) => {
                self.problem("target-key", error.to_string());
                None
            }
        });
        if acts && raw.target_key.is_none() {
            let message = "is required: the ARN of the key that this mode acts on. It is never taken from \
                           STATE_KMS_KEY_ID";
            self.problem("target-key", message);
        }
        if mode == Mode::RetireKey && target.is_some() && target.as_ref() == variable {
            let message = "is the key that STATE_KMS_KEY_ID names, so states are to be under it: set the \
                           variable to another key, or clear it, and run `apply` or `rollback` first";
            self.problem("target-key", message);
        }
        let alias =
            raw.alias.clone().unwrap_or_else(|| format!("alias/cabal-tf-state-{environment}"));
        let good = |c: char| c.is_ascii_alphanumeric() || "/_-".contains(c);
        let name = alias.strip_prefix("alias/").unwrap_or_default();
        let wrong = name.is_empty()
            || !name.chars().all(good)
            || name.starts_with("aws/")
            || alias.len() > 256;
        if create {
            let problem = "must be `alias/` and letters, digits, `/`, `_` or `-`, and not begin with `alias/aws/`";
            self.check("alias", &alias, wrong, problem);
        }
        let confirm: Vec<String> =
            super::words(raw.confirm.as_deref().unwrap_or_default()).map(str::to_owned).collect();
        let allowed = |word: &str| match &target {
            _ if create => CREATE_WORDS.contains(&word),
            Some(key) => word == key.id() || word == key.as_str(),
            // Without a target the problem is named already.
            None => true,
        };
        if let Some(word) = confirm.iter().find(|word| !allowed(word)) {
            let takes = match &target {
                Some(key) => format!("the id of `target-key`, {}", key.id()),
                None => super::list(&CREATE_WORDS),
            };
            self.problem("confirm", format!("is `{}`; it takes {takes}", printable(word)));
        }
        KeyAdmin {
            target,
            alias,
            rotation_days: raw
                .rotation_days
                .as_deref()
                .and_then(|text| self.days("rotation-days", text, ROTATION)),
            deletion_days: raw
                .deletion_days
                .as_deref()
                .and_then(|text| self.days("deletion-days", text, DELETION))
                .unwrap_or(*DELETION.end()),
            confirm,
            set_variable: raw.set_variable.clone().filter(|name| {
                let wrong = name.chars().any(char::is_control) || name.len() > 255;
                self.check("set-variable", name, wrong, "must be the name of a GitHub environment")
            }),
            abandon_versions: raw.abandon_versions.as_deref().and_then(|text| {
                let count = text.parse::<usize>().ok();
                self.check(
                    "abandon-versions",
                    text,
                    count.is_none(),
                    "must be a number of versions",
                );
                count
            }),
            hardened: match raw.key_policy.as_deref() {
                None | Some("runbook") => false,
                Some("hardened") => true,
                Some(other) => {
                    let message =
                        format!("is `{}`; it takes `runbook` or `hardened`", printable(other));
                    self.problem("key-policy", message);
                    false
                }
            },
        }
    }

    fn days(
        &mut self,
        input: &str,
        text: &str,
        range: std::ops::RangeInclusive<i32>,
    ) -> Option<i32> {
        let days = text.parse::<i32>().ok().filter(|days| range.contains(days));
        let problem = format!("must be a number of days from {} to {}", range.start(), range.end());
        self.check(input, text, days.is_none(), &problem);
        days
    }
}
