//! S3's operations on the world. The protocol and the signatures are `s3s`'s.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::*;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use crate::s3_rules::{
    conditions, context, failed, find, header, read, readable, refuse_customer_key, same_etag, sse,
    tags_of, time, with_region, write_context, write_encryption,
};
use crate::s3_settings;
use crate::world::{Failure, Principal, Version, World};

/// S3 over a world.
#[derive(Clone)]
pub(crate) struct Store(pub(crate) Arc<Mutex<World>>);

/// S3's limit for a copy in one request.
const COPY_LIMIT: u64 = 5 << 30;

impl Store {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read of one of the bucket's settings, each with an action of its own.
    fn setting<T>(
        &self,
        request: &S3Request<T>,
        bucket: &str,
        action: &str,
    ) -> S3Result<MutexGuard<'_, World>> {
        let who = self.enter(request, bucket)?;
        let world = self.world();
        world.may(&who, action, bucket, None, BTreeMap::new()).map_err(failed)?;
        Ok(world)
    }

    /// What every call goes through: whose credentials these are, for which region the
    /// request was signed, and whose bucket the caller believes it to be.
    pub(crate) fn enter<T>(&self, request: &S3Request<T>, bucket: &str) -> S3Result<Principal> {
        let world = self.world();
        let credentials = request.credentials.as_ref();
        let who = credentials.and_then(|c| world.by_access_key(&c.access_key));
        let Some(who) = who else { return Err(s3_error!(AccessDenied)) };
        let token = header(&request.headers, "x-amz-security-token");
        if token != who.token.as_deref() {
            return Err(failed(Failure::new(
                "InvalidToken",
                400,
                "The provided token is malformed or otherwise invalid.",
            )));
        }
        let Some(found) = world.buckets.get(bucket) else {
            return Err(failed(Failure::new(
                "NoSuchBucket",
                404,
                "The specified bucket does not exist",
            )));
        };
        // AWS: a request that is signed for another region is redirected, and the answer
        // names the bucket's region whatever the permissions.
        if request.region.as_ref().is_some_and(|region| region.as_str() != found.region) {
            let failure = Failure::new(
                "PermanentRedirect",
                301,
                "The bucket you are attempting to access must be addressed using the specified endpoint.",
            );
            return Err(with_region(failed(failure), &found.region));
        }
        for name in ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"] {
            if header(&request.headers, name).is_some_and(|owner| owner != found.account) {
                return Err(with_region(
                    failed(Failure::new("AccessDenied", 403, "Access Denied")),
                    &found.region,
                ));
            }
        }
        Ok(who.clone())
    }
}

/// GET and HEAD answer with the same headers.
macro_rules! describe {
    ($output:ident, $version:expr) => {{
        let version = $version;
        let (encryption, key) = sse(&version.encryption);
        $output {
            content_length: i64::try_from(version.size()).ok(),
            content_type: version.content_type.clone(),
            cache_control: version.cache_control.clone(),
            content_encoding: version.content_encoding.clone(),
            e_tag: Some(ETag::Strong(version.etag.clone())),
            last_modified: Some(time(version)),
            metadata: Some(version.metadata.clone().into_iter().collect()),
            server_side_encryption: encryption,
            ssekms_key_id: key,
            storage_class: version.storage_class.clone().map(|c| StorageClass::from(c)),
            version_id: Some(version.version_id.clone()).filter(|id| id != "null"),
            accept_ranges: Some("bytes".into()),
            ..Default::default()
        }
    }};
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let world = self.world();
        let bucket = &req.input.bucket;
        let region = world.buckets[bucket].region.clone();
        world
            .may(&who, "s3:ListBucket", bucket, None, BTreeMap::new())
            .map_err(|failure| with_region(failed(failure), &region))?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(region), ..Default::default() }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let world = self.world();
        world
            .may(&who, "s3:GetBucketLocation", &req.input.bucket, None, BTreeMap::new())
            .map_err(failed)?;
        let region = world.buckets[&req.input.bucket].region.clone();
        // AWS: us-east-1 has no constraint.
        let location_constraint =
            (region != "us-east-1").then(|| BucketLocationConstraint::from(region));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let world = self.world();
        world
            .may(&who, "s3:GetBucketVersioning", &req.input.bucket, None, BTreeMap::new())
            .map_err(failed)?;
        let status = world.buckets[&req.input.bucket]
            .versioned
            .then(|| BucketVersioningStatus::from_static("Enabled"));
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..Default::default() }))
    }

    async fn get_bucket_encryption(
        &self,
        req: S3Request<GetBucketEncryptionInput>,
    ) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
        let world = self.setting(&req, &req.input.bucket, "s3:GetEncryptionConfiguration")?;
        Ok(S3Response::new(s3_settings::encryption(&world, &req.input.bucket)))
    }

    async fn get_bucket_policy(
        &self,
        req: S3Request<GetBucketPolicyInput>,
    ) -> S3Result<S3Response<GetBucketPolicyOutput>> {
        let world = self.setting(&req, &req.input.bucket, "s3:GetBucketPolicy")?;
        match &world.buckets[&req.input.bucket].policy {
            Some(policy) => {
                Ok(S3Response::new(GetBucketPolicyOutput { policy: Some(policy.to_string()) }))
            }
            None => s3_settings::unset("NoSuchBucketPolicy"),
        }
    }

    async fn get_public_access_block(
        &self,
        req: S3Request<GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
        let world = self.setting(&req, &req.input.bucket, "s3:GetBucketPublicAccessBlock")?;
        match world.buckets[&req.input.bucket].public_access_blocked {
            Some(blocked) => Ok(S3Response::new(s3_settings::public_access(blocked))),
            None => s3_settings::unset("NoSuchPublicAccessBlockConfiguration"),
        }
    }

    async fn get_bucket_ownership_controls(
        &self,
        req: S3Request<GetBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<GetBucketOwnershipControlsOutput>> {
        let world = self.setting(&req, &req.input.bucket, "s3:GetBucketOwnershipControls")?;
        match world.buckets[&req.input.bucket].acls_off {
            Some(enforced) => Ok(S3Response::new(s3_settings::ownership(enforced))),
            None => s3_settings::unset("OwnershipControlsNotFoundError"),
        }
    }

    async fn get_bucket_replication(
        &self,
        req: S3Request<GetBucketReplicationInput>,
    ) -> S3Result<S3Response<GetBucketReplicationOutput>> {
        let world = self.setting(&req, &req.input.bucket, "s3:GetReplicationConfiguration")?;
        match &world.buckets[&req.input.bucket].replication {
            Some(rule) => Ok(S3Response::new(s3_settings::replication(rule))),
            None => s3_settings::unset("ReplicationConfigurationNotFoundError"),
        }
    }

    async fn get_object_lock_configuration(
        &self,
        req: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        let world = self.setting(&req, &req.input.bucket, "s3:GetBucketObjectLockConfiguration")?;
        match world.buckets[&req.input.bucket].retention_days {
            Some(days) => Ok(S3Response::new(s3_settings::object_lock(days))),
            None => s3_settings::unset("ObjectLockConfigurationNotFoundError"),
        }
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let world = self.world();
        let GetObjectInput { bucket, key, version_id, .. } = &req.input;
        let version = find(&world, &who, "s3:GetObject", bucket, key, version_id.as_deref())?;
        refuse_customer_key(version)?;
        if header(&req.headers, "if-match").is_some_and(|wanted| !same_etag(wanted, &version.etag))
        {
            return Err(s3_error!(PreconditionFailed));
        }
        readable(&world, &who, bucket, key, version)?;
        // AWS tells the number of tags only to those who may read them.
        let tagged = !version.tags.is_empty()
            && world.may(&who, "s3:GetObjectTagging", bucket, Some(key), BTreeMap::new()).is_ok();
        let output = GetObjectOutput {
            body: Some(StreamingBlob::from(Body::from(version.body.clone()))),
            tag_count: tagged.then(|| i32::try_from(version.tags.len()).unwrap_or(i32::MAX)),
            ..describe!(GetObjectOutput, version)
        };
        Ok(S3Response::new(output))
    }

    /// AWS: s3:GetObject is enough; with the checksum mode it needs KMS as a GET does.
    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let world = self.world();
        let HeadObjectInput { bucket, key, version_id, .. } = &req.input;
        let version = find(&world, &who, "s3:GetObject", bucket, key, version_id.as_deref())?;
        refuse_customer_key(version)?;
        if header(&req.headers, "if-match").is_some_and(|wanted| !same_etag(wanted, &version.etag))
        {
            return Err(s3_error!(PreconditionFailed));
        }
        if header(&req.headers, "x-amz-checksum-mode").is_some() {
            readable(&world, &who, bucket, key, version)?;
        }
        Ok(S3Response::new(describe!(HeadObjectOutput, version)))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let (headers, input) = (req.headers, req.input);
        let (bucket, key) = (&input.bucket.clone(), &input.key.clone());
        {
            let world = self.world();
            world
                .may(&who, "s3:PutObject", bucket, Some(key), write_context(&headers))
                .map_err(failed)?;
            if input.tagging.is_some() {
                world
                    .may(&who, "s3:PutObjectTagging", bucket, Some(key), BTreeMap::new())
                    .map_err(failed)?;
            }
            if input.acl.is_some() {
                world
                    .may(&who, "s3:PutObjectAcl", bucket, Some(key), BTreeMap::new())
                    .map_err(failed)?;
            }
        }
        let body = read(input.body).await?;
        let mut world = self.world();
        conditions(&headers, world.current(bucket, key))?;
        let encryption = write_encryption(&world, &who, bucket, key, &headers)?;
        let mut version = Version::new(body, encryption);
        version.content_type =
            Some(input.content_type.unwrap_or_else(|| "binary/octet-stream".into()));
        version.cache_control = input.cache_control;
        version.content_encoding = input.content_encoding;
        version.metadata = input.metadata.into_iter().flatten().collect();
        version.tags = input.tagging.as_deref().map(tags_of).unwrap_or_default();
        version.storage_class =
            input.storage_class.map(|c| c.as_str().to_owned()).filter(|c| c != "STANDARD");
        world.write(bucket, key, version);
        let version = world.current(bucket, key).ok_or_else(|| s3_error!(InternalError))?;
        let (server_side_encryption, ssekms_key_id) = sse(&version.encryption);
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(version.etag.clone())),
            server_side_encryption,
            ssekms_key_id,
            version_id: Some(version.version_id.clone()).filter(|id| id != "null"),
            ..Default::default()
        }))
    }

    /// AWS: needs s3:GetObject and s3:PutObject, for a tagged object also the right to read
    /// and write tags; kms:Decrypt on the source's key and kms:GenerateDataKey on the target's.
    async fn copy_object(
        &self,
        req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let (headers, input) = (&req.headers, &req.input);
        let CopyObjectInput { bucket, key, .. } = input;
        let CopySource::Bucket { bucket: from, key: from_key, version_id } = &input.copy_source
        else {
            return Err(s3_error!(NotImplemented));
        };
        let mut world = self.world();
        let source =
            find(&world, &who, "s3:GetObject", from, from_key, version_id.as_deref())?.clone();
        refuse_customer_key(&source)?;
        world
            .may(&who, "s3:PutObject", bucket, Some(key), write_context(headers))
            .map_err(failed)?;
        if !source.tags.is_empty() {
            world
                .may(&who, "s3:GetObjectTagging", from, Some(from_key), BTreeMap::new())
                .map_err(failed)?;
            world
                .may(&who, "s3:PutObjectTagging", bucket, Some(key), BTreeMap::new())
                .map_err(failed)?;
        }
        if input.acl.is_some() {
            world
                .may(&who, "s3:PutObjectAcl", bucket, Some(key), BTreeMap::new())
                .map_err(failed)?;
        }
        if source.size() > COPY_LIMIT {
            let message = "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120";
            return Err(failed(Failure::new("InvalidRequest", 400, message)));
        }
        if header(headers, "x-amz-copy-source-if-match")
            .is_some_and(|wanted| !same_etag(wanted, &source.etag))
        {
            return Err(s3_error!(PreconditionFailed));
        }
        conditions(headers, world.current(bucket, key))?;
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
        readable(&world, &who, from, from_key, &source)?;
        let encryption = write_encryption(&world, &who, bucket, key, headers)?;
        // Kept: body, metadata, Content-Type, tags. Not kept: storage class.
        let mut version = Version::new(source.body.clone(), encryption);
        version.declared_size = source.declared_size;
        version.tags = source.tags.clone();
        if replace {
            version.content_type =
                Some(input.content_type.clone().unwrap_or_else(|| "binary/octet-stream".into()));
            version.cache_control = input.cache_control.clone();
            version.content_encoding = input.content_encoding.clone();
            version.metadata = input.metadata.clone().into_iter().flatten().collect();
        } else {
            version.content_type = source.content_type.clone();
            version.cache_control = source.cache_control.clone();
            version.content_encoding = source.content_encoding.clone();
            version.metadata = source.metadata.clone();
        }
        version.storage_class =
            input.storage_class.as_ref().map(|c| c.as_str().to_owned()).filter(|c| c != "STANDARD");
        world.write(bucket, key, version);
        let version = world.current(bucket, key).ok_or_else(|| s3_error!(InternalError))?;
        let (server_side_encryption, ssekms_key_id) = sse(&version.encryption);
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(ETag::Strong(version.etag.clone())),
                last_modified: Some(time(version)),
                ..Default::default()
            }),
            server_side_encryption,
            ssekms_key_id,
            version_id: Some(version.version_id.clone()).filter(|id| id != "null"),
            copy_source_version_id: Some(source.version_id).filter(|id| id != "null"),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let DeleteObjectInput { bucket, key, version_id, .. } = &req.input;
        let mut world = self.world();
        let action =
            if version_id.is_some() { "s3:DeleteObjectVersion" } else { "s3:DeleteObject" };
        world.may(&who, action, bucket, Some(key), BTreeMap::new()).map_err(failed)?;
        if header(&req.headers, "if-match").is_some() {
            conditions(&req.headers, world.current(bucket, key))?;
        }
        match version_id {
            Some(id) => {
                let versions = world.bucket_mut(bucket).objects.entry(key.clone()).or_default();
                versions.retain(|version| version.version_id != *id);
            }
            None => world.delete_object(bucket, key),
        }
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let GetObjectTaggingInput { bucket, key, version_id, .. } = &req.input;
        let world = self.world();
        let version =
            find(&world, &who, "s3:GetObjectTagging", bucket, key, version_id.as_deref())?;
        let tag = |(key, value): (&String, &String)| Tag {
            key: Some(key.clone()),
            value: Some(value.clone()),
        };
        let tag_set = version.tags.iter().map(tag).collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: None }))
    }

    async fn put_object_tagging(
        &self,
        req: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let PutObjectTaggingInput { bucket, key, tagging, .. } = &req.input;
        let mut world = self.world();
        find(&world, &who, "s3:PutObjectTagging", bucket, key, None)?;
        let pairs =
            tagging.tag_set.iter().filter_map(|tag| Some((tag.key.clone()?, tag.value.clone()?)));
        let tags = pairs.collect();
        world.with_object(bucket, key, |version| version.tags = tags);
        Ok(S3Response::new(PutObjectTaggingOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let input = &req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let world = self.world();
        let context = context(&[("s3:prefix", &prefix)]);
        world.may(&who, "s3:ListBucket", &input.bucket, None, context).map_err(failed)?;
        let limit = usize::try_from(input.max_keys.unwrap_or(1000)).unwrap_or(1000).min(1000);
        let after =
            input.continuation_token.clone().or(input.start_after.clone()).unwrap_or_default();
        let found: Vec<Object> = world.buckets[&input.bucket]
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && **key > after)
            .filter_map(|(key, versions)| {
                let version = versions.last().filter(|version| !version.delete_marker)?;
                Some(Object {
                    key: Some(key.clone()),
                    e_tag: Some(ETag::Strong(version.etag.clone())),
                    size: i64::try_from(version.size()).ok(),
                    last_modified: Some(time(version)),
                    ..Default::default()
                })
            })
            .take(limit + 1)
            .collect();
        let truncated = found.len() > limit;
        let contents: Vec<Object> = found.into_iter().take(limit).collect();
        let next = contents.last().and_then(|object| object.key.clone()).filter(|_| truncated);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket.clone()),
            prefix: Some(prefix),
            key_count: i32::try_from(contents.len()).ok(),
            is_truncated: Some(truncated),
            next_continuation_token: next,
            contents: Some(contents),
            ..Default::default()
        }))
    }

    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let who = self.enter(&req, &req.input.bucket)?;
        let input = &req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let world = self.world();
        world
            .may(&who, "s3:ListBucketVersions", &input.bucket, None, BTreeMap::new())
            .map_err(failed)?;
        let (mut versions, mut markers) = (Vec::new(), Vec::new());
        let objects = &world.buckets[&input.bucket].objects;
        for (key, all) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            for (at, version) in all.iter().enumerate().rev() {
                let is_latest = Some(at + 1 == all.len());
                let (key, version_id) = (Some(key.clone()), Some(version.version_id.clone()));
                let last_modified = Some(time(version));
                if version.delete_marker {
                    markers.push(DeleteMarkerEntry {
                        key,
                        version_id,
                        is_latest,
                        last_modified,
                        ..Default::default()
                    });
                } else {
                    versions.push(ObjectVersion {
                        key,
                        version_id,
                        is_latest,
                        last_modified,
                        e_tag: Some(ETag::Strong(version.etag.clone())),
                        size: i64::try_from(version.size()).ok(),
                        ..Default::default()
                    });
                }
            }
        }
        Ok(S3Response::new(ListObjectVersionsOutput {
            name: Some(input.bucket.clone()),
            prefix: Some(prefix),
            is_truncated: Some(false),
            versions: Some(versions),
            delete_markers: Some(markers),
            ..Default::default()
        }))
    }
}

#[async_trait::async_trait]
impl S3Auth for Store {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let world = self.world();
        let principal = world.by_access_key(access_key);
        principal
            .map(|p| SecretKey::from(p.secret.clone()))
            .ok_or_else(|| s3_error!(InvalidAccessKeyId))
    }
}
