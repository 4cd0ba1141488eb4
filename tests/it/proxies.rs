//! One set of rules for every way out: proxies and private certificates hold for AWS, GitHub and
//! the runner's OIDC endpoint alike.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::bench::Bench;
use crate::common::Ran;

/// What a proxy was asked for: the request line's target, and whether it came with credentials.
type Asked = Arc<Mutex<Vec<(String, bool)>>>;

/// A forward proxy: requests in absolute form, and CONNECT.
async fn proxy() -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move { forward(client, &seen).await });
        }
    });
    (address, asked)
}

async fn forward(mut client: TcpStream, seen: &Asked) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).ok()?;
    let mut words = text.lines().next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let is_credential = |line: &&str| line.to_ascii_lowercase().starts_with("proxy-authorization:");
    let with_credentials = text.lines().any(|line| is_credential(&line));
    seen.lock().unwrap().push((target.to_owned(), with_credentials));
    if method == "CONNECT" {
        let mut server = TcpStream::connect(target).await.ok()?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
        copy_bidirectional(&mut client, &mut server).await.ok()?;
        return Some(());
    }
    let rest = target.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut server = TcpStream::connect(host).await.ok()?;
    let mut lines = text.lines().skip(1).filter(|line| !is_credential(line));
    let mut sent = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n");
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        sent.push_str(&format!("{line}\r\n"));
    }
    server.write_all(format!("{sent}\r\n").as_bytes()).await.ok()?;
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}

async fn run(bench: &Bench, more: &[(&str, &str)]) -> Ran {
    let mut variables = bench.job_variables("deploy", "apply", &bench.key, more);
    variables.push(("INPUT_CHECK-RUN".into(), "true".into()));
    variables.push(("INPUT_PROBE".into(), "web-identity".into()));
    tokio::task::block_in_place(|| bench.workspace.run(&variables))
}

/// The three kinds of targets: S3, GitHub's API, the OIDC endpoint.
fn kinds(asked: &Asked) -> [usize; 3] {
    let asked = asked.lock().unwrap();
    let count = |part: &str| asked.iter().filter(|(target, _)| target.contains(part)).count();
    [count("cabal-tf-backend"), count("/repos/"), count("audience=")]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_out_takes_the_proxy() {
    let (address, asked) = proxy().await;
    let with = format!("http://user:hunter2@{address}");
    for name in ["HTTP_PROXY", "http_proxy"] {
        let bench = Bench::new().await;
        asked.lock().unwrap().clear();
        let ran = run(&bench, &[(name, &with)]).await.green();
        assert!(kinds(&asked).iter().all(|count| *count > 0), "{:?}\n{}", kinds(&asked), ran.log);
        assert!(asked.lock().unwrap().iter().all(|(_, with_credentials)| *with_credentials));
        assert!(!ran.everything().contains("hunter2"), "{}", ran.log);
        assert_eq!(ran.output("gate"), "holds", "{}", ran.log);
    }
    let bench = Bench::new().await;
    asked.lock().unwrap().clear();
    let _ =
        run(&bench, &[("HTTP_PROXY", &with), ("NO_PROXY", "127.0.0.1,localhost")]).await.green();
    assert_eq!(kinds(&asked), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_there_is_an_error_without_its_password() {
    let bench = Bench::new().await;
    let more =
        [("HTTP_PROXY", "http://user:hunter2@127.0.0.1:9"), ("TFSTATE_KMS_ATTEMPT_TIMEOUT", "5")];
    let ran = run(&bench, &more).await;
    assert_eq!(ran.code, 1, "{}", ran.log);
    assert!(ran.log.contains("proxy (HTTPS_PROXY, NO_PROXY)"), "{}", ran.log);
    assert!(
        ran.log.contains("GitHub gave no usable answer: no answer from 127.0.0.1:"),
        "{}",
        ran.log
    );
    assert!(!ran.everything().contains("hunter2"), "{}", ran.log);
}

/// The lab behind TLS, with a certificate of an authority that nobody knows.
async fn behind_tls(lab: SocketAddr) -> (SocketAddr, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![cert.der().clone()], key)
    .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await.ok()?;
                let mut server = TcpStream::connect(lab).await.ok()?;
                copy_bidirectional(&mut client, &mut server).await.ok()
            });
        }
    });
    (address, cert.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_where_it_is_named() {
    let bench = Bench::new().await;
    let endpoint = bench.lab.env("deploy").into_iter().find(|(name, _)| name == "AWS_ENDPOINT_URL");
    let plain = endpoint.unwrap().1;
    let lab: SocketAddr = plain.trim_start_matches("http://").parse().unwrap();
    let (address, pem) = behind_tls(lab).await;
    let bundle = bench.workspace.path().join("ca.pem");
    std::fs::write(&bundle, &pem).unwrap();
    let mut variables = bench.job_variables("deploy", "apply", &bench.key, &[]);
    for (name, value) in &mut variables {
        if !name.starts_with("GITHUB_SERVER") {
            *value = value.replace(&plain, &format!("https://{address}"));
        }
    }
    variables.push(("INPUT_CHECK-RUN".into(), "true".into()));
    variables.push(("INPUT_PROBE".into(), "web-identity".into()));
    variables.push(("TFSTATE_KMS_ATTEMPT_TIMEOUT".into(), "5".into()));
    let run = |more: &[(&str, &str)]| {
        let mut variables = variables.clone();
        variables.extend(crate::common::variables(more));
        tokio::task::block_in_place(|| bench.workspace.run(&variables))
    };
    let ran = run(&[]);
    assert_eq!(ran.code, 1, "{}", ran.log);
    assert!(ran.log.contains("certificate"), "{}", ran.log);
    let named = bundle.to_str().unwrap();
    let ran = run(&[("AWS_CA_BUNDLE", named)]).green();
    assert_eq!((ran.output("rekeyed"), ran.output("gate")), ("2", "holds"), "{}", ran.log);
    assert_eq!(bench.lab.world().github.check_runs.len(), 1, "{}", ran.log);
    // Through a proxy, too: by CONNECT.
    let (proxy, asked) = proxy().await;
    let proxy = format!("http://{proxy}");
    let _ = run(&[("AWS_CA_BUNDLE", named), ("HTTPS_PROXY", &proxy)]).green();
    assert!(asked.lock().unwrap().iter().any(|(target, _)| *target == address.to_string()));
    // A bundle that is none is named.
    std::fs::write(&bundle, "no certificate").unwrap();
    let ran = run(&[("AWS_CA_BUNDLE", named)]);
    assert_eq!(ran.code, 1);
    assert!(ran.log.contains("AWS_CA_BUNDLE names") && ran.log.contains("ca.pem"), "{}", ran.log);
}
