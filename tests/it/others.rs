//! What others do to a state, or to the way to it, while the action is at work.

use aws_lab::{DEPLOY_ACCOUNT, Effect, Encryption, Matcher, Topology};
use serde_json::json;

use crate::bench::{Bench, put_all_under_the_key};
use crate::common::{BUCKET, KEYS, sized_state, state};

const BELOW: (&str, &str) = ("INPUT_STATE-KEYS", "env:/*");
/// More than are held at a time: it is read again in its turn.
const LAST: &str = "env:/39/production";

/// Forty states below a prefix.
async fn forty() -> Bench {
    Bench::with(Topology::Roles, |world| {
        for at in 0..40 {
            let key = format!("env:/{at:02}/production");
            world.put_object(BUCKET, &key, state(at), Encryption::SseS3);
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_end_before_a_second_read_are_named() {
    for (error, reason) in
        [((400, "ExpiredToken"), "credentials"), ((503, "SlowDown"), "aws-unavailable")]
    {
        let bench = forty().await;
        let again = Matcher::every("GetObject").key(LAST).from(2);
        bench.lab.inject(again, Effect::fail(error.0, error.1));
        let ran = bench.run("apply", &[BELOW]).await.red(reason);
        assert!(ran.log.contains("could not be read again"), "{}", ran.log);
        assert_eq!(bench.encryption(LAST), Encryption::SseS3);
    }
}

/// What another writer has put where it is to be is not written once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_settled_by_another_is_left_so() {
    for two_layers in [false, true] {
        let bench = forty().await;
        let key = bench.key.clone();
        let encryption =
            if two_layers { Encryption::Dsse { key } } else { Encryption::Kms { key } };
        let settled = encryption.clone();
        bench.before_nth("GetObject", LAST, 2, move |world| {
            world.put_object(BUCKET, LAST, state(100), settled.clone());
        });
        let ran = bench.run("apply", &[BELOW]).await.green();
        assert_eq!(ran.output("rekeyed"), "39", "{}", ran.log);
        assert_eq!((bench.encryption(LAST), bench.body(LAST)), (encryption, state(100)));
        assert_eq!(bench.lab.world().versions(BUCKET, LAST).len(), 2);
    }
}

/// A server has taken another tool's in-place request for a state.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_state_any_more_is_not_re_keyed() {
    let request = "<ObjectEncryption xmlns=\"x\"></ObjectEncryption>";
    for under_the_key in [false, true] {
        let bench = Bench::new().await;
        let key = bench.key.clone();
        let encryption = if under_the_key { Encryption::Kms { key } } else { Encryption::SseS3 };
        let written = encryption.clone();
        bench.before_nth("CopyObject", KEYS[0], 1, move |world| {
            world.put_object(BUCKET, KEYS[0], request, written.clone());
        });
        let ran = bench.run("apply", &[]).await.red("not-rekeyable");
        assert_eq!(bench.body(KEYS[0]), request.as_bytes());
        assert_eq!(bench.encryption(KEYS[0]), encryption);
        assert!(ran.log.contains("another writer has made it the request"), "{}", ran.log);
        assert_eq!(ran.check("object-readable"), "fail", "{}", ran.log);
    }
}

/// The tags are asked for after the body, and without a condition.
#[tokio::test(flavor = "multi_thread")]
async fn the_tags_of_another_writers_state_are_not_taken_for_this_ones() {
    for nth in [1, 2] {
        let bench = Bench::with(Topology::Roles, |world| {
            world.tag_object(BUCKET, KEYS[0], &[("team", "infra")]);
        })
        .await;
        bench.before_nth("GetObjectTagging", KEYS[0], nth, |world| {
            world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
        });
        let ran = bench.run("apply", &[]).await.green();
        assert_eq!((ran.output("rekeyed"), bench.body(KEYS[0])), ("2", state(100)), "{}", ran.log);
        assert_eq!(ran.report["objects"][0]["serial"], 100);
    }
}

/// Versions are listed beside the survey: a write between the two is in neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_between_the_listing_and_the_survey_is_counted() {
    for (strategy, exposed) in [("copy", "3"), ("in-place", "1")] {
        let bench = Bench::new().await;
        let survey = || Matcher::every("GetObject").key(KEYS[0]);
        // The first attempt fails, so the listing is over by the second.
        bench.lab.inject(survey().nth(1), Effect::fail(503, "SlowDown"));
        bench.before_nth("GetObject", KEYS[0], 2, |world| {
            world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
        });
        let more = [("INPUT_STRATEGY", strategy)];
        let ran = bench.run_as("admin", "apply", &bench.key, &more).await.green();
        assert_eq!(ran.output("exposed-versions"), exposed, "{strategy}: {}", ran.log);
        assert_eq!(ran.check("history"), "warn");
    }
}

/// A lifecycle rule ends an old version between the look and the re-key.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_that_is_gone_needs_no_re_key() {
    let bench = Bench::with(Topology::Roles, |world| {
        put_all_under_the_key(world, 20);
    })
    .await;
    // The survey, the careful look before, and the version itself.
    bench.before_nth("GetObject", KEYS[0], 3, |world| {
        let versions = world.bucket_mut(BUCKET).objects.get_mut(KEYS[0]).unwrap();
        versions.retain(|version| version.encryption != Encryption::SseS3);
    });
    let more = [("INPUT_HISTORY", "rekey"), ("INPUT_STRATEGY", "in-place")];
    let ran = bench.run_as("admin", "apply", &bench.key, &more).await.green();
    assert_eq!(ran.output("exposed-versions"), "0", "{}", ran.log);
    assert_eq!(bench.lab.world().versions(BUCKET, KEYS[0]).len(), 1);
}

/// What a restore has made is reported as it was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_state_is_reported_as_it_is() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.with_object(BUCKET, KEYS[0], |object| object.encryption = Encryption::None);
    })
    .await;
    bench.lab.world().require_via_service(&bench.key);
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
    let ran = bench.run("apply", &[]).await.red("restored");
    // S3 writes no unencrypted object any more.
    assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
    assert_eq!(ran.output("encryption"), "AES256", "{}", ran.log);
    let version = bench.lab.world().current(BUCKET, KEYS[0]).unwrap().version_id.clone();
    assert_eq!(ran.report["objects"][0]["version_id"], version);
}

/// A proxy before S3 answers with a status of its own, though S3 has done what was asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_not_s3s_own_says_nothing_of_the_deed() {
    for status in [408, 507, 520] {
        let bench = Bench::new().await;
        bench.lab.inject(Matcher::every("CopyObject"), Effect::fail_after(status, "x"));
        let ran = bench.run("apply", &[("INPUT_PROBE", "off")]).await.green();
        assert_eq!((ran.output("rekeyed"), ran.output("changed")), ("2", "true"), "{status}");
    }
}

/// A state that is larger than memory, in a bucket that keeps versions; the principal may
/// write under the key, and not read.
async fn large() -> Bench {
    let bench = Bench::with(Topology::Roles, |world| {
        world.remove_object(BUCKET, KEYS[1]);
        world.put_object(BUCKET, KEYS[0], sized_state(30, 1300 << 10), Encryption::SseS3);
        world.tag_object(BUCKET, KEYS[0], &[("team", "infra")]);
        let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
        let actions = ["s3:GetObjectVersion", "s3:GetObjectVersionTagging", "s3:PutObjectTagging"];
        let role = format!("arn:aws:iam::{DEPLOY_ACCOUNT}:role/cicd");
        policy["Statement"].as_array_mut().unwrap().push(json!({
            "Effect": "Allow", "Principal": { "AWS": role }, "Action": actions,
            "Resource": format!("arn:aws:s3:::{BUCKET}/*")
        }));
    })
    .await;
    bench.lab.world().require_via_service(&bench.key);
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
    bench
}

const SMALL: (&str, &str) = ("TFSTATE_KMS_MEMORY_MIB", "1");

#[tokio::test(flavor = "multi_thread")]
async fn a_large_state_is_restored_from_its_version() {
    let bench = large().await;
    let ran = bench.run("apply", &[SMALL]).await.red("restored");
    assert!(!bench.writes().iter().any(|call| call == "PutObject"), "{:?}", bench.writes());
    assert_eq!(bench.body(KEYS[0]), sized_state(30, 1300 << 10), "{}", ran.log);
    assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
    let tags = bench.lab.world().current(BUCKET, KEYS[0]).unwrap().tags.clone();
    assert_eq!(tags.get("team").map(String::as_str), Some("infra"));
}

/// Another writer comes before the restore: its state is not replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_from_a_version_is_conditional() {
    let bench = large().await;
    bench.before_nth("CopyObject", KEYS[0], 2, |world| {
        world.put_object(BUCKET, KEYS[0], state(100), Encryption::SseS3);
    });
    let ran = bench.run("apply", &[SMALL]).await.red("concurrent-writes");
    assert_eq!(bench.body(KEYS[0]), state(100), "{}", ran.log);
}
