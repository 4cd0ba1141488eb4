//! What IAM says of a principal's own policies.

use aws_sdk_iam::types::{EvaluationResult, PolicyEvaluationDecisionType as Decision};

use super::error::classify;
use super::{Aws, AwsError, Kind};

/// An action that the principal's own side does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAllowed {
    /// The action.
    pub action: String,
    /// Why.
    pub lack: Lack,
}

/// Why the principal's own side does not allow something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// No statement allows it.
    NoAllow,
    /// A statement denies it.
    Deny,
    /// The permissions boundary does not allow it.
    Boundary,
    /// The organization's policies do not allow it.
    Organization,
}

impl NotAllowed {
    /// Whether one of these keeps the principal from it, whatever a key policy allows.
    /// `across`: the resource is another account's, so both sides must allow.
    pub fn any_forbids(all: &[Self], across: bool) -> bool {
        // A boundary does not limit what a key policy gives to a user by name.
        let always = |lack| matches!(lack, Lack::Deny | Lack::Organization);
        all.iter().any(|one| across || always(one.lack))
    }
}

impl Aws {
    /// Which of these actions the principal's own policies do not allow on the resource
    /// (iam:SimulatePrincipalPolicy; resource policies are not looked at).
    ///
    /// # Errors
    /// As classified.
    pub async fn not_allowed_by_iam(
        &self,
        principal: &str,
        actions: &[&str],
        resource: &str,
    ) -> Result<Vec<NotAllowed>, AwsError> {
        let config = aws_sdk_iam::config::Builder::from(&self.config)
            .interceptor(self.requests.clone())
            .build();
        let answer = aws_sdk_iam::Client::from_conf(config)
            .simulate_principal_policy()
            .policy_source_arn(principal)
            .set_action_names(Some(actions.iter().map(|&action| action.to_owned()).collect()))
            .resource_arns(resource)
            .send()
            .await
            .map_err(|e| classify("iam:SimulatePrincipalPolicy", &e))?;
        let refused = answer.evaluation_results().iter();
        let refused: Vec<_> = refused.filter(|r| *r.eval_decision() != Decision::Allowed).collect();
        // A condition such as kms:ViaService cannot be simulated without its value.
        if refused.iter().any(|result| lacks_context(result)) {
            let operation = "iam:SimulatePrincipalPolicy";
            return Err(AwsError::new(Kind::Other, operation, "the policies have conditions"));
        }
        let named = |result: &&EvaluationResult| NotAllowed {
            action: result.eval_action_name().to_owned(),
            lack: lack(result),
        };
        Ok(refused.iter().map(named).collect())
    }
}

/// Whether a value is missing that a condition asks for. Where a resource was named, that is
/// said with the result for it (IAM API Reference, `EvaluationResult`).
fn lacks_context(result: &EvaluationResult) -> bool {
    let of_resources =
        result.resource_specific_results().iter().flat_map(|one| one.missing_context_values());
    result.missing_context_values().iter().chain(of_resources).next().is_some()
}

fn lack(result: &EvaluationResult) -> Lack {
    let organization = result.organizations_decision_detail();
    let boundary = result.permissions_boundary_decision_detail();
    if *result.eval_decision() == Decision::ExplicitDeny {
        Lack::Deny
    } else if organization.is_some_and(|detail| !detail.allowed_by_organizations()) {
        Lack::Organization
    } else if boundary.is_some_and(|detail| !detail.allowed_by_permissions_boundary()) {
        Lack::Boundary
    } else {
        Lack::NoAllow
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_iam::types::{
        OrganizationsDecisionDetail, PermissionsBoundaryDecisionDetail, ResourceSpecificResult,
    };

    use super::*;

    fn implicit() -> aws_sdk_iam::types::builders::EvaluationResultBuilder {
        EvaluationResult::builder()
            .eval_action_name("kms:Decrypt")
            .eval_decision(Decision::ImplicitDeny)
    }

    #[test]
    fn what_does_not_allow_it_is_told_apart() {
        let organization =
            OrganizationsDecisionDetail::builder().allowed_by_organizations(false).build();
        let boundary = PermissionsBoundaryDecisionDetail::builder()
            .allowed_by_permissions_boundary(false)
            .build();
        for (result, expected) in [
            (implicit(), Lack::NoAllow),
            (implicit().eval_decision(Decision::ExplicitDeny), Lack::Deny),
            (implicit().organizations_decision_detail(organization), Lack::Organization),
            (implicit().permissions_boundary_decision_detail(boundary), Lack::Boundary),
        ] {
            assert_eq!(lack(&result.build().unwrap()), expected);
        }
    }

    #[test]
    fn a_missing_value_is_seen_wherever_it_is_named() {
        let of_resource = ResourceSpecificResult::builder()
            .eval_resource_name("*")
            .eval_resource_decision(Decision::ImplicitDeny)
            .missing_context_values("kms:ViaService")
            .build()
            .unwrap();
        for (result, expected) in [
            (implicit(), false),
            (implicit().missing_context_values("kms:ViaService"), true),
            (implicit().resource_specific_results(of_resource), true),
        ] {
            assert_eq!(lacks_context(&result.build().unwrap()), expected);
        }
    }
}
