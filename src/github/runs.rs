//! Workflow runs, as GitHub lists them (needs `actions: read`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::api::{Api, ApiError};

/// The states of a run in which it has begun or is about to. `pending` is not one: a
/// concurrency group holds such a run back before its first job, and perhaps for ours.
const ACTIVE: [&str; 4] = ["queued", "in_progress", "requested", "waiting"];

/// Entries on a page, the most that GitHub gives.
const PAGE: usize = 100;
/// Pages that are read; GitHub itself ends a filtered list at 1,000 runs.
const PAGES: usize = 10;

/// A run of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowRun {
    /// Its id.
    pub id: u64,
    /// The workflow's file name.
    pub workflow: String,
    /// `queued`, `in_progress`, `requested`, `waiting` (for an approval).
    pub status: String,
    /// The branch that it is on.
    pub branch: String,
    /// When its present attempt began: RFC 3339 in UTC, so texts compare as times do.
    pub started_at: String,
    /// Its page.
    pub url: String,
}

impl WorkflowRun {
    fn of(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let started = value["run_started_at"].as_str().or(value["created_at"].as_str())?;
        Some(Self {
            id: value["id"].as_u64()?,
            workflow: file_name(value["path"].as_str().unwrap_or_default()).to_owned(),
            status: text("status"),
            branch: text("head_branch"),
            started_at: started.to_owned(),
            url: text("html_url"),
        })
    }
}

/// `infra.yml` of `.github/workflows/infra.yml@refs/heads/main`.
pub fn file_name(path: &str) -> &str {
    let path = path.split('@').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

impl Api {
    /// All active runs of the repository.
    ///
    /// # Errors
    /// As classified; an answer that is not understood is an error, too.
    pub async fn active_runs(&self) -> Result<Vec<WorkflowRun>, ApiError> {
        // One that changes its state while it is asked for would show in no list, were all asked
        // at once. So they are asked in the order in which runs go through the states; `waiting`
        // again at last, since a later job of a run may wait for an approval, too. The latest of
        // all catch the young ones, which change fastest.
        let (mut runs, requested, latest) =
            tokio::try_join!(self.runs("waiting"), self.runs("requested"), self.latest())?;
        runs.extend(requested);
        runs.extend(latest.into_iter().filter(|run| ACTIVE.contains(&run.status.as_str())));
        for status in ["queued", "in_progress", "waiting"] {
            runs.extend(self.runs(status).await?);
        }
        // Of one that was seen twice, the later look counts.
        runs.reverse();
        runs.sort_by_key(|run| run.id);
        runs.dedup_by_key(|run| run.id);
        Ok(runs)
    }

    async fn runs(&self, status: &str) -> Result<Vec<WorkflowRun>, ApiError> {
        let path = format!("actions/runs?status={status}");
        understood(&self.pages(&path, "workflow_runs").await?)
    }

    /// The latest runs, in whatever state.
    async fn latest(&self) -> Result<Vec<WorkflowRun>, ApiError> {
        understood(&self.page("actions/runs?", "workflow_runs", 1).await?)
    }

    /// One run.
    ///
    /// # Errors
    /// As classified.
    pub async fn run(&self, id: u64) -> Result<WorkflowRun, ApiError> {
        let value = self.get(&format!("actions/runs/{id}")).await?;
        WorkflowRun::of(&value)
            .ok_or_else(|| ApiError::Other("GitHub's answer on this run is not understood".into()))
    }

    /// The file names of the repository's workflows.
    ///
    /// # Errors
    /// As classified.
    pub async fn workflow_files(&self) -> Result<BTreeSet<String>, ApiError> {
        let values = self.pages("actions/workflows?", "workflows").await?;
        let paths = values.iter().filter_map(|value| value["path"].as_str());
        Ok(paths.map(|path| file_name(path).to_owned()).collect())
    }

    /// The steps that are under way in a run: the runner's name and the step's.
    ///
    /// # Errors
    /// As classified.
    pub async fn steps_under_way(&self, run: u64) -> Result<Vec<(String, String)>, ApiError> {
        let jobs = self.pages(&format!("actions/runs/{run}/jobs?filter=latest"), "jobs").await?;
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let steps = |job: &Value| -> Vec<(String, String)> {
            let steps = job["steps"].as_array().into_iter().flatten();
            let under_way = steps.filter(|step| step["status"] == "in_progress");
            under_way.map(|step| (text(job, "runner_name"), text(step, "name"))).collect()
        };
        Ok(jobs.iter().flat_map(steps).collect())
    }

    async fn pages(&self, path: &str, name: &str) -> Result<Vec<Value>, ApiError> {
        let mut all = Vec::new();
        for page in 1..=PAGES {
            let mut values = self.page(path, name, page).await?;
            let more = values.len() == PAGE;
            all.append(&mut values);
            if !more {
                return Ok(all);
            }
        }
        // What is beyond would be passed over in silence.
        Err(ApiError::Other(format!("GitHub lists more than {} {name}", PAGE * PAGES)))
    }

    async fn page(&self, path: &str, name: &str, page: usize) -> Result<Vec<Value>, ApiError> {
        let mut answer = self.get(&format!("{path}&per_page={PAGE}&page={page}")).await?;
        match answer[name].take() {
            Value::Array(values) => Ok(values),
            _ => Err(ApiError::Other(format!("GitHub's answer has no list of {name}"))),
        }
    }
}

fn understood(values: &[Value]) -> Result<Vec<WorkflowRun>, ApiError> {
    let unclear = || ApiError::Other("GitHub's list of runs is not understood".to_owned());
    values.iter().map(|value| WorkflowRun::of(value).ok_or_else(unclear)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_file_is_told_from_the_path() {
        assert_eq!(file_name(".github/workflows/infra.yml"), "infra.yml");
        assert_eq!(file_name("o/r/.github/workflows/a.yml@refs/heads/x/y"), "a.yml");
        assert_eq!(file_name(""), "");
    }

    #[test]
    fn a_run_needs_an_id_and_a_time() {
        assert_eq!(WorkflowRun::of(&json!({ "id": 1 })), None);
        assert_eq!(WorkflowRun::of(&json!({ "created_at": "x" })), None);
        let run = WorkflowRun::of(&json!({ "id": 1, "created_at": "x", "path": null })).unwrap();
        assert_eq!((run.started_at.as_str(), run.workflow.as_str()), ("x", ""));
    }
}
