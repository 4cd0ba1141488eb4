//! What an object is, apart from its body: encryption, attributes; and the memory that held
//! bodies may take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_s3::types::ServerSideEncryption;
use aws_smithy_types::DateTime;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Server-side encryption as the headers of an object show it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerSide {
    /// No header: written before S3 encrypted by default, or on a server that does not.
    None,
    /// `AES256`
    S3,
    /// `aws:kms`, and the key's ARN.
    Kms(String),
    /// `aws:kms:dsse`, and the key's ARN.
    Dsse(String),
    /// A key that only the writer has (SSE-C).
    Customer,
    /// A value that this version does not know.
    Other(String),
}

impl ServerSide {
    /// The KMS key's ARN, where there is one.
    pub fn kms_key(&self) -> Option<&str> {
        match self {
            Self::Kms(key) | Self::Dsse(key) => Some(key),
            _ => None,
        }
    }
}

/// How an object is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteAs {
    /// `AES256`
    S3,
    /// `aws:kms` under the key of this ARN.
    Kms(String),
    /// `aws:kms:dsse` under the key of this ARN.
    Dsse(String),
}

/// What an object carries beside its body, and a re-key has to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `Content-Type`
    pub content_type: Option<String>,
    /// The other headers of the representation, by name.
    pub headers: BTreeMap<&'static str, String>,
    /// User metadata (`x-amz-meta-…`).
    pub metadata: BTreeMap<String, String>,
    /// `None` is STANDARD.
    pub storage_class: Option<String>,
    /// `x-amz-website-redirect-location`
    pub redirect: Option<String>,
    /// How many tags it has. S3 tells only those who may read them.
    pub tag_count: u32,
    /// Object Lock: mode and end of the retention, which may be over.
    pub retention: Option<(String, DateTime)>,
    /// Object Lock: a legal hold is on.
    pub legal_hold: bool,
}

impl Attributes {
    /// Its storage class, where objects of that class are read only after a restore.
    pub fn archive_class(&self) -> Option<&str> {
        self.storage_class.as_deref().filter(|class| is_archive_class(class))
    }

    /// The storage class to write it in: its own, but for an archive class, in which the new
    /// object could not be read; `None` is STANDARD.
    pub fn written_class(&self) -> Option<&str> {
        self.storage_class.as_deref().filter(|class| !is_archive_class(class))
    }

    /// The retention, if it lasts: mode and end. S3 refuses one that ends in the past.
    pub(super) fn lasting_retention(&self) -> Option<(&str, DateTime)> {
        let (mode, until) = self.retention.as_ref()?;
        let now = DateTime::from(SystemTime::now());
        (*until > now).then_some((mode.as_str(), *until))
    }

    /// What keeps this version from being changed or deleted, in words; `None`: nothing.
    pub fn locked_by(&self) -> Option<String> {
        let retention = self.lasting_retention();
        let retention = retention.map(|(mode, until)| format!("{mode} until {until}"));
        let hold = self.legal_hold.then(|| "a legal hold".to_owned());
        let all: Vec<String> = retention.into_iter().chain(hold).collect();
        (!all.is_empty()).then(|| all.join(" and "))
    }

    /// Whether these attributes lock the object at least as those did.
    pub fn is_locked_like(&self, before: &Self) -> bool {
        let retained = before.lasting_retention().is_none_or(|(mode, until)| {
            self.lasting_retention().is_some_and(|(now, end)| now == mode && end >= until)
        });
        retained && (self.legal_hold || !before.legal_hold)
    }
}

/// How an object stands that cannot be read before it is restored (S3 User Guide, "Restoring an
/// archived object").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// No restore has been asked for, or its copy has expired.
    Stored,
    /// A restore is under way.
    Restoring,
    /// A copy can be read for a time.
    Restored,
}

/// GLACIER_IR is read at once.
fn is_archive_class(class: &str) -> bool {
    matches!(class, "GLACIER" | "DEEP_ARCHIVE")
}

/// What the headers say of an archived object: its class, x-amz-archive-status (Intelligent-Tiering)
/// and x-amz-restore.
pub(super) fn archive(class: &str, tier: Option<&str>, restore: Option<&str>) -> Option<Archive> {
    if tier.is_none() && !is_archive_class(class) {
        return None;
    }
    let says = |text| restore.is_some_and(|restore| restore.contains(text));
    Some(if says("ongoing-request=\"true\"") {
        Archive::Restoring
    } else if says("ongoing-request=\"false\"") {
        Archive::Restored
    } else {
        Archive::Stored
    })
}

/// An object as a HEAD shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Changes with every write. Not a hash of the body under SSE-KMS.
    pub etag: String,
    /// `None` in a bucket that never had versions; `null` for an object that was written
    /// before versioning was on, or while it was suspended.
    pub version_id: Option<String>,
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub last_modified: Option<DateTime>,
    /// Its encryption.
    pub server_side: ServerSide,
    /// What S3 says of its replication; `None`: no rule takes it (x-amz-replication-status).
    pub replication: Option<String>,
    /// Whether it is archived; a GET does not tell of Intelligent-Tiering.
    pub archive: Option<Archive>,
    /// All the rest.
    pub attributes: Attributes,
}

impl Seen {
    /// The version that holds this object after another was written over it. A version
    /// `null` outlives that only where versioning is on (`versioned`); otherwise it is what
    /// is overwritten (S3 User Guide, "Working with objects in a versioning-suspended bucket").
    /// AWS names it; other servers may not.
    pub fn outlives(&self, versioned: bool) -> Option<&str> {
        match self.version_id.as_deref() {
            Some("null") | None => versioned.then_some("null"),
            id => id,
        }
    }
}

/// How many bytes of a body are always at hand, whatever room there is.
pub(super) const BEGINNING: usize = 512;

/// An object that was read to its end.
#[derive(Clone)]
pub struct Download {
    /// Its headers.
    pub seen: Seen,
    /// SHA-256 of the body.
    pub sha256: [u8; 32],
    /// When the answer came, RFC 3339 in UTC.
    pub read_at: String,
    /// Its first bytes, [`BEGINNING`] at most.
    pub beginning: Vec<u8>,
    /// The body, where there was room to hold it.
    pub body: Option<Held>,
}

/// A body in memory, and its share of the [`Budget`].
#[derive(Clone)]
pub struct Held {
    /// The body.
    pub bytes: Bytes,
    pub(super) _share: Share,
}

/// A part of the [`Budget`], given back when the last copy is dropped.
#[derive(Debug, Clone)]
pub struct Share {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Bounds the memory that bodies take, however many objects there are.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    bytes: u64,
}

/// Whether a body is to be kept in memory while it is read.
#[derive(Debug)]
pub enum Hold {
    /// Only hash it.
    No,
    /// Keep it if there is room now.
    IfRoom,
    /// There is room: it was reserved before.
    Reserved(Share),
}

impl Budget {
    const UNIT: u64 = 1 << 10;

    /// An unused budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / Self::UNIT).unwrap_or(usize::MAX);
        Self { free: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))), bytes }
    }

    fn units(&self, size: u64) -> Option<u32> {
        u32::try_from(size.div_ceil(Self::UNIT)).ok().filter(|_| size <= self.bytes)
    }

    /// Room for a body, once there is any; `None` for one that is larger than the whole
    /// budget. Who waits here must not hold another body, nor may one be held for work that
    /// has not begun, or nobody gives way.
    pub async fn reserve(&self, size: u64) -> Option<Share> {
        let permit = self.free.clone().acquire_many_owned(self.units(size)?).await.ok()?;
        Some(Share { _permit: Arc::new(permit) })
    }

    pub(super) fn try_reserve(&self, size: u64) -> Option<Share> {
        let permit = self.free.clone().try_acquire_many_owned(self.units(size)?).ok()?;
        Some(Share { _permit: Arc::new(permit) })
    }
}

// A derived Debug would print the state.
impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// What a copy wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The new ETag.
    pub etag: String,
    /// The new version.
    pub version_id: Option<String>,
}

impl WriteAs {
    pub(super) fn headers(&self) -> (ServerSideEncryption, Option<String>) {
        match self {
            Self::S3 => (ServerSideEncryption::Aes256, None),
            Self::Kms(key) => (ServerSideEncryption::AwsKms, Some(key.clone())),
            Self::Dsse(key) => (ServerSideEncryption::AwsKmsDsse, Some(key.clone())),
        }
    }
}

/// The encryption that these headers show.
pub(super) fn server_side(
    encryption: Option<&ServerSideEncryption>,
    key: Option<&str>,
    customer: Option<&str>,
) -> ServerSide {
    if customer.is_some() {
        return ServerSide::Customer;
    }
    let key = key.unwrap_or_default().to_owned();
    match encryption {
        None => ServerSide::None,
        Some(ServerSideEncryption::Aes256) => ServerSide::S3,
        Some(ServerSideEncryption::AwsKms) => ServerSide::Kms(key),
        Some(ServerSideEncryption::AwsKmsDsse) => ServerSide::Dsse(key),
        Some(other) => ServerSide::Other(crate::names::printable(other.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_version_of_its_own_is_kept_only_by_versioning() {
        let seen = |id: Option<&str>| Seen {
            etag: "e".into(),
            version_id: id.map(str::to_owned),
            size: 0,
            last_modified: None,
            server_side: ServerSide::S3,
            replication: None,
            archive: None,
            attributes: Attributes::default(),
        };
        for (id, on, off) in [
            (Some("v1"), Some("v1"), Some("v1")),
            (Some("null"), Some("null"), None),
            (None, Some("null"), None),
        ] {
            assert_eq!((seen(id).outlives(true), seen(id).outlives(false)), (on, off), "{id:?}");
        }
    }

    #[test]
    fn headers_tell_what_is_archived() {
        let ongoing = Some("ongoing-request=\"true\"");
        let done = Some("ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"");
        for (class, tier, restore, expected) in [
            ("STANDARD", None, None, None),
            ("GLACIER_IR", None, None, None),
            ("INTELLIGENT_TIERING", None, None, None),
            ("GLACIER", None, None, Some(Archive::Stored)),
            ("DEEP_ARCHIVE", None, ongoing, Some(Archive::Restoring)),
            ("GLACIER", None, done, Some(Archive::Restored)),
            ("INTELLIGENT_TIERING", Some("ARCHIVE_ACCESS"), None, Some(Archive::Stored)),
            ("INTELLIGENT_TIERING", Some("ARCHIVE_ACCESS"), ongoing, Some(Archive::Restoring)),
        ] {
            assert_eq!(archive(class, tier, restore), expected, "{class} {tier:?} {restore:?}");
        }
    }

    #[test]
    fn headers_become_one_of_the_kinds() {
        use ServerSideEncryption as S;
        assert_eq!(server_side(None, None, None), ServerSide::None);
        assert_eq!(server_side(Some(&S::Aes256), None, None), ServerSide::S3);
        assert_eq!(server_side(Some(&S::AwsKms), Some("k"), None), ServerSide::Kms("k".into()));
        assert_eq!(
            server_side(Some(&S::AwsKmsDsse), Some("k"), None),
            ServerSide::Dsse("k".into())
        );
        assert_eq!(server_side(None, None, Some("AES256")), ServerSide::Customer);
        assert_eq!(server_side(Some(&S::AwsFsx), None, None), ServerSide::Other("aws:fsx".into()));
    }
}
