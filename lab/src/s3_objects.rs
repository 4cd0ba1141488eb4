//! Objects: reading, writing, copying, deleting and tagging them.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use s3s::dto::*;
use s3s::{Body, S3Result, s3_error};

use crate::buckets::{Restore, Retention, Version};
use crate::query::percent_decoded;
use crate::s3_checksum::{checksum, sent_checksum};
use crate::s3_rules::{
    Call, expected_owner, failed, header, precondition_failed, refuse_archived,
    refuse_customer_key, same_etag, sse, time, write_context,
};
use crate::world::{Failure, now};

/// S3's limit for a copy in one request.
const COPY_LIMIT: u64 = 5 << 30;

/// What a write gets for a content type when it names none.
const UNKNOWN_TYPE: &str = "binary/octet-stream";

pub(crate) async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|_| s3_error!(IncompleteBody))?);
        }
    }
    Ok(bytes.freeze())
}

/// What GET and HEAD say of Object Lock. AWS: only to those who may read it.
struct Lock {
    mode: Option<ObjectLockMode>,
    until: Option<Timestamp>,
    hold: Option<ObjectLockLegalHoldStatus>,
}

impl Lock {
    fn of<T>(call: &Call<'_, T>, bucket: &str, key: &str, version: &Version) -> Self {
        let told = |action| call.may(action, bucket, Some(key)).is_ok();
        let retention = version.retention.as_ref().filter(|_| told("s3:GetObjectRetention"));
        let hold = version.legal_hold && told("s3:GetObjectLegalHold");
        Self {
            mode: retention.map(|lock| lock.mode.clone().into()),
            until: retention.map(|lock| time(lock.until)),
            hold: hold.then(|| ObjectLockLegalHoldStatus::from_static("ON")),
        }
    }
}

/// AWS: an object of a source bucket has a status where a rule takes it (S3 API Reference,
/// HeadObject, x-amz-replication-status).
fn replication<T>(
    call: &Call<'_, T>,
    bucket: &str,
    key: &str,
    version: &Version,
) -> Option<ReplicationStatus> {
    use crate::buckets::Encryption as Kept;
    let (prefix, takes_kms) = call.world.buckets.get(bucket)?.replication.as_ref()?;
    let plain = matches!(version.encryption, Kept::None | Kept::SseS3);
    let taken = key.starts_with(prefix.as_str()) && (*takes_kms || plain);
    taken.then(|| ReplicationStatus::from_static(ReplicationStatus::COMPLETED))
}

/// GET and HEAD answer with the same headers.
macro_rules! describe {
    ($output:ident, $version:expr, $id:expr, $lock:expr, $checksum:expr, $replication:expr) => {{
        let version = $version;
        let lock: Lock = $lock;
        let checksum: Checksum = $checksum;
        let (encryption, key) = sse(&version.encryption);
        $output {
            content_length: i64::try_from(version.size()).ok(),
            content_type: version.content_type.clone(),
            cache_control: version.cache_control.clone(),
            content_encoding: version.content_encoding.clone(),
            e_tag: Some(ETag::Strong(version.etag.clone())),
            last_modified: Some(time(version.modified)),
            metadata: Some(version.metadata.clone().into_iter().collect()),
            server_side_encryption: encryption,
            ssekms_key_id: key,
            bucket_key_enabled: version.bucket_key.then_some(true),
            storage_class: version.storage_class.clone().map(|c| StorageClass::from(c)),
            restore: version.restore.map(restore_header),
            version_id: $id,
            accept_ranges: Some("bytes".into()),
            object_lock_mode: lock.mode,
            object_lock_retain_until_date: lock.until,
            object_lock_legal_hold_status: lock.hold,
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum.checksum_type,
            replication_status: $replication,
            ..Default::default()
        }
    }};
}

pub(crate) fn get(call: Call<'_, GetObjectInput>) -> S3Result<GetObjectOutput> {
    let GetObjectInput { bucket, key, version_id, range, .. } = call.input;
    let version = call.find("s3:GetObject", bucket, key, version_id.as_deref())?;
    refuse_customer_key(version)?;
    call.read_conditions(bucket, version)?;
    refuse_archived(version, "The operation is not valid for the object's storage class")?;
    call.readable(bucket, key, version)?;
    // AWS tells the number of tags only to those who may read them.
    let tagged =
        !version.tags.is_empty() && call.may("s3:GetObjectTagging", bucket, Some(key)).is_ok();
    let lock = Lock::of(&call, bucket, key, version);
    let mut body = version.body.clone();
    if version.damaged {
        body = body.iter().map(|byte| byte ^ 1).collect();
    }
    let full = body.len();
    let mut part = None;
    if let Some(range) = range {
        let wanted = range.check(full as u64).map_err(|_| s3_error!(InvalidRange))?;
        let at = |place: u64| usize::try_from(place).unwrap_or(full);
        body = body.slice(at(wanted.start)..at(wanted.end));
        part = Some(format!("bytes {}-{}/{full}", wanted.start, wanted.end.saturating_sub(1)));
    }
    // AWS: the checksum is the whole object's, so a part comes without.
    let asked = header(call.headers, "x-amz-checksum-mode").is_some() && part.is_none();
    let sum = if asked { checksum(version) } else { Checksum::default() };
    let length = part.is_some().then_some(body.len());
    let id = call.world.shown_id(bucket, version);
    let copied = replication(&call, bucket, key, version);
    let described = describe!(GetObjectOutput, version, id, lock, sum, copied);
    Ok(GetObjectOutput {
        content_length: length
            .map_or(described.content_length, |length| i64::try_from(length).ok()),
        content_range: part,
        body: Some(StreamingBlob::from(Body::from(body))),
        tag_count: tagged.then(|| i32::try_from(version.tags.len()).unwrap_or(i32::MAX)),
        ..described
    })
}

/// AWS: s3:GetObject is enough; with the checksum mode it needs KMS as a GET does.
pub(crate) fn head(call: Call<'_, HeadObjectInput>) -> S3Result<HeadObjectOutput> {
    let HeadObjectInput { bucket, key, version_id, .. } = call.input;
    let version = call.find("s3:GetObject", bucket, key, version_id.as_deref())?;
    refuse_customer_key(version)?;
    call.read_conditions(bucket, version)?;
    let mut sum = Checksum::default();
    if header(call.headers, "x-amz-checksum-mode").is_some() {
        call.readable(bucket, key, version)?;
        sum = checksum(version);
    }
    let lock = Lock::of(&call, bucket, key, version);
    let id = call.world.shown_id(bucket, version);
    let copied = replication(&call, bucket, key, version);
    Ok(describe!(HeadObjectOutput, version, id, lock, sum, copied))
}

pub(crate) fn put(mut call: Call<'_, PutObjectInput>, body: Bytes) -> S3Result<PutObjectOutput> {
    let input = call.input;
    let (bucket, key) = (&input.bucket, &input.key);
    call.may_under("s3:PutObject", bucket, Some(key), write_context(call.headers))?;
    if input.tagging.is_some() {
        call.may("s3:PutObjectTagging", bucket, Some(key))?;
    }
    call.may_name_acl(input.acl.as_ref().map(|acl| acl.as_str()), bucket, key)?;
    call.write_conditions(bucket, key)?;
    let (retention, legal_hold) = lock_headers(&call, bucket, key)?;
    let (encryption, bucket_key) = call.write_encryption(bucket, key)?;
    let mut version = Version::new(body, encryption);
    version.checksum_algorithm = Some(sent_checksum(call.headers, &version)?);
    (version.bucket_key, version.retention, version.legal_hold) =
        (bucket_key, retention, legal_hold);
    version.content_type = Some(input.content_type.clone().unwrap_or_else(|| UNKNOWN_TYPE.into()));
    version.cache_control = input.cache_control.clone();
    version.content_encoding = input.content_encoding.clone();
    version.metadata = input.metadata.clone().into_iter().flatten().collect();
    version.tags = input.tagging.as_deref().map(tags_of).unwrap_or_default();
    version.storage_class = class(input.storage_class.as_ref());
    call.world.write(bucket, key, version);
    let version = call.world.current(bucket, key).ok_or_else(|| s3_error!(InternalError))?;
    let (server_side_encryption, ssekms_key_id) = sse(&version.encryption);
    let sum = checksum(version);
    Ok(PutObjectOutput {
        e_tag: Some(ETag::Strong(version.etag.clone())),
        server_side_encryption,
        ssekms_key_id,
        bucket_key_enabled: version.bucket_key.then_some(true),
        version_id: call.world.shown_id(bucket, version),
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        checksum_type: sum.checksum_type,
        ..Default::default()
    })
}

/// AWS: needs s3:GetObject and s3:PutObject, for a tagged object also the right to read
/// and write tags; kms:Decrypt on the source's key and kms:GenerateDataKey on the target's.
pub(crate) fn copy(mut call: Call<'_, CopyObjectInput>) -> S3Result<CopyObjectOutput> {
    let (headers, input) = (call.headers, call.input);
    let CopyObjectInput { bucket, key, .. } = input;
    let CopySource::Bucket { bucket: from, key: from_key, version_id } = &input.copy_source else {
        return Err(s3_error!(NotImplemented));
    };
    if let Some(bucket) = call.world.buckets.get(&**from) {
        expected_owner(headers, "x-amz-source-expected-bucket-owner", bucket)?;
    }
    let source = call.find("s3:GetObject", from, from_key, version_id.as_deref())?.clone();
    refuse_customer_key(&source)?;
    refuse_archived(&source, "Operation is not valid for the source object's storage class")?;
    call.may_under("s3:PutObject", bucket, Some(key), write_context(headers))?;
    let tags = if header(headers, "x-amz-tagging-directive") == Some("REPLACE") {
        input.tagging.as_deref().map(tags_of).unwrap_or_default()
    } else {
        if !source.tags.is_empty() {
            let action = match version_id {
                None => "s3:GetObjectTagging",
                Some(_) => "s3:GetObjectVersionTagging",
            };
            call.may(action, from, Some(from_key))?;
        }
        source.tags.clone()
    };
    if !tags.is_empty() {
        call.may("s3:PutObjectTagging", bucket, Some(key))?;
    }
    call.may_name_acl(input.acl.as_ref().map(|acl| acl.as_str()), bucket, key)?;
    if source.size() > COPY_LIMIT {
        let message = "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120";
        return Err(failed(Failure::new("InvalidRequest", 400, message)));
    }
    let lax = call.world.buckets[bucket].ignores_conditions;
    if header(headers, "x-amz-copy-source-if-match")
        .is_some_and(|wanted| !lax && !same_etag(wanted, &source.etag))
    {
        return Err(precondition_failed());
    }
    call.write_conditions(bucket, key)?;
    let replace = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == "REPLACE");
    let changes = replace
        || input.server_side_encryption.is_some()
        || input.storage_class.is_some()
        || input.website_redirect_location.is_some()
        || version_id.is_some();
    if **from == **bucket && **from_key == **key && !changes {
        let message = "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.";
        return Err(failed(Failure::new("InvalidRequest", 400, message)));
    }
    let (retention, legal_hold) = lock_headers(&call, bucket, key)?;
    call.readable(from, from_key, &source)?;
    let (encryption, bucket_key) = call.write_encryption(bucket, key)?;
    // AWS: kept are body, metadata, Content-Type, tags and checksum algorithm. Not kept:
    // storage class, Object Lock, the use of a Bucket Key.
    let mut version = Version::new(source.body.clone(), encryption);
    (version.bucket_key, version.retention, version.legal_hold) =
        (bucket_key, retention, legal_hold);
    version.declared_size = source.declared_size;
    version.tags = tags;
    version.checksum_algorithm = input
        .checksum_algorithm
        .as_ref()
        .map(|algorithm| algorithm.as_str().to_owned())
        .or_else(|| source.checksum_algorithm.clone());
    if replace {
        version.content_type =
            Some(input.content_type.clone().unwrap_or_else(|| UNKNOWN_TYPE.into()));
        version.cache_control = input.cache_control.clone();
        version.content_encoding = input.content_encoding.clone();
        version.metadata = input.metadata.clone().into_iter().flatten().collect();
    } else {
        version.content_type = source.content_type.clone();
        version.cache_control = source.cache_control.clone();
        version.content_encoding = source.content_encoding.clone();
        version.metadata = source.metadata.clone();
    }
    version.storage_class = class(input.storage_class.as_ref());
    call.world.write(bucket, key, version);
    let version = call.world.current(bucket, key).ok_or_else(|| s3_error!(InternalError))?;
    let (server_side_encryption, ssekms_key_id) = sse(&version.encryption);
    let sum = checksum(version);
    Ok(CopyObjectOutput {
        copy_object_result: Some(CopyObjectResult {
            e_tag: Some(ETag::Strong(version.etag.clone())),
            last_modified: Some(time(version.modified)),
            checksum_crc32: sum.checksum_crc32,
            checksum_crc32c: sum.checksum_crc32c,
            checksum_crc64nvme: sum.checksum_crc64nvme,
            checksum_sha1: sum.checksum_sha1,
            checksum_sha256: sum.checksum_sha256,
            checksum_type: sum.checksum_type,
        }),
        server_side_encryption,
        ssekms_key_id,
        bucket_key_enabled: version.bucket_key.then_some(true),
        version_id: call.world.shown_id(bucket, version),
        copy_source_version_id: call.world.shown_id(from, &source),
        ..Default::default()
    })
}

/// AWS: a version that Object Lock protects is not deleted; a marker on top of it is.
/// Governance mode yields to those who may bypass it and say so.
pub(crate) fn delete(call: Call<'_, DeleteObjectInput>) -> S3Result<DeleteObjectOutput> {
    let DeleteObjectInput { bucket, key, version_id, .. } = call.input;
    let action = if version_id.is_some() { "s3:DeleteObjectVersion" } else { "s3:DeleteObject" };
    call.may(action, bucket, Some(key))?;
    if header(call.headers, "if-match").is_some() {
        call.write_conditions(bucket, key)?;
    }
    let Some(id) = version_id else {
        call.world.delete_object(bucket, key);
        let marker = call.world.versions(bucket, key).last();
        return Ok(DeleteObjectOutput {
            delete_marker: marker.map(|marker| marker.delete_marker),
            version_id: marker.and_then(|marker| call.world.shown_id(bucket, marker)),
            ..Default::default()
        });
    };
    let found = call.world.versions(bucket, key).iter().find(|version| version.version_id == *id);
    if let Some(version) = found.filter(|version| version.is_locked()) {
        let bypass = !version.legal_hold
            && version.retention.as_ref().is_some_and(|lock| lock.mode == "GOVERNANCE")
            && header(call.headers, "x-amz-bypass-governance-retention") == Some("true")
            && call.may("s3:BypassGovernanceRetention", bucket, Some(key)).is_ok();
        if !bypass {
            let message = "Access Denied because object protected by object lock.";
            return Err(failed(Failure::new("AccessDenied", 403, message)));
        }
    }
    let delete_marker = found.map(|version| version.delete_marker).filter(|marker| *marker);
    let objects = &mut call.world.bucket_mut(bucket).objects;
    if let Some(versions) = objects.get_mut(key) {
        versions.retain(|version| version.version_id != *id);
        if versions.is_empty() {
            objects.remove(key);
        }
    }
    Ok(DeleteObjectOutput { delete_marker, version_id: Some(id.clone()), ..Default::default() })
}

pub(crate) fn tagging(call: Call<'_, GetObjectTaggingInput>) -> S3Result<GetObjectTaggingOutput> {
    let GetObjectTaggingInput { bucket, key, version_id, .. } = call.input;
    let version = call.find("s3:GetObjectTagging", bucket, key, version_id.as_deref())?;
    let tag = |(key, value): (&String, &String)| Tag {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    let tag_set = version.tags.iter().map(tag).collect();
    Ok(GetObjectTaggingOutput { tag_set, version_id: call.world.shown_id(bucket, version) })
}

pub(crate) fn tag(call: Call<'_, PutObjectTaggingInput>) -> S3Result<PutObjectTaggingOutput> {
    let PutObjectTaggingInput { bucket, key, tagging, .. } = call.input;
    call.find("s3:PutObjectTagging", bucket, key, None)?;
    let pairs =
        tagging.tag_set.iter().filter_map(|tag| Some((tag.key.clone()?, tag.value.clone()?)));
    let tags = pairs.collect();
    call.world.with_object(bucket, key, |version| version.tags = tags);
    Ok(PutObjectTaggingOutput::default())
}

/// AWS, RestoreObject: makes a copy that can be read for so many days. There it takes hours.
pub(crate) fn restore(call: Call<'_, RestoreObjectInput>) -> S3Result<RestoreObjectOutput> {
    let RestoreObjectInput { bucket, key, version_id, restore_request, .. } = call.input;
    let version = call.find("s3:RestoreObject", bucket, key, version_id.as_deref())?;
    let id = version.version_id.clone();
    if !version.is_archived() && version.restore.is_none() {
        let message = "Restore is not allowed for the object's current storage class";
        return Err(failed(Failure::new("InvalidObjectState", 403, message)));
    }
    if version.restore == Some(Restore::Ongoing) {
        let message = "Object restore is already in progress";
        return Err(failed(Failure::new("RestoreAlreadyInProgress", 409, message)));
    }
    let days = restore_request.as_ref().and_then(|request| request.days).unwrap_or(0);
    let days = u64::try_from(days).ok().filter(|days| *days > 0);
    let days = days.ok_or_else(|| s3_error!(MalformedXML))?;
    let versions = call.world.bucket_mut(bucket).objects.get_mut(key).into_iter().flatten();
    for version in versions.filter(|version| version.version_id == id) {
        version.restore = Some(Restore::Until(now() + days * 86_400));
    }
    Ok(RestoreObjectOutput::default())
}

/// `x-amz-restore`, as AWS writes it (API Reference, HeadObject).
fn restore_header(restore: Restore) -> String {
    let Restore::Until(until) = restore else { return "ongoing-request=\"true\"".to_owned() };
    let mut date = Vec::new();
    let _ = time(until).format(TimestampFormat::HttpDate, &mut date);
    let date = String::from_utf8_lossy(&date);
    format!("ongoing-request=\"false\", expiry-date=\"{date}\"")
}

fn class(class: Option<&StorageClass>) -> Option<String> {
    class.map(|class| class.as_str().to_owned()).filter(|class| class != "STANDARD")
}

/// The Object Lock that a write asks for. AWS: it needs a permission for each part, and a
/// bucket that has Object Lock enabled.
fn lock_headers<T>(
    call: &Call<'_, T>,
    bucket: &str,
    key: &str,
) -> S3Result<(Option<Retention>, bool)> {
    let invalid = |message: &str| failed(Failure::new("InvalidRequest", 400, message));
    let mode = header(call.headers, "x-amz-object-lock-mode");
    let until = header(call.headers, "x-amz-object-lock-retain-until-date");
    let hold = header(call.headers, "x-amz-object-lock-legal-hold");
    if mode.is_none() && until.is_none() && hold.is_none() {
        return Ok((None, false));
    }
    if call.world.buckets[bucket].retention_days.is_none() {
        return Err(invalid("Bucket is missing Object Lock Configuration"));
    }
    let retention = match (mode, until) {
        (None, None) => None,
        (Some(mode), Some(until)) => {
            call.may("s3:PutObjectRetention", bucket, Some(key))?;
            let until = Timestamp::parse(TimestampFormat::DateTime, until)
                .map_err(|_| invalid("The retain until date is not valid"))?;
            let until = seconds(until);
            if until <= now() {
                let message = "The retain until date must be in the future!";
                return Err(failed(Failure::new("InvalidArgument", 400, message)));
            }
            Some(Retention { mode: mode.to_owned(), until })
        }
        _ => {
            let message = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied";
            return Err(failed(Failure::new("InvalidArgument", 400, message)));
        }
    };
    if hold.is_some() {
        call.may("s3:PutObjectLegalHold", bucket, Some(key))?;
    }
    Ok((retention, hold == Some("ON")))
}

/// Seconds since the epoch.
fn seconds(time: Timestamp) -> u64 {
    let mut text = Vec::new();
    // Epoch seconds are digits and, with a fraction, a dot.
    let _ = time.format(TimestampFormat::EpochSeconds, &mut text);
    let text = String::from_utf8_lossy(&text);
    text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
}

/// Tags, as the header has them.
fn tags_of(text: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decoded(&text.replace('+', " "));
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}
