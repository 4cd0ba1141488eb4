//! The vocabulary of a run's verdict: checks, statuses, and the reasons for a failure.

use serde::Serialize;

/// Declares an enum with its identifier in the report and a text beside it.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident, $method:ident {
        $($(#[$doc:meta])* $variant:ident = $id:literal, $text:literal;)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $(#[doc = $text] $variant,)+ }

        impl $name {
            /// All of them, in the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable identifier.
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id),+ }
            }

            /// One line for people.
            pub fn $method(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.id())
            }
        }
    };
}

named! {
    /// Something that is checked.
    CheckId, title {
        KeyArn = "key-arn", "The key is given by its full ARN";
        KeyUsable = "key-usable", "The key is enabled, symmetric and customer-managed";
        KeyRotation = "key-rotation", "The key's material is rotated";
        SameRegion = "same-region", "Key and bucket are in one region";
        SameAccount = "same-account", "Key and bucket are in one account";
        GrantKeyPolicy = "grant-key-policy", "The key policy lets this principal use the key";
        GrantIamPolicy = "grant-iam-policy", "The principal's own policy lets it use the key";
        KeyPolicy = "key-policy", "The key policy names no more than it should";
        Readers = "readers", "The other roles that must read the states can";
        ObjectReadable = "object-readable", "This principal reads every state";
        ObjectEncrypted = "object-encrypted", "Every state has the wanted encryption";
        ObjectKey = "object-key", "Every state is under the wanted key";
        ContentUnchanged = "content-unchanged", "Bytes and attributes are what they were before";
        BackendConsistent = "backend-consistent", "The backend files say what was asked for";
        Gate = "gate", "S3 access alone does not read a state";
        History = "history", "No old version is readable without the key";
        BucketVersioning = "bucket-versioning", "The bucket keeps old versions";
        BucketDefaultEncryption = "bucket-default-encryption", "The bucket's default encryption fits";
        BucketPublicAccess = "bucket-public-access", "Public access to the bucket is blocked";
        BucketPolicy = "bucket-policy", "The bucket policy refuses nothing that is written";
        Replication = "replication", "Replication goes on under the key";
        ObjectLock = "object-lock", "Object Lock does not stand in the way";
        ObjectOwnership = "object-ownership", "The bucket's owner keeps access to what is written";
        NoRunInFlight = "no-run-in-flight", "No other workflow run writes the states now";
    }
}

named! {
    /// Why a run failed: the output `failure-reason`.
    FailureReason, meaning {
        InvalidInput = "invalid-input", "an input is wrong or missing";
        Credentials = "credentials", "no usable AWS credentials";
        AwsUnavailable = "aws-unavailable", "AWS did not answer, or not in a usable way";
        BackendDiffers = "backend-differs", "a backend file says something else and was to be kept";
        BackendWrite = "backend-write", "a backend file could not be written";
        EncryptionRequired = "encryption-required", "the key variable is empty though a key is required";
        DowngradeRefused = "downgrade-refused", "the key variable is empty over an encrypted state";
        StateMissing = "state-missing", "a required state does not exist";
        StateUnreadable = "state-unreadable", "a state cannot be read by this principal";
        NotRekeyable = "not-rekeyable", "a state is in a form that cannot be re-keyed safely";
        KeyUnusable = "key-unusable", "the key is disabled, pending deletion, of the wrong kind or place";
        KeyDenied = "key-denied", "this principal may not encrypt and decrypt under the key";
        ReadersLockedOut = "readers-locked-out", "a role that must read the states would be locked out";
        KeyInUse = "key-in-use", "something still needs the key, or may";
        KeyGone = "key-gone", "the key does not exist, or not any more";
        KeyAmbiguous = "key-ambiguous", "more than one key could be meant";
        KeyChangeFailed = "key-change-failed", "KMS did not do what was asked";
        LastAdministrator = "last-administrator", "nobody could change the key policy any more";
        VariableNotSet = "variable-not-set", "the variable of the GitHub environment could not be set";
        BucketPolicyDenies = "bucket-policy-denies", "the bucket policy refuses what would be written";
        GateOpen = "gate-open", "a state can be read without a grant on the key";
        GateInconclusive = "gate-inconclusive", "the named gate probe could not tell";
        RunInFlight = "run-in-flight", "another workflow run may be writing the states, or nobody could look";
        CheckFailed = "check-failed", "a check failed";
        VersionsExposed = "versions-exposed", "a noncurrent version is readable without the key, or was not looked at";
        HistoryRekey = "history-rekey-failed", "an old version could not be re-keyed in place";
        BucketMissing = "bucket-missing", "the bucket does not exist";
        WrongBucketOwner = "wrong-bucket-owner", "the bucket belongs to another account than expected";
        Drift = "drift", "a state or a backend file is not as wanted";
        StateLocked = "state-locked", "Terraform's lock on a state is held, or cannot be taken or released";
        ConcurrentWrites = "concurrent-writes", "another writer changed a state again and again";
        RekeyFailed = "rekey-failed", "a state could not be re-keyed; it is as it was";
        Restored = "restored", "a re-keyed state could not be read back and was restored";
        RestoreFailed = "restore-failed", "a re-keyed state could not be read back nor restored";
        ContentChanged = "content-changed", "a state is not what it was before the re-key";
        TimeLimit = "time-limit", "the run took longer than it may";
        Cancelled = "cancelled", "the run was cancelled";
        Internal = "internal", "a defect in this action";
    }
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As it should be.
    Pass,
    /// Not shown either way, for instance for want of a permission.
    Unknown,
    /// Works, but should be mended.
    Warn,
    /// Not as it should be.
    Fail,
}

/// A check's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which check.
    pub id: CheckId,
    /// Its title.
    pub title: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was seen.
    pub evidence: String,
    /// What to do about it, fit to be pasted.
    pub remedy: Option<String>,
}

impl Check {
    /// A result without a remedy.
    pub fn new(id: CheckId, status: Status, evidence: impl Into<String>) -> Self {
        Self { id, title: id.title(), status, evidence: evidence.into(), remedy: None }
    }

    /// The same, with a remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Something that stops the run, or that it ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The output `failure-reason`.
    pub reason: FailureReason,
    /// The object, the observed value.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Failure {
    /// A failure with its remedy.
    pub fn new(
        reason: FailureReason,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { reason, message: message.into(), remedy: remedy.into() }
    }
}
