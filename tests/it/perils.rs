//! What could lose a state, lock it up or hang: servers that are not AWS, answers that are
//! lost at the worst moment, more states than memory.

use aws_lab::{DEPLOY_ACCOUNT, Effect, Encryption, Matcher, Retention, Topology, UpdateEncryption};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::json;

use crate::bench::{Bench, overwriting, put_all_under_the_key};
use crate::common::{BUCKET, KEYS, sized_state, state};

/// The calls that change an object's encryption in place.
fn in_place_calls(bench: &Bench) -> usize {
    bench.lab.log().iter().filter(|e| e.operation == "UpdateObjectEncryption").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_heeds_conditions_never_overwrites_by_in_place() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).update_encryption = UpdateEncryption::Overwrites;
    })
    .await;
    let more = [("INPUT_STRATEGY", "in-place"), ("INPUT_HISTORY", "rekey")];
    let digest = bench.digest();
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.red("rekey-failed");
    assert_eq!(ran.output("rekeyed"), "0", "{}", ran.log);
    bench.assert_untouched(&digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwritten_state_is_seen_and_restored_even_under_a_default_key() {
    let bench = Bench::with(Topology::Roles, |world| {
        overwriting(world);
        let key = world.state_key_arn().to_owned();
        world.bucket_mut(BUCKET).default_encryption = Encryption::Kms { key };
    })
    .await;
    let more = [("INPUT_STRATEGY", "in-place")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.red("restored");
    assert!(ran.log.contains("has overwritten the state"), "{}", ran.log);
    for (at, key) in KEYS.iter().enumerate() {
        assert_eq!(bench.body(key), state(7 + at as u64), "{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_re_key_that_overwrites_the_state_is_undone_and_stops() {
    let bench = Bench::with(Topology::Roles, |world| {
        for serial in 8..12 {
            world.put_object(BUCKET, KEYS[0], state(serial), Encryption::SseS3);
        }
        // Nothing else is left to do.
        put_all_under_the_key(world, 20);
        overwriting(world);
    })
    .await;
    let more = [("INPUT_STRATEGY", "in-place"), ("INPUT_HISTORY", "rekey")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.red("history-rekey-failed");
    for key in KEYS {
        assert_eq!(bench.body(key), state(20), "{key}: {}", ran.log);
    }
    assert_eq!(in_place_calls(&bench) + puts_without_body(&bench), 1, "{}", ran.log);
    assert_eq!(ran.output("changed"), "true");
}

/// In that mode the lab sees PutObject calls; the one of the restore is the second.
fn puts_without_body(bench: &Bench) -> usize {
    let puts = bench.lab.log().iter().filter(|e| e.operation == "PutObject").count();
    puts.saturating_sub(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_states_than_memory_are_re_keyed_all_the_same() {
    let big = |serial| sized_state(serial, 700 << 10);
    let bench = Bench::with(Topology::Roles, |world| {
        for (at, key) in KEYS.iter().enumerate() {
            world.put_object(BUCKET, key, big(30 + at as u64), Encryption::SseS3);
        }
    })
    .await;
    let small = [("TFSTATE_KMS_MEMORY_MIB", "1")];
    let ran = bench.run("apply", &small).await.green();
    assert_eq!(ran.output("rekeyed"), "2");
    for (at, key) in KEYS.iter().enumerate() {
        assert_eq!(bench.body(key), big(30 + at as u64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_needs_the_bytes_in_memory() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.put_object(BUCKET, KEYS[0], sized_state(30, 1300 << 10), Encryption::SseS3);
    })
    .await;
    let more = [("TFSTATE_KMS_MEMORY_MIB", "1"), ("INPUT_STRATEGY", "in-place")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.red("not-rekeyable");
    assert!(ran.log.contains("too many to hold in memory"), "{}", ran.log);
    assert_eq!((ran.output("rekeyed"), in_place_calls(&bench)), ("1", 1));
    assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_in_place_where_only_s3_can_tell() {
    let bench = Bench::new().await;
    bench.lab.world().require_via_service(&bench.key);
    let more = [("INPUT_STRATEGY", "in-place")];
    let ran = bench.run("apply", &more).await.red("not-rekeyable");
    assert_eq!((ran.output("rekeyed"), in_place_calls(&bench)), ("0", 0), "{}", ran.log);
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!((ran.output("rekeyed"), in_place_calls(&bench)), ("2", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_state_is_not_overwritten_on_a_server_that_ignores_conditions() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).ignores_conditions = true;
    })
    .await;
    // Terraform's next serial comes between the copy and the read-back.
    bench.before_nth("GetObject", KEYS[0], 2, |world| {
        world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
    });
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(bench.body(KEYS[0]), state(100), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_back_that_fails_for_a_while_is_no_reason_to_restore() {
    let bench = Bench::new().await;
    let mut matcher = Matcher::every("GetObject").key(KEYS[0]);
    // All attempts of one call.
    (matcher.from, matcher.count) = (2, 4);
    bench.lab.inject(matcher, Effect::fail(503, "SlowDown"));
    let ran = bench.run("apply", &[("INPUT_PROBE", "off")]).await.green();
    assert_eq!(ran.output("rekeyed"), "2");
    assert!(!bench.writes().iter().any(|call| call == "PutObject"), "{:?}", bench.writes());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writers_unreadable_state_is_not_called_untouched() {
    let bench = Bench::new().await;
    let other = bench.lab.world().add_key_like(&bench.key);
    bench.lab.world().drop_from_key_policy(&other, "kms:Decrypt");
    let under = Encryption::Kms { key: other };
    bench.before_nth("GetObject", KEYS[0], 2, move |world| {
        world.put_object(BUCKET, KEYS[0], state(100), under.clone());
    });
    let ran = bench.run("apply", &[]).await.red("restore-failed");
    assert_eq!(bench.body(KEYS[0]), state(100));
    assert_eq!(ran.output("changed"), "true");
    assert!(!ran.log.contains("has not changed it"), "{}", ran.log);
    // The other state is under the key; but of this one nobody knows what the gate lets through.
    assert_eq!((ran.output("rekeyed"), ran.output("gate")), ("1", "inconclusive"), "{}", ran.log);
    let says = format!("`{}` is not read by the full session", KEYS[0]);
    assert!(ran.report.to_string().contains(&says), "{}", ran.report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_has_ended_is_not_asked_for_again() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).retention_days = Some(1);
        world.with_object(BUCKET, KEYS[0], |object| {
            object.retention = Some(Retention { mode: "COMPLIANCE".into(), until: 1_000_000_000 });
        });
        world.with_object(BUCKET, KEYS[1], |object| {
            object.retention = Some(Retention { mode: "GOVERNANCE".into(), until: 4_000_000_000 });
            object.legal_hold = true;
        });
    })
    .await;
    // The deploy principal may see locks, and not set them: it is told so.
    {
        let mut world = bench.lab.world();
        let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
        policy["Statement"].as_array_mut().unwrap().push(json!({
            "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{DEPLOY_ACCOUNT}:role/cicd") },
            "Action": ["s3:GetObjectRetention", "s3:GetObjectLegalHold"],
            "Resource": format!("arn:aws:s3:::{BUCKET}/*")
        }));
    }
    let before = bench.run("plan", &[]).await.green();
    assert_eq!(before.check("object-lock"), "warn", "{}", before.log);
    let said =
        "`production-bootstrap` is locked: GOVERNANCE until 2096-10-02T07:06:40Z and a legal hold";
    assert!(before.report.to_string().contains(said), "{}", before.report);
    let refused = bench.run("apply", &[]).await.red("rekey-failed");
    assert!(refused.summary.contains("s3:PutObjectRetention"), "{}", refused.summary);
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    assert_eq!(ran.output("encryption"), "aws:kms", "{}", ran.log);
    let world = bench.lab.world();
    let kept = world.current(BUCKET, KEYS[1]).unwrap();
    assert_eq!(kept.retention.as_ref().map(|lock| lock.until), Some(4_000_000_000));
    assert!(kept.legal_hold);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_endpoint_in_the_usual_configuration_file_is_taken_for_one() {
    let bench = Bench::with(Topology::Roles, overwriting).await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let endpoint = bench.lab.endpoint();
    let text =
        format!("[default]\nservices = lab\n[services lab]\ns3 =\n  endpoint_url = {endpoint}\n");
    std::fs::write(home.path().join(".aws/config"), text).unwrap();
    // S3 is named in the file alone; the others by their own variables.
    let mut variables = bench.variables("admin", "apply", &bench.key, &[]);
    variables.retain(|(name, _)| name != "AWS_ENDPOINT_URL" && name != "AWS_ENDPOINT_URL_S3");
    for service in ["KMS", "STS", "IAM"] {
        variables.push((format!("AWS_ENDPOINT_URL_{service}"), endpoint.clone()));
    }
    variables.push(("HOME".into(), home.path().display().to_string()));
    let _ = tokio::task::block_in_place(|| bench.workspace.run(&variables));
    for (at, key) in KEYS.iter().enumerate() {
        assert_eq!(bench.body(key), state(7 + at as u64));
    }
    assert_eq!(in_place_calls(&bench), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_says_so_though_nothing_was_to_be_done() {
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    bench.lab.clear_log();
    bench.lab.set_latency(std::time::Duration::from_millis(500));
    let variables = bench.variables("deploy", "apply", &bench.key, &[]);
    let (ran, _) = bench.interrupted(&variables, |bench| !bench.lab.log().is_empty(), "-INT");
    let ran = ran.red("cancelled");
    assert!(!bench.lab.log().iter().any(|e| e.operation.starts_with("AssumeRole")), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_within_the_runners_patience() {
    let looks = |bench: &Bench| !bench.lab.log().is_empty();
    let writes = |bench: &Bench| bench.encryption(KEYS[1]) != Encryption::SseS3;
    // An answer that never comes: to a look, then to a write.
    for operation in ["GetObject", "CopyObject"] {
        let bench = Bench::new().await;
        bench.lab.inject(Matcher::every(operation).key(KEYS[0]), Effect::Timeout);
        let variables = bench.variables("deploy", "apply", &bench.key, &[]);
        let (ran, seconds) = match operation {
            "GetObject" => bench.interrupted(&variables, looks, "-INT"),
            _ => bench.interrupted(&variables, writes, "-TERM"),
        };
        let ran = ran.red("cancelled");
        assert!(seconds < 7.0, "{operation}: {seconds} s");
        assert_eq!(bench.body(KEYS[0]), state(7));
        assert!(ran.summary.contains("cancelled"), "{}", ran.summary);
        if operation == "CopyObject" {
            assert_eq!(ran.report["objects"][0]["action"], "lost", "{}", ran.log);
            assert!(ran.log.contains("was in hand when the run was stopped"), "{}", ran.log);
            // The other one was finished.
            assert_eq!(bench.encryption(KEYS[1]), Encryption::Kms { key: bench.key.clone() });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_at_its_time_limit() {
    let bench = Bench::new().await;
    bench.lab.inject(Matcher::every("GetObject").key(KEYS[0]), Effect::Timeout);
    let began = std::time::Instant::now();
    let ran = bench.run("apply", &[("INPUT_TIME-LIMIT", "1")]).await.red("time-limit");
    assert!(began.elapsed().as_secs() < 8);
    assert!(ran.log.contains("longer than 1 s"), "{}", ran.log);
    assert_eq!(bench.body(KEYS[0]), state(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_out_of_order_is_not_called_another_writer() {
    for error in [(503, "SlowDown"), (500, "InternalError"), (200, "InternalError")] {
        let bench = Bench::new().await;
        bench.lab.inject(Matcher::every("CopyObject"), Effect::fail(error.0, error.1));
        let ran = bench.run("apply", &[("INPUT_PROBE", "off")]).await;
        assert_eq!(ran.code, 1);
        // Nobody else has written anything.
        assert_ne!(ran.output("failure-reason"), "concurrent-writes", "{}", ran.log);
        assert!(ran.log.contains(error.1), "{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_taken_for_a_state_is_never_verified() {
    let bench = Bench::with(Topology::Roles, |world| {
        let request = "<ObjectEncryption xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><SSE-KMS/></ObjectEncryption>";
        world.put_object(BUCKET, KEYS[0], request, Encryption::SseS3);
    })
    .await;
    let digest = bench.digest();
    for (mode, key) in [("apply", bench.key.as_str()), ("verify", &bench.key), ("apply", "")] {
        let ran = bench.run_as("deploy", mode, key, &[]).await.red("state-unreadable");
        assert!(ran.log.contains("is no state"), "{}", ran.log);
    }
    bench.assert_untouched(&digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_never_holds_is_not_called_another_writer() {
    for (status, code) in [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")] {
        let bench = Bench::new().await;
        let digest = bench.digest();
        bench.lab.inject(Matcher::every("CopyObject"), Effect::fail(status, code));
        let ran = bench.run("apply", &[("INPUT_PROBE", "off")]).await.red("rekey-failed");
        assert!(ran.log.contains(code), "{}", ran.log);
        bench.assert_untouched(&digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_grow_while_others_wait_for_memory_do_not_hold_the_run_up() {
    // More than run side by side, all held, each of which grows when it is copied.
    let key = |n: usize| format!("env:/{n:02}/production");
    let bench = Bench::with(Topology::Roles, |world| {
        for n in 0..40 {
            world.put_object(BUCKET, &key(n), sized_state(1, 25 << 10), Encryption::SseS3);
        }
    })
    .await;
    for n in 0..40 {
        let name = key(n);
        bench.before_nth("CopyObject", &key(n), 1, move |world| {
            world.put_object(BUCKET, &name, sized_state(2, 400 << 10), Encryption::SseS3);
        });
    }
    let more = [
        ("TFSTATE_KMS_MEMORY_MIB", "1"),
        ("INPUT_STATE-KEYS", "env:/*"),
        ("INPUT_TIME-LIMIT", "60"),
        ("INPUT_PROBE", "off"),
    ];
    let ran = bench.run("apply", &more).await;
    assert_eq!(ran.code, 0, "{}", ran.log);
    for n in 0..40 {
        assert_eq!(bench.body(&key(n)), sized_state(2, 400 << 10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_429_is_asked_again() {
    let bench = Bench::new().await;
    for operation in ["GetObject", "HeadObject", "ListObjectVersions", "CopyObject"] {
        let once = Matcher::every(operation).nth(1);
        bench.lab.inject(once, Effect::fail(429, "TooManyRequests"));
    }
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    assert_eq!((ran.output("rekeyed"), ran.output("exposed-versions")), ("2", "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_end_under_way_are_named() {
    let bench = Bench::new().await;
    let digest = bench.digest();
    bench.lab.inject(Matcher::every("CopyObject"), Effect::fail(400, "ExpiredToken"));
    let ran = bench.run("apply", &[("INPUT_PROBE", "off")]).await.red("credentials");
    assert!(ran.log.contains("role-duration-seconds"), "{}", ran.log);
    bench.assert_untouched(&digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_put_back_is_lost_and_not_another_writers() {
    let bench = Bench::new().await;
    // New objects can be written under the key, and not read.
    bench.lab.world().require_via_service(&bench.key);
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
    bench.lab.inject(Matcher::every("PutObject"), Effect::fail(403, "AccessDenied"));
    let ran = bench.run("apply", &[]).await.red("restore-failed");
    assert!(ran.log.contains("The state as it was is the version"), "{}", ran.log);
    assert_eq!(ran.output("rekeyed"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_that_cannot_be_seen_afterwards_stops_the_re_key_of_others() {
    let bench = Bench::with(Topology::Roles, |world| {
        for serial in 8..14 {
            world.put_object(BUCKET, KEYS[0], state(serial), Encryption::SseS3);
        }
        put_all_under_the_key(world, 20);
    })
    .await;
    // GETs of the state: the survey's, the look before, the version before; then the version
    // after it was sent.
    bench.lab.inject(
        Matcher::every("GetObject").key(KEYS[0]).from(4),
        Effect::fail(403, "AccessDenied"),
    );
    let more = [("INPUT_STRATEGY", "in-place"), ("INPUT_HISTORY", "rekey"), ("INPUT_PROBE", "off")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.red("history-rekey-failed");
    assert_eq!(in_place_calls(&bench), 1, "{}", ran.log);
    assert_eq!(ran.output("changed"), "true");
    assert_eq!(bench.body(KEYS[0]), state(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_may_be_overwritten_and_cannot_be_seen_is_not_another_writers() {
    let bench = Bench::with(Topology::Roles, |world| {
        put_all_under_the_key(world, 20);
        overwriting(world);
    })
    .await;
    // The survey, the look before, the old version before and after; then nothing answers.
    for operation in ["GetObject", "HeadObject"] {
        let from = if operation == "GetObject" { 5 } else { 2 };
        let matcher = Matcher::every(operation).key(KEYS[0]).from(from);
        bench.lab.inject(matcher, Effect::fail(403, "AccessDenied"));
    }
    let more = [("INPUT_STRATEGY", "in-place"), ("INPUT_HISTORY", "rekey"), ("INPUT_PROBE", "off")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.red("history-rekey-failed");
    assert!(ran.log.contains("it may be overwritten"), "{}", ran.log);
    assert!(!ran.log.contains("another writer"), "{}", ran.log);
    assert_eq!(ran.output("changed"), "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_state_goes_first_though_others_hold_all_the_memory() {
    let bench = Bench::with(Topology::Roles, |world| {
        for key in KEYS {
            world.put_object(BUCKET, key, sized_state(30, 700 << 10), Encryption::SseS3);
        }
    })
    .await;
    bench.lab.world().require_via_service(&bench.key);
    let more = [("TFSTATE_KMS_MEMORY_MIB", "1"), ("INPUT_TIME-LIMIT", "60")];
    let ran = bench.run("apply", &more).await.green();
    assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log);
}

/// The time of a read is its own, not that of the run's end: what comes between is not known.
#[tokio::test(flavor = "multi_thread")]
async fn the_report_is_true_as_of_the_time_that_it_names() {
    let bench = Bench::new().await;
    // The other state takes three seconds; then somebody writes the first one.
    bench.lab.inject(Matcher::every("CopyObject").key(KEYS[1]).nth(1), Effect::Timeout);
    bench.before_nth("CopyObject", KEYS[1], 2, |world| {
        world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
    });
    let more = [("TFSTATE_KMS_ATTEMPT_TIMEOUT", "3"), ("INPUT_PROBE", "off")];
    let ran = bench.run("apply", &more).await.green();
    let row = &ran.report["objects"][0];
    assert_eq!((&row["key"], &row["serial"]), (&KEYS[0].into(), &7.into()), "{}", ran.log);
    let world = bench.lab.world();
    let written = world.current(BUCKET, KEYS[0]).unwrap().modified;
    let read_at = row["read_at"].as_str().unwrap();
    let read_at = DateTime::from_str(read_at, Format::DateTime).unwrap().secs();
    assert!(read_at < i64::try_from(written).unwrap(), "read at {read_at}, written at {written}");
}
