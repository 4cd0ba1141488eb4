//! Where nothing is found: what is there is named, and no verdict is better than what was seen.

use aws_lab::{Effect, Encryption, Matcher, Topology};

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, state};

/// Other states than the ones that are named.
async fn elsewhere() -> Bench {
    Bench::with(Topology::Roles, |world| {
        for key in KEYS {
            world.remove_object(BUCKET, key);
        }
        world.put_object(BUCKET, "a/first.tflock", b"{}".to_vec(), Encryption::SseS3);
        for n in 0..12 {
            world.put_object(BUCKET, &format!("prod/{n:02}"), state(1), Encryption::SseS3);
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn up_to_ten_objects_that_are_there_are_named() {
    let bench = elsewhere().await;
    let prefix = ("INPUT_STATE-KEYS", "prd/*");
    for (mode, more, reason) in [
        ("plan", vec![], ""),
        ("apply", vec![], ""),
        ("verify", vec![], "state-missing"),
        ("plan", vec![prefix], "state-missing"),
        ("apply", vec![prefix], "state-missing"),
        ("verify", vec![prefix], "state-missing"),
    ] {
        let digest = bench.digest();
        let ran = bench.run(mode, &more).await;
        let ran = if reason.is_empty() { ran.green() } else { ran.red(reason) };
        let kind = if reason.is_empty() { "::warning" } else { "::error" };
        let said =
            ran.log.lines().find(|line| line.starts_with(kind) && line.contains("`prod/00`"));
        let said = said.unwrap_or_else(|| panic!("{mode}: {}", ran.log));
        assert!(said.contains("`prod/09`, and more") && !said.contains("prod/10"), "{said}");
        assert!(!said.contains("tflock"), "{said}");
        assert_eq!(ran.output("verified"), "false");
        bench.assert_untouched(&digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_not_be_listed_is_said_and_fails_nothing() {
    let bench = elsewhere().await;
    bench.lab.inject(Matcher::every("ListObjectsV2"), Effect::fail(403, "AccessDenied"));
    let ran = bench.run("apply", &[]).await.green();
    assert!(ran.log.contains("could not be listed"), "{}", ran.log);
}

/// Where a state is there, its like is not looked for: no request more than before.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_listed_where_something_is_found() {
    let bench = Bench::new().await;
    bench.lab.world().remove_object(BUCKET, KEYS[1]);
    for mode in ["plan", "apply", "verify"] {
        let ran = bench.run(mode, &[]).await;
        assert_ne!(ran.output("failure-reason"), "state-missing", "{}", ran.log);
    }
    let _ = bench.run_unset("apply", &[("INPUT_STATE-KEYS", "no/such/key")]).await;
    let listed = bench.lab.log().iter().any(|entry| entry.operation == "ListObjectsV2");
    assert!(!listed, "{:?}", bench.lab.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_state_beside_a_pattern_is_never_verified() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.put_object(BUCKET, "prod/a", state(1), Encryption::SseS3);
    })
    .await;
    bench.lab.world().bucket_mut(BUCKET).objects.remove(KEYS[1]);
    for lines in [
        "infra={environment}\ndns={environment}-bootstrap\nprod/*",
        "infra={environment}\ndns={environment}-bootstrap\n*",
    ] {
        let more = [("INPUT_STATE-KEYS", lines)];
        for mode in ["apply", "verify"] {
            let ran = bench.run(mode, &more).await.green();
            assert_eq!(ran.output("verified"), "false", "{mode}: {}", ran.log);
            assert!(ran.log.contains("`production-bootstrap` does not exist"), "{}", ran.log);
        }
    }
    bench.lab.world().bucket_mut(BUCKET).objects.remove(KEYS[0]);
    let more = [("INPUT_STATE-KEYS", "infra={environment}\ndns={environment}-bootstrap\nprod/*")];
    let ran = bench.run("verify", &more).await.red("state-missing");
    assert!(ran.log.contains("nothing to verify"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_of_nothing_is_not_called_done() {
    let bench = elsewhere().await;
    let more = [("INPUT_STATE-KEYS", "prd/*")];
    let ran = bench.run_unset("rollback", &more).await.red("state-missing");
    assert!(ran.log.contains("there is no state below `prd/`"), "{}", ran.log);
    // The step that is everywhere before any key exists stays quiet.
    let ran = bench.run_unset("apply", &more).await.green();
    assert_eq!(ran.output("verified"), "false");
}
