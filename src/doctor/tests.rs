//! Tests of the doctor's checks.

use serde_json::json;

use super::*;
use crate::aws::{Kind, Replication};

const KEY: &str = "arn:aws:kms:us-east-1:111111111111:key/5c0ffee1-2222-4333-8444-555555555555";
const OTHER: &str = "arn:aws:kms:us-east-1:111111111111:key/99999999-2222-4333-8444-555555555555";

fn key() -> KeyArn {
    KeyArn::parse(KEY).unwrap()
}

fn denied(operation: &'static str) -> AwsError {
    AwsError { code: Some("AccessDenied".into()), ..AwsError::new(Kind::Denied, operation, "") }
}

fn good() -> Settings {
    Settings {
        versioning: Ok(true),
        encryption: Ok((ServerSide::S3, false)),
        public_access_blocked: Ok(true),
        policy: Ok(None),
        replication: Ok(Vec::new()),
        object_lock: Ok(None),
        acls_off: Ok(true),
    }
}

fn checked(settings: &Settings, goal: &Goal, across_accounts: bool) -> Vec<Check> {
    let states = ["production".to_owned()];
    let subject = Subject {
        goal,
        bucket: "b",
        states: &states,
        locks: true,
        acl: None,
        across_accounts,
        version_ids: false,
        writer: None,
    };
    bucket_checks(settings, &subject)
}

fn status(checks: &[Check], id: CheckId) -> Status {
    checks.iter().find(|check| check.id == id).unwrap().status
}

#[test]
fn a_healthy_bucket_passes() {
    let checks = checked(&good(), &Goal::Under(key()), true);
    assert_eq!(checks.len(), 7);
    assert!(checks.iter().all(|check| check.status == Status::Pass), "{checks:#?}");
}

#[test]
fn what_may_not_be_read_is_unknown_and_names_the_action() {
    let settings = Settings {
        versioning: Err(denied("s3:GetBucketVersioning")),
        encryption: Err(denied("s3:GetEncryptionConfiguration")),
        public_access_blocked: Err(denied("s3:GetBucketPublicAccessBlock")),
        policy: Err(denied("s3:GetBucketPolicy")),
        replication: Err(denied("s3:GetReplicationConfiguration")),
        object_lock: Err(denied("s3:GetBucketObjectLockConfiguration")),
        acls_off: Err(denied("s3:GetBucketOwnershipControls")),
    };
    for check in checked(&settings, &Goal::Under(key()), true) {
        assert_eq!(check.status, Status::Unknown);
        assert!(check.evidence.starts_with("unknown (needs s3:Get"), "{}", check.evidence);
    }
}

#[test]
fn what_would_hurt_is_found() {
    let rule = Replication { id: "r".into(), prefix: String::new(), takes_kms: false };
    let settings = Settings {
        versioning: Ok(false),
        encryption: Ok((ServerSide::Kms(OTHER.into()), true)),
        public_access_blocked: Ok(false),
        policy: Ok(None),
        replication: Ok(vec![rule]),
        object_lock: Ok(Some("GOVERNANCE, 7 days".into())),
        acls_off: Ok(false),
    };
    for check in checked(&settings, &Goal::Under(key()), true) {
        let expected = match check.id {
            CheckId::BucketPolicy => Status::Pass,
            _ => Status::Warn,
        };
        assert_eq!(check.status, expected, "{check:?}");
        assert_eq!(check.remedy.is_some(), expected == Status::Warn, "{check:?}");
    }
    // In one account nobody loses access by an ACL.
    let checks = checked(&settings, &Goal::Under(key()), false);
    assert_eq!(status(&checks, CheckId::ObjectOwnership), Status::Pass);
}

#[test]
fn a_default_key_brings_a_rolled_back_state_back_under_it() {
    let settings = Settings { encryption: Ok((ServerSide::Kms(OTHER.into()), false)), ..good() };
    let checks = checked(&settings, &Goal::SseS3, true);
    assert_eq!(status(&checks, CheckId::BucketDefaultEncryption), Status::Warn);
}

#[test]
fn a_bucket_policy_that_refuses_the_lock_object_is_found() {
    let policy = json!({ "Statement": [{
        "Sid": "LocksNeedAnotherKey", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::b/*.tflock",
        "Condition": { "StringNotEquals": { "s3:x-amz-server-side-encryption-aws-kms-key-id": OTHER } },
    }] });
    let settings = Settings { policy: Ok(Some(policy.to_string())), ..good() };
    let checks = checked(&settings, &Goal::Under(key()), true);
    let check = checks.iter().find(|check| check.id == CheckId::BucketPolicy).unwrap();
    assert_eq!(check.status, Status::Fail);
    assert!(check.evidence.contains("refuses production.tflock"), "{}", check.evidence);
    let garbled = Settings { policy: Ok(Some("{".into())), ..good() };
    let checks = checked(&garbled, &Goal::Under(key()), true);
    assert_eq!(status(&checks, CheckId::BucketPolicy), Status::Unknown);
}

#[test]
fn key_policies_are_judged_by_their_width() {
    let policy = |principal: serde_json::Value| {
        Ok(json!({ "Statement": [
            { "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111111111111:root" }, "Action": "kms:*", "Resource": "*" },
            { "Effect": "Allow", "Principal": principal, "Action": "kms:Decrypt", "Resource": "*" },
        ] })
        .to_string())
    };
    for (principal, expected, part) in [
        (
            json!({ "AWS": "arn:aws:iam::222222222222:role/cicd" }),
            Status::Pass,
            "decides by its IAM policies",
        ),
        (json!("*"), Status::Fail, "everyone may decrypt"),
        (json!({ "AWS": "arn:aws:iam::222222222222:root" }), Status::Warn, "whole accounts"),
        (json!({ "AWS": "AROAEXAMPLEID" }), Status::Warn, "no longer exist"),
    ] {
        let check = key_policy(&key(), &policy(principal));
        assert_eq!(check.status, expected, "{check:?}");
        assert!(check.evidence.contains(part), "{check:?}");
    }
    let check = key_policy(&key(), &Err(denied("kms:GetKeyPolicy")));
    assert_eq!(check.status, Status::Unknown);
}
