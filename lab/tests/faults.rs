//! What a test does to requests, and what the log says of them.

mod common;

use std::time::{Duration, Instant};

use aws_lab::{BUCKET, Effect, Encryption, KEY, Lab, Matcher, sequential_round_trips};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ObjectEncryption, SsekmsEncryption};
use common::{BODY, Refusal, STATE, body, lab, refusal, s3};
use tokio::time::timeout;

fn put(lab: &Lab) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
    s3(lab, "deploy").put_object().bucket(BUCKET).key(STATE).body(ByteStream::from_static(b"2"))
}

#[tokio::test]
async fn a_request_fails_as_told_and_only_that_one() {
    let lab = lab().await;
    let deploy = s3(&lab, "deploy");
    let second = Matcher::every("GetObject").key(STATE).nth(2);
    let struck = lab.inject(second, Effect::fail(503, "SlowDown"));
    let get = || deploy.get_object().bucket(BUCKET).key(STATE).send();
    get().await.unwrap();
    assert_eq!(refusal(get().await).short(), (503, "SlowDown"));
    get().await.unwrap();
    assert_eq!(struck.times(), 1);
    lab.inject(Matcher::every("DescribeKey"), Effect::fail(400, "ThrottlingException"));
    let describe = common::kms(&lab, "deploy").describe_key().key_id(aws_lab::KEY).send().await;
    assert_eq!(refusal(describe).short(), (400, "ThrottlingException"));
    lab.clear_faults();
    get().await.unwrap();
}

#[tokio::test]
async fn resets_come_before_or_after_the_deed() {
    let lab = lab().await;
    let versions = || lab.world().versions(BUCKET, STATE).len();
    lab.inject(Matcher::every("PutObject"), Effect::ResetBefore);
    assert_eq!(refusal(put(&lab).send().await).status, 0, "no answer");
    assert_eq!(versions(), 1);
    lab.clear_faults();
    lab.inject(Matcher::every("PutObject"), Effect::ResetAfter);
    assert_eq!(refusal(put(&lab).send().await).status, 0, "no answer");
    assert_eq!(versions(), 2);
    assert_eq!(lab.log().last().unwrap().status, 0);
}

#[tokio::test]
async fn a_body_breaks_off() {
    let lab = lab().await;
    lab.inject(Matcher::every("GetObject"), Effect::Truncate);
    let answer = s3(&lab, "deploy").get_object().bucket(BUCKET).key(STATE).send().await.unwrap();
    assert_eq!(answer.content_length(), i64::try_from(BODY.len()).ok());
    assert!(answer.body.collect().await.is_err());
}

/// What the calls come to that are answered without a body.
async fn without_a_body(lab: &Lab) -> Vec<(&'static str, Refusal)> {
    let (deploy, admin) = (s3(lab, "deploy"), s3(lab, "admin"));
    let kms = SsekmsEncryption::builder().kms_key_arn(KEY).build().expect("all parts");
    let encryption = ObjectEncryption::Ssekms(kms);
    let update = admin.update_object_encryption().bucket(BUCKET).key(STATE);
    vec![
        ("HeadBucket", refusal(deploy.head_bucket().bucket(BUCKET).send().await)),
        ("HeadObject", refusal(deploy.head_object().bucket(BUCKET).key(STATE).send().await)),
        ("PutObject", refusal(put(lab).send().await)),
        ("UpdateObjectEncryption", refusal(update.object_encryption(encryption).send().await)),
        ("DeleteObject", refusal(deploy.delete_object().bucket(BUCKET).key(STATE).send().await)),
    ]
}

#[tokio::test]
async fn a_head_breaks_off_where_there_is_no_body() {
    let lab = lab().await;
    let struck = lab.inject(Matcher::any(), Effect::Truncate);
    for (operation, refusal) in without_a_body(&lab).await {
        assert_eq!(refusal.status, 0, "{operation} was answered: {refusal:?}");
    }
    // Each was carried out.
    assert!(lab.log().iter().all(|entry| matches!(entry.status, 200 | 204)), "{:?}", lab.log());
    assert!(lab.world().current(BUCKET, STATE).is_none());
    assert_eq!(struck.times(), 5);
    // Others are served all the while, and this one again.
    lab.clear_faults();
    put(&lab).send().await.unwrap();
}

#[tokio::test]
async fn an_answer_stops_and_its_connection_stays_open() {
    let lab = lab().await;
    lab.inject(Matcher::any(), Effect::Stall);
    let deploy = s3(&lab, "deploy");
    let get = deploy.get_object().bucket(BUCKET).key(STATE).send().await.unwrap();
    let a_while = Duration::from_millis(300);
    assert!(timeout(a_while, get.body.collect()).await.is_err(), "the body has ended");
    let head = deploy.head_object().bucket(BUCKET).key(STATE).send();
    assert!(timeout(a_while, head).await.is_err(), "the head has ended");
    assert!(timeout(a_while, put(&lab).send()).await.is_err(), "the head has ended");
    assert_eq!(lab.world().versions(BUCKET, STATE).len(), 2, "it was carried out");
}

#[tokio::test]
async fn an_error_comes_after_the_deed() {
    let lab = lab().await;
    lab.inject(Matcher::every("PutObject").nth(1), Effect::fail_after(520, "WebServerError"));
    assert_eq!(refusal(put(&lab).send().await).short(), (520, "WebServerError"));
    assert_eq!(lab.world().versions(BUCKET, STATE).len(), 2);
    put(&lab).send().await.unwrap();
}

#[tokio::test]
async fn a_late_request_is_carried_out_though_the_client_has_gone() {
    let lab = lab().await;
    lab.inject(Matcher::every("PutObject"), Effect::Late(Duration::from_millis(400)));
    let versions = || lab.world().versions(BUCKET, STATE).len();
    let gone = timeout(Duration::from_millis(100), put(&lab).send()).await;
    assert!(gone.is_err(), "it was answered at once: {gone:?}");
    assert_eq!(versions(), 1);
    let patience = Instant::now() + Duration::from_secs(10);
    while versions() == 1 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(versions(), 2);
    assert_eq!(body(&s3(&lab, "deploy"), STATE).await, b"2");
    // Who waits has the answer.
    put(&lab).send().await.unwrap();
    assert_eq!(versions(), 3);
}

#[tokio::test]
async fn someone_else_acts_just_before() {
    let lab = lab().await;
    let etag = lab.world().current(BUCKET, STATE).unwrap().etag.clone();
    let act =
        Effect::Act(Box::new(|world| world.put_object(BUCKET, STATE, "theirs", Encryption::SseS3)));
    lab.inject(Matcher::every("PutObject").nth(1), act);
    assert_eq!(refusal(put(&lab).if_match(etag).send().await).short(), (412, "PreconditionFailed"));
    assert_eq!(body(&s3(&lab, "deploy"), STATE).await, b"theirs");
    // Also before one that fails.
    let act = |world: &mut aws_lab::World| world.remove_object(BUCKET, STATE);
    lab.inject(Matcher::every("HeadObject"), Effect::Act(Box::new(act)));
    lab.inject(Matcher::every("HeadObject"), Effect::fail(500, "InternalError"));
    let head = s3(&lab, "deploy").head_object().bucket(BUCKET).key(STATE).send().await;
    assert_eq!(refusal(head).status, 500);
    assert!(lab.world().current(BUCKET, STATE).is_none());
}

#[tokio::test]
async fn latency_and_the_log_show_what_waits_for_what() {
    let lab = lab().await;
    let deploy = s3(&lab, "deploy");
    let head = || deploy.head_object().bucket(BUCKET).key(STATE).send();
    head().await.unwrap();
    lab.clear_log();
    let latency = Duration::from_millis(60);
    lab.set_latency(latency);
    let start = Instant::now();
    let (one, two, three) = tokio::join!(head(), head(), head());
    for answer in [one, two, three] {
        answer.unwrap();
    }
    head().await.unwrap();
    assert!(start.elapsed() >= 2 * latency);
    let log = lab.log();
    assert_eq!(sequential_round_trips(&log), 2, "{log:?}");
    assert!(log.iter().all(|entry| entry.operation == "HeadObject" && !entry.is_write()));
    assert_eq!(log[0].resource.as_deref(), Some(STATE));
    assert!(log[0].principal.as_deref().unwrap().ends_with("assumed-role/cicd/lab"));
}
