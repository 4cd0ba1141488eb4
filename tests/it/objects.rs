//! Each kind of object on a real (if small) S3, and writers that come between.

use aws_lab::{Effect, Encryption, Matcher, Topology};

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, state};

#[tokio::test(flavor = "multi_thread")]
async fn attributes_survive_the_way_there_and_back() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.tag_object(BUCKET, KEYS[0], &[("team", "infra"), ("a b", "c&d=e")]);
        world.with_object(BUCKET, KEYS[0], |object| {
            object.content_type = Some("application/x-state".into());
            object.metadata.insert("owner".into(), "cabal".into());
            object.storage_class = Some("STANDARD_IA".into());
            object.cache_control = Some("no-store".into());
        });
    })
    .await;
    for (mode, key) in [("apply", bench.key.as_str()), ("rollback", "")] {
        let ran = bench.run_as("deploy", mode, key, &[]).await.green();
        assert_eq!(ran.check("content-unchanged"), "pass", "{}", ran.log);
        let world = bench.lab.world();
        let now = world.current(BUCKET, KEYS[0]).unwrap();
        assert_eq!(now.content_type.as_deref(), Some("application/x-state"), "{mode}");
        assert_eq!(now.metadata.get("owner").map(String::as_str), Some("cabal"), "{mode}");
        assert_eq!(now.storage_class.as_deref(), Some("STANDARD_IA"), "{mode}");
        assert_eq!(now.cache_control.as_deref(), Some("no-store"), "{mode}");
        assert_eq!(now.tags.get("a b").map(String::as_str), Some("c&d=e"), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_readable_encryption_is_re_keyed() {
    for from in ["none", "aws/s3", "other", "dsse"] {
        let bench = Bench::new().await;
        let encryption = {
            let mut world = bench.lab.world();
            match from {
                "none" => Encryption::None,
                "aws/s3" => Encryption::Kms { key: world.aws_s3_key(BUCKET) },
                "other" => Encryption::Kms { key: world.add_key_like(&bench.key) },
                _ => Encryption::Dsse { key: world.add_key_like(&bench.key) },
            }
        };
        // Use of the AWS-managed key is not granted across accounts.
        let who = if from == "aws/s3" { "admin" } else { "deploy" };
        bench.lab.world().put_object(BUCKET, KEYS[0], state(3), encryption.clone());
        let ran = bench.run_as(who, "apply", &bench.key, &[]).await.green();
        assert_eq!(ran.output("rekeyed"), "2", "{from}: {}", ran.log);
        assert_eq!(bench.encryption(KEYS[0]), Encryption::Kms { key: bench.key.clone() });
        assert_eq!(bench.body(KEYS[0]), state(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_re_keyed_is_refused_by_name() {
    // An object over 5 GB is a row of the plan's table test.
    let bench = Bench::new().await;
    bench.lab.world().put_object(BUCKET, KEYS[0], state(3), Encryption::SseC);
    let digest = bench.digest();
    let ran = bench.run("apply", &[]).await.red("not-rekeyable");
    assert!(ran.log.contains("SSE-C"), "{}", ran.log);
    bench.assert_untouched(&digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_marker_is_named_and_not_copied() {
    let bench = Bench::with(Topology::Roles, |world| world.delete_object(BUCKET, KEYS[0])).await;
    let ran = bench.run("apply", &[]).await.green();
    assert!(ran.log.contains("a delete marker hides its older versions"), "{}", ran.log);
    assert_eq!(ran.output("rekeyed"), "1");
    assert!(bench.lab.world().current(BUCKET, KEYS[0]).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_between_survey_and_copy_loses_nothing() {
    let bench = Bench::new().await;
    // Terraform writes serial 100 just before the first copy is carried out.
    bench.before_nth("CopyObject", KEYS[0], 1, |world| {
        world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
    });
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(bench.body(KEYS[0]), state(100));
    assert_eq!(bench.encryption(KEYS[0]), Encryption::Kms { key: bench.key.clone() });
    assert_eq!(ran.report["objects"][0]["serial"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_after_the_copy_is_not_overwritten() {
    let bench = Bench::new().await;
    // The third GET of this state would be the read-back; the writer comes before it.
    bench.before_nth("GetObject", KEYS[0], 2, |world| {
        world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
    });
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(bench.body(KEYS[0]), state(100));
    assert_eq!(bench.encryption(KEYS[0]), Encryption::Kms { key: bench.key.clone() });
    assert_eq!(ran.report["objects"][0]["serial"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_never_rests_is_reported() {
    let bench = Bench::new().await;
    for nth in 1..=5 {
        bench.before_nth("CopyObject", KEYS[0], nth, move |world| {
            world.put_object(BUCKET, KEYS[0], state(100 + nth as u64), Encryption::SseS3);
        });
    }
    let ran = bench.run("apply", &[]).await.red("concurrent-writes");
    assert!(ran.log.contains("at every one of 5 attempts"), "{}", ran.log);
    assert_eq!(bench.body(KEYS[0]), state(105));
    assert_eq!(bench.encryption(KEYS[1]), Encryption::Kms { key: bench.key.clone() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_looked_after() {
    for carried_out in [true, false] {
        let bench = Bench::new().await;
        let effect = if carried_out { Effect::ResetAfter } else { Effect::ResetBefore };
        bench.lab.inject(Matcher::every("CopyObject").key(KEYS[0]).nth(1), effect);
        let ran = bench.run("apply", &[]).await.green();
        assert_eq!(bench.encryption(KEYS[0]), Encryption::Kms { key: bench.key.clone() });
        assert_eq!(bench.body(KEYS[0]), state(7));
        assert_eq!(ran.output("verified"), "true");
        // The SDK's own second attempt finds the condition no longer true.
        let versions = bench.lab.world().versions(BUCKET, KEYS[0]).len();
        assert_eq!(versions, 2, "one copy, carried out: {carried_out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_copy_leaves_the_state_as_it_was() {
    let bench = Bench::new().await;
    let refused = Effect::fail(403, "AccessDenied");
    bench.lab.inject(Matcher::every("CopyObject").key(KEYS[0]), refused);
    let before = bench.body(KEYS[0]);
    let ran = bench.run("apply", &[]).await.red("rekey-failed");
    assert_eq!((bench.body(KEYS[0]), bench.encryption(KEYS[0])), (before, Encryption::SseS3));
    assert!(ran.log.contains("The state is as it was"), "{}", ran.log);
    assert!(ran.log.contains("s3:GetObjectTagging"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_in_another_region_is_found_there() {
    let bench = Bench::new().await;
    let ran = bench.run_unset("verify", &[("AWS_REGION", "eu-west-1")]).await.green();
    assert!(ran.log.contains("the bucket is in us-east-1, not in eu-west-1"), "{}", ran.log);
    assert_eq!((ran.output("encryption"), ran.output("verified")), ("AES256", "true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_retried_or_reported_and_the_state_is_as_it_was() {
    let fail = |status, code: &str| Effect::fail(status, code);
    for (operation, effect) in [
        ("GetObject", fail(500, "InternalError")),
        ("GetObject", fail(503, "SlowDown")),
        ("GetObject", Effect::ResetBefore),
        ("GetObject", Effect::Truncate),
        ("CopyObject", fail(500, "InternalError")),
        ("CopyObject", fail(503, "SlowDown")),
        ("CopyObject", fail(409, "ConditionalRequestConflict")),
        ("HeadBucket", fail(500, "InternalError")),
        ("DescribeKey", fail(500, "KMSInternalException")),
        ("GetCallerIdentity", fail(503, "ServiceUnavailable")),
    ] {
        let bench = Bench::new().await;
        bench.lab.inject(Matcher::every(operation).nth(1), effect);
        let ran = bench.run("apply", &[("INPUT_PROBE", "off")]).await.green();
        assert_eq!(ran.output("rekeyed"), "2", "{operation}: {}", ran.log);
        assert_eq!(bench.body(KEYS[0]), state(7));
    }
    // What does not pass is an error, and nothing was written.
    let bench = Bench::new().await;
    bench.lab.inject(Matcher::every("GetObject"), fail(503, "SlowDown"));
    let digest = bench.digest();
    let _ = bench.run("apply", &[]).await.red("aws-unavailable");
    bench.assert_untouched(&digest);
    bench.lab.clear_faults();
    bench.lab.inject(Matcher::every("GetObject"), fail(400, "ExpiredToken"));
    let ran = bench.run("apply", &[]).await.red("credentials");
    bench.assert_untouched(&digest);
    assert!(ran.log.contains("ExpiredToken"), "{}", ran.log);
}

/// What the copy lost, or S3 did otherwise than asked, fails the run: the state is there, but
/// is not what it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_it_was_after_the_re_key_is_a_failure() {
    type Change = fn(&mut aws_lab::Version);
    let changes: [(&str, Change); 5] = [
        ("metadata", |now| now.metadata = [("owner".to_owned(), "x".to_owned())].into()),
        ("Content-Type", |now| now.content_type = Some("text/plain".into())),
        ("headers", |now| now.cache_control = Some("no-store".into())),
        ("tags", |now| now.tags.clear()),
        ("encryption (not what was asked for)", |now| now.encryption = Encryption::SseS3),
    ];
    for (what, change) in changes {
        let bench = Bench::with(Topology::Roles, |world| {
            world.tag_object(BUCKET, KEYS[0], &[("team", "infra")]);
        })
        .await;
        // After the copy, before its read-back; the ETag stays.
        bench.before_nth("GetObject", KEYS[0], 2, move |world| {
            world.with_object(BUCKET, KEYS[0], change);
        });
        let ran = bench.run("apply", &[("INPUT_PROBE", "off")]).await;
        if what.starts_with("encryption") {
            // To the reader it is as if the server had done nothing.
            let ran = ran.red("rekey-failed");
            assert_eq!(ran.report["objects"][0]["action"], "untouched");
            assert!(ran.log.contains("did not change the encryption"), "{}", ran.log);
            continue;
        }
        let ran = ran.red("content-changed");
        assert_eq!(ran.check("content-unchanged"), "fail", "{what}: {}", ran.log);
        assert!(ran.log.contains(what), "{what}: {}", ran.log);
        assert_eq!(ran.report["objects"][0]["same_content"], false, "{what}");
    }
}
