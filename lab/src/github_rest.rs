//! GitHub's REST API, as far as the action calls it: check runs, workflow runs, and the
//! variables of environments.
//!
//! After "REST API endpoints for check runs", "… for workflow runs" and "… for GitHub
//! Actions variables" of the GitHub documentation.

use std::collections::{BTreeMap, BTreeSet};

use hyper::http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::github::bearer;
use crate::query::percent_decoded;

/// Where the API is. No bucket's name has an underscore, so S3 does not miss it.
pub(crate) const PATH: &str = "/_github/api";
/// GitHub's limits for one request.
const ANNOTATIONS: usize = 50;
const TEXT: usize = 65_535;

/// A repository, and what a job's token may do there.
#[derive(Debug, Clone)]
pub struct GitHub {
    /// `owner/name`
    pub repository: String,
    /// The job's token.
    pub token: String,
    /// Its permissions, such as `checks:write` or `actions:read`. `environments:write` is no
    /// permission that a job's token can have; a fine-grained token can.
    pub permissions: BTreeSet<String>,
    /// The rate limit is used up.
    pub rate_limited: bool,
    /// The workflow files.
    pub workflows: Vec<String>,
    /// The runs, in the order in which they were made.
    pub runs: Vec<WorkflowRun>,
    /// The check runs, as they stand; annotations of all requests together.
    pub check_runs: Vec<Value>,
    /// The variables of each environment.
    pub variables: BTreeMap<String, BTreeMap<String, String>>,
}

/// A run of a workflow.
#[derive(Debug, Clone)]
pub struct WorkflowRun {
    /// Its id.
    pub id: u64,
    /// The file, such as `infra.yml`.
    pub workflow: String,
    /// `queued`, `in_progress`, `waiting` (for an approval), `pending`, `requested`, `completed`.
    pub status: String,
    /// The branch.
    pub branch: String,
    /// RFC 3339.
    pub created_at: String,
    /// When it was run again, if it was.
    pub again_at: Option<String>,
    /// Its jobs, as far as they exist yet.
    pub jobs: Vec<WorkflowJob>,
}

/// A job of a run.
#[derive(Debug, Clone)]
pub struct WorkflowJob {
    /// `queued`, `in_progress`, `waiting`, `pending`, `completed`, or `skipped` (which GitHub
    /// shows as completed).
    pub status: String,
    /// RFC 3339.
    pub started_at: String,
    /// Its runner.
    pub runner: String,
    /// The name of the step that is under way.
    pub step: Option<String>,
}

impl Default for GitHub {
    fn default() -> Self {
        Self {
            repository: "example/infrastructure".to_owned(),
            token: "lab-github-token".to_owned(),
            permissions: ["checks:write", "actions:read"].map(str::to_owned).into(),
            rate_limited: false,
            workflows: Vec::new(),
            runs: Vec::new(),
            check_runs: Vec::new(),
            variables: BTreeMap::new(),
        }
    }
}

/// An error: status and message.
type Refusal = (u16, String);

fn refuse<T>(status: u16, message: &str) -> Result<T, Refusal> {
    Err((status, message.to_owned()))
}

/// What a request is called in the log.
pub(crate) fn operation(method: &Method, path: &str) -> &'static str {
    let parts: Vec<&str> = path.split('/').collect();
    // "", "_github", "api", "repos", owner, name, …
    match (method.as_str(), parts.get(6..).unwrap_or_default()) {
        ("POST", ["check-runs"]) => "CreateCheckRun",
        ("PATCH", ["check-runs", _]) => "UpdateCheckRun",
        ("GET", ["commits", _, "check-runs"]) => "ListCheckRuns",
        ("GET", ["actions", "workflows"]) => "ListWorkflows",
        ("GET", ["actions", "workflows", _, "runs"]) => "ListWorkflowRuns",
        ("GET", ["actions", "runs"]) => "ListRepositoryRuns",
        ("GET", ["actions", "runs", _]) => "GetWorkflowRun",
        ("GET", ["actions", "runs", _, "jobs"]) => "ListWorkflowJobs",
        ("GET", ["environments", _, "variables", _]) => "GetEnvironmentVariable",
        ("POST", ["environments", _, "variables"]) => "CreateEnvironmentVariable",
        ("PATCH", ["environments", _, "variables", _]) => "UpdateEnvironmentVariable",
        _ => "Other",
    }
}

/// Answers a request: status and body.
pub(crate) fn call(
    github: &mut GitHub,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> (u16, Value) {
    let input = serde_json::from_slice(body).unwrap_or(Value::Null);
    match github.answer(method, path, query, headers, &input) {
        Ok(answer) => answer,
        Err((status, message)) => (
            status,
            json!({ "message": message, "documentation_url": "https://docs.github.com/rest" }),
        ),
    }
}

impl GitHub {
    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        input: &Value,
    ) -> Result<(u16, Value), Refusal> {
        if bearer(headers) != Some(&self.token) {
            return refuse(401, "Bad credentials");
        }
        if self.rate_limited {
            return refuse(403, "API rate limit exceeded for installation ID 1.");
        }
        let own = format!("{PATH}/repos/{}/", self.repository);
        let Some(rest) = path.strip_prefix(&own) else { return refuse(404, "Not Found") };
        let parts: Vec<String> = rest.split('/').map(percent_decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (method.as_str(), &parts[..]) {
            ("POST", ["check-runs"]) => self.create_check_run(input),
            ("PATCH", ["check-runs", id]) => self.update_check_run(id, input),
            ("GET", ["commits", sha, "check-runs"]) => self.check_runs_of(sha, query),
            ("GET", ["actions", rest @ ..]) => self.actions(rest, query),
            (_, ["environments", environment, "variables", rest @ ..]) => {
                self.variable(method.as_str(), environment, rest, input)
            }
            _ => refuse(404, "Not Found"),
        }
    }

    fn may(&self, permission: &str) -> Result<(), Refusal> {
        if self.permissions.contains(permission) {
            return Ok(());
        }
        refuse(403, "Resource not accessible by integration")
    }

    fn create_check_run(&mut self, input: &Value) -> Result<(u16, Value), Refusal> {
        self.may("checks:write")?;
        for needed in ["name", "head_sha"] {
            if input[needed].as_str().is_none_or(str::is_empty) {
                return refuse(422, &format!("Invalid request.\n\n\"{needed}\" wasn't supplied."));
            }
        }
        check_output(input)?;
        let id = self.check_runs.len() as u64 + 1;
        let mut run = input.clone();
        run["id"] = id.into();
        run["html_url"] = format!("https://github.com/{}/runs/{id}", self.repository).into();
        self.check_runs.push(run.clone());
        Ok((201, run))
    }

    fn check_runs_of(&self, sha: &str, query: &str) -> Result<(u16, Value), Refusal> {
        self.may("checks:write")?;
        let name = parameter(query, "check_name");
        let runs = self.check_runs.iter().filter(|run| {
            run["head_sha"] == sha && name.as_ref().is_none_or(|name| run["name"] == **name)
        });
        let runs: Vec<&Value> = runs.collect();
        Ok((200, json!({ "total_count": runs.len(), "check_runs": runs })))
    }

    fn update_check_run(&mut self, id: &str, input: &Value) -> Result<(u16, Value), Refusal> {
        self.may("checks:write")?;
        check_output(input)?;
        let found = self.check_runs.iter_mut().find(|run| run["id"].as_u64() == id.parse().ok());
        let Some(run) = found else { return refuse(404, "Not Found") };
        // GitHub: each update adds its annotations to those that are there.
        let mut annotations = run["output"]["annotations"].as_array().cloned().unwrap_or_default();
        annotations.extend(input["output"]["annotations"].as_array().cloned().unwrap_or_default());
        for (name, value) in input.as_object().into_iter().flatten() {
            run[name] = value.clone();
        }
        if run["output"].is_object() {
            run["output"]["annotations"] = annotations.into();
        }
        // GitHub: a conclusion completes it.
        if input["conclusion"].is_string() {
            run["status"] = "completed".into();
        }
        Ok((200, run.clone()))
    }

    fn actions(&self, parts: &[&str], query: &str) -> Result<(u16, Value), Refusal> {
        self.may("actions:read")?;
        let parameter = |name: &str| parameter(query, name);
        let number = |name: &str| parameter(name).and_then(|text| text.parse::<usize>().ok());
        let page = |all: Vec<Value>, name: &str| {
            let size = number("per_page").unwrap_or(30).clamp(1, 100);
            let from = (number("page").unwrap_or(1).max(1) - 1) * size;
            let shown: Vec<Value> = all.iter().skip(from).take(size).cloned().collect();
            let mut answer = json!({ "total_count": all.len() });
            answer[name] = shown.into();
            Ok((200, answer))
        };
        let runs = |of: Option<&str>| -> Vec<Value> {
            let (status, branch) = (parameter("status"), parameter("branch"));
            // GitHub: newest first.
            let wanted = self.runs.iter().rev().filter(|run| {
                of.is_none_or(|file| run.workflow == file)
                    && status.as_ref().is_none_or(|status| run.status == *status)
                    && branch.as_ref().is_none_or(|branch| run.branch == *branch)
            });
            wanted.map(|run| self.shown(run)).collect()
        };
        match parts {
            ["workflows"] => {
                let all = self.workflows.iter().zip(1..).map(|(file, id)| {
                    json!({ "id": id, "name": file, "state": "active",
                            "path": format!(".github/workflows/{file}") })
                });
                page(all.collect(), "workflows")
            }
            ["workflows", file, "runs"] if self.workflows.iter().any(|known| known == file) => {
                page(runs(Some(file)), "workflow_runs")
            }
            ["runs"] => page(runs(None), "workflow_runs"),
            ["runs", id, "jobs"] => {
                let run = self.runs.iter().find(|run| Some(run.id) == id.parse().ok());
                let Some(run) = run else { return refuse(404, "Not Found") };
                let jobs = run.jobs.iter().zip(1..).map(|(job, number)| {
                    let skipped = job.status == "skipped";
                    let over = skipped || job.status == "completed";
                    let mut steps =
                        vec![json!({ "name": "Set up job", "status": "completed", "number": 1 })];
                    steps.extend(job.step.as_ref().map(
                        |step| json!({ "name": step, "status": "in_progress", "number": 2 }),
                    ));
                    json!({ "id": 1000 * run.id + number, "run_id": run.id, "steps": steps,
                            "status": if over { "completed" } else { &job.status },
                            "conclusion": over.then_some(if skipped { "skipped" } else { "success" }),
                            "started_at": job.started_at, "runner_name": job.runner })
                });
                page(jobs.collect(), "jobs")
            }
            ["runs", id] => match self.runs.iter().find(|run| Some(run.id) == id.parse().ok()) {
                Some(run) => Ok((200, self.shown(run))),
                None => refuse(404, "Not Found"),
            },
            _ => refuse(404, "Not Found"),
        }
    }

    fn shown(&self, run: &WorkflowRun) -> Value {
        json!({
            "id": run.id, "name": run.workflow, "status": run.status,
            "run_attempt": 1 + u8::from(run.again_at.is_some()),
            "path": format!(".github/workflows/{}", run.workflow), "event": "push",
            "head_branch": run.branch, "created_at": run.created_at,
            "run_started_at": run.again_at.as_ref().unwrap_or(&run.created_at),
            "updated_at": run.created_at,
            "conclusion": (run.status == "completed").then_some("success"),
            "html_url": format!("https://github.com/{}/actions/runs/{}", self.repository, run.id),
        })
    }

    fn variable(
        &mut self,
        method: &str,
        environment: &str,
        parts: &[&str],
        input: &Value,
    ) -> Result<(u16, Value), Refusal> {
        self.may("environments:write")?;
        let Some(variables) = self.variables.get_mut(environment) else {
            return refuse(404, "Not Found");
        };
        let given = |name: &str| input[name].as_str().map(str::to_owned);
        match (method, parts) {
            ("GET", [name]) => match variables.get(*name) {
                Some(value) => Ok((200, json!({ "name": name, "value": value }))),
                None => refuse(404, "Not Found"),
            },
            ("POST", []) => {
                let (Some(name), Some(value)) = (given("name"), given("value")) else {
                    return refuse(422, "Invalid request.");
                };
                if variables.contains_key(&name) {
                    return refuse(409, "Already exists - Variable already exists");
                }
                variables.insert(name, value);
                Ok((201, json!({})))
            }
            ("PATCH", [name]) => match (variables.get_mut(*name), given("value")) {
                (Some(kept), Some(value)) => {
                    *kept = value;
                    Ok((204, Value::Null))
                }
                (None, _) => refuse(404, "Not Found"),
                (_, None) => refuse(422, "Invalid request."),
            },
            _ => refuse(404, "Not Found"),
        }
    }
}

/// A parameter of a query.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, value)| percent_decoded(value))
}

/// GitHub's limits for a check run's output.
fn check_output(input: &Value) -> Result<(), Refusal> {
    let output = &input["output"];
    let annotations = output["annotations"].as_array().map_or(0, Vec::len);
    if annotations > ANNOTATIONS {
        return refuse(422, "Invalid request.\n\nNo more than 50 items are allowed.");
    }
    for part in ["summary", "text"] {
        if output[part].as_str().is_some_and(|text| text.chars().count() > TEXT) {
            return refuse(
                422,
                &format!("Only {TEXT} characters are allowed; {part} is too long."),
            );
        }
    }
    if output.is_object() && (output["title"].is_null() || output["summary"].is_null()) {
        return refuse(422, "Invalid request.\n\n\"title\" or \"summary\" wasn't supplied.");
    }
    Ok(())
}
