//! Each kind of object that a bucket can hold, against each goal.

use std::collections::BTreeMap;

use super::*;
use crate::aws::{Attributes, AwsError, Kind, Seen};
use crate::survey::Readable;

const WANTED: &str = "arn:aws:kms:us-east-1:111111111111:key/11111111-2222-4333-8444-555555555555";
const OTHER: &str = "arn:aws:kms:us-east-1:111111111111:key/99999999-2222-4333-8444-555555555555";
const AWS_S3: &str = "arn:aws:kms:us-east-1:111111111111:key/aaaaaaaa-2222-4333-8444-555555555555";
const SECRET_KEY: &str =
    "arn:aws:kms:us-east-1:111111111111:key/bbbbbbbb-2222-4333-8444-555555555555";

fn under() -> Goal {
    Goal::Under(KeyArn::parse(WANTED).unwrap())
}

fn seen(server_side: ServerSide, size: u64) -> Seen {
    Seen {
        etag: "\"e\"".into(),
        version_id: None,
        size,
        last_modified: None,
        server_side,
        replication: None,
        archive: None,
        attributes: Attributes::default(),
    }
}

fn readable(server_side: ServerSide, size: u64) -> Found {
    Found::Readable(Box::new(Readable {
        seen: seen(server_side, size),
        sha256: [0; 32],
        read_at: "2026-11-23T10:00:00Z".into(),
        document: None,
        tags: BTreeMap::new(),
        body: None,
        is_update_request: false,
    }))
}

fn error(kind: Kind) -> AwsError {
    AwsError {
        kind,
        operation: "s3:GetObject",
        status: Some(403),
        code: None,
        message: None,
        request_id: None,
        bucket_region: None,
        delete_marker: false,
    }
}

fn survey(found: Found) -> Survey {
    let state = State { module: Some("infra".into()), key: "production".into(), found };
    let managers = [
        (OTHER.to_owned(), Manager::Customer),
        (AWS_S3.to_owned(), Manager::Aws),
        (SECRET_KEY.to_owned(), Manager::Unknown),
    ];
    Survey { states: vec![state], managers: managers.into(), unmatched: Vec::new() }
}

fn kms(key: &str) -> ServerSide {
    ServerSide::Kms(key.to_owned())
}

fn dsse(key: &str) -> ServerSide {
    ServerSide::Dsse(key.to_owned())
}

/// Step, reason of the refusal, and whether there is a warning.
type Decided = (Step, Option<FailureReason>, bool);

fn decided(goal: &Goal, found: Found, allow: Allowances) -> Decided {
    let mut plan = plan(goal, &survey(found), allow, &Remedies::default());
    let step = plan.steps.remove(0);
    assert!(plan.steps.is_empty() && plan.refusals.len() <= 1);
    (step, plan.refusals.first().map(|refusal| refusal.reason), !plan.warnings.is_empty())
}

#[test]
fn every_kind_of_object_under_every_goal() {
    use FailureReason::{
        DowngradeRefused as Downgrade, NotRekeyable, StateUnreadable as Unreadable,
    };
    use Step::{Keep, Nothing};
    let to_key = || Step::Rekey(WriteAs::Kms(WANTED.into()));
    let to_s3 = || Step::Rekey(WriteAs::S3);
    let ok = |step| (step, None, false);
    let warned = |step| (step, None, true);
    let refused = |reason| (Keep, Some(reason), false);
    let unreadable =
        |key| Found::Unreadable { seen: Box::new(seen(kms(key), 1)), error: error(Kind::Denied) };
    let big = COPY_LIMIT + 1;
    let rows: Vec<(&str, Found, [Decided; 3])> = vec![
        // what it is; under the key, variable empty, rollback
        ("absent", Found::Absent { deleted: false }, [ok(Nothing), warned(Nothing), ok(Nothing)]),
        (
            "marker",
            Found::Absent { deleted: true },
            [warned(Nothing), warned(Nothing), warned(Nothing)],
        ),
        ("sse-s3", readable(ServerSide::S3, 1), [ok(to_key()), ok(Keep), ok(Keep)]),
        ("none", readable(ServerSide::None, 1), [ok(to_key()), ok(Keep), ok(Keep)]),
        ("wanted", readable(kms(WANTED), 1), [ok(Keep), refused(Downgrade), ok(to_s3())]),
        ("other", readable(kms(OTHER), 1), [ok(to_key()), refused(Downgrade), ok(to_s3())]),
        ("aws/s3", readable(kms(AWS_S3), 1), [ok(to_key()), ok(Keep), ok(to_s3())]),
        ("unknown", readable(kms(SECRET_KEY), 1), [ok(to_key()), refused(Downgrade), ok(to_s3())]),
        ("dsse", readable(dsse(WANTED), 1), [warned(Keep), refused(Downgrade), ok(to_s3())]),
        ("dsse other", readable(dsse(OTHER), 1), [ok(to_key()), refused(Downgrade), ok(to_s3())]),
        (
            "new",
            readable(ServerSide::Other("x".into()), 1),
            [refused(NotRekeyable), ok(Keep), refused(NotRekeyable)],
        ),
        (
            "sse-c",
            Found::CustomerKey,
            [refused(NotRekeyable), refused(NotRekeyable), refused(NotRekeyable)],
        ),
        ("limit", readable(ServerSide::S3, COPY_LIMIT), [ok(to_key()), ok(Keep), ok(Keep)]),
        ("over 5 GB", readable(ServerSide::S3, big), [refused(NotRekeyable), ok(Keep), ok(Keep)]),
        (
            "over, kms",
            readable(kms(OTHER), big),
            [refused(NotRekeyable), refused(Downgrade), refused(NotRekeyable)],
        ),
        (
            "unreadable",
            unreadable(WANTED),
            [refused(Unreadable), refused(Unreadable), refused(Unreadable)],
        ),
        (
            "refused",
            Found::Refused(error(Kind::Denied)),
            [refused(Unreadable), refused(Unreadable), refused(Unreadable)],
        ),
    ];
    for (what, found, expected) in rows {
        for (goal, expected) in [under(), Goal::Unset, Goal::SseS3].iter().zip(expected) {
            let decided = decided(goal, found.clone(), Allowances::default());
            assert_eq!(decided, expected, "{what} under {goal:?}");
        }
    }
}

#[test]
fn a_downgrade_can_be_allowed_and_is_still_said() {
    let allow = Allowances { downgrade: true, require_state: false };
    assert_eq!(decided(&Goal::Unset, readable(kms(WANTED), 1), allow), (Step::Keep, None, true));
}

#[test]
fn a_required_state_must_exist() {
    let allow = Allowances { downgrade: false, require_state: true };
    for goal in [under(), Goal::Unset, Goal::SseS3] {
        for deleted in [false, true] {
            let (_, refusal, _) = decided(&goal, Found::Absent { deleted }, allow);
            assert_eq!(refusal, Some(FailureReason::StateMissing), "{goal:?}");
        }
    }
}

#[test]
fn a_failed_look_is_never_taken_for_an_absent_state() {
    for (kind, reason) in [
        (Kind::Unavailable, FailureReason::AwsUnavailable),
        (Kind::Ambiguous, FailureReason::AwsUnavailable),
        (Kind::NoBucket, FailureReason::BucketMissing),
        (Kind::Credentials, FailureReason::Credentials),
    ] {
        let (step, refusal, _) =
            decided(&under(), Found::Failed(error(kind)), Allowances::default());
        assert_eq!((step, refusal), (Step::Keep, Some(reason)));
    }
}

#[test]
fn the_downgrade_refusal_says_what_a_job_without_environment_sees() {
    let plan = plan(
        &Goal::Unset,
        &survey(readable(kms(OTHER), 1)),
        Allowances::default(),
        &Remedies::default(),
    );
    assert!(plan.refusals[0].message.contains("STATE_KMS_KEY_ID is empty"));
    assert!(plan.refusals[0].remedy.contains("without `environment:`"));
}
