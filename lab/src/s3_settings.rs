//! The bucket's settings as S3's API answers them, and re-encryption in place.

use std::collections::BTreeMap;

use hyper::http::{Extensions, HeaderMap, Method, Uri};
use s3s::dto::*;
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use crate::s3::Store;
use crate::s3_rules::{failed, kms, read, sse};
use crate::world::{Encryption, Failure, Principal, UpdateEncryption, Version, World};

/// AWS answers 404 with a code of its own for a setting that was never made.
pub(crate) fn unset<T>(code: &'static str) -> S3Result<S3Response<T>> {
    Err(failed(Failure::new(code, 404, "The configuration was not found")))
}

pub(crate) fn encryption(world: &World, bucket: &str) -> GetBucketEncryptionOutput {
    let bucket = &world.buckets[bucket];
    let (algorithm, kms_master_key_id) = sse(&bucket.default_encryption);
    let default = algorithm
        .map(|sse_algorithm| ServerSideEncryptionByDefault { kms_master_key_id, sse_algorithm });
    GetBucketEncryptionOutput {
        server_side_encryption_configuration: Some(ServerSideEncryptionConfiguration {
            rules: vec![ServerSideEncryptionRule {
                apply_server_side_encryption_by_default: default,
                bucket_key_enabled: Some(bucket.bucket_key),
            }],
        }),
    }
}

pub(crate) fn public_access(blocked: bool) -> GetPublicAccessBlockOutput {
    let on = Some(blocked);
    GetPublicAccessBlockOutput {
        public_access_block_configuration: Some(PublicAccessBlockConfiguration {
            block_public_acls: on,
            block_public_policy: on,
            ignore_public_acls: on,
            restrict_public_buckets: on,
        }),
    }
}

pub(crate) fn ownership(enforced: bool) -> GetBucketOwnershipControlsOutput {
    let word = if enforced { "BucketOwnerEnforced" } else { "ObjectWriter" };
    GetBucketOwnershipControlsOutput {
        ownership_controls: Some(OwnershipControls {
            rules: vec![OwnershipControlsRule {
                object_ownership: ObjectOwnership::from_static(word),
            }],
        }),
    }
}

/// The rule's prefix, and whether it takes objects under KMS keys.
pub(crate) fn replication(rule: &(String, bool)) -> GetBucketReplicationOutput {
    let (prefix, takes_kms) = rule;
    let criteria = takes_kms.then(|| SourceSelectionCriteria {
        sse_kms_encrypted_objects: Some(SseKmsEncryptedObjects {
            status: SseKmsEncryptedObjectsStatus::from_static("Enabled"),
        }),
        ..Default::default()
    });
    let rule = ReplicationRule {
        delete_marker_replication: None,
        destination: Destination { bucket: "arn:aws:s3:::replica".into(), ..Default::default() },
        existing_object_replication: None,
        filter: Some(ReplicationRuleFilter { prefix: Some(prefix.clone()), ..Default::default() }),
        id: Some("to-replica".into()),
        prefix: None,
        priority: Some(1),
        source_selection_criteria: criteria,
        status: ReplicationRuleStatus::from_static("Enabled"),
    };
    GetBucketReplicationOutput {
        replication_configuration: Some(ReplicationConfiguration {
            role: "arn:aws:iam::111111111111:role/replication".into(),
            rules: vec![rule],
        }),
    }
}

pub(crate) fn object_lock(days: i32) -> GetObjectLockConfigurationOutput {
    GetObjectLockConfigurationOutput {
        object_lock_configuration: Some(ObjectLockConfiguration {
            object_lock_enabled: Some(ObjectLockEnabled::from_static("Enabled")),
            rule: Some(ObjectLockRule {
                default_retention: Some(DefaultRetention {
                    days: Some(days),
                    mode: Some(ObjectLockRetentionMode::from_static("GOVERNANCE")),
                    years: None,
                }),
            }),
        }),
    }
}

/// UpdateObjectEncryption (PUT /bucket/key?encryption), which `s3s` does not know.
pub(crate) struct InPlace(pub(crate) Store);

#[async_trait::async_trait]
impl S3Route for InPlace {
    fn is_match(&self, method: &Method, uri: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        let mut names = uri.query().unwrap_or_default().split('&');
        let object = uri.path().trim_start_matches('/').contains('/');
        *method == Method::PUT
            && object
            && names.any(|pair| pair.split('=').next() == Some("encryption"))
    }

    async fn call(&self, mut req: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let path = req.uri.path().trim_start_matches('/').to_owned();
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        let key = crate::query::percent_decoded(key);
        let version =
            req.uri.query().unwrap_or_default().split('&').find_map(|pair| {
                pair.strip_prefix("versionId=").map(crate::query::percent_decoded)
            });
        let body = read(Some(StreamingBlob::from(std::mem::take(&mut req.input)))).await?;
        let who = self.0.enter(&req, bucket)?;
        let mut world = self.0.world();
        match world.buckets[bucket].update_encryption {
            UpdateEncryption::Supported => {
                let text = String::from_utf8_lossy(&body);
                let arn = between(&text, "<KMSKeyArn>", "</KMSKeyArn>");
                update(&mut world, &who, bucket, &key, version.as_deref(), arn)?;
            }
            UpdateEncryption::NotImplemented => return Err(s3_error!(NotImplemented)),
            // What servers do that know the path and not the sub-resource.
            UpdateEncryption::Overwrites => {
                world.write(bucket, &key, Version::new(body, Encryption::SseS3));
            }
        }
        Ok(S3Response::new(Body::empty()))
    }
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let tail = text.split_once(from).map_or("", |(_, tail)| tail);
    tail.split_once(to).map_or("", |(inside, _)| inside)
}

/// AWS: full key ARN only, the key in the bucket owner's account; SSE-S3 and SSE-KMS sources
/// only; the right to use the key for both encryption and decryption. ETag, date and version
/// stay.
fn update(
    world: &mut World,
    who: &Principal,
    bucket: &str,
    key: &str,
    version: Option<&str>,
    arn: &str,
) -> S3Result<()> {
    let invalid = |message: &str| Err(failed(Failure::new("InvalidRequest", 400, message)));
    let action = "s3:UpdateObjectEncryption";
    world.may(who, action, bucket, Some(key), BTreeMap::new()).map_err(failed)?;
    let account = world.buckets[bucket].account.clone();
    if arn.split(':').nth(4) != Some(account.as_str()) || !arn.contains(":key/") {
        return invalid("The KMS key must be a full ARN of the bucket owner's account");
    }
    let found = world.versions(bucket, key).iter().position(|candidate| match version {
        Some(id) => candidate.version_id == id,
        None => !candidate.delete_marker,
    });
    let at = match version {
        Some(_) => found,
        None => world.versions(bucket, key).len().checked_sub(1).filter(|_| found.is_some()),
    };
    let Some(at) = at else { return Err(s3_error!(NoSuchKey)) };
    match &world.versions(bucket, key)[at].encryption {
        Encryption::SseS3 => {}
        Encryption::Kms { key: old } => {
            let old = old.clone();
            kms(world, who, "kms:Decrypt", bucket, key, &old)?;
        }
        Encryption::None | Encryption::Dsse { .. } | Encryption::SseC => {
            return invalid("The source's encryption cannot be updated");
        }
    }
    for action in ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey"] {
        kms(world, who, action, bucket, key, arn)?;
    }
    if let Some(versions) = world.bucket_mut(bucket).objects.get_mut(key) {
        versions[at].encryption = Encryption::Kms { key: arn.to_owned() };
    }
    Ok(())
}
