//! Sets STATE_KMS_KEY_ID on a GitHub environment.

use serde_json::json;

use super::{Run, Untaken};
use crate::check::{Failure, FailureReason};
use crate::github::{Api, ApiError};
use crate::names::{KeyArn, percent_encoded, printable};
use crate::report::KeyReport;

const NAME: &str = "STATE_KMS_KEY_ID";

impl Run<'_> {
    pub(super) async fn set_variable(
        &self,
        key: &mut KeyReport,
        arn: &KeyArn,
    ) -> Result<(), Failure> {
        let admin = &self.request.key_admin;
        let Some(environment) = &admin.set_variable else { return Ok(()) };
        let failed = |why: &str| {
            Failure::new(
                FailureReason::VariableNotSet,
                format!(
                    "{NAME} could not be set on the environment {} ({why})",
                    printable(environment)
                ),
                "It needs a fine-grained token or an App with «Environments: write» on this repository, as \
                 `github-token`: the job's own token cannot change environments. By hand: Settings → Environments",
            )
        };
        let api = Api::of(self.environment, self.request.github_token.as_ref())
            .map_err(|why| failed(&why))?;
        let folder = format!("environments/{}/variables", percent_encoded(environment, ""));
        let path = format!("{folder}/{NAME}");
        let body = json!({ "name": NAME, "value": arn.as_str() });
        let now = match api.get(&path).await {
            Ok(answer) => answer["value"].as_str().map(str::to_owned),
            Err(ApiError::NotFound(_)) => None,
            Err(error) => return Err(failed(&error.to_string())),
        };
        let step = format!("set {NAME} on the environment {}", printable(environment));
        let untaken = |error: ApiError| Untaken {
            failure: failed(&error.to_string()),
            perhaps: matches!(error, ApiError::Unavailable(_)),
        };
        match now {
            Some(now) if now == arn.as_str() => {}
            Some(now) => {
                let what = format!("{step}, which is {} now", printable(&now));
                let write = async { api.patch(&path, &body).await.map_err(untaken) };
                self.step(key, what, admin.confirms("variable"), write).await?;
            }
            None => {
                let write = async { api.post(&folder, &body).await.map_err(untaken) };
                self.step(key, step, admin.confirms("create"), write).await?;
            }
        }
        Ok(())
    }
}
