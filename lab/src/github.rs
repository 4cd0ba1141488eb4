//! GitHub's OIDC token endpoint, as a job with `id-token: write` finds it.
//!
//! After "OpenID Connect reference" of the GitHub Actions documentation.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::http::HeaderMap;
use serde_json::{Value, json};

use crate::query::percent_decoded;
use crate::world::{Failure, World, now};

/// Where the endpoint is. No bucket's name has an underscore, so S3 does not miss it.
pub(crate) const PATH: &str = "/_github/oidc/token";
/// What a job authenticates to the endpoint with.
pub(crate) const REQUEST_TOKEN: &str = "lab-oidc-request-token";
/// The issuer as IAM names it: in the provider's ARN, and before the condition keys.
pub(crate) const PROVIDER: &str = "token.actions.githubusercontent.com";
/// The job that the tokens speak of.
pub(crate) const SUBJECT: &str = "repo:example/infrastructure:ref:refs/heads/main";

/// What a token says.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    pub subject: String,
    pub audience: String,
}

/// The token of `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("authorization")?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Issues a token.
pub(crate) fn token(world: &mut World, headers: &HeaderMap, query: &str) -> Result<Value, Failure> {
    if bearer(headers) != Some(REQUEST_TOKEN) {
        return Err(Failure::new("Unauthorized", 401, "Bad credentials"));
    }
    let parameters: BTreeMap<&str, &str> =
        query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    if !parameters.contains_key("api-version") {
        return Err(Failure::new("BadRequest", 400, "No api-version was given"));
    }
    // GitHub: without a word, the audience is the URL of the repository's owner.
    let audience = parameters
        .get("audience")
        .map_or_else(|| "https://github.com/example".to_owned(), |text| percent_decoded(text));
    let (at, time) = (world.tick(), now());
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let value = format!(
        "{}.{}.",
        part(json!({ "typ": "JWT", "alg": "none" })),
        part(json!({
            "iss": format!("https://{PROVIDER}"), "sub": SUBJECT, "aud": audience,
            "jti": format!("lab-{at}"), "iat": time, "nbf": time, "exp": time + 300,
        })),
    );
    let claims = Claims { subject: SUBJECT.to_owned(), audience };
    world.web_tokens.insert(value.clone(), claims);
    Ok(json!({ "count": value.len(), "value": value }))
}
