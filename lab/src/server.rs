//! The one port: tells the services apart, logs, delays and spoils requests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::http::{HeaderMap, Method, StatusCode};
use hyper::{Request, Response};
use s3s::service::{S3Service, S3ServiceBuilder};
use serde_json::{Value, json};

use crate::faults::{Effect, Fault, Moment};
use crate::log::LogEntry;
use crate::query::{Form, Service, in_own_words, percent_decoded, xml};
use crate::s3::Store;
use crate::sigv4::Claim;
use crate::wire::{Rest, Wire};
use crate::world::{Failure, Principal, World};
use crate::{dynamodb, github, github_rest, iam, kms, sts};

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Bodies for KMS, STS and IAM are small; a larger one is not theirs.
const SMALL: usize = 1 << 20;

/// By then an answer has reached a client on this machine.
const ARRIVAL: Duration = Duration::from_millis(5);

/// What all connections share.
pub(crate) struct Shared {
    pub world: Arc<Mutex<World>>,
    pub faults: Mutex<Vec<Fault>>,
    pub log: Mutex<Vec<LogEntry>>,
    pub latency: Mutex<Duration>,
    pub started: Instant,
    s3: S3Service,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        let world = Arc::new(Mutex::new(world));
        let store = Store(world.clone());
        let mut builder = S3ServiceBuilder::new(store.clone());
        builder.set_auth(store.clone());
        // s3s does not know UpdateObjectEncryption.
        builder.set_route(store);
        Self {
            world,
            faults: Mutex::default(),
            log: Mutex::default(),
            latency: Mutex::default(),
            started: Instant::now(),
            s3: builder.build(),
        }
    }

    /// Serves one request. An error closes the connection without an answer.
    pub(crate) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        wire: Wire,
    ) -> Result<Answer, io::Error> {
        let (parts, body) = request.into_parts();
        let start = self.started.elapsed();
        let call = Call::of(&parts, body).await?;
        let at = {
            let mut log = lock(&self.log);
            log.push(self.entry(&parts, &call, start));
            log.len() - 1
        };
        let latency = *lock(&self.latency);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let result = self.spoiled(parts, call, &wire).await;
        let mut log = lock(&self.log);
        // The log may have been cleared meanwhile.
        if let Some(entry) = log.get_mut(at).filter(|entry| entry.start == start) {
            entry.end = self.started.elapsed();
            entry.status = result.as_ref().map_or(0, |answer| answer.status().as_u16());
        }
        result
    }

    fn entry(&self, parts: &Parts, call: &Call, start: Duration) -> LogEntry {
        let world = lock(&self.world);
        let claim = Claim::of(parts);
        let principal = claim.and_then(|claim| world.by_access_key(&claim.access_key).map(name_of));
        let told = |name: &str| {
            name.starts_with("x-amz-server-side-encryption")
                || [
                    "if-match",
                    "if-none-match",
                    "x-amz-copy-source-if-match",
                    "x-amz-checksum-mode",
                    "x-amz-expected-bucket-owner",
                ]
                .contains(&name)
        };
        let headers: BTreeMap<String, String> = parts
            .headers
            .iter()
            .filter(|(name, _)| told(name.as_str()))
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect();
        LogEntry {
            service: call.service(),
            operation: call.operation().to_owned(),
            principal,
            resource: call.resource().map(str::to_owned),
            status: 0,
            start,
            end: start,
            headers,
        }
    }

    async fn spoiled(
        self: &Arc<Self>,
        parts: Parts,
        call: Call,
        wire: &Wire,
    ) -> Result<Answer, io::Error> {
        let Some(effect) = self.fate(&call) else { return self.carried_out(parts, call).await };
        match &*effect {
            Effect::Fail { status, code, message } => Ok(call.refusal(*status, code, message)),
            Effect::FailAfter { status, code } => {
                let answer = call.refusal(*status, code, "injected, after the deed");
                self.carried_out(parts, call).await?;
                Ok(answer)
            }
            Effect::Timeout => std::future::pending().await,
            Effect::Late(delay) => {
                let (shared, delay) = (self.clone(), *delay);
                let call = call.whole().await?;
                // A task of its own: this one ends with the connection.
                let deed = tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    shared.carried_out(parts, call).await
                });
                deed.await.map_err(io::Error::other)?
            }
            Effect::ResetBefore => Err(io::Error::other("reset before")),
            Effect::ResetAfter => {
                self.carried_out(parts, call).await?;
                Err(io::Error::other("reset after"))
            }
            Effect::Truncate => wire.half(self.carried_out(parts, call).await?, Rest::Lost).await,
            Effect::Stall => wire.half(self.carried_out(parts, call).await?, Rest::Awaited).await,
            // Done before its fate was asked for.
            Effect::Act(_) => self.carried_out(parts, call).await,
            Effect::Freeze(freeze) => {
                if !freeze.begins() {
                    return std::future::pending().await;
                }
                if freeze.moment == Moment::Before {
                    freeze.tell();
                    return std::future::pending().await;
                }
                let answer = self.carried_out(parts, call).await?;
                if freeze.moment == Moment::CarriedOut {
                    freeze.tell();
                    return std::future::pending().await;
                }
                let effect = effect.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(ARRIVAL).await;
                    if let Effect::Freeze(freeze) = &*effect {
                        freeze.tell();
                    }
                });
                Ok(answer)
            }
        }
    }

    /// What is to happen to this request. Each fault counts what it sees. Whoever is to act
    /// before it does so; of the others that are due the first one decides.
    fn fate(&self, call: &Call) -> Option<Arc<Effect>> {
        let mut fate = None;
        let mut acts = Vec::new();
        for fault in lock(&self.faults).iter_mut() {
            if !fault.is_due(call.operation(), call.resource()) {
                continue;
            }
            if fault.acts() {
                acts.push(fault.strike());
            } else if fate.is_none() {
                fate = Some(fault.strike());
            }
        }
        for act in acts {
            if let Effect::Act(act) = &*act {
                act(&mut lock(&self.world));
            }
        }
        fate
    }

    async fn carried_out(&self, parts: Parts, call: Call) -> Result<Answer, io::Error> {
        match call {
            Call::S3 { body, .. } => {
                let request = Request::from_parts(parts, body);
                let answer =
                    self.s3.call(request).await.map_err(|_| io::Error::other("not HTTP"))?;
                Ok(answer.map(|body| {
                    body.map_err(|error| io::Error::other(error.to_string())).boxed_unsync()
                }))
            }
            Call::Kms { operation, body } => {
                let result = self.kms(&parts, &operation, &body);
                Ok(match result {
                    Ok(output) => small(200, "application/x-amz-json-1.1", output.to_string()),
                    Err(failure) => kms_error(failure.status, failure.code, &failure.message),
                })
            }
            Call::Dynamodb { operation, body } => {
                Ok(match self.dynamodb(&parts, &operation, &body) {
                    Ok(output) => small(200, "application/x-amz-json-1.0", output.to_string()),
                    Err(failure) => kms_error(failure.status, failure.code, &failure.message),
                })
            }
            Call::Form { service, operation, body } => {
                Ok(match self.form(&parts, service, &operation, &body) {
                    Ok(text) => small(200, "text/xml", text),
                    Err(failure) => {
                        let failure = in_own_words(failure);
                        form_error(service, failure.status, failure.code, &failure.message)
                    }
                })
            }
            Call::GithubRest { body, .. } => {
                let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
                let github = &mut lock(&self.world).github;
                let (status, output) =
                    github_rest::call(github, &parts.method, path, query, &parts.headers, &body);
                let text = if output.is_null() { String::new() } else { output.to_string() };
                let mut answer = small(status, "application/json", text);
                if github.rate_limited {
                    for (name, value) in
                        [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "4000000000")]
                    {
                        answer.headers_mut().insert(name, HeaderValue::from_static(value));
                    }
                }
                Ok(answer)
            }
            Call::Github => {
                let query = parts.uri.query().unwrap_or_default();
                Ok(match github::token(&mut lock(&self.world), &parts.headers, query) {
                    Ok(output) => small(200, "application/json", output.to_string()),
                    Err(failure) => github_error(failure.status, failure.code, &failure.message),
                })
            }
        }
    }

    /// Whose request it is, if the signature is right.
    fn signer(&self, parts: &Parts, body: &[u8]) -> Result<(Principal, Claim), Failure> {
        let missing = || {
            Failure::new("MissingAuthenticationTokenException", 403, "Missing Authentication Token")
        };
        let claim = Claim::of(parts).ok_or_else(missing)?;
        let world = lock(&self.world);
        let invalid = |message| Failure::new("UnrecognizedClientException", 400, message);
        let who = world
            .by_access_key(&claim.access_key)
            .ok_or_else(|| invalid("The security token included in the request is invalid."))?;
        let token = parts.headers.get("x-amz-security-token").and_then(|value| value.to_str().ok());
        if token != who.token.as_deref() {
            return Err(invalid("The security token included in the request is invalid."));
        }
        if !claim.is_made_by(&who.secret, parts, body) {
            let message =
                "The request signature we calculated does not match the signature you provided.";
            return Err(Failure::new("InvalidSignatureException", 403, message));
        }
        Ok((who.clone(), claim))
    }

    fn kms(&self, parts: &Parts, operation: &str, body: &[u8]) -> Result<Value, Failure> {
        let (who, claim) = self.signer(parts, body)?;
        let input = serde_json::from_slice(body).unwrap_or(json!({}));
        kms::call(&mut lock(&self.world), &who, &claim.region, operation, &input)
    }

    fn dynamodb(&self, parts: &Parts, operation: &str, body: &[u8]) -> Result<Value, Failure> {
        let (who, claim) = self.signer(parts, body)?;
        let input = serde_json::from_slice(body).unwrap_or(json!({}));
        dynamodb::call(&lock(&self.world), &who, &claim.region, operation, &input)
    }

    fn form(
        &self,
        parts: &Parts,
        service: Service,
        operation: &str,
        body: &[u8],
    ) -> Result<String, Failure> {
        let form = Form::of(body);
        if service == Service::Sts && operation == sts::WITH_WEB_IDENTITY {
            return sts::with_web_identity(&mut lock(&self.world), &form);
        }
        let (who, _) = self.signer(parts, body)?;
        let mut world = lock(&self.world);
        match service {
            Service::Sts => sts::call(&mut world, &who, operation, &form),
            Service::Iam => iam::call(&world, &who, operation, &form),
        }
    }
}

fn name_of(principal: &Principal) -> String {
    principal.identity.shown().to_owned()
}

/// A request, told apart.
enum Call {
    S3 {
        operation: String,
        key: Option<String>,
        body: s3s::Body,
    },
    Kms {
        operation: String,
        body: Bytes,
    },
    Dynamodb {
        operation: String,
        body: Bytes,
    },
    /// STS or IAM.
    Form {
        service: Service,
        operation: String,
        body: Bytes,
    },
    /// The OIDC token endpoint.
    Github,
    /// GitHub's REST API.
    GithubRest {
        operation: &'static str,
        body: Bytes,
    },
}

impl Call {
    async fn of(parts: &Parts, body: Incoming) -> Result<Self, io::Error> {
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(operation) = text("x-amz-target").and_then(|t| t.strip_prefix("TrentService."))
        {
            let body = limited(body).await?;
            return Ok(Self::Kms { operation: operation.to_owned(), body });
        }
        let target = text("x-amz-target").and_then(|t| t.strip_prefix("DynamoDB_20120810."));
        if let Some(operation) = target {
            let body = limited(body).await?;
            return Ok(Self::Dynamodb { operation: operation.to_owned(), body });
        }
        let form = text("content-type")
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        if parts.method == Method::POST && parts.uri.path() == "/" && form {
            let body = limited(body).await?;
            let form = Form::of(&body);
            let operation = form.get("Action").unwrap_or_default().to_owned();
            return Ok(Self::Form { service: Service::of(&form), operation, body });
        }
        if parts.method == Method::GET && parts.uri.path() == github::PATH {
            return Ok(Self::Github);
        }
        if parts.uri.path().starts_with(github_rest::PATH) {
            let operation = github_rest::operation(&parts.method, parts.uri.path());
            return Ok(Self::GithubRest { operation, body: limited(body).await? });
        }
        let (operation, key) =
            s3_operation(&parts.method, parts.uri.path(), parts.uri.query(), &parts.headers);
        Ok(Self::S3 { operation, key, body: body.into() })
    }

    /// With its body as it was sent, whatever becomes of the client.
    async fn whole(self) -> io::Result<Self> {
        let Self::S3 { operation, key, body } = self else { return Ok(self) };
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Self::S3 { operation, key, body: body.into() })
    }

    fn service(&self) -> &'static str {
        match self {
            Self::S3 { .. } => "s3",
            Self::Kms { .. } => "kms",
            Self::Dynamodb { .. } => "dynamodb",
            Self::Form { service, .. } => service.name(),
            Self::Github | Self::GithubRest { .. } => "github",
        }
    }

    fn operation(&self) -> &str {
        match self {
            Self::S3 { operation, .. }
            | Self::Kms { operation, .. }
            | Self::Dynamodb { operation, .. }
            | Self::Form { operation, .. } => operation,
            Self::Github => "GetOidcToken",
            Self::GithubRest { operation, .. } => operation,
        }
    }

    fn resource(&self) -> Option<&str> {
        match self {
            Self::S3 { key, .. } => key.as_deref(),
            Self::Kms { .. }
            | Self::Dynamodb { .. }
            | Self::Form { .. }
            | Self::Github
            | Self::GithubRest { .. } => None,
        }
    }

    fn refusal(&self, status: u16, code: &str, message: &str) -> Answer {
        match self {
            Self::S3 { .. } => {
                let text = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{}</Code><Message>{}</Message>\
                     <RequestId>lab</RequestId></Error>",
                    xml(code),
                    xml(message)
                );
                small(status, "application/xml", text)
            }
            Self::Kms { .. } | Self::Dynamodb { .. } => kms_error(status, code, message),
            Self::Form { service, .. } => form_error(*service, status, code, message),
            Self::Github | Self::GithubRest { .. } => github_error(status, code, message),
        }
    }
}

async fn limited(body: Incoming) -> io::Result<Bytes> {
    let collected = Limited::new(body, SMALL).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|error| io::Error::other(error.to_string()))
}

/// S3's operations are told apart by method, path, query and headers.
fn s3_operation(
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> (String, Option<String>) {
    let (bucket, key) =
        path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let has = |name: &str| {
        query.unwrap_or_default().split('&').any(|pair| pair.split('=').next() == Some(name))
    };
    let object = !key.is_empty();
    let name = match (method.as_str(), object) {
        _ if bucket.is_empty() => "ListBuckets",
        ("GET", true) if has("tagging") => "GetObjectTagging",
        ("PUT", true) if has("tagging") => "PutObjectTagging",
        ("PUT", true) if has("encryption") => "UpdateObjectEncryption",
        ("GET", true) => "GetObject",
        ("HEAD", true) => "HeadObject",
        ("PUT", true) if headers.contains_key("x-amz-copy-source") => "CopyObject",
        ("PUT", true) => "PutObject",
        ("POST", true) if has("restore") => "RestoreObject",
        ("DELETE", true) => "DeleteObject",
        ("HEAD", false) => "HeadBucket",
        ("GET", false) if has("list-type") => "ListObjectsV2",
        ("GET", false) if has("versions") => "ListObjectVersions",
        ("GET", false) if has("location") => "GetBucketLocation",
        ("GET", false) if has("versioning") => "GetBucketVersioning",
        ("GET", false) => "GetBucketConfiguration",
        _ => "Other",
    };
    (name.to_owned(), object.then(|| percent_decoded(key)))
}

fn kms_error(status: u16, code: &str, message: &str) -> Answer {
    small(
        status,
        "application/x-amz-json-1.1",
        json!({ "__type": code, "message": message }).to_string(),
    )
}

fn form_error(service: Service, status: u16, code: &str, message: &str) -> Answer {
    small(status, "text/xml", service.error(code, message))
}

fn github_error(status: u16, code: &str, message: &str) -> Answer {
    small(status, "application/json", json!({ "code": code, "message": message }).to_string())
}

fn small(status: u16, kind: &'static str, text: String) -> Answer {
    let body = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    answer.headers_mut().insert("x-amzn-requestid", HeaderValue::from_static("lab"));
    answer
}
