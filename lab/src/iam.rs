//! IAM: what a user's or role's policies say, without asking for it to be done.
//!
//! After SimulatePrincipalPolicy of the IAM API Reference.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::policy::{Decision, Identity, Policies, Request, evaluate, missing_keys};
use crate::query::{Form, Service, xml};
use crate::roles::is_generated;
use crate::sts::is_federated;
use crate::world::{Failure, Principal, World};

/// Other policies than the principal's own, which the lab does not weigh here.
const UNKNOWN: [&str; 6] = [
    "CallerArn",
    "PermissionsBoundaryPolicyInputList",
    "PolicyInputList",
    "ResourceHandlingOption",
    "ResourceOwner",
    "ResourcePolicy",
];

/// Carries out one operation.
pub(crate) fn call(
    world: &World,
    who: &Principal,
    operation: &str,
    form: &Form,
) -> Result<String, Failure> {
    // AWS, GetFederationToken: such a session calls nothing of IAM.
    if is_federated(&who.identity) {
        let message = "The security token included in the request is invalid";
        return Err(Failure::new("InvalidClientTokenId", 403, message));
    }
    if operation != "SimulatePrincipalPolicy" {
        let message = format!("the lab does not know iam:{operation}");
        return Err(Failure::new("InvalidAction", 400, message));
    }
    Ok(Service::Iam.answer(operation, &simulate(world, who, form)?))
}

fn simulate(world: &World, who: &Principal, form: &Form) -> Result<String, Failure> {
    form.without(&UNKNOWN)?;
    let arn = form.required("PolicySourceArn")?;
    let account = arn.split(':').nth(4).unwrap_or_default();
    let denies = world.simulates_denials;
    let policies = match denies {
        true => &[],
        false => {
            world.may_call(who, "iam:SimulatePrincipalPolicy", arn, account)?;
            policies_of(world, arn)?
        }
    };

    let identity = Identity { arn: arn.to_owned(), session_arn: None, account: account.to_owned() };
    let actions = form.members("ActionNames");
    form.required("ActionNames.member.1")?;
    let mut resources = form.members("ResourceArns");
    let named = !resources.is_empty();
    if !named {
        // AWS: without a resource it is `*`, which an ARN in a policy does not match.
        resources.push("*");
    }
    let context = context(form);
    let results: Vec<String> = actions
        .iter()
        .flat_map(|action| resources.iter().map(move |resource| (*action, *resource)))
        .map(|(action, resource)| {
            let context = context.clone();
            let request =
                Request { identity: &identity, action, resource, owner: account, context };
            let own = Policies { identity: policies.iter().collect(), ..Policies::default() };
            let decision = match evaluate(&request, &own) {
                _ if denies => "explicitDeny",
                Decision::Allow => "allowed",
                Decision::Deny(clause) if clause.contains("explicit deny") => "explicitDeny",
                Decision::Deny(_) => "implicitDeny",
            };
            let missing: String = missing_keys(&request, policies)
                .iter()
                .map(|key| format!("<member>{}</member>", xml(key)))
                .collect();
            let missing = format!("<MissingContextValues>{missing}</MissingContextValues>");
            let (action, resource) = (xml(action), xml(resource));
            // AWS, EvaluationResult: where resources are named, the keys are with the result of each.
            let (whole, of_each) = match named && resource != "*" {
                false => (missing, String::new()),
                true => (
                    "<MissingContextValues/>".to_owned(),
                    format!(
                        "<ResourceSpecificResults><member><EvalResourceName>{resource}</EvalResourceName>\
                         <EvalResourceDecision>{decision}</EvalResourceDecision><MatchedStatements/>{missing}\
                         </member></ResourceSpecificResults>"
                    ),
                ),
            };
            format!(
                "<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{resource}</EvalResourceName>\
                 <EvalDecision>{decision}</EvalDecision><MatchedStatements/>{whole}{of_each}</member>"
            )
        })
        .collect();

    // AWS: a hundred a page unless the request says so.
    let number = |name: &str| form.get(name).and_then(|text| text.parse::<usize>().ok());
    let from = number("Marker").unwrap_or(0).min(results.len());
    let to = (from + number("MaxItems").unwrap_or(100).clamp(1, 1000)).min(results.len());
    let more = to < results.len();
    let marker = if more { format!("<Marker>{to}</Marker>") } else { String::new() };
    Ok(format!(
        "<IsTruncated>{more}</IsTruncated>{marker}<EvaluationResults>{}</EvaluationResults>",
        results[from..to].concat()
    ))
}

/// The IAM policies of a user or role.
fn policies_of<'a>(world: &'a World, arn: &str) -> Result<&'a [Value], Failure> {
    let (kind, name) = match arn.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", "aws", "iam", "", _, tail] => tail.split_once('/').unwrap_or_default(),
        _ => ("", ""),
    };
    if !["user", "role"].contains(&kind) {
        // So it is for the ARN of a session, which GetCallerIdentity gives.
        let message =
            format!("Invalid Entity Arn: {arn} does not clearly define entity type and name.");
        return Err(Failure::new("InvalidInput", 400, message));
    }
    let role = world.roles.get(arn).map(|role| &role.policies);
    let principal = || {
        let mut known = world.principals.iter().filter(|(name, _)| !is_generated(name));
        known.find(|(_, who)| who.identity.arn == arn).map(|(_, who)| &who.policies)
    };
    role.or_else(principal).map(Vec::as_slice).ok_or_else(|| {
        let name = name.rsplit('/').next().unwrap_or_default();
        let message = format!("The {kind} with name {name} cannot be found.");
        Failure::new("NoSuchEntity", 404, message)
    })
}

/// The condition keys that the request gives. The lab's policies know single values.
fn context(form: &Form) -> BTreeMap<String, String> {
    (1..)
        .map_while(|at| {
            let entry = format!("ContextEntries.member.{at}");
            let key = form.get(&format!("{entry}.ContextKeyName"))?;
            let value = form.get(&format!("{entry}.ContextKeyValues.member.1"))?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect()
}
