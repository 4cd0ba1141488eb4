//! What a run has to say, in one structure: the JSON report is its serialisation, the
//! outputs and the summary are views of it.

mod escape;
mod summary;
mod verdict;

use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Serialize;

pub use summary::{JOB_SUMMARY, headline, markdown};
pub use verdict::Verdict;

use crate::aws::{Caller, ServerSide};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::gate::Gate;
use crate::inputs::Mode;
use crate::names::{KeyArn, some_of};
use crate::plan::Goal;

/// The version of the report's schema, `docs/report.schema.json`.
pub const SCHEMA: u32 = 1;

/// How many failures with one fix are named one by one.
const SHOWN: usize = 5;

/// A run's report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The version of this action.
    pub version: &'static str,
    /// The mode, once it is known.
    pub mode: Option<Mode>,
    /// The environment.
    pub environment: Option<String>,
    /// RFC 3339.
    pub started_at: String,
    /// Whole run.
    pub seconds: f64,
    /// Requests sent to AWS, retries included.
    pub requests: u64,
    /// What the states are to be.
    pub target: Target,
    /// How far the states are protected; `None` where none was to be.
    pub verdict: Option<Verdict>,
    /// What keeps the verdict from being `protected`.
    pub left_open: Vec<String>,
    /// At least one current state was seen, each was read back under the wanted encryption, and
    /// no check failed. Says nothing of noncurrent versions: see [`Report::verdict`]. In a key mode:
    /// every step is done.
    pub verified: bool,
    /// Something was written: a file or a state.
    pub changed: bool,
    /// States were also expected by a pattern: then a named one that is absent leaves the run
    /// unverified.
    #[serde(skip)]
    pub expects_by_pattern: bool,
    /// Why the run failed; empty when it is green.
    pub failures: Vec<Failure>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Who ran it.
    pub caller: Option<Caller>,
    /// The state bucket.
    pub bucket: Option<BucketReport>,
    /// The states.
    pub objects: Vec<ObjectReport>,
    /// The backend files.
    pub backend_files: Vec<FileReport>,
    /// The checks.
    pub checks: Vec<Check>,
    /// Whether S3 access alone reads a state.
    #[serde(serialize_with = "gate_id")]
    pub gate: Gate,
    /// What the gate's verdict rests on.
    pub gate_evidence: Option<GateReport>,
    /// Old versions that are readable without the key; empty when that is not known.
    pub exposed_versions: String,
    /// Files with the statements that are missing, relative to the workspace.
    pub statements: Vec<String>,
    /// What a key mode did, or would do.
    pub key: Option<KeyReport>,
}

/// What a key mode did, or would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KeyReport {
    /// The key's ARN, once there is one.
    pub arn: Option<String>,
    /// Its alias, in mode `create-key`.
    pub alias: Option<String>,
    /// What was to be done.
    pub steps: Vec<KeyStep>,
    /// The step whose write has not been answered yet.
    #[serde(skip)]
    pub in_hand: Option<String>,
    /// How the key policy changes, as a unified diff.
    pub diff: Option<String>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// A step of a key mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyStep {
    /// What it is.
    pub what: String,
    /// It was done in this run.
    pub done: bool,
}

/// What the gate's verdict rests on.
#[derive(Debug, Clone, Serialize)]
pub struct GateReport {
    /// How the probe's session was made.
    pub way: &'static str,
    /// What the verdict is about, and what it is not.
    pub scope: String,
    /// For each state.
    pub observations: Vec<ObservationReport>,
}

/// The three observations on one state, each `200`, `403` or an error.
#[derive(Debug, Clone, Serialize)]
pub struct ObservationReport {
    /// The state's object key.
    pub key: String,
    /// The full session's GET.
    pub full_get: String,
    /// The probe's HEAD.
    pub probe_head: String,
    /// The probe's GET.
    pub probe_get: String,
}

fn gate_id<S: serde::Serializer>(gate: &Gate, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(gate.id())
}

/// What the states are to be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Target {
    /// `aws:kms`, `AES256`, or `unset` when no key is asked for.
    pub encryption: &'static str,
    /// The key's ARN.
    pub kms_key_arn: Option<KeyArn>,
}

/// The state bucket.
#[derive(Debug, Clone, Serialize)]
pub struct BucketReport {
    /// Its name.
    pub name: String,
    /// Its region, as S3 says.
    pub region: Option<String>,
    /// The account that it must belong to.
    pub expected_owner: Option<String>,
}

/// What was done with a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// There is no object.
    Absent,
    /// It was as wanted, or is not to be touched.
    Kept,
    /// `apply` would re-key it.
    WouldRekey,
    /// Re-keyed and read back.
    Rekeyed,
    /// Another writer has made it as wanted.
    ByAnother,
    /// Put back as it was.
    Restored,
    /// Not as wanted, and not changed.
    Untouched,
    /// Its condition is not known.
    Lost,
}

/// One state.
#[derive(Debug, Clone, Serialize)]
pub struct ObjectReport {
    /// Its module.
    pub module: Option<String>,
    /// Its object key.
    pub key: String,
    /// What was done.
    pub action: Action,
    /// Its encryption at first.
    pub before: Option<Encryption>,
    /// Its encryption at the last read.
    pub after: Option<Encryption>,
    /// Its version at the last read.
    pub version_id: Option<String>,
    /// Terraform's lineage.
    pub lineage: Option<String>,
    /// Terraform's serial.
    pub serial: Option<u64>,
    /// Bytes.
    pub size: Option<u64>,
    /// Bytes and attributes after a re-key are those before it; `None` where nothing was
    /// compared.
    pub same_content: Option<bool>,
    /// When it was last read (RFC 3339).
    pub read_at: Option<String>,
    /// What went wrong.
    pub detail: Option<String>,
}

/// An encryption in the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Encryption {
    /// `none`, `AES256`, `aws:kms`, `aws:kms:dsse`, `SSE-C`, or what S3 says.
    pub algorithm: String,
    /// The key's ARN.
    pub kms_key: Option<String>,
}

impl From<&ServerSide> for Encryption {
    fn from(server_side: &ServerSide) -> Self {
        let (algorithm, kms_key) = match server_side {
            ServerSide::None => ("none", None),
            ServerSide::S3 => ("AES256", None),
            ServerSide::Kms(key) => ("aws:kms", Some(key)),
            ServerSide::Dsse(key) => ("aws:kms:dsse", Some(key)),
            ServerSide::Customer => ("SSE-C", None),
            ServerSide::Other(other) => (other.as_str(), None),
        };
        Self { algorithm: algorithm.to_owned(), kms_key: kms_key.cloned() }
    }
}

/// One backend file.
#[derive(Debug, Clone, Serialize)]
pub struct FileReport {
    /// Its module.
    pub module: String,
    /// Relative to the workspace.
    pub path: String,
    /// What was done.
    pub action: FileAction,
    /// In what it differed from what is wanted.
    pub differences: Vec<String>,
}

/// What was done with a backend file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileAction {
    /// It is as wanted; not touched.
    Unchanged,
    /// Written.
    Written,
    /// Its backend block was edited.
    Edited,
    /// `apply` would write it.
    WouldWrite,
    /// `apply` would edit its backend block.
    WouldEdit,
    /// It differs and was kept.
    Kept,
    /// It differs and was left, as was asked for.
    Left,
    /// It is not there.
    Absent,
    /// The module's folder is not there.
    NoModule,
}

impl Report {
    /// The report of a run that begins now.
    pub fn new() -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            mode: None,
            environment: None,
            started_at: now(),
            seconds: 0.0,
            requests: 0,
            target: Target { encryption: "unset", kms_key_arn: None },
            verdict: None,
            left_open: Vec::new(),
            verified: false,
            changed: false,
            expects_by_pattern: false,
            failures: Vec::new(),
            warnings: Vec::new(),
            caller: None,
            bucket: None,
            objects: Vec::new(),
            backend_files: Vec::new(),
            checks: Vec::new(),
            gate: Gate::Off,
            gate_evidence: None,
            exposed_versions: String::new(),
            statements: Vec::new(),
            key: None,
        }
    }

    /// Remembers what the states are to be.
    pub fn set_target(&mut self, goal: &Goal) {
        self.target = match goal {
            Goal::Under(key) => Target { encryption: "aws:kms", kms_key_arn: Some(key.clone()) },
            Goal::SseS3 => Target { encryption: "AES256", kms_key_arn: None },
            Goal::Unset => Target { encryption: "unset", kms_key_arn: None },
        };
    }

    /// Ends the run: the time it took, whether the states are verified, and the verdict.
    pub fn finish(&mut self, elapsed: Duration) {
        self.seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
        self.checks.sort_by_key(|check| check.id);
        // Whatever the check is about: what has failed is no success.
        if self.failures.is_empty() {
            let failed = self.checks.iter().filter(|check| check.status == Status::Fail);
            let failed: Vec<Failure> = failed.map(failure_of).collect();
            self.failures = failed;
        }
        self.verified = self.is_verified();
        (self.verdict, self.left_open) = verdict::of(self);
        match self.verdict {
            Some(Verdict::Partly) => {
                self.warnings.push(format!("partly protected: {}", self.left_open.join("; ")));
            }
            Some(Verdict::Unprotected) => self.warnings.push(
                "unprotected on purpose: the states are under SSE-S3, so whoever has s3:GetObject reads them"
                    .to_owned(),
            ),
            _ => {}
        }
    }

    fn is_verified(&self) -> bool {
        if let Some(key) = &self.key {
            return self.failures.is_empty() && key.steps.iter().all(|step| step.done);
        }
        let read = |object: &ObjectReport| object.after.is_some() && object.read_at.is_some();
        let absent = |object: &ObjectReport| object.action == Action::Absent;
        self.failures.is_empty()
            && self.objects.iter().any(read)
            && self.objects.iter().all(|object| absent(object) || read(object))
            && !self.objects.iter().any(|object| object.action == Action::WouldRekey)
            && !(self.expects_by_pattern && self.objects.iter().any(absent))
            && self.mode != Some(Mode::Backend)
    }

    /// `aws:kms`, `AES256`, `none`, `mixed` or `absent`: what the states are now; empty where
    /// that is not known of every state.
    pub fn encryption(&self) -> &str {
        let known =
            |object: &ObjectReport| object.after.is_some() || object.action == Action::Absent;
        // Without a bucket nothing was looked at.
        if self.bucket.is_none() || self.key.is_some() || !self.objects.iter().all(known) {
            return "";
        }
        let mut kinds: Vec<&str> = self
            .objects
            .iter()
            .filter_map(|object| object.after.as_ref())
            .map(|encryption| match encryption.algorithm.as_str() {
                "aws:kms:dsse" => "aws:kms",
                other => other,
            })
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        match kinds.as_slice() {
            [] => "absent",
            [one] => one,
            _ => "mixed",
        }
    }

    /// The step's outputs. `report` is the report's path, relative to the workspace.
    pub fn outputs(&self, report: &str) -> Vec<(&'static str, String)> {
        let key = self.target.kms_key_arn.as_ref();
        let files: Vec<&str> = self
            .backend_files
            .iter()
            .filter(|file| {
                matches!(
                    file.action,
                    FileAction::Unchanged | FileAction::Written | FileAction::Edited
                )
            })
            .map(|file| file.path.as_str())
            .collect();
        let rekeyed = self.objects.iter().filter(|o| o.action == Action::Rekeyed).count();
        let reason = self.failures.first().map_or("", |failure| failure.reason.id());
        vec![
            ("encryption", self.encryption().to_owned()),
            ("kms-key-arn", key.map(KeyArn::to_string).unwrap_or_default()),
            ("kms-key-id", key.map(|key| key.id().to_owned()).unwrap_or_default()),
            ("backend-files", files.join("\n")),
            ("changed", self.changed.to_string()),
            ("rekeyed", rekeyed.to_string()),
            ("verdict", self.verdict.map_or("", Verdict::id).to_owned()),
            ("verified", self.verified.to_string()),
            ("gate", self.gate.id().to_owned()),
            ("exposed-versions", self.exposed_versions.clone()),
            ("failure-reason", reason.to_owned()),
            ("report", report.to_owned()),
        ]
    }

    /// The failures as they are shown: what has the same reason and the same fix is one, which
    /// names the first few and how many there are.
    pub fn grouped_failures(&self) -> Vec<Failure> {
        let mut groups: Vec<(Failure, Vec<&str>)> = Vec::new();
        for failure in &self.failures {
            let same = |(one, _): &&mut (Failure, Vec<&str>)| {
                (one.reason, &one.remedy) == (failure.reason, &failure.remedy)
            };
            match groups.iter_mut().find(same) {
                Some((_, messages)) => messages.push(&failure.message),
                None => groups.push((failure.clone(), vec![&failure.message])),
            }
        }
        let shown = |(one, messages): (Failure, Vec<&str>)| match messages.len() {
            1 => one,
            n => {
                let all = messages.into_iter().map(str::to_owned);
                Failure {
                    message: format!("{n} failures with one fix: {}", some_of(all, SHOWN, "; ")),
                    ..one
                }
            }
        };
        groups.into_iter().map(shown).collect()
    }

    /// The JSON report.
    pub fn json(&self) -> String {
        // A structure of texts, numbers and lists always serialises.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The check of that id, where it was made.
    pub fn check(&self, id: CheckId) -> Option<&Check> {
        self.checks.iter().find(|check| check.id == id)
    }
}

/// A check that failed though nothing else did.
fn failure_of(check: &Check) -> Failure {
    let message = format!("{}: {}", check.id.id(), check.evidence);
    let remedy = check.remedy.clone().unwrap_or_else(|| "See the check in the summary".to_owned());
    let reason = match check.id {
        CheckId::KeyPolicy => FailureReason::GateOpen,
        _ => FailureReason::CheckFailed,
    };
    Failure::new(reason, message, remedy)
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

/// The present time, RFC 3339, in seconds.
pub fn now() -> String {
    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(0));
    DateTime::from_secs(seconds).fmt(Format::DateTime).unwrap_or_default()
}
