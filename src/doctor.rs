//! What the bucket's settings and the key policy mean for states under a key. Pure.

use std::collections::BTreeSet;

use crate::aws::{AwsError, ServerSide, Settings};
use crate::check::{Check, CheckId, Status};
use crate::grants::{self, Sides};
use crate::names::{KeyArn, LOCK_SUFFIX, printable, some_of};
use crate::plan::Goal;
use crate::policies::{Policy, Reach};
use crate::principal::Principal;

/// What the checks are about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What the states are to be.
    pub goal: &'a Goal,
    /// The bucket's name.
    pub bucket: &'a str,
    /// Its partition: `aws`, `aws-cn`, …
    pub partition: &'a str,
    /// The states' object keys.
    pub states: &'a [String],
    /// How many of them, and of their noncurrent versions, S3 says a replication status of.
    pub replicated: usize,
    /// Those that Object Lock keeps, and by what.
    pub locked: &'a [(String, String)],
    /// Terraform takes a lock object beside each state.
    pub locks: bool,
    /// The canned ACL of every write.
    pub acl: Option<&'a str>,
    /// Those that Terraform's own next write will name no encryption for.
    pub silent: &'a [String],
    /// Caller and bucket are in two accounts.
    pub across_accounts: bool,
    /// States were seen with version ids.
    pub version_ids: bool,
    /// Who writes, where that is known.
    pub writer: Option<&'a Principal>,
    /// The wanted key's policy, where it may be read.
    pub key_policy: Option<&'a Policy>,
}

/// The checks on the bucket's settings. A setting that may not be read is `unknown`, with
/// the action that is missing.
pub fn bucket_checks(settings: &Settings, subject: &Subject<'_>) -> Vec<Check> {
    vec![
        versioning(&settings.versioning, subject),
        default_encryption(&settings.encryption, subject.goal),
        public_access(&settings.public_access_blocked, subject.bucket),
        bucket_policy(&settings.policy, subject),
        replication(settings, subject),
        object_lock(&settings.object_lock, subject),
        ownership(&settings.acls_off, subject),
    ]
}

fn unknown(id: CheckId, error: &AwsError) -> Check {
    Check::new(id, Status::Unknown, format!("unknown ({})", error.lack()))
}

fn versioning(on: &Result<bool, AwsError>, subject: &Subject<'_>) -> Check {
    let id = CheckId::BucketVersioning;
    match on {
        Err(_) if subject.version_ids => Check::new(id, Status::Pass, "the states have version ids"),
        Ok(true) => Check::new(id, Status::Pass, "versioning is on"),
        Ok(false) => Check::new(id, Status::Warn, "versioning is off").remedy(format!(
            "A state that is overwritten by mistake cannot be brought back: aws s3api put-bucket-versioning \
             --bucket {} --versioning-configuration Status=Enabled",
            subject.bucket
        )),
        Err(error) => unknown(id, error),
    }
}

fn default_encryption(default: &Result<(ServerSide, bool), AwsError>, goal: &Goal) -> Check {
    let id = CheckId::BucketDefaultEncryption;
    let (default, bucket_key) = match default {
        Ok(found) => found,
        Err(error) => return unknown(id, error),
    };
    let keys = if *bucket_key { ", with S3 Bucket Keys" } else { "" };
    // The setting may hold a bare id, and none at all for aws/s3.
    let is_wanted = |key: &KeyArn, named: &str| named.rsplit('/').next() == Some(key.id());
    let shown = |named: &str| match named {
        "" => "aws/s3".to_owned(),
        named => printable(named),
    };
    match (goal, default) {
        (Goal::Under(key), ServerSide::Kms(other) | ServerSide::Dsse(other)) if !is_wanted(key, other) => {
            Check::new(id, Status::Warn, format!("the default is another key, {}", shown(other)))
                .remedy("An object that is written without a header, such as a lock object of OpenTofu, goes under that key: grant it, or make the wanted key the default")
        }
        (Goal::Under(_), ServerSide::Kms(_) | ServerSide::Dsse(_)) => {
            Check::new(id, Status::Pass, format!("the default is the wanted key{keys}"))
        }
        (Goal::Under(_), _) => Check::new(
            id,
            Status::Pass,
            "the default is SSE-S3; the states' own headers decide",
        ),
        (_, ServerSide::Kms(other) | ServerSide::Dsse(other)) => {
            Check::new(id, Status::Warn, format!("the default is the key {}", shown(other)))
                .remedy("Terraform's next write without a key goes under the bucket's default, so a rolled-back state returns under that key")
        }
        _ => Check::new(id, Status::Pass, "the default is SSE-S3"),
    }
}

fn public_access(blocked: &Result<bool, AwsError>, bucket: &str) -> Check {
    let id = CheckId::BucketPublicAccess;
    match blocked {
        Ok(true) => Check::new(id, Status::Pass, "public access is blocked"),
        Ok(false) => Check::new(id, Status::Warn, "not all four blocks of public access are on").remedy(format!(
            "aws s3api put-public-access-block --bucket {bucket} --public-access-block-configuration \
             BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true"
        )),
        Err(error) => unknown(id, error),
    }
}

const ENCRYPTION: &str = "x-amz-server-side-encryption";
const KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const SSE_S3: &[(&str, &str)] = &[(ENCRYPTION, "AES256")];

/// Does the policy refuse what is sent, by this action and by Terraform after it: the states, and
/// the lock objects beside them?
fn bucket_policy(policy: &Result<Option<String>, AwsError>, subject: &Subject<'_>) -> Check {
    let id = CheckId::BucketPolicy;
    let text = match policy {
        Ok(Some(text)) => text,
        Ok(None) => return Check::new(id, Status::Pass, "there is none"),
        Err(error) => return unknown(id, error),
    };
    let Some(policy) = Policy::parse(text) else {
        return Check::new(id, Status::Unknown, "it could not be read as a policy");
    };
    let speaks = |state: &&String| !subject.silent.contains(state);
    let verdict = match subject.goal {
        Goal::Under(key) => {
            let under = [(ENCRYPTION, "aws:kms"), (KEY, key.as_str())];
            Refused::of(&policy, subject, subject.states, &under)
        }
        Goal::SseS3 => Refused::of(&policy, subject, subject.states, SSE_S3),
        Goal::Unset => Refused::of(&policy, subject, subject.states.iter().filter(speaks), SSE_S3),
    };
    let silent = Refused::of(&policy, subject, subject.silent, &[]);
    let unclear: BTreeSet<String> = verdict.unclear.into_iter().chain(silent.unclear).collect();
    if !verdict.certain.is_empty() {
        return Check::new(id, Status::Fail, some_of(verdict.certain, 10, "; ")).remedy(
            "Change the named statement of the bucket policy: it denies a write with the encryption that \
             this environment asks for",
        );
    }
    if !silent.certain.is_empty() {
        let evidence = format!(
            "Terraform's next write names no encryption, and {}",
            some_of(silent.certain, 10, "; ")
        );
        return Check::new(id, Status::Fail, evidence).remedy(ENCRYPT);
    }
    if !unclear.is_empty() {
        let which = unclear.into_iter().collect::<Vec<_>>().join(", ");
        return Check::new(
            id,
            Status::Unknown,
            format!(
                "statements that may refuse it, by conditions or principals that are not followed: {which}"
            ),
        );
    }
    Check::new(id, Status::Pass, "no statement refuses what is written")
}

const ENCRYPT: &str = "Set `encrypt: true` in every step that writes backend files, those of mode `backend` included: \
                       the block then says `encrypt = true`, and Terraform sends the header for SSE-S3";

/// What a bucket policy does with writes.
struct Refused {
    /// The statements that deny one, and of which object.
    certain: Vec<String>,
    /// Those that may.
    unclear: Vec<String>,
}

impl Refused {
    fn of<'a>(
        policy: &Policy,
        subject: &Subject<'_>,
        states: impl IntoIterator<Item = &'a String>,
        encryption: &[(&str, &str)],
    ) -> Self {
        let mut sent = encryption.to_vec();
        sent.extend(subject.acl.map(|acl| ("x-amz-acl", acl)));
        let (mut certain, mut unclear) = (Vec::new(), Vec::new());
        for state in states {
            let mut keys = vec![state.clone()];
            keys.extend(subject.locks.then(|| format!("{state}{LOCK_SUFFIX}")));
            for key in keys {
                let resource = format!("arn:{}:s3:::{}/{key}", subject.partition, subject.bucket);
                for hit in policy.denies_write(&resource, &sent, subject.writer) {
                    match hit {
                        Ok(statement) => {
                            certain.push(format!("{} refuses {key}", printable(&statement)));
                        }
                        Err(statement) => unclear.push(printable(&statement)),
                    }
                }
            }
        }
        Self { certain, unclear }
    }
}

/// What the bucket policy makes of Terraform's writes that name no encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// It lets them pass, as far as can be told.
    Allowed,
    /// It refuses them, and lets those pass that name SSE-S3.
    NeedsHeader,
    /// It refuses both; with the statements.
    NeedsKey(String),
}

/// Judges the writes that [`Subject::silent`] is about by the text of the bucket policy.
pub fn silence(policy: &str, subject: &Subject<'_>) -> Silence {
    let Some(policy) = Policy::parse(policy) else { return Silence::Allowed };
    let refused = |headers| Refused::of(&policy, subject, subject.silent, headers).certain;
    match (refused(&[]).is_empty(), refused(SSE_S3)) {
        (true, _) => Silence::Allowed,
        (false, refused) if refused.is_empty() => Silence::NeedsHeader,
        (false, refused) => Silence::NeedsKey(some_of(refused, 10, "; ")),
    }
}

fn replication(settings: &Settings, subject: &Subject<'_>) -> Check {
    let id = CheckId::Replication;
    let found = match &settings.replication {
        Ok(found) => found,
        // S3 says it of each object that a rule takes, to whoever reads it (S3 User Guide,
        // "Getting replication status information").
        Err(error) if subject.replicated == 0 && !subject.states.is_empty() => {
            let evidence =
                format!("no state has a replication status (the rules: {})", error.lack());
            return Check::new(id, Status::Pass, evidence);
        }
        Err(error) if subject.replicated > 0 => {
            let evidence = format!(
                "{} states or versions have a replication status, so there are copies elsewhere (the rules need {}; {})",
                subject.replicated,
                error.operation,
                error.code.as_deref().unwrap_or("no answer")
            );
            return Check::new(id, Status::Unknown, evidence);
        }
        Err(error) => return unknown(id, error),
    };
    let concerned: Vec<_> = found
        .rules
        .iter()
        .filter(|rule| subject.states.iter().any(|state| state.starts_with(&rule.prefix)))
        .collect();
    let lacking: Vec<String> =
        concerned.iter().filter(|rule| !rule.takes_kms).map(|rule| printable(&rule.id)).collect();
    match subject.goal.key() {
        _ if concerned.is_empty() => Check::new(id, Status::Pass, "no rule concerns the states"),
        None => Check::new(id, Status::Pass, "no key is asked for"),
        Some(_) if !lacking.is_empty() => Check::new(
            id,
            Status::Warn,
            format!("objects under KMS keys are left out by the rules {}", lacking.join(", ")),
        )
        .remedy(
            "Re-keyed states will no longer replicate. Set SourceSelectionCriteria.SseKmsEncryptedObjects and \
             a ReplicaKmsKeyID, and grant the replication role kms:Decrypt on this key and kms:Encrypt on the replica's",
        ),
        Some(key) => replicates(&found.role, key, subject.key_policy),
    }
}

/// Whether the role that S3 replicates as may decrypt under the key. Without that a state under it
/// stays behind, and only its replication status says so.
fn replicates(role: &str, key: &KeyArn, policy: Option<&Policy>) -> Check {
    const NEEDED: &str = "kms:Decrypt";
    let id = CheckId::Replication;
    let who = Principal::of_arn(role);
    let shown = printable(role);
    let begin = "the rules take objects under KMS keys";
    let check = |status, evidence: String, key_policy| {
        let sides = Sides { key_policy, iam: None };
        Check::new(id, status, format!("{begin}; {evidence}"))
            .remedy(grants::of_replication(role, key, sides))
    };
    let Some(policy) = policy else {
        let evidence = format!("whether {shown} may decrypt under the key is not known");
        return check(Status::Unknown, evidence, None);
    };
    if let Some(sid) = policy.denied_by(NEEDED, &who) {
        let sid = printable(&sid);
        return Check::new(id, Status::Warn, format!("the key policy denies {shown} {NEEDED}"))
            .remedy(format!("Except that role in the statement {sid} of the key policy of {key}"));
    }
    match policy.reach(NEEDED, &who) {
        Reach::Not => check(
            Status::Warn,
            format!(
                "the key policy does not let {shown} decrypt, so states under it will not replicate"
            ),
            Some(false),
        ),
        Reach::Perhaps => check(
            Status::Unknown,
            format!("the key policy lets {shown} decrypt under conditions that are not followed"),
            None,
        ),
        Reach::Allowed if who.account == key.account() && policy.names_itself(NEEDED, &who) => {
            Check::new(
                id,
                Status::Unknown,
                format!(
                    "{begin}, and the key policy lets {shown} decrypt; the copies elsewhere were not looked at"
                ),
            )
        }
        Reach::Allowed => check(
            Status::Unknown,
            format!("the key policy leaves it to the IAM policies of {shown}, which are not known"),
            Some(true),
        ),
    }
}

fn object_lock(default: &Result<Option<String>, AwsError>, subject: &Subject<'_>) -> Check {
    let id = CheckId::ObjectLock;
    let locked = subject.locked.iter();
    let locked: Vec<String> = locked
        .map(|(state, by)| format!("`{}` is locked: {}", printable(state), printable(by)))
        .collect();
    let mut evidence: Vec<String> = match default {
        Ok(None) => Vec::new(),
        Ok(Some(retention)) => vec![format!("default retention: {retention}")],
        Err(error) if locked.is_empty() => return unknown(id, error),
        Err(_) => vec!["the bucket's default retention is not known".to_owned()],
    };
    if locked.is_empty() && evidence.is_empty() {
        return Check::new(id, Status::Pass, "no default retention, and no state is locked");
    }
    let again = match locked.is_empty() {
        true => "",
        false => {
            ". It locks the new version alike, which takes s3:PutObjectRetention and, for a legal hold, \
             s3:PutObjectLegalHold"
        }
    };
    evidence.extend((!locked.is_empty()).then(|| some_of(locked, 5, "; ")));
    let check = Check::new(id, Status::Warn, evidence.join("; "));
    match subject.goal {
        Goal::Unset => check,
        _ => check.remedy(format!(
            "A copy makes a new, locked version and leaves the old one readable until its retention ends; \
             re-encryption in place is refused for a locked version{again}"
        )),
    }
}

fn ownership(acls_off: &Result<bool, AwsError>, subject: &Subject<'_>) -> Check {
    let id = CheckId::ObjectOwnership;
    match acls_off {
        Ok(true) => Check::new(id, Status::Pass, "ACLs are off"),
        Ok(false) if !subject.across_accounts => {
            Check::new(id, Status::Pass, "ACLs are on; writer and bucket are in one account")
        }
        Ok(false) if subject.acl == Some("bucket-owner-full-control") => {
            Check::new(id, Status::Pass, "ACLs are on; every write gives the bucket's owner full control")
        }
        Ok(false) => Check::new(id, Status::Warn, "ACLs are on, and the writer is of another account")
            .remedy("A copy drops the old ACL, and the bucket's owner may lose access: set `acl: bucket-owner-full-control`"),
        Err(error) => unknown(id, error),
    }
}

/// Is the key policy wider than the states' gate can be?
///
/// `account`: the principal's, where that is known.
pub fn key_policy(key: &KeyArn, policy: &Result<String, AwsError>, account: Option<&str>) -> Check {
    let id = CheckId::KeyPolicy;
    let text = match policy {
        Ok(text) => text,
        // KMS Developer Guide, "Allowing users in other accounts to use a KMS key": not across
        // accounts.
        Err(_) if account.is_some_and(|account| account != key.account()) => {
            let owner = key.account();
            return Check::new(
                id,
                Status::Unknown,
                format!("unknown: KMS shows a key policy within the key's account {owner} only"),
            )
            .remedy(format!(
                "Run mode `verify` with credentials of account {owner} that have kms:GetKeyPolicy"
            ));
        }
        Err(error) => return unknown(id, error),
    };
    let Some(policy) = Policy::parse(text) else {
        return Check::new(id, Status::Unknown, "it could not be read as a policy");
    };
    let width = policy.width(key);
    let narrow = "Name single principals: arn:aws:iam::ACCOUNT:role/NAME";
    if !width.everyone.is_empty() {
        let how = decrypt(&width.everyone);
        return Check::new(
            id,
            Status::Fail,
            format!("everyone may {how} (Principal *, no condition)"),
        )
        .remedy(narrow);
    }
    let mut wide = Vec::new();
    if !width.everyone_if.is_empty() {
        let how = decrypt(&width.everyone_if);
        wide.push(format!("everyone may {how} under conditions (Principal *)"));
    }
    for (account, ways) in &width.accounts {
        wide.push(format!("the whole account {account} may {}", decrypt(ways)));
    }
    if !width.remnants.is_empty() {
        let ids: Vec<String> = width.remnants.iter().map(|id| printable(id)).collect();
        wide.push(format!("it names principals that no longer exist: {}", ids.join(", ")));
    }
    let own = if width.own_account {
        format!(
            "; account {} decides by its IAM policies, so whoever has kms:* there decrypts",
            key.account()
        )
    } else {
        String::new()
    };
    if wide.is_empty() {
        Check::new(id, Status::Pass, format!("single principals only{own}"))
    } else {
        Check::new(id, Status::Warn, format!("{}{own}", wide.join("; "))).remedy(narrow)
    }
}

/// How these actions lead to decrypting.
fn decrypt(ways: &BTreeSet<&'static str>) -> String {
    if ways.contains("kms:Decrypt") {
        return "decrypt".to_owned();
    }
    let ways: Vec<&str> = ways.iter().copied().collect();
    format!("get to decrypt by {}", ways.join(", "))
}

#[cfg(test)]
mod tests;
