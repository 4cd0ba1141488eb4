//! STS: who someone is, and sessions with less power.
//!
//! After the AWS STS API Reference, and "Policies and permissions" (session policies) and
//! "Policy evaluation logic" of the IAM User Guide.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use s3s::dto::{Timestamp, TimestampFormat};
use serde_json::{Value, json};

use crate::github::PROVIDER;
use crate::policy::{Decision, Identity, Policies, Request, evaluate, statements, texts};
use crate::query::{Form, Service, invalid, xml};
use crate::roles::Role;
use crate::world::{Failure, Principal, World, policies_of};

/// Needs no credentials: the token is the credential.
pub(crate) const WITH_WEB_IDENTITY: &str = "AssumeRoleWithWebIdentity";
/// The audience that IAM's guide for GitHub sets the provider up with.
const AUDIENCE: &str = "sts.amazonaws.com";
/// AWS: of one session policy in the request; the packed limit comes on top.
const LONGEST_POLICY: usize = 2048;
/// What would change a session in ways that the lab does not know.
const UNKNOWN: [&str; 5] = ["PolicyArns", "Tags", "SerialNumber", "SourceIdentity", "ProviderId"];

/// Carries out one signed operation.
pub(crate) fn call(
    world: &mut World,
    who: &Principal,
    operation: &str,
    form: &Form,
) -> Result<String, Failure> {
    let result = match operation {
        // AWS: it needs no permission.
        "GetCallerIdentity" => Ok(format!(
            "<Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account>",
            xml(who.identity.shown()),
            xml(&user_id(&who.identity)),
            who.identity.account
        )),
        "AssumeRole" => assume_role(world, who, form),
        "GetFederationToken" => federation_token(world, who, form),
        other => {
            let message = format!("the lab does not know sts:{other}");
            Err(Failure::new("InvalidAction", 400, message))
        }
    };
    Ok(Service::Sts.answer(operation, &result?))
}

fn assume_role(world: &mut World, who: &Principal, form: &Form) -> Result<String, Failure> {
    form.without(&UNKNOWN)?;
    let arn = form.required("RoleArn")?;
    let session = name(form, "RoleSessionName", 64)?;
    let duration = role_duration(form)?;
    let policy = session_policy(world, form)?;

    let action = "sts:AssumeRole";
    // AWS: whether the role exists is not said.
    let refused = || {
        let shown = who.identity.shown();
        let message =
            format!("User: {shown} is not authorized to perform: {action} on resource: {arn}");
        Failure::new("AccessDenied", 403, message)
    };
    let role = world.roles.get(arn).ok_or_else(refused)?.clone();
    // AWS, GetFederationToken: such a session calls nothing of STS but GetCallerIdentity.
    if is_federated(&who.identity) {
        return Err(refused());
    }
    let mut context = BTreeMap::from([
        ("aws:PrincipalArn".to_owned(), who.identity.arn.clone()),
        ("aws:SecureTransport".to_owned(), "true".to_owned()),
        ("sts:RoleSessionName".to_owned(), session.to_owned()),
    ]);
    context.extend(form.get("ExternalId").map(|id| ("sts:ExternalId".to_owned(), id.to_owned())));
    let request =
        Request { identity: &who.identity, action, resource: arn, owner: &role.account, context };
    // AWS, "Policy evaluation logic": a trust policy must allow, even in one account. It does
    // so by itself where it names the user or role; by naming the account, it leaves the
    // decision to that account's IAM policies.
    let policies =
        Policies { resource: Some(&role.trust), needs_delegation: true, ..policies_of(who) };
    if evaluate(&request, &policies) != Decision::Allow {
        return Err(refused());
    }
    Ok(role_session(world, &role, session, duration, policy))
}

/// The unsigned operation.
pub(crate) fn with_web_identity(world: &mut World, form: &Form) -> Result<String, Failure> {
    form.without(&UNKNOWN)?;
    let arn = form.required("RoleArn")?;
    let session = name(form, "RoleSessionName", 64)?;
    let duration = role_duration(form)?;
    let policy = session_policy(world, form)?;

    let token = form.required("WebIdentityToken")?;
    let unusable = |message| Failure::new("InvalidIdentityToken", 400, message);
    let claims = world.web_tokens.get(token).cloned().ok_or_else(|| {
        unusable("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
    })?;
    if claims.audience != AUDIENCE {
        return Err(unusable("Incorrect token audience"));
    }
    // AWS: whether the role exists is not said.
    let refused = || {
        Failure::new("AccessDenied", 403, "Not authorized to perform sts:AssumeRoleWithWebIdentity")
    };
    let role = world.roles.get(arn).ok_or_else(refused)?.clone();
    let provider = format!("arn:aws:iam::{}:oidc-provider/{PROVIDER}", role.account);
    // A federated principal is no principal of `evaluate`: the statements that name this one
    // are asked as if they named everyone.
    let trusting: Vec<Value> = statements(&role.trust)
        .filter(|statement| texts(&statement["Principal"]["Federated"]).contains(&&*provider))
        .map(|statement| {
            let mut statement = statement.clone();
            statement["Principal"] = json!("*");
            statement
        })
        .collect();
    let trust = json!({ "Statement": trusting });
    let identity = role.session(session);
    let request = Request {
        identity: &identity,
        action: "sts:AssumeRoleWithWebIdentity",
        resource: arn,
        owner: &role.account,
        context: BTreeMap::from([
            (format!("{PROVIDER}:aud"), claims.audience.clone()),
            (format!("{PROVIDER}:sub"), claims.subject.clone()),
            ("sts:RoleSessionName".to_owned(), session.to_owned()),
        ]),
    };
    let policies = Policies { resource: Some(&trust), ..Policies::default() };
    if evaluate(&request, &policies) != Decision::Allow {
        return Err(refused());
    }
    let started = role_session(world, &role, session, duration, policy);
    let result = format!(
        "{started}<SubjectFromWebIdentityToken>{}</SubjectFromWebIdentityToken>\
         <Audience>{}</Audience><Provider>{provider}</Provider>",
        xml(&claims.subject),
        xml(&claims.audience),
    );
    Ok(Service::Sts.answer(WITH_WEB_IDENTITY, &result))
}

fn federation_token(world: &mut World, who: &Principal, form: &Form) -> Result<String, Failure> {
    form.without(&UNKNOWN)?;
    let name = name(form, "Name", 32)?;
    let duration = duration(form, 129_600)?.unwrap_or(43_200);
    let policy = session_policy(world, form)?;
    if who.token.is_some() {
        let message = "Cannot call GetFederationToken with session credentials";
        return Err(Failure::new("AccessDenied", 403, message));
    }
    let account = &who.identity.account;
    let arn = format!("arn:aws:sts::{account}:federated-user/{name}");
    world.may_call(who, "sts:GetFederationToken", &arn, account)?;

    let identity = Identity { session_arn: Some(arn.clone()), ..who.identity.clone() };
    let id = user_id(&identity);
    // AWS, GetFederationToken: without a session policy, the session may do only what a
    // resource policy grants to the session itself.
    let (policy, packed) = policy.unwrap_or_else(|| (json!({ "Statement": [] }), 0));
    let session = world.start_session(identity, who.policies.clone(), Some(policy));
    Ok(format!(
        "{}<FederatedUser><FederatedUserId>{}</FederatedUserId><Arn>{}</Arn></FederatedUser>\
         <PackedPolicySize>{packed}</PackedPolicySize>",
        credentials(&session, duration),
        xml(&id),
        xml(&arn),
    ))
}

/// Starts a role's session; what both ways to assume one answer.
fn role_session(
    world: &mut World,
    role: &Role,
    session: &str,
    duration: u64,
    policy: Option<(Value, usize)>,
) -> String {
    let identity = role.session(session);
    let user = format!(
        "<AssumedRoleUser><AssumedRoleId>{}</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser>",
        xml(&user_id(&identity)),
        xml(identity.shown()),
    );
    let packed = policy
        .as_ref()
        .map(|(_, packed)| format!("<PackedPolicySize>{packed}</PackedPolicySize>"))
        .unwrap_or_default();
    let policy = policy.map(|(policy, _)| policy);
    let who = world.start_session(identity, role.policies.clone(), policy);
    format!("{}{user}{packed}", credentials(&who, duration))
}

fn credentials(who: &Principal, duration: u64) -> String {
    let end = Timestamp::from(SystemTime::now() + Duration::from_secs(duration));
    let mut expiration = Vec::new();
    end.format(TimestampFormat::DateTime, &mut expiration).expect("a date of this age");
    format!(
        "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials>",
        who.access_key,
        who.secret,
        who.token.as_deref().unwrap_or_default(),
        String::from_utf8_lossy(&expiration),
    )
}

/// AWS, "IAM identifiers": a role session's begins with the role's id, a federated user's
/// with the account.
fn user_id(identity: &Identity) -> String {
    let Some(session) = &identity.session_arn else { return "AIDALABLABLAB".to_owned() };
    let name = session.rsplit('/').next().unwrap_or_default();
    if is_federated(identity) {
        format!("{}:{name}", identity.account)
    } else {
        format!("AROALABLABLAB:{name}")
    }
}

/// Whether GetFederationToken made it.
pub(crate) fn is_federated(identity: &Identity) -> bool {
    identity.session_arn.as_deref().is_some_and(|arn| arn.contains(":federated-user/"))
}

/// A session's name.
fn name<'a>(form: &'a Form, parameter: &str, longest: usize) -> Result<&'a str, Failure> {
    let name = form.required(parameter)?;
    let fits = (2..=longest).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c));
    if fits {
        return Ok(name);
    }
    Err(invalid(format!(
        "1 validation error detected: Value '{name}' at '{parameter}' failed to satisfy \
         constraint: Member must have 2 to {longest} characters of [\\w+=,.@-]"
    )))
}

fn duration(form: &Form, longest: u64) -> Result<Option<u64>, Failure> {
    let Some(text) = form.get("DurationSeconds") else { return Ok(None) };
    match text.parse() {
        Ok(seconds) if (900..=longest).contains(&seconds) => Ok(Some(seconds)),
        _ => Err(invalid(format!(
            "1 validation error detected: Value '{text}' at 'durationSeconds' failed to satisfy \
             constraint: Member must be between 900 and {longest}"
        ))),
    }
}

/// AWS: twelve hours at most, and no more than the role's own maximum, which is an hour
/// unless it was raised; so is that of a role assumed by a role.
fn role_duration(form: &Form) -> Result<u64, Failure> {
    let seconds = duration(form, 43_200)?.unwrap_or(3600);
    if seconds > 3600 {
        let message =
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(invalid(message));
    }
    Ok(seconds)
}

/// The request's session policy, and the percentage of the packed limit that it fills.
fn session_policy(world: &World, form: &Form) -> Result<Option<(Value, usize)>, Failure> {
    let Some(text) = form.get("Policy") else { return Ok(None) };
    let length = text.chars().count();
    if length > LONGEST_POLICY {
        return Err(invalid(format!(
            "1 validation error detected: Value '{text}' at 'policy' failed to satisfy \
             constraint: Member must have length less than or equal to {LONGEST_POLICY}"
        )));
    }
    let malformed = |message| Failure::new("MalformedPolicyDocument", 400, message);
    let policy: Value = serde_json::from_str(text)
        .map_err(|_| malformed("The policy is not in the valid JSON format."))?;
    let known = ["2012-10-17", "2008-10-17"];
    let version = &policy["Version"];
    let complete = policy.is_object()
        && !policy["Statement"].is_null()
        && (version.is_null() || version.as_str().is_some_and(|text| known.contains(&text)))
        && statements(&policy).all(is_statement);
    if !complete {
        return Err(malformed("Syntax errors in policy."));
    }
    if statements(&policy).any(|s| !s["Principal"].is_null() || !s["NotPrincipal"].is_null()) {
        return Err(malformed("Policy document should not specify a principal."));
    }
    // AWS does not say how it packs; the lab's measure is the text itself.
    let limit = world.packed_policy_limit.unwrap_or(LONGEST_POLICY);
    let packed = (length * 100).div_ceil(limit.max(1));
    if length > limit {
        let message = format!(
            "Packed policy consumes {packed}% of allotted space, please use smaller policy."
        );
        return Err(Failure::new("PackedPolicyTooLarge", 400, message));
    }
    Ok(Some((policy, packed)))
}

/// AWS, "Grammar of the IAM JSON policy language", as far as an evaluation reads it.
fn is_statement(statement: &Value) -> bool {
    let one_of = |names: [&str; 2]| names.iter().any(|name| !texts(&statement[*name]).is_empty());
    statement.is_object()
        && (statement["Effect"] == "Allow" || statement["Effect"] == "Deny")
        && one_of(["Action", "NotAction"])
        && one_of(["Resource", "NotResource"])
}
