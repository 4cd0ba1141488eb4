//! Workspaces: their states are re-keyed where they lie, and their prefix, which Terraform adds
//! itself, never becomes a backend's `key`.

use aws_lab::{Encryption, Topology};

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, state};

const STACK: &str = "stacks/infra.tfstate";
const BLUE: &str = "env:/blue/stacks/infra.tfstate";
const GREEN: &str = "env:/green/stacks/infra.tfstate";
const LOCK: &str = "env:/green/stacks/infra.tfstate.tflock";
const OTHER: &str = "env:/blue/stacks/other.tfstate";

/// One stack in three workspaces, `default` among them, beside the presets' states.
async fn bench() -> Bench {
    Bench::with(Topology::Roles, |world| {
        for (at, key) in [STACK, BLUE, GREEN, LOCK, OTHER].into_iter().enumerate() {
            world.put_object(BUCKET, key, state(at as u64), Encryption::SseS3);
        }
    })
    .await
}

fn under(bench: &Bench, key: &str) -> bool {
    bench.encryption(key) == Encryption::Kms { key: bench.key.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspaces_prefix_is_not_written_as_the_key() {
    for (line, workspace, object) in [
        ("infra=env:/{workspace}/stacks/infra.tfstate", "blue", BLUE),
        ("env:/{workspace}/stacks/{module}.tfstate", "blue", BLUE),
        ("env:/{workspace}/stacks/{module}.tfstate", "default", STACK),
        ("infra=env:/green/stacks/infra.tfstate", "", GREEN),
        ("env:/green/stacks/infra.tfstate", "green", GREEN),
    ] {
        let bench = bench().await;
        let more =
            [("INPUT_MODULES", "infra"), ("INPUT_STATE-KEYS", line), ("TF_WORKSPACE", workspace)];
        let ran = bench.run("apply", &more).await.green();
        let file = bench.workspace.backend("infra");
        assert!(file.contains("= \"stacks/infra.tfstate\"\n") && !file.contains("env:"), "{file}");
        assert_eq!((ran.output("rekeyed"), ran.output("verified")), ("1", "true"), "{}", ran.log);
        for key in [STACK, BLUE, GREEN] {
            assert_eq!(under(&bench, key), key == object, "{line}: {key}");
        }
        let again = bench.run("apply", &more).await.green();
        assert_eq!(again.output("changed"), "false", "{}", again.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_backend_key_can_mean_is_refused() {
    let bench = bench().await;
    let digest = bench.digest();
    for (line, workspace, says) in [
        ("infra=stacks/{workspace}.tfstate", "blue", "PREFIX/WORKSPACE/KEY"),
        ("infra=env:/{workspace}", "blue", "PREFIX/WORKSPACE/KEY"),
        ("infra=env:/default/stacks/infra.tfstate", "", "write `stacks/infra.tfstate`"),
        ("infra=env:/blue", "", "env:/WORKSPACE/KEY"),
        ("infra=env:/{workspace}/x", "", "TF_WORKSPACE"),
        ("infra=x\nenv:/{workspace}/*", "default", "names no prefix"),
    ] {
        let more =
            [("INPUT_MODULES", "infra"), ("INPUT_STATE-KEYS", line), ("TF_WORKSPACE", workspace)];
        for mode in ["backend", "plan", "apply"] {
            let ran = bench.run(mode, &more).await.red("invalid-input");
            assert!(ran.log.contains("`state-keys`") && ran.log.contains(says), "{}", ran.log);
            assert_eq!(bench.workspace.backend("infra"), "");
        }
    }
    bench.assert_untouched(&digest);
}

/// Another prefix than Terraform's own is written, and a block without it is another state's.
#[tokio::test(flavor = "multi_thread")]
async fn another_prefix_is_written_and_compared() {
    let key = "teams/blue/infra.tfstate";
    let bench = Bench::with(Topology::Roles, |world| {
        world.put_object(BUCKET, key, state(1), Encryption::SseS3);
    })
    .await;
    let more = [
        ("INPUT_MODULES", "infra"),
        ("INPUT_STATE-KEYS", "teams/{workspace}/{module}.tfstate"),
        ("TF_WORKSPACE", "blue"),
    ];
    let _ = bench.run("apply", &more).await.green();
    assert!(under(&bench, key));
    let file = bench.workspace.backend("infra");
    assert!(file.contains("    key                  = \"infra.tfstate\"\n"), "{file}");
    assert!(file.contains("    workspace_key_prefix = \"teams\"\n"), "{file}");
    let other = format!("# by hand\n{}", file.replace("\"teams\"", "\"crews\""));
    std::fs::write(bench.workspace.module("infra").join("backend.tf"), &other).unwrap();
    let ran = bench.run("apply", &more).await.red("backend-differs");
    assert!(ran.log.contains("crews") && ran.log.contains("teams"), "{}", ran.log);
    assert_eq!(bench.workspace.backend("infra"), other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_re_keyed_in_all_its_workspaces() {
    for (line, module) in
        [("env:/*/stacks/infra.tfstate", "infra"), ("env:/*/stacks/{module}.tfstate", "infra")]
    {
        let bench = bench().await;
        let more = [("INPUT_MODULES", module), ("INPUT_STATE-KEYS", line)];
        let ran = bench.run("apply", &more).await.green();
        assert_eq!((ran.output("rekeyed"), ran.output("verified")), ("3", "true"), "{}", ran.log);
        for (key, is) in [(STACK, true), (BLUE, true), (GREEN, true), (LOCK, false), (OTHER, false)]
        {
            assert_eq!(under(&bench, key), is, "{key}");
        }
        let rows = ran.report["objects"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["module"] == "infra"), "{rows:?}");
        let file = bench.workspace.backend("infra");
        assert!(file.contains("= \"stacks/infra.tfstate\"\n"), "{file}");
        // The workspace `default` need not have a state.
        bench.lab.world().remove_object(BUCKET, STACK);
        let ran = bench.run("verify", &more).await.green();
        assert_eq!(ran.report["objects"].as_array().unwrap().len(), 2);
        assert_eq!(ran.output("verified"), "true", "{}", ran.log);
    }
    let bench = bench().await;
    let more = [("INPUT_MODULES", "infra"), ("INPUT_STATE-KEYS", "env:/*/nothing.tfstate")];
    let ran = bench.run("apply", &more).await.red("state-missing");
    assert!(ran.log.contains("`nothing.tfstate` does not exist"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_bucket_is_one_word() {
    let bench = bench().await;
    let more = [("INPUT_STATE-KEYS", "infra={environment}\ndns={environment}-bootstrap\n*")];
    let ran = bench.run("apply", &more).await.green();
    assert_eq!((ran.output("rekeyed"), ran.output("verified")), ("6", "true"), "{}", ran.log);
    for (key, is) in [(KEYS[0], true), (OTHER, true), (STACK, true), (LOCK, false)] {
        assert_eq!(under(&bench, key), is, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_no_line_names_is_warned_of() {
    let bench = bench().await;
    let ran = bench.run("apply", &[("TF_WORKSPACE", "blue")]).await.green();
    assert!(ran.log.contains("Terraform keeps the states at env:/blue/KEY"), "{}", ran.log);
    let ran = bench.run("apply", &[("TF_WORKSPACE", "default")]).await.green();
    assert!(!ran.log.contains("TF_WORKSPACE"), "{}", ran.log);
}
