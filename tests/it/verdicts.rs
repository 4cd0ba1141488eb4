//! One verdict, the same in headline, annotation, check run, exit code and output.

use aws_lab::Topology;

use crate::bench::{Bench, put_all_under_the_key};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_re_key_leaves_behind_is_said() {
    let bench = Bench::with(Topology::Roles, |_| {}).await;
    // May list versions.
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.green();
    assert_eq!((ran.output("verdict"), ran.output("exposed-versions")), ("partly", "2"));
    assert!(ran.summary.contains("### ⚠️ partly protected: 2 states"), "{}", ran.summary);
    assert!(
        ran.log.contains("::warning") && ran.log.contains("partly protected: 2 of 2 noncurrent")
    );
    let ran = bench.run_as("admin", "verify", &bench.key, &[]).await.green();
    assert_eq!((ran.output("verdict"), ran.output("exposed-versions")), ("partly", "2"));
    for mode in ["verify", "apply"] {
        let require = [("INPUT_HISTORY", "require")];
        let ran = bench.run_as("admin", mode, &bench.key, &require).await;
        let ran = ran.red("versions-exposed");
        assert_eq!(ran.output("verdict"), "failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_that_may_not_look_is_told_so_in_both_runs() {
    let bench = Bench::new().await;
    for mode in ["apply", "verify"] {
        let ran = bench.run(mode, &[]).await.green();
        assert_eq!((ran.output("verdict"), ran.output("exposed-versions")), ("partly", ""));
        assert_eq!(ran.output("verified"), "true");
        assert!(!ran.summary.contains("none of 0"), "{}", ran.summary);
        assert!(ran.log.contains("s3:ListBucketVersions"), "{mode}: {}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_was_looked_for_is_protected() {
    let bench = Bench::with(Topology::Roles, |world| put_all_under_the_key(world, 9)).await;
    for key in crate::common::KEYS {
        let mut world = bench.lab.world();
        let versions = world.bucket_mut(crate::common::BUCKET).objects.get_mut(key).unwrap();
        let newest = versions.len() - 1;
        versions.drain(..newest);
    }
    let _ = bench.run_as("admin", "backend", &bench.key, &[]).await.green();
    let ran = bench.run_as("admin", "verify", &bench.key, &[("INPUT_PROBE", "off")]).await.green();
    assert_eq!((ran.output("verdict"), ran.output("exposed-versions")), ("protected", "0"));
    assert!(ran.summary.contains("### ✅ protected: 2 states"), "{}", ran.summary);
    // The way back is no success to be proud of.
    let ran = bench.run_unset("rollback", &[]).await.green();
    assert_eq!(ran.output("verdict"), "unprotected");
    assert!(ran.summary.contains("### ⚠️ unprotected on purpose"), "{}", ran.summary);
    assert!(!ran.summary.contains("✅ verified"), "{}", ran.summary);
    assert!(ran.log.contains("::warning") && ran.log.contains("unprotected on purpose"));
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_that_judge_no_state_give_none() {
    let bench = Bench::new().await;
    for mode in ["backend", "plan"] {
        let ran = bench.run(mode, &[]).await.green();
        assert_eq!(ran.output("verdict"), "", "{mode}");
    }
    let ran = bench.run_unset("apply", &[]).await.green();
    assert_eq!(ran.output("verdict"), "");
    // No check has failed beside a green.
    for ran in
        [bench.run("plan", &[]).await, bench.run_as("reader", "verify", &bench.key, &[]).await]
    {
        let failed = ran.report["checks"].as_array().unwrap().iter().any(|c| c["status"] == "fail");
        assert!(!failed || ran.code == 1, "{}", ran.log);
    }
}
