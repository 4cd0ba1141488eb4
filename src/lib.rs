//! Keeps Terraform state in S3 under a customer-managed KMS key (CMK).
//!
//! Data flows downwards: [`inputs`] → [`layout`] (which objects) → [`backend`] and
//! [`files`] (backend.tf) → [`survey`] (what is there) → [`mod@plan`] (pure: goal and
//! survey → steps and refusals) → [`preflight`] (may the key be used?) → [`rekey`] (one
//! object at a time) → [`report`] (JSON, Markdown) → [`github`] (the runner's files and
//! commands). [`aws`] holds the clients; [`modes`] leads through a mode.

pub mod aws;
pub mod backend;
pub mod cancel;
pub mod check;
pub mod cli;
pub mod denials;
pub mod doctor;
pub mod explain;
mod files;
pub mod gate;
pub mod github;
pub mod grants;
pub mod history;
pub mod in_flight;
pub mod inputs;
pub mod key_policy;
pub mod layout;
pub mod lock;
pub mod modes;
pub mod names;
pub mod net;
pub mod plan;
pub mod policies;
pub mod preflight;
pub mod principal;
pub mod readers;
pub mod rekey;
pub mod report;
pub mod survey;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cancel::{Cancelled, Why};
use check::{Check, CheckId, Failure, FailureReason, Status};
use futures_util::FutureExt;
use github::{Annotation, Log};
use inputs::{Environment, Refused, Request, Runner};
use modes::Run;
use report::Report;

/// How long KMS may take to say what an alias stands for, before the refusal is
/// printed without it.
const COURTESY: Duration = Duration::from_secs(5);

/// Runs the action in this environment; the exit code is 0 only when all that was asked
/// for holds.
pub async fn run(environment: Environment, log: Log, cancelled: Cancelled) -> ExitCode {
    let started = Instant::now();
    let runner = Runner::of(&environment);
    let (result, mut warnings) = inputs::resolve(&environment);
    let mut report = Report::new();
    let mut report_path = Path::new(inputs::DEFAULT_REPORT).to_owned();
    let mut summary = true;
    let mut check_run = None;
    match result {
        Ok(request) => {
            report.mode = Some(request.mode);
            report.environment = Some(request.environment.clone());
            report_path.clone_from(&request.report_path);
            summary = request.summary;
            log.line(&announcement(&request));
            if request.check_run {
                let begun = tokio::select! {
                    begun = github::CheckRun::begin(&environment, &request) => begun,
                    () = cancelled.asked() => Err("the run was cancelled".to_owned()),
                };
                match begun {
                    Ok(begun) => check_run = Some(begun),
                    Err(why) => {
                        report.warnings.push(format!("no check run could be posted: {why}"));
                    }
                }
            }
            let locks = lock::Locks::default();
            let run = Run {
                environment: &environment,
                request: &request,
                workspace: &runner.workspace,
                log: &log,
                cancelled: &cancelled,
                locks: &locks,
            };
            let (limit, clock) = (request.time_limit, cancelled.clone());
            tokio::spawn(async move {
                tokio::time::sleep(limit).await;
                clock.set(Why::TimeLimit);
            });
            // A defect must not keep the locks from being released below.
            let execute = contained(Box::pin(run.execute(&mut report)));
            let ended = tokio::select! {
                ended = execute => Some(ended),
                () = cancelled.time_over() => None,
            };
            // What a run that was cut off has left.
            let left = tokio::select! {
                left = locks.release() => left,
                () = cancelled.haste_over() => locks.left_behind("there was no answer in time"),
            };
            report.failures.extend(left.into_iter().map(modes::not_released));
            if ended == Some(Ended::ByDefect) {
                report.failures.push(defect());
            }
            if ended.is_none() {
                report.failures.push(Failure::new(
                    cancelled.reason(),
                    "the run was stopped and did not end in time; a state in hand is either as it was \
                     or as wanted",
                    "Run mode `verify` to see how the states are",
                ));
            }
        }
        Err(refused) => {
            report.mode = refused.mode;
            let about_key: Vec<Failure>;
            (report.failures, about_key) = refusals(&environment, refused).await;
            report.checks.extend(about_key.first().map(|failure| {
                Check::new(CheckId::KeyArn, Status::Fail, failure.message.as_str())
                    .remedy(failure.remedy.as_str())
            }));
        }
    }
    warnings.append(&mut report.warnings);
    report.warnings = warnings;
    report.finish(started.elapsed());
    publish(&report, &runner, &report_path, summary, &log);
    if let Some(check_run) = check_run {
        let shown = report_path.display().to_string();
        let completed = tokio::select! {
            completed = check_run.complete(&report, &shown) => completed,
            () = cancelled.haste_over() => Err("the run was cancelled".to_owned()),
        };
        if let Err(why) = completed {
            let message = format!("the check run could not be completed: {why}");
            log.annotate(Annotation::Warning, "Check run", &message);
        }
    }
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How a part of the run ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Well,
    /// It panicked.
    ByDefect,
}

/// Keeps a panic from ending more than this. What is half done then is only reported.
async fn contained(part: impl Future<Output = ()>) -> Ended {
    match AssertUnwindSafe(part).catch_unwind().await {
        Ok(()) => Ended::Well,
        Err(_) => Ended::ByDefect,
    }
}

fn defect() -> Failure {
    Failure::new(
        FailureReason::Internal,
        "this action has a defect and stopped; what it was doing is in the log above",
        "Run mode `verify` to see how the states are, and report the defect with the log",
    )
}

/// What a defect comes to: the panic's own text could quote anything, so it is not shown.
pub fn report_panic(environment: &Environment, log: &Log) {
    let mut report = Report::new();
    report.failures.push(defect());
    report.finish(Duration::ZERO);
    let runner = Runner::of(environment);
    publish(&report, &runner, Path::new(inputs::DEFAULT_REPORT), true, log);
}

fn announcement(request: &Request) -> String {
    let key = match &request.key {
        Some(key) => format!("under {key}"),
        None => "no key (STATE_KMS_KEY_ID is empty)".to_owned(),
    };
    let keys = request.layout.keys().map(|(_, key)| key.to_owned());
    let patterns = request.layout.patterns.iter().map(ToString::to_string);
    let states: Vec<String> = keys.chain(patterns).collect();
    format!(
        "tfstate-kms {}: mode {}, environment {}, bucket {}, states {}, target: {key}",
        env!("CARGO_PKG_VERSION"),
        request.mode.as_str(),
        request.environment,
        request.bucket,
        states.join(", "),
    )
}

/// One failure for each problem with the inputs, and those of them that are about the key. Where
/// an alias or a bare id was given, KMS is asked what it stands for.
async fn refusals(environment: &Environment, refused: Refused) -> (Vec<Failure>, Vec<Failure>) {
    let mut stands_for = None;
    if let Some(name) = &refused.key_to_look_up {
        let variables = ["INPUT_REGION", "TF_VAR_AWS_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"];
        // An alias by its ARN says itself where it is.
        let own = name.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2));
        let region = own
            .or_else(|| variables.iter().find_map(|name| environment.get(name)))
            .filter(|region| names::is_region(region));
        if let Some(region) = region {
            let look_up = async {
                let aws = aws::Aws::connect(environment, region).await.ok()?;
                modes::stands_for(&aws.keys(), name).await
            };
            stands_for = tokio::time::timeout(COURTESY, look_up).await.ok().flatten();
        }
    }
    let (mut all, mut of_key) = (Vec::new(), Vec::new());
    for problem in refused.problems {
        let about_key = problem.input == "kms-key-id";
        let remedy = match &stands_for {
            Some(arn) if about_key => format!("For these credentials it stands for {arn} today"),
            _ => "Mend the input and run again; nothing was changed".to_owned(),
        };
        let failure = Failure::new(FailureReason::InvalidInput, problem.to_string(), remedy);
        of_key.extend(about_key.then(|| failure.clone()));
        all.push(failure);
    }
    (all, of_key)
}

/// Writes all that a run leaves behind. One of them failing does not keep the others.
fn publish(report: &Report, runner: &Runner, path: &Path, summary: bool, log: &Log) {
    log.end_group();
    for warning in &report.warnings {
        log.annotate(Annotation::Warning, "Terraform state encryption", warning);
    }
    for failure in report.grouped_failures() {
        let message = format!("{}\nRemedy: {}", failure.message, failure.remedy);
        log.annotate(Annotation::Error, failure.reason.meaning(), &message);
    }
    let shown = path.display().to_string();
    let complain = |what: &str, error: std::io::Error| {
        log.annotate(
            Annotation::Warning,
            "Report",
            &format!("{what} could not be written: {error}"),
        );
    };
    let json = report.json();
    if let Err(error) = files::write_below(&runner.workspace, path, json.as_bytes()) {
        complain(&shown, error);
    }
    if let Some(output) = &runner.output
        && let Err(error) = github::write_outputs(output, &report.outputs(&shown))
    {
        complain("GITHUB_OUTPUT", error);
    }
    if let Some(file) = runner.summary.as_ref().filter(|_| summary)
        && let Err(error) =
            github::append_summary(file, &report::markdown(report, &shown, report::JOB_SUMMARY))
    {
        complain("GITHUB_STEP_SUMMARY", error);
    }
    log.line(&format!(
        "{}: {} requests in {:.1} s; report in {shown}",
        report::headline(report),
        report.requests,
        report.seconds
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_defect_ends_its_part_and_no_more() {
        assert_eq!(contained(async {}).await, Ended::Well);
        let mut reached = false;
        let broken = async {
            tokio::task::yield_now().await;
            reached = true;
            panic!("a defect");
        };
        assert_eq!(contained(broken).await, Ended::ByDefect);
        assert!(reached);
    }
}
