//! An AWS in one process, for the demo and the tests: S3, KMS, STS and a little of IAM, with
//! accounts, principals and policies on both sides, strict where public emulators are lax.
//! GitHub's OIDC token endpoint is there too, for sessions that a job's token starts, and the
//! part of its REST API that the action calls.
//!
//! A [`World`] is arranged, a [`Lab`] serves it on a port of this machine, and its
//! [log](Lab::log) says what was asked. Nothing here is AWS: the rules are written down
//! after its documentation, each beside the code that follows it.

#![allow(clippy::expect_used, reason = "a test's arrangement that does not hold is a failed test")]

mod buckets;
mod cabal;
mod dynamodb;
mod faults;
mod github;
mod github_rest;
mod iam;
mod kms;
mod kms_aliases;
mod kms_keys;
mod kms_policy;
mod log;
pub mod policy;
mod query;
mod roles;
mod s3;
mod s3_checksum;
mod s3_config;
mod s3_list;
mod s3_objects;
mod s3_rules;
mod s3_update;
mod server;
mod sigv4;
mod sts;
mod wire;
mod world;

use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use buckets::{Bucket, Encryption, Lifecycle, Restore, Retention, UpdateEncryption, Version};
pub use cabal::{
    ACTIONS, BUCKET, DEPLOY_ACCOUNT, KEY, REGION, STATE_ACCOUNT, Topology, cabal, key_policy,
};
pub use faults::{Effect, Freeze, Matcher, Moment, Struck};
pub use github_rest::{GitHub, WorkflowJob, WorkflowRun};
pub use kms_keys::Grant;
pub use log::{LogEntry, sequential_round_trips};
pub use policy::Identity;
pub use roles::Role;
pub use world::{Failure, Key, Principal, World};

use server::{Shared, lock};
use wire::Wire;

/// A running lab; it stops when this is dropped.
pub struct Lab {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Lab {
    /// Serves a world on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(world: World) -> anyhow::Result<Self> {
        Self::start_on(world, ([127, 0, 0, 1], 0).into()).await
    }

    /// Serves a world on this address.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start_on(world: World, address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(world));
        let server = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { shared, address, server })
    }

    /// Where it listens, as AWS_ENDPOINT_URL takes it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment of a principal of the preset.
    pub fn env(&self, principal: &str) -> Vec<(String, String)> {
        let world = self.world();
        let who = world.principals.get(principal).expect("a principal of the preset");
        let mut variables = vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), who.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), who.secret.clone()),
        ];
        variables.extend(who.token.clone().map(|token| ("AWS_SESSION_TOKEN".to_owned(), token)));
        variables.push(("AWS_REGION".to_owned(), REGION.to_owned()));
        variables.push(("AWS_ENDPOINT_URL".to_owned(), self.endpoint()));
        variables
    }

    /// What GitHub gives to a job with `id-token: write`: the URL, to which `&audience=` is
    /// appended, and the bearer token for it.
    pub fn oidc_env(&self) -> Vec<(String, String)> {
        let url = format!("{}{}?api-version=2.0", self.endpoint(), github::PATH);
        vec![
            ("ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(), url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(), github::REQUEST_TOKEN.to_owned()),
        ]
    }

    /// What a job knows of GitHub: the API, the repository, the run; and its token, which the
    /// action takes as an input.
    pub fn github_env(&self) -> Vec<(String, String)> {
        let github = &self.world().github;
        [
            ("GITHUB_API_URL", format!("{}{}", self.endpoint(), github_rest::PATH)),
            ("GITHUB_SERVER_URL", "https://github.com".to_owned()),
            ("GITHUB_REPOSITORY", github.repository.clone()),
            ("GITHUB_SHA", "0123456789012345678901234567890123456789".to_owned()),
            ("GITHUB_RUN_ID", "1".to_owned()),
            ("GITHUB_RUN_ATTEMPT", "1".to_owned()),
            ("INPUT_GITHUB-TOKEN", github.token.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Everything that only its holder may know: keys and tokens, of sessions too.
    pub fn secrets(&self) -> Vec<String> {
        let world = self.world();
        let of = |who: &Principal| [Some(who.secret.clone()), who.token.clone()];
        let mut secrets: Vec<String> = world.principals.values().flat_map(of).flatten().collect();
        secrets.extend(world.web_tokens.keys().cloned());
        secrets.extend([github::REQUEST_TOKEN.to_owned(), world.github.token.clone()]);
        secrets
    }

    /// The names of all principals of the preset; not the sessions that STS started.
    pub fn principals(&self) -> Vec<String> {
        let world = self.world();
        world.principals.keys().filter(|name| !roles::is_generated(name)).cloned().collect()
    }

    /// The world, to arrange and to inspect. While it is held, no request is answered.
    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.shared.world)
    }

    /// The requests so far.
    pub fn log(&self) -> Vec<LogEntry> {
        lock(&self.shared.log).clone()
    }

    /// Forgets them.
    pub fn clear_log(&self) {
        lock(&self.shared.log).clear();
    }

    /// Each request from now on waits that long before it is carried out.
    pub fn set_latency(&self, latency: Duration) {
        *lock(&self.shared.latency) = latency;
    }

    /// Spoils the requests that match; what is returned says how many it were.
    pub fn inject(&self, matcher: Matcher, effect: Effect) -> Struck {
        let (fault, struck) = faults::Fault::new(matcher, effect);
        lock(&self.shared.faults).push(fault);
        struck
    }

    /// Spoils no more.
    pub fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Small answers must not wait for more.
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move {
            let wire = Wire::default();
            let connection = TokioIo::new(wire.over(stream));
            let service = service_fn(move |request| shared.clone().serve(request, wire.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(connection, service)
                .await;
        });
    }
}
