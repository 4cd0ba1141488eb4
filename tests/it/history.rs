//! Old versions, re-encryption in place, and the doctor on a real (if small) bucket.

use aws_lab::{Encryption, Topology, UpdateEncryption};
use serde_json::json;

use crate::bench::{Bench, overwriting, put_all_under_the_key};
use crate::common::{BUCKET, KEYS, sized_state, state};

async fn aged() -> Bench {
    Bench::with(Topology::Roles, |world| {
        for serial in 8..10 {
            world.put_object(BUCKET, KEYS[0], state(serial), Encryption::SseS3);
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_copy_leaves_behind_is_counted() {
    let bench = aged().await;
    // Two old versions of one state, and the two that the copies replace.
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    assert_eq!(ran.output("exposed-versions"), "4", "{}", ran.summary);
    assert_eq!(ran.check("history"), "warn");
    assert!(ran.summary.contains("NoncurrentVersionExpiration"), "{}", ran.summary);
    // Oldest and newest date.
    let checks = ran.report["checks"].as_array().unwrap();
    let history = checks.iter().find(|check| check["id"] == "history").unwrap();
    let evidence = history["evidence"].as_str().unwrap();
    let (first, last) = evidence.split_once(", written ").unwrap().1.split_once(" to ").unwrap();
    assert!(first.starts_with("20") && first <= &last[..first.len()], "{evidence}");
    let ran = bench.run_as("admin", "verify", &bench.key, &[]).await.green();
    assert_eq!(ran.output("exposed-versions"), "4");
    let off = [("INPUT_HISTORY", "off")];
    let ran = bench.run_as("admin", "verify", &bench.key, &off).await.green();
    assert_eq!((ran.output("exposed-versions"), ran.check("history")), ("", "(not made)"));
    // Who may not list versions, is told so.
    let ran = bench.run("verify", &[]).await.green();
    assert_eq!((ran.output("exposed-versions"), ran.check("history")), ("", "unknown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn states_below_a_prefix_have_a_history_too() {
    let bench = Bench::with(Topology::Roles, |world| {
        for serial in 1..4 {
            world.put_object(BUCKET, "env:/blue/production", state(serial), Encryption::SseS3);
        }
    })
    .await;
    let templates = "infra={environment}\ndns={environment}-bootstrap\nenv:/*";
    let more = [("INPUT_STATE-KEYS", templates)];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.green();
    assert_eq!((ran.output("rekeyed"), ran.output("exposed-versions")), ("3", "5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_re_keyed_in_place_where_that_is_allowed() {
    let bench = aged().await;
    let bodies = |bench: &Bench| -> Vec<Vec<u8>> {
        let world = bench.lab.world();
        KEYS.iter()
            .flat_map(|key| world.versions(BUCKET, key).to_vec())
            .map(|v| v.body.to_vec())
            .collect()
    };
    // Not to an endpoint that is not AWS's own, unless it is asked for by name.
    let rekey = [("INPUT_HISTORY", "rekey")];
    let ran = bench.run_as("admin", "apply", &bench.key, &rekey).await.green();
    assert_eq!(ran.output("exposed-versions"), "4");
    assert!(ran.log.contains("not sent to this endpoint"), "{}", ran.log);

    let before = bodies(&bench);
    let more = [("INPUT_HISTORY", "rekey"), ("INPUT_STRATEGY", "in-place")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.green();
    assert_eq!((ran.output("exposed-versions"), ran.output("changed")), ("0", "true"));
    assert_eq!(bodies(&bench), before);
    let world = bench.lab.world();
    for key in KEYS {
        for version in world.versions(BUCKET, key) {
            assert_eq!(version.encryption, Encryption::Kms { key: bench.key.clone() });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_that_s3_does_not_re_encrypt_are_left_and_named() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.put_object(BUCKET, KEYS[0], state(8), Encryption::None);
        world.put_object(BUCKET, KEYS[0], state(9), Encryption::SseS3);
    })
    .await;
    let more = [("INPUT_HISTORY", "rekey"), ("INPUT_STRATEGY", "in-place")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.green();
    assert_eq!((ran.output("exposed-versions"), ran.check("history")), ("1", "warn"));
    assert!(ran.log.contains("1 old versions stay readable"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_leaves_no_readable_version_behind() {
    let bench = Bench::new().await;
    let etag = bench.lab.world().current(BUCKET, KEYS[0]).unwrap().etag.clone();
    let more = [("INPUT_STRATEGY", "in-place")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.green();
    assert_eq!((ran.output("rekeyed"), ran.output("exposed-versions")), ("2", "0"));
    let world = bench.lab.world();
    assert_eq!(world.versions(BUCKET, KEYS[0]).len(), 1);
    assert_eq!(world.current(BUCKET, KEYS[0]).unwrap().etag, etag);
    assert!(!bench.lab.log().iter().any(|entry| entry.operation == "CopyObject"));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_by_name_never_copies_instead() {
    for (who, support) in [
        // The runbook's bucket policy does not grant s3:UpdateObjectEncryption.
        ("deploy", UpdateEncryption::Supported),
        ("admin", UpdateEncryption::NotImplemented),
    ] {
        let bench = Bench::with(Topology::Roles, |world| {
            world.bucket_mut(BUCKET).update_encryption = support;
        })
        .await;
        let digest = bench.digest();
        let more = [("INPUT_STRATEGY", "in-place")];
        let ran = bench.run_as(who, "apply", &bench.key, &more).await.red("rekey-failed");
        assert_eq!(ran.output("rekeyed"), "0", "{who}");
        assert!(ran.log.contains("s3:UpdateObjectEncryption"), "{}", ran.log);
        bench.assert_untouched(&digest);
        let ran = bench.run_as(who, "apply", &bench.key, &[]).await.green();
        assert_eq!(ran.output("rekeyed"), "2", "{who}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_overwrites_is_not_asked_and_if_it_is_the_state_is_put_back() {
    let bench = Bench::with(Topology::Roles, overwriting).await;
    // `auto` never sends it to another endpoint than AWS's own.
    let ran = bench.run_as("admin", "plan", &bench.key, &[]).await.green();
    assert_eq!(ran.output("changed"), "false");
    let more = [("INPUT_STRATEGY", "in-place")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.red("restored");
    assert!(ran.log.contains("has overwritten the state"), "{}", ran.log);
    for (at, key) in KEYS.iter().enumerate() {
        assert_eq!(bench.body(key), state(7 + at as u64));
    }
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    assert_eq!(ran.output("rekeyed"), "2");
    assert!(
        !bench
            .lab
            .log()
            .iter()
            .skip_while(|e| e.operation != "CopyObject")
            .any(|e| e.operation == "UpdateObjectEncryption")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_sees_what_would_hurt() {
    let bench = Bench::with(Topology::Roles, |world| {
        let bucket = world.bucket_mut(BUCKET);
        bucket.replication = Some((String::new(), false));
        bucket.retention_days = Some(7);
        bucket.public_access_blocked = None;
        bucket.acls_off = Some(false);
    })
    .await;
    let _ = bench.run_as("admin", "apply", &bench.key, &[("INPUT_PROBE", "off")]).await.green();
    for mode in ["plan", "verify"] {
        let ran = bench.run_as("admin", mode, &bench.key, &[("INPUT_PROBE", "off")]).await.green();
        for (id, status) in [
            ("replication", "warn"),
            ("object-lock", "warn"),
            ("bucket-public-access", "warn"),
            ("object-ownership", "pass"),
            ("bucket-versioning", "pass"),
            ("bucket-default-encryption", "pass"),
            ("bucket-policy", "pass"),
            ("key-policy", "pass"),
            ("key-rotation", "pass"),
        ] {
            assert_eq!(ran.check(id), status, "{mode}: {id}");
        }
        // The deploy principal may read none of it: unknown, and no failure.
        let ran = bench.run(mode, &[]).await.green();
        // Each object tells of its replication.
        assert_eq!(ran.check("replication"), "pass", "{mode}");
        for id in ["object-lock", "bucket-public-access", "bucket-policy", "key-policy"] {
            assert_eq!(ran.check(id), "unknown", "{mode}: {id}");
        }
    }
}

/// What the replication role may is judged by the key policy, as far as that may be read.
#[tokio::test(flavor = "multi_thread")]
async fn the_replication_role_is_looked_at() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).replication = Some((String::new(), true));
    })
    .await;
    let role = "arn:aws:iam::111111111111:role/replication";
    let admin = "arn:aws:iam::111111111111:user/admin";
    let ran = bench.run_as("admin", "plan", &bench.key, &[]).await.green();
    assert_eq!(ran.check("replication"), "unknown", "{}", ran.log);
    assert!(ran.summary.contains("put-role-policy --role-name replication"), "{}", ran.summary);
    bench.change_key(|key| {
        let statements = key.policy["Statement"].as_array_mut().unwrap();
        statements[0]["Action"] = json!(["kms:Describe*", "kms:Get*", "kms:Put*", "kms:Create*"]);
        statements[1]["Principal"]["AWS"] = json!(admin);
    });
    let ran = bench.run_as("admin", "plan", &bench.key, &[]).await.green();
    assert_eq!(ran.check("replication"), "warn", "{}", ran.log);
    assert!(ran.summary.contains("StateReplication111111111111replication"), "{}", ran.summary);
    bench.change_key(|key| key.policy["Statement"][1]["Principal"]["AWS"] = json!([admin, role]));
    let ran = bench.run_as("admin", "plan", &bench.key, &[]).await.green();
    assert_eq!(ran.check("replication"), "unknown", "{}", ran.log);
    let nothing_missing = "lets arn:aws:iam::111111111111:role/replication decrypt; the copies";
    assert!(ran.report.to_string().contains(nothing_missing), "{}", ran.summary);
}

/// What is to be pasted names the bucket, and its JSON is whole.
#[tokio::test(flavor = "multi_thread")]
async fn the_lifecycle_rules_can_be_pasted() {
    let bench = Bench::with(Topology::Roles, |world| {
        for n in 0..12 {
            let key = format!("env:/{n:02}/production");
            world.put_object(BUCKET, &key, state(1), Encryption::SseS3);
        }
    })
    .await;
    let ten = [("INPUT_PROBE", "off")];
    let all = [("INPUT_PROBE", "off"), ("INPUT_STATE-KEYS", "env:/*")];
    for (more, rules, count) in [(&ten[..], 2, ""), (&all[..], 10, "the first 10 of 12 states")] {
        let ran = bench.run_as("admin", "apply", &bench.key, more).await.green();
        let checks = ran.report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["id"] == "history").unwrap();
        let remedy = check["remedy"].as_str().unwrap();
        let command = format!("put-bucket-lifecycle-configuration --bucket {BUCKET} ");
        assert!(remedy.contains(&command) && remedy.contains(count), "{remedy}");
        let (from, to) = (remedy.find("\n{").unwrap(), remedy.rfind("\n}").unwrap());
        let json: serde_json::Value = serde_json::from_str(&remedy[from..to + 2]).unwrap();
        assert_eq!(json["Rules"].as_array().unwrap().len(), rules);
    }
}

/// States that were written before versioning was turned on: their version is `null`.
async fn before_versioning(text: impl Fn(u64) -> Vec<u8>) -> Bench {
    Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).versioned = false;
        for (at, key) in KEYS.iter().enumerate() {
            world.remove_object(BUCKET, key);
            world.put_object(BUCKET, key, text(7 + at as u64), Encryption::SseS3);
        }
        world.bucket_mut(BUCKET).versioned = true;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_before_versioning_is_left_behind_and_counted() {
    let bench = before_versioning(state).await;
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    assert_eq!((ran.output("rekeyed"), ran.output("exposed-versions")), ("2", "2"), "{}", ran.log);
    assert_eq!(ran.check("history"), "warn");
    let more = [("INPUT_HISTORY", "rekey"), ("INPUT_STRATEGY", "in-place")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.green();
    assert_eq!((ran.output("exposed-versions"), ran.check("history")), ("0", "pass"));
    let world = bench.lab.world();
    for version in KEYS.iter().flat_map(|key| world.versions(BUCKET, key)) {
        assert_eq!(version.encryption, Encryption::Kms { key: bench.key.clone() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_before_versioning_can_be_fallen_back_on_only_while_it_is_on() {
    let big = |serial| sized_state(serial, 1300 << 10);
    let small = [("TFSTATE_KMS_MEMORY_MIB", "1")];
    let bench = before_versioning(big).await;
    let ran = bench.run_as("admin", "apply", &bench.key, &small).await.green();
    assert_eq!(ran.output("rekeyed"), "2");
    // Where nobody may say whether versioning is on, the version `null` may be what is
    // overwritten.
    let bench = before_versioning(big).await;
    let digest = bench.digest();
    let ran = bench.run("apply", &small).await.red("not-rekeyable");
    bench.assert_untouched(&digest);
    assert!(ran.log.contains("too many to hold in memory"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_leave_behind_during_the_run_is_counted_too() {
    let bench = Bench::new().await;
    bench.before_nth("CopyObject", KEYS[0], 1, |world| {
        world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
    });
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    // Two of the contended state, one of the other.
    assert_eq!((ran.output("rekeyed"), ran.output("exposed-versions")), ("2", "3"), "{}", ran.log);

    // Another writer's newer state under the key, after a version of its own that is not.
    let bench = Bench::new().await;
    bench.before_nth("CopyObject", KEYS[0], 1, |world| {
        let key = world.state_key_arn().to_owned();
        world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
        world.put_object(BUCKET, KEYS[0], state(101), Encryption::Kms { key });
    });
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    assert_eq!((ran.output("rekeyed"), ran.output("exposed-versions")), ("1", "3"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_manages_a_key_that_another_writer_brings_is_asked_too() {
    let bench = Bench::new().await;
    bench.before_nth("CopyObject", KEYS[0], 1, |world| {
        let target = world.state_key_arn().to_owned();
        let key = world.add_key_like(&target);
        world.put_object(BUCKET, KEYS[0], state(100), Encryption::Kms { key });
        world.put_object(BUCKET, KEYS[0], state(101), Encryption::SseS3);
    });
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    // Two of the contended state, one of the other; one is under the customer's other key.
    assert_eq!(ran.output("exposed-versions"), "3", "{}", ran.summary);
    assert!(ran.summary.contains("1 still need the key"), "{}", ran.summary);
    assert!(!ran.summary.contains("needs kms:DescribeKey on it"), "{}", ran.summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_under_aws_s3_are_readable_without_the_key() {
    let bench = Bench::with(Topology::Roles, |world| {
        for state_key in KEYS {
            world.remove_object(BUCKET, state_key);
        }
        let key = world.aws_s3_key(BUCKET);
        world.put_object(BUCKET, KEYS[0], state(20), Encryption::Kms { key });
        put_all_under_the_key(world, 21);
    })
    .await;
    let ran = bench.run_as("admin", "verify", &bench.key, &[]).await.green();
    assert_eq!((ran.output("exposed-versions"), ran.check("history")), ("1", "warn"));
    assert!(ran.summary.contains("a key that AWS manages"), "{}", ran.summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_which_nobody_says_who_manages_it_is_not_taken_for_the_customers() {
    let bench = Bench::with(Topology::Roles, |world| {
        let target = world.state_key_arn().to_owned();
        let other = world.add_key_like(&target);
        world.drop_from_key_policy(&other, "kms:DescribeKey");
        world.key_mut(&other).policy["Statement"].as_array_mut().unwrap().remove(0);
        for (at, key) in KEYS.iter().enumerate() {
            world.remove_object(BUCKET, key);
            for (serial, key_id) in [(20, &other), (21, &target)] {
                let encryption = Encryption::Kms { key: key_id.clone() };
                world.put_object(BUCKET, key, state(serial + at as u64), encryption);
            }
        }
    })
    .await;
    let ran = bench.run_as("admin", "verify", &bench.key, &[]).await.green();
    assert_eq!((ran.output("exposed-versions"), ran.check("history")), ("", "unknown"));
    assert!(ran.summary.contains("kms:DescribeKey"), "{}", ran.summary);
}
