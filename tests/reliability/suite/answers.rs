//! Hostile answers of AWS and of GitHub, read by what reads the real ones.

use std::sync::{Mutex, OnceLock};
use std::time::UNIX_EPOCH;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use tfstate_kms::aws::{self, AwsError, Kind};
use tfstate_kms::github::{ApiError, Job, WorkflowRun, entries, meaning, understood};
use tfstate_kms::in_flight::{self, Blind, Look, Question, Workflows};

const STATUSES: [u16; 10] = [200, 204, 301, 400, 403, 404, 409, 412, 429, 503];

/// Answers every request with [`ANSWER`].
#[derive(Debug, Clone)]
struct Canned;

/// Status and body.
static ANSWER: Mutex<(u16, String)> = Mutex::new((200, String::new()));

impl HttpClient for Canned {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Canned {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = ANSWER.lock().unwrap().clone();
        let status = StatusCode::try_from(status).unwrap();
        let mut answer = HttpResponse::new(status, SdkBody::from(body.clone()));
        for name in ["x-amz-bucket-region", "x-amz-request-id", "x-amz-delete-marker"] {
            // What cannot be a header's value never arrives as one.
            let _ = answer.headers_mut().try_insert(name, body.clone());
        }
        HttpConnectorFuture::ready(Ok(answer))
    }
}

/// The clients, and what drives them: a thread of its own, since the caller's drives a
/// runtime already.
struct Clients {
    runtime: tokio::runtime::Runtime,
    s3: aws_sdk_s3::Client,
    kms: aws_sdk_kms::Client,
}

fn clients() -> &'static Clients {
    static CLIENTS: OnceLock<Clients> = OnceLock::new();
    CLIENTS.get_or_init(|| {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "canned");
        let s3 = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(credentials.clone())
            .http_client(SharedHttpClient::new(Canned))
            .retry_config(RetryConfig::disabled());
        let kms = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(credentials)
            .http_client(SharedHttpClient::new(Canned))
            .retry_config(RetryConfig::disabled());
        Clients {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
            kms: aws_sdk_kms::Client::from_conf(kms.build()),
        }
    })
}

/// What the three calls come to that are answered so.
async fn errors() -> Vec<AwsError> {
    let Clients { s3, kms, .. } = clients();
    let get = s3.get_object().bucket("b").key("k").send().await;
    let copy = s3.copy_object().bucket("b").key("k").copy_source("b/k").send().await;
    let decrypt = kms.decrypt().key_id("k").send().await;
    [
        get.err().map(|error| aws::classify("s3:GetObject", &error)),
        copy.err().map(|error| aws::classify("s3:CopyObject", &error)),
        decrypt.err().map(|error| aws::classify("kms:Decrypt", &error)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// S3's and KMS's answers, through the SDK and what says what its errors mean.
pub fn aws(text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let status = STATUSES[text.len() % STATUSES.len()];
    let body = match text.len() / STATUSES.len() % 5 {
        0 => text.to_owned(),
        1 => format!("<Error><Code>{escaped}</Code><Message>{escaped}</Message></Error>"),
        2 => format!("<Error><Code>AccessDenied</Code><Message>{escaped}</Message></Error>"),
        3 => json!({ "__type": text, "message": text }).to_string(),
        _ => json!({ "__type": "AccessDeniedException", "message": text }).to_string(),
    };
    *ANSWER.lock().unwrap() = (status, body);
    let (send, receive) = std::sync::mpsc::channel();
    clients().runtime.spawn(async move { send.send(errors().await) });
    // Nothing comes where it has panicked.
    for error in receive.recv().expect("the answer was read") {
        let shown = error.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert!(shown.chars().count() < 2000, "{} characters", shown.chars().count());
        // Neither is ever taken from a status or a text alone.
        let code = error.code.as_deref().unwrap_or_default();
        match error.kind {
            Kind::WouldSucceed => assert_eq!(code, "DryRunOperationException"),
            Kind::Denied => {
                assert!(
                    code.contains("AccessDenied") || code == "AllAccessDisabled" || status == 403
                )
            }
            Kind::ConditionFailed => assert!(code == "PreconditionFailed" || status == 412),
            _ => {}
        }
    }
}

/// GitHub's lists, with each field in turn of the text's making, and its errors.
pub fn github(text: &str) {
    let parsed = serde_json::from_str::<Value>(text).ok();
    let made: Vec<Value> =
        [Some(Value::from(text)), parsed.clone()].into_iter().flatten().collect();
    let run = json!({ "id": 1, "path": ".github/workflows/infra.yml", "status": "in_progress",
        "head_branch": "main", "run_started_at": "2026-11-24T03:35:02Z", "html_url": "https://x/1" });
    let job = json!({ "status": "in_progress", "conclusion": null, "runner_name": "r",
        "started_at": "2026-11-24T03:35:02Z", "steps": [{ "name": "a", "status": "in_progress" }] });
    let mut answers: Vec<Value> = parsed.into_iter().collect();
    for value in &made {
        for field in ["id", "path", "status", "head_branch", "run_started_at", "html_url"] {
            let mut odd = run.clone();
            odd[field] = value.clone();
            answers.push(json!({ "workflow_runs": [run, odd] }));
        }
        for field in ["status", "conclusion", "runner_name", "started_at", "steps"] {
            let mut odd = job.clone();
            odd[field] = value.clone();
            answers.push(json!({ "jobs": [odd] }));
        }
        answers.push(json!({ "workflow_runs": value, "jobs": value }));
    }
    for answer in answers {
        let listed = entries(answer.clone(), "workflow_runs");
        let runs = listed.clone().and_then(|listed| understood(&listed));
        // None is passed over.
        if let (Ok(listed), Ok(runs)) = (&listed, &runs) {
            assert_eq!(listed.len(), runs.len());
        }
        let jobs = entries(answer, "jobs").unwrap_or_default().iter().map(Job::of).collect();
        judged(runs.unwrap_or_default(), jobs);
    }
    for status in STATUSES {
        let header = |name: &str| name.len().is_multiple_of(2).then(|| text.to_owned());
        let error = meaning(status, text, UNIX_EPOCH, header);
        // A refusal for want of a right is the only one that `auto` excuses.
        let blind = Blind::from(error.clone());
        assert!(!blind.no_right || matches!(status, 401 | 403 | 404), "{error:?}");
        assert!(!matches!(error, ApiError::RateLimited(_)) || matches!(status, 403 | 429));
        assert!(!blind.why.chars().any(char::is_control), "{:?}", blind.why);
    }
}

/// An active run of a workflow that matters is never judged away, whatever its fields hold.
fn judged(runs: Vec<WorkflowRun>, jobs: Vec<Job>) {
    let files = runs.iter().map(|run| run.workflow.clone()).collect();
    let own = u64::MAX;
    let question = Question {
        workflows: Workflows { files, ..Workflows::default() },
        branch: "*",
        own,
        runner: Some("r"),
    };
    let ids: Vec<u64> = runs.iter().map(|run| run.id).collect();
    let held = ["waiting", "pending"];
    let active = runs.iter().filter(|run| run.id != own && !held.contains(&run.status.as_str()));
    let active = active.count();
    let jobs = ids.iter().map(|id| (*id, jobs.clone())).collect();
    let found = in_flight::judge(&question, &Look { runs, jobs });
    assert!(found.busy.len() >= active, "{found:?}");
    let (check, failure) = in_flight::report(&Ok(found), true, true);
    let message = failure.map(|failure| failure.message).unwrap_or_default();
    assert!(!format!("{}{message}", check.evidence).chars().any(char::is_control));
}
