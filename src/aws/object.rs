//! What an object is, apart from its body: encryption, attributes; and the memory that held
//! bodies may take.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_s3::types::ServerSideEncryption;
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
    /// Object Lock: mode and end of the retention.
    pub retention: Option<(String, String)>,
    /// Object Lock: a legal hold is on.
    pub legal_hold: bool,
}

/// An object as a HEAD shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Changes with every write. Not a hash of the body under SSE-KMS.
    pub etag: String,
    /// `None` in a bucket that never had versions.
    pub version_id: Option<String>,
    /// Bytes.
    pub size: u64,
    /// RFC 3339.
    pub last_modified: Option<String>,
    /// Its encryption.
    pub server_side: ServerSide,
    /// All the rest.
    pub attributes: Attributes,
}

/// An object that was read to its end.
#[derive(Clone)]
pub struct Download {
    /// Its headers.
    pub seen: Seen,
    /// SHA-256 of the body.
    pub sha256: [u8; 32],
    /// The body, where there was room to hold it.
    pub body: Option<Held>,
}

/// A body in memory, and its share of the [`Budget`].
#[derive(Clone)]
pub struct Held {
    /// The body.
    pub bytes: Bytes,
    pub(super) _share: Arc<OwnedSemaphorePermit>,
}

/// Bounds the memory that bodies take, however many objects there are.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

/// Whether a body is to be kept in memory while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Only hash it.
    No,
    /// Keep it if there is room now.
    IfRoom,
    /// Wait until there is room. Larger than the whole budget: only hash it.
    Wait,
}

impl Budget {
    /// The bytes that all held bodies together may take.
    pub const BYTES: u64 = 256 << 20;
    const UNIT: u64 = 1 << 10;

    /// An unused budget.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new((Self::BYTES / Self::UNIT) as usize)))
    }

    pub(super) async fn share(&self, size: u64, hold: Hold) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(size.div_ceil(Self::UNIT)).ok()?;
        match hold {
            Hold::No => None,
            Hold::IfRoom => self.0.clone().try_acquire_many_owned(units).ok(),
            Hold::Wait if size > Self::BYTES => None,
            Hold::Wait => self.0.clone().acquire_many_owned(units).await.ok(),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
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
