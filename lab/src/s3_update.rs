//! UpdateObjectEncryption, which `s3s` does not know: a route of its own.
//!
//! After its page in the S3 API Reference (the operation is of January 2026).

use hyper::HeaderMap;
use hyper::http::{Extensions, Method, Uri};
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use crate::buckets::{Encryption, UpdateEncryption};
use crate::query::percent_decoded;
use crate::s3::Store;
use crate::s3_rules::{Call, failed};
use crate::world::Failure;

/// What is asked for.
struct Target {
    bucket: String,
    key: String,
    version_id: Option<String>,
}

impl Target {
    fn of(method: &Method, uri: &Uri) -> Option<Self> {
        let query = uri.query().unwrap_or_default();
        let pair = |text: &'static str| {
            query
                .split('&')
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .find(move |(name, _)| *name == text)
                .map(|(_, value)| percent_decoded(value))
        };
        let (bucket, key) = uri.path().trim_start_matches('/').split_once('/')?;
        let meant = method == Method::PUT && pair("encryption").is_some() && !key.is_empty();
        meant.then(|| Self {
            bucket: bucket.to_owned(),
            key: percent_decoded(key),
            version_id: pair("versionId").filter(|id| !id.is_empty()),
        })
    }
}

#[async_trait::async_trait]
impl S3Route for Store {
    fn is_match(&self, method: &Method, uri: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        let Some(target) = Target::of(method, uri) else { return false };
        // Where it is not matched, `s3s` does what such emulators do: it sees a PutObject.
        let world = self.world();
        let bucket = world.buckets.get(&target.bucket);
        bucket.is_none_or(|bucket| bucket.update_encryption != UpdateEncryption::Overwrites)
    }

    async fn call(&self, mut req: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let target = Target::of(&req.method, &req.uri).ok_or_else(|| s3_error!(InternalError))?;
        let who = self.enter(&req, &target.bucket)?;
        let body = req.input.store_all_limited(1 << 20).await;
        let body = body.map_err(|_| s3_error!(IncompleteBody))?;
        let world = &mut *self.world();
        let call = Call { world, who: &who, headers: &req.headers, input: &target };
        update(call, &String::from_utf8_lossy(&body))?;
        Ok(S3Response::new(Body::empty()))
    }
}

fn invalid<T>(message: &str) -> S3Result<T> {
    Err(failed(Failure::new("InvalidRequest", 400, message)))
}

fn denied<T>(message: &str) -> S3Result<T> {
    Err(failed(Failure::new("AccessDenied", 403, message)))
}

/// The text of an element without attributes; the request's XML has no others inside.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

fn update(call: Call<'_, Target>, xml: &str) -> S3Result<()> {
    let Target { bucket, key, version_id } = call.input;
    let found = &call.world.buckets[bucket];
    if found.update_encryption == UpdateEncryption::NotImplemented {
        let message = "A header you provided implies functionality that is not implemented";
        return Err(failed(Failure::new("NotImplemented", 501, message)));
    }
    let owner = found.account.clone();

    // AWS: the target is SSE-KMS, by the full ARN of a key; never SSE-S3.
    let Some(wanted) = element(xml, "SSE-KMS") else {
        return invalid(
            "Requests that modify an object encryption configuration require a valid new encryption type. Valid values are SSEKMS. Modify the request to specify SSE-KMS for the updated encryption type, and then try again.",
        );
    };
    let Some(arn) = element(wanted, "KMSKeyArn").filter(|arn| !arn.is_empty()) else {
        return invalid(
            "Requests that modify an object's encryption type to SSE-KMS require an AWS KMS key Amazon Resource Name (ARN). Modify the request to specify a KMS key ARN, and then try again.",
        );
    };
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", _, "kms", _, account, resource] = parts[..] else { return invalid(NO_ARN) };
    if !resource.starts_with("key/") {
        return invalid(NO_ARN);
    }
    let bucket_key = match element(wanted, "BucketKeyEnabled") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            return invalid(
                "The BucketKeyEnabled value isn't valid. Valid values are true or false. Modify the request to specify a valid value, and then try again.",
            );
        }
    };

    let version = call.find("s3:UpdateObjectEncryption", bucket, key, version_id.as_deref())?;
    if account != owner {
        return denied(
            "The AWS KMS key in the request must be owned by the same account as the bucket. Modify the request to specify a KMS key from the same account, and then try again.",
        );
    }
    match version.encryption {
        Encryption::SseS3 | Encryption::Kms { .. } => {}
        Encryption::None => {
            return invalid(
                "The UpdateObjectEncryption operation doesn't supported unencrypted source objects. Only source objects encrypted with SSE-S3 or SSE-KMS are supported.",
            );
        }
        Encryption::Dsse { .. } | Encryption::SseC => {
            return invalid(
                "The UpdateObjectEncryption operation doesn't support source objects with the encryption type DSSE-KMS or SSE-C. Only source objects encrypted with SSE-S3 or SSE-KMS are supported.",
            );
        }
    }
    if version.is_locked() {
        return denied(
            "The encryption type for the specified object can't be updated because that object is protected by S3 Object Lock.",
        );
    }

    // AWS names kms:Encrypt, Decrypt, GenerateDataKey and ReEncrypt*, and does not say on
    // which key. A re-encryption is from the old to the new one; the new one is then read.
    if let Some(old) = version.encryption.kms_key() {
        for action in ["kms:Decrypt", "kms:ReEncryptFrom"] {
            call.kms(action, bucket, key, old, version.bucket_key)?;
        }
    }
    for action in ["kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt", "kms:ReEncryptTo"] {
        call.kms(action, bucket, key, arn, bucket_key)?;
    }

    // AWS: in place; ETag, LastModified, checksums and storage class stay.
    let id = version.version_id.clone();
    let versions = call.world.bucket_mut(bucket).objects.get_mut(key).into_iter().flatten();
    for version in versions.filter(|version| version.version_id == id) {
        version.encryption = Encryption::Kms { key: arn.to_owned() };
        version.bucket_key = bucket_key;
    }
    Ok(())
}

const NO_ARN: &str = "Requests that modify an object's encryption type to SSE-KMS require a valid AWS KMS key Amazon Resource Name (ARN). Confirm that you have a correctly formatted KMS key ARN in your request, and then try again.";
