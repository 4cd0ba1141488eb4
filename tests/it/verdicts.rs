//! The verdict: one word for what a run has shown, the same wherever it is said.

use aws_lab::{Encryption, Topology, World};
use serde_json::json;

use crate::bench::{Bench, put_all_under_the_key};
use crate::common::{BUCKET, KEYS, Ran, state};

/// Asserts the output, the headline, the annotation and the check run.
fn says(bench: &Bench, ran: &Ran, verdict: &str) {
    assert_eq!(ran.output("verdict"), verdict, "{}", ran.log);
    assert_eq!(ran.report["verdict"], verdict);
    let headline = ran.summary.lines().find(|line| line.starts_with("### ")).unwrap();
    assert!(headline.contains(verdict), "{headline}");
    let (sign, conclusion, code) = match verdict {
        "protected" => ("✅", "success", 0),
        "partly" => ("⚠️", "neutral", 0),
        "failed" => ("❌", "failure", 1),
        _ => ("⚠️", "neutral", 0),
    };
    assert!(headline.contains(sign), "{headline}");
    assert_eq!(ran.code, code);
    let warned = |line: &str| line.starts_with("::warning ") && line.contains(verdict);
    let warned = ran.log.lines().any(warned);
    let purpose = verdict == "unprotected on purpose";
    assert_eq!(warned, verdict == "partly" || purpose, "{}", ran.log);
    let world = bench.lab.world();
    let check = world.github.check_runs.last().unwrap();
    assert_eq!(check["conclusion"], conclusion);
    assert!(check["output"]["title"].as_str().unwrap().contains(verdict), "{check}");
    assert!(verdict == "protected" || !headline.contains("verified:"), "{headline}");
}

async fn run(bench: &Bench, who: &str, mode: &str, key: &str, more: &[(&str, &str)]) -> Ran {
    let mut variables = bench.job_variables(who, mode, key, more);
    variables.push(("INPUT_CHECK-RUN".into(), "true".into()));
    tokio::task::block_in_place(|| bench.workspace.run(&variables))
}

/// What README.md grants for `history`.
fn grant_versions(world: &mut World) {
    let who = world.principal_mut("deploy").identity.arn.clone();
    let bucket = format!("arn:aws:s3:::{BUCKET}");
    let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
    policy["Statement"].as_array_mut().unwrap().push(json!({
        "Effect": "Allow", "Principal": { "AWS": who },
        "Action": ["s3:ListBucketVersions", "s3:GetObjectVersion"],
        "Resource": [bucket, format!("{bucket}/*")],
    }));
}

/// States that were under the key from their first version on.
fn from_the_beginning(world: &mut World) {
    for key in KEYS {
        world.remove_object(BUCKET, key);
    }
    put_all_under_the_key(world, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_role_with_all_grants_reaches_protected() {
    let bench = Bench::with(Topology::Roles, |world| {
        grant_versions(world);
        from_the_beginning(world);
    })
    .await;
    for mode in ["apply", "verify"] {
        let ran = run(&bench, "deploy", mode, &bench.key, &[]).await.green();
        says(&bench, &ran, "protected");
        assert_eq!((ran.output("verified"), ran.output("exposed-versions")), ("true", "0"));
        // It may not read the rules: S3's header on the states shows that there is no copy.
        assert_eq!(ran.check("replication"), "pass");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_stay_readable_make_partly_and_the_same_count_in_apply_and_verify() {
    let bench = Bench::with(Topology::Roles, grant_versions).await;
    for mode in ["apply", "verify"] {
        let ran = run(&bench, "deploy", mode, &bench.key, &[]).await.green();
        says(&bench, &ran, "partly");
        assert_eq!(ran.output("exposed-versions"), "2", "{mode}");
        let headline = "2 of 2 noncurrent versions are readable without the key";
        assert!(ran.summary.contains(headline) && ran.log.contains(headline), "{}", ran.summary);
    }
    for mode in ["apply", "verify"] {
        let required = [("INPUT_HISTORY", "require")];
        let ran = run(&bench, "deploy", mode, &bench.key, &required).await;
        says(&bench, &ran.red("versions-exposed"), "failed");
    }
    let ran = bench.run("plan", &[("INPUT_HISTORY", "require")]).await.green();
    assert_eq!(ran.output("verdict"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_may_not_be_listed_are_unknown() {
    let bench = Bench::new().await;
    let none = Bench::with(Topology::Roles, from_the_beginning).await;
    for bench in [&bench, &none] {
        for mode in ["apply", "verify"] {
            let ran = run(bench, "deploy", mode, &bench.key, &[]).await.green();
            says(bench, &ran, "partly");
            // The copies that this run has seen itself are no complete count.
            assert_eq!(ran.output("exposed-versions"), "", "{mode}");
            assert!(!ran.summary.contains("none of 0"), "{}", ran.summary);
            assert!(ran.summary.contains("needs s3:ListBucketVersions"), "{}", ran.summary);
        }
        let required = [("INPUT_HISTORY", "require")];
        let ran = run(bench, "deploy", "verify", &bench.key, &required).await;
        says(bench, &ran.red("versions-exposed"), "failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_unprotected_on_purpose_and_never_verified() {
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    let ran = run(&bench, "deploy", "rollback", "", &[]).await.green();
    says(&bench, &ran, "unprotected on purpose");
    let ran = run(&bench, "deploy", "apply", "", &[]).await.green();
    assert_eq!((ran.output("verdict"), &ran.report["verdict"]), ("", &json!(null)));
    assert!(!ran.summary.contains("verified:"), "{}", ran.summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_judge_states_has_no_verdict() {
    let bench = Bench::new().await;
    for mode in ["backend", "plan"] {
        let ran = bench.run(mode, &[]).await.green();
        assert_eq!((ran.output("verdict"), &ran.report["verdict"]), ("", &json!(null)), "{mode}");
    }
    let ran = bench.run_as("admin", "create-key", "", &[]).await;
    assert_eq!(ran.output("verdict"), "", "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_could_not_be_tried_makes_partly() {
    let bench = Bench::with(Topology::Roles, |world| {
        grant_versions(world);
        from_the_beginning(world);
    })
    .await;
    let mut variables = bench.job_variables("deploy", "verify", &bench.key, &[]);
    variables.retain(|(name, _)| !name.starts_with("ACTIONS_ID_TOKEN"));
    variables.push(("INPUT_CHECK-RUN".into(), "true".into()));
    let ran = tokio::task::block_in_place(|| bench.workspace.run(&variables)).green();
    assert_eq!(ran.check("gate"), "unknown");
    says(&bench, &ran, "partly");
}

/// A rule that leaves objects under KMS keys out keeps the copies of before; so does one that
/// this principal may not read.
#[tokio::test(flavor = "multi_thread")]
async fn copies_elsewhere_make_partly() {
    let bench = Bench::with(Topology::Roles, |world| {
        grant_versions(world);
        from_the_beginning(world);
        world.bucket_mut(BUCKET).replication = Some((String::new(), true));
    })
    .await;
    let ran = run(&bench, "deploy", "verify", &bench.key, &[]).await.green();
    assert_eq!(ran.check("replication"), "unknown");
    assert!(ran.summary.contains("there are copies elsewhere"), "{}", ran.summary);
    says(&bench, &ran, "partly");
    bench.lab.world().bucket_mut(BUCKET).replication = Some((String::new(), false));
    let ran = run(&bench, "admin", "verify", &bench.key, &[]).await.green();
    assert_eq!(ran.check("replication"), "warn");
    says(&bench, &ran, "partly");
}

/// A copy of a noncurrent version is one, too, where the current state has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_noncurrent_version_is_seen() {
    let bench = Bench::with(Topology::Roles, |world| {
        grant_versions(world);
        put_all_under_the_key(world, 12);
        // Takes no objects under KMS keys: the header is on the older versions alone.
        world.bucket_mut(BUCKET).replication = Some((String::new(), false));
    })
    .await;
    let ran = run(&bench, "deploy", "verify", &bench.key, &[]).await.green();
    assert_eq!(ran.check("replication"), "unknown", "{}", ran.summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_versioning_says_so() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).versioned = false;
        from_the_beginning(world);
    })
    .await;
    let ran = run(&bench, "admin", "verify", &bench.key, &[]).await.green();
    says(&bench, &ran, "protected");
    assert!(
        ran.summary.contains("there are no noncurrent versions: versioning is off"),
        "{}",
        ran.summary
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_check_has_failed_where_the_exit_is_green() {
    let bench = Bench::new().await;
    let failed = |ran: &Ran| {
        let checks = ran.report["checks"].as_array().cloned().unwrap_or_default();
        checks.into_iter().filter(|check| check["status"] == "fail").collect::<Vec<_>>()
    };
    // What apply is there for is no failure of plan.
    let ran = bench.run("plan", &[]).await.green();
    assert_eq!(failed(&ran), Vec::<serde_json::Value>::new());
    assert_eq!(ran.check("object-encrypted"), "warn");
    let _ = bench.run("apply", &[]).await.green();
    // A role that only reads cannot show the writer's grants.
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:GenerateDataKey");
    for mode in ["plan", "verify", "apply"] {
        let ran = bench.run(mode, &[]).await.green();
        assert_eq!(failed(&ran), Vec::<serde_json::Value>::new(), "{mode}");
    }
    // A key policy that lets everyone decrypt is none that a green plan goes with.
    bench.change_key(|key| key.policy["Statement"][1]["Principal"] = json!("*"));
    let ran = bench.run_as("admin", "plan", &bench.key, &[]).await.red("gate-open");
    assert!(!failed(&ran).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_state_exists_nothing_is_protected() {
    let bench = Bench::with(Topology::Roles, |world| {
        grant_versions(world);
        KEYS.iter().for_each(|key| world.remove_object(BUCKET, key));
    })
    .await;
    let ran = run(&bench, "deploy", "apply", &bench.key, &[]).await.green();
    says(&bench, &ran, "partly");
    assert_eq!(ran.output("verified"), "false");
    bench.lab.world().put_object(BUCKET, KEYS[0], state(1), Encryption::SseS3);
    let ran = run(&bench, "deploy", "verify", &bench.key, &[]).await.red("drift");
    says(&bench, &ran, "failed");
}
