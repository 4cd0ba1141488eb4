//! One place that says what an AWS error means.
//!
//! [`classify`] is pure. It looks at the [`SdkError`] variant first, at the service's
//! code second, at the status third, and never at the message: AWS words the same
//! refusal in many ways.

use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::operation::RequestId;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::names::printable;
use crate::net::Unreached;

/// What an error means to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The object or key is not there.
    NotFound,
    /// The bucket is not there.
    NoBucket,
    /// Some policy does not allow it.
    Denied,
    /// The object is in an archive class or tier, and not restored.
    Archived,
    /// A condition of the request does not hold any more (412).
    ConditionFailed,
    /// Another write was under way (409).
    Conflict,
    /// A KMS key is disabled.
    KeyDisabled,
    /// A KMS key is pending deletion or import, or otherwise not usable.
    KeyState,
    /// The KMS key does not exist in this region.
    KeyNotFound,
    /// A dry run that would have succeeded (KMS `DryRunOperationException`).
    WouldSucceed,
    /// The request was signed for another region than the bucket's.
    WrongRegion,
    /// No credentials were found, or they were refused as such.
    Credentials,
    /// The clock of this machine is off.
    Clock,
    /// The service does not know the operation or the condition (501).
    NotImplemented,
    /// The request as such is refused (400).
    Invalid,
    /// Too many requests, or the service is out of order, or an answer that is not understood;
    /// after the retries, where there are any.
    Unavailable,
    /// No answer: the request MAY have been carried out.
    Ambiguous,
    /// Anything else.
    Other,
}

impl Kind {
    /// The service answered in a way that leaves open whether the request was carried out.
    pub fn is_ambiguous(self) -> bool {
        matches!(self, Self::Ambiguous | Self::Unavailable)
    }

    /// The KMS key is what stands in the way.
    pub fn is_key_problem(self) -> bool {
        matches!(self, Self::KeyDisabled | Self::KeyState | Self::KeyNotFound)
    }
}

/// An error of an AWS call, in the words that a user is shown.
#[derive(Debug, Clone)]
pub struct AwsError {
    /// What it means.
    pub kind: Kind,
    /// The operation, such as `s3:GetObject`.
    pub operation: &'static str,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The service's error code.
    pub code: Option<String>,
    /// The service's message: one line, shortened. For people, never for decisions.
    pub message: Option<String>,
    /// What AWS support asks for.
    pub request_id: Option<String>,
    /// `x-amz-bucket-region` of the answer.
    pub bucket_region: Option<String>,
    /// `x-amz-delete-marker: true` in the answer.
    pub delete_marker: bool,
}

impl AwsError {
    /// An error that no service answered.
    pub fn new(kind: Kind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            status: None,
            code: None,
            message: Some(message.into()),
            request_id: None,
            bucket_region: None,
            delete_marker: false,
        }
    }

    /// A policy's refusal, by the service's own code. A 403 without one may be a proxy's; a HEAD's
    /// never has one.
    pub fn is_denial(&self) -> bool {
        matches!(self.code.as_deref(), Some("AccessDenied" | "AccessDeniedException"))
    }

    /// The setting that was asked for was never made (S3: `NoSuch…Configuration`).
    pub fn is_unset(&self) -> bool {
        self.status == Some(404)
    }
}

impl AwsError {
    /// Why something could not be looked at: the permission where that is what is missing, else
    /// the error.
    pub fn lack(&self) -> String {
        match (self.kind, &self.code) {
            (Kind::Denied, Some(code)) => format!("needs {}; {code}", self.operation),
            (Kind::Denied, None) => format!("needs {}", self.operation),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        match (&self.code, self.status) {
            (Some(code), Some(status)) => write!(f, "{status} {code}")?,
            (None, Some(status)) => write!(f, "{status}")?,
            (Some(code), None) => f.write_str(code)?,
            (None, None) => f.write_str(match self.kind {
                Kind::Credentials => "no usable credentials",
                Kind::Ambiguous => "no answer",
                _ => "failed",
            })?,
        }
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " (request {id})")?;
        }
        Ok(())
    }
}

impl std::error::Error for AwsError {}

/// Says what an SDK error means.
pub fn classify<E>(operation: &'static str, error: &SdkError<E, Response>) -> AwsError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let response = error.raw_response();
    let header = |name| response.and_then(|r| r.headers().get(name)).map(printable);
    let status = response.map(|r| r.status().as_u16());
    let (kind, code, message) = match error {
        SdkError::ConstructionFailure(_) => {
            let kind = if caused_by_credentials(error) { Kind::Credentials } else { Kind::Other };
            (kind, None, Some(innermost(error)))
        }
        SdkError::TimeoutError(_) => (Kind::Ambiguous, None, Some(unreached(error, "timed out"))),
        SdkError::DispatchFailure(_) if caused_by_credentials(error) => {
            (Kind::Credentials, None, Some(innermost(error)))
        }
        SdkError::DispatchFailure(_) => {
            (Kind::Ambiguous, None, Some(unreached(error, &innermost(error))))
        }
        SdkError::ServiceError(service) => {
            let code = service.err().code().filter(|code| !code.is_empty());
            let message = service.err().message().map(shorten);
            (kind_of(code, status), code.map(printable), message)
        }
        // An answer that could not be read, for instance one cut off in the middle.
        _ => (Kind::Ambiguous, None, Some("the answer could not be read".to_owned())),
    };
    let request_id = match error {
        SdkError::ServiceError(service) => service.err().meta().request_id(),
        _ => None,
    };
    AwsError {
        kind,
        operation,
        status,
        code,
        message,
        request_id: request_id.map(printable),
        bucket_region: header("x-amz-bucket-region"),
        delete_marker: header("x-amz-delete-marker").as_deref() == Some("true"),
    }
}

/// The meaning of a service's code and status (S3 error responses; KMS and STS common errors).
fn kind_of(code: Option<&str>, status: Option<u16>) -> Kind {
    match code {
        Some("NoSuchBucket") => Kind::NoBucket,
        Some("NoSuchKey" | "NoSuchVersion" | "NotFound") => Kind::NotFound,
        Some("AccessDenied" | "AccessDeniedException" | "AllAccessDisabled") => Kind::Denied,
        // GetObject and RestoreObject have the one, CopyObject the other (S3 API Reference).
        Some("InvalidObjectState" | "ObjectNotInActiveTierError") => Kind::Archived,
        Some("PreconditionFailed") => Kind::ConditionFailed,
        Some("ConditionalRequestConflict" | "OperationAborted") => Kind::Conflict,
        Some("KMS.DisabledException" | "DisabledException") => Kind::KeyDisabled,
        Some(
            "KMS.KMSInvalidStateException"
            | "KMSInvalidStateException"
            | "KeyUnavailableException"
            | "KMS.InvalidKeyUsageException"
            | "InvalidKeyUsageException",
        ) => Kind::KeyState,
        Some("KMS.NotFoundException" | "NotFoundException") => Kind::KeyNotFound,
        Some("DryRunOperationException") => Kind::WouldSucceed,
        Some(
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
        ) => Kind::WrongRegion,
        Some(
            "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "InvalidToken"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "UnrecognizedClientException"
            | "MissingAuthenticationTokenException"
            | "MissingAuthenticationToken"
            | "InvalidSecurity"
            | "NotSignedUp",
        ) => Kind::Credentials,
        Some("RequestTimeTooSkewed" | "RequestExpired") => Kind::Clock,
        Some("NotImplemented" | "MethodNotAllowed") => Kind::NotImplemented,
        Some(
            "SlowDown"
            | "ServiceUnavailable"
            | "InternalError"
            | "RequestTimeout"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "KMSInternalException"
            | "DependencyTimeoutException"
            | "InternalFailure"
            | "ServiceUnavailableException"
            | "RequestThrottled"
            | "BandwidthLimitExceeded",
        ) => Kind::Unavailable,
        _ => match status {
            Some(301 | 307 | 308) => Kind::WrongRegion,
            Some(400) => Kind::Invalid,
            // A code that is not known says something else than that a policy refuses.
            Some(401 | 403) if code.is_none() => Kind::Denied,
            Some(404) => Kind::NotFound,
            Some(409) => Kind::Conflict,
            Some(412) => Kind::ConditionFailed,
            Some(405 | 501) => Kind::NotImplemented,
            // Proxies before a service have statuses of their own, and an error can come inside
            // a 200: none of these says that nothing was carried out.
            Some(200..=299 | 408 | 429 | 500..) => Kind::Unavailable,
            _ => Kind::Other,
        },
    }
}

/// Where the request was to go, and why there is no answer.
fn unreached(error: &(dyn std::error::Error + 'static), why: &str) -> String {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    match chain.find_map(|error| error.downcast_ref::<Unreached>()) {
        Some(Unreached { host, .. }) => format!("from {host}: {why}"),
        None => why.to_owned(),
    }
}

fn caused_by_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.is::<CredentialsError>())
}

/// The last cause of a chain: what the connector or the provider itself said.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| error.source()).last();
    last.map(|error| shorten(&error.to_string())).unwrap_or_default()
}

/// The causes below an error, down to the innermost: the outermost only says that there is one.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let all: Vec<String> = chain.map(ToString::to_string).collect();
    let causes = if all.len() > 1 { &all[1..] } else { &all[..] };
    shorten(&causes.join(": "))
}

/// AWS messages carry ARNs and policies' names: longer than other values, but one line.
fn shorten(message: &str) -> String {
    let line: String =
        message.chars().take(600).map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_before_statuses() {
        for (code, status, kind) in [
            (Some("NoSuchBucket"), 404, Kind::NoBucket),
            (Some("AccessDenied"), 403, Kind::Denied),
            (None, 403, Kind::Denied),
            (Some("SomethingNew"), 403, Kind::Other),
            (Some("InvalidObjectState"), 403, Kind::Archived),
            (Some("ObjectNotInActiveTierError"), 403, Kind::Archived),
            (Some("KMS.DisabledException"), 400, Kind::KeyDisabled),
            (Some("KMS.KMSInvalidStateException"), 400, Kind::KeyState),
            (Some("KMS.NotFoundException"), 400, Kind::KeyNotFound),
            (Some("DryRunOperationException"), 400, Kind::WouldSucceed),
            (Some("InvalidRequest"), 400, Kind::Invalid),
            (Some("ExpiredToken"), 400, Kind::Credentials),
            (Some("RequestTimeTooSkewed"), 403, Kind::Clock),
            (Some("SignatureDoesNotMatch"), 403, Kind::Credentials),
            (Some("PreconditionFailed"), 412, Kind::ConditionFailed),
            (Some("ConditionalRequestConflict"), 409, Kind::Conflict),
            (Some("NotImplemented"), 501, Kind::NotImplemented),
            (Some("SlowDown"), 503, Kind::Unavailable),
            (Some("PermanentRedirect"), 301, Kind::WrongRegion),
            (None, 404, Kind::NotFound),
            (None, 400, Kind::Invalid),
            (Some("SomethingNew"), 418, Kind::Other),
            (Some("SomethingNew"), 200, Kind::Unavailable),
            (None, 408, Kind::Unavailable),
            (None, 501, Kind::NotImplemented),
            (None, 507, Kind::Unavailable),
            (None, 520, Kind::Unavailable),
        ] {
            assert_eq!(kind_of(code, Some(status)), kind, "{code:?} {status}");
        }
    }

    #[test]
    fn only_what_may_have_happened_is_ambiguous() {
        assert!(Kind::Ambiguous.is_ambiguous() && Kind::Unavailable.is_ambiguous());
        assert!(!Kind::Denied.is_ambiguous() && !Kind::ConditionFailed.is_ambiguous());
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(shorten("a\n::error::b\r"), "a ::error::b");
    }
}
