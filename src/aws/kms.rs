//! What is asked of KMS: what a key is, and what this principal may do with it.

use aws_sdk_kms::Client;
use aws_sdk_kms::types::{DataKeySpec, DryRunModifierType, KeyManagerType};
use aws_smithy_types::Blob;
use aws_smithy_types::date_time::Format;

use super::error::classify;
use super::{AwsError, Kind};

/// KMS in one region.
#[derive(Debug, Clone)]
pub struct Keys {
    pub(super) client: Client,
}

/// A key as `DescribeKey` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDescription {
    /// The key's ARN, also where an alias was asked for.
    pub arn: String,
    /// `Enabled`, `Disabled`, `PendingDeletion`, …
    pub state: String,
    /// Managed by AWS (such as aws/s3) and not by the customer.
    pub aws_managed: bool,
    /// `SYMMETRIC_DEFAULT` is what S3 takes.
    pub spec: String,
    /// `ENCRYPT_DECRYPT` is what S3 takes.
    pub usage: String,
    /// When a pending deletion will be carried out (RFC 3339).
    pub deletion_date: Option<String>,
}

/// What a dry run said.
#[derive(Debug, Clone)]
pub enum DryRun {
    /// The call would succeed.
    Allowed,
    /// A policy refuses the direct call. Under a kms:ViaService condition S3's own
    /// use of the key may still be allowed.
    Refused(AwsError),
    /// Neither: the service is out of order, or does not know dry runs.
    Unclear(AwsError),
}

impl DryRun {
    /// The call would succeed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed)
    }

    /// A policy refuses it.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl Keys {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// What the key is; works in every key state and resolves aliases.
    ///
    /// # Errors
    /// As classified.
    pub async fn describe(&self, key: &str) -> Result<KeyDescription, AwsError> {
        let answer = self
            .client
            .describe_key()
            .key_id(key)
            .send()
            .await
            .map_err(|e| classify("kms:DescribeKey", &e))?;
        let Some(key) = answer.key_metadata() else {
            return Ok(KeyDescription {
                arn: String::new(),
                state: "unknown".into(),
                aws_managed: false,
                spec: String::new(),
                usage: String::new(),
                deletion_date: None,
            });
        };
        Ok(KeyDescription {
            arn: key.arn().unwrap_or_default().to_owned(),
            state: key.key_state().map_or("unknown", |state| state.as_str()).to_owned(),
            aws_managed: key.key_manager() == Some(&KeyManagerType::Aws),
            spec: key.key_spec().map_or("", |spec| spec.as_str()).to_owned(),
            usage: key.key_usage().map_or("", |usage| usage.as_str()).to_owned(),
            deletion_date: key.deletion_date().and_then(|at| at.fmt(Format::DateTime).ok()),
        })
    }

    /// The key policy, as JSON text. KMS gives it within the key's account only.
    ///
    /// # Errors
    /// As classified.
    pub async fn policy(&self, key: &str) -> Result<String, AwsError> {
        // KMS knows one name, and takes it for granted; other servers want it said.
        let request = self.client.get_key_policy().key_id(key).policy_name("default");
        let answer = request.send().await.map_err(|e| classify("kms:GetKeyPolicy", &e))?;
        Ok(answer.policy().unwrap_or_default().to_owned())
    }

    /// Would a data key be handed out, for the object of this ARN? S3 asks for one at
    /// every write under the key.
    pub async fn may_generate_data_key(&self, key: &str, object: &str) -> DryRun {
        let result = self
            .client
            .generate_data_key()
            .key_id(key)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context(S3_CONTEXT, object)
            .dry_run(true)
            .send()
            .await;
        // A server that ignores DryRun answers with a data key; it is dropped unread.
        verdict(result.map(drop).map_err(|e| classify("kms:GenerateDataKey", &e)))
    }

    /// Would a data key of the object of this ARN be decrypted? S3 asks at every read.
    pub async fn may_decrypt(&self, key: &str, object: &str) -> DryRun {
        let result = self
            .client
            .decrypt()
            .key_id(key)
            .encryption_context(S3_CONTEXT, object)
            .dry_run(true)
            .dry_run_modifiers(DryRunModifierType::IgnoreCiphertext)
            .send()
            .await;
        verdict(result.map(drop).map_err(|e| classify("kms:Decrypt", &e)))
    }

    /// Would something be encrypted directly? The runbook grants it; neither S3's copy
    /// nor Terraform's backend uses it.
    pub async fn may_encrypt(&self, key: &str, object: &str) -> DryRun {
        let result = self
            .client
            .encrypt()
            .key_id(key)
            .plaintext(Blob::new(b"dry run".as_slice()))
            .encryption_context(S3_CONTEXT, object)
            .dry_run(true)
            .send()
            .await;
        verdict(result.map(drop).map_err(|e| classify("kms:Encrypt", &e)))
    }
}

/// The encryption context that S3 gives: the object's ARN, or the bucket's with S3
/// Bucket Keys on (S3 User Guide, "Using server-side encryption with AWS KMS keys").
const S3_CONTEXT: &str = "aws:s3:arn";

fn verdict(result: Result<(), AwsError>) -> DryRun {
    match result {
        Ok(()) => DryRun::Allowed,
        Err(error) => match error.kind {
            Kind::WouldSucceed => DryRun::Allowed,
            _ if error.is_denial() => DryRun::Refused(error),
            _ => DryRun::Unclear(error),
        },
    }
}
