//! S3's rules for objects, through AWS's own SDK.

mod common;

use std::collections::BTreeMap;

use aws_lab::{BUCKET, DEPLOY_ACCOUNT, Encryption, KEY, STATE_ACCOUNT, Topology};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, MetadataDirective, ServerSideEncryption, StorageClass,
};
use common::{BODY, KMS, STATE, body, lab, lab_with, refusal, s3, s3_in};
use serde_json::json;

#[tokio::test]
async fn head_works_without_kms_and_get_does_not() {
    let lab = lab().await;
    let reader = s3(&lab, "reader");
    let head = reader.head_object().bucket(BUCKET).key(STATE).send().await.unwrap();
    assert_eq!(head.server_side_encryption(), Some(&KMS));
    assert_eq!(head.ssekms_key_id(), Some(KEY));
    let checked = reader.head_object().bucket(BUCKET).key(STATE);
    let checked = checked.checksum_mode(ChecksumMode::Enabled).send().await;
    assert_eq!(refusal(checked).status, 403);
    let refused = refusal(reader.get_object().bucket(BUCKET).key(STATE).send().await);
    assert_eq!(refused.short(), (403, "AccessDenied"));
    assert_eq!(
        refused.message,
        format!(
            "User: arn:aws:iam::{DEPLOY_ACCOUNT}:user/reader is not authorized to perform: kms:Decrypt on resource: {KEY} because no identity-based policy allows the kms:Decrypt action"
        )
    );
    lab.world().terse = true;
    let refused = refusal(reader.get_object().bucket(BUCKET).key(STATE).send().await);
    assert_eq!((refused.status, &*refused.message), (403, "Access Denied"));
    assert_eq!(body(&s3(&lab, "deploy"), STATE).await, BODY.as_bytes());
}

#[tokio::test]
async fn writes_name_the_side_that_is_missing() {
    let lab = lab().await;
    for (who, side) in [("no-iam", "identity-based"), ("no-key-policy", "resource-based")] {
        let put = s3(&lab, who).put_object().bucket(BUCKET).key(STATE);
        let put = put.server_side_encryption(KMS).ssekms_key_id(KEY).send().await;
        let refused = refusal(put);
        assert_eq!(refused.short(), (403, "AccessDenied"), "{who}");
        let clause = format!("kms:GenerateDataKey on resource: {KEY} because no {side} policy");
        assert!(refused.message.contains(&clause), "{}", refused.message);
    }
}

#[tokio::test]
async fn key_states_are_told_as_400() {
    let lab = lab().await;
    let s3 = s3(&lab, "deploy");
    for (state, code) in [
        ("Disabled", "KMS.DisabledException"),
        ("PendingDeletion", "KMS.KMSInvalidStateException"),
        ("PendingImport", "KMS.KMSInvalidStateException"),
    ] {
        lab.world().key_mut(KEY).state = state.into();
        let get = refusal(s3.get_object().bucket(BUCKET).key(STATE).send().await);
        assert_eq!(get.short(), (400, code));
        let put = s3.put_object().bucket(BUCKET).key("x").server_side_encryption(KMS);
        assert_eq!(refusal(put.ssekms_key_id(KEY).send().await).short(), (400, code));
    }
    for missing in [
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "not-a-key",
        "alias/none",
        "arn:aws:kms:eu-west-1:111111111111:key/5c0ffee1-2222-4333-8444-555555555555",
    ] {
        let put = s3.put_object().bucket(BUCKET).key("x").server_side_encryption(KMS);
        let refused = refusal(put.ssekms_key_id(missing).send().await);
        assert_eq!(refused.short(), (400, "KMS.NotFoundException"), "{missing}");
    }
}

#[tokio::test]
async fn a_key_policy_may_know_the_object_or_the_bucket() {
    let lab = lab_with(Topology::Roles, |world| {
        world.change_use_statement(KEY, |statement| {
            statement["Condition"] = json!({ "StringEquals": {
                "kms:EncryptionContext:aws:s3:arn": format!("arn:aws:s3:::{BUCKET}/{STATE}") } });
        });
        let key = KEY.to_owned();
        world.put_object(BUCKET, "other", "{}", Encryption::Kms { key: key.clone() });
        world.bucket_mut(BUCKET).bucket_key = true;
        world.put_object(BUCKET, "shared", "{}", Encryption::Kms { key });
    })
    .await;
    let s3 = s3(&lab, "deploy");
    assert_eq!(body(&s3, STATE).await, BODY.as_bytes());
    for key in ["other", "shared"] {
        let refused = refusal(s3.get_object().bucket(BUCKET).key(key).send().await);
        assert_eq!(refused.short(), (403, "AccessDenied"), "{key}");
    }
    lab.world().change_use_statement(KEY, |statement| {
        statement["Condition"] = json!({ "StringEquals": {
            "kms:EncryptionContext:aws:s3:arn": format!("arn:aws:s3:::{BUCKET}") } });
    });
    let shared = s3.get_object().bucket(BUCKET).key("shared").send().await.unwrap();
    assert_eq!(shared.bucket_key_enabled(), Some(true));
    // The bucket has Bucket Keys on; the header decides for the object.
    let put = || s3.put_object().bucket(BUCKET).key("new").server_side_encryption(KMS);
    let by_bucket = put().ssekms_key_id(KEY).send().await.unwrap();
    assert_eq!(by_bucket.bucket_key_enabled(), Some(true));
    let refused = refusal(put().ssekms_key_id(KEY).bucket_key_enabled(false).send().await);
    assert_eq!(refused.short(), (403, "AccessDenied"));
}

#[tokio::test]
async fn a_copy_keeps_some_and_loses_some() {
    let lab = lab_with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).bucket_key = true;
        world.put_object(BUCKET, STATE, BODY, Encryption::Kms { key: KEY.into() });
        world.bucket_mut(BUCKET).bucket_key = false;
        world.with_object(BUCKET, STATE, |version| {
            version.metadata = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
            version.storage_class = Some("STANDARD_IA".into());
            version.checksum_algorithm = Some("SHA256".into());
        });
        world.tag_object(BUCKET, STATE, &[("team", "x y")]);
    })
    .await;
    let s3 = s3(&lab, "deploy");
    let before = lab.world().current(BUCKET, STATE).unwrap().clone();
    let copy =
        || s3.copy_object().bucket(BUCKET).key(STATE).copy_source(format!("{BUCKET}/{STATE}"));
    let refused = refusal(copy().send().await);
    assert_eq!(refused.short(), (400, "InvalidRequest"));
    assert!(refused.message.contains("without changing"), "{}", refused.message);

    let output = copy().server_side_encryption(KMS).ssekms_key_id(KEY).send().await.unwrap();
    assert_eq!(output.copy_source_version_id(), Some(&*before.version_id));
    let after = lab.world().current(BUCKET, STATE).unwrap().clone();
    assert_eq!(
        (&after.metadata, &after.content_type, &after.tags, &after.checksum_algorithm),
        (&before.metadata, &before.content_type, &before.tags, &before.checksum_algorithm)
    );
    assert_eq!((after.storage_class, after.bucket_key), (None, false));
    assert_ne!((after.etag, after.version_id), (before.etag.clone(), before.version_id));
    assert_eq!(lab.world().versions(BUCKET, STATE).len(), 3, "the old version stays");

    // As the runbook's command has it.
    let replaced = copy().server_side_encryption(KMS).ssekms_key_id(KEY);
    replaced.metadata_directive(MetadataDirective::Replace).send().await.unwrap();
    let after = lab.world().current(BUCKET, STATE).unwrap().clone();
    assert_eq!(after.content_type.as_deref(), Some("binary/octet-stream"));
    assert!(after.metadata.is_empty() && after.tags == before.tags);

    // A key that is not named is aws/s3, which no other account may use.
    let unnamed = refusal(copy().server_side_encryption(KMS).send().await);
    assert_eq!(unnamed.short(), (403, "AccessDenied"));
    // Tags need two more permissions, and a size over 5 GB another operation.
    lab.world().bucket_mut(BUCKET).policy.as_mut().unwrap()["Statement"][0]["Action"] =
        json!(["s3:GetObject", "s3:PutObject"]);
    let refused = refusal(copy().server_side_encryption(KMS).ssekms_key_id(KEY).send().await);
    assert!(refused.message.contains("s3:GetObjectTagging"), "{}", refused.message);
    lab.world().tag_object(BUCKET, STATE, &[]);
    lab.world().with_object(BUCKET, STATE, |version| version.declared_size = Some((5 << 30) + 1));
    let refused = refusal(copy().server_side_encryption(KMS).ssekms_key_id(KEY).send().await);
    assert_eq!(refused.short(), (400, "InvalidRequest"));
}

#[tokio::test]
async fn copies_are_conditional_on_both_ends() {
    let lab = lab().await;
    let s3 = s3(&lab, "deploy");
    let copy = |to: &str| {
        let copy = s3.copy_object().bucket(BUCKET).key(to).copy_source(format!("{BUCKET}/{STATE}"));
        copy.server_side_encryption(KMS).ssekms_key_id(KEY)
    };
    let etag = lab.world().current(BUCKET, STATE).unwrap().etag.clone();
    let refused = refusal(copy(STATE).copy_source_if_match("\"other\"").send().await);
    assert_eq!(refused.short(), (412, "PreconditionFailed"));
    let refused = refusal(copy(STATE).if_match("\"other\"").send().await);
    assert_eq!(refused.short(), (412, "PreconditionFailed"));
    let refused = refusal(copy("missing").if_match(&etag).send().await);
    assert_eq!(refused.short(), (404, "NoSuchKey"));
    for both in [copy(STATE).if_match("*"), copy(STATE).if_match(&etag).if_none_match("*")] {
        assert_eq!(refusal(both.send().await).short(), (501, "NotImplemented"));
    }
    assert_eq!(lab.world().versions(BUCKET, STATE).len(), 1);
    let quoted = format!("\"{etag}\"");
    copy(STATE).copy_source_if_match(&quoted).if_match(&quoted).send().await.unwrap();
    assert_eq!(lab.world().versions(BUCKET, STATE).len(), 2);
    // A lock file, and what meets one.
    let lock = || s3.put_object().bucket(BUCKET).key("x.tflock").if_none_match("*");
    lock().send().await.unwrap();
    assert_eq!(refusal(lock().send().await).short(), (412, "PreconditionFailed"));
}

#[tokio::test]
async fn reads_are_conditional_and_partial() {
    let lab = lab().await;
    let s3 = s3(&lab, "deploy");
    let get = || s3.get_object().bucket(BUCKET).key(STATE);
    let etag = lab.world().current(BUCKET, STATE).unwrap().etag.clone();
    assert_eq!(refusal(get().if_match("other").send().await).short(), (412, "PreconditionFailed"));
    assert_eq!(refusal(get().if_none_match(&etag).send().await).status, 304);
    get().if_match(&etag).send().await.unwrap();
    let part = get().range("bytes=2-7").send().await.unwrap();
    assert_eq!((part.content_range(), part.content_length()), (Some("bytes 2-7/12"), Some(6)));
    assert_eq!(part.body.collect().await.unwrap().to_vec(), &BODY.as_bytes()[2..8]);
    assert_eq!(refusal(get().range("bytes=99-").send().await).short(), (416, "InvalidRange"));
}

#[tokio::test]
async fn missing_is_404_for_those_who_may_list() {
    let lab = lab_with(Topology::Roles, |world| world.delete_object(BUCKET, "gone")).await;
    let deploy = s3(&lab, "deploy");
    let refused = refusal(deploy.get_object().bucket(BUCKET).key("missing").send().await);
    assert_eq!(
        (refused.short(), refused.header("x-amz-delete-marker")),
        ((404, "NoSuchKey"), None)
    );
    let refused = refusal(deploy.head_object().bucket(BUCKET).key("gone").send().await);
    assert_eq!((refused.status, refused.header("x-amz-delete-marker")), (404, Some("true")));
    // The marker itself is no object.
    let marker = lab.world().versions(BUCKET, "gone")[0].version_id.clone();
    let admin = s3(&lab, "admin");
    let by_id = |id: &str| admin.get_object().bucket(BUCKET).key("gone").version_id(id).send();
    assert_eq!(refusal(by_id(&marker).await).short(), (405, "MethodNotAllowed"));
    assert_eq!(refusal(by_id("none").await).short(), (404, "NoSuchVersion"));

    // Without the right to list.
    lab.world().bucket_mut(BUCKET).policy.as_mut().unwrap()["Statement"]
        .as_array_mut()
        .unwrap()
        .pop();
    let refused = refusal(deploy.get_object().bucket(BUCKET).key("missing").send().await);
    assert_eq!(refused.short(), (403, "AccessDenied"));
}

#[tokio::test]
async fn owners_and_regions_are_checked() {
    let lab = lab().await;
    let deploy = s3(&lab, "deploy");
    let head =
        |owner: &str| deploy.head_object().bucket(BUCKET).key(STATE).expected_bucket_owner(owner);
    head(STATE_ACCOUNT).send().await.unwrap();
    assert_eq!(refusal(head(DEPLOY_ACCOUNT).send().await).status, 403);
    let copy =
        deploy.copy_object().bucket(BUCKET).key(STATE).copy_source(format!("{BUCKET}/{STATE}"));
    let copy = copy.server_side_encryption(KMS).ssekms_key_id(KEY);
    let refused = refusal(copy.expected_source_bucket_owner(DEPLOY_ACCOUNT).send().await);
    assert_eq!(refused.short(), (403, "AccessDenied"));

    for (who, status) in [("deploy", 301), ("reader", 301)] {
        let refused =
            refusal(s3_in(&lab, who, "eu-west-1").head_bucket().bucket(BUCKET).send().await);
        assert_eq!(
            (refused.status, refused.header("x-amz-bucket-region")),
            (status, Some("us-east-1"))
        );
    }
    let found = deploy.head_bucket().bucket(BUCKET).send().await.unwrap();
    assert_eq!(found.bucket_region(), Some("us-east-1"));
    lab.world().bucket_mut(BUCKET).policy = None;
    let refused = refusal(deploy.head_bucket().bucket(BUCKET).send().await);
    assert_eq!((refused.status, refused.header("x-amz-bucket-region")), (403, Some("us-east-1")));
}

#[tokio::test]
async fn checksums_and_defaults() {
    let lab = lab_with(Topology::Roles, |world| {
        let bucket = world.bucket_mut(BUCKET);
        bucket.default_encryption = Encryption::Kms { key: KEY.into() };
        bucket.bucket_key = true;
        bucket.objects.clear();
    })
    .await;
    let s3 = s3(&lab, "deploy");
    let put = s3.put_object().bucket(BUCKET).key(STATE).body(ByteStream::from_static(b"hello"));
    let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    let sum = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
    assert_eq!(put.checksum_sha256(), Some(sum));
    assert_eq!((put.server_side_encryption(), put.bucket_key_enabled()), (Some(&KMS), Some(true)));
    let head = || s3.head_object().bucket(BUCKET).key(STATE);
    assert_eq!(head().send().await.unwrap().checksum_sha256(), None);
    let head = head().checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.checksum_sha256(), Some(sum));
    assert_eq!(body(&s3, STATE).await, b"hello");
    let wrong = s3.put_object().bucket(BUCKET).key(STATE).body(ByteStream::from_static(b"hello"));
    let wrong = wrong.checksum_sha256("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").send().await;
    assert_eq!(refusal(wrong).short(), (400, "BadDigest"));
    let plain = s3.put_object().bucket(BUCKET).key(STATE);
    let plain = plain.server_side_encryption(ServerSideEncryption::Aes256).send().await.unwrap();
    assert_eq!(plain.bucket_key_enabled(), None);
    assert_eq!(plain.e_tag(), Some("\"d41d8cd98f00b204e9800998ecf8427e\""), "the MD5 under SSE-S3");
    // ACLs are off.
    let acl = s3.put_object().bucket(BUCKET).key(STATE);
    let acl = acl.acl(aws_sdk_s3::types::ObjectCannedAcl::Private).send().await;
    assert_eq!(refusal(acl).status, 403, "s3:PutObjectAcl is not granted");
}

#[tokio::test]
async fn customer_keys_are_asked_for() {
    let lab = lab_with(Topology::Roles, |world| {
        world.put_object(BUCKET, STATE, "{}", Encryption::SseC);
    })
    .await;
    let s3 = s3(&lab, "deploy");
    let head = s3.head_object().bucket(BUCKET).key(STATE).send().await;
    assert_eq!(refusal(head).status, 400);
    let get = s3.get_object().bucket(BUCKET).key(STATE).send().await;
    assert_eq!(refusal(get).short(), (400, "InvalidRequest"));
}

#[tokio::test]
async fn listings_have_pages_and_prefixes() {
    let lab = lab_with(Topology::Roles, |world| {
        for key in ["env:/a/x", "env:/b/x", "env:/b/y", "z"] {
            world.put_object(BUCKET, key, "1", Encryption::SseS3);
            world.put_object(BUCKET, key, "2", Encryption::SseS3);
        }
        world.delete_object(BUCKET, "z");
        world.with_object(BUCKET, STATE, |v| v.storage_class = Some("STANDARD_IA".into()));
    })
    .await;
    let s3 = s3(&lab, "admin");
    let mut seen = Vec::new();
    let mut pages =
        s3.list_objects_v2().bucket(BUCKET).delimiter("/").max_keys(1).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        seen.extend(page.contents().iter().filter_map(|o| o.key().map(str::to_owned)));
        seen.extend(page.common_prefixes().iter().filter_map(|p| p.prefix().map(str::to_owned)));
    }
    assert_eq!(seen, ["env:/", STATE]);
    let workspaces = s3.list_objects_v2().bucket(BUCKET).prefix("env:/").delimiter("/").send();
    assert_eq!(workspaces.await.unwrap().common_prefixes().len(), 2);

    let (mut found, mut markers) = (Vec::new(), 0);
    let (mut key, mut version) = (None, None);
    loop {
        let page = s3.list_object_versions().bucket(BUCKET).max_keys(2);
        let page = page.set_key_marker(key).set_version_id_marker(version).send().await.unwrap();
        assert!(page.versions().len() + page.delete_markers().len() <= 2);
        for version in page.versions() {
            found.push((version.key().unwrap().to_owned(), version.is_latest().unwrap()));
        }
        markers += page.delete_markers().len();
        if page.is_truncated() != Some(true) {
            break;
        }
        key = page.next_key_marker().map(str::to_owned);
        version = page.next_version_id_marker().map(str::to_owned);
    }
    let latest = |key: &str| [(key.to_owned(), true), (key.to_owned(), false)];
    let mut expected: Vec<_> =
        ["env:/a/x", "env:/b/x", "env:/b/y"].into_iter().flat_map(latest).collect();
    expected.push((STATE.to_owned(), true));
    expected.extend([("z".to_owned(), false), ("z".to_owned(), false)]);
    assert_eq!((found, markers), (expected, 1));
    let classes = s3.list_object_versions().bucket(BUCKET).prefix(STATE).send().await.unwrap();
    let class = classes.versions()[0].storage_class().unwrap().as_str().to_owned();
    assert_eq!(class, StorageClass::StandardIa.as_str());
    let refused =
        refusal(s3.list_object_versions().bucket(BUCKET).version_id_marker("x").send().await);
    assert_eq!(refused.short(), (400, "InvalidArgument"));
    let refused =
        refusal(common::s3(&lab, "deploy").list_object_versions().bucket(BUCKET).send().await);
    assert_eq!(refused.short(), (403, "AccessDenied"), "s3:ListBucketVersions is its own action");
}

#[tokio::test]
async fn old_versions_keep_their_encryption() {
    let lab = lab_with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).objects.clear();
        world.put_object(BUCKET, STATE, "old", Encryption::SseS3);
        world.put_object(BUCKET, STATE, "new", Encryption::Kms { key: KEY.into() });
    })
    .await;
    let old = lab.world().versions(BUCKET, STATE)[0].version_id.clone();
    let get = |who| s3(&lab, who).get_object().bucket(BUCKET).key(STATE).version_id(&old).send();
    let refused = refusal(get("reader").await);
    assert!(refused.message.contains("s3:GetObjectVersion "), "{}", refused.message);
    lab.world().bucket_mut(BUCKET).policy.as_mut().unwrap()["Statement"][1]["Action"] =
        json!(["s3:GetObject", "s3:GetObjectVersion"]);
    let output = get("reader").await.unwrap();
    assert_eq!(output.body.collect().await.unwrap().to_vec(), b"old", "without any KMS right");

    let admin = s3(&lab, "admin");
    let deleted = admin.delete_object().bucket(BUCKET).key(STATE).send().await.unwrap();
    assert_eq!(deleted.delete_marker(), Some(true));
    let marker = deleted.version_id().unwrap();
    admin.delete_object().bucket(BUCKET).key(STATE).version_id(marker).send().await.unwrap();
    assert_eq!(body(&s3(&lab, "deploy"), STATE).await, b"new");
}
