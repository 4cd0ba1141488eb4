//! Asks GitHub for runs in flight, and waits for them.

use std::path::{Component, Path};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use tokio::sync::OnceCell;

use super::Run;
use crate::github::{Api, ApiError, file_name};
use crate::in_flight::{self, Blind, Found, InFlight, Look, Question, Workflows, workflows};
use crate::inputs::Mode;
use crate::plan::Goal;

/// GitHub shows a step of a job some seconds after it began, and the one before until then.
const STEPS_ARE_SHOWN: Duration = Duration::from_secs(5);

/// GitHub's API, and what is asked of it.
struct Watch<'a> {
    api: Api,
    question: Question<'a>,
    began: Instant,
}

impl Run<'_> {
    /// Who is in flight; `None`: it is not asked.
    pub(super) async fn in_flight(&self, goal: &Goal) -> Option<Result<Found, Blind>> {
        let asks = matches!(self.request.mode, Mode::Plan | Mode::Apply | Mode::Rollback);
        if !asks || *goal == Goal::Unset || self.request.in_flight == InFlight::None {
            return None;
        }
        let look = async { self.watch().await?.look().await };
        Some(look.await)
    }

    /// Whether not having the right to look is an error.
    pub(super) fn in_flight_is_strict(&self) -> bool {
        match &self.request.in_flight {
            InFlight::Files(_) => true,
            InFlight::Auto(named) => !named.is_empty(),
            InFlight::None => false,
        }
    }

    /// Waits until nobody is in the way any more, as long as it may. A look that fails is made
    /// again, and does not make those forgotten who were seen before.
    pub(super) async fn wait_for_runs(
        &self,
        mut found: Result<Found, Blind>,
    ) -> Result<Found, Blind> {
        let patience = self.request.in_flight_timeout;
        let began = Instant::now();
        self.log.group("Runs in flight");
        let watch = OnceCell::new();
        while is_worth_a_wait(&found) {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            let (whom, until) = waits_for(&found);
            self.log.line(&format!(
                "waiting for {whom} ({} s of {} s left)",
                left.as_secs(),
                patience.as_secs()
            ));
            let pause = in_flight::pause(began.elapsed(), patience).max(until);
            tokio::time::sleep(pause.min(left)).await;
            let look = async { watch.get_or_try_init(|| self.watch()).await?.look().await };
            match (look.await, &mut found) {
                (Err(blind), Ok(seen)) => seen.later = Some(blind),
                (looked, found) => *found = looked,
            }
        }
        self.log.end_group();
        found
    }

    /// Settles what is asked, which does not change while it is waited.
    async fn watch(&self) -> Result<Watch<'_>, Blind> {
        const NONE: &str = "Set `in-flight: none` where nothing else writes these states";
        let environment = self.environment;
        let own =
            environment.get("GITHUB_RUN_ID").and_then(|id| id.parse().ok()).ok_or_else(|| {
                Blind::no_right("GITHUB_RUN_ID is not set: this is no workflow run", NONE)
            })?;
        let api = Api::of(environment, self.request.github_token.as_ref())
            .map_err(|why| Blind::no_right(why, "Give `github-token`, or set `in-flight: none`"))?;
        let (named, auto) = match &self.request.in_flight {
            InFlight::Files(named) => (named.as_slice(), false),
            InFlight::Auto(named) => (named.as_slice(), true),
            InFlight::None => (&[][..], false),
        };
        if !named.is_empty() {
            // A name with a slip in it would find nothing, and let everyone pass.
            let known = api.workflow_files().await?;
            if let Some(unknown) = named.iter().find(|file| !known.contains(*file)) {
                let why = format!("the repository has no workflow file `{unknown}`");
                return Err(Blind::no_right(why, "Correct `in-flight`"));
            }
        }
        let mut workflows = Workflows::default();
        if auto {
            let own = environment.get("GITHUB_WORKFLOW_REF").map(file_name);
            workflows = match own.and_then(|own| self.workflows_of_checkout(own)) {
                Some(found) => found,
                None => Workflows { files: api.workflow_files().await?, ..Workflows::default() },
            };
            workflows.files.extend(own.map(str::to_owned));
        }
        workflows.files.extend(named.iter().cloned());
        let branch = self.request.in_flight_branch.as_deref().unwrap_or("*");
        let runner = environment.get("RUNNER_NAME");
        let question = Question { workflows, branch, own, runner };
        Ok(Watch { api, question, began: Instant::now() })
    }

    /// The workflows that the checkout has; `None`: it is none of this repository, for it does not
    /// have the workflow `own`.
    fn workflows_of_checkout(&self, own: &str) -> Option<Workflows> {
        let entries = std::fs::read_dir(self.workspace.join(workflows::FOLDER)).ok()?;
        let names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".yml") || name.ends_with(".yaml"))
            .collect();
        names.iter().any(|name| name == own).then(|| {
            workflows::of_checkout(&names, |path| {
                // Not out of the workspace.
                if Path::new(path).components().any(|part| !matches!(part, Component::Normal(_))) {
                    return Ok(None);
                }
                let content = crate::files::read(&self.workspace.join(path)).map_err(|_| ())?;
                content.map(String::from_utf8).transpose().map_err(|_| ())
            })
        })
    }
}

impl Watch<'_> {
    async fn look(&self) -> Result<Found, Blind> {
        let found = self.look_once().await?;
        let young = STEPS_ARE_SHOWN.saturating_sub(self.began.elapsed());
        // Who is in the way already is not to be forgotten.
        if !found.by_step || !found.is_clear() || young.is_zero() {
            return Ok(found);
        }
        // The step by which a run was let pass may not be this one.
        tokio::time::sleep(young).await;
        self.look_once().await
    }

    async fn look_once(&self) -> Result<Found, Blind> {
        let runs = self.api.active_runs().await?;
        let examined = in_flight::to_examine(&self.question, &runs);
        let asked = examined.into_iter().map(async |run| match self.api.jobs(run).await {
            Ok(jobs) => Ok(Some((run, jobs))),
            Err(error @ (ApiError::RateLimited(_) | ApiError::Unavailable(_))) => Err(error),
            // What could not be had excuses nobody.
            Err(_) => Ok(None),
        });
        let jobs = try_join_all(asked).await?.into_iter().flatten().collect();
        Ok(in_flight::judge(&self.question, &Look { runs, jobs }))
    }
}

/// Whether another look could come to something else.
pub(super) fn is_worth_a_wait(found: &Result<Found, Blind>) -> bool {
    match found {
        Ok(found) => !found.busy.is_empty() && found.stale.is_empty(),
        Err(blind) => !blind.no_right,
    }
}

/// Whom a wait is for, and how long GitHub has said that it will answer nothing.
fn waits_for(found: &Result<Found, Blind>) -> (String, Duration) {
    let (who, blind) = match found {
        Ok(found) => {
            let links: Vec<&str> = found.busy.iter().map(|run| run.url.as_str()).collect();
            (Some(links.join(", ")), found.later.as_ref())
        }
        Err(blind) => (None, Some(blind)),
    };
    let failed =
        blind.map(|blind| format!("a look at GitHub's runs; the last failed: {}", blind.why));
    let whom = who.into_iter().chain(failed).collect::<Vec<_>>().join(", and for ");
    let until = blind.and_then(|blind| blind.until).map(Duration::from_secs);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (whom, until.map_or(Duration::ZERO, |until| until.saturating_sub(now)))
}
