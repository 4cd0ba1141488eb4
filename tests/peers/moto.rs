//! A third-party server that is wrong in known ways: it ignores the conditions of a copy,
//! runs dry runs for real and shows no default encryption. The states must survive it.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use crate::common::{BUCKET, KEYS, state, variables};
use crate::server::Server;
use crate::{peer, workspace};

/// Starts moto.
fn start(program: &Path) -> Server {
    Server::start(|port| {
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command
    })
}

/// A PUT as any client could send it; moto looks at no signature.
fn put(moto: &Server, path: &str, body: &str) {
    let host = moto.endpoint.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let length = body.len();
    let credential = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request";
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {credential}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn every_byte_survives_a_lax_server() {
    let (Some(program), Some(_)) = (peer("moto_server"), peer("aws")) else { return };
    let moto = start(&program);
    moto.aws(&["s3api", "create-bucket", "--bucket", BUCKET]);
    let versioning = ["s3api", "put-bucket-versioning", "--bucket", BUCKET];
    moto.aws(&[&versioning[..], &["--versioning-configuration", "Status=Enabled"]].concat());
    let query = ["--query", "KeyMetadata.Arn", "--output", "text"];
    let key = moto.aws(&[&["kms", "create-key"][..], &query].concat());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (at, name) in KEYS.iter().enumerate() {
        std::fs::write(file("body"), state(at as u64 + 1)).unwrap();
        let put = ["s3api", "put-object", "--bucket", BUCKET, "--key", name, "--body"];
        let more = ["--metadata", "owner=cabal", "--content-type", "application/json"];
        // moto shows no default encryption, and says of one of them that it has none.
        let sse = &["--server-side-encryption", "AES256"][..2 * at];
        moto.aws(&[&put[..], &[&file("body")], &more, sse].concat());
    }
    let workspace = workspace();
    let with = |more: &[(&str, &str)], key: &str| {
        let mut all = moto.environment();
        all.extend(variables(&[
            ("INPUT_BUCKET", BUCKET),
            ("INPUT_ENVIRONMENT", "production"),
            ("STATE_KMS_KEY_ID", key),
        ]));
        all.extend(variables(more));
        workspace.run(&all)
    };
    let try_run = |mode: &str, key: &str, probe: &str| {
        with(&[("INPUT_MODE", mode), ("INPUT_PROBE", probe)], key)
    };
    let run = |mode: &str, key: &str| try_run(mode, key, "off").green();
    let assert_states = |expected: &str| {
        for (at, name) in KEYS.iter().enumerate() {
            let out = file("out");
            let get = ["s3api", "get-object", "--bucket", BUCKET, "--key", name, &out];
            let query = ["--query", "[ServerSideEncryption,ContentType,Metadata.owner]"];
            let text = moto.aws(&[&get[..], &query, &["--output", "text"]].concat());
            assert_eq!(text, format!("{expected}\tapplication/json\tcabal"));
            assert_eq!(std::fs::read(&out).unwrap(), state(at as u64 + 1));
        }
    };
    // This server takes the in-place operation for an overwrite; `strategy: auto` and
    // `history: rekey` do not send it here.
    moto.aws(&[
        "s3api",
        "put-object",
        "--bucket",
        BUCKET,
        "--key",
        "victim",
        "--body",
        &file("body"),
    ]);
    let request =
        "<ObjectEncryption><SSE-KMS><KMSKeyArn>x</KMSKeyArn></SSE-KMS></ObjectEncryption>";
    put(&moto, &format!("/{BUCKET}/victim?encryption"), request);
    moto.aws(&["s3api", "get-object", "--bucket", BUCKET, "--key", "victim", &file("victim")]);
    let victim = std::fs::read(file("victim")).unwrap();
    assert_ne!(victim, std::fs::read(file("body")).unwrap(), "this server knows the operation");
    let ran = run("apply", &key);
    assert_eq!((ran.output("rekeyed"), ran.output("encryption")), ("2", "aws:kms"));
    assert_states("aws:kms");
    let ran =
        with(&[("INPUT_MODE", "apply"), ("INPUT_HISTORY", "rekey"), ("INPUT_PROBE", "off")], &key);
    assert!(
        ran.log.contains("is not sent to this endpoint"),
        "{}\n{:#}",
        ran.log,
        ran.report["checks"]
    );
    assert_states("aws:kms");
    let ran = run("verify", &key);
    assert_eq!(ran.output("verified"), "true");
    // moto asks no key for a read, and the probe says so.
    let ran = try_run("verify", &key, "federation").red("gate-open");
    assert_eq!(ran.output("gate"), "open");
    let ran = run("apply", &key);
    assert_eq!(ran.output("changed"), "false");
    let ran = run("rollback", "");
    assert_eq!((ran.output("rekeyed"), ran.output("encryption")), ("2", "AES256"));
    assert_states("AES256");
}

/// The key's life on a third-party KMS.
#[test]
fn a_keys_life_on_another_kms() {
    let (Some(program), Some(_)) = (peer("moto_server"), peer("aws")) else { return };
    let moto = start(&program);
    moto.aws(&["s3api", "create-bucket", "--bucket", BUCKET]);
    let versioning = ["s3api", "put-bucket-versioning", "--bucket", BUCKET];
    moto.aws(&[&versioning[..], &["--versioning-configuration", "Status=Enabled"]].concat());
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    std::fs::write(&body, state(1)).unwrap();
    for name in KEYS {
        let put = ["s3api", "put-object", "--bucket", BUCKET, "--key", name, "--body"];
        moto.aws(&[&put[..], &[body.to_str().unwrap()]].concat());
    }
    let workspace = workspace();
    let run = |mode: &str, more: &[(&str, &str)]| {
        let mut all = moto.environment();
        all.extend(variables(&[
            ("INPUT_MODE", mode),
            ("INPUT_BUCKET", BUCKET),
            ("INPUT_ENVIRONMENT", "production"),
            ("INPUT_PROBE", "off"),
        ]));
        all.extend(variables(more));
        workspace.run(&all)
    };
    let principal = ("INPUT_DEPLOY-PRINCIPALS", "arn:aws:iam::123456789012:user/moto");
    let confirm = ("INPUT_CONFIRM", "create");
    let plan = run("create-key", &[principal]).green();
    assert_eq!(plan.output("changed"), "false");
    let made = run("create-key", &[principal, confirm]).green();
    let (arn, id) = (made.output("kms-key-arn").to_owned(), made.output("kms-key-id").to_owned());
    assert_eq!(made.output("verified"), "true", "{}", made.log);
    let again = run("create-key", &[principal, confirm]).green();
    assert_eq!((again.output("changed"), again.output("kms-key-arn")), ("false", arn.as_str()));
    let applied = run("apply", &[("STATE_KMS_KEY_ID", &arn)]).green();
    assert_eq!(applied.output("rekeyed"), "2");
    let target = ("INPUT_TARGET-KEY", arn.as_str());
    let confirm = ("INPUT_CONFIRM", id.as_str());
    let _ = run("retire-key", &[target, confirm]).red("key-in-use");
    let _ = run("rollback", &[]).green();
    // The versions that were under the key are old ones now.
    let _ = run("retire-key", &[target, confirm]).red("key-in-use");
    let abandon = ("INPUT_ABANDON-VERSIONS", "2");
    let retired = run("retire-key", &[target, confirm, abandon]).green();
    assert_eq!(retired.output("changed"), "true", "{}", retired.log);
    let state = |moto: &Server| {
        let query = ["--query", "KeyMetadata.KeyState", "--output", "text"];
        moto.aws(&[&["kms", "describe-key", "--key-id", &id][..], &query].concat())
    };
    assert_eq!(state(&moto), "PendingDeletion");
    let recovered = run("recover-key", &[target, confirm]).green();
    assert_eq!((recovered.output("changed"), state(&moto).as_str()), ("true", "Enabled"));
    let revoked = run("revoke", &[target, principal, confirm]).green();
    assert_eq!(revoked.output("changed"), "true", "{}", revoked.log);
    let policy = moto.aws(&["kms", "get-key-policy", "--key-id", &id, "--policy-name", "default"]);
    assert!(!policy.contains("user/moto") && policy.contains("RootAdmin"), "{policy}");
}
