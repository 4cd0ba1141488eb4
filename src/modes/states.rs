//! `plan`, `apply`, `verify` and `rollback`: survey and preflight side by side, then the
//! plan, then, where it is allowed, the re-key, and last what proves it.

use super::backend_files::Files;
use super::job::{Job, has_version};
use super::looked::Looked;
use super::{Run, aws_failure, findings};
use crate::aws::{Aws, Keys, Kind};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::denials::Remedies;
use crate::doctor::{self, Silence, Subject};
use crate::gate::Gate;
use crate::grants::{self, InBucket, Sides};
use crate::history::History;
use crate::in_flight;
use crate::inputs::{Lock, Mode, Strategy};
use crate::names::printable;
use crate::plan::{self, Allowances, Goal, Plan};
use crate::policies::Policy;
use crate::preflight::{self, Access, Judgement};
use crate::readers::{self, Reader};
use crate::report::{Action, BucketReport, Report};
use crate::survey::{Found, Survey};

impl Run<'_> {
    pub(super) async fn states(&self, report: &mut Report, goal: &Goal) {
        if self.probes(goal) {
            // Until it is tried. A run that does not come to that says why by its failures.
            let untried = "the run was refused or cut off before that".to_owned();
            findings::gate(report, goal, self.request, Gate::Inconclusive(untried));
        }
        let Some(aws) = self.connect(report).await else { return };
        self.log.group("Survey and preflight");
        let looked = tokio::select! {
            looked = Box::pin(self.look_and_wait(aws.clone(), goal)) => looked,
            () = self.cancelled.asked() => {
                report.requests = aws.requests().count();
                report.failures.push(self.stopped());
                return;
            }
        };
        report.requests = aws.requests().count();
        match looked {
            Ok(looked) => Box::pin(self.decide(report, goal, looked)).await,
            Err(error) => report.failures.push(aws_failure(&error)),
        }
        report.requests = aws.requests().count();
        self.log.end_group();
    }

    async fn decide(&self, report: &mut Report, goal: &Goal, mut looked: Looked) {
        let request = self.request;
        report.caller = looked.evidence.caller.as_ref().ok().cloned();
        report.bucket = Some(BucketReport {
            name: request.bucket.clone(),
            region: looked.region.as_ref().ok().filter(|region| !region.is_empty()).cloned(),
            expected_owner: request.bucket_owner.clone(),
        });
        if let Err(error) = &looked.evidence.caller {
            report.warnings.push(format!("whose credentials these are is not known ({error})"));
        }

        let allow =
            Allowances { downgrade: request.allow_downgrade, require_state: request.require_state };
        let mut files = self.judge_files(looked.region.as_deref().ok(), false);
        let mut remedies = self.remedies(&looked, goal, files.lock_in_s3());
        let plan = plan::plan(goal, &looked.survey, allow, &remedies);
        report.warnings.extend(plan.warnings.iter().cloned());
        let absences = self.absences(goal, &looked).await;
        report.warnings.extend(absences.warnings);
        report.expects_by_pattern = !request.layout.patterns.is_empty();
        let rows = looked.survey.states.iter().zip(&plan.steps);
        report.objects = rows.map(|(state, step)| findings::surveyed(state, step)).collect();
        for state in &looked.survey.states {
            if let (Found::Unreadable { seen, error }, Some(_)) = (&state.found, goal.key())
                && error.kind != Kind::Archived
                && goal.rewrite(&seen.server_side).is_none()
            {
                let history = looked.history.as_ref();
                report.warnings.push(findings::way_back(state, history, &request.bucket));
            }
        }
        for (state, row) in looked.survey.states.iter().zip(&report.objects) {
            self.log.line(&format!("{}: {}", plan::name(state), line(row, state)));
        }

        let mut known = Known::new(self, goal, &looked, &files);
        let (needs_header, of_files) = self.header(goal, &looked, &files, &known).await;
        if needs_header {
            files = self.judge_files(looked.region.as_deref().ok(), true);
            known = Known::new(self, goal, &looked, &files);
            report.warnings.push(HEADER.to_owned());
        }
        let (mut refusals, access) =
            self.examine(report, goal, &looked, &plan, &known, &mut remedies).await;
        refusals.extend(of_files);
        refusals.extend(self.other_region(report));
        refusals.extend(self.locks_of_others(report, goal, &looked, &plan, &files).await);
        refusals.extend(plan.refusals.iter().cloned());
        refusals.extend(absences.refusals);
        // A bucket in foreign hands, or a key that is out of order, explains the rest.
        refusals.sort_by_key(|refusal| match refusal.reason {
            FailureReason::WrongBucketOwner => 0,
            FailureReason::KeyUnusable => 1,
            _ => 2,
        });
        let stop = !refusals.is_empty();
        report.failures.extend(refusals);
        report.failures.extend(absences.unverified);
        if !stop && request.mode == Mode::Verify {
            let states = &looked.survey.states;
            report.failures.extend(plan.rekeys().map(|(at, _)| findings::drift(&states[at], goal)));
        }
        let compares = matches!(request.mode, Mode::Plan | Mode::Verify);
        let mut locked = false;
        if !stop || compares {
            let may = self.enter_files(report, &files);
            // A run that refuses a file or a lock leaves both files and states as they were.
            locked = may && !compares && self.lock(report, goal, &looked, &plan, &files).await;
            if locked {
                self.log.group("Backend files");
                locked = self.write_files(report, &files);
            }
            self.consistency(report, &files);
            self.log.end_group();
        }
        if locked {
            Box::pin(self.carry_out(report, &mut looked, &plan, access, &remedies)).await;
        }
        let checks =
            findings::object_checks(goal, &report.objects, &plan, request.mode == Mode::Plan);
        report.checks.extend(checks);
        if let Some(mut history) = looked.history.take() {
            let proven = access == Some(Access::Proven);
            self.finish_history(report, goal, &looked, &mut history, locked, proven).await;
        }
        self.unlock().await;
        // `verify` looks on, whatever it has found before.
        let goes_on = request.mode == Mode::Verify || (request.mode == Mode::Apply && !stop);
        if goes_on && goal.key().is_some() && !self.cancelled.is_set() {
            let gate = tokio::select! {
                gate = self.gate(report, goal, &looked.aws, &looked.bucket) => Some(gate),
                () = self.cancelled.asked() => None,
            };
            if let Some(gate) = gate {
                self.judge_gate(report, goal, gate);
            }
        }
        if let (Some(remedy), false) = (&remedies.key, report.failures.is_empty()) {
            self.keep_statements(report, goal, &looked, remedy.lacks);
        }
        self.keep_readers_statements(report, looked.readers.as_deref().unwrap_or_default());
        if self.cancelled.is_set() {
            report.failures.push(self.stopped());
        }
    }

    /// What to do where S3 refuses a state, before anything is known of the key.
    fn remedies(&self, looked: &Looked, goal: &Goal, locks: bool) -> Remedies {
        let request = self.request;
        let caller = looked.evidence.caller.as_ref().ok();
        let owner = request.bucket_owner.as_deref();
        let of_owner = owner.map(|owner| format!(" (account {owner})")).unwrap_or_default();
        let states = looked.survey.keys();
        let in_bucket = InBucket {
            principal: &grants::named(caller),
            partition: looked.partition(goal),
            bucket: &request.bucket,
            owner,
            states: &states,
            writes: matches!(request.mode, Mode::Apply | Mode::Rollback),
            in_place: request.strategy == Strategy::InPlace,
            locks: locks || request.lock == Lock::S3,
            acl: request.acl.is_some(),
            retains: !looked.survey.locked().is_empty(),
        };
        Remedies {
            principal: preflight::words(caller),
            account: caller.map(|caller| caller.account.clone()).unwrap_or_default(),
            key_policy: goal.key().map(preflight::key_policy_of).unwrap_or_default(),
            bucket: request.bucket.clone(),
            bucket_policy: format!("the bucket policy of {}{of_owner}", request.bucket),
            key: None,
            s3: in_bucket.remedy(),
        }
    }

    /// Makes the checks of preflight; returns what forbids the run.
    async fn examine(
        &self,
        report: &mut Report,
        goal: &Goal,
        looked: &Looked,
        plan: &Plan,
        known: &Known,
        remedies: &mut Remedies,
    ) -> (Vec<Failure>, Option<Access>) {
        let mut refusals = Vec::new();
        let Judgement { checks, refusals: about_key, access, remedy } =
            preflight::judge(&looked.evidence, goal.key(), looked.state_bucket());
        remedies.key = remedy;
        report.checks.extend(checks);
        if let Some(key) = goal.key() {
            let (check, refusal) = findings::same_region(key, &looked.region);
            report.checks.push(check);
            refusals.extend(refusal);
            let owner = self.request.bucket_owner.as_deref().unwrap_or(key.account());
            let owned = self.owned(&looked.aws, &looked.survey).await;
            let (check, refusal) = findings::same_account(key, owner, owned);
            report.checks.push(check);
            refusals.extend(refusal);
            if let Some(evidence) = &looked.evidence.key {
                let caller = looked.evidence.caller.as_ref().ok();
                let account = caller.map(|caller| caller.account.as_str());
                report.checks.push(doctor::key_policy(key, &evidence.policy, account));
            }
        }
        let writes = plan.rekeys().next().is_some();
        let (survey, versioned) = (&looked.survey, looked.versioned());
        let fallback = plan.rekeys().any(|(at, _)| has_version(survey, at, versioned));
        let untried = access == Some(Access::OnlyS3CanTell) && writes && !fallback;
        // What was not refused is not denied.
        let untried = untried.then_some(match looked.evidence.is_refused() {
            true => FailureReason::KeyDenied,
            false => FailureReason::AwsUnavailable,
        });
        refusals.extend(access_refusals(about_key, goal, survey, writes, untried, remedies));
        // It forbids nothing: this run re-keys no state, or leaves it to S3 to tell.
        if !refusals.iter().any(|refusal| refusal.reason == FailureReason::KeyDenied) {
            let of_grant = [CheckId::GrantKeyPolicy, CheckId::GrantIamPolicy];
            let failed =
                |check: &&mut Check| of_grant.contains(&check.id) && check.status == Status::Fail;
            report.checks.iter_mut().filter(failed).for_each(|check| check.status = Status::Warn);
        }
        if let Some(settings) = &looked.settings {
            let checks = doctor::bucket_checks(settings, &known.subject(self, goal, looked));
            let denied = checks.iter().find(|check| check.status == Status::Fail);
            if let Some(check) = denied {
                refusals.push(Failure::new(
                    FailureReason::BucketPolicyDenies,
                    format!("the bucket policy: {}", check.evidence),
                    check.remedy.clone().unwrap_or_default(),
                ));
            }
            report.checks.extend(checks);
        }
        if let Some(found) = &looked.in_flight {
            let writes = self.writes(plan, looked);
            let strict = self.in_flight_is_strict();
            let (check, refusal) = in_flight::report(found, strict, writes);
            let on_github = self.environment.get("GITHUB_ACTIONS") == Some("true");
            if check.status == Status::Unknown && refusal.is_none() && writes && on_github {
                let remedy = check.remedy.as_deref().unwrap_or_default();
                report.warnings.push(format!("runs in flight: {}. {remedy}", check.evidence));
            }
            report.checks.push(check);
            refusals.extend(refusal);
        }
        if let Some(found) = &looked.readers {
            let (check, failures) = readers::judge(found);
            if check.status == Status::Unknown {
                report
                    .warnings
                    .push(format!("not every reader could be tried: {}", check.evidence));
            }
            report.checks.push(check);
            refusals.extend(failures);
        }
        (refusals, access)
    }

    /// Whether Terraform's writes must name their encryption, where a file is about to leave that
    /// out; with what forbids the run. Costs a request only where the policy is not known yet.
    async fn header(
        &self,
        goal: &Goal,
        looked: &Looked,
        files: &Files<'_>,
        known: &Known,
    ) -> (bool, Option<Failure>) {
        let verify = self.request.mode == Mode::Verify;
        if goal.key().is_some() || known.silent.is_empty() || verify || !files.change() {
            return (false, None);
        }
        let asked = match &looked.settings {
            Some(_) => None,
            None => Some(looked.bucket.policy().await),
        };
        let policy = looked.settings.as_ref().map(|settings| &settings.policy).or(asked.as_ref());
        let text = match policy {
            Some(Ok(Some(text))) => text,
            Some(Err(error)) => {
                self.log.line(&format!(
                    "whether the bucket policy takes writes without an encryption header is unknown ({error})"
                ));
                return (false, None);
            }
            _ => return (false, None),
        };
        match doctor::silence(text, &known.subject(self, goal, looked)) {
            Silence::Allowed => (false, None),
            Silence::NeedsHeader => (true, None),
            Silence::NeedsKey(statements) => {
                let failure = Failure::new(
                    FailureReason::BucketPolicyDenies,
                    format!(
                        "the bucket policy takes no write under SSE-S3 ({statements}), so Terraform could not \
                         save the state; no file was changed"
                    ),
                    "Set STATE_KMS_KEY_ID, or change the named statement of the bucket policy first",
                );
                (false, Some(failure))
            }
        }
    }

    /// What forbids a run whose region is not the bucket's.
    fn other_region(&self, report: &Report) -> Option<Failure> {
        let given = self.request.region.as_ref().filter(|region| region.asked_for)?;
        let bucket = report.bucket.as_ref()?;
        let found = bucket.region.as_ref().filter(|found| **found != given.name)?;
        Some(Failure::new(
            FailureReason::InvalidInput,
            format!(
                "the region given is {}, but the bucket {} is in {}: Terraform would not find the bucket there",
                given.name,
                bucket.name,
                printable(found)
            ),
            "Correct `region` (or TF_VAR_AWS_REGION), or leave it out: the bucket's own region is written then",
        ))
    }

    async fn carry_out(
        &self,
        report: &mut Report,
        looked: &mut Looked,
        plan: &Plan,
        access: Option<Access>,
        remedies: &Remedies,
    ) {
        if plan.rekeys().next().is_none() {
            return;
        }
        self.log.group("Re-key");
        let versioned = looked.versioned();
        let in_place = self.request.strategy.is_in_place(looked.aws.custom_endpoint());
        let keys = looked.aws.keys();
        let Looked { bucket, budget, survey, history, .. } = looked;
        let mut job =
            Job { run: self, bucket, budget, survey, plan, access, in_place, versioned, remedies };
        let results = job.rekey().await;
        let shared = job.settle(report, &results, history.as_mut());
        if let Some(history) = history
            && !shared.is_empty()
        {
            self.look_at_old_versions_again(bucket, &keys, &shared, history).await;
        }
    }

    fn judge_gate(&self, report: &mut Report, goal: &Goal, gate: Gate) {
        findings::gate(report, goal, self.request, gate);
        let everyone = report
            .check(CheckId::KeyPolicy)
            .filter(|check| check.status == Status::Fail)
            .map(|check| check.evidence.clone());
        if let (Some(evidence), Some(key)) = (everyone, goal.key()) {
            report.failures.push(Failure::new(
                FailureReason::GateOpen,
                format!("the key policy of {key}: {evidence}"),
                "Name single principals in the key policy: arn:aws:iam::ACCOUNT:role/NAME",
            ));
        }
    }

    /// Keeps the statements that may be missing.
    fn keep_statements(&self, report: &mut Report, goal: &Goal, looked: &Looked, lacks: Sides) {
        let (Some(key), Ok(caller)) = (goal.key(), &looked.evidence.caller) else { return };
        let principal = [caller.principal.arn.clone()];
        let states = looked.survey.keys();
        let (partition, region) = (key.partition(), key.region());
        let bucket = looked.state_bucket();
        let hardened = grants::hardened_statements(&principal, partition, region, bucket, &states);
        let of_iam = grants::hardened_iam_statements(key, bucket, &states);
        for (granted, name, statement) in [
            (lacks.key_policy, "key-policy-statement", grants::key_policy_statement(&principal)),
            (lacks.iam, "iam-policy-statement", grants::iam_policy_statement(key)),
            (lacks.key_policy, "key-policy-statements-hardened", hardened),
            (lacks.iam, "iam-policy-statements-hardened", of_iam),
        ] {
            if granted != Some(true) {
                self.keep_statement(report, name, &statement);
            }
        }
    }

    /// Keeps the statements that readers lack.
    fn keep_readers_statements(&self, report: &mut Report, readers: &[(String, Reader)]) {
        for (at, (role, reader)) in readers.iter().enumerate() {
            let Reader::LockedOut { statements, .. } = reader else { continue };
            for (side, statement) in statements {
                self.keep_statement(report, &readers::file_name(at + 1, role, side), statement);
            }
        }
    }

    /// Whether the bucket belongs to the account that every call names. Any answer about an
    /// object shows that it does; where all is refused, one more question tells.
    async fn owned(&self, aws: &Aws, survey: &Survey) -> Option<bool> {
        let answered = survey.states.iter().any(|state| {
            matches!(
                state.found,
                Found::Readable(_) | Found::Unreadable { .. } | Found::Absent { .. }
            )
        });
        if answered {
            return Some(true);
        }
        let owner = self.request.bucket_owner.as_deref();
        aws.is_owner(&self.request.bucket, owner).await
    }
}

/// Whether this principal needs all grants on the key: it re-keys, or reads no state without.
fn is_needed(survey: &Survey, writes: bool) -> bool {
    writes || !survey.states.iter().any(|state| matches!(state.found, Found::Readable(_)))
}

/// What the key's evidence forbids. Missing grants forbid a re-key; where nothing is to be
/// re-keyed and the states are read, they are a finding and no failure, so that a
/// principal that only reads can run `verify`.
/// `untried`: only S3 can tell, and there is no state that could be put back; and what to call it.
fn access_refusals(
    refusals: Vec<Failure>,
    goal: &Goal,
    survey: &Survey,
    writes: bool,
    untried: Option<FailureReason>,
    remedies: &Remedies,
) -> Vec<Failure> {
    let needed = is_needed(survey, writes);
    let mut kept: Vec<Failure> = refusals
        .into_iter()
        .filter(|refusal| needed || refusal.reason != FailureReason::KeyDenied)
        .collect();
    if let (Some(reason), true) = (untried, kept.is_empty()) {
        let key = goal.key().map_or("", |key| key.as_str());
        let or = match (reason, &remedies.key) {
            (FailureReason::KeyDenied, Some(remedy)) => {
                format!("Or grant what may be missing:\n\n{}", remedy.text)
            }
            _ => "Or re-run when KMS answers dry runs".to_owned(),
        };
        kept.push(Failure::new(
            reason,
            format!(
                "no dry run has shown that this principal may encrypt and decrypt under {key}, and the \
                 bucket is not known to keep a version of what is there, so not even one state can be tried safely"
            ),
            format!(
                "Turn on versioning and grant s3:GetBucketVersioning: then one state goes first, and the rest only \
                 after it was read back. {or}"
            ),
        ));
    }
    kept
}

const HEADER: &str = "the bucket policy refuses writes that name no encryption, so the backend files say \
                      `encrypt = true`, without a key. Set `encrypt: true` in every step that writes them, \
                      those of mode `backend` included, which cannot look";

/// What the checks on the bucket are about, beyond what was asked for.
struct Known {
    states: Vec<String>,
    locked: Vec<(String, String)>,
    key_policy: Option<Policy>,
    /// The states for which Terraform's next write will name no encryption.
    silent: Vec<String>,
    /// Terraform takes lock objects.
    locks: bool,
}

impl Known {
    fn new(run: &Run<'_>, goal: &Goal, looked: &Looked, files: &Files<'_>) -> Self {
        let mut states = looked.survey.keys();
        // A state that is not there yet is written, too.
        for module in &run.request.layout.modules {
            if !module.all_workspaces && !states.contains(&module.key) {
                states.push(module.key.clone());
            }
        }
        let mut silent = states.clone();
        if goal.key().is_some() || run.request.encrypt {
            silent.clear();
        }
        let encrypted = files.with_a_header();
        silent.retain(|state| !encrypted.contains(&state.as_str()));
        Self {
            locked: looked.survey.locked(),
            key_policy: looked.evidence.key_policy(),
            states,
            silent,
            locks: run.request.lock == Lock::S3 || files.lock_in_s3(),
        }
    }

    fn subject<'a>(&'a self, run: &'a Run<'_>, goal: &'a Goal, looked: &'a Looked) -> Subject<'a> {
        let request = run.request;
        let caller = looked.evidence.caller.as_ref().ok();
        let owner = request.bucket_owner.as_deref();
        let versions = 0..looked.survey.states.len();
        Subject {
            goal,
            key_policy: self.key_policy.as_ref(),
            bucket: &request.bucket,
            partition: looked.partition(goal),
            states: &self.states,
            silent: &self.silent,
            replicated: looked
                .survey
                .states
                .iter()
                .filter_map(|state| state.found.seen()?.replication.as_ref())
                .count()
                + looked.history.as_ref().map_or(0, History::replicated),
            locked: &self.locked,
            locks: self.locks,
            acl: request.acl.as_deref(),
            version_ids: versions.into_iter().any(|at| has_version(&looked.survey, at, false)),
            writer: caller.map(|caller| &caller.principal),
            across_accounts: caller.zip(owner).is_some_and(|(c, owner)| c.account != owner),
        }
    }
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

/// Whether KMS could say which key an alias or a bare id stands for; a courtesy to
/// whoever gave one, so that the refusal can name the ARN.
pub async fn stands_for(keys: &Keys, name: &str) -> Option<String> {
    keys.describe(name).await.ok().map(|key| key.arn).filter(|arn| !arn.is_empty())
}
