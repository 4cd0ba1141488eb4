//! KMS's management of keys: making, naming, tagging, rotating and deleting them.
//!
//! After the KMS API Reference, and "Key states of AWS KMS keys" of the KMS Developer Guide.

use std::collections::{BTreeMap, BTreeSet};

use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::kms::{Call, key_state};
use crate::kms_policy::default_policy;
use crate::world::{Failure, Key, World, hex, now};

/// A grant on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub id: String,
    /// Who has it, by ARN.
    pub grantee: String,
    /// Such as `Decrypt`.
    pub operations: Vec<String>,
}

/// What KMS knew at some time, for calls that do not know more yet.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    calls: usize,
    keys: BTreeSet<String>,
    aliases: BTreeSet<String>,
}

impl World {
    /// Adds a grant to a key; returns its id. The lab lists grants and does not weigh them.
    pub fn add_grant(&mut self, key: &str, grantee_arn: &str, operations: &[&str]) -> String {
        let id = format!("{:064x}", self.tick());
        let operations = operations.iter().map(|&operation| operation.to_owned()).collect();
        let grant = Grant { id: id.clone(), grantee: grantee_arn.to_owned(), operations };
        self.key_mut(key).grants.push(grant);
        id
    }

    /// The next `calls` calls of ListAliases, DescribeKey and ListResourceTags do not know the
    /// keys and aliases that are made from now on. AWS: KMS is eventually consistent.
    pub fn forget_new_keys_for(&mut self, calls: usize) {
        let keys = self.keys.keys().cloned().collect();
        let aliases = self.aliases.keys().cloned().collect();
        self.known = (calls > 0).then_some(Known { calls, keys, aliases });
    }

    /// The world as this call still sees it, where that differs.
    pub(crate) fn seen_late(&mut self, operation: &str) -> Option<Self> {
        if !["ListAliases", "DescribeKey", "ListResourceTags"].contains(&operation) {
            return None;
        }
        let known = self.known.as_mut()?;
        known.calls -= 1;
        let known = if known.calls == 0 { self.known.take()? } else { known.clone() };
        let mut seen = self.clone();
        seen.keys.retain(|arn, _| known.keys.contains(arn));
        seen.aliases.retain(|arn, _| known.aliases.contains(arn));
        Some(seen)
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new("ValidationException", 400, message)
}

/// AWS: most of what manages a key works while it is disabled and not while it is pending
/// deletion.
pub(crate) fn stays(key: &Key) -> Result<(), Failure> {
    if key.state == "PendingDeletion" { key_state(key) } else { Ok(()) }
}

/// AWS: enabling and disabling need key material too.
fn switchable(key: &Key) -> Result<(), Failure> {
    if ["Enabled", "Disabled"].contains(&&*key.state) { Ok(()) } else { key_state(key) }
}

/// AWS: rotation is for symmetric keys, and not changed while they are disabled.
fn rotatable(key: &Key) -> Result<(), Failure> {
    if key.spec != "SYMMETRIC_DEFAULT" {
        let message = format!("{} key spec is {}.", key.arn, key.spec);
        return Err(Failure::new("UnsupportedOperationException", 400, message));
    }
    key_state(key)
}

/// AWS: such as DescribeKey and CreateKey show it.
pub(crate) fn metadata(key: &Key) -> Value {
    let multi_region = key.id().starts_with("mrk-");
    let mut metadata = json!({
        "AWSAccountId": key.account(),
        "Arn": key.arn,
        "KeyId": key.id(),
        "Enabled": key.state == "Enabled",
        "KeyState": key.state,
        "KeyManager": if key.aws_managed { "AWS" } else { "CUSTOMER" },
        "KeySpec": key.spec,
        "CustomerMasterKeySpec": key.spec,
        "KeyUsage": key.usage,
        "MultiRegion": multi_region,
        "Origin": "AWS_KMS",
        "Description": key.description,
        "CreationDate": key.created,
        "DeletionDate": key.deletion,
    });
    if multi_region {
        metadata["MultiRegionConfiguration"] = json!({
            "MultiRegionKeyType": "PRIMARY",
            "PrimaryKey": { "Arn": key.arn, "Region": key.region() },
            "ReplicaKeys": [],
        });
    }
    metadata
}

/// A version 4 UUID; a multi-Region key's id has no hyphens.
fn new_id(at: u64, multi_region: bool) -> String {
    let mut id = hex(&Md5::digest(format!("lab key {at}")));
    id.replace_range(12..13, "4");
    id.replace_range(16..17, "8");
    if multi_region {
        return format!("mrk-{id}");
    }
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
}

/// AWS: tags with their limits.
fn tags(input: &Value) -> Result<BTreeMap<String, String>, Failure> {
    let mut tags = BTreeMap::new();
    for tag in input.as_array().into_iter().flatten() {
        let text = |name: &str| tag[name].as_str().unwrap_or_default().to_owned();
        let (key, value) = (text("TagKey"), text("TagValue"));
        if !(1..=128).contains(&key.chars().count()) || value.chars().count() > 256 {
            return Err(invalid("a tag's key has 1 to 128 characters, its value up to 256"));
        }
        if key.to_lowercase().starts_with("aws:") {
            let message = format!("aws: prefixed tag key names are not allowed: {key}");
            return Err(Failure::new("TagException", 400, message));
        }
        if tags.insert(key, value).is_some() {
            return Err(Failure::new("TagException", 400, "Duplicate tag keys"));
        }
    }
    Ok(tags)
}

fn within_tag_limit(tags: &BTreeMap<String, String>) -> Result<(), Failure> {
    if tags.len() > 50 {
        return Err(Failure::new("LimitExceededException", 400, "Too many tags"));
    }
    Ok(())
}

/// AWS: the condition keys `aws:RequestTag/…`.
fn requested(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    tags.iter().map(|(key, value)| (format!("aws:RequestTag/{key}"), value.clone())).collect()
}

impl Call<'_> {
    pub(crate) fn create_key(&mut self) -> Result<Value, Failure> {
        for (name, only) in [
            ("KeySpec", "SYMMETRIC_DEFAULT"),
            ("CustomerMasterKeySpec", "SYMMETRIC_DEFAULT"),
            ("KeyUsage", "ENCRYPT_DECRYPT"),
            ("Origin", "AWS_KMS"),
            ("CustomKeyStoreId", ""),
            ("XksKeyId", ""),
        ] {
            if !self.input[name].is_null() && self.input[name] != only {
                return Err(invalid(format!("the lab does not know this {name}")));
            }
        }
        let description = self.description()?;
        let tags = tags(&self.input["Tags"])?;
        within_tag_limit(&tags)?;
        let mut context = self.bypass_condition();
        context.insert("kms:KeySpec".into(), "SYMMETRIC_DEFAULT".into());
        context.insert("kms:KeyUsage".into(), "ENCRYPT_DECRYPT".into());
        context.insert("kms:KeyOrigin".into(), "AWS_KMS".into());
        let multi_region = self.input["MultiRegion"] == true;
        context.insert("kms:MultiRegion".into(), multi_region.to_string());
        context.extend(requested(&tags));
        self.world.may_in_kms(self.who, "kms:CreateKey", "*", context)?;

        let account = &self.who.identity.account;
        let id = new_id(self.world.tick(), multi_region);
        let arn = format!("arn:aws:kms:{}:{account}:key/{id}", self.region);
        // AWS, CreateKey, Tags: they need kms:TagResource in an IAM policy.
        if !tags.is_empty() {
            self.world.may_in_kms(self.who, "kms:TagResource", &arn, requested(&tags))?;
        }
        let policy = match &self.input["Policy"] {
            Value::Null => default_policy(account),
            _ => self.new_policy(&arn)?,
        };
        let mut key = Key::new(&arn, policy);
        (key.description, key.tags, key.rotation) = (description, tags, false);
        key.created = now();
        let metadata = metadata(&key);
        self.world.add_key(key);
        Ok(json!({ "KeyMetadata": metadata }))
    }

    /// AWS: works in every key state, as all that reads or changes the policy.
    pub(crate) fn put_policy(&mut self) -> Result<Value, Failure> {
        let arn = self.own_key("kms:PutKeyPolicy", self.bypass_condition())?.arn.clone();
        if !self.input["PolicyName"].is_null() && self.input["PolicyName"] != "default" {
            return Err(Failure::new("NotFoundException", 400, "No such policy exists"));
        }
        let policy = self.new_policy(&arn)?;
        self.world.key_mut(&arn).policy = policy;
        Ok(json!({}))
    }

    /// AWS: not across accounts, in every key state.
    pub(crate) fn policy(&self) -> Result<Value, Failure> {
        let key = self.own_key("kms:GetKeyPolicy", BTreeMap::new())?;
        Ok(json!({ "Policy": key.policy.to_string(), "PolicyName": "default" }))
    }

    pub(crate) fn list_keys(&self) -> Result<Value, Failure> {
        self.world.may_in_kms(self.who, "kms:ListKeys", "*", BTreeMap::new())?;
        let account = &self.who.identity.account;
        let own = self.world.keys.values();
        let keys = own
            .filter(|key| key.account() == account && key.region() == self.region)
            .map(|key| json!({ "KeyId": key.id(), "KeyArn": key.arn }));
        self.page("Keys", keys.collect(), 100, 1000)
    }

    /// Carries out a change that a key allows in its state.
    fn change(
        &mut self,
        action: &str,
        allows: impl Fn(&Key) -> Result<(), Failure>,
        change: impl FnOnce(&mut Key),
    ) -> Result<&Key, Failure> {
        let key = self.own_key(action, BTreeMap::new())?;
        allows(key)?;
        let arn = key.arn.clone();
        let key = self.world.key_mut(&arn);
        change(key);
        Ok(key)
    }

    pub(crate) fn describe_anew(&mut self) -> Result<Value, Failure> {
        let description = self.description()?;
        self.change("kms:UpdateKeyDescription", stays, |key| key.description = description)?;
        Ok(json!({}))
    }

    fn description(&self) -> Result<String, Failure> {
        let text = self.input["Description"].as_str().unwrap_or_default();
        if text.chars().count() > 8192 {
            return Err(invalid("Description must have length less than or equal to 8192"));
        }
        Ok(text.to_owned())
    }

    pub(crate) fn tag(&mut self) -> Result<Value, Failure> {
        let new = tags(&self.input["Tags"])?;
        let key = self.own_key("kms:TagResource", requested(&new))?;
        stays(key)?;
        let (arn, mut all) = (key.arn.clone(), key.tags.clone());
        all.extend(new);
        within_tag_limit(&all)?;
        self.world.key_mut(&arn).tags = all;
        Ok(json!({}))
    }

    pub(crate) fn untag(&mut self) -> Result<Value, Failure> {
        let names = self.input["TagKeys"].as_array().cloned().unwrap_or_default();
        self.change("kms:UntagResource", stays, |key| {
            key.tags.retain(|name, _| !names.iter().any(|gone| gone == name));
        })?;
        Ok(json!({}))
    }

    pub(crate) fn list_tags(&self) -> Result<Value, Failure> {
        let key = self.own_key("kms:ListResourceTags", BTreeMap::new())?;
        let tags = key.tags.iter().map(|(k, v)| json!({ "TagKey": k, "TagValue": v }));
        self.page("Tags", tags.collect(), 50, 50)
    }

    /// AWS, EnableKeyRotation: 365 days where the request says nothing.
    pub(crate) fn enable_rotation(&mut self) -> Result<Value, Failure> {
        let days = self.number("RotationPeriodInDays", 90, 2560)?.unwrap_or(365);
        self.change("kms:EnableKeyRotation", rotatable, |key| {
            (key.rotation, key.rotation_period) = (true, days);
        })?;
        Ok(json!({}))
    }

    pub(crate) fn disable_rotation(&mut self) -> Result<Value, Failure> {
        self.change("kms:DisableKeyRotation", rotatable, |key| key.rotation = false)?;
        Ok(json!({}))
    }

    /// AWS: across accounts too; off while the key is pending deletion, and as before when
    /// that is cancelled.
    pub(crate) fn rotation(&self) -> Result<Value, Failure> {
        let key = self.listed_key("kms:GetKeyRotationStatus", BTreeMap::new())?;
        let on = key.rotation && key.state != "PendingDeletion";
        let mut status = json!({ "KeyId": key.arn, "KeyRotationEnabled": on });
        if on {
            let period = key.rotation_period * 86_400;
            let turns = now().saturating_sub(key.created) / period + 1;
            status["RotationPeriodInDays"] = json!(key.rotation_period);
            status["NextRotationDate"] = json!(key.created + turns * period);
        }
        Ok(status)
    }

    pub(crate) fn switch(&mut self, action: &str, state: &str) -> Result<Value, Failure> {
        self.change(action, switchable, |key| key.state = state.to_owned())?;
        Ok(json!({}))
    }

    /// AWS: 7 to 30 days, and 30 where the request says nothing.
    pub(crate) fn schedule_deletion(&mut self) -> Result<Value, Failure> {
        let days = self.number("PendingWindowInDays", 7, 30)?.unwrap_or(30);
        let deletion = now() + days * 86_400;
        let key = self.change("kms:ScheduleKeyDeletion", stays, |key| {
            key.state = "PendingDeletion".to_owned();
            key.deletion = Some(deletion);
        })?;
        Ok(json!({
            "KeyId": key.arn,
            "DeletionDate": deletion,
            "KeyState": key.state,
            "PendingWindowInDays": days,
        }))
    }

    /// AWS: the key is disabled afterwards.
    pub(crate) fn cancel_deletion(&mut self) -> Result<Value, Failure> {
        let pending = |key: &Key| match key.state.as_str() {
            "PendingDeletion" => Ok(()),
            _ => {
                let message = format!("{} is not pending deletion.", key.arn);
                Err(Failure::new("KMSInvalidStateException", 400, message))
            }
        };
        let key = self.change("kms:CancelKeyDeletion", pending, |key| {
            key.state = "Disabled".to_owned();
            key.deletion = None;
        })?;
        Ok(json!({ "KeyId": key.arn }))
    }

    /// AWS: across accounts too.
    pub(crate) fn list_grants(&self) -> Result<Value, Failure> {
        let key = self.listed_key("kms:ListGrants", BTreeMap::new())?;
        let wanted = |name: &str, value: &str| {
            self.input[name].is_null() || self.input[name].as_str() == Some(value)
        };
        let grants = key
            .grants
            .iter()
            .filter(|g| wanted("GrantId", &g.id) && wanted("GranteePrincipal", &g.grantee))
            .map(|grant| {
                json!({
                    "KeyId": key.arn,
                    "GrantId": grant.id,
                    "GranteePrincipal": grant.grantee,
                    "Operations": grant.operations,
                    "IssuingAccount": format!("arn:aws:iam::{}:root", key.account()),
                    "CreationDate": key.created,
                })
            });
        self.page("Grants", grants.collect(), 50, 100)
    }

    /// A number with its limits.
    fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Failure> {
        match &self.input[name] {
            Value::Null => Ok(None),
            given => {
                given.as_u64().filter(|n| (least..=most).contains(n)).map(Some).ok_or_else(|| {
                    invalid(format!("{name} is {given}, and not from {least} to {most}"))
                })
            }
        }
    }

    /// One page of a list, and the marker of the next one.
    pub(crate) fn page(
        &self,
        name: &str,
        all: Vec<Value>,
        default: u64,
        most: u64,
    ) -> Result<Value, Failure> {
        let limit = self.number("Limit", 1, most)?.unwrap_or(default);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let from = match &self.input["Marker"] {
            Value::Null => 0,
            marker => marker
                .as_str()
                .and_then(|text| text.strip_prefix("lab-from-")?.parse::<usize>().ok())
                .filter(|&from| from <= all.len())
                .ok_or_else(|| Failure::new("InvalidMarkerException", 400, "Invalid marker"))?,
        };
        let to = from.saturating_add(limit).min(all.len());
        let mut output = json!({ name: &all[from..to], "Truncated": to < all.len() });
        if to < all.len() {
            output["NextMarker"] = json!(format!("lab-from-{to}"));
        }
        Ok(output)
    }
}
