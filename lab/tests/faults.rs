//! What a test does to requests, and what the log says of them.

mod common;

use std::time::{Duration, Instant};

use aws_lab::{BUCKET, Effect, Encryption, Lab, Matcher, sequential_round_trips};
use aws_sdk_s3::primitives::ByteStream;
use common::{BODY, STATE, body, lab, refusal, s3};

fn put(lab: &Lab) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
    s3(lab, "deploy").put_object().bucket(BUCKET).key(STATE).body(ByteStream::from_static(b"2"))
}

#[tokio::test]
async fn a_request_fails_as_told_and_only_that_one() {
    let lab = lab().await;
    let deploy = s3(&lab, "deploy");
    lab.inject(Matcher::every("GetObject").key(STATE).nth(2), Effect::fail(503, "SlowDown"));
    let get = || deploy.get_object().bucket(BUCKET).key(STATE).send();
    get().await.unwrap();
    assert_eq!(refusal(get().await).short(), (503, "SlowDown"));
    get().await.unwrap();
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

#[tokio::test]
async fn someone_else_acts_just_before() {
    let lab = lab().await;
    let etag = lab.world().current(BUCKET, STATE).unwrap().etag.clone();
    let act =
        Effect::Act(Box::new(|world| world.put_object(BUCKET, STATE, "theirs", Encryption::SseS3)));
    lab.inject(Matcher::every("PutObject").nth(1), act);
    assert_eq!(refusal(put(&lab).if_match(etag).send().await).short(), (412, "PreconditionFailed"));
    assert_eq!(body(&s3(&lab, "deploy"), STATE).await, b"theirs");
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
