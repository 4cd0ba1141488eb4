//! Buckets and their configurations, after the S3 API Reference. Each one needs its own IAM
//! action, and has its own error for «there is none».

use s3s::S3Result;
use s3s::dto::*;

use crate::buckets::Bucket;
use crate::s3_rules::{Call, failed, sse, with_region};
use crate::world::Failure;

fn none<T>(code: &'static str, message: &str) -> S3Result<T> {
    Err(failed(Failure::new(code, 404, message)))
}

pub(crate) fn head(call: Call<'_, HeadBucketInput>) -> S3Result<HeadBucketOutput> {
    let bucket = &call.input.bucket;
    let region = call.world.buckets[bucket].region.clone();
    call.may("s3:ListBucket", bucket, None).map_err(|error| with_region(error, &region))?;
    Ok(HeadBucketOutput { bucket_region: Some(region), ..Default::default() })
}

pub(crate) fn location(
    call: Call<'_, GetBucketLocationInput>,
) -> S3Result<GetBucketLocationOutput> {
    let region = config(&call, "s3:GetBucketLocation", &call.input.bucket)?.region.clone();
    // AWS: us-east-1 has no constraint.
    let location_constraint =
        (region != "us-east-1").then(|| BucketLocationConstraint::from(region));
    Ok(GetBucketLocationOutput { location_constraint })
}

pub(crate) fn versioning(
    call: Call<'_, GetBucketVersioningInput>,
) -> S3Result<GetBucketVersioningOutput> {
    let bucket = config(&call, "s3:GetBucketVersioning", &call.input.bucket)?;
    let status = bucket.versioned.then(|| BucketVersioningStatus::from_static("Enabled"));
    Ok(GetBucketVersioningOutput { status, ..Default::default() })
}

pub(crate) fn encryption(
    call: Call<'_, GetBucketEncryptionInput>,
) -> S3Result<GetBucketEncryptionOutput> {
    let bucket = config(&call, "s3:GetEncryptionConfiguration", &call.input.bucket)?;
    let (Some(sse_algorithm), kms_master_key_id) = sse(&bucket.default_encryption) else {
        return none(
            "ServerSideEncryptionConfigurationNotFoundError",
            "The server side encryption configuration was not found",
        );
    };
    let rule = ServerSideEncryptionRule {
        apply_server_side_encryption_by_default: Some(ServerSideEncryptionByDefault {
            kms_master_key_id,
            sse_algorithm,
        }),
        // AWS: it may be on beside AES256, for the objects that are written under a KMS key.
        bucket_key_enabled: Some(bucket.bucket_key),
    };
    Ok(GetBucketEncryptionOutput {
        server_side_encryption_configuration: Some(ServerSideEncryptionConfiguration {
            rules: vec![rule],
        }),
    })
}

/// AWS: 403 without the permission; with it, but from another account, 405.
pub(crate) fn policy(call: Call<'_, GetBucketPolicyInput>) -> S3Result<GetBucketPolicyOutput> {
    let bucket = config(&call, "s3:GetBucketPolicy", &call.input.bucket)?;
    if bucket.account != call.who.identity.account {
        let message = "The specified method is not allowed against this resource.";
        return Err(failed(Failure::new("MethodNotAllowed", 405, message)));
    }
    let Some(policy) = &bucket.policy else {
        return none("NoSuchBucketPolicy", "The bucket policy does not exist");
    };
    Ok(GetBucketPolicyOutput { policy: Some(policy.to_string()) })
}

pub(crate) fn public_access_block(
    call: Call<'_, GetPublicAccessBlockInput>,
) -> S3Result<GetPublicAccessBlockOutput> {
    let bucket = config(&call, "s3:GetBucketPublicAccessBlock", &call.input.bucket)?;
    let Some(blocked) = bucket.public_access_blocked else {
        return none(
            "NoSuchPublicAccessBlockConfiguration",
            "The public access block configuration was not found",
        );
    };
    Ok(GetPublicAccessBlockOutput {
        public_access_block_configuration: Some(PublicAccessBlockConfiguration {
            block_public_acls: Some(blocked),
            ignore_public_acls: Some(blocked),
            block_public_policy: Some(blocked),
            restrict_public_buckets: Some(blocked),
        }),
    })
}

pub(crate) fn ownership(
    call: Call<'_, GetBucketOwnershipControlsInput>,
) -> S3Result<GetBucketOwnershipControlsOutput> {
    let bucket = config(&call, "s3:GetBucketOwnershipControls", &call.input.bucket)?;
    let Some(off) = bucket.acls_off else {
        return none(
            "OwnershipControlsNotFoundError",
            "The bucket ownership controls were not found",
        );
    };
    let word = if off { "BucketOwnerEnforced" } else { "ObjectWriter" };
    let object_ownership = ObjectOwnership::from_static(word);
    Ok(GetBucketOwnershipControlsOutput {
        ownership_controls: Some(OwnershipControls {
            rules: vec![OwnershipControlsRule { object_ownership }],
        }),
    })
}

pub(crate) fn replication(
    call: Call<'_, GetBucketReplicationInput>,
) -> S3Result<GetBucketReplicationOutput> {
    let bucket = config(&call, "s3:GetReplicationConfiguration", &call.input.bucket)?;
    let Some((prefix, takes_kms)) = &bucket.replication else {
        return none(
            "ReplicationConfigurationNotFoundError",
            "The replication configuration was not found",
        );
    };
    // AWS: SSE-KMS objects are replicated only where the rule selects them.
    let source_selection_criteria = takes_kms.then(|| SourceSelectionCriteria {
        sse_kms_encrypted_objects: Some(SseKmsEncryptedObjects {
            status: SseKmsEncryptedObjectsStatus::from_static("Enabled"),
        }),
        ..Default::default()
    });
    let rule = ReplicationRule {
        delete_marker_replication: None,
        destination: Destination {
            bucket: "arn:aws:s3:::replica".to_owned(),
            encryption_configuration: bucket
                .replica_kms_key
                .clone()
                .map(|key| EncryptionConfiguration { replica_kms_key_id: Some(key) }),
            ..Default::default()
        },
        existing_object_replication: None,
        filter: Some(ReplicationRuleFilter { prefix: Some(prefix.clone()), ..Default::default() }),
        id: Some("replicate".to_owned()),
        prefix: None,
        priority: Some(1),
        source_selection_criteria,
        status: ReplicationRuleStatus::from_static("Enabled"),
    };
    Ok(GetBucketReplicationOutput {
        replication_configuration: Some(ReplicationConfiguration {
            role: format!("arn:aws:iam::{}:role/replication", bucket.account),
            rules: vec![rule],
        }),
    })
}

pub(crate) fn object_lock(
    call: Call<'_, GetObjectLockConfigurationInput>,
) -> S3Result<GetObjectLockConfigurationOutput> {
    let bucket = config(&call, "s3:GetBucketObjectLockConfiguration", &call.input.bucket)?;
    let Some(days) = bucket.retention_days else {
        return none(
            "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist for this bucket",
        );
    };
    let rule = (days > 0).then(|| ObjectLockRule {
        default_retention: Some(DefaultRetention {
            days: Some(days),
            mode: Some(ObjectLockRetentionMode::from_static("GOVERNANCE")),
            years: None,
        }),
    });
    Ok(GetObjectLockConfigurationOutput {
        object_lock_configuration: Some(ObjectLockConfiguration {
            object_lock_enabled: Some(ObjectLockEnabled::from_static("Enabled")),
            rule,
        }),
    })
}

pub(crate) fn lifecycle(
    call: Call<'_, GetBucketLifecycleConfigurationInput>,
) -> S3Result<GetBucketLifecycleConfigurationOutput> {
    let bucket = config(&call, "s3:GetLifecycleConfiguration", &call.input.bucket)?;
    let Some(lifecycle) = &bucket.lifecycle else {
        return none("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist");
    };
    let rule = LifecycleRule {
        abort_incomplete_multipart_upload: None,
        expiration: None,
        filter: Some(LifecycleRuleFilter {
            prefix: Some(lifecycle.prefix.clone()),
            ..Default::default()
        }),
        id: Some("expire".to_owned()),
        noncurrent_version_expiration: Some(NoncurrentVersionExpiration {
            newer_noncurrent_versions: None,
            noncurrent_days: Some(lifecycle.noncurrent_days),
        }),
        noncurrent_version_transitions: None,
        prefix: None,
        status: ExpirationStatus::from_static("Enabled"),
        transitions: None,
    };
    Ok(GetBucketLifecycleConfigurationOutput { rules: Some(vec![rule]), ..Default::default() })
}

/// The bucket, for someone who may ask for this configuration of it.
fn config<'c, T>(call: &'c Call<'_, T>, action: &str, bucket: &str) -> S3Result<&'c Bucket> {
    call.may(action, bucket, None)?;
    Ok(&call.world.buckets[bucket])
}
