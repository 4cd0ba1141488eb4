//! What the S3 and KMS tests share.

#![allow(dead_code, reason = "not every test binary needs all of it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::fmt::Debug;

use aws_lab::{BUCKET, Encryption, Lab, REGION, Topology, World, cabal};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::ServerSideEncryption;
use serde_json::{Value, json};

/// The object of most tests.
pub const STATE: &str = "production";
pub const BODY: &str = "{\"serial\":1}";

/// A lab with a state under the state key, arranged further.
pub async fn lab_with(topology: Topology, arrange: impl FnOnce(&mut World)) -> Lab {
    let mut world = cabal(topology);
    let key = world.state_key_arn().to_owned();
    world.put_object(BUCKET, STATE, BODY, Encryption::Kms { key });
    arrange(&mut world);
    Lab::start(world).await.unwrap()
}

pub async fn lab() -> Lab {
    lab_with(Topology::Roles, |_| ()).await
}

/// Credentials of a principal of the preset.
pub fn credentials(lab: &Lab, principal: &str) -> Credentials {
    let env = lab.env(principal);
    let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let (id, secret) = (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"));
    Credentials::new(id.unwrap(), secret.unwrap(), get("AWS_SESSION_TOKEN"), None, "lab")
}

pub fn s3_in(lab: &Lab, principal: &str, region: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(lab.endpoint())
        .credentials_provider(credentials(lab, principal))
        .retry_config(RetryConfig::disabled())
        .force_path_style(true)
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

pub fn s3(lab: &Lab, principal: &str) -> aws_sdk_s3::Client {
    s3_in(lab, principal, REGION)
}

pub fn kms_in(lab: &Lab, principal: &str, region: &str) -> aws_sdk_kms::Client {
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(lab.endpoint())
        .credentials_provider(credentials(lab, principal))
        .retry_config(RetryConfig::disabled())
        .build();
    aws_sdk_kms::Client::from_conf(config)
}

pub fn kms(lab: &Lab, principal: &str) -> aws_sdk_kms::Client {
    kms_in(lab, principal, REGION)
}

/// A refusal's status, code, message, and a header of it.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
    raw: Option<HttpResponse>,
}

impl Refusal {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.raw.as_ref().and_then(|raw| raw.headers().get(name))
    }

    /// Status and code, to compare.
    pub fn short(&self) -> (u16, &str) {
        (self.status, &self.code)
    }
}

pub fn refusal<T: Debug, E>(result: Result<T, SdkError<E>>) -> Refusal
where
    E: ProvideErrorMetadata + Debug + 'static,
{
    let error = result.expect_err("a refusal");
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let (code, message) = (text(error.code()), text(error.message()));
    let raw = error.into_raw_response();
    Refusal { status: raw.as_ref().map_or(0, |raw| raw.status().as_u16()), code, message, raw }
}

/// The raw response of an error that a disabled retry left.
trait RawResponse {
    fn into_raw_response(self) -> Option<HttpResponse>;
}

impl<E> RawResponse for SdkError<E> {
    fn into_raw_response(self) -> Option<HttpResponse> {
        match self {
            Self::ServiceError(context) => Some(context.into_raw()),
            Self::ResponseError(context) => Some(context.into_raw()),
            _ => None,
        }
    }
}

/// A bucket policy's or key policy's further statement.
pub fn also(policy: Option<&mut Value>, statement: Value) {
    policy.unwrap()["Statement"].as_array_mut().unwrap().push(statement);
}

/// Lets everyone do these things with the bucket.
pub fn open_bucket(world: &mut World, actions: &[&str]) {
    let statement = json!({ "Effect": "Allow", "Principal": "*", "Action": actions,
                            "Resource": [format!("arn:aws:s3:::{BUCKET}"), format!("arn:aws:s3:::{BUCKET}/*")] });
    also(world.bucket_mut(BUCKET).policy.as_mut(), statement);
}

pub const KMS: ServerSideEncryption = ServerSideEncryption::AwsKms;

/// The whole body.
pub async fn body(s3: &aws_sdk_s3::Client, key: &str) -> Vec<u8> {
    let output = s3.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    output.body.collect().await.unwrap().to_vec()
}
