//! The runbook's own verification, with the real AWS CLI.

use std::process::Command;

use aws_lab::{Encryption, Lab, Topology};

use crate::common::{BUCKET, KEYS, state, step};
use crate::{lab, peer, workspace};

/// Runs the AWS CLI as a principal of the lab; exit code and output.
fn aws(lab: &Lab, principal: &str, arguments: &[&str]) -> (i32, String) {
    let result = Command::new("aws")
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", std::env::temp_dir())
        .env("PYENV_ROOT", std::env::var_os("PYENV_ROOT").unwrap_or_default())
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .envs(lab.env(principal))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&result.stdout).into_owned()
        + &String::from_utf8_lossy(&result.stderr);
    (result.status.code().unwrap_or(-1), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runbooks_verification() {
    if peer("aws").is_none() {
        return;
    }
    let (lab, key) = lab(Topology::Roles).await;
    for name in KEYS {
        lab.world().put_object(BUCKET, name, state(1), Encryption::SseS3);
    }
    tokio::task::block_in_place(|| {
        let body = std::env::temp_dir().join(format!("tfstate-kms-{}", std::process::id()));
        let body = body.to_str().unwrap();
        let get = |who: &str| {
            aws(&lab, who, &["s3api", "get-object", "--bucket", BUCKET, "--key", KEYS[0], body])
        };
        assert_eq!(get("reader").0, 0, "before, s3:GetObject alone reads the state");

        let _ = workspace().run(&step(&lab, "deploy", "apply", &key)).green();

        let query = "[ServerSideEncryption,SSEKMSKeyId]";
        let head = [
            "s3api",
            "head-object",
            "--bucket",
            BUCKET,
            "--key",
            KEYS[0],
            "--query",
            query,
            "--output",
            "text",
        ];
        let (code, text) = aws(&lab, "deploy", &head);
        assert_eq!(code, 0, "{text}");
        assert_eq!(text.trim(), format!("aws:kms\t{key}"));

        assert_eq!(get("deploy").0, 0);
        for who in ["reader", "no-key-policy", "no-iam"] {
            let (code, text) = get(who);
            assert_ne!(code, 0, "{who} reads the state");
            assert!(text.contains("AccessDenied"), "{who}: {text}");
        }
        let _ = std::fs::remove_file(body);
    });
}
