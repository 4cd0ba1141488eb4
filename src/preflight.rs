//! Is the key fit, and may this principal use it? Asked before anything is written.
//!
//! [`Evidence::gather`] only asks; [`judge`] is pure.

mod sides;

use futures_util::future::join;
use futures_util::stream::{self, StreamExt};
use sides::diagnose;
pub(crate) use sides::{key_policy_of, words};

use crate::aws::{Aws, AwsError, Bucket, Caller, DryRun, KeyDescription, Keys, Kind, NotAllowed};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::grants::{self, Sides, StateBucket};
use crate::names::{KeyArn, is_principal_arn};
use crate::policies::Policy;

/// States tried at the same time.
const PARALLEL: usize = 64;

/// What was asked, and the answers.
#[derive(Debug)]
pub struct Evidence {
    /// Whose credentials these are.
    pub caller: Result<Caller, AwsError>,
    /// About the target key, when there is one.
    pub key: Option<KeyEvidence>,
}

/// The answers about one key.
#[derive(Debug)]
pub struct KeyEvidence {
    /// The key itself.
    pub description: Result<KeyDescription, AwsError>,
    /// Whether it is rotated.
    pub rotation: Result<bool, AwsError>,
    /// The key policy; within the key's account only.
    pub policy: Result<String, AwsError>,
    /// What IAM says of the principal's own policies: the actions that they do not allow.
    /// Asked only where a dry run did not succeed, and about users and roles.
    pub not_allowed_by_iam: Option<Result<Vec<NotAllowed>, AwsError>>,
    /// A state under the key was read.
    pub read_under_key: bool,
    /// A dry run of kms:Encrypt.
    pub encrypt: DryRun,
    /// For each state: dry runs of kms:GenerateDataKey and kms:Decrypt in its context.
    pub uses: Vec<Use>,
}

/// The dry runs for one state.
#[derive(Debug)]
pub struct Use {
    /// The state's object key.
    pub state: String,
    /// kms:GenerateDataKey, which S3 needs to write.
    pub generate: DryRun,
    /// kms:Decrypt, which S3 needs to read.
    pub decrypt: DryRun,
}

impl Use {
    /// The dry run of one of the [`NEEDED`] actions.
    fn of(&self, action: &str) -> &DryRun {
        if action == "kms:Decrypt" { &self.decrypt } else { &self.generate }
    }
}

/// May this principal encrypt and decrypt under the target key?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every dry run would have succeeded.
    Proven,
    /// The direct calls are refused or unclear alike; a kms:ViaService condition would
    /// look just like this, so only S3 can tell. One object has to go first.
    OnlyS3CanTell,
    /// Some would succeed and some are refused: what is missing is not a condition on
    /// the way of the call, and a re-key could lock this principal out.
    Refused,
}

/// What to do about a grant that is not proven.
#[derive(Debug, Clone)]
pub struct GrantRemedy {
    /// In words, with the statements.
    pub text: String,
    /// The sides that an Allow may be missing on: those that are not `Some(true)`.
    pub lacks: Sides,
}

/// What the evidence comes to.
#[derive(Debug)]
pub struct Judgement {
    /// For the report.
    pub checks: Vec<Check>,
    /// What forbids a write.
    pub refusals: Vec<Failure>,
    /// Whether the key can be used; `None` without a target key.
    pub access: Option<Access>,
    /// What to do about the grant, unless it is proven.
    pub remedy: Option<GrantRemedy>,
}

impl Evidence {
    /// Asks STS and KMS, everything at once.
    pub async fn gather(
        aws: &Aws,
        bucket: &Bucket,
        keys: Option<&Keys>,
        target: Option<&KeyArn>,
        states: &[String],
        known: &[String],
    ) -> Self {
        let about_key = async {
            let (some_keys, some_target) = keys.zip(target)?;
            let id = some_target.as_str();
            let first = context(some_target, bucket, states.first());
            let (description, rotation, policy, encrypt, uses) = tokio::join!(
                some_keys.describe(id),
                some_keys.rotation(id),
                some_keys.policy(id),
                some_keys.may_encrypt(id, &first),
                Self::uses(keys, bucket, target, states, false)
            );
            Some(KeyEvidence {
                description,
                rotation: rotation.map(|rotation| rotation.on),
                policy,
                not_allowed_by_iam: None,
                read_under_key: false,
                encrypt,
                uses,
            })
        };
        let (caller, key) = join(aws.caller(known), about_key).await;
        Self { caller, key }
    }

    /// The dry runs for these states.
    pub async fn uses(
        keys: Option<&Keys>,
        bucket: &Bucket,
        target: Option<&KeyArn>,
        states: &[String],
        bucket_key: bool,
    ) -> Vec<Use> {
        let Some((keys, target)) = keys.zip(target) else { return Vec::new() };
        let id = target.as_str();
        stream::iter(states.to_vec())
            .map(|state| async move {
                let context = context(target, bucket, Some(&state).filter(|_| !bucket_key));
                let (generate, decrypt) =
                    join(keys.may_generate_data_key(id, &context), keys.may_decrypt(id, &context))
                        .await;
                Use { state, generate, decrypt }
            })
            .buffered(PARALLEL)
            .collect()
            .await
    }

    /// Asks IAM about the principal's own policies, where a dry run did not succeed.
    pub async fn ask_iam(&mut self, aws: &Aws, target: Option<&KeyArn>) {
        let (Some(key), Some(target), Ok(caller)) = (&mut self.key, target, &self.caller) else {
            return;
        };
        if access(key) == Some(Access::Proven) && key.encrypt.is_allowed() {
            return;
        }
        let principal = &caller.principal.arn;
        // IAM simulates users and roles (API Reference, SimulatePrincipalPolicy).
        if !is_principal_arn(principal) {
            return;
        }
        let asked = aws.not_allowed_by_iam(principal, &NEEDED, target.as_str()).await;
        key.not_allowed_by_iam = Some(asked);
    }

    /// Whether the direct calls of this principal were all allowed: then the key policy asks
    /// for no kms:ViaService of it.
    pub fn is_direct(&self) -> bool {
        self.key.as_ref().and_then(access) == Some(Access::Proven)
    }

    /// Whether a policy has refused a direct call.
    pub fn is_refused(&self) -> bool {
        self.key.as_ref().is_some_and(|key| needed(key).any(DryRun::is_refused))
    }

    /// The key policy, where it may be read.
    pub fn key_policy(&self) -> Option<Policy> {
        Policy::parse(self.key.as_ref()?.policy.as_ref().ok()?)
    }

    /// Adds dry runs that were made later; those of a state that was tried already, under
    /// another context, take their place. Then kms:Encrypt was tried in the wrong context
    /// too, and since nothing uses it, counts as unclear.
    pub fn add(&mut self, uses: Vec<Use>) {
        let Some(key) = &mut self.key else { return };
        let before = key.uses.len();
        key.uses.retain(|old| !uses.iter().any(|new| new.state == old.state));
        if let (true, DryRun::Refused(error)) = (key.uses.len() < before, &key.encrypt) {
            key.encrypt = DryRun::Unclear(error.clone());
        }
        key.uses.extend(uses);
    }
}

/// What S3 needs of the key to write and to read.
const NEEDED: [&str; 2] = ["kms:GenerateDataKey", "kms:Decrypt"];

/// The encryption context that S3 gives: the object's ARN, or with S3 Bucket Keys the
/// bucket's.
pub(crate) fn context(target: &KeyArn, bucket: &Bucket, state: Option<&String>) -> String {
    let bucket = format!("arn:{}:s3:::{}", target.partition(), bucket.name());
    state.map_or(bucket.clone(), |state| format!("{bucket}/{state}"))
}

/// Judges the evidence about the key.
pub fn judge(evidence: &Evidence, target: Option<&KeyArn>, bucket: StateBucket<'_>) -> Judgement {
    let mut judgement =
        Judgement { checks: Vec::new(), refusals: Vec::new(), access: None, remedy: None };
    let (Some(target), Some(key)) = (target, &evidence.key) else { return judgement };
    judgement.checks.push(Check::new(CheckId::KeyArn, Status::Pass, target.as_str()));
    let usable = judgement.key_usable(target, key);
    judgement.rotation(target, &key.rotation);
    // A key that is out of order refuses every use; that says nothing of grants.
    judgement.access(evidence.caller.as_ref().ok(), target, key, usable, bucket);
    judgement
}

impl Judgement {
    fn push(&mut self, id: CheckId, status: Status, evidence: String, remedy: Option<String>) {
        self.checks.push(Check { id, title: id.title(), status, evidence, remedy });
    }

    fn refuse_key(&mut self, evidence: String, remedy: String) {
        self.push(CheckId::KeyUsable, Status::Fail, evidence.clone(), Some(remedy.clone()));
        self.refusals.push(Failure::new(FailureReason::KeyUnusable, evidence, remedy));
    }

    /// Whether the key is of the kind and in the state that S3 needs.
    fn key_usable(&mut self, target: &KeyArn, key: &KeyEvidence) -> bool {
        let problem = match &key.description {
            Ok(description) => unfit(target, description),
            Err(error) if error.kind == Kind::KeyNotFound => Some((
                format!("{target} does not exist ({error})"),
                "Check region, account and id in STATE_KMS_KEY_ID".to_owned(),
            )),
            Err(error) => match out_of_order(key) {
                Some(other) => Some((
                    format!("{target} is not usable ({other})"),
                    format!("Ask its owner: aws kms describe-key --key-id {target}"),
                )),
                None => {
                    self.push(
                        CheckId::KeyUsable,
                        Status::Unknown,
                        format!("the key could not be described ({error})"),
                        Some("Grant kms:DescribeKey on it".into()),
                    );
                    return true;
                }
            },
        };
        match problem {
            Some((evidence, remedy)) => {
                self.refuse_key(evidence, remedy);
                false
            }
            None => {
                let evidence = "Enabled, SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT, customer-managed";
                self.push(CheckId::KeyUsable, Status::Pass, evidence.into(), None);
                true
            }
        }
    }

    fn rotation(&mut self, target: &KeyArn, rotation: &Result<bool, AwsError>) {
        let enable =
            format!("aws kms enable-key-rotation --key-id {target} --region {}", target.region());
        let (status, evidence, remedy) = match rotation {
            Ok(true) => (Status::Pass, "rotation is on".to_owned(), None),
            Ok(false) => (Status::Warn, "rotation is off".to_owned(), Some(enable)),
            Err(error) => (Status::Unknown, format!("unknown ({})", error.lack()), None),
        };
        self.push(CheckId::KeyRotation, status, evidence, remedy);
    }

    fn access(
        &mut self,
        caller: Option<&Caller>,
        target: &KeyArn,
        key: &KeyEvidence,
        usable: bool,
        bucket: StateBucket<'_>,
    ) {
        let found = access(key);
        self.access = found;
        if !usable {
            for id in [CheckId::GrantKeyPolicy, CheckId::GrantIamPolicy] {
                self.push(
                    id,
                    Status::Unknown,
                    "the key is out of order, so nothing can be tried".into(),
                    None,
                );
            }
            return;
        }
        let Some(access) = found else {
            for id in [CheckId::GrantKeyPolicy, CheckId::GrantIamPolicy] {
                self.push(id, Status::Unknown, "there is no state to try it on".into(), None);
            }
            return;
        };
        let trial = trial(key);
        if access == Access::Proven {
            for id in [CheckId::GrantKeyPolicy, CheckId::GrantIamPolicy] {
                let (status, evidence, remedy) = match &key.encrypt {
                    DryRun::Refused(error) => (
                        Status::Warn,
                        format!(
                            "{trial}; kms:Encrypt is refused ({error}). Neither S3 nor Terraform uses it"
                        ),
                        Some(grants::of_deploy(caller, target, Sides::default(), None)),
                    ),
                    _ => (Status::Pass, trial.clone(), None),
                };
                self.push(id, status, evidence, remedy);
            }
            return;
        }
        let found = diagnose(caller, target, key, bucket);
        let sides = found.sides;
        let hint = match found.hint.as_str() {
            "" => String::new(),
            hint => format!("; {hint}"),
        };
        // Two readable sides without a condition leave no room for kms:ViaService.
        // In the key's own account a key policy that names the principal is enough.
        let own = caller.is_some_and(|caller| caller.account == target.account());
        let needs_iam = !own || sides.key_policy == Some(true);
        let lacks = sides.key_policy == Some(false) || (sides.iam == Some(false) && needs_iam);
        // A lack is proven only together with a refusal: a dry run that tells nothing refuses nothing.
        let refused = needed(key).any(DryRun::is_refused);
        let certain = access == Access::Refused || found.denies || (refused && lacks);
        for (id, side, why) in [
            (CheckId::GrantKeyPolicy, sides.key_policy, &found.evidence[0]),
            (CheckId::GrantIamPolicy, sides.iam, &found.evidence[1]),
        ] {
            let (status, remedy) = match side {
                Some(true) => (Status::Pass, None),
                Some(false) if !certain => (Status::Warn, Some(found.remedy.text.clone())),
                Some(false) => (Status::Fail, Some(found.remedy.text.clone())),
                None => (Status::Unknown, Some(found.remedy.text.clone())),
            };
            self.push(id, status, format!("{trial}; {why}{hint}"), remedy);
        }
        if certain {
            self.access = Some(Access::Refused);
            self.refusals.push(Failure::new(
                FailureReason::KeyDenied,
                format!(
                    "this principal may not both encrypt and decrypt under {target}: {trial}; {sides}{hint}"
                ),
                found.remedy.text.clone(),
            ));
        }
        self.remedy = Some(found.remedy);
    }
}

/// What makes the described key unfit, and what to do.
pub(crate) fn unfit(target: &KeyArn, key: &KeyDescription) -> Option<(String, String)> {
    let region = target.region();
    let enable = format!("aws kms enable-key --key-id {target} --region {region}");
    if key.aws_managed {
        return Some((
            format!("{target} is managed by AWS: whoever may read the object may use it"),
            "Give a customer-managed key (aws kms create-key)".into(),
        ));
    }
    match key.state.as_str() {
        "Enabled" => {}
        "Disabled" => {
            return Some((format!("{target} is disabled; nothing under it can be read"), enable));
        }
        "PendingDeletion" => {
            let date = key.deletion_date.as_deref().unwrap_or("an unknown date");
            return Some((
                format!(
                    "{target} will be deleted on {date}; after that, nothing under it can ever be read again"
                ),
                format!(
                    "aws kms cancel-key-deletion --key-id {target} --region {region}\n{enable}"
                ),
            ));
        }
        other => {
            return Some((
                format!("{target} is in the state {other}"),
                format!("aws kms describe-key --key-id {target} --region {region}"),
            ));
        }
    }
    // Only what KMS says counts; servers that imitate it leave fields out.
    let differs = |said: &str, needed| !said.is_empty() && said != needed;
    if differs(&key.spec, "SYMMETRIC_DEFAULT") || differs(&key.usage, "ENCRYPT_DECRYPT") {
        return Some((
            format!("{target} has the spec {} and the usage {}", key.spec, key.usage),
            "S3 takes symmetric encryption keys only (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT): create one"
                .into(),
        ));
    }
    None
}

/// An answer of a dry run that speaks of the key's state, which it gives even where
/// describing the key is refused.
fn out_of_order(key: &KeyEvidence) -> Option<&AwsError> {
    needed(key).chain([&key.encrypt]).find_map(|run| match run {
        DryRun::Unclear(error) if error.kind.is_key_problem() => Some(error),
        _ => None,
    })
}

/// The dry runs of what S3 does with the key.
fn needed(key: &KeyEvidence) -> impl Iterator<Item = &DryRun> {
    key.uses.iter().flat_map(|u| [&u.generate, &u.decrypt])
}

/// `None`: there was no state to try it on.
fn access(key: &KeyEvidence) -> Option<Access> {
    if key.uses.is_empty() {
        return None;
    }
    if needed(key).all(DryRun::is_allowed) {
        return Some(Access::Proven);
    }
    // A condition on the way of the call stands on the statement with both actions: then
    // neither gets through directly. kms:Encrypt, which S3 does not use, may be granted apart.
    let mixed = needed(key).any(DryRun::is_allowed) && needed(key).any(DryRun::is_refused);
    Some(if mixed { Access::Refused } else { Access::OnlyS3CanTell })
}

/// One line on what the dry runs said.
fn trial(key: &KeyEvidence) -> String {
    let count = key.uses.len();
    let mut parts = Vec::new();
    for action in NEEDED {
        let runs = || key.uses.iter().map(|used| used.of(action));
        let refused = runs().filter_map(|run| match run {
            DryRun::Refused(error) => Some(error),
            _ => None,
        });
        let unclear = runs().filter_map(|run| match run {
            DryRun::Unclear(error) => Some(error),
            _ => None,
        });
        let (refused, unclear): (Vec<_>, Vec<_>) = (refused.collect(), unclear.collect());
        for (errors, says) in [(&refused, "does not succeed"), (&unclear, "tells nothing")] {
            if let Some(first) = errors.first() {
                let some = errors.len();
                parts.push(format!(
                    "a dry run of {action} {says} for {some} of {count} states ({first})"
                ));
            }
        }
        if refused.is_empty() && unclear.is_empty() {
            parts.push(format!("dry runs of {action} succeed"));
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests;
