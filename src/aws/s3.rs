//! One method for each S3 operation on the state bucket, and what an object is as
//! its headers tell.

use std::collections::BTreeMap;

use aws_config::retry::RetryConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::copy_object::CopyObjectOutput;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    MetadataDirective, ObjectCannedAcl, ObjectLockLegalHoldStatus, ObjectLockMode, StorageClass,
};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::error::classify;
use super::object::{
    Attributes, BEGINNING, Budget, Copied, Download, Held, Hold, Seen, Share, WriteAs, archive,
    server_side,
};
use super::{AwsError, Kind};
use crate::names::percent_encoded;

/// How often a body that breaks off is read again from its beginning.
const BODY_ATTEMPTS: u32 = 3;

/// The state bucket. Every call carries the account that must own it
/// (`x-amz-expected-bucket-owner`), so a bucket of the same name in foreign hands
/// gets nothing.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub(super) client: Client,
    pub(super) name: String,
    pub(super) owner: Option<String>,
    pub(super) acl: Option<ObjectCannedAcl>,
    /// The endpoint is not AWS's own, or may not be.
    pub(super) custom_endpoint: bool,
}

impl Bucket {
    pub(super) fn new(
        client: Client,
        name: &str,
        owner: Option<&str>,
        acl: Option<&str>,
        custom_endpoint: bool,
    ) -> Self {
        Self {
            client,
            name: name.to_owned(),
            owner: owner.map(str::to_owned),
            acl: acl.map(ObjectCannedAcl::from),
            custom_endpoint,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bucket's region. S3 names it on 200, 301 and 403 alike, whatever the
    /// permissions, so a refusal that names it is an answer too.
    ///
    /// # Errors
    /// As classified, when no region was named.
    pub async fn region(&self) -> Result<String, AwsError> {
        let result = self
            .client
            .head_bucket()
            .bucket(&self.name)
            .set_expected_bucket_owner(self.owner.clone())
            .send()
            .await;
        match result {
            Ok(answer) => Ok(answer.bucket_region().unwrap_or_default().to_owned()),
            Err(error) => {
                let error = classify("s3:HeadBucket", &error);
                error.bucket_region.clone().ok_or(error)
            }
        }
    }

    /// Whether S3 answers for the bucket with this expected owner (needs s3:ListBucket).
    pub async fn exists(&self) -> bool {
        let request = self.client.head_bucket().bucket(&self.name);
        request.set_expected_bucket_owner(self.owner.clone()).send().await.is_ok()
    }

    /// The headers of an object; needs s3:GetObject, and no KMS permission since no
    /// checksum is asked for.
    ///
    /// # Errors
    /// As classified. A HEAD's error has no body, so a missing permission and a key
    /// that is out of order look alike.
    pub async fn head(&self, key: &str) -> Result<Seen, AwsError> {
        self.head_of(key, None).await
    }

    /// The headers of one version (s3:GetObjectVersion).
    ///
    /// # Errors
    /// As classified.
    pub async fn head_version(&self, key: &str, version: &str) -> Result<Seen, AwsError> {
        self.head_of(key, Some(version)).await
    }

    async fn head_of(&self, key: &str, version: Option<&str>) -> Result<Seen, AwsError> {
        let answer = self
            .client
            .head_object()
            .bucket(&self.name)
            .key(key)
            .set_version_id(version.map(str::to_owned))
            .set_expected_bucket_owner(self.owner.clone())
            .send()
            .await
            .map_err(|e| classify("s3:HeadObject", &e))?;
        Ok(seen_by_head(&answer))
    }

    /// Reads an object to its end, and holds its body as `hold` says.
    ///
    /// # Errors
    /// As classified; [`Kind::ConditionFailed`] when `if_match` is not its ETag any more.
    pub async fn get(
        &self,
        key: &str,
        if_match: Option<&str>,
        hold: Hold,
        budget: &Budget,
    ) -> Result<Download, AwsError> {
        self.read(key, None, if_match, hold, budget).await
    }

    /// Reads an object, or one version of it, to its end.
    pub(super) async fn read(
        &self,
        key: &str,
        version: Option<&str>,
        if_match: Option<&str>,
        hold: Hold,
        budget: &Budget,
    ) -> Result<Download, AwsError> {
        let mut attempt = 1;
        loop {
            let answer = self
                .client
                .get_object()
                .bucket(&self.name)
                .key(key)
                .set_version_id(version.map(str::to_owned))
                .set_if_match(if_match.map(str::to_owned))
                .set_expected_bucket_owner(self.owner.clone())
                .send()
                .await
                .map_err(|e| classify("s3:GetObject", &e))?;
            let seen = seen_by_get(&answer);
            let share = match &hold {
                Hold::No => None,
                Hold::IfRoom => budget.try_reserve(seen.size),
                Hold::Reserved(share) => Some(share.clone()),
            };
            match download(answer, seen, share).await {
                Ok(download) => return Ok(download),
                Err(_) if attempt < BODY_ATTEMPTS => attempt += 1,
                Err(broken) => return Err(broken.after_all_attempts()),
            }
        }
    }

    /// The tags of an object.
    ///
    /// # Errors
    /// As classified.
    pub async fn tags(&self, key: &str) -> Result<BTreeMap<String, String>, AwsError> {
        let answer = self
            .client
            .get_object_tagging()
            .bucket(&self.name)
            .key(key)
            .set_expected_bucket_owner(self.owner.clone())
            .send()
            .await
            .map_err(|e| classify("s3:GetObjectTagging", &e))?;
        let pairs = answer.tag_set().iter();
        Ok(pairs.map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect())
    }

    /// Every key below a prefix.
    ///
    /// # Errors
    /// As classified.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, AwsError> {
        let mut keys = Vec::new();
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .prefix(prefix)
            .set_expected_bucket_owner(self.owner.clone())
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| classify("s3:ListObjectsV2", &e))?;
            keys.extend(page.contents().iter().filter_map(|o| o.key()).map(str::to_owned));
        }
        Ok(keys)
    }

    /// The first keys of the bucket, at most so many, and whether there are more.
    ///
    /// # Errors
    /// As classified.
    pub async fn some_keys(&self, most: i32) -> Result<(Vec<String>, bool), AwsError> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .max_keys(most)
            .set_expected_bucket_owner(self.owner.clone())
            .send()
            .await
            .map_err(|e| classify("s3:ListObjectsV2", &e))?;
        let keys = page.contents().iter().filter_map(|o| o.key()).map(str::to_owned).collect();
        Ok((keys, page.is_truncated().unwrap_or_default()))
    }

    /// Copies an object onto itself under another encryption, if it still is the one
    /// that was seen: the condition stands on the source and on the destination, since
    /// a write can come between S3's reading and writing.
    ///
    /// S3 keeps metadata, headers, tags and the checksum's algorithm by itself (metadata
    /// directive COPY); storage class, redirect and Object Lock have to be said again. What is
    /// in an archive class goes to STANDARD.
    ///
    /// # Errors
    /// As classified; [`Kind::ConditionFailed`] or [`Kind::Conflict`] after another write.
    pub async fn copy_onto_itself(
        &self,
        key: &str,
        seen: &Seen,
        write: &WriteAs,
    ) -> Result<Copied, AwsError> {
        let (encryption, kms_key) = write.headers();
        let attributes = &seen.attributes;
        let (mode, until, hold) = lock(attributes);
        let answer = self
            .client
            .copy_object()
            .bucket(&self.name)
            .key(key)
            .copy_source(copy_source(&self.name, key))
            .copy_source_if_match(&seen.etag)
            .if_match(&seen.etag)
            .set_expected_bucket_owner(self.owner.clone())
            .set_expected_source_bucket_owner(self.owner.clone())
            .metadata_directive(MetadataDirective::Copy)
            .server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_storage_class(attributes.written_class().map(StorageClass::from))
            .set_website_redirect_location(attributes.redirect.clone())
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until)
            .set_object_lock_legal_hold_status(hold)
            .set_acl(self.acl.clone())
            .customize()
            .config_override(once())
            .send()
            .await
            .map_err(|e| classify("s3:CopyObject", &e))?;
        Ok(copied(&answer))
    }

    /// Makes an old version the current one again, under the given encryption, if the
    /// object still has the given ETag. Needs s3:GetObjectVersion.
    ///
    /// # Errors
    /// As classified.
    pub async fn copy_version_back(
        &self,
        key: &str,
        version: &str,
        attributes: &Attributes,
        write: &WriteAs,
        if_match: &str,
    ) -> Result<Copied, AwsError> {
        let (encryption, kms_key) = write.headers();
        let (mode, until, hold) = lock(attributes);
        let source =
            format!("{}?versionId={}", copy_source(&self.name, key), percent_encoded(version, ""));
        let answer = self
            .client
            .copy_object()
            .bucket(&self.name)
            .key(key)
            .copy_source(source)
            .if_match(if_match)
            .set_expected_bucket_owner(self.owner.clone())
            .set_expected_source_bucket_owner(self.owner.clone())
            .metadata_directive(MetadataDirective::Copy)
            .server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_storage_class(attributes.written_class().map(StorageClass::from))
            .set_website_redirect_location(attributes.redirect.clone())
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until)
            .set_object_lock_legal_hold_status(hold)
            .set_acl(self.acl.clone())
            .send()
            .await
            .map_err(|e| classify("s3:CopyObject", &e))?;
        Ok(copied(&answer))
    }

    /// Writes a body that was read before, with everything that belonged to it, if the
    /// object still has the given ETag.
    ///
    /// # Errors
    /// As classified.
    pub async fn put_back(
        &self,
        key: &str,
        body: Bytes,
        attributes: &Attributes,
        tags: &BTreeMap<String, String>,
        write: &WriteAs,
        if_match: &str,
    ) -> Result<Copied, AwsError> {
        let (encryption, kms_key) = write.headers();
        let (mode, until, hold) = lock(attributes);
        let header = |name| attributes.headers.get(name).cloned();
        let mut request = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .body(ByteStream::from(body))
            .if_match(if_match)
            .set_expected_bucket_owner(self.owner.clone())
            .server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_content_type(attributes.content_type.clone())
            .set_cache_control(header("Cache-Control"))
            .set_content_disposition(header("Content-Disposition"))
            .set_content_encoding(header("Content-Encoding"))
            .set_content_language(header("Content-Language"))
            .set_expires(
                header("Expires").and_then(|at| DateTime::from_str(&at, Format::HttpDate).ok()),
            )
            .set_storage_class(attributes.written_class().map(StorageClass::from))
            .set_website_redirect_location(attributes.redirect.clone())
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until)
            .set_object_lock_legal_hold_status(hold)
            .set_acl(self.acl.clone());
        for (name, value) in &attributes.metadata {
            request = request.metadata(name, value);
        }
        if !tags.is_empty() {
            let pairs: Vec<String> = tags
                .iter()
                .map(|(k, v)| format!("{}={}", percent_encoded(k, ""), percent_encoded(v, "")))
                .collect();
            request = request.tagging(pairs.join("&"));
        }
        let answer = request.send().await.map_err(|e| classify("s3:PutObject", &e))?;
        Ok(Copied {
            etag: answer.e_tag().unwrap_or_default().to_owned(),
            version_id: answer.version_id().map(str::to_owned),
        })
    }
}

/// `bucket/key` as the header x-amz-copy-source wants it: percent-encoded, slashes kept.
fn copy_source(bucket: &str, key: &str) -> String {
    format!("{bucket}/{}", percent_encoded(key, "/"))
}

/// The Object Lock headers of a write: what lasts is said again, since no copy keeps it.
fn lock(
    attributes: &Attributes,
) -> (Option<ObjectLockMode>, Option<DateTime>, Option<ObjectLockLegalHoldStatus>) {
    let (mode, until) = attributes.lasting_retention().unzip();
    let hold = attributes.legal_hold.then_some(ObjectLockLegalHoldStatus::On);
    (mode.map(ObjectLockMode::from), until, hold)
}

/// No attempt after the first: when the answer to a conditional copy is lost, a second one
/// finds only that the condition no longer holds, and hides that the first was carried out.
/// The caller looks, and decides.
pub(super) fn once() -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::config::Builder::new().retry_config(RetryConfig::disabled())
}

fn copied(answer: &CopyObjectOutput) -> Copied {
    let etag = answer.copy_object_result().and_then(|result| result.e_tag());
    Copied {
        etag: etag.unwrap_or_default().to_owned(),
        version_id: answer.version_id().map(str::to_owned),
    }
}

/// Why a body could not be taken for the object.
#[derive(Debug, Clone, Copy)]
enum Broken {
    /// Its end did not come.
    Off,
    /// Its checksum is not the one that S3 has for it.
    Checksum,
}

impl Broken {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        // The SDK's own error for it is of a crate that is not named here.
        let mut chain = std::iter::successors(Some(error), |error| error.source());
        match chain.any(|error| error.to_string().contains("checksum mismatch")) {
            true => Self::Checksum,
            false => Self::Off,
        }
    }

    fn after_all_attempts(self) -> AwsError {
        let (kind, what) = match self {
            Self::Off => (Kind::Unavailable, "the body broke off"),
            Self::Checksum => (
                Kind::Other,
                "the body's checksum is not the one that S3 has for it: it is damaged, there or on its way",
            ),
        };
        AwsError::new(kind, "s3:GetObject", format!("{what}, {BODY_ATTEMPTS} times"))
    }
}

async fn download(
    answer: GetObjectOutput,
    seen: Seen,
    share: Option<Share>,
) -> Result<Download, Broken> {
    let read_at = crate::report::now();
    let mut held = share.is_some().then(BytesMut::new);
    let mut beginning = Vec::new();
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut body = answer.body;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| Broken::of(&error))?;
        length += chunk.len() as u64;
        hash.update(&chunk);
        let missing = BEGINNING - beginning.len();
        beginning.extend(chunk.iter().take(missing));
        if let Some(held) = &mut held {
            held.extend_from_slice(&chunk);
        }
    }
    if length != seen.size {
        return Err(Broken::Off);
    }
    let body = held.zip(share).map(|(bytes, share)| Held { bytes: bytes.freeze(), _share: share });
    Ok(Download { seen, sha256: hash.finalize().into(), read_at, beginning, body })
}

/// The outputs of GET and HEAD are two types with the same fields.
macro_rules! seen {
    ($answer:expr, $tier:expr) => {{
        let answer = $answer;
        let text = |value: Option<&str>| value.filter(|v| !v.is_empty()).map(str::to_owned);
        let headers = [
            ("Cache-Control", answer.cache_control()),
            ("Content-Disposition", answer.content_disposition()),
            ("Content-Encoding", answer.content_encoding()),
            ("Content-Language", answer.content_language()),
            ("Expires", answer.expires_string()),
        ];
        let retention = answer
            .object_lock_mode()
            .zip(answer.object_lock_retain_until_date())
            .map(|(mode, until)| (mode.as_str().to_owned(), *until));
        Seen {
            etag: answer.e_tag().unwrap_or_default().to_owned(),
            version_id: text(answer.version_id()),
            size: answer.content_length().and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
            last_modified: answer.last_modified().copied(),
            server_side: server_side(
                answer.server_side_encryption(),
                answer.ssekms_key_id(),
                answer.sse_customer_algorithm(),
            ),
            replication: text(answer.replication_status().map(|status| status.as_str())),
            archive: archive(
                answer.storage_class().map_or("", |class| class.as_str()),
                $tier,
                answer.restore(),
            ),
            attributes: Attributes {
                content_type: text(answer.content_type()),
                headers: headers
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, text(value)?)))
                    .collect(),
                metadata: answer
                    .metadata()
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
                storage_class: text(answer.storage_class().map(|class| class.as_str()))
                    .filter(|class| class != "STANDARD"),
                redirect: text(answer.website_redirect_location()),
                tag_count: answer.tag_count().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                retention,
                legal_hold: answer.object_lock_legal_hold_status()
                    == Some(&ObjectLockLegalHoldStatus::On),
            },
        }
    }};
}

fn seen_by_get(answer: &GetObjectOutput) -> Seen {
    seen!(answer, None)
}

fn seen_by_head(answer: &HeadObjectOutput) -> Seen {
    seen!(answer, answer.archive_status().map(|tier| tier.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_sources_are_percent_encoded() {
        assert_eq!(copy_source("b", "env:/blue team/ä+%"), "b/env%3A/blue%20team/%C3%A4%2B%25");
    }
}
