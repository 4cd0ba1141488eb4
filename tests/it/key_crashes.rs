//! A key mode that is cut off, by a call that fails or by a signal: what was done is told, no
//! further step is begun, and the next run goes on from there.

use std::time::Duration;

use aws_lab::{Effect, Matcher, Moment};

use crate::bench::Bench;
use crate::common::Ran;
use crate::keys::{DEPLOY, NEW, changed, create, id, key_writes, policy, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_calls_never_makes_a_second_key() {
    for operation in ["CreateKey", "EnableKeyRotation", "CreateAlias"] {
        for effect in
            [Effect::ResetAfter, Effect::ResetBefore, Effect::fail(500, "KMSInternalException")]
        {
            let bench = Bench::new().await;
            let all = |bench: &Bench| {
                let log = bench.lab.log();
                log.iter().filter(|e| e.operation == "CreateKey" && e.status == 200).count()
            };
            bench.lab.inject(Matcher::every(operation), effect);
            let _ = create(&bench, "create").await;
            bench.lab.clear_faults();
            let ran = create(&bench, "create").await.green();
            assert_eq!(ran.output("verified"), "true", "{operation}: {}", ran.log);
            assert!(all(&bench) <= 1, "{operation}");
            let again = create(&bench, "create").await.green();
            assert_eq!(again.output("kms-key-arn"), ran.output("kms-key-arn"));
            assert_eq!(again.output("changed"), "false");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_retiring_is_finished_by_the_next_run() {
    for operation in ["DisableKey", "ScheduleKeyDeletion"] {
        for effect in [Effect::ResetAfter, Effect::ResetBefore] {
            let (bench, old, _) = changed().await;
            bench.lab.inject(Matcher::every(operation), effect);
            let more = [
                ("INPUT_TARGET-KEY", old.as_str()),
                ("INPUT_ABANDON-VERSIONS", "2"),
                ("INPUT_CONFIRM", id(&old)),
            ];
            let _ = run(&bench, "retire-key", &more).await;
            bench.lab.clear_faults();
            let _ = run(&bench, "retire-key", &more).await.green();
            assert_eq!(bench.lab.world().key_mut(&old).state, "PendingDeletion", "{operation}");
        }
    }
}

/// A call whose answer is lost, or that fails once, is made again by the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_key_policy_whose_answer_is_lost_is_made_once() {
    let effects =
        || [Effect::ResetAfter, Effect::ResetBefore, Effect::fail(500, "KMSInternalException")];
    let put = || Matcher::every("PutKeyPolicy").nth(1);
    for effect in effects() {
        let bench = Bench::new().await;
        bench.lab.inject(put(), effect);
        let more = [
            ("INPUT_TARGET-KEY", bench.key.as_str()),
            ("INPUT_DEPLOY-PRINCIPALS", DEPLOY),
            ("INPUT_CONFIRM", id(&bench.key)),
        ];
        let ran = run(&bench, "revoke", &more).await.green();
        assert_eq!(ran.output("changed"), "true", "{}", ran.log);
        assert!(!policy(&bench, &bench.key).to_string().contains(DEPLOY));
        let again = run(&bench, "revoke", &more).await.green();
        assert_eq!(again.output("changed"), "false", "{}", again.log);
    }
    for effect in effects() {
        let bench = Bench::new().await;
        let arn = create(&bench, "create").await.green().output("kms-key-arn").to_owned();
        let whole = policy(&bench, &arn);
        let list =
            bench.lab.world().key_mut(&arn).policy["Statement"].as_array_mut().unwrap().pop();
        assert!(list.is_some());
        bench.lab.inject(put(), effect);
        let ran = create(&bench, "policy").await.green();
        assert_eq!(
            (ran.output("changed"), ran.output("verified")),
            ("true", "true"),
            "{}",
            ran.log
        );
        assert_eq!(policy(&bench, &arn), whole);
    }
}

/// A change without a clear answer may have been made.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_key_policy_that_is_never_answered_counts() {
    for effect in [Effect::ResetAfter, Effect::fail_after(520, "x")] {
        let bench = Bench::new().await;
        bench.lab.inject(Matcher::every("PutKeyPolicy"), effect);
        let more = [
            ("INPUT_TARGET-KEY", bench.key.as_str()),
            ("INPUT_DEPLOY-PRINCIPALS", DEPLOY),
            ("INPUT_CONFIRM", id(&bench.key)),
        ];
        let ran = run(&bench, "revoke", &more).await.red("key-change-failed");
        assert_eq!(ran.output("changed"), "true", "{}", ran.log);
        assert!(ran.summary.contains("got no clear answer"), "{}", ran.summary);
        assert!(!policy(&bench, &bench.key).to_string().contains(DEPLOY));
    }
}

/// What is refused for good changes nothing, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_key_policy_that_is_refused_is_told() {
    let bench = Bench::new().await;
    let before = policy(&bench, &bench.key);
    bench.lab.inject(Matcher::every("PutKeyPolicy"), Effect::fail(403, "AccessDeniedException"));
    let more = [
        ("INPUT_TARGET-KEY", bench.key.as_str()),
        ("INPUT_DEPLOY-PRINCIPALS", DEPLOY),
        ("INPUT_CONFIRM", id(&bench.key)),
    ];
    let ran = run(&bench, "revoke", &more).await.red("key-change-failed");
    assert_eq!(ran.output("changed"), "false", "{}", ran.log);
    assert!(ran.log.contains("kms:PutKeyPolicy"), "{}", ran.log);
    assert_eq!(policy(&bench, &bench.key), before);
}

/// Runs a key mode and interrupts it once this is so.
fn interrupted(
    bench: &Bench,
    mode: &str,
    more: &[(&str, &str)],
    when: impl Fn(&Bench) -> bool,
) -> Ran {
    let variables = bench.job_variables("key-admin", mode, "", more);
    let (ran, seconds) = bench.interrupted(&variables, when, "-INT");
    assert!(seconds < 7.0, "{mode}: {seconds} s");
    ran.red("cancelled")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_while_it_looks_writes_nothing() {
    let (bench, old, _) = changed().await;
    let confirm = ("INPUT_CONFIRM", id(&old));
    let target = ("INPUT_TARGET-KEY", old.as_str());
    let who = ("INPUT_DEPLOY-PRINCIPALS", DEPLOY);
    let other = ("INPUT_ALIAS", "alias/another");
    let modes = [
        ("create-key", vec![other, who, ("INPUT_CONFIRM", "create")]),
        ("revoke", vec![target, who, confirm]),
        ("retire-key", vec![target, confirm, ("INPUT_ABANDON-VERSIONS", "2")]),
        ("recover-key", vec![target, confirm]),
    ];
    bench.lab.set_latency(Duration::from_millis(200));
    for (mode, more) in modes {
        if mode == "recover-key" {
            bench.lab.world().key_mut(&old).state = "Disabled".into();
        }
        bench.lab.clear_log();
        let ran = interrupted(&bench, mode, &more, |bench| !bench.lab.log().is_empty());
        assert!(key_writes(&bench).is_empty(), "{mode}: {:?}", key_writes(&bench));
        assert_eq!(ran.output("changed"), "false", "{mode}: {}", ran.log);
        // It came to the first step, and did not take it.
        let steps = &ran.report["key"]["steps"];
        assert_eq!(steps[0]["done"], false, "{mode}: {steps}");
        assert!(ran.log.contains("no further step was begun"), "{mode}: {}", ran.log);
    }
}

/// A retirement that is cancelled while KMS does not answer this call.
async fn retired_until(operation: &str, moment: Moment) -> Ran {
    let (bench, old, _) = changed().await;
    let (frozen, told) = Effect::freeze(moment);
    bench.lab.inject(Matcher::every(operation), frozen);
    let more = [
        ("INPUT_TARGET-KEY", old.as_str()),
        ("INPUT_ABANDON-VERSIONS", "2"),
        ("INPUT_CONFIRM", id(&old)),
    ];
    interrupted(&bench, "retire-key", &more, |_| told.try_recv().is_ok())
}

/// The write in hand is not answered, whether or not KMS has carried it out.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_a_cancellation_is_in_the_report() {
    for moment in [Moment::Before, Moment::CarriedOut] {
        let ran = retired_until("ScheduleKeyDeletion", moment).await;
        assert_eq!(ran.output("changed"), "true", "{}", ran.log);
        let steps = ran.report["key"]["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert_eq!(
            (&steps[0]["what"], &steps[0]["done"]),
            (&"disable the key".into(), &true.into())
        );
        assert!(ran.log.contains("done: disable the key"), "{}", ran.log);
        assert!(ran.summary.contains("done: disable the key"), "{}", ran.summary);
        assert!(ran.summary.contains("whether it was done is not known"), "{}", ran.summary);
    }

    // The first write of all: it may have been carried out.
    let ran = retired_until("DisableKey", Moment::CarriedOut).await;
    assert_eq!(ran.output("changed"), "true", "{}", ran.log);
    assert!(ran.summary.contains("«disable the key» got no clear answer"), "{}", ran.summary);

    let bench = Bench::new().await;
    let (frozen, told) = Effect::freeze(Moment::Before);
    bench.lab.inject(Matcher::every("CreateAlias"), frozen);
    let more = [NEW[0], NEW[1], ("INPUT_CONFIRM", "create")];
    let ran = interrupted(&bench, "create-key", &more, |_| told.try_recv().is_ok());
    assert_eq!(key_writes(&bench)[..2], ["CreateKey", "EnableKeyRotation"]);
    assert_eq!(ran.output("changed"), "true", "{}", ran.log);
    let key = &ran.report["key"];
    let arn = key["arn"].as_str().unwrap();
    let made = format!("create the key, with its policy and tags: {arn}");
    assert_eq!((&key["steps"][0]["what"], &key["steps"][0]["done"]), (&made.into(), &true.into()));
    assert!(
        ran.summary.contains("«give it the alias alias/new» got no clear answer"),
        "{}",
        ran.summary
    );
    // The next run finds it.
    bench.lab.clear_faults();
    let again = create(&bench, "create").await.green();
    assert_eq!(again.output("kms-key-arn"), arn);
}
