//! The bucket's own settings, as far as they bear on states. Each may be denied.

use aws_sdk_s3::types::{
    BucketVersioningStatus, ObjectLockEnabled, ReplicationRuleStatus,
    SseKmsEncryptedObjectsStatus as SseKms,
};

use super::error::classify;
use super::object::{ServerSide, server_side};
use super::s3::Bucket;
use super::{AwsError, Kind};

/// How new objects are copied elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replication {
    /// The role that S3 does it as.
    pub role: String,
    /// The enabled rules.
    pub rules: Vec<ReplicationRule>,
}

/// Which objects are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationRule {
    /// Its name.
    pub id: String,
    /// Keys that begin so.
    pub prefix: String,
    /// It also takes objects under KMS keys.
    pub takes_kms: bool,
}

/// The settings, each as S3 answered.
#[derive(Debug)]
pub struct Settings {
    /// Whether old versions are kept.
    pub versioning: Result<bool, AwsError>,
    /// How an object without a header is encrypted, and whether S3 Bucket Keys are on.
    pub encryption: Result<(ServerSide, bool), AwsError>,
    /// All four blocks of public access are on.
    pub public_access_blocked: Result<bool, AwsError>,
    /// The bucket policy; `None`: there is none.
    pub policy: Result<Option<String>, AwsError>,
    /// How new objects are copied elsewhere.
    pub replication: Result<Replication, AwsError>,
    /// The default retention in words; `None`: Object Lock is off or has no default.
    pub object_lock: Result<Option<String>, AwsError>,
    /// ACLs are off (BucketOwnerEnforced).
    pub acls_off: Result<bool, AwsError>,
}

impl Settings {
    /// Whether S3 Bucket Keys are on; `None`: that may not be read.
    pub fn bucket_keys(&self) -> Option<bool> {
        self.encryption.as_ref().ok().map(|(_, on)| *on)
    }
}

/// S3 answers 404 for a setting that was never made.
fn unless_unset<T>(result: Result<T, AwsError>, unset: T) -> Result<T, AwsError> {
    match result {
        Err(error) if error.kind == Kind::NotFound || error.is_unset() => Ok(unset),
        other => other,
    }
}

impl Bucket {
    /// Reads all settings side by side.
    pub async fn settings(&self) -> Settings {
        let (versioning, encryption, public_access_blocked, policy, replication, lock, acls_off) = tokio::join!(
            self.versioning(),
            self.default_encryption(),
            self.public_access_blocked(),
            self.policy(),
            self.replication(),
            self.object_lock(),
            self.acls_off()
        );
        Settings {
            versioning,
            encryption,
            public_access_blocked: unless_unset(public_access_blocked, false),
            policy,
            replication: unless_unset(replication, Replication::default()),
            object_lock: unless_unset(lock, None),
            acls_off: unless_unset(acls_off, false),
        }
    }

    async fn versioning(&self) -> Result<bool, AwsError> {
        let request = self.client.get_bucket_versioning().bucket(&self.name);
        let request = request.set_expected_bucket_owner(self.owner.clone());
        let answer = request.send().await.map_err(|e| classify("s3:GetBucketVersioning", &e))?;
        Ok(answer.status() == Some(&BucketVersioningStatus::Enabled))
    }

    pub(crate) async fn default_encryption(&self) -> Result<(ServerSide, bool), AwsError> {
        let request = self.client.get_bucket_encryption().bucket(&self.name);
        let request = request.set_expected_bucket_owner(self.owner.clone());
        let answer =
            request.send().await.map_err(|e| classify("s3:GetEncryptionConfiguration", &e))?;
        let rules = answer.server_side_encryption_configuration();
        let rule = rules.and_then(|rules| rules.rules().first());
        let default = rule.and_then(|rule| rule.apply_server_side_encryption_by_default());
        let algorithm = default.map(|default| default.sse_algorithm());
        let key = default.and_then(|default| default.kms_master_key_id());
        let bucket_key = rule.and_then(|rule| rule.bucket_key_enabled()).unwrap_or(false);
        Ok((server_side(algorithm, key, None), bucket_key))
    }

    async fn public_access_blocked(&self) -> Result<bool, AwsError> {
        let request = self.client.get_public_access_block().bucket(&self.name);
        let request = request.set_expected_bucket_owner(self.owner.clone());
        let answer =
            request.send().await.map_err(|e| classify("s3:GetBucketPublicAccessBlock", &e))?;
        Ok(answer.public_access_block_configuration().is_some_and(|block| {
            [
                block.block_public_acls(),
                block.ignore_public_acls(),
                block.block_public_policy(),
                block.restrict_public_buckets(),
            ]
            .iter()
            .all(|on| *on == Some(true))
        }))
    }

    /// The bucket policy; `None`: there is none.
    ///
    /// # Errors
    /// Of the request.
    pub async fn policy(&self) -> Result<Option<String>, AwsError> {
        unless_unset(self.any_policy().await, None)
    }

    async fn any_policy(&self) -> Result<Option<String>, AwsError> {
        let request = self.client.get_bucket_policy().bucket(&self.name);
        let request = request.set_expected_bucket_owner(self.owner.clone());
        let answer = request.send().await.map_err(|e| classify("s3:GetBucketPolicy", &e))?;
        Ok(answer.policy().map(str::to_owned))
    }

    async fn replication(&self) -> Result<Replication, AwsError> {
        let request = self.client.get_bucket_replication().bucket(&self.name);
        let request = request.set_expected_bucket_owner(self.owner.clone());
        let answer =
            request.send().await.map_err(|e| classify("s3:GetReplicationConfiguration", &e))?;
        let Some(found) = answer.replication_configuration() else {
            return Ok(Replication::default());
        };
        let rules = found
            .rules()
            .iter()
            .filter(|rule| *rule.status() == ReplicationRuleStatus::Enabled)
            .map(|rule| ReplicationRule {
                id: rule.id().unwrap_or_default().to_owned(),
                prefix: rule.filter().and_then(|f| f.prefix()).unwrap_or_default().to_owned(),
                takes_kms: rule
                    .source_selection_criteria()
                    .and_then(|criteria| criteria.sse_kms_encrypted_objects())
                    .is_some_and(|kms| *kms.status() == SseKms::Enabled),
            })
            .collect();
        Ok(Replication { role: found.role().to_owned(), rules })
    }

    async fn object_lock(&self) -> Result<Option<String>, AwsError> {
        let request = self.client.get_object_lock_configuration().bucket(&self.name);
        let request = request.set_expected_bucket_owner(self.owner.clone());
        let answer = request
            .send()
            .await
            .map_err(|e| classify("s3:GetBucketObjectLockConfiguration", &e))?;
        let Some(lock) = answer.object_lock_configuration() else { return Ok(None) };
        if lock.object_lock_enabled() != Some(&ObjectLockEnabled::Enabled) {
            return Ok(None);
        }
        let default = lock.rule().and_then(|rule| rule.default_retention());
        Ok(default.map(|retention| {
            let mode = retention.mode().map_or("", |mode| mode.as_str());
            match (retention.days(), retention.years()) {
                (Some(days), _) => format!("{mode}, {days} days"),
                (None, Some(years)) => format!("{mode}, {years} years"),
                (None, None) => mode.to_owned(),
            }
        }))
    }

    async fn acls_off(&self) -> Result<bool, AwsError> {
        let request = self.client.get_bucket_ownership_controls().bucket(&self.name);
        let request = request.set_expected_bucket_owner(self.owner.clone());
        let answer =
            request.send().await.map_err(|e| classify("s3:GetBucketOwnershipControls", &e))?;
        let rules =
            answer.ownership_controls().map(|controls| controls.rules()).unwrap_or_default();
        Ok(rules.iter().any(|rule| rule.object_ownership().as_str() == "BucketOwnerEnforced"))
    }
}
