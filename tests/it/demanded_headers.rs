//! Bucket policies that refuse a write which names no encryption: Terraform's own next write is
//! judged before a file is touched.

use aws_lab::{Topology, World};
use serde_json::json;

use crate::bench::{Bench, put_all_under_the_key};
use crate::common::BUCKET;

fn demands(world: &mut World, condition: serde_json::Value) {
    let policy = world.bucket_mut(BUCKET).policy.get_or_insert(json!({ "Statement": [] }));
    policy["Statement"].as_array_mut().unwrap().push(json!({
        "Sid": "Demand",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": format!("arn:aws:s3:::{BUCKET}/*"),
        "Condition": condition,
    }));
}

fn a_header(world: &mut World) {
    demands(world, json!({ "Null": { "s3:x-amz-server-side-encryption": "true" } }));
}

fn a_key(world: &mut World) {
    demands(world, json!({ "StringNotEquals": { "s3:x-amz-server-side-encryption": "aws:kms" } }));
}

const NAMED: &str = "    encrypt = true\n  }\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_quiet_path_names_sse_s3_where_that_is_demanded() {
    let bench = Bench::with(Topology::SameAccount, a_header).await;
    let ran = bench.run_unset("apply", &[]).await.green();
    for module in ["infra", "dns"] {
        assert!(bench.workspace.backend(module).contains(NAMED), "{}", ran.log);
    }
    assert!(ran.log.contains("::warning") && ran.log.contains("`encrypt: true`"), "{}", ran.log);
    let ran = bench.run_unset("apply", &[]).await.green();
    assert_eq!(ran.output("changed"), "false");
    let _ = bench.run_unset("verify", &[]).await.green();
    // A block that does not name it cannot be applied, and `verify` says so.
    let _ = bench.run_unset("backend", &[("INPUT_ON-EXISTING", "overwrite")]).await.green();
    let file = bench.workspace.module("infra").join("backend.tf");
    std::fs::write(&file, bench.workspace.backend("infra").replace(NAMED, "  }\n")).unwrap();
    let ran = bench.run_unset("verify", &[]).await.red("bucket-policy-denies");
    assert!(ran.log.contains("`encrypt: true`"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_names_sse_s3_where_that_is_demanded() {
    let bench = Bench::with(Topology::SameAccount, |world| {
        put_all_under_the_key(world, 9);
        a_header(world);
    })
    .await;
    let ran = bench.run_unset("rollback", &[]).await.green();
    assert_eq!(ran.output("encryption"), "AES256");
    assert!(bench.workspace.backend("infra").contains(NAMED), "{}", ran.log);
    assert!(ran.log.contains("`encrypt: true`"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_demands_a_key_is_told_before_a_file_is_touched() {
    let bench = Bench::with(Topology::SameAccount, a_key).await;
    let digest = bench.digest();
    for mode in ["apply", "plan", "rollback"] {
        let ran = bench.run_unset(mode, &[]).await.red("bucket-policy-denies");
        assert!(ran.log.contains("Demand"), "{mode}: {}", ran.log);
        assert_eq!(bench.workspace.backend("infra"), "", "{mode}");
    }
    bench.assert_untouched(&digest);
    // With the key it is met.
    let _ = bench.run("apply", &[]).await.green();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_writes_it_without_a_look() {
    let bench = Bench::with(Topology::SameAccount, a_header).await;
    let input = [("INPUT_ENCRYPT", "true")];
    bench.lab.clear_log();
    let _ = bench.run_unset("backend", &input).await.green();
    assert!(bench.lab.log().is_empty());
    assert!(bench.workspace.backend("infra").contains(NAMED));
    for mode in ["plan", "apply", "verify"] {
        let ran = bench.run_unset(mode, &input).await.green();
        assert!(!ran.log.contains("names no encryption"), "{mode}: {}", ran.log);
    }
}

/// The request that the quiet path may grow by is sent only where a file would change.
#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_read_only_where_a_file_would_change() {
    let bench = Bench::with(Topology::SameAccount, |_| {}).await;
    let asked = |bench: &Bench| {
        bench.lab.log().iter().filter(|entry| entry.operation == "GetBucketConfiguration").count()
    };
    let _ = bench.run_unset("apply", &[]).await.green();
    assert_eq!(asked(&bench), 1);
    let _ = bench.run_unset("apply", &[]).await.green();
    assert_eq!(asked(&bench), 1, "nothing changes");
}
