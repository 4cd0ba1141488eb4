//! The bucket's settings, Object Lock, and re-encryption in place, through AWS's own SDK.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lab::{
    BUCKET, Encryption, KEY, Lab, Lifecycle, Retention, Topology, UpdateEncryption, World,
};
use aws_sdk_s3::operation::update_object_encryption::builders::UpdateObjectEncryptionFluentBuilder;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    ObjectEncryption, ObjectLockLegalHoldStatus, ObjectLockMode, SsekmsEncryption,
};
use common::{BODY, STATE, body, lab, lab_with, open_bucket, refusal, s3};
use serde_json::json;

fn soon() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600
}

#[tokio::test]
async fn settings_that_were_never_made_have_their_own_errors() {
    let lab = lab_with(Topology::Roles, |world| {
        let bucket = world.bucket_mut(BUCKET);
        (bucket.public_access_blocked, bucket.acls_off, bucket.policy) = (None, None, None);
        bucket.default_encryption = Encryption::None;
    })
    .await;
    // Each setting's error, and what a caller from another account without the action gets.
    macro_rules! unset {
        ($($operation:ident: $code:literal;)*) => {$(
            let call = |who| s3(&lab, who).$operation().bucket(BUCKET).send();
            assert_eq!(refusal(call("admin").await).short(), (404, $code));
            assert_eq!(refusal(call("deploy").await).short(), (403, "AccessDenied"));
        )*};
    }
    unset! {
        get_bucket_encryption: "ServerSideEncryptionConfigurationNotFoundError";
        get_bucket_policy: "NoSuchBucketPolicy";
        get_public_access_block: "NoSuchPublicAccessBlockConfiguration";
        get_bucket_ownership_controls: "OwnershipControlsNotFoundError";
        get_bucket_replication: "ReplicationConfigurationNotFoundError";
        get_object_lock_configuration: "ObjectLockConfigurationNotFoundError";
        get_bucket_lifecycle_configuration: "NoSuchLifecycleConfiguration";
    }
}

#[tokio::test]
async fn settings_are_told() {
    let lab = lab_with(Topology::Roles, |world| {
        let bucket = world.bucket_mut(BUCKET);
        bucket.default_encryption = Encryption::Kms { key: KEY.into() };
        bucket.bucket_key = true;
        bucket.replication = Some(("env:/".into(), true));
        bucket.replica_kms_key = Some("arn:aws:kms:eu-west-1:111111111111:key/replica".into());
        bucket.retention_days = Some(7);
        bucket.lifecycle = Some(Lifecycle { prefix: String::new(), noncurrent_days: 30 });
    })
    .await;
    let s3 = s3(&lab, "admin");
    let output = s3.get_bucket_encryption().bucket(BUCKET).send().await.unwrap();
    let rule = &output.server_side_encryption_configuration().unwrap().rules()[0];
    let default = rule.apply_server_side_encryption_by_default().unwrap();
    assert_eq!((default.kms_master_key_id(), rule.bucket_key_enabled()), (Some(KEY), Some(true)));

    let output = s3.get_public_access_block().bucket(BUCKET).send().await.unwrap();
    let block = output.public_access_block_configuration().unwrap();
    assert_eq!(
        (block.block_public_acls(), block.restrict_public_buckets()),
        (Some(true), Some(true))
    );
    let output = s3.get_bucket_ownership_controls().bucket(BUCKET).send().await.unwrap();
    let rule = &output.ownership_controls().unwrap().rules()[0];
    assert_eq!(rule.object_ownership().as_str(), "BucketOwnerEnforced");

    let output = s3.get_bucket_replication().bucket(BUCKET).send().await.unwrap();
    let rule = &output.replication_configuration().unwrap().rules()[0];
    assert_eq!(rule.filter().unwrap().prefix(), Some("env:/"));
    let selected = rule.source_selection_criteria().unwrap().sse_kms_encrypted_objects().unwrap();
    assert_eq!(selected.status().as_str(), "Enabled");
    let encryption = rule.destination().unwrap().encryption_configuration().unwrap();
    assert!(encryption.replica_kms_key_id().unwrap().ends_with("/replica"));

    let output = s3.get_object_lock_configuration().bucket(BUCKET).send().await.unwrap();
    let rule = output.object_lock_configuration().unwrap().rule().unwrap();
    assert_eq!(rule.default_retention().unwrap().days(), Some(7));
    let output = s3.get_bucket_lifecycle_configuration().bucket(BUCKET).send().await.unwrap();
    let expiration = output.rules()[0].noncurrent_version_expiration().unwrap();
    assert_eq!(expiration.noncurrent_days(), Some(30));
}

#[tokio::test]
async fn a_bucket_policy_is_not_told_to_other_accounts() {
    let lab = lab().await;
    let call = |who| s3(&lab, who).get_bucket_policy().bucket(BUCKET).send();
    assert!(call("admin").await.unwrap().policy().unwrap().contains("Statement"));
    assert_eq!(refusal(call("deploy").await).short(), (403, "AccessDenied"));
    open_bucket(&mut lab.world(), &["s3:GetBucketPolicy"]);
    assert_eq!(refusal(call("deploy").await).short(), (405, "MethodNotAllowed"));
}

#[tokio::test]
async fn locks_are_shown_set_and_kept() {
    let lab = lab_with(Topology::Roles, |world| {
        world.with_object(BUCKET, STATE, |version| {
            version.retention = Some(Retention { mode: "GOVERNANCE".into(), until: soon() });
            version.legal_hold = true;
        });
    })
    .await;
    let (deploy, admin) = (s3(&lab, "deploy"), s3(&lab, "admin"));
    let head = deploy.head_object().bucket(BUCKET).key(STATE).send().await.unwrap();
    assert_eq!((head.object_lock_mode(), head.object_lock_legal_hold_status()), (None, None));
    let head = admin.head_object().bucket(BUCKET).key(STATE).send().await.unwrap();
    assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Governance));
    assert_eq!(head.object_lock_legal_hold_status(), Some(&ObjectLockLegalHoldStatus::On));
    assert!(head.object_lock_retain_until_date().unwrap().secs() > 0);

    // Neither by the hold nor by the retention; governance mode yields to a bypass.
    let id = lab.world().versions(BUCKET, STATE)[0].version_id.clone();
    let delete = || admin.delete_object().bucket(BUCKET).key(STATE).version_id(&id);
    let bypass = || delete().bypass_governance_retention(true).send();
    assert_eq!(refusal(bypass().await).short(), (403, "AccessDenied"));
    lab.world().with_object(BUCKET, STATE, |version| version.legal_hold = false);
    assert_eq!(refusal(delete().send().await).short(), (403, "AccessDenied"));
    admin.delete_object().bucket(BUCKET).key(STATE).send().await.unwrap();
    bypass().await.unwrap();

    let until = DateTime::from(SystemTime::now() + Duration::from_secs(3600));
    let put = |who| {
        let put = s3(&lab, who).put_object().bucket(BUCKET).key(STATE);
        put.object_lock_mode(ObjectLockMode::Compliance).object_lock_retain_until_date(until)
    };
    let refused = refusal(put("admin").send().await);
    assert_eq!(refused.short(), (400, "InvalidRequest"), "the bucket has no Object Lock");
    lab.world().bucket_mut(BUCKET).retention_days = Some(7);
    let refused = refusal(put("deploy").send().await);
    assert!(refused.message.contains("s3:PutObjectRetention"), "{}", refused.message);
    let held = put("admin").object_lock_legal_hold_status(ObjectLockLegalHoldStatus::On);
    held.send().await.unwrap();
    let written = lab.world().current(BUCKET, STATE).unwrap().clone();
    assert_eq!(written.retention.unwrap().until, u64::try_from(until.secs()).unwrap());
    assert!(written.legal_hold);
    // A copy has only the bucket's default.
    let copy =
        admin.copy_object().bucket(BUCKET).key(STATE).copy_source(format!("{BUCKET}/{STATE}"));
    copy.server_side_encryption(common::KMS).ssekms_key_id(KEY).send().await.unwrap();
    let copied = lab.world().current(BUCKET, STATE).unwrap().clone();
    assert_eq!((copied.retention.unwrap().mode, copied.legal_hold), ("GOVERNANCE".into(), false));
}

fn update(lab: &Lab, who: &str, key_arn: &str) -> UpdateObjectEncryptionFluentBuilder {
    let encryption = SsekmsEncryption::builder().kms_key_arn(key_arn).build().unwrap();
    let update = s3(lab, who).update_object_encryption().bucket(BUCKET).key(STATE);
    update.object_encryption(ObjectEncryption::Ssekms(encryption))
}

/// Everything that UpdateObjectEncryption needs.
fn grant(world: &mut World) {
    open_bucket(world, &["s3:UpdateObjectEncryption"]);
    world.change_use_statement(KEY, |statement| statement["Action"] = json!("kms:*"));
}

#[tokio::test]
async fn in_place_changes_nothing_but_the_key() {
    let mut other = String::new();
    let lab = lab_with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).objects.clear();
        world.put_object(BUCKET, STATE, BODY, Encryption::SseS3);
        world.put_object(BUCKET, STATE, BODY, Encryption::SseS3);
        grant(world);
        world.require_via_service(KEY);
        other = world.add_key_like(KEY);
    })
    .await;
    let before = lab.world().versions(BUCKET, STATE).to_vec();
    for key in [KEY, &other] {
        update(&lab, "deploy", key).send().await.unwrap();
        let after = lab.world().versions(BUCKET, STATE).to_vec();
        assert_eq!(after.len(), 2);
        let [old, new] = &after[..] else { panic!("two versions") };
        assert_eq!(old.encryption, Encryption::SseS3, "only the current version");
        assert_eq!(new.encryption, Encryption::Kms { key: key.to_owned() });
        assert_eq!(
            (&new.etag, new.modified, &new.version_id),
            (&before[1].etag, before[1].modified, &before[1].version_id)
        );
        assert_eq!(body(&s3(&lab, "deploy"), STATE).await, BODY.as_bytes());
    }
    update(&lab, "deploy", KEY).version_id(&before[0].version_id).send().await.unwrap();
    let old = lab.world().versions(BUCKET, STATE)[0].encryption.clone();
    assert_eq!(old, Encryption::Kms { key: KEY.into() });
}

#[tokio::test]
async fn in_place_needs_every_permission() {
    let lab = lab().await;
    let refused = refusal(update(&lab, "deploy", KEY).send().await);
    assert!(refused.message.contains("s3:UpdateObjectEncryption"), "{}", refused.message);
    open_bucket(&mut lab.world(), &["s3:UpdateObjectEncryption"]);
    let all = ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:ReEncrypt*"];
    for missing in all {
        lab.world().change_use_statement(KEY, |statement| {
            let rest: Vec<_> = all.into_iter().filter(|action| *action != missing).collect();
            statement["Action"] = json!(rest);
        });
        let refused = refusal(update(&lab, "deploy", KEY).send().await);
        assert_eq!(refused.short(), (403, "AccessDenied"), "{missing}");
        assert!(refused.message.contains(missing.trim_end_matches('*')), "{}", refused.message);
    }
    lab.world().change_use_statement(KEY, |statement| statement["Action"] = json!(all));
    update(&lab, "deploy", KEY).send().await.unwrap();
}

#[tokio::test]
async fn in_place_has_its_refusals() {
    let lab = lab_with(Topology::Roles, grant).await;
    for (arn, status, code) in [
        ("5c0ffee1-2222-4333-8444-555555555555", 400, "InvalidRequest"),
        (
            "arn:aws:kms:us-east-1:111111111111:alias/cabal-tf-state-production",
            400,
            "InvalidRequest",
        ),
        (
            "arn:aws:kms:us-east-1:222222222222:key/5c0ffee1-2222-4333-8444-555555555555",
            403,
            "AccessDenied",
        ),
        ("arn:aws:kms:us-east-1:111111111111:key/none", 400, "KMS.NotFoundException"),
    ] {
        let refused = refusal(update(&lab, "deploy", arn).send().await);
        assert_eq!(refused.short(), (status, code), "{arn}");
    }
    let missing = update(&lab, "deploy", KEY).key("missing").send().await;
    assert_eq!(refusal(missing).short(), (404, "NoSuchKey"));
    for encryption in [Encryption::None, Encryption::SseC, Encryption::Dsse { key: KEY.into() }] {
        lab.world().with_object(BUCKET, STATE, |v| v.encryption = encryption.clone());
        let refused = refusal(update(&lab, "deploy", KEY).send().await);
        assert_eq!(refused.short(), (400, "InvalidRequest"), "{encryption:?}");
    }
    lab.world().with_object(BUCKET, STATE, |v| {
        v.encryption = Encryption::SseS3;
        v.legal_hold = true;
    });
    let refused = refusal(update(&lab, "deploy", KEY).send().await);
    assert_eq!(refused.short(), (403, "AccessDenied"));
    assert!(refused.message.contains("Object Lock"), "{}", refused.message);
    lab.world().with_object(BUCKET, STATE, |v| {
        v.legal_hold = false;
        v.retention = Some(Retention { mode: "COMPLIANCE".into(), until: soon() });
    });
    assert_eq!(refusal(update(&lab, "deploy", KEY).send().await).status, 403);
    lab.world().with_object(BUCKET, STATE, |v| {
        v.retention = Some(Retention { mode: "COMPLIANCE".into(), until: 1 });
    });
    update(&lab, "deploy", KEY).send().await.unwrap();
    lab.world().key_mut(KEY).state = "Disabled".into();
    let refused = refusal(update(&lab, "deploy", KEY).send().await);
    assert_eq!(refused.short(), (400, "KMS.DisabledException"));
}

#[tokio::test]
async fn other_servers_refuse_it_or_overwrite_the_object() {
    let lab = lab_with(Topology::Roles, grant).await;
    lab.world().bucket_mut(BUCKET).update_encryption = UpdateEncryption::NotImplemented;
    let refused = refusal(update(&lab, "deploy", KEY).send().await);
    assert_eq!(refused.short(), (501, "NotImplemented"));
    lab.world().bucket_mut(BUCKET).update_encryption = UpdateEncryption::Overwrites;
    update(&lab, "deploy", KEY).send().await.unwrap();
    let now = lab.world().current(BUCKET, STATE).unwrap().clone();
    assert_eq!(now.encryption, Encryption::SseS3);
    assert!(String::from_utf8_lossy(&now.body).contains("<KMSKeyArn>"));
}
