//! Turns what was found into checks and rows of the report. Pure.

mod gate;

pub use gate::gate;

use crate::aws::{AwsError, Kind, ServerSide};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::denials::Remedies;
use crate::explain;
use crate::history::History;
use crate::names::{KeyArn, is_plain, printable};
use crate::plan::{self, Goal, Plan, Step};
use crate::rekey::{Outcome, Untouched};
use crate::report::{Action, Encryption, ObjectReport};
use crate::survey::{Found, Readable, State};

/// The row of a state as the survey found it.
pub fn surveyed(state: &State, step: &Step) -> ObjectReport {
    let encryption = state.found.seen().map(|seen| Encryption::from(&seen.server_side));
    let mut row = ObjectReport {
        module: state.module.clone(),
        key: state.key.clone(),
        action: match (&state.found, step) {
            (Found::Absent { .. }, _) => Action::Absent,
            (Found::Readable(_), Step::Rekey(_)) => Action::WouldRekey,
            (Found::Readable(_), _) => Action::Kept,
            _ => Action::Untouched,
        },
        before: encryption.clone(),
        after: encryption,
        version_id: None,
        lineage: None,
        serial: None,
        size: None,
        same_content: None,
        read_at: None,
        detail: state.found.error().map(ToString::to_string),
    };
    match &state.found {
        Found::Readable(readable) => read(&mut row, readable),
        Found::CustomerKey => row.detail = Some("under a customer-provided key (SSE-C)".into()),
        found => row.size = found.seen().map(|seen| seen.size),
    }
    row
}

/// Fills in what a read showed.
fn read(row: &mut ObjectReport, readable: &Readable) {
    row.after = Some(Encryption::from(&readable.seen.server_side));
    row.version_id = readable.seen.version_id.as_deref().map(printable);
    row.size = Some(readable.seen.size);
    row.lineage = readable.document.as_ref().map(|document| document.lineage.clone());
    row.serial = readable.document.as_ref().map(|document| document.serial);
    row.read_at = Some(readable.read_at.clone());
}

/// Enters a re-key's outcome into the row; returns the failure, if it is one.
pub fn settled(
    row: &mut ObjectReport,
    state: &State,
    outcome: &Outcome,
    remedies: &Remedies,
) -> Option<Failure> {
    let name = plan::name(state);
    let nothing_lost = "The state is as it was";
    let (reason, message, remedy) = match outcome {
        Outcome::Rekeyed(after) => {
            read(row, after);
            row.action = Action::Rekeyed;
            row.same_content = Some(true);
            row.detail = other_class(state, after);
            return None;
        }
        Outcome::ByAnother(after) => {
            read(row, after);
            row.action = Action::ByAnother;
            return None;
        }
        Outcome::Vanished => {
            row.action = Action::Absent;
            unread(row);
            (
                FailureReason::ConcurrentWrites,
                format!("{name} was deleted while it was being re-keyed"),
                "Find out which run deleted it; older versions, if the bucket keeps them, still hold it"
                    .to_owned(),
            )
        }
        Outcome::Untouched(why) => {
            row.action = Action::Untouched;
            if let Untouched::Unreadable(_) | Untouched::Unfit(_) = why {
                unread(row);
            }
            untouched(state, why, nothing_lost, remedies)
        }
        Outcome::Restored { error, now, changed } => {
            read(row, now);
            row.action = Action::Restored;
            row.same_content = Some(changed.is_empty());
            let but = match (changed.as_slice(), other_class(state, now)) {
                ([], None) => String::new(),
                ([], Some(class)) => format!("; {class}"),
                (what, _) => format!(", but does not have the same {}", what.join(", ")),
            };
            (
                FailureReason::Restored,
                format!(
                    "{name} was re-keyed but could not be read back ({error}); it was restored and read{but}"
                ),
                unreadable_remedy(error, remedies),
            )
        }
        Outcome::Superseded(error, after) => {
            read(row, after);
            row.action = Action::Untouched;
            (
                FailureReason::ConcurrentWrites,
                format!(
                    "{name} was re-keyed but could not be read back ({error}); another writer has written a \
                     newer state meanwhile, which is {}",
                    plan::describe(&after.seen.server_side)
                ),
                unreadable_remedy(error, remedies),
            )
        }
        Outcome::Lost { error, because, certain, former } => {
            row.action = Action::Lost;
            unread(row);
            let written = if *certain { "was written" } else { "may have been written" };
            (
                FailureReason::RestoreFailed,
                format!(
                    "{name} {written} and could not be read back ({error}), nor restored: {because}"
                ),
                format!(
                    "{}. Nothing is deleted: grant this principal kms:Decrypt on the key and run \
                     mode `verify`",
                    former.describe()
                ),
            )
        }
        Outcome::Abandoned(reason) => {
            row.action = Action::Lost;
            unread(row);
            (
                *reason,
                format!(
                    "{name} was in hand when the run was stopped, and S3 did not answer in time: it is as it \
                     was, or re-keyed, or where `strategy: in-place` met a server that does not know it, overwritten"
                ),
                "Run mode `verify` to see which".to_owned(),
            )
        }
        Outcome::Ignored(after) => {
            read(row, after);
            row.action = Action::Untouched;
            (
                FailureReason::RekeyFailed,
                format!(
                    "{name} is still {}: the server answered the write with success and did not change the encryption",
                    plan::describe(&after.seen.server_side)
                ),
                "This server does not do what was asked for: use one that supports SSE-KMS, or with \
                 `strategy: in-place` try `copy`"
                    .to_owned(),
            )
        }
        Outcome::Changed(after, what) => {
            read(row, after);
            row.action = Action::Rekeyed;
            row.same_content = Some(false);
            (
                FailureReason::ContentChanged,
                format!("{name} has the same bytes, but not the same {}", what.join(", ")),
                "Compare it with its former version (aws s3api head-object --version-id)"
                    .to_owned(),
            )
        }
    };
    row.detail = Some(message.clone());
    Some(Failure::new(reason, message, remedy))
}

/// Its storage class, where a write has changed it.
fn other_class(state: &State, now: &Readable) -> Option<String> {
    let class = |class: &Option<String>| printable(class.as_deref().unwrap_or("STANDARD"));
    let was = class(&state.found.seen()?.attributes.storage_class);
    let is = class(&now.seen.attributes.storage_class);
    (was != is).then(|| format!("its storage class was {was} and is {is} now"))
}

/// What was read before is not what is there.
fn unread(row: &mut ObjectReport) {
    (row.after, row.read_at, row.version_id) = (None, None, None);
}

/// What to do about a state that was written under the key and could not be read back.
fn unreadable_remedy(error: &AwsError, remedies: &Remedies) -> String {
    match error.kind {
        Kind::Denied if remedies.key.is_some() => {
            return format!(
                "This principal may encrypt under the key but not decrypt. {}",
                remedies.of(error)
            );
        }
        Kind::Denied => {
            "This principal may encrypt under the key but not decrypt: grant kms:Decrypt on both sides \
             of the account border"
        }
        kind if kind.is_key_problem() => "Put the key in order, then run again",
        kind if kind.is_ambiguous() => {
            "S3 or KMS did not answer in time; run again when they do"
        }
        Kind::Other if error.operation == "s3:UpdateObjectEncryption" => {
            "Use `strategy: copy` with this server"
        }
        _ => "Mend what the error names, then run again",
    }
    .to_owned()
}

const COPY_INSTEAD: &str = "`strategy: auto` or `copy`";

fn untouched(
    state: &State,
    why: &Untouched,
    nothing_lost: &str,
    remedies: &Remedies,
) -> (FailureReason, String, String) {
    let name = plan::name(state);
    let fix = |error: &AwsError| {
        let fix = explain::fix(error).unwrap_or("Re-run when the named cause is fixed");
        format!("{nothing_lost}. {fix}")
    };
    match why {
        Untouched::Refused(error) => {
            let in_place = error.operation == "s3:UpdateObjectEncryption";
            let remedy = match error.kind {
                Kind::Denied => {
                    let now = state.found.seen().and_then(|seen| seen.server_side.kms_key());
                    let also = match now.map(printable) {
                        // S3 API Reference, UpdateObjectEncryption: "Permissions".
                        _ if in_place => {
                            " In place, S3 also needs kms:ReEncrypt* on the key; `strategy: auto` \
                                          copies where it may not re-encrypt in place."
                                .to_owned()
                        }
                        Some(key) => format!(
                            " A copy also needs kms:Decrypt on the key that the state is under now, {key}."
                        ),
                        None => String::new(),
                    };
                    format!("{nothing_lost}.{also}\n\n{}", remedies.of(error))
                }
                Kind::Archived => plan::restore(state, &remedies.bucket),
                Kind::NotImplemented if in_place => {
                    format!(
                        "{nothing_lost}. The server does not know this operation: use {COPY_INSTEAD}"
                    )
                }
                Kind::NotImplemented => {
                    format!("{nothing_lost}. The server does not know conditional copies")
                }
                _ => fix(error),
            };
            let reason = match error.kind {
                Kind::Credentials => FailureReason::Credentials,
                _ => FailureReason::RekeyFailed,
            };
            (reason, format!("{name} could not be re-keyed ({error})"), remedy)
        }
        Untouched::NotInPlace(why) => (
            FailureReason::NotRekeyable,
            format!("{name} was not touched, since it cannot be re-encrypted in place: {why}"),
            format!("Use {COPY_INSTEAD}"),
        ),
        Untouched::NotRestorable(why) => (
            FailureReason::NotRekeyable,
            format!("{name} was not touched, since it could not be put back: {why}"),
            "Turn on versioning, and grant s3:GetObjectVersion and s3:GetBucketVersioning"
                .to_owned(),
        ),
        Untouched::Contended => (
            FailureReason::ConcurrentWrites,
            format!("{name} was changed by another writer at every one of 5 attempts"),
            format!(
                "{nothing_lost}, with the other writer's changes. Run again while no apply is in flight"
            ),
        ),
        Untouched::Unreadable(error) if error.kind == Kind::Credentials => (
            FailureReason::Credentials,
            format!("{name} could not be read again ({error})"),
            fix(error),
        ),
        Untouched::Unreadable(error) if error.kind.is_ambiguous() => (
            FailureReason::AwsUnavailable,
            format!("{name} could not be read again ({error})"),
            format!("{nothing_lost}. Run again when S3 answers"),
        ),
        Untouched::Unfit(why) => (
            FailureReason::NotRekeyable,
            format!("{name} was not touched: another writer has made it {why}"),
            "Find out which run wrote it; mode `plan` says what to do about it".to_owned(),
        ),
        Untouched::Unreadable(error) if error.kind == Kind::Archived => (
            FailureReason::StateUnreadable,
            format!("{name} has been archived since it was read ({error})"),
            plan::restore(state, &remedies.bucket),
        ),
        Untouched::Unreadable(error) => (
            FailureReason::StateUnreadable,
            format!("{name} could not be read any more ({error})"),
            "This run has not changed it; find out what did".to_owned(),
        ),
    }
}

/// What to think of a state under the wanted key that this principal cannot read: a run that
/// was killed while it tried the key on one state leaves that state so.
pub fn way_back(state: &State, history: Option<&History>, bucket: &str) -> String {
    let (name, key) = (plan::name(state), printable(&state.key));
    let begin = format!(
        "{name} is under the wanted key already. If a run of this action was killed while it tried the key on \
         this state, nobody has written it since, and the version before has the same bytes"
    );
    let Some(old) = history.and_then(|history| history.way_back(&state.key)) else {
        return format!(
            "{begin}; that run's log names the version, and so does `aws s3api list-object-versions` to who may \
             list them"
        );
    };
    let written = old.version.written_at.map_or("an unknown date".to_owned(), |at| at.to_string());
    let id = printable(&old.version.id);
    let version = format!("{begin}: {id}, {}, written {written}", plan::describe(&old.encryption));
    if !is_plain(&state.key) || !is_plain(&old.version.id) {
        return version;
    }
    format!(
        "{version}. Compare the dates before you bring it back: aws s3api copy-object --bucket {bucket} --key {key} \
         --copy-source '{bucket}/{key}?versionId={id}'"
    )
}

/// A state that was planned but not begun.
pub fn skipped(row: &mut ObjectReport, why: &str) {
    row.action = Action::Untouched;
    row.detail = Some(why.to_owned());
}

/// The checks on the states, from their rows. `previews`: what is still to be re-keyed is no
/// failure.
pub fn object_checks(
    goal: &Goal,
    rows: &[ObjectReport],
    plan: &Plan,
    previews: bool,
) -> Vec<Check> {
    let present: Vec<&ObjectReport> = rows.iter().filter(|r| r.action != Action::Absent).collect();
    if present.is_empty() {
        let nothing = "there is no state yet";
        return [CheckId::ObjectReadable, CheckId::ObjectEncrypted]
            .map(|id| Check::new(id, Status::Unknown, nothing))
            .into();
    }
    let total = present.len();
    let unread = present.iter().filter(|r| r.read_at.is_none() || r.action == Action::Lost).count();
    let mut checks = vec![counted(CheckId::ObjectReadable, total, unread, "read to their end")];

    let key = goal.key().map(KeyArn::as_str);
    let wanted = |row: &&&ObjectReport| {
        row.after.as_ref().is_some_and(|now| match (goal, now.algorithm.as_str()) {
            (Goal::Under(_), algorithm) => algorithm.starts_with("aws:kms"),
            (Goal::SseS3, algorithm) => matches!(algorithm, "AES256" | "none"),
            (Goal::Unset, _) => true,
        })
    };
    let bad = total - present.iter().filter(wanted).count();
    match goal {
        Goal::Under(_) => {
            checks.push(counted(CheckId::ObjectEncrypted, total, bad, "aws:kms"));
            let other =
                |r: &&&ObjectReport| r.after.as_ref().and_then(|now| now.kms_key.as_deref()) != key;
            let bad = present.iter().filter(other).count();
            checks.push(counted(CheckId::ObjectKey, total, bad, "under the wanted key"));
        }
        Goal::SseS3 => {
            checks.push(counted(CheckId::ObjectEncrypted, total, bad, "under no KMS key"))
        }
        Goal::Unset => {
            let guarded = plan.refusals.iter().any(|f| f.reason == FailureReason::DowngradeRefused);
            checks.push(if guarded {
                Check::new(
                    CheckId::ObjectEncrypted,
                    Status::Fail,
                    "a state is under a customer-managed key, but none is asked for",
                )
            } else {
                Check::new(CheckId::ObjectEncrypted, Status::Pass, "no key is asked for")
            });
        }
    }
    let previewed = previews && plan.refusals.is_empty();
    for check in checks.iter_mut().filter(|check| check.id != CheckId::ObjectReadable) {
        if check.status == Status::Fail && previewed {
            check.status = Status::Warn;
            check.evidence.push_str("; apply would re-key them");
        }
    }
    let compared: Vec<bool> = rows.iter().filter_map(|row| row.same_content).collect();
    if !compared.is_empty() {
        let changed = rows.iter().filter(|r| r.same_content == Some(false)).count();
        checks.push(counted(
            CheckId::ContentUnchanged,
            compared.len(),
            changed,
            "same SHA-256, lineage, serial and attributes",
        ));
    }
    checks
}

fn counted(id: CheckId, total: usize, bad: usize, what: &str) -> Check {
    match bad {
        0 => Check::new(id, Status::Pass, format!("{total} of {total} {what}")),
        _ => Check::new(id, Status::Fail, format!("{bad} of {total} not {what}")),
    }
}

/// Whether key and bucket are in one region, as S3 and the ARN say.
pub fn same_region(key: &KeyArn, region: &Result<String, AwsError>) -> (Check, Option<Failure>) {
    let id = CheckId::SameRegion;
    match region {
        Ok(region) if region == key.region() => {
            (Check::new(id, Status::Pass, format!("both are in {region}")), None)
        }
        Ok(region) if !region.is_empty() => {
            let region = printable(region);
            let evidence = format!("the bucket is in {region}, the key in {}", key.region());
            // A multi-Region key has the same id in every Region that it is replicated to (AWS KMS
            // Developer Guide, "Multi-Region keys").
            let remedy = match key.id().starts_with("mrk-") {
                true => format!(
                    "Name the key's replica in {region}: arn:{}:kms:{region}:{}:key/{} (if there is none yet: aws kms \
                     replicate-key --region {} --key-id {} --replica-region {region})",
                    key.partition(),
                    key.account(),
                    key.id(),
                    key.region(),
                    key.id()
                ),
                false => format!("Create a key in {region}, the bucket's region"),
            };
            let check = Check::new(id, Status::Fail, evidence.clone()).remedy(remedy.clone());
            (check, Some(Failure::new(FailureReason::KeyUnusable, evidence, remedy)))
        }
        Ok(_) => {
            (Check::new(id, Status::Unknown, "the server does not name the bucket's region"), None)
        }
        Err(error) => (Check::new(id, Status::Unknown, format!("unknown ({error})")), None),
    }
}

/// Whether the bucket belongs to the key's account. `owned` is what the calls that named
/// the expected owner came to: `Some(false)` when S3 answers only without it.
pub fn same_account(key: &KeyArn, expected: &str, owned: Option<bool>) -> (Check, Option<Failure>) {
    let id = CheckId::SameAccount;
    match owned {
        Some(true) if expected == key.account() => {
            (Check::new(id, Status::Pass, format!("both are in {expected}")), None)
        }
        Some(true) => (
            Check::new(
                id,
                Status::Warn,
                format!(
                    "the bucket is in {expected} (`bucket-owner`), the key in {}",
                    key.account()
                ),
            )
            .remedy("A key in the bucket's account can be used by S3's in-place re-encryption too"),
            None,
        ),
        Some(false) => {
            let evidence =
                format!("the bucket does not belong to {expected}: S3 refuses it as owner");
            let remedy = "Check the bucket's name and the key's account. If they are meant to differ, \
                          name the bucket's account by `bucket-owner`";
            let check = Check::new(id, Status::Fail, evidence.clone()).remedy(remedy);
            (check, Some(Failure::new(FailureReason::WrongBucketOwner, evidence, remedy)))
        }
        None => (Check::new(id, Status::Unknown, "no call to the bucket succeeded"), None),
    }
}

/// What `verify` says of a state that `apply` would re-key.
pub fn drift(state: &State, goal: &Goal) -> Failure {
    let now = state.found.seen().map_or(&ServerSide::None, |seen| &seen.server_side);
    let wanted = match goal.key() {
        Some(key) => format!("under {key}"),
        None => "under SSE-S3".to_owned(),
    };
    Failure::new(
        FailureReason::Drift,
        format!("{} is {}, but should be {wanted}", plan::name(state), plan::describe(now)),
        "Run mode `apply`, and find out which run wrote it: its backend.tf names another key or none",
    )
}
