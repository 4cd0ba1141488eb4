//! `plan`, `apply`, `verify` and `rollback`: survey and preflight side by side, then the
//! plan, then, where it is allowed, the re-key.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::OptionFuture;
use futures_util::stream::{self, StreamExt};

use super::{Run, aws_failure, findings};
use crate::aws::{Aws, AwsError, Bucket, Budget, Keys, WriteAs};
use crate::check::{CheckId, Failure, FailureReason, Status};
use crate::inputs::Mode;
use crate::plan::{self, Allowances, Goal, Plan};
use crate::preflight::{self, Access, Evidence};
use crate::rekey::{self, Outcome};
use crate::report::{Action, BucketReport, Report};
use crate::survey::{Found, Survey};

/// Objects re-keyed at the same time.
const PARALLEL: usize = 32;

/// What the first round of requests came to.
struct Looked {
    bucket: Bucket,
    region: Result<String, AwsError>,
    survey: Survey,
    evidence: Evidence,
    budget: Budget,
}

impl Run<'_> {
    pub(super) async fn states(&self, report: &mut Report, goal: &Goal) {
        let Some(aws) = self.connect(report).await else { return };
        self.log.group("Survey and preflight");
        let looked = self.look(aws.clone(), goal).await;
        report.requests = aws.requests().count();
        match looked {
            Ok(looked) => self.decide(report, goal, &aws, looked).await,
            Err(error) => report.failures.push(aws_failure(&error)),
        }
        report.requests = aws.requests().count();
        self.log.end_group();
    }

    /// Everything that can be asked at once is asked at once.
    async fn look(&self, aws: Aws, goal: &Goal) -> Result<Looked, AwsError> {
        let request = self.request;
        let budget = Budget::new();
        // Only a re-key needs the bodies later.
        let writes = matches!(request.mode, Mode::Apply | Mode::Rollback);
        let wanted = |now: &_| writes && goal.rewrite(now).is_some();
        let names: Vec<String> = request.layout.keys().map(|(_, key)| key.to_owned()).collect();
        let bucket_in = |aws: &Aws| {
            aws.bucket(&request.bucket, request.bucket_owner.as_deref(), request.acl.as_deref())
        };
        let bucket = bucket_in(&aws);
        let keys = goal.key().map(|key| aws.in_region(key.region()).keys());
        let (region, mut survey, mut evidence) = tokio::join!(
            bucket.region(),
            Survey::take(&bucket, &request.layout, &budget, wanted),
            Evidence::gather(&aws, &bucket, keys.as_ref(), goal.key(), &names)
        );
        let mut looked_in = bucket;
        let elsewhere = region.as_deref().ok().filter(|r| !r.is_empty() && *r != aws.region());
        if let Some(region) = elsewhere {
            self.log
                .line(&format!("the bucket is in {region}, not in {}; asking there", aws.region()));
            looked_in = bucket_in(&aws.in_region(region));
            survey = Survey::take(&looked_in, &request.layout, &budget, wanted).await;
        }
        let mut survey = survey?;
        let home = region.as_deref().ok().filter(|r| !r.is_empty()).unwrap_or(aws.region());
        let home_keys = aws.in_region(home).keys();
        let found: Vec<String> = survey
            .states
            .iter()
            .map(|state| state.key.clone())
            .filter(|key| !names.contains(key))
            .collect();
        // States that only a listing named are known too late for the first round.
        let late: OptionFuture<_> = (goal.key().is_some() && !found.is_empty())
            .then(|| Evidence::uses(keys.as_ref(), &looked_in, goal.key(), &found))
            .into();
        let target = goal.key().map(|key| key.as_str());
        let ((), late) = tokio::join!(survey.ask_for_managers(&home_keys, target), late);
        evidence.add(late.unwrap_or_default());
        Ok(Looked { bucket: looked_in, region, survey, evidence, budget })
    }

    async fn decide(&self, report: &mut Report, goal: &Goal, aws: &Aws, looked: Looked) {
        let request = self.request;
        let Looked { bucket, region, survey, evidence, budget } = looked;
        report.caller = evidence.caller.as_ref().ok().cloned();
        report.bucket = Some(BucketReport {
            name: request.bucket.clone(),
            region: region.as_ref().ok().filter(|region| !region.is_empty()).cloned(),
            expected_owner: request.bucket_owner.clone(),
        });
        if let Err(error) = &evidence.caller {
            report.warnings.push(format!("whose credentials these are is not known ({error})"));
        }

        let judgement = preflight::judge(&evidence, goal.key());
        let mut refusals = Vec::new();
        report.checks.extend(judgement.checks);
        if let Some(key) = goal.key() {
            let (check, refusal) = findings::same_region(key, &region);
            report.checks.push(check);
            refusals.extend(refusal);
            let owner = request.bucket_owner.as_deref().unwrap_or(key.account());
            let owned = self.owned(aws, &region, &survey).await;
            let (check, refusal) = findings::same_account(key, owner, owned);
            report.checks.push(check);
            refusals.extend(refusal);
        }

        let allow =
            Allowances { downgrade: request.allow_downgrade, require_state: request.require_state };
        let plan = plan::plan(goal, &survey, allow);
        report.warnings.extend(plan.warnings.iter().cloned());
        report.objects = survey
            .states
            .iter()
            .zip(&plan.steps)
            .map(|(s, step)| findings::surveyed(s, step))
            .collect();
        for (state, row) in survey.states.iter().zip(&report.objects) {
            self.log.line(&format!("{}: {}", plan::name(state), line(row, state)));
        }

        let access =
            judgement.access.filter(|_| !judgement.refusals.is_empty() || plan_writes(&plan));
        refusals.extend(access_refusals(access, judgement.refusals, goal, &survey, &plan));
        refusals.extend(plan.refusals.iter().cloned());
        // A bucket in foreign hands, or a key that is out of order, explains the rest.
        refusals.sort_by_key(|refusal| match refusal.reason {
            FailureReason::WrongBucketOwner => 0,
            FailureReason::KeyUnusable => 1,
            _ => 2,
        });

        let stop = !refusals.is_empty();
        report.failures.extend(refusals);
        if !stop && request.mode == Mode::Verify {
            report
                .failures
                .extend(plan.rekeys().map(|(at, _)| findings::drift(&survey.states[at], goal)));
        }
        let compares = matches!(request.mode, Mode::Plan | Mode::Verify);
        let files = if stop && !compares {
            false
        } else {
            self.backend_files(report, region.as_deref().ok())
        };
        if files && !compares {
            let job = Job { run: self, bucket, budget, goal, survey: &survey, plan: &plan, access };
            job.rekey(report).await;
        }
        let checks = findings::object_checks(goal, &survey, &report.objects, &plan);
        report.checks.extend(checks);
    }

    /// Whether the bucket belongs to the account that every call names. Any answer about an
    /// object shows that it does; where all is refused, one more question tells.
    async fn owned(
        &self,
        aws: &Aws,
        region: &Result<String, AwsError>,
        survey: &Survey,
    ) -> Option<bool> {
        let answered = survey.states.iter().any(|state| {
            matches!(
                state.found,
                Found::Readable(_) | Found::Unreadable { .. } | Found::Absent { .. }
            )
        });
        if answered {
            return Some(true);
        }
        let home = region.as_deref().ok().filter(|r| !r.is_empty()).unwrap_or(aws.region());
        let aws = aws.in_region(home);
        let name = &self.request.bucket;
        let owner = self.request.bucket_owner.as_deref();
        let (with, without) =
            tokio::join!(async { aws.bucket(name, owner, None).exists().await }, async {
                aws.bucket(name, None, None).exists().await
            });
        match (with, without) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

fn plan_writes(plan: &Plan) -> bool {
    plan.rekeys().next().is_some()
}

/// What the key's evidence forbids. Missing grants forbid a re-key; where nothing is to be
/// re-keyed and the states are read, they are a finding and no failure, so that a
/// principal that only reads can run `verify`.
fn access_refusals(
    access: Option<Access>,
    refusals: Vec<Failure>,
    goal: &Goal,
    survey: &Survey,
    plan: &Plan,
) -> Vec<Failure> {
    let reads = survey.states.iter().any(|state| matches!(state.found, Found::Readable(_)));
    let needed = plan_writes(plan) || !reads;
    let mut kept: Vec<Failure> = refusals
        .into_iter()
        .filter(|refusal| needed || refusal.reason != FailureReason::KeyDenied)
        .collect();
    let fallback = plan.rekeys().any(|(at, _)| has_version(survey, at));
    if access == Some(Access::OnlyS3CanTell) && plan_writes(plan) && !fallback && kept.is_empty() {
        let key = goal.key().map_or("", |key| key.as_str());
        kept.push(Failure::new(
            FailureReason::KeyDenied,
            format!(
                "no dry run has shown that this principal may encrypt and decrypt under {key}, and the \
                 bucket keeps no versions, so not even one state can be tried safely"
            ),
            "Grant the four actions on both sides (see the checks grant-key-policy and grant-iam-policy), \
             or turn on versioning: then one state goes first, and the rest only after it was read back",
        ));
    }
    kept
}

fn has_version(survey: &Survey, at: usize) -> bool {
    survey.states[at].found.seen().is_some_and(|seen| seen.version_id.is_some())
}

fn line(row: &crate::report::ObjectReport, state: &crate::survey::State) -> String {
    let encryption = state.found.seen().map(|seen| plan::describe(&seen.server_side));
    let serial = row.serial.map(|serial| format!(", serial {serial}")).unwrap_or_default();
    let what = match row.action {
        Action::Absent => return "does not exist".to_owned(),
        Action::WouldRekey => "to be re-keyed",
        Action::Kept => "kept",
        _ => "not readable",
    };
    format!("{}{serial}: {what}", encryption.unwrap_or_else(|| "unknown".into()))
}

struct Job<'a, 'r> {
    run: &'a Run<'r>,
    bucket: Bucket,
    budget: Budget,
    goal: &'a Goal,
    survey: &'a Survey,
    plan: &'a Plan,
    access: Option<Access>,
}

impl Job<'_, '_> {
    /// Carries the plan out. Where only S3 can tell whether the key may be used, one state
    /// that has a version to fall back on goes first.
    async fn rekey(&self, report: &mut Report) {
        let mut todo: Vec<(usize, WriteAs)> =
            self.plan.rekeys().map(|(at, write)| (at, write.clone())).collect();
        if todo.is_empty() {
            return;
        }
        self.run.log.group("Re-key");
        if self.access == Some(Access::OnlyS3CanTell) {
            let first = todo.iter().position(|(at, _)| has_version(self.survey, *at));
            let Some(first) = first else { return };
            let (at, write) = todo.remove(first);
            self.run.log.line("only S3 can tell whether the key may be used: one state goes first");
            let outcome = self.one(at, &write).await;
            if !self.settle(report, at, &outcome) {
                for (at, _) in todo {
                    findings::skipped(
                        &mut report.objects[at],
                        "not tried, since the first state failed",
                    );
                }
                return;
            }
            self.shown_by_s3(report);
        }
        let stop = AtomicBool::new(false);
        let stop = &stop;
        let outcomes = stream::iter(todo)
            .map(|(at, write)| async move {
                if stop.load(Ordering::Relaxed) || self.run.cancelled.is_set() {
                    return (at, None);
                }
                let outcome = self.one(at, &write).await;
                if matches!(outcome, Outcome::Restored(_) | Outcome::Lost { .. }) {
                    stop.store(true, Ordering::Relaxed);
                }
                (at, Some(outcome))
            })
            .buffer_unordered(PARALLEL)
            .collect::<Vec<_>>()
            .await;
        for (at, outcome) in outcomes {
            match outcome {
                Some(outcome) => {
                    self.settle(report, at, &outcome);
                }
                None => findings::skipped(
                    &mut report.objects[at],
                    "not begun, since the run was stopped",
                ),
            }
        }
        if self.run.cancelled.is_set() {
            report.failures.push(Failure::new(
                FailureReason::Cancelled,
                "the run was cancelled; states that were in hand are finished, the others untouched",
                "Run again: what is done is not done twice",
            ));
        }
    }

    async fn one(&self, at: usize, write: &WriteAs) -> Outcome {
        let state = &self.survey.states[at];
        match &state.found {
            Found::Readable(before) => {
                rekey::rekey(&self.bucket, &self.budget, &state.key, before, write).await
            }
            // A plan re-keys readable states only.
            _ => Outcome::Vanished,
        }
    }

    /// Returns whether the state is as wanted now.
    fn settle(&self, report: &mut Report, at: usize, outcome: &Outcome) -> bool {
        let state = &self.survey.states[at];
        let failure = findings::settled(&mut report.objects[at], state, outcome);
        if matches!(
            outcome,
            Outcome::Rekeyed(_)
                | Outcome::Changed(..)
                | Outcome::Restored(_)
                | Outcome::Lost { .. }
        ) {
            report.changed = true;
        }
        let done = failure.is_none();
        self.run.log.line(&match &failure {
            Some(failure) => format!("{}: FAILED, {}", plan::name(state), failure.message),
            None => format!("{}: re-keyed and read back, same content", plan::name(state)),
        });
        report.failures.extend(failure);
        done
    }

    /// The first state was written and read under the key: that is better evidence than
    /// a dry run.
    fn shown_by_s3(&self, report: &mut Report) {
        for check in &mut report.checks {
            if matches!(check.id, CheckId::GrantKeyPolicy | CheckId::GrantIamPolicy)
                && check.status == Status::Unknown
                && self.goal.key().is_some()
            {
                check.status = Status::Warn;
                check.evidence = format!(
                    "S3 has written and read a state under the key for this principal, though: {}",
                    check.evidence
                );
            }
        }
    }
}

/// Whether KMS could say which key an alias or a bare id stands for; a courtesy to
/// whoever gave one, so that the refusal can name the ARN.
pub async fn stands_for(keys: &Keys, name: &str) -> Option<String> {
    keys.describe(name).await.ok().map(|key| key.arn).filter(|arn| !arn.is_empty())
}
