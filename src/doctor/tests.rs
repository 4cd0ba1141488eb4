//! Tests of the doctor's checks.

use serde_json::json;

use super::*;
use crate::aws::{Kind, Replication, ReplicationRule};

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
        replication: Ok(Replication::default()),
        object_lock: Ok(None),
        acls_off: Ok(true),
    }
}

const REPLICATION: &str = "arn:aws:iam::111111111111:role/replication";

fn replicating(takes_kms: bool) -> Replication {
    let rule = ReplicationRule { id: "r".into(), prefix: String::new(), takes_kms };
    Replication { role: REPLICATION.into(), rules: vec![rule] }
}

fn checked(settings: &Settings, goal: &Goal, across_accounts: bool) -> Vec<Check> {
    let states = ["production".to_owned()];
    let subject = Subject { locks: true, across_accounts, ..subject(goal, &states) };
    bucket_checks(settings, &subject)
}

/// A writer of the bucket's own account, with no more than it needs.
fn subject<'a>(goal: &'a Goal, states: &'a [String]) -> Subject<'a> {
    Subject {
        goal,
        bucket: "state-bucket",
        partition: "aws",
        states,
        silent: &[],
        replicated: 0,
        locked: &[],
        locks: false,
        acl: None,
        across_accounts: false,
        version_ids: false,
        writer: None,
        key_policy: None,
    }
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
        // Each object tells of its replication.
        if check.id == CheckId::Replication {
            assert_eq!(check.status, Status::Pass);
            continue;
        }
        assert_eq!(check.status, Status::Unknown);
        assert!(check.evidence.starts_with("unknown (needs s3:Get"), "{}", check.evidence);
    }
}

#[test]
fn what_would_hurt_is_found() {
    let settings = Settings {
        versioning: Ok(false),
        encryption: Ok((ServerSide::Kms(OTHER.into()), true)),
        public_access_blocked: Ok(false),
        policy: Ok(None),
        replication: Ok(replicating(false)),
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
        // What is to be pasted is whole.
        let remedy = check.remedy.as_deref().unwrap_or_default();
        assert!(
            !remedy.contains("aws s3api") || remedy.contains("--bucket state-bucket"),
            "{remedy}"
        );
        assert!(!remedy.contains('…'), "{remedy}");
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
        "Resource": "arn:aws:s3:::state-bucket/*.tflock",
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
        (
            json!({ "AWS": "arn:aws:iam::222222222222:root" }),
            Status::Warn,
            "the whole account 222222222222 may decrypt",
        ),
        (json!({ "AWS": "AROAEXAMPLEID" }), Status::Warn, "no longer exist"),
    ] {
        let check = key_policy(&key(), &policy(principal), None);
        assert_eq!(check.status, expected, "{check:?}");
        assert!(check.evidence.contains(part), "{check:?}");
    }
    // Across accounts no right to look helps.
    for (account, says) in [
        (None, "needs kms:GetKeyPolicy"),
        (Some("111111111111"), "needs kms:GetKeyPolicy"),
        (Some("222222222222"), "within the key's account 111111111111 only"),
    ] {
        let check = key_policy(&key(), &Err(denied("kms:GetKeyPolicy")), account);
        assert_eq!(check.status, Status::Unknown);
        assert!(check.evidence.contains(says), "{account:?}: {}", check.evidence);
    }
}

/// Whoever may make a grant, change the policy or re-encrypt gets to the plain text as well.
#[test]
fn a_detour_to_the_plain_text_counts_like_the_way() {
    let policy = |principal: serde_json::Value, action: &str| {
        let statement =
            json!({ "Effect": "Allow", "Principal": principal, "Action": action, "Resource": "*" });
        Ok(json!({ "Statement": [statement] }).to_string())
    };
    for action in ["kms:CreateGrant", "kms:PutKeyPolicy", "kms:ReEncryptFrom", "kms:ReEncrypt*"] {
        let check = key_policy(&key(), &policy(json!("*"), action), None);
        assert_eq!(check.status, Status::Fail, "{action}: {check:?}");
        assert!(check.evidence.contains("everyone may get to decrypt by kms:"), "{check:?}");
        let account = json!({ "AWS": "arn:aws:iam::222222222222:root" });
        let check = key_policy(&key(), &policy(account, action), None);
        assert_eq!(check.status, Status::Warn, "{action}: {check:?}");
    }
    for action in ["kms:DescribeKey", "kms:Encrypt", "kms:ReEncryptTo", "kms:GetKeyPolicy"] {
        let check = key_policy(&key(), &policy(json!("*"), action), None);
        assert_eq!(check.status, Status::Pass, "{action}: {check:?}");
    }
}

#[test]
fn a_replication_role_that_cannot_decrypt_is_found() {
    let statement = |effect: &str, principal: &str, condition: bool| {
        let mut one = json!({ "Sid": "S", "Effect": effect, "Principal": { "AWS": principal },
                              "Action": "kms:*", "Resource": "*" });
        if condition {
            one["Condition"] = json!({ "StringEquals": { "kms:ViaService": "s3" } });
        }
        one
    };
    let root = "arn:aws:iam::111111111111:root";
    let (states, goal) = (["production".to_owned()], Goal::Under(key()));
    for (statements, status, says, in_key_policy) in [
        (None, Status::Unknown, "is not known", true),
        (Some(json!([])), Status::Warn, "does not let", true),
        (Some(json!([statement("Allow", REPLICATION, true)])), Status::Unknown, "conditions", true),
        (Some(json!([statement("Allow", root, false)])), Status::Unknown, "leaves it to", false),
        (
            Some(json!([statement("Allow", REPLICATION, false)])),
            Status::Unknown,
            "copies elsewhere",
            false,
        ),
        (
            Some(json!([statement("Allow", root, false), statement("Deny", REPLICATION, false)])),
            Status::Warn,
            "denies",
            false,
        ),
    ] {
        let what = format!("{statements:?}");
        let policy =
            statements.map(|all| Policy::parse(&json!({ "Statement": all }).to_string()).unwrap());
        let subject = Subject { key_policy: policy.as_ref(), ..subject(&goal, &states) };
        let settings = Settings { replication: Ok(replicating(true)), ..good() };
        let check = replication(&settings, &subject);
        assert_eq!(check.status, status, "{what}: {check:?}");
        assert!(check.evidence.contains(says), "{what}: {}", check.evidence);
        let remedy = check.remedy.unwrap_or_default();
        assert_eq!(remedy.contains("StateReplication"), in_key_policy, "{what}: {remedy}");
    }
}

/// A policy names objects with the partition that they are in.
#[test]
fn a_denial_is_found_in_every_partition() {
    let states = ["production".to_owned()];
    for partition in ["aws", "aws-cn"] {
        let policy = json!({ "Statement": [{
            "Sid": "KmsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
            "Resource": format!("arn:{partition}:s3:::b/*"),
            "Condition": { "StringNotEquals": { "s3:x-amz-server-side-encryption": "aws:kms" } },
        }] });
        let settings = Settings { policy: Ok(Some(policy.to_string())), ..good() };
        let subject = Subject { bucket: "b", partition, ..subject(&Goal::SseS3, &states) };
        let check = bucket_policy(&settings.policy, &subject);
        assert_eq!(check.status, Status::Fail, "{partition}: {check:?}");
    }
}

/// A lock of a state's own matters as the bucket's default does, and can be known without it.
#[test]
fn a_state_that_is_locked_is_named() {
    let (states, goal) = (["production".to_owned()], Goal::Under(key()));
    let locked = [("production".to_owned(), "GOVERNANCE until 2096-10-02T07:06:40Z".to_owned())];
    for default in [Ok(None), Ok(Some("GOVERNANCE, 7 days".into())), Err(denied("s3:x"))] {
        let subject = Subject { locked: &locked, ..subject(&goal, &states) };
        let check = object_lock(&default, &subject);
        assert_eq!(check.status, Status::Warn);
        assert!(check.evidence.contains("`production` is locked: GOVERNANCE until 2096"));
        assert!(check.remedy.unwrap().contains("s3:PutObjectRetention"));
    }
    let unset = Subject { locked: &locked, ..subject(&Goal::Unset, &states) };
    assert_eq!(object_lock(&Ok(None), &unset).remedy, None);
    let free = object_lock(&Ok(None), &subject(&goal, &states));
    assert_eq!(free.status, Status::Pass);
}
