//! Asks GitHub for runs in flight, and waits for them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::Run;
use crate::github::{Api, WorkflowRun, file_name};
use crate::in_flight::{self, Found, InFlight, Question, USUAL};
use crate::inputs::Mode;
use crate::plan::Goal;

/// Between two looks, at most.
const INTERVAL: Duration = Duration::from_secs(15);

impl Run<'_> {
    /// Who is in flight; `None`: it is not asked.
    pub(super) async fn in_flight(&self, goal: &Goal) -> Option<Result<Found, String>> {
        let asks = matches!(self.request.mode, Mode::Plan | Mode::Apply | Mode::Rollback);
        if !asks || *goal == Goal::Unset || self.request.in_flight == InFlight::None {
            return None;
        }
        Some(self.look_for_runs().await)
    }

    /// Whether a look that fails is an error.
    pub(super) fn in_flight_is_strict(&self) -> bool {
        matches!(self.request.in_flight, InFlight::Files(_))
    }

    /// Waits until nobody is in the way any more, as long as it may.
    pub(super) async fn wait_for_runs(&self, mut found: Found) -> Result<Found, String> {
        let patience = self.request.in_flight_timeout;
        let interval = INTERVAL.min(patience / 20).max(Duration::from_secs(1));
        let began = Instant::now();
        self.log.group("Runs in flight");
        while !found.busy.is_empty() && found.stale.is_empty() {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            let who: Vec<&str> = found.busy.iter().map(|run| run.url.as_str()).collect();
            self.log.line(&format!(
                "waiting for {} ({} s of {} s left)",
                who.join(", "),
                left.as_secs(),
                patience.as_secs()
            ));
            tokio::time::sleep(interval.min(left)).await;
            found = self.look_for_runs().await?;
        }
        self.log.end_group();
        Ok(found)
    }

    async fn look_for_runs(&self) -> Result<Found, String> {
        let environment = self.environment;
        let own: u64 = environment
            .get("GITHUB_RUN_ID")
            .and_then(|id| id.parse().ok())
            .ok_or("GITHUB_RUN_ID is not set: this is no workflow run")?;
        let api = Api::of(environment, self.request.github_token.as_ref())?;
        let text = |error| format!("{error}");
        let named = match &self.request.in_flight {
            InFlight::Files(files) => Some(files),
            InFlight::Auto | InFlight::None => None,
        };
        let files = async {
            match named {
                // A name with a slip in it would find nothing, and let everyone pass.
                Some(_) => api.workflow_files().await.map(Some),
                None => Ok(None),
            }
        };
        let (runs, this, files) = tokio::join!(api.active_runs(), api.run(own), files);
        let (runs, known) = (runs.map_err(text)?, files.map_err(text)?);
        let files: BTreeSet<String> = match (named, known) {
            (Some(named), Some(known)) => {
                if let Some(unknown) = named.iter().find(|file| !known.contains(*file)) {
                    return Err(format!("the repository has no workflow file `{unknown}`"));
                }
                named.iter().cloned().collect()
            }
            _ => {
                let own = environment.get("GITHUB_WORKFLOW_REF").map(file_name);
                USUAL.into_iter().chain(own).map(str::to_owned).collect()
            }
        };
        let this = this.ok();
        let question = Question {
            files,
            branch: self.request.in_flight_branch.as_deref().unwrap_or("*"),
            own,
            began: this.as_ref().map(|run| run.started_at.as_str()),
        };
        let here = self.at_this_check(&api, &question, &runs).await.unwrap_or_default();
        Ok(in_flight::judge(&question, &runs, &here))
    }

    /// The later runs that are in this same step. Not knowing it, they count like any other.
    async fn at_this_check(
        &self,
        api: &Api,
        question: &Question<'_>,
        runs: &[WorkflowRun],
    ) -> Option<BTreeSet<u64>> {
        let running: Vec<&WorkflowRun> = in_flight::concerned(question, runs)
            .into_iter()
            .filter(|run| run.status == "in_progress")
            .collect();
        let runner = self.environment.get("RUNNER_NAME").filter(|_| !running.is_empty())?;
        let own = api.steps_under_way(question.own);
        let theirs = try_join_all(running.iter().map(|run| api.steps_under_way(run.id)));
        let (own, theirs) = tokio::join!(own, theirs);
        let own = own.ok()?;
        let (_, step) = own.iter().find(|(name, _)| name == runner)?;
        let theirs = theirs.ok()?;
        let at_it = running
            .iter()
            .zip(theirs)
            .filter(|(_, steps)| steps.iter().any(|(_, name)| name == step));
        Some(at_it.map(|(run, _)| run.id).collect())
    }
}
