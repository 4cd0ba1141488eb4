//! Which side of the grant is missing, and what to do about it. Pure.

use super::{GrantRemedy, KeyEvidence, NEEDED, needed};
use crate::aws::{Caller, DryRun, Kind, Lack, NotAllowed};
use crate::denials::{self, Cause, Parties, PolicyKind};
use crate::grants::{self, Sides, StateBucket};
use crate::names::{KeyArn, printable};
use crate::policies::{Policy, Reach};
use crate::principal::account_of;

/// What the evidence on the two sides of the grant comes to.
pub(super) struct Diagnosis {
    /// Which side grants.
    pub(super) sides: Sides,
    /// A statement of the key policy denies it, or the principal's own side does, which no key
    /// policy makes good; and nothing that was tried has shown otherwise.
    pub(super) denies: bool,
    /// For the key policy and for the IAM side, what the evidence is.
    pub(super) evidence: [String; 2],
    /// What AWS's message adds.
    pub(super) hint: String,
    /// What to do.
    pub(super) remedy: GrantRemedy,
}

/// Judges by evidence: the key policy, then what IAM says of the principal's own policies.
/// AWS's message is a hint only, since a denial by both sides names one.
pub(super) fn diagnose(
    caller: Option<&Caller>,
    target: &KeyArn,
    key: &KeyEvidence,
    bucket: StateBucket<'_>,
) -> Diagnosis {
    let mut causes: Vec<Cause> = Vec::new();
    // A refusal without a clause leaves everything open.
    let mut limited_only = true;
    for run in needed(key) {
        let DryRun::Refused(error) = run else { continue };
        let cause = error.message.as_deref().and_then(Cause::of);
        limited_only &= cause.is_some_and(|cause| !cause.is_lack());
        causes.extend(cause.filter(|cause| !causes.contains(cause)));
    }
    limited_only &= !causes.is_empty();
    let hints: Vec<String> = causes.iter().map(|cause| cause.hint("the key policy")).collect();

    let policy = key.policy.as_ref().ok().and_then(|text| Policy::parse(text));
    let read = policy.as_ref().zip(caller.map(|caller| &caller.principal));
    let reach = read.map(|(policy, who)| NEEDED.map(|action| policy.reach(action, who)));
    let denied = read.and_then(|(policy, who)| {
        let open = NEEDED.iter().filter(|action| !is_shown(key, action));
        open.filter_map(|action| policy.denied_by(action, who)).next().map(|sid| printable(&sid))
    });
    let (key_policy, of_key) = match (&denied, reach) {
        (Some(sid), _) => {
            (Some(false), format!("the key policy has been read: its statement {sid} denies it"))
        }
        (None, Some(reach)) if reach.contains(&Reach::Not) => {
            (Some(false), "the key policy has been read".to_owned())
        }
        (None, Some(reach)) if reach.contains(&Reach::Perhaps) => (
            None,
            "the key policy allows it under conditions, or to a role that may be this one"
                .to_owned(),
        ),
        (None, Some(_)) => (Some(true), "the key policy has been read".to_owned()),
        (None, None) => (None, "the key policy may not be read here".to_owned()),
    };

    let across = caller.is_none_or(|caller| caller.account != target.account());
    let contradicted = match &key.not_allowed_by_iam {
        Some(Ok(refused)) => refused.iter().any(|one| {
            let by_account =
                || read.is_some_and(|(policy, who)| policy.leaves_to_account(&one.action, who));
            is_shown(key, &one.action)
                && NotAllowed::any_forbids(std::slice::from_ref(one), across || by_account())
        }),
        _ => false,
    };
    let of_iam_causes: Vec<Cause> = match &key.not_allowed_by_iam {
        Some(Ok(refused)) if !contradicted => {
            refused.iter().map(|one| cause_of(one.lack)).collect()
        }
        _ => Vec::new(),
    };
    let limit = of_iam_causes.iter().find(|cause| !cause.is_lack());
    // A permissions boundary does not limit what a key policy gives to a user by name.
    let iam_denies =
        limit.is_some_and(|cause| cause.explicit || cause.by == PolicyKind::ServiceControl);
    let is_root = caller.is_some_and(|caller| account_of(&caller.principal.arn).is_some());
    let (iam, of_iam) = match &key.not_allowed_by_iam {
        Some(Ok(_)) if contradicted => {
            (None, "IAM's simulation is wrong: what it does not allow was allowed".to_owned())
        }
        Some(Ok(refused)) => {
            let names = match limit {
                Some(Cause { explicit: true, .. }) => ": a statement denies it",
                Some(Cause { by: PolicyKind::Boundary, .. }) => {
                    ": the permissions boundary does not allow it"
                }
                Some(_) => ": the organization's policies do not allow it",
                None => "",
            };
            (Some(refused.is_empty()), format!("IAM has simulated it{names}"))
        }
        Some(Err(error)) if error.kind == Kind::Denied => {
            (None, "IAM may not be asked here (iam:SimulatePrincipalPolicy)".to_owned())
        }
        Some(Err(_)) => (None, "IAM's simulation does not tell".to_owned()),
        None if is_root => {
            (Some(true), "the root user of an account needs no IAM policy".to_owned())
        }
        None => (None, "IAM was not asked".to_owned()),
    };

    // An Allow is printed where one may be missing.
    let unless = |open: bool| (!open).then_some(true);
    let lacks = Sides {
        key_policy: unless(match key_policy {
            Some(granted) => !granted && denied.is_none(),
            None => !limited_only,
        }),
        iam: unless(match iam {
            Some(_) => of_iam_causes.iter().any(|cause| cause.is_lack()),
            None => !limited_only,
        }),
    };
    let principal = words(caller);
    let of_the_key = match &denied {
        Some(sid) => format!("the statement {sid} of {}", key_policy_of(target)),
        None => key_policy_of(target),
    };
    let parties = Parties { principal: &principal, policy: &of_the_key };
    let by_policy = denied.is_some().then_some(Cause { by: PolicyKind::Resource, explicit: true });
    let mut parts: Vec<String> = Vec::new();
    for cause in by_policy.into_iter().chain(of_iam_causes).chain(causes.iter().copied()) {
        parts.extend(cause.advice(parties).filter(|advice| !parts.contains(advice)));
    }
    if lacks.key_policy.is_none() || lacks.iam.is_none() {
        let lack = causes.iter().find(|cause| cause.is_lack());
        if let (Some(lack), None, None) = (lack, lacks.key_policy, lacks.iam) {
            let hint = lack.hint("the key policy");
            parts.push(format!("{hint}: begin there. Where both sides lack it, AWS names one"));
        }
        let states: Vec<String> = key.uses.iter().map(|one| one.state.clone()).collect();
        parts.push(grants::of_deploy(caller, target, lacks, Some((bucket, &states))));
    } else if parts.is_empty() {
        parts.push(denials::unexplained(&principal));
    }
    Diagnosis {
        sides: Sides { key_policy, iam },
        denies: denied.is_some() || iam_denies,
        evidence: [of_key, of_iam],
        hint: hints.join("; "),
        remedy: GrantRemedy { text: parts.join("\n\n"), lacks },
    }
}

/// Whether what was tried has shown that this principal may do it: in a dry run, or by a read.
fn is_shown(key: &KeyEvidence, action: &str) -> bool {
    key.uses.iter().any(|used| used.of(action).is_allowed())
        || (action == "kms:Decrypt" && key.read_under_key)
}

/// What IAM's simulation says, as a message would.
fn cause_of(lack: Lack) -> Cause {
    let (by, explicit) = match lack {
        Lack::NoAllow => (PolicyKind::Identity, false),
        Lack::Deny => (PolicyKind::Identity, true),
        Lack::Boundary => (PolicyKind::Boundary, false),
        Lack::Organization => (PolicyKind::ServiceControl, false),
    };
    Cause { by, explicit }
}

/// The principal with its account, in words.
pub(crate) fn words(caller: Option<&Caller>) -> String {
    let named = grants::named(caller);
    match caller {
        Some(caller) => format!("{named} (account {})", caller.account),
        None => named,
    }
}

/// The key policy with its account, in words.
pub(crate) fn key_policy_of(key: &KeyArn) -> String {
    format!("the key policy of {key} (account {})", key.account())
}
