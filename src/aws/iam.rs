//! What IAM says of a principal's own policies.

use aws_sdk_iam::types::PolicyEvaluationDecisionType as Decision;

use super::error::classify;
use super::{Aws, AwsError, Kind};

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
    ) -> Result<Vec<String>, AwsError> {
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
        if refused.iter().any(|result| !result.missing_context_values().is_empty()) {
            let operation = "iam:SimulatePrincipalPolicy";
            return Err(AwsError::new(Kind::Other, operation, "the policies have conditions"));
        }
        Ok(refused.into_iter().map(|result| result.eval_action_name().to_owned()).collect())
    }
}
