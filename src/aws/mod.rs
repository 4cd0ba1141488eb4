//! The clients, and all that is set on them.
//!
//! SDK types stop in this folder: callers see [`Bucket`], [`Keys`] and [`AwsError`].

mod bucket_settings;
mod error;
mod iam;
mod key_admin;
mod kms;
mod lock_object;
mod lock_table;
mod object;
mod s3;
mod session;
mod versions;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextMut, InterceptorContext,
};
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};

pub use bucket_settings::{Replication, ReplicationRule, Settings};
pub use error::{AwsError, Kind, classify};
pub use iam::{Lack, NotAllowed};
pub use key_admin::{Grant, Rotation};
pub use kms::{DryRun, KeyDescription, Keys};
pub use object::{
    Archive, Attributes, Budget, Copied, Download, Held, Hold, Seen, ServerSide, Share, WriteAs,
};
pub use s3::Bucket;

pub use session::Session;
pub use versions::{ObjectVersion, OldVersion, Versions};

use crate::inputs::{self, Environment};
use crate::net::{self, Unreached};
use crate::principal::Principal;

/// Attempts of one call, the first one included. The SDK waits between them
/// (exponential back-off with jitter). Writes that re-key are sent once: see `s3::once`.
const ATTEMPTS: u32 = 4;

/// No answer at all by then: the attempt is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Counts the requests that are really sent, retries included.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<AtomicU64>);

impl Requests {
    /// How many there were so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where an attempt goes to.
#[derive(Debug)]
struct Host(String);

impl Storable for Host {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Requests {
    fn name(&self) -> &'static str {
        "CountRequests"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        // The request is gone by the time that it has failed.
        if let Some(host) = net::host_of(context.request().uri()) {
            config.interceptor_state().store_put(Host(host));
        }
        Ok(())
    }

    fn modify_before_attempt_completion(
        &self,
        context: &mut FinalizerInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        name_the_host(context, config);
        Ok(())
    }

    fn modify_before_completion(
        &self,
        context: &mut FinalizerInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        name_the_host(context, config);
        Ok(())
    }
}

/// The time limits of an attempt and of a call are above the connector, which names the host of
/// its own errors.
fn name_the_host(context: &mut FinalizerInterceptorContextMut<'_>, config: &ConfigBag) {
    let host = config.load::<Host>().map(|Host(host)| host.clone());
    let (Some(host), Some(Err(failed))) = (host, context.output_or_error_mut()) else { return };
    if failed.is_timeout_error() {
        let source = std::mem::replace(failed, OrchestratorError::other("replaced below"));
        *failed = OrchestratorError::timeout(Box::new(Unreached::new(host, source)));
    }
}

/// Servers other than AWS's say 429 where S3 says 503 SlowDown, which the SDK knows.
#[derive(Debug)]
struct TooManyRequests;

impl ClassifyRetry for TooManyRequests {
    fn name(&self) -> &'static str {
        "TooManyRequests"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.response().map(|response| response.status().as_u16()) {
            Some(429) => RetryAction::throttling_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }
}

/// The configuration that every client of a run is made from.
#[derive(Debug, Clone)]
pub struct Aws {
    config: SdkConfig,
    requests: Requests,
    path_style: bool,
    custom_endpoint: bool,
}

/// A variable names another endpoint for S3.
fn names_endpoint(environment: &Environment) -> bool {
    let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    names.iter().any(|name| environment.get(name).is_some())
}

/// Another endpoint for S3 is named, or may be: a configuration file can do so, too.
fn may_have_endpoint(environment: &Environment, exists: impl Fn(&Path) -> bool) -> bool {
    let files = ["AWS_CONFIG_FILE", "AWS_PROFILE"];
    let usual_file = environment.get("HOME").map(|home| Path::new(home).join(".aws/config"));
    names_endpoint(environment)
        || files.iter().any(|name| environment.get(name).is_some())
        || usual_file.is_some_and(|file| exists(&file))
}

/// Who the credentials belong to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Caller {
    /// The principal: a user's ARN, or an assumed role's session ARN.
    pub arn: String,
    /// Its account.
    pub account: String,
    /// The same as policies name it.
    #[serde(skip)]
    pub principal: Principal,
}

impl Aws {
    /// Reads region, credentials and endpoints as every AWS client does. No request
    /// is sent, but for credentials that have to be fetched.
    ///
    /// # Errors
    /// [`Kind::Credentials`], when there are none.
    pub async fn connect(environment: &Environment, region: &str) -> Result<Self, AwsError> {
        let requests = Requests::default();
        let attempt = inputs::attempt_timeout(environment);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(attempt))
            .operation_attempt_timeout(attempt)
            // All attempts of one call together.
            .operation_timeout(attempt * 8 / 3)
            .build();
        let client = net::aws_client(environment)
            .map_err(|why| AwsError::new(Kind::Other, "configuration", why))?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(timeouts)
            .http_client(client);
        if let Ok(name) = AppName::new("tfstate-kms") {
            loader = loader.app_name(name);
        }
        let config = loader.load().await;
        if let Some(provider) = config.credentials_provider() {
            provider.provide_credentials().await.map_err(|error| {
                // The provider's own words name variables and files, never values.
                no_credentials(environment, &error::causes(&error))
            })?;
        }
        let path_style = names_endpoint(environment);
        let custom_endpoint =
            config.endpoint_url().is_some() || may_have_endpoint(environment, Path::exists);
        Ok(Self { config, requests, path_style, custom_endpoint })
    }

    /// The same, for another region.
    #[must_use]
    pub fn in_region(&self, region: &str) -> Self {
        let config = self.config.to_builder().region(Region::new(region.to_owned())).build();
        Self { config, ..self.clone() }
    }

    /// The region of the calls.
    pub fn region(&self) -> &str {
        self.config.region().map_or("", Region::as_ref)
    }

    /// The endpoint of S3 is not AWS's own, or may not be.
    pub fn custom_endpoint(&self) -> bool {
        self.custom_endpoint
    }

    /// The credentials are an IAM user's long-term keys.
    pub async fn long_term_keys(&self) -> bool {
        let Some(provider) = self.config.credentials_provider() else { return false };
        let credentials = provider.provide_credentials().await;
        credentials.is_ok_and(|credentials| credentials.session_token().is_none())
    }

    /// The requests sent by all clients.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The state bucket. `owner` goes along with every call.
    pub fn bucket(&self, name: &str, owner: Option<&str>, acl: Option<&str>) -> Bucket {
        let config = aws_sdk_s3::config::Builder::from(&self.config)
            .interceptor(self.requests.clone())
            .retry_classifier(TooManyRequests)
            // Servers other than AWS's seldom have a host name for each bucket.
            .force_path_style(self.path_style)
            .build();
        let client = aws_sdk_s3::Client::from_conf(config);
        Bucket::new(client, name, owner, acl, self.custom_endpoint)
    }

    /// Whether S3 takes this account for the bucket's owner; `None`: it refuses either way,
    /// which needs s3:ListBucket to tell.
    pub async fn is_owner(&self, name: &str, owner: Option<&str>) -> Option<bool> {
        let (with, without) = (self.bucket(name, owner, None), self.bucket(name, None, None));
        match tokio::join!(with.exists(), without.exists()) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// KMS in this configuration's region.
    pub fn keys(&self) -> Keys {
        let config = aws_sdk_kms::config::Builder::from(&self.config)
            .interceptor(self.requests.clone())
            .build();
        Keys::new(aws_sdk_kms::Client::from_conf(config))
    }

    /// Whose credentials these are (STS; needs no permission). `known` are full ARNs of
    /// roles, one of which may be the session's.
    ///
    /// # Errors
    /// As classified.
    pub async fn caller(&self, known: &[String]) -> Result<Caller, AwsError> {
        let answer = self
            .sts()
            .get_caller_identity()
            .send()
            .await
            .map_err(|e| error::classify("sts:GetCallerIdentity", &e))?;
        let (arn, account) =
            (answer.arn().unwrap_or_default(), answer.account().unwrap_or_default());
        Ok(Caller {
            arn: arn.to_owned(),
            account: account.to_owned(),
            principal: Principal::of_caller(arn, account, known),
        })
    }
}

/// Says why there are no credentials in a container, where the usual files are missing:
/// HOME is the runner's temporary one, so `~/.aws` of the host is not there.
fn no_credentials(environment: &Environment, cause: &str) -> AwsError {
    const FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
    let mut message = cause.to_owned();
    for (name, what) in [
        (
            "AWS_PROFILE",
            "a profile needs the files of ~/.aws, which are not in the action's container",
        ),
        (FILE, "that file must be readable inside the action's container"),
    ] {
        // Where that file can be read, something else is the matter.
        if environment.get(name).is_some_and(|value| name != FILE || !Path::new(value).is_file()) {
            message.push_str(&format!("; {name} is set: {what}"));
        }
    }
    AwsError::new(Kind::Credentials, "credentials", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Strategy;

    /// `strategy: auto` is in place on AWS's own endpoint, and only where that is certain.
    #[test]
    fn only_what_is_certainly_aws_gets_the_in_place_operation_by_itself() {
        let in_place = |environment: Environment, file: bool| {
            Strategy::Auto.is_in_place(may_have_endpoint(&environment, |_| file))
        };
        let usual = || Environment::from([("HOME", "/github/home"), ("AWS_REGION", "us-east-1")]);
        assert!(in_place(usual(), false) && in_place(Environment::default(), false));
        assert!(!in_place(usual(), true));
        for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CONFIG_FILE", "AWS_PROFILE"] {
            assert!(!in_place(Environment::from([(name, "x")]), false), "{name}");
        }
        assert!(Strategy::InPlace.is_in_place(true) && !Strategy::Copy.is_in_place(false));
    }
}
