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

/// The command that a run names for an archived state restores it, and the next run re-keys it.
#[tokio::test(flavor = "multi_thread")]
async fn an_archived_state_is_restored_and_re_keyed() {
    if peer("aws").is_none() {
        return;
    }
    let (lab, key) = lab(Topology::Roles).await;
    lab.world().put_object(BUCKET, KEYS[0], state(1), Encryption::SseS3);
    lab.world().with_object(BUCKET, KEYS[0], |v| v.storage_class = Some("GLACIER".into()));
    tokio::task::block_in_place(|| {
        let workspace = workspace();
        let apply = || workspace.run(&step(&lab, "deploy", "apply", &key));
        let ran = apply().red("state-unreadable");
        let command = ran.log.split("aws s3api restore-object ").nth(1).unwrap();
        let command = command.split(['\n', '%']).next().unwrap();
        let command: Vec<&str> =
            ["s3api", "restore-object"].into_iter().chain(command.split_whitespace()).collect();
        let (code, text) = aws(&lab, "admin", &command);
        assert_eq!(code, 0, "{command:?}: {text}");
        let _ = apply().green();
    });
    let world = lab.world();
    let now = world.current(BUCKET, KEYS[0]).unwrap();
    assert_eq!((now.body.to_vec(), &now.storage_class), (state(1), &None));
    assert_eq!(now.encryption, Encryption::Kms { key });
}
