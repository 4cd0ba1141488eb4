//! What S3's operations have in common: permissions, KMS in the caller's name, conditions,
//! encryption, and how errors look.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use hyper::http::{HeaderMap, HeaderValue, StatusCode};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::buckets::{Bucket, Encryption, Version};
use crate::kms::key_state;
use crate::world::{Failure, Principal, World};

/// One request, by someone known.
pub(crate) struct Call<'a, T> {
    pub world: &'a mut World,
    pub who: &'a Principal,
    pub headers: &'a HeaderMap,
    pub input: &'a T,
}

impl<T> Call<'_, T> {
    /// Asks the policies.
    pub(crate) fn may(&self, action: &str, bucket: &str, key: Option<&str>) -> S3Result<()> {
        self.may_under(action, bucket, key, BTreeMap::new())
    }

    /// Asks the policies, with condition keys.
    pub(crate) fn may_under(
        &self,
        action: &str,
        bucket: &str,
        key: Option<&str>,
        context: BTreeMap<String, String>,
    ) -> S3Result<()> {
        self.world.may(self.who, action, bucket, key, context).map_err(failed)
    }

    /// The version that a request means, for someone who may `action` it.
    pub(crate) fn find(
        &self,
        action: &str,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
    ) -> S3Result<&Version> {
        let action = match (version_id, action) {
            (Some(_), "s3:GetObject") => "s3:GetObjectVersion",
            (Some(_), "s3:GetObjectTagging") => "s3:GetObjectVersionTagging",
            _ => action,
        };
        self.may(action, bucket, Some(key))?;
        let versions = self.world.versions(bucket, key);
        let found = match version_id {
            None => versions.last(),
            Some(id) => versions.iter().find(|v| v.version_id == id),
        };
        match found {
            Some(version) if !version.delete_marker => Ok(version),
            missing => Err(self.missing(bucket, missing.is_some(), version_id.is_some())),
        }
    }

    /// AWS: a missing object is 404 for a caller with s3:ListBucket and 403 for one without.
    /// A delete marker says so in a header; asked for by its own id, it is 405.
    fn missing(&self, bucket: &str, is_marker: bool, by_id: bool) -> S3Error {
        let mut error = if is_marker && by_id {
            let message = "The specified method is not allowed against this resource.";
            failed(Failure::new("MethodNotAllowed", 405, message))
        } else if self.may("s3:ListBucket", bucket, None).is_err() {
            return failed(Failure::new("AccessDenied", 403, "Access Denied"));
        } else if by_id {
            let message = "The specified version does not exist.";
            failed(Failure::new("NoSuchVersion", 404, message))
        } else {
            failed(Failure::new("NoSuchKey", 404, "The specified key does not exist."))
        };
        if is_marker {
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
            error.set_headers(headers);
        }
        error
    }

    /// AWS: reading a version needs its key.
    pub(crate) fn readable(&self, bucket: &str, key: &str, version: &Version) -> S3Result<()> {
        match version.encryption.kms_key() {
            Some(arn) => self.kms("kms:Decrypt", bucket, key, arn, version.bucket_key),
            None => Ok(()),
        }
    }

    /// A call that S3 makes to KMS in the caller's name. AWS: the codes get the prefix
    /// `KMS.`, and a denial is S3's 403 AccessDenied. The encryption context is the object's
    /// ARN, or the bucket's where an S3 Bucket Key is used.
    pub(crate) fn kms(
        &self,
        action: &str,
        bucket: &str,
        key: &str,
        arn: &str,
        bucket_key: bool,
    ) -> S3Result<()> {
        let region = &self.world.buckets[bucket].region;
        let object = if bucket_key {
            format!("arn:aws:s3:::{bucket}")
        } else {
            format!("arn:aws:s3:::{bucket}/{key}")
        };
        let via = format!("s3.{region}.amazonaws.com");
        let context =
            context(&[("kms:ViaService", &via), ("kms:EncryptionContext:aws:s3:arn", &object)]);
        let result = if arn.split(':').nth(3) == Some(region) {
            self.world.may_use_key(self.who, action, arn, context).and_then(key_state)
        } else {
            Err(Failure::new("NotFoundException", 400, "Invalid arn"))
        };
        result.map_err(|failure| {
            let (code, status) = match failure.code {
                "AccessDeniedException" => ("AccessDenied", 403),
                "NotFoundException" => ("KMS.NotFoundException", 400),
                "DisabledException" => ("KMS.DisabledException", 400),
                "InvalidKeyUsageException" => ("KMS.InvalidKeyUsageException", 400),
                _ => ("KMS.KMSInvalidStateException", 400),
            };
            failed(Failure::new(code, status, failure.message))
        })
    }

    /// The encryption that a write asks for, or the bucket's default, and whether with an S3
    /// Bucket Key; checks the KMS key.
    pub(crate) fn write_encryption(
        &mut self,
        bucket: &str,
        key: &str,
    ) -> S3Result<(Encryption, bool)> {
        let kms_key = header(self.headers, "x-amz-server-side-encryption-aws-kms-key-id");
        let found = &self.world.buckets[bucket];
        let by_default = found.bucket_key;
        let encryption = match header(self.headers, "x-amz-server-side-encryption") {
            None => found.default_encryption.clone(),
            Some("AES256") => Encryption::SseS3,
            Some(kind @ ("aws:kms" | "aws:kms:dsse")) => {
                let key = match kms_key {
                    // AWS: without a key it is aws/s3, whatever the source was under.
                    None => self.world.aws_s3_key(bucket),
                    Some(id) => self.key_arn(bucket, id)?,
                };
                if kind == "aws:kms" { Encryption::Kms { key } } else { Encryption::Dsse { key } }
            }
            Some(_) => {
                let message = "The encryption method specified is not supported";
                return Err(failed(Failure::new("InvalidArgument", 400, message)));
            }
        };
        // AWS: the header decides for this object; DSSE has no Bucket Keys.
        let bucket_key = matches!(encryption, Encryption::Kms { .. })
            && header(self.headers, "x-amz-server-side-encryption-bucket-key-enabled")
                .map_or(by_default, |value| value == "true");
        if let Some(arn) = encryption.kms_key() {
            self.kms("kms:GenerateDataKey", bucket, key, arn, bucket_key)?;
        }
        Ok((encryption, bucket_key))
    }

    /// AWS: a bare id or alias is the caller's account's, not the bucket's.
    fn key_arn(&self, bucket: &str, id: &str) -> S3Result<String> {
        let region = &self.world.buckets[bucket].region;
        let account = &self.who.identity.account;
        let arn = match id {
            _ if id.starts_with("arn:") => id.to_owned(),
            _ if id.starts_with("alias/") => format!("arn:aws:kms:{region}:{account}:{id}"),
            _ => format!("arn:aws:kms:{region}:{account}:key/{id}"),
        };
        if !arn.contains(":alias/") {
            return Ok(arn);
        }
        self.world.aliases.get(&arn).cloned().ok_or_else(|| {
            let message = format!("Alias {arn} is not found.");
            failed(Failure::new("KMS.NotFoundException", 400, message))
        })
    }

    /// AWS: with ACLs off, the only one that a write may name is the one that gives the
    /// owner what it has anyway. Elsewhere naming one needs its own permission.
    pub(crate) fn may_name_acl(&self, acl: Option<&str>, bucket: &str, key: &str) -> S3Result<()> {
        let Some(acl) = acl else { return Ok(()) };
        self.may("s3:PutObjectAcl", bucket, Some(key))?;
        let off = self.world.buckets[bucket].acls_off == Some(true);
        if off && acl != "bucket-owner-full-control" {
            let message = "The bucket does not allow ACLs";
            return Err(failed(Failure::new("AccessControlListNotSupported", 400, message)));
        }
        Ok(())
    }
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

pub(crate) fn context(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub(crate) fn failed(failure: Failure) -> S3Error {
    let code =
        S3ErrorCode::from_bytes(failure.code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let mut error = S3Error::with_message(code, failure.message);
    error.set_status_code(
        StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    );
    error
}

pub(crate) fn with_region(mut error: S3Error, region: &str) -> S3Error {
    let mut headers = HeaderMap::new();
    if let Ok(region) = HeaderValue::from_str(region) {
        headers.insert("x-amz-bucket-region", region);
    }
    error.set_headers(headers);
    error
}

/// AWS: a bucket of another owner than expected is 403.
pub(crate) fn expected_owner(headers: &HeaderMap, name: &str, bucket: &Bucket) -> S3Result<()> {
    if header(headers, name).is_none_or(|owner| owner == bucket.account) {
        return Ok(());
    }
    let failure = Failure::new("AccessDenied", 403, "Access Denied");
    Err(with_region(failed(failure), &bucket.region))
}

pub(crate) fn refuse_customer_key(version: &Version) -> S3Result<()> {
    if version.encryption == Encryption::SseC {
        let message = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.";
        return Err(failed(Failure::new("InvalidRequest", 400, message)));
    }
    Ok(())
}

/// AWS, GetObject and CopyObject: what is archived is restored first. HEAD needs no restore.
pub(crate) fn refuse_archived(version: &Version, message: &str) -> S3Result<()> {
    match version.is_archived() {
        true => Err(failed(Failure::new("InvalidObjectState", 403, message))),
        false => Ok(()),
    }
}

pub(crate) fn precondition_failed() -> S3Error {
    failed(Failure::new(
        "PreconditionFailed",
        412,
        "At least one of the pre-conditions you specified did not hold",
    ))
}

impl<T> Call<'_, T> {
    /// `If-Match` and `If-None-Match` of a read.
    pub(crate) fn read_conditions(&self, bucket: &str, version: &Version) -> S3Result<()> {
        if self.world.buckets[bucket].ignores_conditions {
            return Ok(());
        }
        let headers = self.headers;
        if header(headers, "if-match").is_some_and(|wanted| !same_etag(wanted, &version.etag)) {
            return Err(precondition_failed());
        }
        if header(headers, "if-none-match").is_some_and(|known| same_etag(known, &version.etag)) {
            return Err(failed(Failure::new("NotModified", 304, "Not Modified")));
        }
        Ok(())
    }

    /// `If-Match` and `If-None-Match: *` of a write, against what is there now. AWS: a star
    /// in the first, or both, is 501; a missing object is 404.
    pub(crate) fn write_conditions(&self, bucket: &str, key: &str) -> S3Result<()> {
        if self.world.buckets[bucket].ignores_conditions {
            return Ok(());
        }
        let headers = self.headers;
        let (matches, none) = (header(headers, "if-match"), header(headers, "if-none-match"));
        if matches == Some("*") || (matches.is_some() && none.is_some()) {
            let message = "A header you provided implies functionality that is not implemented";
            return Err(failed(Failure::new("NotImplemented", 501, message)));
        }
        let current = self.world.current(bucket, key);
        match (matches, current) {
            (Some(_), None) => {
                Err(failed(Failure::new("NoSuchKey", 404, "The specified key does not exist.")))
            }
            (Some(wanted), Some(version)) if !same_etag(wanted, &version.etag) => {
                Err(precondition_failed())
            }
            (None, Some(_)) if none == Some("*") => Err(precondition_failed()),
            _ => Ok(()),
        }
    }
}

pub(crate) fn same_etag(wanted: &str, etag: &str) -> bool {
    wanted == "*" || wanted.trim_matches('"') == etag
}

/// The condition keys of a write.
pub(crate) fn write_context(headers: &HeaderMap) -> BTreeMap<String, String> {
    let names = [
        ("x-amz-server-side-encryption", "s3:x-amz-server-side-encryption"),
        (
            "x-amz-server-side-encryption-aws-kms-key-id",
            "s3:x-amz-server-side-encryption-aws-kms-key-id",
        ),
        ("if-none-match", "s3:if-none-match"),
        ("if-match", "s3:if-match"),
    ];
    names
        .into_iter()
        .filter_map(|(name, key)| Some((key.to_owned(), header(headers, name)?.to_owned())))
        .collect()
}

/// Seconds since the epoch, as S3 tells the time.
pub(crate) fn time(seconds: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds))
}

pub(crate) fn sse(encryption: &Encryption) -> (Option<ServerSideEncryption>, Option<String>) {
    let named = |name: &'static str| Some(ServerSideEncryption::from_static(name));
    match encryption {
        Encryption::None | Encryption::SseC => (None, None),
        Encryption::SseS3 => (named("AES256"), None),
        Encryption::Kms { key } => (named("aws:kms"), Some(key.clone())),
        Encryption::Dsse { key } => (named("aws:kms:dsse"), Some(key.clone())),
    }
}
