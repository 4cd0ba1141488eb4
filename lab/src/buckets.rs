//! Buckets and what is in them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::world::now;

/// A bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// The owner's account.
    pub account: String,
    /// Its region.
    pub region: String,
    /// Bucket policy.
    pub policy: Option<Value>,
    /// Whether it keeps old versions.
    pub versioned: bool,
    /// How objects without a header are encrypted.
    pub default_encryption: Encryption,
    /// S3 Bucket Keys, for new objects under the default encryption or a KMS header.
    pub bucket_key: bool,
    /// All four blocks of public access; `None`: never set.
    pub public_access_blocked: Option<bool>,
    /// Object Ownership is BucketOwnerEnforced; `None`: never set.
    pub acls_off: Option<bool>,
    /// A replication rule: its prefix, and whether it takes objects under KMS keys.
    pub replication: Option<(String, bool)>,
    /// The key that the rule encrypts the replicas of those with.
    pub replica_kms_key: Option<String>,
    /// Object Lock is enabled, with a default retention (GOVERNANCE) of so many days; 0: with
    /// none.
    pub retention_days: Option<i32>,
    /// A lifecycle rule for old versions; `None`: never set.
    pub lifecycle: Option<Lifecycle>,
    /// What becomes of UpdateObjectEncryption.
    pub update_encryption: UpdateEncryption,
    /// It does as if `If-Match` and its kin were not there, as lax servers do.
    pub ignores_conditions: bool,
    /// Oldest first.
    pub objects: BTreeMap<String, Vec<Version>>,
}

/// How a version is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// Written before S3 encrypted by default.
    None,
    /// `AES256`
    SseS3,
    /// `aws:kms` under the key of this ARN.
    Kms {
        /// The key's ARN.
        key: String,
    },
    /// `aws:kms:dsse` under the key of this ARN.
    Dsse {
        /// The key's ARN.
        key: String,
    },
    /// A customer-provided key.
    SseC,
}

impl Encryption {
    /// The KMS key, where there is one.
    pub fn kms_key(&self) -> Option<&str> {
        match self {
            Self::Kms { key } | Self::Dsse { key } => Some(key),
            _ => None,
        }
    }
}

/// One version of an object, or a delete marker.
#[derive(Debug, Clone)]
pub struct Version {
    /// `null` without versioning.
    pub version_id: String,
    /// The body.
    pub body: Bytes,
    /// Changes with every write; the body's MD5 under SSE-S3 only.
    pub etag: String,
    /// Its encryption.
    pub encryption: Encryption,
    /// Seconds since the epoch.
    pub modified: u64,
    /// It says that the object is deleted.
    pub delete_marker: bool,
    /// Content-Type.
    pub content_type: Option<String>,
    /// Cache-Control.
    pub cache_control: Option<String>,
    /// Content-Encoding.
    pub content_encoding: Option<String>,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// `None` is STANDARD.
    pub storage_class: Option<String>,
    /// How far the restore of an archived version is; `None`: never asked for.
    pub restore: Option<Restore>,
    /// Encrypted with the bucket's S3 Bucket Key.
    pub bucket_key: bool,
    /// Object Lock retention.
    pub retention: Option<Retention>,
    /// Object Lock legal hold.
    pub legal_hold: bool,
    /// `CRC32`, `SHA256`, …; the checksum itself follows from the body.
    pub checksum_algorithm: Option<String>,
    /// Its bytes come out otherwise than they were written, so that the checksum does not fit.
    pub damaged: bool,
    /// What S3 takes the size for, to show an object over 5 GB without one.
    pub declared_size: Option<u64>,
}

/// The restore of a version in an archive class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// It has been asked for, and takes hours.
    Ongoing,
    /// There is a copy that can be read, until then (seconds since the epoch).
    Until(u64),
}

/// A version's retention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// `GOVERNANCE` or `COMPLIANCE`.
    pub mode: String,
    /// In seconds since the epoch.
    pub until: u64,
}

/// When old versions expire.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    /// The rule's prefix.
    pub prefix: String,
    /// Days after which a version that is no longer current expires.
    pub noncurrent_days: i32,
}

/// What a server makes of UpdateObjectEncryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpdateEncryption {
    /// What AWS does since January 2026.
    #[default]
    Supported,
    /// It is refused with 501.
    NotImplemented,
    /// It is taken for a PutObject: the object is overwritten with the request's XML, as
    /// emulators do that do not know the sub-resource.
    Overwrites,
}

impl Bucket {
    /// An empty bucket. AWS, since April 2023: public access is blocked, ACLs are off.
    pub fn new(account: &str, region: &str) -> Self {
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            policy: None,
            versioned: true,
            default_encryption: Encryption::SseS3,
            bucket_key: false,
            public_access_blocked: Some(true),
            acls_off: Some(true),
            replication: None,
            replica_kms_key: None,
            retention_days: None,
            lifecycle: None,
            update_encryption: UpdateEncryption::default(),
            ignores_conditions: false,
            objects: BTreeMap::new(),
        }
    }
}

impl Version {
    pub(crate) fn new(body: Bytes, encryption: Encryption) -> Self {
        Self {
            version_id: String::new(),
            body,
            etag: String::new(),
            encryption,
            modified: 0,
            delete_marker: false,
            content_type: None,
            cache_control: None,
            content_encoding: None,
            metadata: BTreeMap::new(),
            tags: BTreeMap::new(),
            storage_class: None,
            restore: None,
            bucket_key: false,
            retention: None,
            legal_hold: false,
            checksum_algorithm: None,
            damaged: false,
            declared_size: None,
        }
    }

    /// What S3 takes the size for.
    pub fn size(&self) -> u64 {
        self.declared_size.unwrap_or(self.body.len() as u64)
    }

    /// Whether it is in an archive class and no copy of it can be read now. AWS (User Guide,
    /// "Restoring an archived object"): GLACIER_IR is read at once.
    pub fn is_archived(&self) -> bool {
        let restored = matches!(self.restore, Some(Restore::Until(until)) if until > now());
        matches!(self.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE")) && !restored
    }

    /// Whether Object Lock protects it now.
    pub fn is_locked(&self) -> bool {
        self.legal_hold || self.retention.as_ref().is_some_and(|lock| lock.until > now())
    }
}
