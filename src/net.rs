//! The way out: one connector for AWS, GitHub and the runner's OIDC endpoint, so that the same
//! proxies and the same certificates hold for all.
//!
//! Proxies are those of HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, in upper case or, where
//! that is not set, in lower case. Certificates are the system's (`SSL_CERT_FILE` and
//! `SSL_CERT_DIR` replace these), and those of `AWS_CA_BUNDLE` beside them
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-gen-config.html>).

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::inputs::{Environment, Secret};
use crate::names::printable;

/// Redirects that are followed: GitHub sends them for a repository that was renamed
/// (<https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api>).
const REDIRECTS: usize = 5;

/// The client for all of AWS's services.
///
/// # Errors
/// What is wrong with `AWS_CA_BUNDLE`.
pub fn aws_client(environment: &Environment) -> Result<SharedHttpClient, String> {
    let context = trusted(environment)?;
    let client = Builder::new().build_with_connector_fn(move |settings, _| {
        connector(
            settings.cloned().unwrap_or_else(|| HttpConnectorSettings::builder().build()),
            context.clone(),
        )
    });
    Ok(SharedHttpClient::new(NamesHosts(client)))
}

/// A connector's error says what happened, and not where.
#[derive(Debug)]
struct NamesHosts<T>(T);

impl HttpClient for NamesHosts<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(NamesHosts(self.0.http_connector(settings, components)))
    }
}

impl HttpConnector for NamesHosts<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let host = host_of(request.uri());
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let failed = match answer.await {
                Err(failed) => failed,
                answered => return answered,
            };
            let Some(host) = host else { return Err(failed) };
            let (timeout, user, io) = (failed.is_timeout(), failed.is_user(), failed.is_io());
            let other = failed.as_other();
            let source = Box::new(Unreached::new(host, failed));
            Err(match (timeout, user, io) {
                (true, ..) => ConnectorError::timeout(source),
                (_, true, _) => ConnectorError::user(source),
                (.., true) => ConnectorError::io(source),
                _ => ConnectorError::other(source, other),
            })
        })
    }
}

/// A request that was not answered, with the host that it was for.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {host}")]
pub struct Unreached {
    /// The host, and the port where it is not the usual one.
    pub host: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Unreached {
    /// For this cause.
    pub fn new(host: String, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { host, source: Box::new(source) }
    }
}

/// The host and port of an address, without a user's name and password.
pub fn host_of(uri: &str) -> Option<String> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    Some(printable(host)).filter(|host| !host.is_empty())
}

/// A client for GitHub's REST API, or for the runner's OIDC endpoint, that sends this token to
/// this address and nowhere else.
///
/// # Errors
/// What is wrong with `AWS_CA_BUNDLE`, or with the address.
pub fn github_client(
    environment: &Environment,
    base: &str,
    token: &Secret,
    (connect, read): (Duration, Duration),
) -> Result<Octocrab, String> {
    let settings =
        HttpConnectorSettings::builder().connect_timeout(connect).read_timeout(read).build();
    let connector = Arc::new(connector(settings, trusted(environment)?));
    let base: Uri = base.parse().map_err(|_| "the address is none".to_owned())?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
        .map_err(|_| "the token cannot be sent".to_owned())?;
    bearer.set_sensitive(true);
    let service = tower::service_fn(move |request: Request<OctoBody>| {
        send(connector.clone(), base.clone(), bearer.clone(), request)
    });
    let built =
        OctocrabBuilder::new_empty().with_service(service).with_auth(AuthState::None).build();
    match built {
        Ok(client) => Ok(client),
        Err(never) => match never {},
    }
}

async fn send(
    connector: Arc<Connector>,
    base: Uri,
    bearer: HeaderValue,
    request: Request<OctoBody>,
) -> Result<Response<Full<Bytes>>, Unanswered> {
    let host = base.authority().map(ToString::to_string).unwrap_or_default();
    let unanswered = |cause: &str| Unanswered { host: host.clone(), cause: cause.to_owned() };
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| unanswered("the request has no body"))?.to_bytes();
    let mut path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let below = base.path().trim_end_matches('/');
    if !path.starts_with(below) || below.is_empty() {
        path = format!("{below}{path}");
    }
    parts.headers.insert(AUTHORIZATION, bearer);
    parts.headers.insert(http::header::USER_AGENT, HeaderValue::from_static("tfstate-kms"));
    parts.headers.remove(HOST);
    for _ in 0..=REDIRECTS {
        let uri = Uri::builder()
            .scheme(base.scheme_str().unwrap_or("https"))
            .authority(host.as_str())
            .path_and_query(path.as_str())
            .build()
            .map_err(|_| unanswered("no address"))?;
        let mut next = Request::builder().method(parts.method.clone()).uri(uri);
        if let Some(headers) = next.headers_mut() {
            headers.clone_from(&parts.headers);
        }
        let next = next.body(SdkBody::from(body.clone())).map_err(|_| unanswered("no request"))?;
        let next = HttpRequest::try_from(next).map_err(|_| unanswered("no request"))?;
        let answer = connector.call(next).await.map_err(|error| {
            let last = std::iter::successors(
                Some(&error as &(dyn std::error::Error + 'static)),
                |error| error.source(),
            );
            unanswered(&last.last().map(ToString::to_string).unwrap_or_default())
        })?;
        let answer = answer.try_into_http1x().map_err(|_| unanswered("no HTTP"))?;
        let (head, body) = answer.into_parts();
        let moved = matches!(head.status.as_u16(), 301 | 302 | 307 | 308);
        let target = head.headers.get(LOCATION).and_then(|to| to.to_str().ok()?.parse().ok());
        // The token goes to its own host only.
        if let (true, Some(target)) = (moved && parts.method.is_safe(), target as Option<Uri>)
            && target.authority().is_none_or(|to| to.as_str() == host)
        {
            path = target.path_and_query().map(ToString::to_string).unwrap_or_default();
            continue;
        }
        let body = body.collect().await.map_err(|_| unanswered("the answer broke off"))?;
        return Ok(Response::from_parts(head, Full::new(body.to_bytes())));
    }
    Err(unanswered("too many redirects"))
}

/// Why GitHub gave no answer: the host and what the connection said, with no address's path or
/// query, and no header.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no answer from {host}: {cause}")]
pub struct Unanswered {
    host: String,
    cause: String,
}

fn connector(settings: HttpConnectorSettings, context: TlsContext) -> Connector {
    Connector::builder()
        .connector_settings(settings)
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .proxy_config(ProxyConfig::from_env())
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .build()
}

/// The certificates that are trusted: the system's, and those of `AWS_CA_BUNDLE`.
fn trusted(environment: &Environment) -> Result<TlsContext, String> {
    let mut store = TrustStore::default();
    if let Some(path) = environment.get("AWS_CA_BUNDLE") {
        let shown = crate::names::printable(path);
        let pem = std::fs::read(path).map_err(|error| {
            format!("AWS_CA_BUNDLE names `{shown}`, which cannot be read: {error}")
        })?;
        check_bundle(&pem).map_err(|why| format!("AWS_CA_BUNDLE names `{shown}`: {why}"))?;
        store = store.with_pem_certificate(pem);
    }
    TlsContext::builder()
        .with_trust_store(store)
        .build()
        .map_err(|_| "no certificates could be loaded".to_owned())
}

/// The TLS library takes a bundle for granted and ends the process on a bad one.
fn check_bundle(pem: &[u8]) -> Result<(), String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "it is no PEM file".to_owned())?;
        roots
            .add(certificate)
            .map_err(|_| "it holds a certificate that cannot be read".to_owned())?;
    }
    if roots.is_empty() { Err("it holds no certificate in PEM form".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_bundle_is_named_and_no_panic() {
        for pem in [
            "",
            "x",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
        ] {
            assert!(check_bundle(pem.as_bytes()).is_err(), "{pem}");
        }
        let nowhere = Environment::from([("AWS_CA_BUNDLE", "/no/such/file")]);
        assert!(aws_client(&nowhere).unwrap_err().contains("`/no/such/file`"));
    }
}
