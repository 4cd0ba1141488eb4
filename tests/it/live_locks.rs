//! Locks of others: taken where the block declares them, looked at and named where it does not.

use aws_lab::Encryption;

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS};

const TERRAFORMS: &str = r#"{"ID":"f1af2b35-e439-0781-ec9c-3b7f94b459d1","Operation":"OperationTypeApply","Info":"","Who":"root@vm","Version":"1.11.4","Created":"2026-11-24T03:35:02.093082354Z","Path":"cabal-tf-backend/production"}"#;

fn lock(bench: &Bench, key: &str) {
    let object = format!("{key}.tflock");
    bench.lab.world().put_object(BUCKET, &object, TERRAFORMS, Encryption::SseS3);
}

fn block(more: &str) -> String {
    format!(
        "terraform {{\n  backend \"s3\" {{\n    bucket = \"{BUCKET}\"\n    key = \"production\"\n    \
         region = \"us-east-1\"\n    {more}\n  }}\n}}\n"
    )
}

fn write(bench: &Bench, name: &str, text: &str) {
    std::fs::write(bench.workspace.module("infra").join(name), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_lock_that_is_not_taken_is_warned_of() {
    for more in [&[][..], &[("INPUT_LOCK", "none")]] {
        let bench = Bench::new().await;
        lock(&bench, KEYS[0]);
        if more.is_empty() {
            // Where the block is not seen, it may declare a lock.
            std::fs::remove_dir_all(bench.workspace.module("infra")).unwrap();
        }
        let ran = bench.run("apply", more).await.green();
        assert_eq!(ran.output("rekeyed"), "2");
        for part in ["::warning", "held by root@vm, for OperationTypeApply", "does not take it"] {
            assert!(ran.log.contains(part), "{part}: {}", ran.log);
        }
        // What is not written needs no lock.
        let ran = bench.run("apply", more).await.green();
        assert!(!ran.log.contains("root@vm"), "{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_that_a_block_declares_is_taken() {
    let bench = Bench::new().await;
    write(&bench, "main.tf", &block("use_lockfile = true # ours"));
    lock(&bench, KEYS[0]);
    let ran = bench.run("apply", &[("INPUT_LOCK-TIMEOUT", "0")]).await.red("state-locked");
    assert!(ran.log.contains("root@vm"), "{}", ran.log);
    assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
    assert!(!bench.workspace.backend("dns").contains("kms_key_id"), "files wait for the lock, too");
    bench.lab.world().delete_object(BUCKET, "production.tflock");
    bench.before_nth("CopyObject", KEYS[0], 1, |world| {
        assert!(world.current(BUCKET, "production.tflock").is_some());
        assert!(world.current(BUCKET, "production-bootstrap.tflock").is_none());
    });
    let ran = bench.run("apply", &[]).await.green();
    assert!(ran.log.contains("1 lock taken"), "{}", ran.log);
    assert!(bench.lab.world().current(BUCKET, "production.tflock").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_a_state_that_is_not_there_yet_counts() {
    let bench = Bench::new().await;
    bench.lab.world().remove_object(BUCKET, KEYS[0]);
    lock(&bench, KEYS[0]);
    let digest = bench.digest();
    let ran = bench.run("apply", &[("INPUT_LOCK", "s3")]).await.red("state-locked");
    assert!(ran.log.contains("root@vm"), "{}", ran.log);
    bench.assert_untouched(&digest);
    assert_eq!(bench.workspace.backend("infra"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_in_dynamodb_is_looked_at() {
    let bench = Bench::new().await;
    write(&bench, "main.tf", &block("dynamodb_table = \"locks\""));
    // Without the right it is unknown, and that is said.
    let ran = bench.run("apply", &[]).await.green();
    for part in ["::warning", "table locks", "dynamodb:GetItem"] {
        assert!(ran.log.contains(part), "{part}: {}", ran.log);
    }
    let bench = Bench::new().await;
    write(&bench, "main.tf", &block("dynamodb_table = \"locks\""));
    bench.lab.world().lock_tables.entry("locks".into()).or_default();
    let free = Bench { workspace: bench.workspace, ..bench };
    let ran = free.run_as("admin", "plan", &free.key, &[]).await.green();
    assert!(!ran.log.contains("table locks"), "{}", ran.log);
    let id = format!("{BUCKET}/{}", KEYS[0]);
    let held = |bench: &Bench| {
        let mut world = bench.lab.world();
        world.lock_tables.entry("locks".into()).or_default().insert(id.clone(), TERRAFORMS.into());
    };
    held(&free);
    let ran = free.run_as("admin", "apply", &free.key, &[]).await.green();
    for part in ["is locked in the DynamoDB table locks", "held by root@vm"] {
        assert!(ran.log.contains(part), "{part}: {}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_terraform_does_not_know_is_warned_of() {
    let bench = Bench::new().await;
    write(&bench, "versions.tf", "terraform {\n  required_version = \"~> 1.9.0\"\n}\n");
    let ran = bench.run("backend", &[("INPUT_LOCK", "s3")]).await.green();
    assert!(ran.log.contains("::warning") && ran.log.contains("~> 1.9.0"), "{}", ran.log);
    write(&bench, "versions.tf", "terraform {\n  required_version = \">= 1.9\"\n}\n");
    let ran = bench.run("backend", &[("INPUT_LOCK", "s3")]).await.green();
    assert!(!ran.log.contains("::warning"), "{}", ran.log);
}
