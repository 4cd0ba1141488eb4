//! What AWS says of a refusal beside its code, and what to do about it. Pure.
//!
//! A message names one policy even where several refuse, and across accounts often none. So it
//! decides what is advised, and never what is done.

use crate::aws::AwsError;
use crate::preflight::GrantRemedy;

/// A kind of policy that can stand in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// Of the user or role, or of its groups.
    Identity,
    /// Of the key or bucket.
    Resource,
    /// Given when the session was started.
    Session,
    /// The permissions boundary of the user or role.
    Boundary,
    /// Of the organization, over the principal's account.
    ServiceControl,
    /// Of the organization, over the resource's account.
    ResourceControl,
    /// Of the VPC endpoint that the request went through.
    Endpoint,
}

/// How messages call them (IAM User Guide, "Troubleshoot access denied error messages").
const NAMES: [(PolicyKind, &str); 7] = [
    (PolicyKind::Identity, "identity-based policy"),
    (PolicyKind::Resource, "resource-based policy"),
    (PolicyKind::Session, "session policy"),
    (PolicyKind::Boundary, "permissions boundary"),
    (PolicyKind::ServiceControl, "service control policy"),
    (PolicyKind::ResourceControl, "resource control policy"),
    (PolicyKind::Endpoint, "VPC endpoint policy"),
];

impl PolicyKind {
    fn name(self) -> &'static str {
        NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// Which kind of policy refuses.
    pub by: PolicyKind,
    /// It has a statement that denies; otherwise it has none that allows.
    pub explicit: bool,
}

/// Whom and what a refusal is about, in words.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a> {
    /// The principal, with its account.
    pub principal: &'a str,
    /// The policy of the key or bucket, with its account.
    pub policy: &'a str,
}

impl Cause {
    /// Reads a message. `None`: it names no policy.
    pub fn of(message: &str) -> Option<Self> {
        let named = |rest: &str| {
            let kind = NAMES.iter().find(|(_, name)| rest.starts_with(name))?.0;
            Some(kind)
        };
        if let Some((_, rest)) = message.rsplit_once("with an explicit deny in a") {
            let rest = rest.strip_prefix('n').unwrap_or(rest).trim_start();
            return named(rest).map(|by| Self { by, explicit: true });
        }
        let (_, rest) = message.rsplit_once("because no ")?;
        named(rest).map(|by| Self { by, explicit: false })
    }

    /// Whether an Allow on that side is what is missing. All other policies only limit what
    /// others allow, and nothing helps against a Deny.
    pub fn is_lack(self) -> bool {
        !self.explicit && matches!(self.by, PolicyKind::Identity | PolicyKind::Resource)
    }

    /// What the message says, in few words. `resource`: such as `the key policy`.
    pub fn hint(self, resource: &str) -> String {
        match (self.explicit, self.by) {
            (true, by) => format!("AWS's message names an explicit deny in {}", article(by.name())),
            (false, PolicyKind::Identity) => "AWS's message hints at the IAM side".to_owned(),
            (false, PolicyKind::Resource) => format!("AWS's message hints at {resource}"),
            (false, by) => {
                format!("AWS's message names {} that does not allow it", article(by.name()))
            }
        }
    }

    /// What to change where an Allow does not help; `None`: it does.
    pub fn advice(self, parties: Parties<'_>) -> Option<String> {
        if self.is_lack() {
            return None;
        }
        let Parties { principal, policy } = parties;
        let place = match self.by {
            PolicyKind::Identity => format!("an IAM policy of {principal}, or of its groups"),
            PolicyKind::Resource => policy.to_owned(),
            PolicyKind::Session => format!(
                "the session policy that this session of {principal} was started with \
                 (`inline-session-policy`, `managed-session-policies` of aws-actions/configure-aws-credentials)"
            ),
            PolicyKind::Boundary => format!("the permissions boundary of {principal}"),
            PolicyKind::ServiceControl => {
                format!(
                    "a service control policy of the organization, over the account of {principal}"
                )
            }
            PolicyKind::ResourceControl => {
                format!(
                    "a resource control policy of the organization, over the account of {policy}"
                )
            }
            PolicyKind::Endpoint => {
                "the policy of the VPC endpoint that the request went through".to_owned()
            }
        };
        Some(match self.explicit {
            true => format!(
                "There is an explicit deny in {place}, against which an Allow does not help: change the statement \
                 with \"Effect\": \"Deny\" there, so that it leaves this out"
            ),
            false => format!(
                "It is not allowed by {place}, and an Allow in another policy does not help: allow it there"
            ),
        })
    }
}

/// What to do where both sides of a grant allow what is refused.
pub fn unexplained(principal: &str) -> String {
    format!(
        "Key policy and IAM side allow it, so something else refuses it: a service control or resource control \
         policy of the organization, a permissions boundary, a session policy, or the policy of a VPC \
         endpoint. Look for the refused call in CloudTrail, in the account of {principal}"
    )
}

fn article(name: &str) -> String {
    let an = name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {name}", if an { "an" } else { "a" })
}

/// What to do where S3 refuses a state.
#[derive(Debug, Clone, Default)]
pub struct Remedies {
    /// The principal, with its account.
    pub principal: String,
    /// The principal's account; empty where it is not known.
    pub account: String,
    /// The key policy, with its account.
    pub key_policy: String,
    /// The bucket's name, for commands.
    pub bucket: String,
    /// The bucket policy, with its account.
    pub bucket_policy: String,
    /// What the grant on the key may lack; `None`: nothing, as dry runs have shown.
    pub key: Option<GrantRemedy>,
    /// What S3 itself may lack.
    pub s3: String,
}

impl Remedies {
    /// What to do about this refusal: what concerns the key and what concerns S3, as far as the
    /// message does not tell them apart.
    pub fn of(&self, error: &AwsError) -> String {
        let message = error.message.as_deref().unwrap_or_default();
        let (of_kms, of_s3) = (message.contains("perform: kms:"), message.contains("perform: s3:"));
        let principal = self.principal.as_str();
        let policy = if of_kms { &self.key_policy } else { &self.bucket_policy };
        if let Some(advice) =
            Cause::of(message).and_then(|cause| cause.advice(Parties { principal, policy }))
        {
            return advice;
        }
        match &self.key {
            Some(key) if of_kms => key.text.clone(),
            Some(key) if !of_s3 => {
                format!("{}\n\nIf that is granted, S3 itself refuses it. {}", key.text, self.s3)
            }
            _ => self.s3.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::Kind;
    use crate::grants::Sides;

    const USER: &str = "User: arn:aws:sts::222222222222:assumed-role/cicd/run is not authorized to perform: \
                        kms:Decrypt on resource: arn:aws:kms:us-east-1:111111111111:key/5c0ffee1 ";

    /// After the examples of the IAM User Guide, "Troubleshoot access denied error messages".
    #[test]
    fn messages_name_the_policy_that_refuses() {
        use PolicyKind::{
            Boundary, Endpoint, Identity, Resource, ResourceControl, ServiceControl, Session,
        };
        for (clause, by, explicit) in [
            ("because no identity-based policy allows the kms:Decrypt action", Identity, false),
            ("because no resource-based policy allows the kms:Decrypt action", Resource, false),
            ("because no session policy allows the kms:Decrypt action", Session, false),
            ("because no permissions boundary allows the kms:Decrypt action", Boundary, false),
            (
                "because no service control policy allows the kms:Decrypt action",
                ServiceControl,
                false,
            ),
            ("because no VPC endpoint policy allows the kms:Decrypt action", Endpoint, false),
            ("with an explicit deny in an identity-based policy", Identity, true),
            ("with an explicit deny in a resource-based policy", Resource, true),
            ("with an explicit deny in a session policy", Session, true),
            ("with an explicit deny in a permissions boundary", Boundary, true),
            (
                "with an explicit deny in a service control policy: \
                 arn:aws:organizations::333333333333:policy/o-x/service_control_policy/p-y",
                ServiceControl,
                true,
            ),
            ("with an explicit deny in a resource control policy", ResourceControl, true),
            ("with an explicit deny in a VPC endpoint policy", Endpoint, true),
        ] {
            let cause = Cause::of(&format!("{USER}{clause}")).unwrap();
            assert_eq!(cause, Cause { by, explicit }, "{clause}");
            let parties = Parties { principal: "P", policy: "the key policy of K" };
            let advice = cause.advice(parties);
            let lack = clause.contains("no identity") || clause.contains("no resource");
            assert_eq!(advice.is_none(), lack, "{clause}");
            if let Some(advice) = advice {
                assert!(advice.contains("an Allow") && advice.contains("not help"), "{advice}");
            }
        }
        for other in ["Access Denied", "", "because no policy at all", "an explicit deny"] {
            assert_eq!(Cause::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_refusal_of_s3_is_told_from_one_of_kms() {
        let remedies = Remedies {
            principal: "P".into(),
            account: String::new(),
            key_policy: "the key policy of K".into(),
            bucket: "B".into(),
            bucket_policy: "the bucket policy of B".into(),
            key: Some(GrantRemedy { text: "GRANT-KEY".into(), lacks: Sides::default() }),
            s3: "GRANT-S3".into(),
        };
        let of = |remedies: &Remedies, message: &str| {
            remedies.of(&AwsError::new(Kind::Denied, "s3:CopyObject", message))
        };
        let s3 = "not authorized to perform: s3:PutObject on resource: \"arn:aws:s3:::b/p\" ";
        let lacks = "because no resource-based policy allows the action";
        let denies = "with an explicit deny in a resource-based policy";
        for (message, says, silent) in [
            (format!("{USER}{lacks}"), &["GRANT-KEY"][..], &["GRANT-S3"][..]),
            (format!("{s3}{lacks}"), &["GRANT-S3"], &["GRANT-KEY"]),
            ("Access Denied".to_owned(), &["GRANT-KEY", "GRANT-S3"], &[]),
            (format!("{USER}{denies}"), &["the key policy of K"], &["GRANT"]),
            (format!("{s3}{denies}"), &["the bucket policy of B"], &["GRANT"]),
        ] {
            let text = of(&remedies, &message);
            assert!(says.iter().all(|part| text.contains(part)), "{message}: {text}");
            assert!(!silent.iter().any(|part| text.contains(part)), "{message}: {text}");
        }
        let proven = Remedies { key: None, ..remedies };
        assert_eq!(of(&proven, "Access Denied"), "GRANT-S3");
    }
}
