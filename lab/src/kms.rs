//! KMS's operations on the world (JSON 1.1).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::kms_keys::metadata;
use crate::world::{Failure, Key, Principal, World};

/// Carries out one operation in a region.
pub(crate) fn call(
    world: &mut World,
    who: &Principal,
    region: &str,
    operation: &str,
    input: &Value,
) -> Result<Value, Failure> {
    let mut seen = world.seen_late(operation);
    let mut call = Call { world: seen.as_mut().unwrap_or(world), who, region, input };
    match operation {
        "DescribeKey" => call.describe(),
        "GenerateDataKey" => call.generate_data_key(true),
        "GenerateDataKeyWithoutPlaintext" => call.generate_data_key(false),
        "ReEncrypt" => call.re_encrypt(),
        "Encrypt" => call.encrypt(),
        "Decrypt" => call.decrypt(),
        "GetKeyRotationStatus" => call.rotation(),
        "GetKeyPolicy" => call.policy(),
        "PutKeyPolicy" => call.put_policy(),
        "CreateKey" => call.create_key(),
        "ListKeys" => call.list_keys(),
        "UpdateKeyDescription" => call.describe_anew(),
        "CreateAlias" => call.create_alias(),
        "UpdateAlias" => call.update_alias(),
        "DeleteAlias" => call.delete_alias(),
        "ListAliases" => call.aliases(),
        "TagResource" => call.tag(),
        "UntagResource" => call.untag(),
        "ListResourceTags" => call.list_tags(),
        "EnableKeyRotation" => call.enable_rotation(),
        "DisableKeyRotation" => call.disable_rotation(),
        "EnableKey" => call.switch("kms:EnableKey", "Enabled"),
        "DisableKey" => call.switch("kms:DisableKey", "Disabled"),
        "ScheduleKeyDeletion" => call.schedule_deletion(),
        "CancelKeyDeletion" => call.cancel_deletion(),
        "ListGrants" => call.list_grants(),
        other => Err(Failure::new(
            "UnknownOperationException",
            400,
            format!("the lab does not know kms:{other}"),
        )),
    }
}

/// AWS: a key that is disabled, pending deletion or of the wrong kind refuses every use of
/// its material, whoever asks.
pub(crate) fn key_state(key: &Key) -> Result<(), Failure> {
    let arn = &key.arn;
    match key.state.as_str() {
        "Enabled" if key.spec == "SYMMETRIC_DEFAULT" && key.usage == "ENCRYPT_DECRYPT" => Ok(()),
        "Enabled" => Err(Failure::new(
            "InvalidKeyUsageException",
            400,
            format!("{arn} key usage is {} which is not valid for this operation.", key.usage),
        )),
        "Disabled" => Err(Failure::new("DisabledException", 400, format!("{arn} is disabled."))),
        "PendingDeletion" => Err(Failure::new(
            "KMSInvalidStateException",
            400,
            format!("{arn} is pending deletion."),
        )),
        other => Err(Failure::new("KMSInvalidStateException", 400, format!("{arn} is {other}."))),
    }
}

/// One operation.
pub(crate) struct Call<'a> {
    pub world: &'a mut World,
    pub who: &'a Principal,
    pub region: &'a str,
    pub input: &'a Value,
}

impl Call<'_> {
    /// The ARN that a key id, alias or ARN stands for. AWS: a bare one is the caller's
    /// account's, and keys exist in their region only.
    pub(crate) fn arn_of(&self, parameter: &str) -> Result<String, Failure> {
        let id = self.input[parameter].as_str().unwrap_or_default();
        let account = &self.who.identity.account;
        let full = |tail: &str| format!("arn:aws:kms:{}:{account}:{tail}", self.region);
        let alias = match id {
            id if id.starts_with("alias/") => Some(full(id)),
            id if id.contains(":alias/") => Some(id.to_owned()),
            _ => None,
        };
        let arn = match alias {
            Some(alias) => self.world.aliases.get(&alias).cloned().ok_or_else(|| {
                Failure::new("NotFoundException", 400, format!("Alias {alias} is not found."))
            })?,
            None if id.starts_with("arn:") => id.to_owned(),
            None => full(&format!("key/{id}")),
        };
        if arn.split(':').nth(3) != Some(self.region) {
            return Err(Failure::new(
                "NotFoundException",
                400,
                format!("Invalid arn {}", self.region),
            ));
        }
        Ok(arn)
    }

    fn key(&self, action: &str) -> Result<&Key, Failure> {
        let context = self.context("EncryptionContext");
        let arn = self.arn_of("KeyId")?;
        self.world.may_use_key(self.who, action, &arn, conditions(&context))
    }

    /// A cryptographic operation. AWS: its dry run ends with DryRunOperationException when
    /// it would succeed, and with the operation's own error otherwise.
    fn usable(&self, action: &str) -> Result<&Key, Failure> {
        let key = self.key(action)?;
        key_state(key)?;
        self.end_of_dry_run()?;
        Ok(key)
    }

    fn end_of_dry_run(&self) -> Result<(), Failure> {
        if self.input["DryRun"] == true {
            let message = "The request would have succeeded, but the DryRun option is set.";
            return Err(Failure::new("DryRunOperationException", 400, message));
        }
        Ok(())
    }

    /// Works in every key state.
    fn describe(&self) -> Result<Value, Failure> {
        let key = self.key("kms:DescribeKey")?;
        Ok(json!({ "KeyMetadata": metadata(key) }))
    }

    /// AWS: without plaintext it is an operation and an action of its own.
    fn generate_data_key(&self, with_plaintext: bool) -> Result<Value, Failure> {
        let action = match with_plaintext {
            true => "kms:GenerateDataKey",
            false => "kms:GenerateDataKeyWithoutPlaintext",
        };
        let key = self.usable(action)?;
        let plaintext = BASE64.encode([7_u8; 32]);
        let wrapped = wrap(&key.arn, &self.context("EncryptionContext"), &plaintext);
        let mut output = json!({ "KeyId": key.arn, "CiphertextBlob": BASE64.encode(wrapped) });
        if with_plaintext {
            output["Plaintext"] = json!(plaintext);
        }
        Ok(output)
    }

    fn encrypt(&self) -> Result<Value, Failure> {
        let key = self.usable("kms:Encrypt")?;
        let plaintext = BASE64.encode(self.blob("Plaintext")?);
        let wrapped = wrap(&key.arn, &self.context("EncryptionContext"), &plaintext);
        Ok(json!({
            "KeyId": key.arn,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "CiphertextBlob": BASE64.encode(wrapped),
        }))
    }

    /// AWS: a dry run with the modifier IGNORE_CIPHERTEXT needs no ciphertext, but a key.
    fn decrypt(&self) -> Result<Value, Failure> {
        let modifiers = self.input["DryRunModifiers"].as_array();
        let ignores = self.input["DryRun"] == true
            && modifiers.is_some_and(|all| all.iter().any(|m| m == "IGNORE_CIPHERTEXT"));
        if self.input["CiphertextBlob"].is_null() && !(ignores && self.has_key_id()) {
            let message = "CiphertextBlob must not be null";
            return Err(Failure::new("ValidationException", 400, message));
        }
        if ignores && self.has_key_id() {
            self.usable("kms:Decrypt")?;
        }
        let (key, plaintext) = self.unwrap("kms:Decrypt", "KeyId", "EncryptionContext")?;
        Ok(json!({
            "KeyId": key.arn,
            "Plaintext": plaintext,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }))
    }

    /// AWS: kms:ReEncryptFrom on the key of the ciphertext, kms:ReEncryptTo on the new one.
    fn re_encrypt(&self) -> Result<Value, Failure> {
        let (from, plaintext) =
            self.unwrap_for("kms:ReEncryptFrom", "SourceKeyId", "SourceEncryptionContext", true)?;
        let context = self.context("DestinationEncryptionContext");
        let arn = self.arn_of("DestinationKeyId")?;
        let conditions = conditions(&context);
        let to = self.world.may_use_key(self.who, "kms:ReEncryptTo", &arn, conditions)?;
        key_state(to)?;
        self.end_of_dry_run()?;
        Ok(json!({
            "SourceKeyId": from.arn,
            "KeyId": to.arn,
            "SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "CiphertextBlob": BASE64.encode(wrap(&to.arn, &context, &plaintext)),
        }))
    }

    fn has_key_id(&self) -> bool {
        !self.input["KeyId"].is_null()
    }

    /// What a ciphertext contains, and its key, for someone who may `action` that key.
    fn unwrap(&self, action: &str, id: &str, context: &str) -> Result<(&Key, String), Failure> {
        self.unwrap_for(action, id, context, false)
    }

    /// AWS: the ciphertext names its key; a key that the request names must be that one, and
    /// the encryption context the same as at the encryption.
    fn unwrap_for(
        &self,
        action: &str,
        id: &str,
        context: &str,
        goes_on: bool,
    ) -> Result<(&Key, String), Failure> {
        let invalid = || Failure::new("InvalidCiphertextException", 400, "");
        let wrapped: Value =
            serde_json::from_slice(&self.blob("CiphertextBlob")?).map_err(|_| invalid())?;
        let arn = wrapped["key"].as_str().unwrap_or_default();
        if !self.input[id].is_null() && self.arn_of(id)? != arn {
            let message = "The key ID in the request does not identify a CMK that can perform this operation.";
            return Err(Failure::new("IncorrectKeyException", 400, message));
        }
        let given = self.context(context);
        let key = self.world.may_use_key(self.who, action, arn, conditions(&given))?;
        key_state(key)?;
        if wrapped["context"] != given {
            return Err(invalid());
        }
        if !goes_on {
            self.end_of_dry_run()?;
        }
        Ok((key, wrapped["plaintext"].as_str().unwrap_or_default().to_owned()))
    }

    fn blob(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let text = self.input[name].as_str().unwrap_or_default();
        BASE64
            .decode(text)
            .map_err(|_| Failure::new("ValidationException", 400, format!("{name} is not base64")))
    }

    fn context(&self, parameter: &str) -> Value {
        match &self.input[parameter] {
            Value::Null => json!({}),
            context => context.clone(),
        }
    }
}

/// The condition keys of an encryption context.
fn conditions(context: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    context
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (format!("kms:EncryptionContext:{name}"), text(value)))
        .collect()
}

/// Not secret, but bound to key and context, which is all that can be seen from outside.
fn wrap(arn: &str, context: &Value, plaintext: &str) -> Vec<u8> {
    json!({ "key": arn, "context": context, "plaintext": plaintext }).to_string().into_bytes()
}
