//! The check run: begun, completed, within GitHub's limits, and never in the way.

use aws_lab::{Effect, Encryption, Matcher, Topology};

use crate::bench::Bench;
use crate::common::{BUCKET, CANARY, KEYS, Ran, state};

async fn run(bench: &Bench, mode: &str, more: &[(&str, &str)]) -> Ran {
    let mut variables = bench.job_variables("deploy", mode, &bench.key, more);
    variables.push(("INPUT_CHECK-RUN".into(), "true".into()));
    tokio::task::block_in_place(|| bench.workspace.run(&variables))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_begun_and_completed_with_the_verdict() {
    let bench = Bench::new().await;
    let ran = run(&bench, "apply", &[]).await.green();
    let world = bench.lab.world();
    let [check] = &world.github.check_runs[..] else { panic!("{:?}", world.github.check_runs) };
    assert_eq!(check["name"], "tfstate-kms: production apply");
    assert_eq!((&check["status"], &check["conclusion"]), (&"completed".into(), &"neutral".into()));
    assert_eq!(check["head_sha"], "0123456789012345678901234567890123456789");
    let summary = check["output"]["summary"].as_str().unwrap();
    assert!(summary.contains("read back and unchanged"), "{summary}");
    assert!(!check.to_string().contains(CANARY) && !ran.everything().contains("lab-github-token"));
    drop(world);
    // Queued, then completed.
    let log = bench.lab.log();
    let calls: Vec<&str> = log
        .iter()
        .filter(|e| e.operation.ends_with("CheckRun"))
        .map(|e| e.operation.as_str())
        .collect();
    assert_eq!(calls, ["CreateCheckRun", "UpdateCheckRun"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_stands_beside_the_backend_file() {
    let bench = Bench::new().await;
    let _ = run(&bench, "apply", &[]).await.green();
    bench.lab.world().put_object(BUCKET, KEYS[1], state(12), Encryption::SseS3);
    let _ = run(&bench, "verify", &[]).await.red("drift");
    let world = bench.lab.world();
    let check = &world.github.check_runs[1];
    assert_eq!(check["conclusion"], "failure");
    let annotations = check["output"]["annotations"].as_array().unwrap();
    assert!(
        annotations
            .iter()
            .any(|one| one["path"] == "terraform/dns/backend.tf"
                && one["annotation_level"] == "warning"),
        "{annotations:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_modules_stay_within_fifty_annotations_a_request() {
    let bench = Bench::new().await;
    let modules: Vec<String> = (0..120).map(|n| format!("m{n}")).collect();
    for module in &modules {
        let folder = bench.workspace.module(module);
        std::fs::create_dir_all(&folder).unwrap();
        // In this action's own form, of another environment.
        let other = "terraform {\n  backend \"s3\" {\n    bucket = \"b\"\n    key    = \"k\"\n    region = \"\"\n  }\n}\n";
        std::fs::write(folder.join("backend.tf"), other).unwrap();
    }
    let list = modules.join(" ");
    let more = [("INPUT_MODULES", list.as_str()), ("INPUT_STATE-KEYS", "{environment}/{module}")];
    let _ = run(&bench, "backend", &more).await.green();
    let world = bench.lab.world();
    let annotations = world.github.check_runs[0]["output"]["annotations"].as_array().unwrap();
    assert_eq!(annotations.len(), 120);
    assert_eq!(world.github.check_runs[0]["conclusion"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_there_is_a_warning_and_the_summary_alone() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.github.permissions.clear();
    })
    .await;
    let ran = run(&bench, "apply", &[]).await.green();
    assert!(ran.log.contains("::warning") && ran.log.contains("checks: write"), "{}", ran.log);
    assert!(ran.summary.contains("read back and unchanged"));
    // A token that is not known, one that is not there, an API out of order.
    let ran = run(&bench, "verify", &[("INPUT_GITHUB-TOKEN", "")]).await.green();
    assert_eq!(ran.output("verified"), "true");
    assert!(ran.log.contains("there is no `github-token`"), "{}", ran.log);
    bench.lab.world().github.permissions.insert("checks:write".into());
    bench.lab.inject(Matcher::every("UpdateCheckRun"), Effect::fail(500, "Server Error"));
    let ran = run(&bench, "verify", &[]).await.green();
    assert!(ran.log.contains("the check run could not be completed"), "{}", ran.log);
    bench.lab.world().github.rate_limited = true;
    let ran = run(&bench, "verify", &[]).await.green();
    assert!(ran.log.contains("rate limit is used up until 2096-10-02T07:06:40Z"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_does_not_leave_it_open() {
    let bench = Bench::new().await;
    let effects = [
        Effect::fail(502, "Server Error"),
        Effect::fail_after(502, "Server Error"),
        Effect::ResetBefore,
        Effect::ResetAfter,
        Effect::Truncate,
    ];
    let ends = effects.into_iter().map(|effect| ("UpdateCheckRun", effect));
    // Its beginning is sent once, since a second one would be another check run.
    let begins = [Effect::fail_after(502, "Server Error"), Effect::ResetAfter, Effect::Truncate];
    let begins = begins.into_iter().map(|effect| ("CreateCheckRun", effect));
    for (at, (operation, effect)) in ends.chain(begins).enumerate() {
        let struck = bench.lab.inject(Matcher::every(operation).nth(1), effect);
        let ran = run(&bench, "backend", &[]).await.green();
        assert_eq!(struck.times(), 1);
        let check = bench.lab.world().github.check_runs[at].clone();
        assert_eq!(check["status"], "completed", "{at}: {}", ran.log);
        assert_eq!(check["conclusion"], "success");
        assert!(!ran.log.contains("::warning"), "{}", ran.log);
        bench.lab.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_while_its_check_run_is_completed_ends_in_time() {
    let bench = Bench::new().await;
    bench.lab.inject(Matcher::every("UpdateCheckRun"), Effect::Timeout);
    let mut variables = bench.job_variables("deploy", "verify", "", &[]);
    variables.push(("INPUT_CHECK-RUN".into(), "true".into()));
    let completes =
        |bench: &Bench| bench.lab.log().iter().any(|entry| entry.operation == "UpdateCheckRun");
    let (_, seconds) = bench.interrupted(&variables, completes, "-INT");
    assert!(seconds < 7.0, "{seconds} s");
}
