//! What to do about an AWS error that no grant would have avoided. Pure.

use crate::aws::{AwsError, Kind};

const UNREACHED: &str = "Check that the runner reaches that host: DNS, proxy (HTTPS_PROXY, NO_PROXY), VPC endpoint, firewall";

/// The fix for what the error is about; `None`: nothing is known beyond its kind.
pub fn fix(error: &AwsError) -> Option<&'static str> {
    let code = error.code.as_deref().unwrap_or_default();
    let message = error.message.as_deref().unwrap_or_default();
    Some(match (error.kind, code) {
        (Kind::NoBucket, _) => {
            "Check `bucket`: there is no bucket of that name. Names are unique across all accounts of a partition, so \
             neither the account nor the region can be the cause"
        }
        (_, "ExpiredToken" | "ExpiredTokenException") => {
            "The credentials have expired. Get new ones right before this step, or longer ones \
             (`role-duration-seconds` of aws-actions/configure-aws-credentials), and re-run"
        }
        (_, "SignatureDoesNotMatch" | "InvalidSignatureException") => {
            "The secret access key does not fit the access key id: copy it again, without blanks or line ends. A proxy \
             that changes requests has the same effect"
        }
        (
            _,
            "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "InvalidToken",
        ) => {
            "AWS does not know these credentials: the access key was deleted or deactivated, or temporary credentials \
             come without their AWS_SESSION_TOKEN"
        }
        // The provider's own words. A container is one hop more than the default limit of 1, so the
        // answer never comes (EC2 User Guide, "Configure the Instance Metadata Service options").
        (Kind::Credentials, _)
            if ["communicate with IMDS", "IMDS session token"]
                .iter()
                .any(|words| message.contains(words)) =>
        {
            "No credentials were passed, so the instance's were asked for. Pass credentials by `env:` or \
             aws-actions/configure-aws-credentials; to use the instance role from a container, its metadata hop limit \
             must be at least 2 (aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2)"
        }
        (Kind::Credentials, _) if message.contains("no answer from ") => UNREACHED,
        (Kind::Credentials, _) => {
            "Run aws-actions/configure-aws-credentials before this step, or pass AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY by `env:`. Mode `backend` needs no credentials"
        }
        (Kind::Clock, _) => "Set the clock of this machine",
        (Kind::Ambiguous, "") if error.status.is_none() => UNREACHED,
        (kind, _) if kind.is_ambiguous() => "Re-run when AWS answers",
        (Kind::WrongRegion, _) => "Give the bucket's own region as `region`, or leave it out",
        _ => return None,
    })
}
