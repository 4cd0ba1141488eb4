//! S3: who asks for what, and which function answers. The protocol and the signatures are
//! `s3s`'s.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use crate::s3_rules::{Call, expected_owner, failed, header, with_region};
use crate::world::{Failure, Principal, World};
use crate::{s3_config, s3_list, s3_objects};

/// S3 over a world.
#[derive(Clone)]
pub(crate) struct Store(pub(crate) Arc<Mutex<World>>);

impl Store {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        expected_owner(&request.headers, "x-amz-expected-bucket-owner", found)?;
        Ok(who.clone())
    }
}

/// The operations that answer at once from the world as it is.
macro_rules! operations {
    ($($name:ident: $input:ty => $output:ty = $answer:path;)*) => {
        #[async_trait::async_trait]
        impl S3 for Store {
            $(
                async fn $name(&self, req: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    let who = self.enter(&req, &req.input.bucket)?;
                    let world = &mut *self.world();
                    let call = Call { world, who: &who, headers: &req.headers, input: &req.input };
                    $answer(call).map(S3Response::new)
                }
            )*

            async fn put_object(
                &self,
                mut req: S3Request<PutObjectInput>,
            ) -> S3Result<S3Response<PutObjectOutput>> {
                let who = self.enter(&req, &req.input.bucket)?;
                let body = s3_objects::read(req.input.body.take()).await?;
                // The checksum may come behind the body.
                if let Some(trailers) = req.trailing_headers.as_ref().and_then(|t| t.take()) {
                    req.headers.extend(trailers);
                }
                let world = &mut *self.world();
                let call = Call { world, who: &who, headers: &req.headers, input: &req.input };
                s3_objects::put(call, body).map(S3Response::new)
            }
        }
    };
}

operations! {
    head_bucket: HeadBucketInput => HeadBucketOutput = s3_config::head;
    get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput = s3_config::location;
    get_bucket_versioning: GetBucketVersioningInput => GetBucketVersioningOutput
        = s3_config::versioning;
    get_bucket_encryption: GetBucketEncryptionInput => GetBucketEncryptionOutput
        = s3_config::encryption;
    get_bucket_policy: GetBucketPolicyInput => GetBucketPolicyOutput = s3_config::policy;
    get_public_access_block: GetPublicAccessBlockInput => GetPublicAccessBlockOutput
        = s3_config::public_access_block;
    get_bucket_ownership_controls: GetBucketOwnershipControlsInput
        => GetBucketOwnershipControlsOutput = s3_config::ownership;
    get_bucket_replication: GetBucketReplicationInput => GetBucketReplicationOutput
        = s3_config::replication;
    get_object_lock_configuration: GetObjectLockConfigurationInput
        => GetObjectLockConfigurationOutput = s3_config::object_lock;
    get_bucket_lifecycle_configuration: GetBucketLifecycleConfigurationInput
        => GetBucketLifecycleConfigurationOutput = s3_config::lifecycle;
    get_object: GetObjectInput => GetObjectOutput = s3_objects::get;
    head_object: HeadObjectInput => HeadObjectOutput = s3_objects::head;
    copy_object: CopyObjectInput => CopyObjectOutput = s3_objects::copy;
    restore_object: RestoreObjectInput => RestoreObjectOutput = s3_objects::restore;
    delete_object: DeleteObjectInput => DeleteObjectOutput = s3_objects::delete;
    get_object_tagging: GetObjectTaggingInput => GetObjectTaggingOutput = s3_objects::tagging;
    put_object_tagging: PutObjectTaggingInput => PutObjectTaggingOutput = s3_objects::tag;
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output = s3_list::objects;
    list_object_versions: ListObjectVersionsInput => ListObjectVersionsOutput = s3_list::versions;
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
