//! Terraform's lock objects: written only where there is none, deleted only as they are.

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::error::classify;
use super::object::{Budget, Hold, WriteAs};
use super::s3::{Bucket, once};
use super::{AwsError, Kind};

/// A lock is a few hundred bytes; what is larger is none.
const LARGEST: u64 = 64 << 10;

/// An ETag that no object has: S3's are hexadecimal.
const NO_ETAG: &str = "\"tfstate-kms-may-it-delete\"";

impl Bucket {
    /// Writes the lock object if there is none (`If-None-Match: *`); returns its ETag.
    ///
    /// # Errors
    /// As classified; [`Kind::ConditionFailed`] or [`Kind::Conflict`] when there is one.
    pub async fn put_new(
        &self,
        key: &str,
        body: Bytes,
        write: &WriteAs,
    ) -> Result<String, AwsError> {
        let (encryption, kms_key) = write.headers();
        let answer = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .if_none_match("*")
            .content_type("application/json")
            .body(ByteStream::from(body))
            .set_expected_bucket_owner(self.owner.clone())
            .server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_acl(self.acl.clone())
            .customize()
            .config_override(once())
            .send()
            .await
            .map_err(|e| classify("s3:PutObject", &e))?;
        Ok(answer.e_tag().unwrap_or_default().to_owned())
    }

    /// Reads a small object: its body and ETag.
    ///
    /// # Errors
    /// As classified; [`Kind::Invalid`] for one that is too large.
    pub async fn get_small(&self, key: &str) -> Result<(Bytes, String), AwsError> {
        let budget = Budget::new(LARGEST);
        let download = self.get(key, None, Hold::IfRoom, &budget).await?;
        let body = download.body.map(|held| held.bytes);
        let body = body.ok_or_else(|| AwsError::new(Kind::Invalid, "s3:GetObject", "too large"))?;
        Ok((body, download.seen.etag))
    }

    /// Deletes an object if it still has this ETag.
    ///
    /// # Errors
    /// As classified.
    pub async fn delete_if(&self, key: &str, etag: &str) -> Result<(), AwsError> {
        self.client
            .delete_object()
            .bucket(&self.name)
            .key(key)
            .if_match(etag)
            .set_expected_bucket_owner(self.owner.clone())
            .send()
            .await
            .map_err(|e| classify("s3:DeleteObject", &e))?;
        Ok(())
    }

    /// Whether this principal may delete an object that is not there: asked by a conditional
    /// DELETE that cannot match, so that nothing comes of it.
    ///
    /// # Errors
    /// The refusal, or that nobody answered.
    pub async fn may_delete(&self, key: &str) -> Result<(), AwsError> {
        match self.delete_if(key, NO_ETAG).await {
            Err(error) if !matches!(error.kind, Kind::NotFound | Kind::ConditionFailed) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}
