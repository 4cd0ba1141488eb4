//! The runner's OIDC token, by which the deploy role can be assumed again.

use std::time::Duration;

use crate::inputs::{self, Environment, Secret};
use crate::names::printable;
use crate::net;

/// What STS takes as the token's audience.
const AUDIENCE: &str = "sts.amazonaws.com";
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks the runner for a token (`permissions: id-token: write` gives the two variables).
///
/// # Errors
/// Why there is none; never with the request's own token in it.
pub async fn oidc_token(environment: &Environment) -> Result<String, String> {
    let variable = |name| environment.get(name).ok_or(format!("{name} is not set"));
    let url = variable("ACTIONS_ID_TOKEN_REQUEST_URL")?;
    let bearer = variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?;
    let separator = if url.contains('?') { '&' } else { '?' };
    let failed = |what: &str| format!("the runner gave no OIDC token: {what}");
    let timeout = TIMEOUT.min(inputs::attempt_timeout(environment));
    // The client sends its token to its base address only.
    let (scheme, rest) = url.split_once("://").ok_or_else(|| failed("no address"))?;
    let (host, path) = rest.split_once('/').ok_or_else(|| failed("no address"))?;
    let uri = format!("/{path}{separator}audience={AUDIENCE}");
    let base = format!("{scheme}://{host}");
    let bearer = Secret::from(bearer);
    let client = net::github_client(environment, &base, &bearer, (timeout, timeout))
        .map_err(|why| failed(&why))?;
    // The errors could quote the address with its query; the host is enough.
    let host = printable(host.rsplit('@').next().unwrap_or_default());
    let response = client._get(uri).await.map_err(|_| failed(&format!("no answer from {host}")))?;
    if !response.status().is_success() {
        return Err(failed(&format!("status {}", response.status().as_u16())));
    }
    let body = client.body_to_string(response).await.map_err(|_| failed("no body"))?;
    let value: serde_json::Value = serde_json::from_str(&body).map_err(|_| failed("not JSON"))?;
    let token = value["value"].as_str().filter(|token| !token.is_empty());
    token.map(str::to_owned).ok_or_else(|| failed("the answer holds none"))
}
