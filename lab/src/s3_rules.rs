//! The rules that S3's operations share: who may see what, which key is asked, which
//! condition holds.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::http::{HeaderMap, HeaderValue, StatusCode};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::world::{Encryption, Failure, Principal, Version, World, key_state};

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
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

pub(crate) fn context(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A call that S3 makes to KMS in the caller's name. AWS: the codes get the prefix `KMS.`,
/// and a denial is S3's 403 AccessDenied.
pub(crate) fn kms(
    world: &World,
    who: &Principal,
    action: &str,
    bucket: &str,
    key: &str,
    arn: &str,
) -> S3Result<()> {
    let found = &world.buckets[bucket];
    let object = if found.bucket_key {
        format!("arn:aws:s3:::{bucket}")
    } else {
        format!("arn:aws:s3:::{bucket}/{key}")
    };
    let via = format!("s3.{}.amazonaws.com", found.region);
    let context =
        context(&[("kms:ViaService", &via), ("kms:EncryptionContext:aws:s3:arn", &object)]);
    let elsewhere = arn.split(':').nth(3) != Some(found.region.as_str());
    let result = if elsewhere {
        Err(Failure::new("NotFoundException", 400, "Invalid arn"))
    } else {
        world.may_use_key(who, action, arn, context).and_then(key_state)
    };
    result.map_err(|failure| {
        failed(match failure.code {
            "AccessDeniedException" => Failure::new("AccessDenied", 403, failure.message),
            "NotFoundException" => Failure::new("KMS.NotFoundException", 400, failure.message),
            "DisabledException" => Failure::new("KMS.DisabledException", 400, failure.message),
            "InvalidKeyUsageException" => {
                Failure::new("KMS.InvalidKeyUsageException", 400, failure.message)
            }
            _ => Failure::new("KMS.KMSInvalidStateException", 400, failure.message),
        })
    })
}

/// AWS: reading a version needs its key, and an SSE-C one its customer's key.
pub(crate) fn readable(
    world: &World,
    who: &Principal,
    bucket: &str,
    key: &str,
    version: &Version,
) -> S3Result<()> {
    match version.encryption.kms_key() {
        Some(arn) => kms(world, who, "kms:Decrypt", bucket, key, arn),
        None => Ok(()),
    }
}

pub(crate) fn refuse_customer_key(version: &Version) -> S3Result<()> {
    if version.encryption == Encryption::SseC {
        let message = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.";
        return Err(failed(Failure::new("InvalidRequest", 400, message)));
    }
    Ok(())
}

/// The version that a request means, for someone who may `action` it. AWS: a missing object is 404
/// for a caller with s3:ListBucket and 403 for one without.
pub(crate) fn find<'w>(
    world: &'w World,
    who: &Principal,
    action: &str,
    bucket: &str,
    key: &str,
    version_id: Option<&str>,
) -> S3Result<&'w Version> {
    let action = match (version_id, action) {
        (Some(_), "s3:GetObject") => "s3:GetObjectVersion",
        _ => action,
    };
    world.may(who, action, bucket, Some(key), BTreeMap::new()).map_err(failed)?;
    let versions = world.versions(bucket, key);
    let found = match version_id {
        None => versions.last(),
        Some(id) => versions.iter().find(|v| v.version_id == id),
    };
    match found {
        Some(version) if !version.delete_marker => Ok(version),
        missing => {
            if world.may(who, "s3:ListBucket", bucket, None, BTreeMap::new()).is_err() {
                return Err(failed(Failure::new("AccessDenied", 403, "Access Denied")));
            }
            let mut error =
                failed(Failure::new("NoSuchKey", 404, "The specified key does not exist."));
            if missing.is_some() {
                let mut headers = HeaderMap::new();
                headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
                error.set_headers(headers);
            }
            Err(error)
        }
    }
}

/// `If-Match` and `If-None-Match: *` of a write, against what is there now.
pub(crate) fn conditions(headers: &HeaderMap, current: Option<&Version>) -> S3Result<()> {
    let (matches, none) = (header(headers, "if-match"), header(headers, "if-none-match"));
    let not_implemented = "A header you provided implies functionality that is not implemented";
    if matches == Some("*") || (matches.is_some() && none.is_some()) {
        return Err(failed(Failure::new("NotImplemented", 501, not_implemented)));
    }
    let precondition = || {
        failed(Failure::new(
            "PreconditionFailed",
            412,
            "At least one of the pre-conditions you specified did not hold",
        ))
    };
    if let Some(wanted) = matches {
        return match current {
            None => {
                Err(failed(Failure::new("NoSuchKey", 404, "The specified key does not exist.")))
            }
            Some(version) if same_etag(wanted, &version.etag) => Ok(()),
            Some(_) => Err(precondition()),
        };
    }
    if none == Some("*") && current.is_some() {
        return Err(precondition());
    }
    Ok(())
}

pub(crate) fn same_etag(wanted: &str, etag: &str) -> bool {
    wanted.trim_matches('"') == etag
}

/// The encryption that a write asks for, or the bucket's default; checks the key.
pub(crate) fn write_encryption(
    world: &World,
    who: &Principal,
    bucket: &str,
    key: &str,
    headers: &HeaderMap,
) -> S3Result<Encryption> {
    let kms_key = header(headers, "x-amz-server-side-encryption-aws-kms-key-id");
    let encryption = match header(headers, "x-amz-server-side-encryption") {
        None => world.buckets[bucket].default_encryption.clone(),
        Some("AES256") => Encryption::SseS3,
        Some(kind @ ("aws:kms" | "aws:kms:dsse")) => {
            let found = &world.buckets[bucket];
            let arn = match kms_key {
                // AWS: without a key it is aws/s3, whatever the source was under.
                None => format!(
                    "arn:aws:kms:{}:{}:key/a3a3a3a3-0000-4000-8000-000000000000",
                    found.region, found.account
                ),
                Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
                // A bare id is the caller's account's.
                Some(id) => {
                    format!("arn:aws:kms:{}:{}:key/{id}", found.region, who.identity.account)
                }
            };
            if kind == "aws:kms" {
                Encryption::Kms { key: arn }
            } else {
                Encryption::Dsse { key: arn }
            }
        }
        Some(_) => {
            return Err(failed(Failure::new(
                "InvalidArgument",
                400,
                "The encryption method specified is not supported",
            )));
        }
    };
    if let Some(arn) = encryption.kms_key() {
        kms(world, who, "kms:GenerateDataKey", bucket, key, arn)?;
    }
    Ok(encryption)
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

pub(crate) fn time(version: &Version) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_secs(version.modified))
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

pub(crate) fn tags_of(text: &str) -> BTreeMap<String, String> {
    let decode = |s: &str| {
        let mut out = Vec::new();
        let mut bytes = s.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'%' => {
                    let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                    out.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
                }
                b'+' => out.push(b' '),
                other => out.push(other),
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

pub(crate) async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|_| s3_error!(IncompleteBody))?);
        }
    }
    Ok(bytes.freeze())
}
