//! KMS's rules, through AWS's own SDK.

mod common;

use aws_lab::{ACTIONS, KEY, Topology};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, DryRunModifierType, KeyManagerType, KeyState};
use common::{kms, kms_in, lab, lab_with, refusal};
use serde_json::json;

const ALIAS: &str = "arn:aws:kms:us-east-1:111111111111:alias/cabal-tf-state-production";

#[tokio::test]
async fn dry_runs_end_with_an_error_either_way() {
    let lab = lab().await;
    for (who, code) in [("deploy", "DryRunOperationException"), ("no-iam", "AccessDeniedException")]
    {
        let kms = kms(&lab, who);
        let encrypt = kms.encrypt().key_id(KEY).plaintext(Blob::new("x")).dry_run(true);
        assert_eq!(refusal(encrypt.send().await).short(), (400, code), "{who}");
        let generate = kms.generate_data_key().key_id(KEY).key_spec(DataKeySpec::Aes256);
        assert_eq!(refusal(generate.dry_run(true).send().await).short(), (400, code), "{who}");
        let decrypt = kms
            .decrypt()
            .key_id(KEY)
            .dry_run(true)
            .dry_run_modifiers(DryRunModifierType::IgnoreCiphertext);
        assert_eq!(refusal(decrypt.send().await).short(), (400, code), "{who}");
    }
    let kms = kms(&lab, "deploy");
    // Without the modifier, or without a key, a ciphertext is needed.
    let neither = kms.decrypt().key_id(KEY).dry_run(true);
    assert_eq!(refusal(neither.send().await).short(), (400, "ValidationException"));
    let no_key =
        kms.decrypt().dry_run(true).dry_run_modifiers(DryRunModifierType::IgnoreCiphertext);
    assert_eq!(refusal(no_key.send().await).short(), (400, "ValidationException"));
    // With a ciphertext, it stays a dry run.
    let sealed = kms.encrypt().key_id(KEY).plaintext(Blob::new("x")).send().await.unwrap();
    let decrypt = kms.decrypt().set_ciphertext_blob(sealed.ciphertext_blob).dry_run(true);
    assert_eq!(refusal(decrypt.send().await).short(), (400, "DryRunOperationException"));
    // A key that cannot be used is told before.
    lab.world().key_mut(KEY).state = "Disabled".into();
    let encrypt = kms.encrypt().key_id(KEY).plaintext(Blob::new("x")).dry_run(true);
    assert_eq!(refusal(encrypt.send().await).short(), (400, "DisabledException"));
}

#[tokio::test]
async fn a_denial_names_one_side() {
    let lab = lab().await;
    for (who, side) in [("no-iam", "identity-based"), ("no-key-policy", "resource-based")] {
        let call = kms(&lab, who).encrypt().key_id(KEY).plaintext(Blob::new("x"));
        let refused = refusal(call.send().await);
        assert_eq!(refused.short(), (400, "AccessDeniedException"));
        let tail = format!(
            "user/{who} is not authorized to perform: kms:Encrypt on resource: {KEY} because no {side} policy allows the kms:Encrypt action"
        );
        assert!(refused.message.ends_with(&tail), "{}", refused.message);
    }
    lab.world().terse = true;
    let refused = refusal(kms(&lab, "no-iam").describe_key().key_id(KEY).send().await);
    assert_eq!(refused.message, "Access Denied");
}

#[tokio::test]
async fn a_condition_on_s3_refuses_direct_calls() {
    let lab = lab_with(Topology::Roles, |world| world.require_via_service(KEY)).await;
    let encrypt = kms(&lab, "deploy").encrypt().key_id(KEY).plaintext(Blob::new("x"));
    assert_eq!(refusal(encrypt.send().await).short(), (400, "AccessDeniedException"));
    assert_eq!(
        common::body(&common::s3(&lab, "deploy"), common::STATE).await,
        common::BODY.as_bytes()
    );
}

#[tokio::test]
async fn describe_works_in_every_state_and_resolves_aliases() {
    let lab = lab().await;
    let kms = kms(&lab, "deploy");
    for state in ["Enabled", "Disabled", "PendingDeletion", "PendingImport"] {
        {
            let mut world = lab.world();
            let key = world.key_mut(KEY);
            key.state = state.into();
            key.deletion = (state == "PendingDeletion").then_some(1_800_000_000);
        }
        let output = kms.describe_key().key_id(ALIAS).send().await.unwrap();
        let metadata = output.key_metadata.unwrap();
        assert_eq!(metadata.arn(), Some(KEY));
        assert_eq!(metadata.key_state(), Some(&KeyState::from(state)));
        assert_eq!(metadata.deletion_date().is_some(), state == "PendingDeletion");
        assert_eq!(metadata.key_manager(), Some(&KeyManagerType::Customer));
        let encrypt = kms.encrypt().key_id(KEY).plaintext(Blob::new("x")).send().await;
        assert_eq!(encrypt.is_ok(), state == "Enabled", "{state}");
    }
    // A name is the caller's account's, and a key its region's.
    let named = kms.describe_key().key_id("alias/cabal-tf-state-production");
    assert_eq!(refusal(named.send().await).short(), (400, "NotFoundException"));
    let elsewhere = kms_in(&lab, "deploy", "eu-west-1").describe_key().key_id(KEY);
    assert_eq!(refusal(elsewhere.send().await).short(), (400, "NotFoundException"));
}

#[tokio::test]
async fn ciphertexts_are_bound_to_key_and_context() {
    let other;
    let lab = {
        let mut arn = String::new();
        let lab = lab_with(Topology::Roles, |world| arn = world.add_key_like(KEY)).await;
        other = arn;
        lab
    };
    let kms = kms(&lab, "deploy");
    let sealed = kms
        .encrypt()
        .key_id(KEY)
        .plaintext(Blob::new("secret"))
        .encryption_context("for", "x")
        .send()
        .await
        .unwrap();
    let open = || kms.decrypt().set_ciphertext_blob(sealed.ciphertext_blob.clone());
    let opened = open().encryption_context("for", "x").send().await.unwrap();
    assert_eq!(opened.plaintext.unwrap().as_ref(), b"secret");
    let wrong = refusal(open().encryption_context("for", "y").send().await);
    assert_eq!(wrong.short(), (400, "InvalidCiphertextException"));
    let wrong = refusal(open().encryption_context("for", "x").key_id(&other).send().await);
    assert_eq!(wrong.short(), (400, "IncorrectKeyException"));

    let again = || {
        kms.re_encrypt()
            .set_ciphertext_blob(sealed.ciphertext_blob.clone())
            .source_encryption_context("for", "x")
            .destination_key_id(&other)
    };
    // The runbook's four actions have no ReEncrypt.
    assert_eq!(refusal(again().send().await).short(), (400, "AccessDeniedException"));
    for key in [KEY, &other] {
        lab.world().change_use_statement(key, |statement| {
            let mut actions = ACTIONS.to_vec();
            actions.push("kms:ReEncrypt*");
            statement["Action"] = json!(actions);
        });
    }
    let dry = refusal(again().dry_run(true).send().await);
    assert_eq!(dry.short(), (400, "DryRunOperationException"));
    let moved = again().send().await.unwrap();
    let opened = kms.decrypt().set_ciphertext_blob(moved.ciphertext_blob).send().await.unwrap();
    assert_eq!(opened.key_id(), Some(&*other));
}
