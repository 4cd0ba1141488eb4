//! Workflow runs, as GitHub lists them (needs `actions: read`).

use std::collections::BTreeSet;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::Value;

use super::api::{Api, ApiError};

/// The states of a run that is not over.
const ACTIVE: [&str; 5] = ["queued", "in_progress", "requested", "waiting", "pending"];

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
    /// `queued`, `in_progress`, `requested`, `waiting` (for an approval), `pending` (a
    /// concurrency group holds the run, or one of its jobs, back).
    pub status: String,
    /// The branch that it is on.
    pub branch: String,
    /// When it was asked for; `None`: GitHub does not say, or not as a time.
    pub created_at: Option<DateTime>,
    /// When its present attempt began, likewise.
    pub started_at: Option<DateTime>,
    /// Its present attempt is a re-run, perhaps of failed jobs only: these then work with what
    /// the others made in an earlier attempt.
    pub again: bool,
    /// Its page.
    pub url: String,
}

impl WorkflowRun {
    /// As GitHub's answer has it; `None`: it is not understood.
    pub fn of(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let created_at = time(&value["created_at"]);
        let started = &value["run_started_at"];
        Some(Self {
            id: value["id"].as_u64()?,
            // Without one, nobody could say whether the run is concerned.
            workflow: file_name(value["path"].as_str()?).to_owned(),
            status: text("status"),
            branch: text("head_branch"),
            created_at,
            started_at: if started.is_null() { created_at } else { time(started) },
            again: value["run_attempt"].as_u64().is_some_and(|attempt| attempt > 1),
            url: text("html_url"),
        })
    }
}

/// A job of a run's latest attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// `queued`, `in_progress`, `completed`, `waiting`, `pending`.
    pub status: String,
    /// It was left out: it has never begun.
    pub skipped: bool,
    /// When it began, where it has: as a run's.
    pub started_at: Option<DateTime>,
    /// The name of its runner.
    pub runner: String,
    /// The name of the step that is under way.
    pub step: Option<String>,
}

impl Job {
    /// As GitHub's answer has it.
    pub fn of(value: &Value) -> Self {
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let steps = value["steps"].as_array();
        let under_way = steps.into_iter().flatten().find(|step| step["status"] == "in_progress");
        Self {
            status: text(value, "status"),
            skipped: value["conclusion"] == "skipped",
            started_at: time(&value["started_at"]),
            runner: text(value, "runner_name"),
            step: under_way.map(|step| text(step, "name")),
        }
    }

    /// It has had a runner.
    pub fn has_begun(&self) -> bool {
        matches!(self.status.as_str(), "in_progress" | "completed") && !self.skipped
    }
}

/// A time, with or without fractions of a second, in UTC or not (RFC 3339).
fn time(value: &Value) -> Option<DateTime> {
    DateTime::from_str(value.as_str()?, Format::DateTimeWithOffset).ok()
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
        // at once. So they are asked in the order in which runs go through the states; those that
        // hold a run back again at last, since they may hold back its later jobs, too. The latest
        // of all catch the young ones, which change fastest.
        let (mut runs, pending, requested, latest) = tokio::try_join!(
            self.runs("waiting"),
            self.runs("pending"),
            self.runs("requested"),
            self.latest()
        )?;
        runs.extend(pending);
        runs.extend(requested);
        runs.extend(latest.into_iter().filter(|run| ACTIVE.contains(&run.status.as_str())));
        for status in ["queued", "in_progress"] {
            runs.extend(self.runs(status).await?);
        }
        // Nor does a run go through them once only: its next job is queued again.
        let (queued, waiting, pending) =
            tokio::try_join!(self.runs("queued"), self.runs("waiting"), self.runs("pending"))?;
        runs.extend([queued, waiting, pending].concat());
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

    /// The file names of the repository's workflows. GitHub's own (`dynamic/…`) have none.
    ///
    /// # Errors
    /// As classified.
    pub async fn workflow_files(&self) -> Result<BTreeSet<String>, ApiError> {
        let values = self.pages("actions/workflows?", "workflows").await?;
        let has_file = |path: &&str| path.starts_with(".github/workflows/");
        let paths = values.iter().filter_map(|value| value["path"].as_str()).filter(has_file);
        Ok(paths.map(|path| file_name(path).to_owned()).collect())
    }

    /// The jobs of a run's latest attempt, as far as they exist yet.
    ///
    /// # Errors
    /// As classified.
    pub async fn jobs(&self, run: u64) -> Result<Vec<Job>, ApiError> {
        let jobs = self.pages(&format!("actions/runs/{run}/jobs?filter=latest"), "jobs").await?;
        Ok(jobs.iter().map(Job::of).collect())
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
        let answer = self.get(&format!("{path}&per_page={PAGE}&page={page}")).await?;
        entries(answer, name)
    }
}

/// The entries of a list in an answer of GitHub's.
///
/// # Errors
/// There is no such list: the answer is no object, or another one.
pub fn entries(mut answer: Value, name: &str) -> Result<Vec<Value>, ApiError> {
    match answer.get_mut(name).map(Value::take) {
        Some(Value::Array(values)) => Ok(values),
        _ => Err(ApiError::Other(format!("GitHub's answer has no list of {name}"))),
    }
}

/// The runs of such a list.
///
/// # Errors
/// One is not understood: it would be passed over in silence.
pub fn understood(values: &[Value]) -> Result<Vec<WorkflowRun>, ApiError> {
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
    fn a_run_needs_an_id_and_a_workflow() {
        let created = "2026-11-24T02:00:04Z";
        let whole = json!({ "id": 1, "created_at": created, "path": ".github/workflows/a.yml" });
        let run = WorkflowRun::of(&whole).unwrap();
        assert_eq!(
            (run.started_at, run.workflow.as_str(), run.again),
            (run.created_at, "a.yml", false)
        );
        assert!(run.created_at.is_some());
        for name in ["id", "path"] {
            let mut part = whole.clone();
            part[name] = serde_json::Value::Null;
            assert_eq!(WorkflowRun::of(&part), None, "{name}");
        }
        let mut again = whole;
        again["run_started_at"] = "2026-11-24T03:00:04Z".into();
        again["run_attempt"] = 2.into();
        let run = WorkflowRun::of(&again).unwrap();
        assert!(run.started_at > run.created_at && run.again);
        // What is no time is not another one.
        again["run_started_at"] = "soon".into();
        assert_eq!(WorkflowRun::of(&again).unwrap().started_at, None);
    }

    #[test]
    fn times_are_compared_as_times() {
        let at = |text: &str| time(&text.into());
        assert_eq!(at("2026-11-24T02:00:04Z"), at("2026-11-24T02:00:04+00:00"));
        assert_eq!(at("2026-11-24T02:00:04Z"), at("2026-11-24T04:00:04.000+02:00"));
        // As texts it is the other way round.
        assert!(at("2026-11-24T02:00:04.5Z") > at("2026-11-24T02:00:04Z"));
        assert!(at("2026-11-24T01:00:00-02:00") > at("2026-11-24T02:00:00Z"));
        for text in ["", "x", "2026-11-24", "1764000000"] {
            assert_eq!(at(text), None, "{text}");
        }
        assert_eq!(time(&Value::Null), None);
    }

    #[test]
    fn a_job_that_was_left_out_has_not_begun() {
        let job = |value| Job::of(&value).has_begun();
        assert!(job(json!({ "status": "completed", "conclusion": "success" })));
        assert!(job(json!({ "status": "in_progress" })));
        assert!(!job(json!({ "status": "completed", "conclusion": "skipped" })));
        assert!(!job(json!({ "status": "pending", "started_at": "2026-01-01T00:00:00Z" })));
        let steps = json!([{ "name": "a", "status": "completed" }, { "name": "b", "status": "in_progress" }]);
        assert_eq!(Job::of(&json!({ "steps": steps })).step.as_deref(), Some("b"));
    }
}
