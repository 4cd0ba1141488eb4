//! Emulators that answer dry runs and IAM's simulation in ways of their own: there S3 is the judge.

use std::io::Write as _;
use std::process::Command;

use crate::common::{BUCKET, KEYS, on_path, state, variables};
use crate::server::Server;
use crate::{peer, workspace};

#[test]
fn ministack_is_served() {
    let (Some(program), Some(_)) = (peer("ministack"), peer("aws")) else { return };
    is_served(&Server::start(|port| {
        let mut command = Command::new(program);
        command.env("GATEWAY_PORT", port.to_string()).env("BIND_HOST", "127.0.0.1");
        command
    }));
}

/// Not in `.ci/requirements.txt`: its pins contradict moto's. Put the `bin` of a virtual environment
/// with `localstack-core[runtime]` on PATH.
#[test]
fn localstack_is_served() {
    let Some(program) = on_path("localstack-supervisor") else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: localstack-supervisor is not on PATH");
        return;
    };
    let Some(_) = peer("aws") else { return };
    let folder = tempfile::tempdir().unwrap();
    is_served(&Server::start(|port| {
        let mut command = Command::new(program.with_file_name("python"));
        command.args(["-m", "localstack.runtime.main"]).current_dir(folder.path());
        command.env("GATEWAY_LISTEN", format!("127.0.0.1:{port}"));
        command
    }));
}

/// Plans, applies and verifies, all green, and the second time changes nothing.
fn is_served(server: &Server) {
    server.aws(&["s3api", "create-bucket", "--bucket", BUCKET]);
    let versioning = ["s3api", "put-bucket-versioning", "--bucket", BUCKET];
    server.aws(&[&versioning[..], &["--versioning-configuration", "Status=Enabled"]].concat());
    let query = ["--query", "KeyMetadata.Arn", "--output", "text"];
    let key = server.aws(&[&["kms", "create-key"][..], &query].concat());
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    std::fs::write(&body, state(1)).unwrap();
    let body = body.to_str().unwrap();
    for name in KEYS {
        server.aws(&["s3api", "put-object", "--bucket", BUCKET, "--key", name, "--body", body]);
    }
    let workspace = workspace();
    for (mode, changed) in
        [("plan", "false"), ("apply", "true"), ("verify", "false"), ("apply", "false")]
    {
        let mut all = server.environment();
        all.extend(variables(&[
            ("INPUT_MODE", mode),
            ("INPUT_BUCKET", BUCKET),
            ("INPUT_ENVIRONMENT", "production"),
            ("INPUT_PROBE", "off"),
            ("STATE_KMS_KEY_ID", &key),
        ]));
        let ran = workspace.run(&all).green();
        assert_eq!(ran.output("changed"), changed, "{mode}: {}", ran.log);
        for check in ["grant-key-policy", "grant-iam-policy"] {
            assert_eq!(ran.check(check), "pass", "{mode}: {check}: {}", ran.log);
        }
    }
    for name in KEYS {
        let out = ["s3api", "get-object", "--bucket", BUCKET, "--key", name, body];
        let query = ["--query", "SSEKMSKeyId", "--output", "text"];
        assert_eq!(server.aws(&[&out[..], &query].concat()), key);
        assert_eq!(std::fs::read(body).unwrap(), state(1));
    }
}
