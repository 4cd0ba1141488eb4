//! GitHub's REST API: the client, and what its errors mean.
//!
//! Answers are read as JSON values, field by field: GitHub Enterprise Server of any age
//! answers with more or fewer fields than a client's models know.

use std::time::Duration;

use octocrab::Octocrab;
use octocrab::service::middleware::retry::RetryConfig;
use serde_json::Value;

use crate::inputs::{Environment, Secret};
use crate::names::printable;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Further attempts of a request that only reads.
const RETRIES: usize = 3;

/// A client for the workflow's repository.
#[derive(Debug, Clone)]
pub struct Api {
    reads: Octocrab,
    writes: Octocrab,
    /// `/repos/OWNER/NAME`
    repository: String,
}

/// Why GitHub did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// The token lacks a permission (403, or 404 where GitHub hides what exists).
    Forbidden(String),
    /// There is no such thing, or the token may not know of it.
    NotFound(String),
    /// Too many requests; seconds since the epoch at which there may be more.
    RateLimited(Option<u64>),
    /// Anything else.
    Other(String),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forbidden(why) | Self::NotFound(why) | Self::Other(why) => f.write_str(why),
            Self::RateLimited(Some(until)) => {
                write!(f, "GitHub's rate limit is used up until {until} (seconds since 1970)")
            }
            Self::RateLimited(None) => f.write_str("GitHub's rate limit is used up"),
        }
    }
}

impl Api {
    /// A client that uses this token against `GITHUB_API_URL` (github.com's where it is not
    /// set).
    ///
    /// # Errors
    /// What is missing.
    pub fn of(environment: &Environment, token: Option<&Secret>) -> Result<Self, String> {
        let token = token.ok_or("there is no `github-token`")?;
        let repository = environment
            .get("GITHUB_REPOSITORY")
            .filter(|name| is_repository(name))
            .ok_or("GITHUB_REPOSITORY names no repository")?;
        let base = environment.get("GITHUB_API_URL").unwrap_or("https://api.github.com");
        let client = |retry| {
            Octocrab::builder()
                .base_uri(base.trim_end_matches('/'))
                .map_err(|_| "GITHUB_API_URL is no address".to_owned())?
                .personal_token(token.reveal().to_owned())
                .set_connect_timeout(Some(CONNECT_TIMEOUT))
                .set_read_timeout(Some(READ_TIMEOUT))
                .add_retry_config(retry)
                .build()
                .map_err(|_| "no client could be made".to_owned())
        };
        Ok(Self {
            reads: client(RetryConfig::Simple(RETRIES))?,
            // An answer that is lost does not say that nothing was written.
            writes: client(RetryConfig::None)?,
            repository: format!("/repos/{repository}"),
        })
    }

    /// GET of a path below the repository.
    ///
    /// # Errors
    /// As classified.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        let route = format!("{}/{path}", self.repository);
        self.reads.get(route, None::<&()>).await.map_err(|error| classify(&error))
    }

    /// POST to a path below the repository.
    ///
    /// # Errors
    /// As classified.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let route = format!("{}/{path}", self.repository);
        self.writes.post(route, Some(body)).await.map_err(|error| classify(&error))
    }

    /// PATCH of a path below the repository.
    ///
    /// # Errors
    /// As classified.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let route = format!("{}/{path}", self.repository);
        let send = async {
            let answer = self.writes._patch(route, Some(body)).await?;
            // Some answer 204, with no body.
            let answer = octocrab::map_github_error(answer).await?;
            self.writes.body_to_string(answer).await
        };
        let text = send.await.map_err(|error| classify(&error))?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

fn is_repository(name: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && part.bytes().any(|b| b != b'.')
    };
    name.split_once('/').is_some_and(|(owner, name)| good(owner) && good(name))
}

/// GitHub answers 403 for a missing permission and for a used-up rate limit; the headers
/// tell (docs.github.com, «Rate limits for the REST API»).
fn classify(error: &octocrab::Error) -> ApiError {
    let octocrab::Error::GitHub { source, .. } = error else {
        // The client's own errors could quote a header.
        return ApiError::Other("GitHub gave no usable answer".to_owned());
    };
    let status = source.status_code.as_u16();
    let header = |name: &str| {
        let value = source.headers.as_ref()?.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let limited = header("retry-after").is_some()
        || header("x-ratelimit-remaining").as_deref() == Some("0")
        || status == 429;
    let why = format!("{status}: {}", printable(&source.message));
    match status {
        403 | 429 if limited => {
            ApiError::RateLimited(header("x-ratelimit-reset").and_then(|text| text.parse().ok()))
        }
        401 | 403 => ApiError::Forbidden(why),
        404 => ApiError::NotFound(why),
        _ => ApiError::Other(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_repositories_become_paths() {
        assert!(is_repository("cabalmail/cabal-infra"));
        for name in ["", "a", "a/", "/b", "a/b/c", "a/..", "a/b?x", "a b/c", "a/b#"] {
            assert!(!is_repository(name), "{name}");
        }
    }

    #[test]
    fn without_a_token_there_is_no_client() {
        let environment = Environment::from([("GITHUB_REPOSITORY", "a/b")]);
        assert!(Api::of(&environment, None).unwrap_err().contains("github-token"));
    }
}
