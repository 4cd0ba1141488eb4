//! Sessions with other rights than this principal's: for the gate probe and for the
//! roles that must keep reading.
//!
//! Their credentials live in the clients that are made from them and nowhere else.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::Client;

use super::error::classify;
use super::{Aws, AwsError, Kind};

/// STS's shortest session; a probe takes seconds.
const SECONDS: i32 = 900;
/// Shown in CloudTrail and in the ARN of the session.
const SESSION_NAME: &str = "tfstate-kms";

/// A session, and the values that have to be masked in the log.
pub struct Session {
    /// Clients with the session's credentials.
    pub aws: Aws,
    /// Never to be shown.
    pub secrets: Vec<String>,
}

impl Aws {
    /// Assumes a role by this principal's own credentials.
    ///
    /// # Errors
    /// As classified.
    pub async fn assume(&self, role: &str) -> Result<Session, AwsError> {
        let answer = self
            .sts()
            .assume_role()
            .role_arn(role)
            .role_session_name(SESSION_NAME)
            .duration_seconds(SECONDS)
            .send()
            .await
            .map_err(|e| classify("sts:AssumeRole", &e))?;
        self.session("sts:AssumeRole", answer.credentials)
    }

    /// Assumes a role by an OIDC token, limited by a session policy.
    ///
    /// # Errors
    /// As classified.
    pub async fn assume_with_token(
        &self,
        role: &str,
        token: &str,
        policy: &str,
    ) -> Result<Session, AwsError> {
        let answer = self
            .sts()
            .assume_role_with_web_identity()
            .role_arn(role)
            .role_session_name(SESSION_NAME)
            .web_identity_token(token)
            .policy(policy)
            .duration_seconds(SECONDS)
            .send()
            .await
            .map_err(|e| classify("sts:AssumeRoleWithWebIdentity", &e))?;
        self.session("sts:AssumeRoleWithWebIdentity", answer.credentials)
    }

    /// Makes a federated session of this IAM user, limited by a session policy.
    ///
    /// # Errors
    /// As classified.
    pub async fn federate(&self, policy: &str) -> Result<Session, AwsError> {
        let answer = self
            .sts()
            .get_federation_token()
            .name(SESSION_NAME)
            .policy(policy)
            .duration_seconds(SECONDS)
            .send()
            .await
            .map_err(|e| classify("sts:GetFederationToken", &e))?;
        self.session("sts:GetFederationToken", answer.credentials)
    }

    pub(super) fn sts(&self) -> Client {
        let config = aws_sdk_sts::config::Builder::from(&self.config)
            .interceptor(self.requests.clone())
            .build();
        Client::from_conf(config)
    }

    fn session(
        &self,
        operation: &'static str,
        credentials: Option<aws_sdk_sts::types::Credentials>,
    ) -> Result<Session, AwsError> {
        let Some(given) = credentials else {
            return Err(AwsError::new(Kind::Other, operation, "the answer holds no credentials"));
        };
        let secrets = vec![given.secret_access_key().to_owned(), given.session_token().to_owned()];
        let credentials = Credentials::new(
            given.access_key_id(),
            given.secret_access_key(),
            Some(given.session_token().to_owned()),
            None,
            SESSION_NAME,
        );
        let provider = SharedCredentialsProvider::new(credentials);
        let config = self.config.to_builder().credentials_provider(provider).build();
        Ok(Session { aws: Self { config, ..self.clone() }, secrets })
    }
}
