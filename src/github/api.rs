//! GitHub's REST API: the client, and what its errors mean.
//!
//! Answers are read as JSON values, field by field: GitHub Enterprise Server of any age
//! answers with more or fewer fields than a client's models know.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use octocrab::Octocrab;
use serde_json::Value;

use crate::inputs::{self, Environment, Secret};
use crate::names::printable;
use crate::net;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Pauses between the attempts of a request that may be repeated.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];

/// A client for the workflow's repository.
#[derive(Debug, Clone)]
pub struct Api {
    client: Octocrab,
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
    RateLimited(u64),
    /// A server's error, no answer, or half of one: it may be there again soon.
    Unavailable(String),
    /// Anything else.
    Other(String),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forbidden(why)
            | Self::NotFound(why)
            | Self::Unavailable(why)
            | Self::Other(why) => f.write_str(why),
            Self::RateLimited(until) => {
                let until = i64::try_from(*until).map(DateTime::from_secs).ok();
                let until = until.and_then(|until| until.fmt(Format::DateTime).ok());
                write!(
                    f,
                    "GitHub's rate limit is used up until {}",
                    until.as_deref().unwrap_or("an unknown time")
                )
            }
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
        // Retries are made below, and not on writes.
        let read = READ_TIMEOUT.min(inputs::attempt_timeout(environment));
        let client = net::github_client(environment, base, token, (CONNECT_TIMEOUT, read))
            .map_err(|why| format!("no client could be made for GITHUB_API_URL: {why}"))?;
        Ok(Self { client, repository: format!("/repos/{repository}") })
    }

    /// GET of a path below the repository; where GitHub is unavailable, again after a pause.
    ///
    /// # Errors
    /// As classified.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        let route = format!("{}/{path}", self.repository);
        repeated(async || self.client.get(route.as_str(), None::<&()>).await).await
    }

    /// POST to a path below the repository. It is not tried again: an answer that is lost does
    /// not say that nothing was written.
    ///
    /// # Errors
    /// As classified.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let route = format!("{}/{path}", self.repository);
        self.client.post(route, Some(body)).await.map_err(|error| classify(&error))
    }

    /// PATCH of a path below the repository; where GitHub is unavailable, again after a pause:
    /// it says how a thing is to be, and so again says the same. (Annotations add up. Better
    /// twice the same than a check run that stays open, which a branch may wait for.)
    ///
    /// # Errors
    /// As classified.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let route = format!("{}/{path}", self.repository);
        let send = async || {
            let answer = self.client._patch(route.as_str(), Some(body)).await?;
            // Some answer 204, with no body.
            let answer = octocrab::map_github_error(answer).await?;
            self.client.body_to_string(answer).await
        };
        Ok(serde_json::from_str(&repeated(send).await?).unwrap_or_default())
    }
}

/// Sends a request, and again after a pause where GitHub is unavailable.
async fn repeated<T>(send: impl AsyncFn() -> octocrab::Result<T>) -> Result<T, ApiError> {
    for pause in PAUSES {
        match send().await.map_err(|error| classify(&error)) {
            Err(ApiError::Unavailable(_)) => tokio::time::sleep(pause).await,
            answer => return answer,
        }
    }
    send().await.map_err(|error| classify(&error))
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
/// tell, and for a secondary limit at times the message alone (docs.github.com, «Rate limits
/// for the REST API»).
fn classify(error: &octocrab::Error) -> ApiError {
    let octocrab::Error::GitHub { source, .. } = error else {
        // The client's own errors could quote a header; that of the connection does not.
        let mut chain =
            std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| {
                error.source()
            });
        let unanswered = chain.find_map(|error| error.downcast_ref::<net::Unanswered>());
        let why = unanswered.map(|why| format!(": {}", printable(&why.to_string())));
        return ApiError::Unavailable(format!(
            "GitHub gave no usable answer{}",
            why.unwrap_or_default()
        ));
    };
    let header = |name: &str| {
        let value = source.headers.as_ref()?.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    meaning(source.status_code.as_u16(), &source.message, SystemTime::now(), header)
}

/// What an error's status, message and headers mean.
pub fn meaning(
    status: u16,
    message: &str,
    now: SystemTime,
    header: impl Fn(&str) -> Option<String>,
) -> ApiError {
    let number = |name| header(name).and_then(|text| text.trim().parse::<u64>().ok());
    let used_up = number("x-ratelimit-remaining") == Some(0);
    let lower = message.to_ascii_lowercase();
    let limited = header("retry-after").is_some()
        || used_up
        || ["rate limit", "abuse detection"].iter().any(|text| lower.contains(text));
    let why = format!("{status}: {}", printable(message));
    match status {
        403 | 429 if limited || status == 429 => {
            let since_1970 = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let after = number("retry-after").map(|wait| since_1970.saturating_add(wait));
            let reset = number("x-ratelimit-reset").filter(|_| used_up);
            // «Otherwise, wait for at least one minute before retrying.»
            ApiError::RateLimited(after.or(reset).unwrap_or(since_1970.saturating_add(60)))
        }
        401 | 403 => ApiError::Forbidden(why),
        404 => ApiError::NotFound(why),
        500.. => ApiError::Unavailable(why),
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

    #[test]
    fn a_used_up_limit_is_told_from_a_missing_permission() {
        let of = |status, message: &str, headers: &[(&str, &str)]| {
            let now = UNIX_EPOCH + Duration::from_secs(1000);
            meaning(status, message, now, |name| {
                let found = headers.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let reset = ("x-ratelimit-reset", "5000");
        let used_up = ("x-ratelimit-remaining", "0");
        let left = ("x-ratelimit-remaining", "17");
        assert_eq!(of(403, "m", &[used_up, reset]), ApiError::RateLimited(5000));
        assert_eq!(of(429, "m", &[("retry-after", "60")]), ApiError::RateLimited(1060));
        assert_eq!(of(429, "m", &[]), ApiError::RateLimited(1060));
        // A secondary limit: there are requests left, and the message alone says it.
        let secondary = "You have exceeded a secondary rate limit.";
        assert_eq!(of(403, secondary, &[left, reset]), ApiError::RateLimited(1060));
        let older = "You have triggered an abuse detection mechanism.";
        assert_eq!(of(403, older, &[left]), ApiError::RateLimited(1060));
        let integration = "Resource not accessible by integration";
        assert!(matches!(of(403, integration, &[left, reset]), ApiError::Forbidden(_)));
        assert!(matches!(of(404, "m", &[]), ApiError::NotFound(_)));
        assert!(matches!(of(502, "m", &[]), ApiError::Unavailable(_)));
        assert!(matches!(of(422, "rate limit", &[]), ApiError::Other(_)));
        let until = ApiError::RateLimited(5000).to_string();
        assert!(until.ends_with("until 1970-01-01T01:23:20Z"), "{until}");
    }
}
