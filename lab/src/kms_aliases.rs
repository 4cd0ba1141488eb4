//! KMS's aliases. AWS: what changes one needs the action on the alias, by the caller's own
//! policies, and on the key.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kms::Call;
use crate::kms_keys::stays;
use crate::world::{Failure, Key};

impl Call<'_> {
    /// AWS: `alias/` and `[a-zA-Z0-9/_-]`; `alias/aws/` is AWS's own.
    fn alias_arn(&self) -> Result<String, Failure> {
        let name = self.input["AliasName"].as_str().unwrap_or_default();
        let Some(rest) = name.strip_prefix("alias/") else {
            let message = "Alias must start with the prefix \"alias/\".";
            return Err(Failure::new("ValidationException", 400, message));
        };
        let fits = !rest.is_empty()
            && name.len() <= 256
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b));
        if !fits {
            let message = format!("{name} contains invalid characters for an alias");
            return Err(Failure::new("ValidationException", 400, message));
        }
        if rest.starts_with("aws/") {
            return Err(Failure::new("NotAuthorizedException", 400, ""));
        }
        Ok(format!("arn:aws:kms:{}:{}:{name}", self.region, self.who.identity.account))
    }

    /// The alias's key as it is; without one there is no such alias.
    fn alias_target(&self, alias: &str) -> Result<String, Failure> {
        self.world.aliases.get(alias).cloned().ok_or_else(|| {
            Failure::new("NotFoundException", 400, format!("Alias {alias} is not found."))
        })
    }

    /// The key that the request names as the alias's new one.
    fn new_target(&self, action: &str) -> Result<&Key, Failure> {
        if self.input["TargetKeyId"].as_str().is_some_and(|id| id.contains("alias/")) {
            let message = "Aliases must refer to keys. Not aliases";
            return Err(Failure::new("ValidationException", 400, message));
        }
        let arn = self.key_arn("TargetKeyId")?;
        let key = self.world.may_use_key(self.who, action, &arn, BTreeMap::new())?;
        self.same_account(key)?;
        stays(key)?;
        Ok(key)
    }

    pub(crate) fn create_alias(&mut self) -> Result<Value, Failure> {
        let alias = self.alias_arn()?;
        self.world.may_in_kms(self.who, "kms:CreateAlias", &alias, BTreeMap::new())?;
        let key = self.new_target("kms:CreateAlias")?.arn.clone();
        if self.world.aliases.contains_key(&alias) {
            let message = format!("An alias with the name {alias} already exists");
            return Err(Failure::new("AlreadyExistsException", 400, message));
        }
        self.world.aliases.insert(alias, key);
        Ok(json!({}))
    }

    /// AWS: the old key's state does not matter; both keys are of the same kind.
    pub(crate) fn update_alias(&mut self) -> Result<Value, Failure> {
        let action = "kms:UpdateAlias";
        let alias = self.alias_arn()?;
        self.world.may_in_kms(self.who, action, &alias, BTreeMap::new())?;
        let old = self.alias_target(&alias)?;
        let old = self.world.may_use_key(self.who, action, &old, BTreeMap::new())?;
        let new = self.new_target(action)?;
        let kind = |key: &Key| (key.spec == "SYMMETRIC_DEFAULT", key.usage.clone());
        if kind(new) != kind(old) {
            let message = format!("Alias {alias} cannot be changed to a key of another kind.");
            return Err(Failure::new("ValidationException", 400, message));
        }
        let key = new.arn.clone();
        self.world.aliases.insert(alias, key);
        Ok(json!({}))
    }

    pub(crate) fn delete_alias(&mut self) -> Result<Value, Failure> {
        let action = "kms:DeleteAlias";
        let alias = self.alias_arn()?;
        self.world.may_in_kms(self.who, action, &alias, BTreeMap::new())?;
        let key = self.alias_target(&alias)?;
        self.world.may_use_key(self.who, action, &key, BTreeMap::new())?;
        self.world.aliases.remove(&alias);
        Ok(json!({}))
    }

    /// AWS: of the caller's account and region, or of one key there.
    pub(crate) fn aliases(&self) -> Result<Value, Failure> {
        self.world.may_in_kms(self.who, "kms:ListAliases", "*", BTreeMap::new())?;
        let own = format!("arn:aws:kms:{}:{}:", self.region, self.who.identity.account);
        let only = match &self.input["KeyId"] {
            Value::Null => None,
            _ => {
                let arn = self.key_arn("KeyId")?;
                if !arn.starts_with(&own) || !self.world.keys.contains_key(&arn) {
                    let message = format!("Key '{arn}' does not exist");
                    return Err(Failure::new("NotFoundException", 400, message));
                }
                Some(arn)
            }
        };
        let aliases = self.world.aliases.iter().filter_map(|(alias, key)| {
            let name = alias.strip_prefix(&own)?;
            if only.as_ref().is_some_and(|only| only != key) {
                return None;
            }
            let id = key.rsplit('/').next();
            Some(json!({ "AliasArn": alias, "AliasName": name, "TargetKeyId": id }))
        });
        self.page("Aliases", aliases.collect(), 50, 100)
    }
}
