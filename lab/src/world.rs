//! The accounts, principals, buckets and keys, and direct ways to arrange and inspect them
//! that ask no policy.

use std::collections::BTreeMap;

use bytes::Bytes;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::buckets::{Bucket, Encryption, Retention, Version};
use crate::github::Claims;
use crate::github_rest::GitHub;
use crate::kms_keys::{Grant, Known};
use crate::policy::{Decision, Identity, Policies, Request, evaluate};
use crate::roles::Role;

/// Everything that there is.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub(crate) principals: BTreeMap<String, Principal>,
    /// By ARN.
    pub(crate) roles: BTreeMap<String, Role>,
    /// The repository, as a job sees it.
    pub github: GitHub,
    /// GitHub's tokens that were issued.
    pub(crate) web_tokens: BTreeMap<String, Claims>,
    pub(crate) buckets: BTreeMap<String, Bucket>,
    pub(crate) keys: BTreeMap<String, Key>,
    pub(crate) aliases: BTreeMap<String, String>,
    /// Terraform's lock tables by name, of the caller's account: what `Info` is for a `LockID`.
    pub lock_tables: BTreeMap<String, BTreeMap<String, String>>,
    /// Denials say «Access Denied» and no more, as AWS does across accounts at times.
    pub terse: bool,
    /// Every simulation of IAM's ends in an explicit deny, whoever is asked about, as emulators
    /// answer that enforce no policies (LocalStack 4.6, of an account's root).
    pub simulates_denials: bool,
    /// How long a session policy may be, packed, below the 2,048 characters of its text.
    pub packed_policy_limit: Option<usize>,
    pub(crate) state_key: String,
    /// What some calls to KMS still know.
    pub(crate) known: Option<Known>,
    counter: u64,
}

/// Someone with credentials.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Who it is.
    pub identity: Identity,
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret: String,
    /// Session token, for a session.
    pub token: Option<String>,
    /// Its IAM policies.
    pub policies: Vec<Value>,
    /// What the session was limited to.
    pub session_policy: Option<Value>,
}

/// A KMS key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its ARN.
    pub arn: String,
    /// `Enabled`, `Disabled`, `PendingDeletion`, …
    pub state: String,
    /// When it will be deleted, in seconds since the epoch.
    pub deletion: Option<u64>,
    /// Managed by AWS.
    pub aws_managed: bool,
    /// `SYMMETRIC_DEFAULT`, …
    pub spec: String,
    /// `ENCRYPT_DECRYPT`, …
    pub usage: String,
    /// Rotated.
    pub rotation: bool,
    /// The days from one rotation to the next.
    pub rotation_period: u64,
    /// Key policy.
    pub policy: Value,
    /// What its owner says of it.
    pub description: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Grants, which the lab lists and does not weigh.
    pub grants: Vec<Grant>,
    /// In seconds since the epoch.
    pub created: u64,
}

impl Key {
    /// An enabled, symmetric, customer-managed key.
    pub fn new(arn: &str, policy: Value) -> Self {
        Self {
            arn: arn.to_owned(),
            state: "Enabled".into(),
            deletion: None,
            aws_managed: false,
            spec: "SYMMETRIC_DEFAULT".into(),
            usage: "ENCRYPT_DECRYPT".into(),
            rotation: true,
            rotation_period: 365,
            policy,
            description: String::new(),
            tags: BTreeMap::new(),
            grants: Vec::new(),
            created: 1_700_000_000,
        }
    }

    /// The owner's account.
    pub fn account(&self) -> &str {
        self.arn.split(':').nth(4).unwrap_or_default()
    }

    /// The region.
    pub fn region(&self) -> &str {
        self.arn.split(':').nth(3).unwrap_or_default()
    }

    /// The bare id.
    pub fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }
}

/// An AWS error: code, HTTP status, message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The service's code.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// The message.
    pub message: String,
}

impl Failure {
    /// An error.
    pub fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into() }
    }
}

impl World {
    /// An empty world.
    pub fn new() -> Self {
        Self::default()
    }

    // --- arranging ---------------------------------------------------------------------

    /// Adds a user or a role's session.
    pub fn add_principal(&mut self, name: &str, identity: Identity, policies: Vec<Value>) {
        let is_session = identity.session_arn.is_some();
        // Of AWS's shape and plainly not AWS's.
        let mut tails = (self.principals.len() + 1..).map(|at| format!("LABLABLAB{at:03}EXMP"));
        let is_free = |tail: &String| {
            !self.principals.values().any(|who| who.access_key.ends_with(tail.as_str()))
        };
        let tail = tails.find(is_free).unwrap_or_default();
        let access_key = format!("{}{tail}", if is_session { "ASIA" } else { "AKIA" });
        let token = is_session.then(|| format!("lab-session-token-of-{name}"));
        let secret = format!("lab-secret-of-{name}");
        self.principals.insert(
            name.to_owned(),
            Principal { identity, access_key, secret, token, policies, session_policy: None },
        );
    }

    /// A principal by its name in the preset.
    pub fn principal_mut(&mut self, name: &str) -> &mut Principal {
        self.principals.get_mut(name).expect("a principal of the preset")
    }

    /// Adds an empty bucket.
    pub fn add_bucket(&mut self, name: &str, account: &str, region: &str) {
        self.buckets.insert(name.to_owned(), Bucket::new(account, region));
    }

    /// A bucket.
    pub fn bucket_mut(&mut self, name: &str) -> &mut Bucket {
        self.buckets.get_mut(name).expect("a bucket of this world")
    }

    /// Adds a key.
    pub fn add_key(&mut self, key: Key) {
        self.keys.insert(key.arn.clone(), key);
    }

    /// A key.
    pub fn key_mut(&mut self, arn: &str) -> &mut Key {
        self.keys.get_mut(arn).expect("a key of this world")
    }

    /// The preset's key for the states.
    pub fn state_key_arn(&self) -> &str {
        &self.state_key
    }

    /// A further key, granted like this one; returns its ARN.
    pub fn add_key_like(&mut self, arn: &str) -> String {
        let mut key = self.keys[arn].clone();
        let at = self.tick();
        let cut = key.arn.len() - key.id().len();
        key.arn = format!("{}{:08x}-0000-4000-8000-000000000000", &key.arn[..cut], at);
        let arn = key.arn.clone();
        self.add_key(key);
        arn
    }

    /// The AWS-managed key of S3 in the bucket's account and region.
    pub fn aws_s3_key(&mut self, bucket: &str) -> String {
        let Bucket { account, region, .. } = &self.buckets[bucket];
        let arn =
            format!("arn:aws:kms:{region}:{account}:key/a3a3a3a3-0000-4000-8000-000000000000");
        if !self.keys.contains_key(&arn) {
            // AWS: usable by everyone in the account, through S3 only.
            let policy = json!({ "Statement": [{
                "Effect": "Allow", "Principal": "*", "Resource": "*",
                "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
                "Condition": { "StringEquals": {
                    "kms:CallerAccount": account, "kms:ViaService": format!("s3.{region}.amazonaws.com"),
                } },
            }, {
                "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{account}:root") },
                "Action": ["kms:Describe*", "kms:Get*", "kms:List*"], "Resource": "*",
            }] });
            let mut key = Key::new(&arn, policy);
            key.aws_managed = true;
            self.add_key(key);
        }
        arn
    }

    /// Writes an object as the bucket's owner.
    pub fn put_object(
        &mut self,
        bucket: &str,
        key: &str,
        body: impl Into<Bytes>,
        encryption: Encryption,
    ) {
        let mut version = Version::new(body.into(), encryption);
        version.content_type = Some("application/json".into());
        version.bucket_key =
            self.buckets[bucket].bucket_key && matches!(version.encryption, Encryption::Kms { .. });
        self.write(bucket, key, version);
    }

    /// Changes the current version in place.
    pub fn with_object(&mut self, bucket: &str, key: &str, change: impl FnOnce(&mut Version)) {
        let versions = self.bucket_mut(bucket).objects.get_mut(key);
        change(versions.and_then(|v| v.last_mut()).expect("an object"));
    }

    /// Puts tags on an object.
    pub fn tag_object(&mut self, bucket: &str, key: &str, tags: &[(&str, &str)]) {
        self.with_object(bucket, key, |version| {
            version.tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        });
    }

    /// Removes an object and all its versions.
    pub fn remove_object(&mut self, bucket: &str, key: &str) {
        self.bucket_mut(bucket).objects.remove(key);
    }

    /// Deletes an object: with versions, by a delete marker on top.
    pub fn delete_object(&mut self, bucket: &str, key: &str) {
        if self.buckets[bucket].versioned {
            let mut marker = Version::new(Bytes::new(), Encryption::SseS3);
            marker.delete_marker = true;
            self.write(bucket, key, marker);
        } else {
            self.remove_object(bucket, key);
        }
    }

    // --- inspecting --------------------------------------------------------------------

    /// The current version; `None` under a delete marker.
    pub fn current(&self, bucket: &str, key: &str) -> Option<&Version> {
        self.versions(bucket, key).last().filter(|version| !version.delete_marker)
    }

    /// All versions, oldest first.
    pub fn versions(&self, bucket: &str, key: &str) -> &[Version] {
        self.buckets.get(bucket).and_then(|b| b.objects.get(key)).map_or(&[], Vec::as_slice)
    }

    /// All keys, also those that are no more to be used.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.values()
    }

    /// The ARN of the key that an alias of an account stands for.
    pub fn alias(&self, name: &str) -> Option<&str> {
        let found = self.aliases.iter().find(|(arn, _)| arn.ends_with(&format!(":{name}")));
        found.map(|(_, key)| key.as_str())
    }

    /// All content, encryption and versions of a bucket in one value.
    pub fn digest(&self, bucket: &str) -> String {
        let mut hash = Md5::new();
        hash.update(format!("{:?}", self.buckets.get(bucket).map(|b| &b.objects)));
        hex(&hash.finalize())
    }

    // --- for the services --------------------------------------------------------------

    pub(crate) fn tick(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Stores a version as the newest one; returns its id.
    pub(crate) fn write(&mut self, bucket: &str, key: &str, mut version: Version) -> String {
        let at = self.tick();
        let bucket = self.bucket_mut(bucket);
        version.version_id =
            if bucket.versioned { format!("ver-{at:020}") } else { "null".to_owned() };
        version.modified = now();
        // AWS: the MD5 of the body for SSE-S3, something else for SSE-KMS.
        version.etag = match version.encryption {
            Encryption::None | Encryption::SseS3 => hex(&Md5::digest(&version.body)),
            _ => hex(&Md5::digest(format!("{at}:{}", version.body.len()))),
        };
        // AWS: the default retention holds for every new version that brings no own one.
        let days = bucket.retention_days.and_then(|days| u64::try_from(days).ok()).unwrap_or(0);
        if days > 0 && version.retention.is_none() && !version.delete_marker {
            let until = version.modified + days * 86_400;
            version.retention = Some(Retention { mode: "GOVERNANCE".to_owned(), until });
        }
        let id = version.version_id.clone();
        let versions = bucket.objects.entry(key.to_owned()).or_default();
        if !bucket.versioned {
            versions.retain(|v| v.version_id != "null");
        }
        versions.push(version);
        id
    }

    /// The version id that S3 tells. AWS: a bucket that never had versions tells none; once
    /// versioning is on, objects of before are the version `null`.
    pub(crate) fn shown_id(&self, bucket: &str, version: &Version) -> Option<String> {
        let versioned = self.buckets.get(bucket).is_some_and(|bucket| bucket.versioned);
        Some(version.version_id.clone()).filter(|id| versioned || id != "null")
    }

    /// Whose access key this is.
    pub(crate) fn by_access_key(&self, access_key: &str) -> Option<&Principal> {
        self.principals.values().find(|p| p.access_key == access_key)
    }

    /// Asks the policies about an S3 action.
    pub(crate) fn may(
        &self,
        who: &Principal,
        action: &str,
        bucket_name: &str,
        key: Option<&str>,
        context: BTreeMap<String, String>,
    ) -> Result<(), Failure> {
        let Some(bucket) = self.buckets.get(bucket_name) else {
            return Err(Failure::new("NoSuchBucket", 404, "The specified bucket does not exist"));
        };
        let resource = match key {
            Some(key) => format!("arn:aws:s3:::{bucket_name}/{key}"),
            None => format!("arn:aws:s3:::{bucket_name}"),
        };
        let policies = Policies { resource: bucket.policy.as_ref(), ..policies_of(who) };
        self.decide(
            who,
            action,
            &resource,
            &bucket.account,
            context,
            &policies,
            "AccessDenied",
            403,
        )
    }

    /// Asks the policies about a KMS action on a key, and not the key about its state.
    pub(crate) fn may_use_key(
        &self,
        who: &Principal,
        action: &str,
        arn: &str,
        context: BTreeMap<String, String>,
    ) -> Result<&Key, Failure> {
        let unknown = || {
            let message = format!("Key '{arn}' does not exist");
            Failure::new("NotFoundException", 400, message)
        };
        let key = self.keys.get(arn).ok_or_else(unknown)?;
        self.may_under(who, action, arn, &key.policy, context)?;
        Ok(key)
    }

    /// Asks the policies about an action of STS or IAM. There, no resource has a policy but
    /// a role's trust policy.
    pub(crate) fn may_call(
        &self,
        who: &Principal,
        action: &str,
        resource: &str,
        owner: &str,
    ) -> Result<(), Failure> {
        let policies = policies_of(who);
        self.decide(who, action, resource, owner, BTreeMap::new(), &policies, "AccessDenied", 403)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one decision")]
    pub(crate) fn decide(
        &self,
        who: &Principal,
        action: &str,
        resource: &str,
        owner: &str,
        mut context: BTreeMap<String, String>,
        policies: &Policies<'_>,
        code: &'static str,
        status: u16,
    ) -> Result<(), Failure> {
        context.insert("aws:PrincipalArn".into(), who.identity.arn.clone());
        context.insert("aws:SecureTransport".into(), "true".into());
        let request = Request { identity: &who.identity, action, resource, owner, context };
        match evaluate(&request, policies) {
            Decision::Allow => Ok(()),
            Decision::Deny(_) if self.terse => Err(Failure::new(code, status, "Access Denied")),
            Decision::Deny(clause) => {
                let tail = if clause.ends_with("the") {
                    format!(" {action} action")
                } else {
                    String::new()
                };
                let message = format!(
                    "User: {} is not authorized to perform: {action} on resource: {resource} {clause}{tail}",
                    who.identity.shown()
                );
                Err(Failure::new(code, status, message))
            }
        }
    }
}

/// What limits someone on the own side.
pub(crate) fn policies_of(who: &Principal) -> Policies<'_> {
    Policies {
        identity: who.policies.iter().collect(),
        session: who.session_policy.as_ref(),
        ..Policies::default()
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
