//! KMS's operations on the world (JSON 1.1).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::world::{Failure, Key, Principal, World, key_state};

/// Carries out one operation in a region.
pub(crate) fn call(
    world: &mut World,
    who: &Principal,
    region: &str,
    operation: &str,
    input: &Value,
) -> Result<Value, Failure> {
    let call = Call { world, who, region, input };
    match operation {
        "DescribeKey" => call.describe(),
        "GenerateDataKey" => call.generate_data_key(),
        "Encrypt" => call.encrypt(),
        "Decrypt" => call.decrypt(),
        "GetKeyRotationStatus" => call.rotation(),
        "GetKeyPolicy" => call.policy(),
        "ListAliases" => call.aliases(),
        other => Err(Failure::new(
            "UnknownOperationException",
            400,
            format!("the lab does not know kms:{other}"),
        )),
    }
}

struct Call<'a> {
    world: &'a mut World,
    who: &'a Principal,
    region: &'a str,
    input: &'a Value,
}

impl Call<'_> {
    /// The ARN that a key id, alias or ARN stands for. AWS: a bare one is the caller's
    /// account's, and keys exist in their region only.
    fn arn(&self) -> Result<String, Failure> {
        let id = self.input["KeyId"].as_str().unwrap_or_default();
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
        self.world.may_use_key(self.who, action, &self.arn()?, self.conditions())
    }

    /// The condition keys of the request.
    fn conditions(&self) -> BTreeMap<String, String> {
        let context = self.input["EncryptionContext"].as_object();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        context
            .into_iter()
            .flatten()
            .map(|(name, value)| (format!("kms:EncryptionContext:{name}"), text(value)))
            .collect()
    }

    /// A cryptographic operation. AWS: its dry run ends with DryRunOperationException when
    /// it would succeed, and with the operation's own error otherwise.
    fn usable(&self, action: &str) -> Result<&Key, Failure> {
        let key = self.key(action)?;
        key_state(key)?;
        if self.input["DryRun"] == true {
            let message = "The request would have succeeded, but the DryRun option is set.";
            return Err(Failure::new("DryRunOperationException", 400, message));
        }
        Ok(key)
    }

    /// Works in every key state.
    fn describe(&self) -> Result<Value, Failure> {
        let key = self.key("kms:DescribeKey")?;
        Ok(json!({ "KeyMetadata": {
            "AWSAccountId": key.account(),
            "Arn": key.arn,
            "KeyId": key.id(),
            "Enabled": key.state == "Enabled",
            "KeyState": key.state,
            "KeyManager": if key.aws_managed { "AWS" } else { "CUSTOMER" },
            "KeySpec": key.spec,
            "CustomerMasterKeySpec": key.spec,
            "KeyUsage": key.usage,
            "MultiRegion": key.id().starts_with("mrk-"),
            "Origin": "AWS_KMS",
            "CreationDate": 1_700_000_000,
            "DeletionDate": key.deletion,
        } }))
    }

    fn generate_data_key(&self) -> Result<Value, Failure> {
        let key = self.usable("kms:GenerateDataKey")?;
        let plaintext = [7_u8; 32];
        Ok(json!({
            "KeyId": key.arn,
            "Plaintext": BASE64.encode(plaintext),
            "CiphertextBlob": BASE64.encode(self.wrap(&key.arn, &plaintext)),
        }))
    }

    fn encrypt(&self) -> Result<Value, Failure> {
        let key = self.usable("kms:Encrypt")?;
        let plaintext = self.blob("Plaintext")?;
        Ok(json!({
            "KeyId": key.arn,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "CiphertextBlob": BASE64.encode(self.wrap(&key.arn, &plaintext)),
        }))
    }

    /// AWS: a dry run with the modifier IGNORE_CIPHERTEXT needs no ciphertext, but a key.
    fn decrypt(&self) -> Result<Value, Failure> {
        let ignores = self.input["DryRunModifiers"]
            .as_array()
            .is_some_and(|modifiers| modifiers.iter().any(|m| m == "IGNORE_CIPHERTEXT"));
        if self.input["CiphertextBlob"].is_null() {
            if self.input["DryRun"] != true || !ignores || self.input["KeyId"].is_null() {
                return Err(Failure::new(
                    "ValidationException",
                    400,
                    "CiphertextBlob must not be null",
                ));
            }
            self.usable("kms:Decrypt")?;
        }
        let invalid = || Failure::new("InvalidCiphertextException", 400, "");
        let wrapped: Value =
            serde_json::from_slice(&self.blob("CiphertextBlob")?).map_err(|_| invalid())?;
        let arn = wrapped["key"].as_str().unwrap_or_default();
        let key = self.world.may_use_key(self.who, "kms:Decrypt", arn, self.conditions())?;
        key_state(key)?;
        if wrapped["context"] != self.context() {
            return Err(invalid());
        }
        Ok(
            json!({ "KeyId": key.arn, "Plaintext": wrapped["plaintext"], "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" }),
        )
    }

    fn rotation(&self) -> Result<Value, Failure> {
        let key = self.key("kms:GetKeyRotationStatus")?;
        Ok(json!({ "KeyId": key.arn, "KeyRotationEnabled": key.rotation }))
    }

    /// AWS: not across accounts.
    fn policy(&self) -> Result<Value, Failure> {
        let key = self.key("kms:GetKeyPolicy")?;
        if key.account() != self.who.identity.account {
            return Err(Failure::new(
                "AccessDeniedException",
                400,
                "not available across accounts",
            ));
        }
        Ok(json!({ "Policy": key.policy.to_string(), "PolicyName": "default" }))
    }

    fn aliases(&self) -> Result<Value, Failure> {
        let own = format!("arn:aws:kms:{}:{}:", self.region, self.who.identity.account);
        let aliases: Vec<Value> = self
            .world
            .aliases
            .iter()
            .filter_map(|(alias, key)| {
                let name = alias.strip_prefix(&own)?;
                let id = key.rsplit('/').next();
                Some(json!({ "AliasArn": alias, "AliasName": name, "TargetKeyId": id }))
            })
            .collect();
        Ok(json!({ "Aliases": aliases, "Truncated": false }))
    }

    fn blob(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let text = self.input[name].as_str().unwrap_or_default();
        BASE64
            .decode(text)
            .map_err(|_| Failure::new("ValidationException", 400, format!("{name} is not base64")))
    }

    fn context(&self) -> Value {
        match &self.input["EncryptionContext"] {
            Value::Null => json!({}),
            context => context.clone(),
        }
    }

    /// Not secret, but bound to key and context, which is all that can be seen from outside.
    fn wrap(&self, arn: &str, plaintext: &[u8]) -> Vec<u8> {
        json!({ "key": arn, "context": self.context(), "plaintext": BASE64.encode(plaintext) })
            .to_string()
            .into_bytes()
    }
}
