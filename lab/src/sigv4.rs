//! Verifies AWS Signature Version 4 on requests to KMS and STS (for S3, `s3s` does it).
//!
//! After "Create a signed AWS API request" of the IAM User Guide.

use hmac::{Hmac, KeyInit, Mac};
use hyper::http::request::Parts;
use sha2::{Digest, Sha256};

use crate::world::hex;

/// What the Authorization header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub access_key: String,
    pub region: String,
    scope: String,
    signed: Vec<String>,
    signature: String,
    date: String,
}

impl Claim {
    /// Reads the header; `None` for an unsigned request.
    pub(crate) fn of(parts: &Parts) -> Option<Self> {
        let text = |name: &str| parts.headers.get(name)?.to_str().ok();
        let rest = text("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let field = |name: &str| {
            rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let (access_key, scope) = field("Credential")?.split_once('/')?;
        let region = scope.split('/').nth(1)?;
        Some(Self {
            access_key: access_key.to_owned(),
            region: region.to_owned(),
            scope: scope.to_owned(),
            signed: field("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: field("Signature")?.to_owned(),
            date: text("x-amz-date")?.to_owned(),
        })
    }

    /// Whether the secret made this signature over this request.
    pub(crate) fn is_made_by(&self, secret: &str, parts: &Parts, body: &[u8]) -> bool {
        let mut headers = String::new();
        for name in &self.signed {
            let values: Vec<&str> = parts
                .headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .map(str::trim)
                .collect();
            headers.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        let canonical = format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            parts.method,
            parts.uri.path(),
            parts.uri.query().unwrap_or_default(),
            self.signed.join(";"),
            hex(&Sha256::digest(body)),
        );
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            self.date,
            self.scope,
            hex(&Sha256::digest(canonical.as_bytes())),
        );
        let key = self
            .scope
            .split('/')
            .fold(format!("AWS4{secret}").into_bytes(), |key, part| hmac(&key, part.as_bytes()));
        hex(&hmac(&key, to_sign.as_bytes())) == self.signature
    }
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}
