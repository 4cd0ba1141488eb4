//! Old versions, and re-encryption in place.

use aws_sdk_s3::types::{ObjectEncryption, ObjectVersion as ListedVersion, SsekmsEncryption};
use aws_smithy_types::DateTime;

use super::error::classify;
use super::object::{Budget, Hold, Seen, ServerSide};
use super::s3::Bucket;
use super::{AwsError, Kind};

/// A version that is not the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldVersion {
    /// Its id.
    pub id: String,
    /// When it was written.
    pub written_at: Option<DateTime>,
}

/// The versions of an object, delete markers left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// The current one's id, where there is one; `null` in a bucket that never had versions.
    pub current: Option<String>,
    /// The others.
    pub old: Vec<OldVersion>,
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// The object key.
    pub key: String,
    /// Its id; `null` in a bucket that never had versions.
    pub id: String,
    /// It is the current one.
    pub current: bool,
    /// When it was written.
    pub written_at: Option<DateTime>,
}

impl Bucket {
    /// The versions of an object (s3:ListBucketVersions).
    ///
    /// # Errors
    /// As classified.
    pub async fn versions_of(&self, key: &str) -> Result<Versions, AwsError> {
        let mut found = Versions::default();
        for ObjectVersion { id, current, written_at, .. } in self.versions(Some(key)).await? {
            if current {
                found.current = Some(id);
            } else {
                found.old.push(OldVersion { id, written_at });
            }
        }
        Ok(found)
    }

    /// Every version of every object, delete markers left out.
    ///
    /// # Errors
    /// As classified.
    pub async fn all_versions(&self) -> Result<Vec<ObjectVersion>, AwsError> {
        self.versions(None).await
    }

    /// The versions of one object, or of all.
    async fn versions(&self, of: Option<&str>) -> Result<Vec<ObjectVersion>, AwsError> {
        let mut found = Vec::new();
        let mut markers = (None, None);
        loop {
            let answer = self
                .client
                .list_object_versions()
                .bucket(&self.name)
                .set_prefix(of.map(str::to_owned))
                .set_key_marker(markers.0.take())
                .set_version_id_marker(markers.1.take())
                .set_expected_bucket_owner(self.owner.clone())
                .send()
                .await
                .map_err(|e| classify("s3:ListBucketVersions", &e))?;
            // The prefix `production` is that of `production-bootstrap` too.
            let own = |version: &&ListedVersion| of.is_none() || version.key() == of;
            found.extend(answer.versions().iter().filter(own).map(|version| ObjectVersion {
                key: version.key().unwrap_or_default().to_owned(),
                id: version.version_id().unwrap_or("null").to_owned(),
                current: version.is_latest() == Some(true),
                written_at: version.last_modified().copied(),
            }));
            // Keys are listed in order, so the object's own versions come first.
            let next = answer.next_key_marker();
            let beyond = of.is_some_and(|key| next.is_none_or(|next| next > key));
            if answer.is_truncated() != Some(true) || beyond {
                return Ok(found);
            }
            markers = (next.map(str::to_owned), answer.next_version_id_marker().map(str::to_owned));
        }
    }

    /// The encryption of one version.
    ///
    /// # Errors
    /// As classified.
    pub async fn encryption_of(&self, version: &ObjectVersion) -> Result<ServerSide, AwsError> {
        // Who may not ask for versions may still see the current object.
        let seen = match version.id.as_str() {
            "null" if version.current => self.head(&version.key).await?,
            id => self.head_version(&version.key, id).await?,
        };
        Ok(seen.server_side)
    }

    /// Puts an object, or one version of it, under a key without rewriting it
    /// (S3 UpdateObjectEncryption, January 2026): ETag, date and version stay.
    ///
    /// A server that does not know the operation takes it for a PUT and overwrites the
    /// object. So it is never sent to one that the user has not named, and to any that is
    /// not AWS's own only with `If-None-Match: *`: a PUT on an object that is there then
    /// fails, where conditions are heeded.
    ///
    /// # Errors
    /// As classified.
    pub async fn encrypt_in_place(
        &self,
        key: &str,
        version: Option<&str>,
        kms_key: &str,
    ) -> Result<(), AwsError> {
        let operation = "s3:UpdateObjectEncryption";
        let encryption = SsekmsEncryption::builder()
            .kms_key_arn(kms_key)
            .build()
            .map_err(|_| AwsError::new(Kind::Other, operation, "the request cannot be made"))?;
        let guard = self.custom_endpoint;
        self.client
            .update_object_encryption()
            .bucket(&self.name)
            .key(key)
            .set_version_id(version.map(str::to_owned))
            .set_expected_bucket_owner(self.owner.clone())
            .object_encryption(ObjectEncryption::Ssekms(encryption))
            .customize()
            .mutate_request(move |request| {
                if guard {
                    request.headers_mut().insert("if-none-match", "*");
                }
            })
            .config_override(super::s3::once())
            .send()
            .await
            .map_err(|e| classify(operation, &e))?;
        Ok(())
    }

    /// Whether a GET is answered. The body is not read.
    ///
    /// # Errors
    /// As classified.
    pub async fn try_get(&self, key: &str) -> Result<(), AwsError> {
        let request = self.client.get_object().bucket(&self.name).key(key);
        let request = request.set_expected_bucket_owner(self.owner.clone());
        request.send().await.map_err(|e| classify("s3:GetObject", &e))?;
        Ok(())
    }

    /// The SHA-256 of one version's body.
    ///
    /// # Errors
    /// As classified.
    pub async fn hash_version(
        &self,
        key: &str,
        version: &str,
    ) -> Result<(Seen, [u8; 32]), AwsError> {
        let download = self.read(key, Some(version), None, Hold::No, &Budget::new(0)).await?;
        Ok((download.seen, download.sha256))
    }
}
