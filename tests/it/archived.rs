//! States and noncurrent versions in S3's archive classes: readable only after a restore, and
//! only while it lasts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lab::{DEPLOY_ACCOUNT, Effect, Encryption, Matcher, Restore, Topology, World};
use serde_json::json;

use crate::bench::{Bench, put_all_under_the_key};
use crate::common::{BUCKET, KEYS, sized_state, state};

const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];
const IN_PLACE: [(&str, &str); 2] = [("INPUT_HISTORY", "rekey"), ("INPUT_STRATEGY", "in-place")];

/// A restored copy that lasts for a day.
fn restored() -> Option<Restore> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Some(Restore::Until((now + Duration::from_secs(86_400)).as_secs()))
}

fn archive(world: &mut World, key: &str, class: &str, restore: Option<Restore>) {
    world.with_object(BUCKET, key, |version| {
        version.storage_class = Some(class.into());
        version.restore = restore;
    });
}

fn class(bench: &Bench, key: &str) -> Option<String> {
    bench.lab.world().current(BUCKET, key).unwrap().storage_class.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_state_is_written_where_it_stays_readable() {
    for from in ARCHIVES {
        let bench = Bench::with(Topology::Roles, |world| {
            archive(world, KEYS[0], from, restored());
        })
        .await;
        let ran = bench.run("plan", &[]).await.green();
        assert!(ran.log.contains("::warning") && ran.log.contains(from), "{}", ran.log);
        let ran = bench.run("apply", &[]).await.green();
        assert_eq!((ran.output("rekeyed"), ran.output("verified")), ("2", "true"));
        assert_eq!(ran.check("content-unchanged"), "pass", "{}", ran.log);
        assert!(ran.log.contains("::warning") && ran.log.contains("STANDARD"), "{}", ran.log);
        assert_eq!((class(&bench, KEYS[0]), bench.body(KEYS[0])), (None, state(7)));
        assert_eq!(bench.encryption(KEYS[0]), Encryption::Kms { key: bench.key.clone() });
        let detail = ran.report["objects"][0]["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(from) && detail.contains("STANDARD"), "{detail}");
        let _ = bench.run("verify", &[]).await.green();

        // The way back is a copy, too.
        bench.lab.world().with_object(BUCKET, KEYS[0], |version| {
            (version.storage_class, version.restore) = (Some(from.into()), restored());
        });
        let ran = bench.run_as("deploy", "rollback", "", &[]).await.green();
        assert_eq!((class(&bench, KEYS[0]), bench.body(KEYS[0])), (None, state(7)), "{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_is_read_at_once_is_kept() {
    let bench = Bench::with(Topology::Roles, |world| {
        archive(world, KEYS[0], "GLACIER_IR", None);
    })
    .await;
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(class(&bench, KEYS[0]).as_deref(), Some("GLACIER_IR"), "{}", ran.log);
}

/// The state is written under the key, cannot be read back, and is put back where it can be: from
/// memory, and from its version.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_back_is_readable() {
    for (size, write) in [(1 << 10, "PutObject"), (1300 << 10, "CopyObject")] {
        let bench = Bench::with(Topology::Roles, |world| {
            world.remove_object(BUCKET, KEYS[1]);
            world.put_object(BUCKET, KEYS[0], sized_state(7, size), Encryption::SseS3);
            archive(world, KEYS[0], "GLACIER", restored());
            let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
            policy["Statement"].as_array_mut().unwrap().push(json!({
                "Effect": "Allow", "Action": "s3:GetObjectVersion",
                "Principal": { "AWS": format!("arn:aws:iam::{DEPLOY_ACCOUNT}:role/cicd") },
                "Resource": format!("arn:aws:s3:::{BUCKET}/*")
            }));
        })
        .await;
        bench.lab.world().require_via_service(&bench.key);
        bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
        let ran = bench.run("apply", &[("TFSTATE_KMS_MEMORY_MIB", "1")]).await.red("restored");
        assert!(!ran.log.contains("not have the same"), "{}", ran.log);
        assert_eq!(bench.writes().last().map(String::as_str), Some(write), "{}", ran.log);
        assert_eq!((class(&bench, KEYS[0]), bench.body(KEYS[0])), (None, sized_state(7, size)));
        assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_state_is_refused_with_the_command_that_restores_it() {
    for from in ARCHIVES {
        for (restore, says) in
            [(None, "--restore-request Days="), (Some(Restore::Ongoing), "is being restored")]
        {
            let bench = Bench::with(Topology::Roles, |world| {
                archive(world, KEYS[0], from, restore);
            })
            .await;
            let digest = bench.digest();
            for mode in ["plan", "apply", "verify"] {
                let ran = bench.run(mode, &[]).await.red("state-unreadable");
                bench.assert_untouched(&digest);
                assert!(ran.log.contains(from) && ran.log.contains(says), "{mode}: {}", ran.log);
                assert!(!ran.log.contains("needs kms:Decrypt"), "{mode}: {}", ran.log);
            }
        }
    }
}

/// An archived state under the key was archived, not written by a run that was killed.
#[tokio::test(flavor = "multi_thread")]
async fn an_archived_state_under_the_key_is_no_killed_runs() {
    let bench = Bench::with(Topology::Roles, |world| {
        put_all_under_the_key(world, 20);
        archive(world, KEYS[0], "GLACIER", None);
    })
    .await;
    let reader = bench.lab.world().add_reader_role("plan", "222222222222", true, true);
    let shut = bench.lab.world().add_reader_role("shut", "222222222222", true, false);
    let more = [("INPUT_MUST-READ", reader.as_str())];
    let ran = bench.run("verify", &more).await.red("state-unreadable");
    assert!(ran.log.contains("restore-object"), "{}", ran.log);
    assert!(!ran.log.contains("was killed"), "{}", ran.log);
    // Nor is a reader locked out by that.
    assert_eq!(ran.check("readers"), "pass", "{}", ran.log);
    let more = [("INPUT_MUST-READ", shut.as_str())];
    let ran = bench.run("verify", &more).await;
    assert_eq!(ran.check("readers"), "fail", "{}", ran.log);
}

/// Lifecycle rules archive noncurrent versions; in place they need no restore.
#[tokio::test(flavor = "multi_thread")]
async fn archived_noncurrent_versions_are_re_keyed_without_being_read() {
    for from in ARCHIVES {
        let bench = Bench::with(Topology::Roles, |world| {
            archive(world, KEYS[0], from, None);
            put_all_under_the_key(world, 20);
        })
        .await;
        let ran = bench.run_as("admin", "apply", &bench.key, &IN_PLACE).await.green();
        assert_eq!((ran.output("exposed-versions"), ran.check("history")), ("0", "pass"));
        let world = bench.lab.world();
        for version in KEYS.iter().flat_map(|key| world.versions(BUCKET, key)) {
            assert_eq!(version.encryption, Encryption::Kms { key: bench.key.clone() });
        }
        assert_eq!(world.versions(BUCKET, KEYS[0])[0].storage_class.as_deref(), Some(from));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_versions_that_s3_does_not_re_encrypt_are_left_and_named() {
    let bench = Bench::with(Topology::Roles, |world| {
        archive(world, KEYS[0], "GLACIER", None);
        put_all_under_the_key(world, 20);
    })
    .await;
    let refused = Matcher::every("UpdateObjectEncryption").key(KEYS[0]);
    bench.lab.inject(refused, Effect::fail(403, "InvalidObjectState"));
    let id = bench.lab.world().versions(BUCKET, KEYS[0])[0].version_id.clone();
    let ran = bench.run_as("admin", "apply", &bench.key, &IN_PLACE).await.green();
    assert_eq!((ran.output("exposed-versions"), ran.check("history")), ("1", "warn"));
    let warning = ran.log.lines().find(|line| line.contains("::warning") && line.contains(&id));
    assert!(warning.is_some_and(|line| line.contains("archived")), "{}", ran.log);
}
