//! What a failure says is its cause, and the fix fits it.

use aws_lab::{Effect, Encryption, Matcher, Topology, UpdateEncryption};

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, state};

/// The annotation of the first failure.
fn error(ran: &crate::common::Ran) -> &str {
    ran.log.lines().find(|line| line.starts_with("::error")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_aws_come_with_their_own_fix() {
    let of_code = |status, code: &str| Effect::fail(status, code);
    for (effect, reason, says) in [
        (of_code(400, "ExpiredToken"), "credentials", "role-duration-seconds"),
        (of_code(403, "SignatureDoesNotMatch"), "credentials", "does not fit the access key id"),
        (of_code(403, "InvalidAccessKeyId"), "credentials", "AWS_SESSION_TOKEN"),
        (of_code(404, "NoSuchBucket"), "bucket-missing", "there is no bucket of that name"),
        (of_code(403, "RequestTimeTooSkewed"), "aws-unavailable", "Set the clock"),
    ] {
        let bench = Bench::new().await;
        bench.lab.inject(Matcher::every("GetObject"), effect);
        for mode in ["plan", "apply"] {
            let ran = bench.run(mode, &[("INPUT_PROBE", "off")]).await.red(reason);
            assert!(error(&ran).contains(says), "{says}: {}", ran.log);
            assert!(!ran.log.contains("mended"), "{}", ran.log);
        }
    }
    // The same in the middle of a re-key.
    let bench = Bench::new().await;
    bench.lab.inject(Matcher::every("CopyObject"), Effect::fail(403, "SignatureDoesNotMatch"));
    let ran = bench.run("apply", &[("INPUT_PROBE", "off")]).await.red("credentials");
    assert!(error(&ran).contains("does not fit the access key id"), "{}", ran.log);
    assert!(!ran.log.contains("mended") && !ran.log.contains("longer ones"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_modes_come_with_their_own_fix() {
    let list = "ListObjectVersions";
    for (operation, status, code, reason, says) in [
        (list, 404, "NoSuchBucket", "bucket-missing", "there is no bucket of that name"),
        (list, 403, "AccessDenied", "key-change-failed", "s3:ListBucketVersions on the bucket"),
        (list, 403, "RequestTimeTooSkewed", "key-change-failed", "Set the clock"),
        // After the key was disabled.
        ("ScheduleKeyDeletion", 400, "ExpiredTokenException", "credentials", "have expired"),
    ] {
        let bench = Bench::new().await;
        bench.lab.inject(Matcher::every(operation), Effect::fail(status, code));
        let id = bench.key.rsplit('/').next().unwrap();
        let more = [("INPUT_TARGET-KEY", bench.key.as_str()), ("INPUT_CONFIRM", id)];
        let ran = bench.run_as("admin", "retire-key", "", &more).await.red(reason);
        assert!(error(&ran).contains(says), "{code}: {}", ran.log);
        assert!(!error(&ran).contains("Nothing was changed"), "{code}: {}", ran.log);
        assert!(!error(&ran).contains("action on the key"), "{code}: {}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_by_name_comes_with_what_it_needs() {
    let bench = Bench::new().await;
    let more = [("INPUT_STRATEGY", "in-place")];
    let ran = bench.run("apply", &more).await.red("rekey-failed");
    assert!(ran.log.contains("\"s3:UpdateObjectEncryption\""), "{}", ran.log);
    assert!(error(&ran).contains("kms:ReEncrypt*") && error(&ran).contains("`strategy: auto`"));
    let ran = bench.run("apply", &[]).await.green();
    assert!(!ran.log.contains("\"s3:UpdateObjectEncryption\""), "{}", ran.log);
    let bench = Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).update_encryption = UpdateEncryption::NotImplemented;
    })
    .await;
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.red("rekey-failed");
    assert!(!error(&ran).contains("conditional copies"), "{}", ran.log);
    assert!(error(&ran).contains("`strategy: auto` or `copy`"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_comes_with_the_host() {
    let bench = Bench::new().await;
    let nowhere = ("AWS_ENDPOINT_URL", "http://user:hunter2@127.0.0.1:9");
    let ran = bench.run("plan", &[nowhere, ("TFSTATE_KMS_ATTEMPT_TIMEOUT", "5")]).await;
    assert_eq!(ran.code, 1);
    assert!(error(&ran).contains("no answer: from 127.0.0.1:9: "), "{}", ran.log);
    assert!(!ran.everything().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_comes_with_the_host() {
    let bench = Bench::new().await;
    bench.lab.inject(Matcher::every("GetObject"), Effect::Timeout);
    let ran = bench.run("plan", &[("TFSTATE_KMS_ATTEMPT_TIMEOUT", "1")]).await;
    let ran = ran.red("aws-unavailable");
    assert!(error(&ran).contains("no answer: from 127.0.0.1:"), "{}", ran.log);
    assert!(error(&ran).contains("timed out"), "{}", ran.log);
}

/// A run without keys of its own.
async fn run_with(bench: &Bench, more: &[(&str, &str)]) -> crate::common::Ran {
    let mut variables = bench.variables("deploy", "plan", &bench.key, more);
    variables.retain(|(name, _)| {
        !["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
            .contains(&name.as_str())
    });
    tokio::task::block_in_place(|| bench.workspace.run(&variables)).red("credentials")
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_credentials_come_with_the_innermost_cause() {
    let bench = Bench::new().await;
    let role = ("AWS_ROLE_ARN", "arn:aws:iam::111111111111:role/x");
    let file = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/token");
    let ran = run_with(&bench, &[role, file]).await;
    assert!(error(&ran).contains("No such file or directory"), "{}", ran.log);
    assert!(error(&ran).contains("must be readable"), "{}", ran.log);
    // The file is there, and STS is not.
    let token = bench.workspace.path().join("token");
    std::fs::write(&token, "x.y.z").unwrap();
    let file = ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap());
    let ran = run_with(&bench, &[role, file, ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]).await;
    assert!(error(&ran).contains("no answer from 127.0.0.1:9: "), "{}", ran.log);
    assert!(error(&ran).contains("reaches that host"), "{}", ran.log);
    assert!(!error(&ran).contains("must be readable"), "{}", ran.log);
    let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/creds");
    let ran = run_with(&bench, &[uri]).await;
    assert!(error(&ran).contains("no answer from 127.0.0.1:9: "), "{}", ran.log);
}

/// In a container, the answer of the instance's metadata service does not come beyond the hop
/// limit of 1: it is silent. Another cloud's is there, and refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_metadata_service_comes_with_the_hop_limit() {
    let bench = Bench::new().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let refusing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = format!("http://{}", refusing.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = refusing.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let answer =
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    for at in [&silent, &other] {
        let more = [
            ("AWS_EC2_METADATA_DISABLED", "false"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", at.as_str()),
        ];
        let ran = run_with(&bench, &more).await;
        assert!(error(&ran).contains("hop limit"), "{}", ran.log);
        assert!(error(&ran).contains("configure-aws-credentials"), "{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_body_is_not_called_a_broken_connection() {
    let bench = Bench::new().await;
    bench.lab.world().with_object(BUCKET, KEYS[0], |version| {
        version.checksum_algorithm = Some("CRC32".into());
        version.damaged = true;
    });
    let digest = bench.digest();
    let ran = bench.run("apply", &[]).await.red("aws-unavailable");
    assert!(error(&ran).contains("checksum is not the one"), "{}", ran.log);
    assert!(!ran.log.contains("broke off"), "{}", ran.log);
    bench.assert_untouched(&digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statements_to_paste_have_the_tagging_actions() {
    let bench = Bench::with(Topology::Users, |world| {
        world.tag_object(BUCKET, KEYS[0], &[("team", "infra")]);
    })
    .await;
    let ran = bench.run("apply", &[]).await.red("rekey-failed");
    for action in ["s3:GetObjectTagging", "s3:PutObjectTagging"] {
        assert!(ran.log.contains(&format!("\"{action}\"")), "{action}: {}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_given_is_never_called_empty() {
    let bench = Bench::new().await;
    let mut variables = bench.variables("deploy", "apply", "", &[("INPUT_KMS-KEY-ID", &bench.key)]);
    variables.retain(|(name, _)| name != "INPUT_ENVIRONMENT");
    let ran = tokio::task::block_in_place(|| bench.workspace.run(&variables)).red("invalid-input");
    assert!(!ran.everything().contains("STATE_KMS_KEY_ID is empty"), "{}", ran.summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_stacks_with_one_cause_are_one_paragraph() {
    let modules: Vec<String> = (0..50).map(|n| format!("stack{n:02}")).collect();
    let bench = Bench::with(Topology::Roles, |world| {
        for module in &modules {
            world.put_object(BUCKET, &format!("states/{module}"), state(1), Encryption::SseS3);
        }
    })
    .await;
    bench.lab.inject(Matcher::every("GetObject"), Effect::fail(403, "SignatureDoesNotMatch"));
    let names = modules.join(" ");
    let more = [("INPUT_MODULES", names.as_str()), ("INPUT_STATE-KEYS", "states/{module}")];
    let ran = bench.run("plan", &more).await.red("credentials");
    let errors = ran.log.lines().filter(|line| line.starts_with("::error")).count();
    assert_eq!(errors, 1, "{}", ran.log);
    assert!(error(&ran).contains("50 failures with one fix") && error(&ran).contains("stack00"));
    assert_eq!(ran.report["failures"].as_array().unwrap().len(), 50, "the report has all");
    assert_eq!(ran.summary.matches("does not fit the access key id").count(), 1);
}

/// aws/s3 of another account: no grant can help.
#[tokio::test(flavor = "multi_thread")]
async fn a_managed_key_of_another_account_is_no_matter_of_grants() {
    let bench = Bench::new().await;
    let managed = {
        let mut world = bench.lab.world();
        let mut key = world.key_mut(&bench.key).clone();
        key.arn = key.arn.replace("5c0ffee1", "5c0ffee9");
        key.aws_managed = true;
        key.policy = serde_json::json!({ "Statement": [] });
        let arn = key.arn.clone();
        world.add_key(key);
        world.put_object(BUCKET, KEYS[0], state(9), Encryption::Kms { key: arn.clone() });
        arn
    };
    let ran = bench.run("plan", &[]).await.red("state-unreadable");
    assert!(error(&ran).contains(&managed), "{}", ran.log);
    assert!(error(&ran).contains("no grant can help"), "{}", ran.log);
    assert!(error(&ran).contains("credentials of account 111111111111"), "{}", ran.log);
}

/// A permission is named only where one is missing.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_looked_at_for_another_reason_needs_no_permission() {
    let bench = Bench::new().await;
    bench
        .lab
        .inject(Matcher::every("GetKeyRotationStatus"), Effect::fail(500, "KMSInternalException"));
    let ran = bench.run_as("admin", "plan", &bench.key, &[]).await.green();
    assert!(!ran.report.to_string().contains("needs kms:GetKeyRotationStatus"), "{}", ran.report);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nothing_to_abandon_where_no_version_needs_the_key() {
    let bench = Bench::new().await;
    let id = bench.key.rsplit('/').next().unwrap().to_owned();
    let more = [
        ("INPUT_TARGET-KEY", bench.key.as_str()),
        ("INPUT_CONFIRM", id.as_str()),
        ("INPUT_ABANDON-VERSIONS", "3"),
    ];
    let ran = bench.run_as("admin", "retire-key", "", &more).await.red("key-in-use");
    assert!(error(&ran).contains("no noncurrent version is under"), "{}", ran.log);
    assert!(!ran.log.contains("put-bucket-lifecycle-configuration"), "{}", ran.log);
}
