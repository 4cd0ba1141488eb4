//! The main job: from SSE-S3 to SSE-KMS and back.

use aws_lab::{Encryption, Topology};

use crate::bench::Bench;
use crate::common::{BUCKET, CANARY, KEYS, state};

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_in_every_topology() {
    for topology in [Topology::Roles, Topology::Users, Topology::SameAccount] {
        let bench = Bench::with(topology, |_| {}).await;
        let kms = Encryption::Kms { key: bench.key.clone() };

        let plan = bench.run("plan", &[]).await.green();
        assert_eq!(plan.output("changed"), "false");
        assert_eq!(bench.writes(), Vec::<String>::new());

        let apply = bench.run("apply", &[]).await.green();
        assert_eq!(apply.output("rekeyed"), "2");
        assert_eq!(apply.output("encryption"), "aws:kms");
        assert_eq!(apply.output("verified"), "true");
        assert_eq!(apply.output("kms-key-arn"), bench.key);
        assert_eq!(apply.output("gate"), "holds", "{topology:?}: {}", apply.log);
        assert_eq!(
            apply.output("backend-files"),
            "terraform/infra/backend.tf\nterraform/dns/backend.tf"
        );
        for (at, key) in KEYS.iter().enumerate() {
            assert_eq!(bench.encryption(key), kms, "{topology:?}");
            assert_eq!(bench.body(key), state(7 + at as u64));
        }
        let verify = bench.run("verify", &[]).await.green();
        assert_eq!(verify.output("verified"), "true");
        assert_eq!(verify.output("gate"), "holds");
        for id in
            ["gate", "key-usable", "same-region", "same-account", "object-key", "object-readable"]
        {
            assert_eq!(verify.check(id), "pass", "{topology:?} {id}: {}", verify.log);
        }

        let back = bench.run_unset("rollback", &[]).await.green();
        assert_eq!(back.output("encryption"), "AES256");
        for (at, key) in KEYS.iter().enumerate() {
            assert_eq!(bench.encryption(key), Encryption::SseS3);
            assert_eq!(bench.body(key), state(7 + at as u64));
        }
        let verify = bench.run_unset("verify", &[]).await.green();
        assert_eq!(verify.output("verified"), "true");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_apply_makes_no_write_call() {
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    let digest = bench.digest();
    let written = std::fs::metadata(bench.workspace.module("infra").join("backend.tf")).unwrap();
    bench.lab.clear_log();
    let again = bench.run("apply", &[]).await.green();
    assert_eq!(again.output("changed"), "false");
    assert_eq!(again.output("rekeyed"), "0");
    assert_eq!(again.output("verified"), "true");
    assert_eq!(bench.writes(), Vec::<String>::new());
    bench.assert_untouched(&digest);
    let after = std::fs::metadata(bench.workspace.module("infra").join("backend.tf")).unwrap();
    assert_eq!(written.modified().unwrap(), after.modified().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn dormant_apply_is_quiet() {
    let bench = Bench::new().await;
    let digest = bench.digest();
    let ran = bench.run_unset("apply", &[]).await.green();
    assert_eq!(bench.writes(), Vec::<String>::new());
    bench.assert_untouched(&digest);
    assert!(!ran.log.contains("::warning") && !ran.log.contains("::notice"), "{}", ran.log);
    assert_eq!(ran.output("encryption"), "AES256");
    assert!(bench.workspace.backend("infra").contains("region = \"us-east-1\""));
    assert!(!bench.workspace.backend("infra").contains("encrypt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_key_re_keys_from_the_old_one() {
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    let new = bench.lab.world().add_key_like(&bench.key);
    let ran = bench.run_as("deploy", "apply", &new, &[]).await.green();
    assert_eq!(ran.output("rekeyed"), "2");
    assert_eq!(bench.encryption(KEYS[0]), Encryption::Kms { key: new });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_re_keyed_without_its_lock_objects() {
    let bench = Bench::with(Topology::Roles, |world| {
        for name in ["env:/blue/production", "env:/green/production"] {
            world.put_object(BUCKET, name, state(1), Encryption::SseS3);
        }
        let lock = "env:/blue/production.tflock";
        world.put_object(BUCKET, lock, b"{}".to_vec(), Encryption::SseS3);
    })
    .await;
    let templates = "infra={environment}\ndns={environment}-bootstrap\nenv:/*";
    let ran = bench.run("apply", &[("INPUT_STATE-KEYS", templates)]).await.green();
    assert_eq!(ran.output("rekeyed"), "4");
    assert_eq!(bench.encryption("env:/blue/production.tflock"), Encryption::SseS3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_state_is_ever_shown() {
    let bench = Bench::new().await;
    for mode in ["plan", "apply", "verify"] {
        let ran = bench
            .run(mode, &[("RUST_LOG", "trace"), ("RUNNER_DEBUG", "1"), ("RUST_BACKTRACE", "full")])
            .await
            .green();
        let all = ran.everything();
        assert!(!all.contains(CANARY), "{mode}");
        let environment = bench.lab.env("deploy");
        for name in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            if let Some((_, secret)) = environment.iter().find(|(n, _)| n == name) {
                assert!(!all.contains(secret.as_str()), "{mode}: {name}");
            }
        }
    }
}
