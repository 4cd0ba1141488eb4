//! Managing keys: what the key modes read and write in KMS.

use std::collections::BTreeMap;

use aws_sdk_kms::types::Tag;
use aws_smithy_types::date_time::Format;

use super::AwsError;
use super::error::classify;
use super::kms::Keys;

/// The rotation of a key's material.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// It is on.
    pub on: bool,
    /// Days between rotations, where KMS says.
    pub days: Option<i32>,
}

/// A grant on a key (kms:CreateGrant), which no policy shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub id: String,
    /// Who may use the key by it.
    pub grantee: String,
    /// For what.
    pub operations: Vec<String>,
}

impl Keys {
    /// The key that an alias of this account and region points to.
    ///
    /// # Errors
    /// As classified.
    pub async fn behind_alias(&self, alias: &str) -> Result<Option<String>, AwsError> {
        let mut pages = self.client.list_aliases().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| classify("kms:ListAliases", &e))?;
            let found = page.aliases().iter().find(|entry| entry.alias_name() == Some(alias));
            if let Some(entry) = found {
                return Ok(entry.target_key_id().map(str::to_owned));
            }
        }
        Ok(None)
    }

    /// The ids of all keys of this account and region.
    ///
    /// # Errors
    /// As classified.
    pub async fn all(&self) -> Result<Vec<String>, AwsError> {
        let mut ids = Vec::new();
        let mut pages = self.client.list_keys().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| classify("kms:ListKeys", &e))?;
            ids.extend(page.keys().iter().filter_map(|key| key.key_id()).map(str::to_owned));
        }
        Ok(ids)
    }

    /// A key's tags.
    ///
    /// # Errors
    /// As classified.
    pub async fn tags(&self, key: &str) -> Result<BTreeMap<String, String>, AwsError> {
        let mut tags = BTreeMap::new();
        let mut pages = self.client.list_resource_tags().key_id(key).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| classify("kms:ListResourceTags", &e))?;
            let pairs = page.tags().iter();
            tags.extend(pairs.map(|tag| (tag.tag_key().to_owned(), tag.tag_value().to_owned())));
        }
        Ok(tags)
    }

    /// How the key is rotated.
    ///
    /// # Errors
    /// As classified.
    pub async fn rotation(&self, key: &str) -> Result<Rotation, AwsError> {
        let request = self.client.get_key_rotation_status().key_id(key);
        let answer = request.send().await.map_err(|e| classify("kms:GetKeyRotationStatus", &e))?;
        Ok(Rotation { on: answer.key_rotation_enabled(), days: answer.rotation_period_in_days() })
    }

    /// The grants on a key; they let someone use it whatever the policy says.
    ///
    /// # Errors
    /// As classified.
    pub async fn grants(&self, key: &str) -> Result<Vec<Grant>, AwsError> {
        let mut grants = Vec::new();
        let mut pages = self.client.list_grants().key_id(key).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| classify("kms:ListGrants", &e))?;
            grants.extend(page.grants().iter().map(|grant| Grant {
                id: grant.grant_id().unwrap_or_default().to_owned(),
                grantee: grant.grantee_principal().unwrap_or_default().to_owned(),
                operations: grant.operations().iter().map(|op| op.as_str().to_owned()).collect(),
            }));
        }
        Ok(grants)
    }

    /// Makes a key; returns its ARN. The tags are set in the same call, so that a key whose
    /// answer is lost can be found.
    ///
    /// # Errors
    /// As classified.
    pub async fn create(
        &self,
        description: &str,
        policy: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<String, AwsError> {
        let tags =
            tags.iter().filter_map(|(k, v)| Tag::builder().tag_key(k).tag_value(v).build().ok());
        let answer = self
            .client
            .create_key()
            .description(description)
            .policy(policy)
            .set_tags(Some(tags.collect()))
            .customize()
            // Sent again after a lost answer, it would make a second key.
            .config_override(
                aws_sdk_kms::config::Builder::new()
                    .retry_config(aws_config::retry::RetryConfig::disabled()),
            )
            .send()
            .await
            .map_err(|e| classify("kms:CreateKey", &e))?;
        let arn = answer.key_metadata().and_then(|key| key.arn());
        Ok(arn.unwrap_or_default().to_owned())
    }

    /// Tags a key.
    ///
    /// # Errors
    /// As classified.
    pub async fn tag(&self, key: &str, tags: &BTreeMap<String, String>) -> Result<(), AwsError> {
        let tags =
            tags.iter().filter_map(|(k, v)| Tag::builder().tag_key(k).tag_value(v).build().ok());
        let request = self.client.tag_resource().key_id(key).set_tags(Some(tags.collect()));
        request.send().await.map_err(|e| classify("kms:TagResource", &e))?;
        Ok(())
    }

    /// Gives the key an alias.
    ///
    /// # Errors
    /// As classified.
    pub async fn create_alias(&self, alias: &str, key: &str) -> Result<(), AwsError> {
        let request = self.client.create_alias().alias_name(alias).target_key_id(key);
        request.send().await.map_err(|e| classify("kms:CreateAlias", &e))?;
        Ok(())
    }

    /// Turns rotation on, or changes its period.
    ///
    /// # Errors
    /// As classified.
    pub async fn rotate(&self, key: &str, days: Option<i32>) -> Result<(), AwsError> {
        let request =
            self.client.enable_key_rotation().key_id(key).set_rotation_period_in_days(days);
        request.send().await.map_err(|e| classify("kms:EnableKeyRotation", &e))?;
        Ok(())
    }

    /// Replaces the key policy. KMS checks that the caller can change it again.
    ///
    /// # Errors
    /// As classified.
    pub async fn put_policy(&self, key: &str, policy: &str) -> Result<(), AwsError> {
        let request =
            self.client.put_key_policy().key_id(key).policy_name("default").policy(policy);
        request.send().await.map_err(|e| classify("kms:PutKeyPolicy", &e))?;
        Ok(())
    }

    /// Makes the key usable.
    ///
    /// # Errors
    /// As classified.
    pub async fn enable(&self, key: &str) -> Result<(), AwsError> {
        let request = self.client.enable_key().key_id(key);
        request.send().await.map_err(|e| classify("kms:EnableKey", &e))?;
        Ok(())
    }

    /// Makes the key unusable, until it is enabled again.
    ///
    /// # Errors
    /// As classified.
    pub async fn disable(&self, key: &str) -> Result<(), AwsError> {
        let request = self.client.disable_key().key_id(key);
        request.send().await.map_err(|e| classify("kms:DisableKey", &e))?;
        Ok(())
    }

    /// Schedules the key's deletion; returns the date (RFC 3339).
    ///
    /// # Errors
    /// As classified.
    pub async fn schedule_deletion(
        &self,
        key: &str,
        days: i32,
    ) -> Result<Option<String>, AwsError> {
        let request = self.client.schedule_key_deletion().key_id(key).pending_window_in_days(days);
        let answer = request.send().await.map_err(|e| classify("kms:ScheduleKeyDeletion", &e))?;
        Ok(answer.deletion_date().and_then(|at| at.fmt(Format::DateTime).ok()))
    }

    /// Takes the deletion back; the key is disabled then.
    ///
    /// # Errors
    /// As classified.
    pub async fn cancel_deletion(&self, key: &str) -> Result<(), AwsError> {
        let request = self.client.cancel_key_deletion().key_id(key);
        request.send().await.map_err(|e| classify("kms:CancelKeyDeletion", &e))?;
        Ok(())
    }
}
