//! KMS's management of keys, through AWS's own SDK.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

mod common;

use aws_lab::{KEY, REGION, STATE_ACCOUNT, Topology, key_policy};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{GrantOperation, KeyMetadata, KeyState, MultiRegionKeyType, Tag};
use common::{Refusal, kms, kms_in, lab, lab_with, refusal};
use serde_json::{Value, json};

const ALIAS: &str = "alias/cabal-tf-state-production";
const ADMIN: &str = "arn:aws:iam::111111111111:role/key-admin";
const DEPLOY: &str = "arn:aws:iam::222222222222:role/cicd";

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().tag_key(key).tag_value(value).build().unwrap()
}

async fn new_key(kms: &Client) -> String {
    let output = kms.create_key().send().await.unwrap();
    output.key_metadata.unwrap().arn.unwrap()
}

async fn described(kms: &Client, key: &str) -> KeyMetadata {
    kms.describe_key().key_id(key).send().await.unwrap().key_metadata.unwrap()
}

async fn policy_of(kms: &Client, key: &str) -> Value {
    let output = kms.get_key_policy().key_id(key).send().await.unwrap();
    serde_json::from_str(output.policy().unwrap()).unwrap()
}

/// Refuses a policy for a new key and as the new one of the state key.
async fn refused(kms: &Client, policy: &Value) -> Refusal {
    let create = refusal(kms.create_key().policy(policy.to_string()).send().await);
    let put = refusal(kms.put_key_policy().key_id(KEY).policy(policy.to_string()).send().await);
    assert_eq!((create.short(), &create.message), (put.short(), &put.message));
    create
}

#[tokio::test]
async fn keys_are_made_in_the_account_and_region_of_the_caller() {
    for topology in [Topology::Roles, Topology::Users, Topology::SameAccount] {
        let lab = lab_with(topology, |_| ()).await;
        assert!(lab.principals().contains(&"key-admin".to_owned()));
        let kms = kms(&lab, "key-admin");
        let policy = key_policy(&[&lab.world().principal_mut("deploy").identity.arn]);
        let create = kms.create_key().policy(policy.to_string()).description("for states");
        let made = create.tags(tag("a", "b")).send().await.unwrap().key_metadata.unwrap();
        let prefix = format!("arn:aws:kms:{REGION}:{STATE_ACCOUNT}:key/");
        let id = made.arn().unwrap().strip_prefix(&prefix).unwrap();
        assert_eq!((made.key_id(), id.len()), (id, 36));
        assert_eq!((&id[14..15], &id[19..20]), ("4", "8"), "{id}");
        assert_eq!(made.description(), Some("for states"));
        assert_eq!(policy_of(&kms, id).await, policy);
        assert_eq!(described(&kms, id).await, made);
        // Not rotated, unlike the preset's.
        let rotation = kms.get_key_rotation_status().key_id(id).send().await.unwrap();
        assert!(!rotation.key_rotation_enabled() && rotation.rotation_period_in_days().is_none());
        let deploy = common::kms(&lab, "deploy");
        deploy
            .encrypt()
            .key_id(made.arn().unwrap())
            .plaintext(Blob::new("x"))
            .send()
            .await
            .unwrap();

        let kms = kms_in(&lab, "key-admin", "eu-west-1");
        let multi = kms.create_key().multi_region(true).send().await.unwrap().key_metadata.unwrap();
        assert!(multi.key_id().starts_with("mrk-") && multi.key_id().len() == 36);
        assert!(multi.arn().unwrap().starts_with("arn:aws:kms:eu-west-1:111111111111:key/mrk-"));
        let kind = multi.multi_region_configuration().unwrap().multi_region_key_type().cloned();
        assert_eq!(kind, Some(MultiRegionKeyType::Primary));
        let default = policy_of(&kms, multi.key_id()).await;
        assert_eq!(default["Statement"][0]["Principal"]["AWS"], "arn:aws:iam::111111111111:root");
    }
}

#[tokio::test]
async fn a_policy_that_locks_its_author_out_is_refused() {
    let lab = lab().await;
    let kms = kms(&lab, "key-admin");
    let only = |who: &str, actions: &[&str]| {
        json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow",
                "Principal": { "AWS": who }, "Action": actions, "Resource": "*" }] })
    };
    let lockout = only(DEPLOY, &["kms:*"]);
    let refusal = refused(&kms, &lockout).await;
    assert_eq!(refusal.short(), (400, "MalformedPolicyDocumentException"));
    assert!(refusal.message.contains("will not allow you to update the key policy"));
    refused(&kms, &only(ADMIN, &["kms:Decrypt"])).await;
    refused(&kms, &json!({ "Statement": [] })).await;
    refused(&kms, &json!("no policy")).await;
    // Without a resource, a statement has no effect.
    let mut ineffective = only(ADMIN, &["kms:*"]);
    ineffective["Statement"][0].as_object_mut().unwrap().remove("Resource");
    assert_eq!(refused(&kms, &ineffective).await.message, refusal.message);

    let put = |policy: &Value| kms.put_key_policy().key_id(KEY).policy(policy.to_string());
    put(&only(ADMIN, &["kms:PutKeyPolicy", "kms:GetKeyPolicy"])).send().await.unwrap();
    put(&lockout).bypass_policy_lockout_safety_check(true).send().await.unwrap();
    let refusal = common::refusal(put(&lockout).send().await);
    assert_eq!(refusal.short(), (400, "AccessDeniedException"));
    let create = kms.create_key().policy(lockout.to_string());
    create.bypass_policy_lockout_safety_check(true).send().await.unwrap();
}

#[tokio::test]
async fn a_policy_names_principals_that_there_are() {
    let lab = lab().await;
    let kms = kms(&lab, "key-admin");
    let nobody = format!("arn:aws:iam::{STATE_ACCOUNT}:role/nobody");
    for wrong in [nobody.as_str(), "arn:aws:iam::222222222222:user/terraform", "AIDALABLABLAB", "x"]
    {
        let refusal = refused(&kms, &key_policy(&[DEPLOY, wrong])).await;
        assert_eq!(refusal.short(), (400, "MalformedPolicyDocumentException"));
        assert!(refusal.message.ends_with("one or more invalid principals."), "{wrong}");
    }
    let right = [DEPLOY, ADMIN, "222222222222", "arn:aws:iam::333333333333:root"];
    let session = "arn:aws:sts::222222222222:assumed-role/cicd/lab";
    let policy = key_policy(&[&right[..], &[session, "*"]].concat());
    kms.put_key_policy().key_id(KEY).policy(policy.to_string()).send().await.unwrap();

    // A deleted one's id stays, and no policy with it can be put again.
    lab.world().delete_principal("deploy");
    assert!(!lab.principals().contains(&"deploy".to_owned()));
    let mut policy = policy_of(&kms, KEY).await;
    let named = &mut policy["Statement"][1]["Principal"]["AWS"];
    assert!(named[0].as_str().unwrap().starts_with("AROA"), "{named}");
    assert_eq!(named[1], ADMIN);
    *named = json!([named[0]]);
    let refusal = refused(&kms, &policy).await;
    assert!(refusal.message.ends_with("one or more invalid principals."));

    lab.world().change_use_statement(KEY, |statement| {
        statement["Principal"]["AWS"] = json!("arn:aws:iam::222222222222:user/no-iam");
    });
    lab.world().delete_principal("no-iam");
    let policy = policy_of(&kms, KEY).await;
    assert!(policy["Statement"][1]["Principal"]["AWS"].as_str().unwrap().starts_with("AIDA"));
}

#[tokio::test]
async fn aliases_are_made_moved_and_deleted() {
    let lab = lab().await;
    let kms = kms(&lab, "key-admin");
    let key = new_key(&kms).await;
    let create = |name: &str, key: &str| kms.create_alias().alias_name(name).target_key_id(key);
    create("alias/next", &key).send().await.unwrap();
    assert_eq!(described(&kms, "alias/next").await.arn(), Some(&*key));
    for (name, target, code) in [
        ("alias/next", KEY, "AlreadyExistsException"),
        (ALIAS, KEY, "AlreadyExistsException"),
        ("next", KEY, "ValidationException"),
        ("alias/aws/s3", KEY, "NotAuthorizedException"),
        ("alias/a:b", KEY, "ValidationException"),
        ("alias/b", "alias/next", "ValidationException"),
        ("alias/b", "00000000-0000-4000-8000-000000000000", "NotFoundException"),
    ] {
        let refusal = refusal(create(name, target).send().await);
        assert_eq!(refusal.short(), (400, code), "{name} {target}");
    }
    let names = async |key: Option<&str>| -> Vec<String> {
        let list = kms.list_aliases().set_key_id(key.map(str::to_owned)).send().await.unwrap();
        list.aliases().iter().map(|a| a.alias_name().unwrap().to_owned()).collect()
    };
    assert_eq!(names(None).await, [ALIAS, "alias/next"]);
    assert_eq!(names(Some(&key)).await, ["alias/next"]);

    let update = || kms.update_alias().alias_name("alias/next").target_key_id(KEY);
    update().send().await.unwrap();
    assert_eq!(names(Some(KEY)).await, [ALIAS, "alias/next"]);
    kms.schedule_key_deletion().key_id(&key).send().await.unwrap();
    let back = refusal(update().target_key_id(&key).send().await);
    assert_eq!(back.short(), (400, "KMSInvalidStateException"));
    kms.delete_alias().alias_name("alias/next").send().await.unwrap();
    assert_eq!(names(None).await, [ALIAS]);
    assert_eq!(refusal(update().send().await).short(), (400, "NotFoundException"));
    let delete = kms.delete_alias().alias_name("alias/next");
    assert_eq!(refusal(delete.send().await).short(), (400, "NotFoundException"));
    // What manages a key takes no alias.
    let put = kms.enable_key().key_id(ALIAS);
    assert_eq!(refusal(put.send().await).short(), (400, "NotFoundException"));
}

#[tokio::test]
async fn tags_have_their_limits_and_their_pages() {
    let lab = lab().await;
    let kms = kms(&lab, "key-admin");
    let add = |tags: Vec<Tag>| kms.tag_resource().key_id(KEY).set_tags(Some(tags));
    add(vec![tag("owner", "a"), tag("use", "states")]).send().await.unwrap();
    add(vec![tag("owner", "b")]).send().await.unwrap();
    let page = kms.list_resource_tags().key_id(KEY).limit(1).send().await.unwrap();
    assert_eq!((page.tags(), page.truncated()), (&[tag("owner", "b")][..], true));
    let rest = kms.list_resource_tags().key_id(KEY).set_marker(page.next_marker);
    let rest = rest.send().await.unwrap();
    assert_eq!((rest.tags(), rest.truncated()), (&[tag("use", "states")][..], false));
    assert_eq!(rest.next_marker(), None);
    kms.untag_resource().key_id(KEY).tag_keys("owner").tag_keys("none").send().await.unwrap();
    assert_eq!(lab.world().key_mut(KEY).tags.len(), 1);

    for (tags, code) in [
        (vec![tag("aws:x", "")], "TagException"),
        (vec![tag("x", "1"), tag("x", "2")], "TagException"),
        (vec![tag("", "1")], "ValidationException"),
        ((0..50).map(|at| tag(&format!("t{at}"), "")).collect(), "LimitExceededException"),
    ] {
        assert_eq!(refusal(add(tags).send().await).short(), (400, code));
    }
}

#[tokio::test]
async fn rotation_has_a_period() {
    let lab = lab().await;
    let kms = kms(&lab, "key-admin");
    let key = new_key(&kms).await;
    let enable = |days: Option<i32>| {
        kms.enable_key_rotation().key_id(&key).set_rotation_period_in_days(days)
    };
    let status = async || {
        let status = kms.get_key_rotation_status().key_id(&key).send().await.unwrap();
        assert_eq!(status.key_rotation_enabled(), status.next_rotation_date().is_some());
        (status.key_rotation_enabled(), status.rotation_period_in_days())
    };
    for days in [89, 2561] {
        let refusal = refusal(enable(Some(days)).send().await);
        assert_eq!(refusal.short(), (400, "ValidationException"));
    }
    assert_eq!(status().await, (false, None));
    enable(None).send().await.unwrap();
    assert_eq!(status().await, (true, Some(365)));
    enable(Some(90)).send().await.unwrap();
    assert_eq!(status().await, (true, Some(90)));
    kms.disable_key().key_id(&key).send().await.unwrap();
    assert_eq!(refusal(enable(None).send().await).short(), (400, "DisabledException"));
    kms.schedule_key_deletion().key_id(&key).send().await.unwrap();
    assert_eq!(status().await, (false, None));
    kms.cancel_key_deletion().key_id(&key).send().await.unwrap();
    assert_eq!(status().await, (true, Some(90)));
    kms.enable_key().key_id(&key).send().await.unwrap();
    kms.disable_key_rotation().key_id(&key).send().await.unwrap();
    assert_eq!(status().await, (false, None));
}

#[tokio::test]
async fn deletion_waits_and_can_be_cancelled() {
    let lab = lab().await;
    let kms = kms(&lab, "key-admin");
    let key = new_key(&kms).await;
    let schedule =
        |days: i32| kms.schedule_key_deletion().key_id(&key).pending_window_in_days(days);
    for days in [6, 31] {
        let refusal = refusal(schedule(days).send().await);
        assert_eq!(refusal.short(), (400, "ValidationException"));
    }
    let cancel = || kms.cancel_key_deletion().key_id(&key);
    let invalid = (400, "KMSInvalidStateException");
    assert_eq!(refusal(cancel().send().await).short(), invalid);
    kms.disable_key().key_id(&key).send().await.unwrap();
    assert_eq!(described(&kms, &key).await.key_state(), Some(&KeyState::Disabled));
    // A disabled key is managed like another.
    kms.update_key_description().key_id(&key).description("old").send().await.unwrap();
    kms.tag_resource().key_id(&key).tags(tag("a", "b")).send().await.unwrap();
    kms.create_alias().alias_name("alias/old").target_key_id(&key).send().await.unwrap();

    let scheduled = schedule(7).send().await.unwrap();
    assert_eq!(scheduled.key_state(), Some(&KeyState::PendingDeletion));
    assert_eq!(scheduled.pending_window_in_days(), Some(7));
    let metadata = described(&kms, &key).await;
    assert!(metadata.deletion_date().is_some());
    assert_eq!(metadata.deletion_date(), scheduled.deletion_date());
    assert_eq!(metadata.description(), Some("old"));
    assert_eq!(refusal(schedule(7).send().await).short(), invalid);
    assert_eq!(refusal(kms.enable_key().key_id(&key).send().await).short(), invalid);
    assert_eq!(refusal(kms.disable_key().key_id(&key).send().await).short(), invalid);
    let again = kms.tag_resource().key_id(&key).tags(tag("a", "c"));
    assert_eq!(refusal(again.send().await).short(), invalid);
    let again = kms.update_key_description().key_id(&key).description("new");
    assert_eq!(refusal(again.send().await).short(), invalid);
    let again = kms.create_alias().alias_name("alias/new").target_key_id(&key);
    assert_eq!(refusal(again.send().await).short(), invalid);
    // The policy and the alias can still go.
    let policy = policy_of(&kms, &key).await.to_string();
    kms.put_key_policy().key_id(&key).policy(policy).send().await.unwrap();
    kms.delete_alias().alias_name("alias/old").send().await.unwrap();

    assert_eq!(cancel().send().await.unwrap().key_id(), Some(&*key));
    let metadata = described(&kms, &key).await;
    assert_eq!(metadata.key_state(), Some(&KeyState::Disabled));
    assert!(metadata.deletion_date().is_none());
    kms.enable_key().key_id(&key).send().await.unwrap();
    kms.encrypt().key_id(&key).plaintext(Blob::new("x")).send().await.unwrap();
}

#[tokio::test]
async fn lists_come_in_pages() {
    let lab = lab().await;
    let kms = kms(&lab, "key-admin");
    let mut keys = vec![KEY.to_owned()];
    for at in 0..4 {
        let key = new_key(&kms).await;
        let create = kms.create_alias().alias_name(format!("alias/{at}")).target_key_id(&key);
        create.send().await.unwrap();
        keys.push(key);
    }
    keys.sort();
    let mut pages = kms.list_keys().into_paginator().page_size(2).send();
    let (mut sizes, mut found) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        sizes.push(page.keys().len());
        found.extend(page.keys().iter().map(|key| key.key_arn().unwrap().to_owned()));
    }
    assert_eq!((sizes, found), (vec![2, 2, 1], keys));
    let mut pages = kms.list_aliases().into_paginator().page_size(3).send();
    let mut sizes = Vec::new();
    while let Some(page) = pages.next().await {
        sizes.push(page.unwrap().aliases().len());
    }
    assert_eq!(sizes, [3, 2]);
    let wrong = kms.list_keys().marker("elsewhere");
    assert_eq!(refusal(wrong.send().await).short(), (400, "InvalidMarkerException"));
    let wrong = kms.list_keys().limit(1001);
    assert_eq!(refusal(wrong.send().await).short(), (400, "ValidationException"));
    // Of this region only.
    let elsewhere = kms_in(&lab, "key-admin", "eu-west-1").list_keys().send().await.unwrap();
    assert!(elsewhere.keys().is_empty());
}

#[tokio::test]
async fn grants_are_listed() {
    let lab = lab().await;
    let id = lab.world().add_grant(KEY, DEPLOY, &["Decrypt", "DescribeKey"]);
    lab.world().add_grant(KEY, ADMIN, &["Encrypt"]);
    let kms = kms(&lab, "key-admin");
    let all = kms.list_grants().key_id(KEY).send().await.unwrap();
    assert_eq!(all.grants().len(), 2);
    let one = kms.list_grants().key_id(KEY).grantee_principal(DEPLOY).send().await.unwrap();
    let [grant] = one.grants() else { panic!("{one:?}") };
    assert_eq!((grant.grant_id(), grant.key_id()), (Some(&*id), Some(KEY)));
    assert_eq!(grant.operations(), [GrantOperation::Decrypt, GrantOperation::DescribeKey]);
    let page = kms.list_grants().key_id(KEY).limit(1).send().await.unwrap();
    assert!(page.truncated() && page.next_marker().is_some());
}

#[tokio::test]
async fn another_account_manages_nothing() {
    // Even where the key's policy and its own would allow it.
    let lab = lab().await;
    lab.world().change_use_statement(KEY, |statement| statement["Action"] = json!("kms:*"));
    lab.world().add_grant(KEY, DEPLOY, &["Decrypt"]);
    let deploy = kms(&lab, "deploy");
    let denied = (400, "AccessDeniedException");
    let policy = key_policy(&[DEPLOY]).to_string();
    let alias = || deploy.create_alias().alias_name("alias/mine").target_key_id(KEY);
    assert_eq!(refusal(alias().send().await).short(), denied);
    let put = deploy.put_key_policy().key_id(KEY).policy(policy);
    assert_eq!(refusal(put.send().await).short(), denied);
    assert_eq!(refusal(deploy.get_key_policy().key_id(KEY).send().await).short(), denied);
    assert_eq!(refusal(deploy.list_resource_tags().key_id(KEY).send().await).short(), denied);
    let add = deploy.tag_resource().key_id(KEY).tags(tag("a", "b"));
    assert_eq!(refusal(add.send().await).short(), denied);
    assert_eq!(refusal(deploy.disable_key().key_id(KEY).send().await).short(), denied);
    assert_eq!(refusal(deploy.enable_key_rotation().key_id(KEY).send().await).short(), denied);
    assert_eq!(refusal(deploy.schedule_key_deletion().key_id(KEY).send().await).short(), denied);
    assert!(lab.world().key_mut(KEY).state == "Enabled");
    let list = deploy.list_aliases().key_id(KEY);
    assert_eq!(refusal(list.send().await).short(), (400, "NotFoundException"));
    // These two go across.
    deploy.get_key_rotation_status().key_id(KEY).send().await.unwrap();
    assert_eq!(deploy.list_grants().key_id(KEY).send().await.unwrap().grants().len(), 1);
    // Its own account's keys are its own matter.
    assert!(new_key(&deploy).await.contains(":222222222222:key/"));

    // Without the rights, nothing is made or listed at all.
    let reader = kms(&lab, "reader");
    assert_eq!(refusal(reader.create_key().send().await).short(), denied);
    assert_eq!(refusal(reader.list_keys().send().await).short(), denied);
    assert_eq!(refusal(reader.list_aliases().send().await).short(), denied);
}

#[tokio::test]
async fn new_keys_may_stay_unknown_for_a_while() {
    let lab = lab().await;
    let kms = kms(&lab, "key-admin");
    lab.world().forget_new_keys_for(4);
    let key = new_key(&kms).await;
    kms.create_alias().alias_name("alias/new").target_key_id(&key).send().await.unwrap();
    let describe = |id: &str| kms.describe_key().key_id(id);
    let unknown = (400, "NotFoundException");
    assert_eq!(refusal(describe(&key).send().await).short(), unknown);
    assert_eq!(refusal(describe("alias/new").send().await).short(), unknown);
    let tags = refusal(kms.list_resource_tags().key_id(&key).send().await);
    assert_eq!(tags.short(), unknown);
    assert_eq!(kms.list_aliases().send().await.unwrap().aliases().len(), 1);
    // Four calls are over.
    assert_eq!(kms.list_aliases().send().await.unwrap().aliases().len(), 2);
    describe("alias/new").send().await.unwrap();
}

#[tokio::test]
async fn the_key_admin_reads_the_bucket_and_writes_nothing() {
    let lab = lab().await;
    let s3 = common::s3(&lab, "key-admin");
    assert_eq!(common::body(&s3, common::STATE).await, common::BODY.as_bytes());
    s3.list_object_versions().bucket(aws_lab::BUCKET).send().await.unwrap();
    let put = s3.put_object().bucket(aws_lab::BUCKET).key(common::STATE);
    assert_eq!(refusal(put.send().await).short(), (403, "AccessDenied"));
}
