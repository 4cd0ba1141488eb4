//! Terraform's own lock: taken, respected, released, and never left behind unsaid.

use aws_lab::{Effect, Encryption, Lab, Matcher, Topology};
use serde_json::Value;

use crate::bench::{Bench, put_all_under_the_key};
use crate::common::{BUCKET, KEYS, state};

const TERRAFORMS: &str = r#"{"ID":"f1af2b35-e439-0781-ec9c-3b7f94b459d1","Operation":"OperationTypeApply","Info":"","Who":"root@vm","Version":"1.11.4","Created":"2026-11-24T03:35:02.093082354Z","Path":"cabal-tf-backend/production"}"#;

fn lock_of(key: &str) -> String {
    format!("{key}.tflock")
}

fn lock(lab: &Lab, key: &str) -> Option<Vec<u8>> {
    lab.world().current(BUCKET, &lock_of(key)).map(|version| version.body.to_vec())
}

const LOCK: (&str, &str) = ("INPUT_LOCK", "s3");
const AT_ONCE: (&str, &str) = ("INPUT_LOCK-TIMEOUT", "0");

#[tokio::test(flavor = "multi_thread")]
async fn it_is_held_during_the_re_key_and_released() {
    for (mode, key) in [("apply", true), ("rollback", false)] {
        let bench = Bench::new().await;
        let kms = Encryption::Kms { key: bench.key.clone() };
        if !key {
            for key in KEYS {
                bench.lab.world().put_object(BUCKET, key, state(7), kms.clone());
            }
        }
        // Looked at from inside: while the copy is carried out.
        let wanted = if key { kms } else { Encryption::SseS3 };
        bench.before_nth("CopyObject", KEYS[0], 1, move |world| {
            for key in KEYS {
                let lock = world.current(BUCKET, &lock_of(key)).expect("a lock");
                assert_eq!(
                    (&lock.encryption, lock.content_type.as_deref()),
                    (&wanted, Some("application/json"))
                );
                let info: Value = serde_json::from_slice(&lock.body).unwrap();
                assert_eq!(info["Path"], format!("{BUCKET}/{key}"));
                assert!(info["Info"].as_str().unwrap().starts_with("tfstate-kms changes"));
            }
        });
        let variable = if key { bench.key.as_str() } else { "" };
        let ran = bench.run_as("deploy", mode, variable, &[LOCK]).await.green();
        assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log);
        assert!(KEYS.iter().all(|key| lock(&bench.lab, key).is_none()));
        // What has nothing to write takes none.
        bench.lab.clear_log();
        let _ = bench.run_as("deploy", mode, variable, &[LOCK]).await.green();
        assert!(bench.writes().is_empty(), "{:?}", bench.writes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terraforms_lock_is_respected() {
    let bench = Bench::new().await;
    bench.lab.world().put_object(BUCKET, &lock_of(KEYS[1]), TERRAFORMS, Encryption::SseS3);
    let ran = bench.run("apply", &[LOCK, AT_ONCE]).await.red("state-locked");
    assert!(ran.log.contains("held by root@vm, for OperationTypeApply"), "{}", ran.log);
    assert!(ran.log.contains("terraform force-unlock f1af2b35-e439-0781-ec9c-3b7f94b459d1"));
    assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
    assert_eq!(lock(&bench.lab, KEYS[0]), None, "the other one was given back");
    assert_eq!(lock(&bench.lab, KEYS[1]).unwrap(), TERRAFORMS.as_bytes());
    // It is waited for: at the third look it is gone.
    bench.lab.inject(
        Matcher::every("GetObject").key(&lock_of(KEYS[1])).nth(2),
        Effect::Act(Box::new(|world| world.delete_object(BUCKET, &lock_of(KEYS[1])))),
    );
    let ran = bench.run("apply", &[LOCK]).await.green();
    assert!(ran.log.contains("waiting for the lock of `production-bootstrap`"), "{}", ran.log);
    assert_eq!(ran.output("rekeyed"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_given_back_as_it_is_asked_for_is_taken() {
    let bench = Bench::new().await;
    let of = lock_of(KEYS[0]);
    // Terraform comes first, and has gone when it is asked who holds it.
    let (taken, gone) = (of.clone(), of.clone());
    bench.before_nth("PutObject", &of, 1, move |world| {
        world.put_object(BUCKET, &taken, TERRAFORMS, Encryption::SseS3);
    });
    bench.before_nth("GetObject", &of, 2, move |world| world.delete_object(BUCKET, &gone));
    let ran = bench.run("apply", &[LOCK, AT_ONCE]).await.green();
    assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log);
    let puts = bench.lab.log().iter().filter(|e| e.operation == "PutObject").count();
    assert_eq!(puts, 3, "one was asked for twice");
    assert!(KEYS.iter().all(|key| lock(&bench.lab, key).is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn none_is_taken_that_could_not_be_released() {
    // The runbook's bucket policy does not grant s3:DeleteObject.
    let bench = Bench::with(Topology::Roles, |world| {
        let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
        let text = policy.to_string().replace("\"s3:DeleteObject\"", "\"s3:None\"");
        *policy = serde_json::from_str(&text).unwrap();
    })
    .await;
    let digest = bench.digest();
    let ran = bench.run("apply", &[LOCK]).await.red("state-locked");
    bench.assert_untouched(&digest);
    assert!(
        ran.log.contains("could not release it") && ran.log.contains("s3:DeleteObject"),
        "{}",
        ran.log
    );
    assert!(!bench.writes().iter().any(|call| call == "PutObject"), "{:?}", bench.writes());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_released_on_every_way_out() {
    // A lost answer: the lock is recognised as this run's own.
    let lost = Bench::new().await;
    lost.lab.inject(Matcher::every("PutObject").key(&lock_of(KEYS[0])), Effect::ResetAfter);
    let _ = lost.run("apply", &[LOCK]).await.green();
    assert_eq!(lock(&lost.lab, KEYS[0]), None);
    // A failure.
    let failing = Bench::new().await;
    failing.lab.inject(Matcher::every("CopyObject"), Effect::fail(403, "AccessDenied"));
    let _ = failing.run("apply", &[LOCK]).await.red("rekey-failed");
    assert!(KEYS.iter().all(|key| lock(&failing.lab, key).is_none()));
    // A cancellation, in the middle of a copy that never ends.
    let cancelled = Bench::new().await;
    cancelled.lab.inject(Matcher::every("CopyObject"), Effect::Timeout);
    let variables = cancelled.variables("deploy", "apply", &cancelled.key, &[LOCK]);
    let held = |bench: &Bench| KEYS.iter().all(|key| lock(&bench.lab, key).is_some());
    let (ran, seconds) = cancelled.interrupted(&variables, held, "-INT");
    let ran = ran.red("cancelled");
    assert!(seconds < 7.0, "{seconds}");
    assert!(KEYS.iter().all(|key| lock(&cancelled.lab, key).is_none()), "{}", ran.log);
    // Where it cannot be released, that is said.
    let stuck = Bench::new().await;
    let mut matcher = Matcher::every("DeleteObject").key(&lock_of(KEYS[0]));
    matcher.from = 2;
    stuck.lab.inject(matcher, Effect::fail(500, "InternalError"));
    let ran = stuck.run("apply", &[LOCK]).await.red("state-locked");
    assert!(ran.log.contains("terraform force-unlock"), "{}", ran.log);
    assert_eq!(ran.output("rekeyed"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_forced_and_taken_by_another_is_left_alone() {
    let bench = Bench::new().await;
    bench.before_nth("CopyObject", KEYS[0], 1, |world| {
        world.delete_object(BUCKET, &lock_of(KEYS[0]));
        world.put_object(BUCKET, &lock_of(KEYS[0]), TERRAFORMS, Encryption::SseS3);
    });
    let _ = bench.run("apply", &[LOCK]).await.green();
    assert_eq!(lock(&bench.lab, KEYS[0]).unwrap(), TERRAFORMS.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_next_run_says_how_to_unlock() {
    let bench = Bench::new().await;
    bench.lab.inject(Matcher::every("CopyObject"), Effect::Timeout);
    let variables = bench.variables("deploy", "apply", &bench.key, &[LOCK]);
    tokio::task::block_in_place(|| {
        let mut child = bench.workspace.start(&variables);
        while KEYS.iter().any(|key| lock(&bench.lab, key).is_none()) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
    bench.lab.clear_faults();
    let ran = bench.run("apply", &[LOCK, AT_ONCE]).await.red("state-locked");
    assert!(ran.log.contains("tfstate-kms apply"), "{}", ran.log);
    // Each of them, in one run.
    for key in KEYS {
        let info: Value = serde_json::from_slice(&lock(&bench.lab, key).unwrap()).unwrap();
        let command = format!("terraform force-unlock {}", info["ID"].as_str().unwrap());
        assert!(ran.log.contains(&command), "{command}: {}", ran.log);
    }
}

/// S3 writes the lock under the key, and lets nobody read it: so it cannot be compared.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_read_is_released() {
    let bench = Bench::new().await;
    bench.lab.world().require_via_service(&bench.key);
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
    let ran = bench.run("apply", &[LOCK]).await.red("restored");
    assert!(KEYS.iter().all(|key| lock(&bench.lab, key).is_none()), "{}", ran.log);
    assert!(!ran.log.contains("force-unlock"), "{}", ran.log);
}

/// The run is cancelled while S3 carries out the writing of a lock.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_being_written_is_known_to_a_cancelled_run() {
    let bench = Bench::new().await;
    let late = std::time::Duration::from_secs(1);
    bench.lab.inject(Matcher::every("PutObject").key(&lock_of(KEYS[0])), Effect::Late(late));
    let variables = bench.variables("deploy", "apply", &bench.key, &[LOCK]);
    let other = |bench: &Bench| lock(&bench.lab, KEYS[1]).is_some();
    let (ran, seconds) = bench.interrupted(&variables, other, "-INT");
    let ran = ran.red("cancelled");
    assert!(seconds < 7.0, "{seconds}");
    tokio::time::sleep(late).await;
    assert!(KEYS.iter().all(|key| lock(&bench.lab, key).is_none()), "{}", ran.log);
    assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
}

/// Its writing gets no answer in time, and comes to be.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_written_late_is_taken_or_named() {
    // The attempt is given up after a second.
    let impatient = ("TFSTATE_KMS_ATTEMPT_TIMEOUT", "1");
    for (millis, known) in [(1_100, true), (9_000, false)] {
        let bench = Bench::new().await;
        let late = std::time::Duration::from_millis(millis);
        let writes = Matcher::every("PutObject").key(&lock_of(KEYS[0]));
        bench.lab.inject(if known { writes.nth(1) } else { writes }, Effect::Late(late));
        let ran = bench.run("apply", &[LOCK, impatient]).await;
        if known {
            assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log);
            assert!(KEYS.iter().all(|key| lock(&bench.lab, key).is_none()), "{}", ran.log);
        } else {
            let ran = ran.red("state-locked");
            assert!(ran.log.contains("may yet come to be there"), "{}", ran.log);
            tokio::time::sleep(late).await;
            let left = lock(&bench.lab, KEYS[0]).expect("the lock has come");
            let info: Value = serde_json::from_slice(&left).unwrap();
            let command = format!("terraform force-unlock {}", info["ID"].as_str().unwrap());
            assert!(ran.log.contains(&command), "{}", ran.log);
        }
        assert_eq!(lock(&bench.lab, KEYS[1]), None);
    }
}

/// Its writing gets no answer, Terraform's lock comes and goes, and then it is there.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_to_be_behind_terraforms_is_known() {
    let bench = Bench::new().await;
    let of = lock_of(KEYS[0]);
    let late = std::time::Duration::from_secs(3);
    bench.lab.inject(Matcher::every("PutObject").key(&of).nth(1), Effect::Late(late));
    let (taken, gone) = (of.clone(), of.clone());
    bench.before_nth("GetObject", &of, 2, move |world| {
        world.put_object(BUCKET, &taken, TERRAFORMS, Encryption::SseS3);
    });
    // The last of the looks that follow at once.
    bench.before_nth("GetObject", &of, 5, move |world| world.delete_object(BUCKET, &gone));
    let impatient = ("TFSTATE_KMS_ATTEMPT_TIMEOUT", "1");
    let ran = bench.run("apply", &[LOCK, impatient]).await.green();
    assert!(ran.log.contains("waiting for the lock of `production`"), "{}", ran.log);
    let log = bench.lab.log();
    let puts = log.iter().filter(|entry| entry.resource.as_ref() == Some(&of));
    let puts = puts.filter(|entry| entry.operation == "PutObject").count();
    // On a busy machine it may come while Terraform's is there, and is written anew.
    assert!((1..=2).contains(&puts), "{puts}: {}", ran.log);
    assert!(KEYS.iter().all(|key| lock(&bench.lab, key).is_none()), "{}", ran.log);
}

/// Somebody forces it and takes it, at the worst of moments.
#[tokio::test(flavor = "multi_thread")]
async fn no_deletion_meets_another_ones_lock() {
    for (nth, mode) in [(1, "asked"), (2, "released")] {
        let bench = Bench::new().await;
        let of = lock_of(KEYS[0]);
        bench.before_nth("DeleteObject", &of.clone(), nth, move |world| {
            world.delete_object(BUCKET, &of);
            world.put_object(BUCKET, &of, TERRAFORMS, Encryption::SseS3);
        });
        let ran = bench.run("apply", &[LOCK, AT_ONCE]).await;
        assert_eq!(lock(&bench.lab, KEYS[0]).unwrap(), TERRAFORMS.as_bytes(), "{mode}");
        assert_eq!(lock(&bench.lab, KEYS[1]), None, "{mode}");
        match nth {
            // It was not there yet when it was looked for.
            1 => assert_eq!(ran.output("failure-reason"), "state-locked", "{}", ran.log),
            _ => assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log),
        }
    }
}

/// Time is up while states are in hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_while_it_waits_leaves_its_own_behind_nowhere() {
    let bench = Bench::new().await;
    bench.lab.world().put_object(BUCKET, &lock_of(KEYS[1]), TERRAFORMS, Encryption::SseS3);
    let variables = bench.variables("deploy", "apply", &bench.key, &[LOCK]);
    // By its second look at the one that is held it has had the other one.
    let waits = |bench: &Bench| {
        let log = bench.lab.log();
        let held = lock_of(KEYS[1]);
        let looks = log.iter().filter(|e| e.resource.as_deref() == Some(held.as_str()));
        looks.filter(|e| e.operation == "GetObject").count() > 1
    };
    let (ran, seconds) = bench.interrupted(&variables, waits, "-INT");
    let ran = ran.red("cancelled");
    assert!(ran.log.contains("waiting for the lock of `production-bootstrap`"), "{}", ran.log);
    assert!(seconds < 3.0, "{seconds} s");
    assert_eq!(lock(&bench.lab, KEYS[0]), None, "{}", ran.log);
    assert_eq!(lock(&bench.lab, KEYS[1]).unwrap(), TERRAFORMS.as_bytes());
    assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_released_at_the_time_limit() {
    let bench = Bench::new().await;
    bench.lab.inject(Matcher::every("CopyObject"), Effect::Timeout);
    let ran = bench.run("apply", &[LOCK, ("INPUT_TIME-LIMIT", "2")]).await.red("time-limit");
    assert!(ran.log.contains("when the run was stopped"), "{}", ran.log);
    assert!(KEYS.iter().all(|key| lock(&bench.lab, key).is_none()), "{}", ran.log);
}

/// Old versions alone are re-keyed under the lock, too.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_held_while_old_versions_are_re_keyed() {
    let bench = Bench::with(Topology::Roles, |world| put_all_under_the_key(world, 20)).await;
    bench.before_nth("UpdateObjectEncryption", KEYS[0], 1, |world| {
        assert!(world.current(BUCKET, &lock_of(KEYS[0])).is_some());
    });
    let more = [("INPUT_HISTORY", "rekey"), ("INPUT_STRATEGY", "in-place"), LOCK];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.green();
    assert_eq!(ran.output("exposed-versions"), "0", "{}", ran.log);
    assert!(ran.log.contains("2 locks taken"), "{}", ran.log);
    assert!(KEYS.iter().all(|key| lock(&bench.lab, key).is_none()));
}
