//! Every refusal: its message, its exit code, and a bucket that is as it was.

use aws_lab::{Effect, Encryption, Matcher, Topology};
use serde_json::json;

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, Ran};

/// Runs and asserts that nothing was written, neither state nor file.
async fn refused(
    bench: &Bench,
    who: &str,
    key: &str,
    mode: &str,
    more: &[(&str, &str)],
    reason: &str,
) -> Ran {
    let digest = bench.digest();
    bench.lab.clear_log();
    let ran = bench.run_as(who, mode, key, more).await.red(reason);
    bench.assert_untouched(&digest);
    assert_eq!(bench.workspace.backend("infra"), "", "{}", ran.log);
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_over_an_encrypted_state_is_refused() {
    let bench = Bench::new().await;
    let kms = Encryption::Kms { key: bench.key.clone() };
    bench.lab.world().put_object(BUCKET, KEYS[0], crate::common::state(9), kms);
    for mode in ["plan", "apply", "verify"] {
        let ran = refused(&bench, "deploy", "", mode, &[], "downgrade-refused").await;
        assert!(ran.log.contains("without `environment:`"), "{}", ran.log);
        assert_eq!(ran.output("encryption"), "mixed");
    }
    let allowed = bench.run_unset("apply", &[("INPUT_ALLOW-DOWNGRADE", "true")]).await.green();
    assert!(allowed.log.contains("::warning"), "{}", allowed.log);
    assert_eq!(bench.writes(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_described_is_guarded_like_a_cmk() {
    let bench = Bench::new().await;
    let kms = Encryption::Kms { key: bench.key.clone() };
    bench.lab.world().put_object(BUCKET, KEYS[0], crate::common::state(9), kms);
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:DescribeKey");
    let ran = refused(&bench, "deploy", "", "apply", &[], "downgrade-refused").await;
    assert!(ran.log.contains("may not describe"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn greenfield_warns_or_fails() {
    let bench = Bench::with(Topology::Roles, |world| {
        for key in KEYS {
            world.remove_object(BUCKET, key);
        }
    })
    .await;
    let ran = bench.run_unset("plan", &[]).await.green();
    assert!(ran.log.contains("no state exists yet"), "{}", ran.log);
    assert_eq!((ran.output("encryption"), ran.output("verified")), ("absent", "false"));
    let require = [("INPUT_REQUIRE-ENCRYPTION", "true")];
    let _ = refused(&bench, "deploy", "", "apply", &require, "encryption-required").await;
    // With the key, the first write of Terraform will be under it: nothing to do.
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!((ran.output("encryption"), ran.output("verified")), ("absent", "false"));
    let state = [("INPUT_REQUIRE-STATE", "true")];
    let ran = bench.run("apply", &state).await.red("state-missing");
    assert!(ran.log.contains("`production` (module infra) does not exist"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_or_dying_key_stops_the_run() {
    let bench = Bench::new().await;
    bench.change_key(|key| key.state = "Disabled".into());
    for mode in ["plan", "apply", "verify"] {
        let ran = refused(&bench, "deploy", &bench.key, mode, &[], "key-unusable").await;
        assert!(ran.log.contains("aws kms enable-key"), "{}", ran.log);
    }
    bench.change_key(|key| {
        key.state = "PendingDeletion".into();
        // 2026-12-24T00:00:00Z
        key.deletion = Some(1_798_070_400);
    });
    let ran = refused(&bench, "deploy", &bench.key, "apply", &[], "key-unusable").await;
    assert!(ran.log.contains("2026-12-24"), "{}", ran.log);
    assert!(ran.log.contains("aws kms cancel-key-deletion"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_state_under_a_disabled_key_is_explained_by_the_key() {
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    bench.change_key(|key| key.state = "Disabled".into());
    let digest = bench.digest();
    let ran = bench.run("verify", &[]).await.red("key-unusable");
    assert!(ran.log.contains("is disabled"), "{}", ran.log);
    bench.assert_untouched(&digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_on_one_side_fails_closed() {
    let bench = Bench::new().await;
    for who in ["no-key-policy", "no-iam"] {
        let digest = bench.digest();
        let ran = bench.run_as(who, "apply", &bench.key, &[]).await.red("rekey-failed");
        bench.assert_untouched(&digest);
        // Nothing tells the sides apart here, so both statements are given.
        for sid in ["DeployPrincipalUse", "TerraformStateKms"] {
            assert!(ran.summary.contains(sid), "{sid}: {}", ran.summary);
        }
    }
    // Without versions not even one state is tried.
    let bench = Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).versioned = false;
        for key in KEYS {
            world.remove_object(BUCKET, key);
            world.put_object(BUCKET, key, crate::common::state(7), Encryption::SseS3);
        }
    })
    .await;
    for who in ["no-key-policy", "no-iam"] {
        let ran = refused(&bench, who, &bench.key, "apply", &[], "key-denied").await;
        assert!(ran.log.contains("is not known to keep a version of what is there"), "{}", ran.log);
        assert!(bench.writes().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_that_could_not_read_back_is_refused_before_any_write() {
    let bench = Bench::new().await;
    let policy = bench.lab.world().key_mut(&bench.key).policy.clone();
    for missing in ["kms:Decrypt", "kms:GenerateDataKey"] {
        bench.lab.world().drop_from_key_policy(&bench.key, missing);
        let ran = refused(&bench, "deploy", &bench.key, "apply", &[], "key-denied").await;
        assert!(ran.log.contains(missing), "{}", ran.log);
        assert!(bench.writes().is_empty());
        bench.change_key(|key| key.policy.clone_from(&policy));
    }
    // kms:Encrypt is not used by a copy.
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Encrypt");
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(ran.check("grant-key-policy"), "warn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_via_service_condition_lets_one_state_go_first() {
    let bench = Bench::new().await;
    bench.lab.world().require_via_service(&bench.key);
    let ran = bench.run("apply", &[]).await.green();
    assert!(ran.log.contains("one state goes first"), "{}", ran.log);
    assert_eq!(ran.output("rekeyed"), "2");
    assert_eq!(ran.check("grant-key-policy"), "warn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_read_back_is_restored() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.tag_object(BUCKET, KEYS[0], &[("team", "infra")]);
    })
    .await;
    let before = bench.body(KEYS[0]);
    // S3 may write under the key but not read: the dry runs cannot see it, since the
    // direct calls are refused alike.
    bench.lab.world().require_via_service(&bench.key);
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
    let ran = bench.run("apply", &[]).await.red("restored");
    assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
    assert_eq!(bench.body(KEYS[0]), before);
    assert_eq!(bench.encryption(KEYS[1]), Encryption::SseS3);
    let world = bench.lab.world();
    let now = world.current(BUCKET, KEYS[0]).unwrap();
    assert_eq!(now.tags.get("team").map(String::as_str), Some("infra"));
    assert!(ran.log.contains("was restored and read"), "{}", ran.log);
    assert!(
        ran.report
            .to_string()
            .contains("not begun, since the run was stopped or another state failed")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_place_is_refused() {
    let bench = Bench::new().await;
    let elsewhere = bench.key.replace("us-east-1", "eu-west-1");
    let ran = refused(&bench, "deploy", &elsewhere, "apply", &[], "key-unusable").await;
    assert_eq!(ran.check("same-region"), "fail");
    let other = bench.key.replace("111111111111", "333333333333");
    let ran = refused(&bench, "deploy", &other, "apply", &[], "wrong-bucket-owner").await;
    assert_eq!(ran.check("same-account"), "fail");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_rights_or_credentials_is_told_what_is_missing() {
    let bench = Bench::new().await;
    bench.lab.world().bucket_mut(BUCKET).policy = Some(json!({ "Statement": [] }));
    let ran = refused(&bench, "deploy", &bench.key, "apply", &[], "state-unreadable").await;
    assert!(ran.log.contains("s3:GetObject") && ran.log.contains("s3:ListBucket"), "{}", ran.log);
    let none =
        [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("AWS_SESSION_TOKEN", "")];
    let ran = refused(&bench, "deploy", &bench.key, "apply", &none, "credentials").await;
    assert!(ran.log.contains("configure-aws-credentials"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_needs_the_variable_to_be_empty() {
    let bench = Bench::new().await;
    let ran = refused(&bench, "deploy", &bench.key, "rollback", &[], "invalid-input").await;
    assert!(ran.log.contains("Clear the variable first"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_found_and_nothing_is_mended() {
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    bench.lab.world().put_object(BUCKET, KEYS[1], crate::common::state(12), Encryption::SseS3);
    let digest = bench.digest();
    let ran = bench.run("verify", &[]).await.red("drift");
    bench.assert_untouched(&digest);
    assert_eq!((ran.check("object-encrypted"), ran.output("encryption")), ("fail", "mixed"));
    assert!(ran.log.contains("`production-bootstrap` (module dns) is under SSE-S3"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_refused_with_the_arn_that_it_stands_for() {
    let bench = Bench::new().await;
    let alias = "arn:aws:kms:us-east-1:111111111111:alias/cabal-tf-state-production";
    let ran = refused(&bench, "deploy", alias, "apply", &[], "invalid-input").await;
    assert!(ran.log.contains("is an alias"), "{}", ran.log);
    let stands_for = format!("stands for {}", bench.key);
    assert!(ran.log.contains(&stands_for), "{}", ran.log);
    let check = ran.report["checks"].as_array().unwrap().iter().find(|c| c["id"] == "key-arn");
    let remedy = check.unwrap()["remedy"].as_str().unwrap();
    assert!(ran.check("key-arn") == "fail" && remedy.contains(&stands_for), "{remedy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_exist_never_looks_green() {
    let bench = Bench::new().await;
    for key in ["", bench.key.as_str()] {
        let more = [("INPUT_BUCKET", "no-such-bucket")];
        let ran = refused(&bench, "deploy", key, "apply", &more, "bucket-missing").await;
        assert!(ran.log.contains("NoSuchBucket"), "{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bucket_keys_the_context_is_the_bucket() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).bucket_key = true;
        let key = world.state_key_arn().to_owned();
        world.change_use_statement(&key, |statement| {
            statement["Condition"] = json!({ "StringEqualsIfExists": {
                "kms:EncryptionContext:aws:s3:arn": format!("arn:aws:s3:::{BUCKET}") } });
        });
        let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
        let read = json!({ "Effect": "Allow", "Principal": "*", "Resource": "*",
                           "Action": "s3:GetEncryptionConfiguration" });
        policy["Statement"].as_array_mut().unwrap().push(read);
    })
    .await;
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(
        (ran.output("rekeyed"), ran.check("grant-key-policy")),
        ("2", "pass"),
        "{}",
        ran.log
    );
}

/// With Bucket Keys off each dry run is made in the context of its own state.
#[tokio::test(flavor = "multi_thread")]
async fn without_bucket_keys_the_context_is_the_state() {
    let bench = Bench::new().await;
    let arns: Vec<String> = KEYS.iter().map(|key| format!("arn:aws:s3:::{BUCKET}/{key}")).collect();
    bench.lab.world().change_use_statement(&bench.key, |statement| {
        statement["Condition"] =
            json!({ "StringEqualsIfExists": { "kms:EncryptionContext:aws:s3:arn": arns } });
    });
    let ran = bench.run("apply", &[]).await.green();
    for check in ["grant-key-policy", "grant-iam-policy"] {
        assert_eq!(ran.check(check), "pass", "{check}: {}", ran.log);
    }
    assert!(!ran.log.contains("one state goes first"), "{}", ran.log);
    assert_eq!(ran.output("rekeyed"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_begins_no_other_state_and_says_so() {
    for signal in ["-INT", "-TERM"] {
        let bench = Bench::new().await;
        let digest = bench.digest();
        bench.lab.set_latency(std::time::Duration::from_millis(600));
        let variables = bench.variables("deploy", "apply", &bench.key, &[]);
        // The survey's requests are on their way.
        let (ran, _) = bench.interrupted(&variables, |bench| !bench.lab.log().is_empty(), signal);
        let ran = ran.red("cancelled");
        bench.assert_untouched(&digest);
        assert!(ran.log.contains("cancelled: finishing the state in hand"), "{}", ran.log);
        assert_eq!(ran.output("rekeyed"), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_state_below_a_prefix_has_to_be_there() {
    let bench = Bench::new().await;
    let more = [("INPUT_STATE-KEYS", "env:/*"), ("INPUT_REQUIRE-STATE", "true")];
    let ran = refused(&bench, "deploy", &bench.key, "apply", &more, "state-missing").await;
    assert!(ran.log.contains("no state below `env:/`"), "{}", ran.log);
    let none = [("INPUT_MODULES", ",")];
    let ran = refused(&bench, "deploy", &bench.key, "verify", &none, "invalid-input").await;
    assert!(ran.log.contains("name no state"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_not_called_absent() {
    let bench = Bench::new().await;
    let ran = bench.run("backend", &[]).await.green();
    assert_eq!(ran.output("encryption"), "");
    let ran = bench.run("apply", &[("INPUT_MODE", "aply")]).await.red("invalid-input");
    assert_eq!(ran.output("encryption"), "");
    bench.lab.world().put_object(BUCKET, KEYS[1], crate::common::state(9), Encryption::SseC);
    let ran = bench.run("verify", &[]).await.red("not-rekeyable");
    assert_eq!(ran.output("encryption"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_files_wherever_a_grant_may_be_missing() {
    let bench = Bench::new().await;
    let path = [("INPUT_REPORT-PATH", "out/new/report.json")];
    let ran = bench.run_as("no-key-policy", "apply", &bench.key, &path).await.red("rekey-failed");
    let files = ran.report["statements"].as_array().unwrap();
    assert_eq!(files.len(), 4, "{}", ran.log);
    for file in files {
        let text = std::fs::read_to_string(bench.workspace.path().join(file.as_str().unwrap()));
        let _: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_for_somebody_else_refuses_nothing() {
    let deny = |principal: &str| {
        json!({ "Sid": "NoKms", "Effect": "Deny", "Principal": { "AWS": principal },
                "Action": "s3:PutObject", "Resource": format!("arn:aws:s3:::{BUCKET}/*") })
    };
    let bench = Bench::with(Topology::Roles, |world| {
        let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
        let other = deny("arn:aws:iam::222222222222:role/intern");
        policy["Statement"].as_array_mut().unwrap().push(other);
    })
    .await;
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    assert_eq!((ran.check("bucket-policy"), ran.output("rekeyed")), ("pass", "2"), "{}", ran.log);
}

/// Where the bucket is, S3 may not say: that is no failure, and no pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_not_told_is_unknown() {
    let bench = Bench::new().await;
    bench.lab.inject(Matcher::every("HeadBucket"), Effect::fail(500, "InternalError"));
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!((ran.check("same-region"), ran.output("rekeyed")), ("unknown", "2"), "{}", ran.log);
}
