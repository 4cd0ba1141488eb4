//! Roles, and the sessions that STS starts.

use serde_json::Value;

use crate::policy::Identity;
use crate::world::{Principal, World};

/// A role that can be assumed.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// Twelve digits.
    pub account: String,
    /// Who may assume it.
    pub trust: Value,
    /// Its IAM policies.
    pub policies: Vec<Value>,
}

impl Role {
    /// AWS: a session's ARN has the role's name without its path.
    pub(crate) fn session(&self, session: &str) -> Identity {
        let name = self.arn.rsplit('/').next().unwrap_or_default();
        let account = &self.account;
        Identity {
            arn: self.arn.clone(),
            session_arn: Some(format!("arn:aws:sts::{account}:assumed-role/{name}/{session}")),
            account: account.clone(),
        }
    }
}

/// Begins the names of the sessions that STS started.
const GENERATED: &str = "session/";

/// Whether STS started this session.
pub(crate) fn is_generated(name: &str) -> bool {
    name.starts_with(GENERATED)
}

/// Puts an id in the place of an ARN, alone or in a list.
fn rename(principals: &mut Value, arn: &str, id: &str) {
    match principals {
        Value::String(text) if text == arn => id.clone_into(text),
        Value::Array(all) => all.iter_mut().for_each(|one| rename(one, arn, id)),
        _ => (),
    }
}

impl World {
    /// Adds a role, or replaces it.
    pub fn add_role(&mut self, arn: &str, trust: Value, policies: Vec<Value>) {
        let account = arn.split(':').nth(4).unwrap_or_default().to_owned();
        self.roles.insert(arn.to_owned(), Role { arn: arn.to_owned(), account, trust, policies });
    }

    /// A role by its ARN.
    pub fn role_mut(&mut self, arn: &str) -> &mut Role {
        self.roles.get_mut(arn).expect("a role of this world")
    }

    /// Changes the IAM policies of a principal of the preset everywhere: in all sessions of
    /// its user or role, and in the role itself. AWS: a change holds for running sessions.
    pub fn change_policies(&mut self, principal: &str, change: impl Fn(&mut Vec<Value>)) {
        let arn = self.principal_mut(principal).identity.arn.clone();
        for who in self.principals.values_mut().filter(|who| who.identity.arn == arn) {
            change(&mut who.policies);
        }
        if let Some(role) = self.roles.get_mut(&arn) {
            change(&mut role.policies);
        }
    }

    /// Deletes a user or role with its sessions: by the name in the preset, or by ARN. AWS: in
    /// the policies of keys and buckets a unique id is left of it, which no one has who is
    /// made under the same name later.
    pub fn delete_principal(&mut self, name: &str) {
        let arn =
            self.principals.get(name).map_or_else(|| name.to_owned(), |p| p.identity.arn.clone());
        self.principals.retain(|_, who| who.identity.arn != arn);
        self.roles.remove(&arn);
        let prefix = if arn.contains(":role/") { "AROA" } else { "AIDA" };
        let id = format!("{prefix}LABLABLAB{:08}", self.tick());
        let keys = self.keys.values_mut().map(|key| &mut key.policy);
        let buckets = self.buckets.values_mut().filter_map(|bucket| bucket.policy.as_mut());
        for policy in keys.chain(buckets) {
            let statements = match policy.get_mut("Statement") {
                Some(Value::Array(statements)) => statements.as_mut_slice(),
                Some(one) => std::slice::from_mut(one),
                None => continue,
            };
            for principal in statements.iter_mut().filter_map(|s| s.get_mut("Principal")) {
                if let Some(principals) = principal.get_mut("AWS") {
                    rename(principals, &arn, &id);
                }
            }
        }
    }

    /// Starts a session with credentials of its own.
    pub(crate) fn start_session(
        &mut self,
        identity: Identity,
        policies: Vec<Value>,
        session_policy: Option<Value>,
    ) -> Principal {
        let at = self.tick();
        let who = Principal {
            identity,
            // Of AWS's shape and plainly not AWS's.
            access_key: format!("ASIALABSES{at:06}EXMP"),
            secret: format!("lab-secret-of-session-{at}"),
            token: Some(format!("lab-session-token-of-session-{at}")),
            policies,
            session_policy,
        };
        self.principals.insert(format!("{GENERATED}{at}"), who.clone());
        who
    }
}
