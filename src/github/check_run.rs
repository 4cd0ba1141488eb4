//! The run's verdict as a check run (`check-run: true`; needs `checks: write`).
//!
//! GitHub puts it into a check suite of its own choice, often under another workflow's
//! name, so it has a name of its own and the job summary stays the main report.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::{Api, ApiError};
use super::runs::entries;
use crate::inputs::{Environment, Request};
use crate::names::percent_encoded;
use crate::report::{Action, FileAction, Report, Verdict, headline};

/// GitHub's limit for a check run's summary (characters).
const SUMMARY_LIMIT: usize = 65_535;
/// GitHub's limit of annotations in one request.
const ANNOTATIONS: usize = 50;
/// How long GitHub may take; the run goes on without it.
const PATIENCE: Duration = Duration::from_secs(15);

/// A check run that was begun.
#[derive(Debug)]
pub struct CheckRun {
    api: Api,
    id: u64,
}

impl CheckRun {
    /// Begins it.
    ///
    /// # Errors
    /// Why there is none, and what to grant.
    pub async fn begin(environment: &Environment, request: &Request) -> Result<Self, String> {
        let api = Api::of(environment, request.github_token.as_ref())?;
        let sha = head_sha(environment).ok_or("GITHUB_SHA is not set")?;
        let number = |name| environment.get(name).unwrap_or_default();
        let mut body = json!({
            "name": format!("tfstate-kms: {} {}", request.environment, request.mode.as_str()),
            "head_sha": sha,
            "status": "queued",
            "external_id": format!("{}-{}", number("GITHUB_RUN_ID"), number("GITHUB_RUN_ATTEMPT")),
        });
        if let Some(url) = run_url(environment) {
            body["details_url"] = url.into();
        }
        let call = tokio::time::timeout(PATIENCE, api.post("check-runs", &body));
        let why = match call.await {
            Ok(Ok(answer)) => {
                let id = answer["id"].as_u64().ok_or("GitHub's answer holds no id")?;
                return Ok(Self { api, id });
            }
            Ok(Err(error @ ApiError::Unavailable(_))) => error.to_string(),
            Ok(Err(error)) => return Err(explained(&error)),
            Err(_) => "GitHub did not answer in time".to_owned(),
        };
        // It may be there all the same, and would stay open for good.
        let look = tokio::time::timeout(PATIENCE, Self::find(&api, &sha, &body));
        match look.await.ok().flatten() {
            Some(id) => Ok(Self { api, id }),
            None => Err(why),
        }
    }

    /// The check run that was to be made so.
    async fn find(api: &Api, sha: &str, body: &Value) -> Option<u64> {
        let name = percent_encoded(body["name"].as_str()?, "");
        let path = format!("commits/{sha}/check-runs?check_name={name}&per_page=100");
        let runs = entries(api.get(&path).await.ok()?, "check_runs").ok()?;
        // A completed one is of another step.
        let own = |run: &&Value| {
            run["external_id"] == body["external_id"] && run["status"] != "completed"
        };
        runs.iter().find(own)?["id"].as_u64()
    }

    /// Ends it with the run's verdict.
    ///
    /// # Errors
    /// Why it stays open.
    pub async fn complete(&self, report: &Report, report_path: &str) -> Result<(), String> {
        let path = format!("check-runs/{}", self.id);
        let summary = crate::report::markdown(report, report_path, SUMMARY_LIMIT);
        let annotations = annotations(report);
        let mut parts: Vec<&[Value]> = annotations.chunks(ANNOTATIONS).collect();
        let last = parts.pop().unwrap_or_default();
        let title = headline(report);
        let output = |annotations: &[Value]| json!({ "title": title, "summary": summary, "annotations": annotations });
        let send = async {
            for part in parts {
                self.api.patch(&path, &json!({ "output": output(part) })).await?;
            }
            let body = json!({
                "status": "completed", "conclusion": conclusion(report), "output": output(last),
            });
            self.api.patch(&path, &body).await
        };
        let sent = tokio::time::timeout(PATIENCE, send).await;
        sent.map_err(|_| "GitHub did not answer in time".to_owned())?
            .map(|_| ())
            .map_err(|error| explained(&error))
    }
}

fn explained(error: &ApiError) -> String {
    match error {
        ApiError::Forbidden(why) | ApiError::NotFound(why) => {
            format!("the job needs `permissions: checks: write` ({why})")
        }
        other => other.to_string(),
    }
}

/// The commit that the checks of this run belong to. For a pull request GITHUB_SHA is a
/// merge commit that nobody looks at; the event has the head's.
fn head_sha(environment: &Environment) -> Option<String> {
    let event = environment.get("GITHUB_EVENT_PATH").and_then(|path| std::fs::read(path).ok());
    let event: Option<Value> = event.and_then(|text| serde_json::from_slice(&text).ok());
    let of_pull_request =
        event.and_then(|event| event["pull_request"]["head"]["sha"].as_str().map(str::to_owned));
    of_pull_request
        .or_else(|| environment.get("GITHUB_SHA").map(str::to_owned))
        .filter(|sha| !sha.is_empty() && sha.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The page of this workflow run.
pub fn run_url(environment: &Environment) -> Option<String> {
    let [server, repository, run] =
        ["GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"].map(|n| environment.get(n));
    Some(format!("{}/{}/actions/runs/{}", server?, repository?, run?))
}

/// `neutral` for a run that found nothing wrong, and nothing to verify either.
fn conclusion(report: &Report) -> &'static str {
    use crate::check::FailureReason::Cancelled;
    match report.failures.first() {
        Some(first) if first.reason == Cancelled => "cancelled",
        Some(_) => "failure",
        None if matches!(report.verdict, Some(Verdict::Partly | Verdict::Unprotected)) => "neutral",
        None if report.verified || report.changed => "success",
        None if report.backend_files.iter().any(|file| file.action == FileAction::Unchanged) => {
            "success"
        }
        None => "neutral",
    }
}

/// What is to be said beside a backend file: in what it differs, and what is wrong with the
/// state that it names.
fn annotations(report: &Report) -> Vec<Value> {
    let mut all = Vec::new();
    for file in &report.backend_files {
        let mut say = |level: &str, title: &str, message: &str| {
            all.push(json!({
                "path": file.path, "start_line": 1, "end_line": 1,
                "annotation_level": level, "title": title, "message": message,
            }));
        };
        if !file.differences.is_empty() {
            let level = if file.action == FileAction::Kept { "failure" } else { "notice" };
            let title = match file.action {
                FileAction::Written => "Overwritten: it said otherwise",
                FileAction::Edited => "Edited: it said otherwise",
                FileAction::WouldWrite => "apply would replace it",
                FileAction::WouldEdit => "apply would edit its backend block",
                _ => "Means something else",
            };
            say(level, title, &file.differences.join("; "));
        }
        let rows = report.objects.iter().filter(|row| row.module.as_ref() == Some(&file.module));
        for row in rows {
            match (&row.detail, row.action) {
                (Some(detail), _) => say("failure", "The state that it names", detail),
                (None, Action::WouldRekey) => {
                    say(
                        "warning",
                        "The state that it names",
                        "it is not under the wanted encryption",
                    );
                }
                _ => {}
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_request_is_checked_at_its_head() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let merge = "1".repeat(40);
        let head = "2".repeat(40);
        let path = file.path().display().to_string();
        let environment = Environment::from([
            ("GITHUB_SHA", merge.as_str()),
            ("GITHUB_EVENT_PATH", path.as_str()),
        ]);
        assert_eq!(head_sha(&environment), Some(merge));
        let event = json!({ "pull_request": { "head": { "sha": head } } });
        std::fs::write(file.path(), event.to_string()).unwrap();
        assert_eq!(head_sha(&environment), Some(head));
        assert_eq!(head_sha(&Environment::from([("GITHUB_SHA", "x/../y")])), None);
    }
}
