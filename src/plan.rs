//! What is to be done: a pure function of the goal and the survey.
//!
//! Nothing here reaches for a network or a file, so each kind of object that a bucket
//! can hold is a row of a table test.

use crate::aws::{Archive, Kind, ServerSide, WriteAs};
use crate::check::{Failure, FailureReason};
use crate::denials::Remedies;
use crate::explain;
use crate::inputs::{Mode, Request};
use crate::names::{KeyArn, is_plain, printable};
use crate::survey::{Found, Manager, State, Survey};

/// What the states are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Under this key.
    Under(KeyArn),
    /// As before: no key is asked for, nothing is re-keyed.
    Unset,
    /// Back under SSE-S3.
    SseS3,
}

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowances {
    /// An empty variable over an encrypted object is no error.
    pub downgrade: bool,
    /// A missing state is an error.
    pub require_state: bool,
}

/// What happens to one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// There is no object.
    Nothing,
    /// It is as wanted, or not to be touched.
    Keep,
    /// Copy it onto itself.
    Rekey(WriteAs),
}

/// The whole plan. With refusals, nothing at all is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// One for each state of the survey.
    pub steps: Vec<Step>,
    /// What forbids the run.
    pub refusals: Vec<Failure>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

const MISSING: &str = "Check `environment`, `modules`, `bucket` and `state-keys`; to allow a state that is \
                       not there yet, leave `require-state` out";

/// S3's limit for a copy in one request: 5 GiB, which the API documents as «5 GB».
pub const COPY_LIMIT: u64 = 5 << 30;

impl Goal {
    /// The goal of a request.
    pub fn of(request: &Request) -> Self {
        match (&request.key, request.mode) {
            (_, Mode::Rollback) => Self::SseS3,
            (Some(key), _) => Self::Under(key.clone()),
            (None, _) => Self::Unset,
        }
    }

    /// The target key's ARN.
    pub fn key(&self) -> Option<&KeyArn> {
        match self {
            Self::Under(key) => Some(key),
            Self::Unset | Self::SseS3 => None,
        }
    }

    /// How an object of this encryption would be written anew; `None`: it may stay.
    pub fn rewrite(&self, now: &ServerSide) -> Option<WriteAs> {
        match (self, now) {
            (Self::Unset, _) => None,
            (Self::Under(key), ServerSide::Kms(id) | ServerSide::Dsse(id))
                if id == key.as_str() =>
            {
                None
            }
            (Self::Under(key), _) => Some(WriteAs::Kms(key.as_str().to_owned())),
            (Self::SseS3, ServerSide::S3 | ServerSide::None) => None,
            (Self::SseS3, _) => Some(WriteAs::S3),
        }
    }
}

/// Decides what is to be done with each state.
///
/// `remedies`: what S3 may lack where it refuses a state.
pub fn plan(goal: &Goal, survey: &Survey, allow: Allowances, remedies: &Remedies) -> Plan {
    let mut plan = Plan::default();
    for state in &survey.states {
        let step = plan.step(goal, survey, state, allow, remedies);
        plan.steps.push(step);
    }
    let present = survey.states.iter().filter(|s| !matches!(s.found, Found::Absent { .. })).count();
    if present == 0 && *goal == Goal::Unset {
        plan.warnings.push(
            "no state exists yet and STATE_KMS_KEY_ID is empty: the first apply will write the state \
             under SSE-S3, readable by anyone with s3:GetObject. Set the variable first, or set \
             `require-encryption` to make this an error"
                .into(),
        );
    }
    plan
}

impl Plan {
    /// The states to be re-keyed, by their place in the survey.
    pub fn rekeys(&self) -> impl Iterator<Item = (usize, &WriteAs)> {
        self.steps.iter().enumerate().filter_map(|(at, step)| match step {
            Step::Rekey(write) => Some((at, write)),
            _ => None,
        })
    }

    fn refuse(
        &mut self,
        reason: FailureReason,
        message: String,
        remedy: impl Into<String>,
    ) -> Step {
        self.refusals.push(Failure::new(reason, message, remedy));
        Step::Keep
    }

    fn step(
        &mut self,
        goal: &Goal,
        survey: &Survey,
        state: &State,
        allow: Allowances,
        remedies: &Remedies,
    ) -> Step {
        let name = name(state);
        match &state.found {
            Found::Absent { deleted } => {
                let what = if *deleted {
                    "is deleted: a delete marker hides its older versions"
                } else {
                    "does not exist"
                };
                if allow.require_state {
                    return self.refuse(
                        FailureReason::StateMissing,
                        format!("{name} {what}"),
                        MISSING,
                    );
                }
                if *deleted {
                    self.warnings.push(format!(
                        "{name} {what}; Terraform would start from nothing. To bring it back, remove \
                         the marker: aws s3api list-object-versions, then delete-object --version-id"
                    ));
                }
                Step::Nothing
            }
            Found::Refused(error) => self.refuse(
                FailureReason::StateUnreadable,
                format!("{name}: S3 refuses even its headers ({error})"),
                format!(
                    "Where s3:ListBucket is not granted, S3 answers the same for an object that does not exist. {}",
                    remedies.of(error)
                ),
            ),
            Found::Failed(error) => {
                let reason = match error.kind {
                    Kind::NoBucket => FailureReason::BucketMissing,
                    Kind::Credentials => FailureReason::Credentials,
                    _ => FailureReason::AwsUnavailable,
                };
                let fix = explain::fix(error).unwrap_or("Re-run when the named cause is fixed");
                self.refuse(
                    reason,
                    format!("{name} could not be looked at ({error})"),
                    format!("{fix}. Nothing was changed"),
                )
            }
            Found::CustomerKey => self.refuse(
                FailureReason::NotRekeyable,
                format!("{name} is under a customer-provided key (SSE-C), which only its writer has"),
                "Copy it once with that key: aws s3api copy-object \
                 --copy-source-sse-customer-algorithm AES256 --copy-source-sse-customer-key …",
            ),
            Found::Unreadable { seen, error } if error.kind == Kind::Archived => {
                let class = printable(seen.attributes.storage_class.as_deref().unwrap_or("unknown"));
                let (how, remedy) = match seen.archive {
                    Some(Archive::Restoring) => (
                        "is being restored, which can take hours",
                        "Nothing was changed. Re-run when it is restored".to_owned(),
                    ),
                    _ => (
                        "cannot be read until it is restored",
                        restore(state, &remedies.bucket),
                    ),
                };
                self.refuse(
                    FailureReason::StateUnreadable,
                    format!("{name} is archived (storage class {class}) and {how} ({error})"),
                    remedy,
                )
            }
            Found::Unreadable { seen, error } => {
                let remedy = match seen.server_side.kms_key() {
                    Some(key) => unreadable_under(key, &remedies.account, &error.kind),
                    None => format!("Nothing was changed. {}", remedies.of(error)),
                };
                self.refuse(
                    FailureReason::StateUnreadable,
                    format!("{name} is {} and cannot be read ({error})", describe(&seen.server_side)),
                    remedy,
                )
            }
            Found::Readable(readable) => {
                let now = &readable.seen.server_side;
                if readable.is_update_request {
                    return self.refuse(
                        FailureReason::StateUnreadable,
                        format!(
                            "{name} is no state: a server has overwritten it with the request of an in-place \
                             re-encryption, which it does not know"
                        ),
                        "Find the newest version that is a state (aws s3api list-object-versions; a bucket \
                         that keeps none does not have it any more), bring it back, and use `strategy: copy` \
                         with this server",
                    );
                }
                if let Some(class) = readable.seen.attributes.archive_class() {
                    self.warnings.push(format!(
                        "{name} is in the storage class {class}: it can be read only while its restored copy \
                         lasts, and Terraform fails after that. Exclude it from the lifecycle rule that archives \
                         it; a re-key by copy writes it to STANDARD, since S3 would archive a copy in {class} at once"
                    ));
                }
                if *goal == Goal::Unset {
                    self.guard_downgrade(&name, now, survey, allow);
                    return Step::Keep;
                }
                let Some(write) = goal.rewrite(now) else {
                    if let (Goal::Under(_), ServerSide::Dsse(_)) = (goal, now) {
                        self.warnings.push(format!(
                            "{name} has two layers of encryption under the wanted key (DSSE); it is \
                             left as it is, and Terraform's next write makes it aws:kms"
                        ));
                    }
                    return Step::Keep;
                };
                if let ServerSide::Other(other) = now {
                    return self.refuse(
                        FailureReason::NotRekeyable,
                        format!("{name} has the encryption `{other}`, which this version does not know"),
                        "Re-key it by hand, or leave it out of `state-keys`",
                    );
                }
                if readable.seen.size > COPY_LIMIT {
                    return self.refuse(
                        FailureReason::NotRekeyable,
                        format!(
                            "{name} has {} bytes; S3 copies at most 5 GB in one request, and a copy in \
                             parts cannot be made conditional on the state staying the same",
                            readable.seen.size
                        ),
                        "Stop every run that writes it, then use aws s3 cp with --sse aws:kms",
                    );
                }
                Step::Rekey(write)
            }
        }
    }

    /// The variable is empty: whatever asks for a grant to be read must not silently
    /// become readable by everyone.
    fn guard_downgrade(
        &mut self,
        name: &str,
        now: &ServerSide,
        survey: &Survey,
        allow: Allowances,
    ) {
        let (ServerSide::Kms(key) | ServerSide::Dsse(key)) = now else { return };
        let whose = match survey.manager(key) {
            Manager::Aws => return,
            Manager::Customer => "the customer-managed key",
            Manager::Unknown => {
                "a key that this principal may not describe, so perhaps customer-managed:"
            }
        };
        let message = format!(
            "{name} is under {whose} {key}, but STATE_KMS_KEY_ID is empty: Terraform's next write would \
             put it back under the bucket's default encryption, readable by anyone with s3:GetObject"
        );
        if allow.downgrade {
            self.warnings.push(format!("{message} (allowed by `allow-downgrade`)"));
        } else {
            self.refuse(
                FailureReason::DowngradeRefused,
                message,
                "If the environment is to be encrypted, set STATE_KMS_KEY_ID; a job without \
                 `environment:` does not see the variables of a GitHub environment and reads it as \
                 empty. To go back to SSE-S3 on purpose, run mode `rollback`, or set `allow-downgrade`",
            );
        }
    }
}

/// What to do about a state that cannot be read under its key.
fn unreadable_under(key: &str, account: &str, kind: &Kind) -> String {
    let shown = printable(key);
    if kind.is_key_problem() {
        return format!(
            "Nothing was changed. Make {shown} usable again (enable it, or cancel its deletion), and re-run"
        );
    }
    let of = key.split(':').nth(4).unwrap_or_default();
    let other = match of {
        "" => String::new(),
        of if of == account || account.is_empty() => String::new(),
        of => format!(
            ". If it is the aws/s3 key of account {of}, no grant can help, since AWS manages its policy (AWS KMS \
             Developer Guide, \"AWS managed keys\"): re-key the state with credentials of account {of}"
        ),
    };
    format!(
        "Nothing was changed. Make it readable first: this principal needs kms:Decrypt on {shown}, in the key policy and, \
         from another account, on the IAM side too{other}"
    )
}

/// How messages name a state.
pub fn name(state: &State) -> String {
    match &state.module {
        Some(module) => format!("state `{}` (module {module})", state.key),
        None => format!("state `{}`", state.key),
    }
}

/// How to restore an archived state.
pub fn restore(state: &State, bucket: &str) -> String {
    // What is in Intelligent-Tiering is restored for good (S3 API Reference, RestoreObject).
    let class = state.found.seen().and_then(|seen| seen.attributes.storage_class.as_deref());
    let request = match class {
        Some("INTELLIGENT_TIERING") => r#"'{"GlacierJobParameters":{"Tier":"Standard"}}'"#,
        _ => "Days=7",
    };
    let key = if is_plain(&state.key) { state.key.as_str() } else { "KEY" };
    format!(
        "Nothing was changed. Restore it, wait until that is done (it can take hours), and re-run: a re-key by copy \
         writes it to STANDARD. It needs s3:RestoreObject:\n\
         aws s3api restore-object --bucket {bucket} --key {key} --restore-request {request}"
    )
}

/// An encryption in words.
pub fn describe(encryption: &ServerSide) -> String {
    match encryption {
        ServerSide::None => "unencrypted".into(),
        ServerSide::S3 => "under SSE-S3".into(),
        ServerSide::Kms(_) => format!("under {}", key_name(encryption)),
        ServerSide::Dsse(_) => format!("under {} (DSSE)", key_name(encryption)),
        ServerSide::Customer => "under a customer-provided key".into(),
        ServerSide::Other(other) => format!("under `{other}`"),
    }
}

fn key_name(encryption: &ServerSide) -> String {
    match encryption {
        ServerSide::Kms(key) | ServerSide::Dsse(key) if !key.is_empty() => {
            format!("the KMS key {}", crate::names::printable(key))
        }
        ServerSide::Kms(_) | ServerSide::Dsse(_) => "a KMS key that is not named".into(),
        _ => "its key".into(),
    }
}

#[cfg(test)]
mod tests;
