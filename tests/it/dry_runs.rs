//! Dry runs that tell nothing, and a simulation that is wrong: servers that imitate AWS answer
//! both in ways of their own, and AWS itself is out of order at times. Then S3 is the judge.

use aws_lab::{DEPLOY_ACCOUNT, Effect, Encryption, Identity, Matcher, STATE_ACCOUNT, Topology};
use serde_json::json;

use crate::bench::{Bench, put_all_under_the_key};
use crate::common::{BUCKET, KEYS, Ran, state};

/// None of these is a denial: a service that is out of order, one that knows no dry run, one
/// that does not know the operation, and a proxy before it.
const UNCLEAR: [(u16, &str); 5] = [
    (500, "InternalError"),
    (501, "NotImplemented"),
    (400, "UnsupportedOperationException"),
    (400, "InvalidAction"),
    (403, "SomethingNew"),
];
/// The SDK asks once more after a 5xx, which takes its time.
const AT_ONCE: (u16, &str) = (400, "UnsupportedOperationException");
const UNTOLD: [&str; 2] = ["grant-key-policy", "grant-iam-policy"];

fn break_dry_runs(bench: &Bench, operations: &[&str], (status, code): (u16, &str)) {
    for operation in operations {
        bench.lab.inject(Matcher::every(operation), Effect::fail(status, code));
    }
}

fn no_check_fails(ran: &Ran) {
    for check in UNTOLD {
        assert_ne!(ran.check(check), "fail", "{check}: {}", ran.log);
    }
}

/// Plans, applies and verifies, all green, with one state first.
async fn is_served(bench: &Bench, who: &str) {
    let more = [("INPUT_PROBE", "off")];
    no_check_fails(&bench.run_as(who, "plan", &bench.key, &more).await.green());
    let ran = bench.run_as(who, "apply", &bench.key, &more).await.green();
    no_check_fails(&ran);
    assert!(ran.log.contains("one state goes first"), "{}", ran.log);
    assert_eq!((ran.output("rekeyed"), ran.output("verified")), ("2", "true"));
    for mode in ["verify", "apply"] {
        let ran = bench.run_as(who, mode, &bench.key, &more).await.green();
        no_check_fails(&ran);
        assert_eq!(ran.output("changed"), "false", "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_denial_leaves_it_to_s3() {
    for answer in UNCLEAR {
        let bench = Bench::new().await;
        break_dry_runs(&bench, &["Decrypt"], answer);
        is_served(&bench, "deploy").await;
    }
}

/// IAM simulates users and roles only, and nothing limits an account's root there.
#[tokio::test(flavor = "multi_thread")]
async fn iam_is_not_asked_about_an_accounts_root() {
    let bench = Bench::with(Topology::Roles, |world| {
        let arn = format!("arn:aws:iam::{STATE_ACCOUNT}:root");
        let identity = Identity { arn, session_arn: None, account: STATE_ACCOUNT.into() };
        let all = json!({ "Statement": [{ "Effect": "Allow", "Action": "*", "Resource": "*" }] });
        world.add_principal("root", identity, vec![all]);
        world.simulates_denials = true;
    })
    .await;
    break_dry_runs(&bench, &["Decrypt"], AT_ONCE);
    is_served(&bench, "root").await;
    assert!(!bench.lab.log().iter().any(|entry| entry.operation.starts_with("Simulate")));
    let ran = bench.run_as("root", "verify", &bench.key, &[("INPUT_PROBE", "off")]).await.green();
    assert_eq!(ran.check("grant-iam-policy"), "pass");
}

/// By an allowed dry run, and by a state that was read under the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_that_is_contradicted_is_not_believed() {
    for who in ["admin", "deploy"] {
        let bench = Bench::with(Topology::Roles, |world| world.simulates_denials = true).await;
        break_dry_runs(&bench, &["Decrypt"], AT_ONCE);
        is_served(&bench, who).await;

        break_dry_runs(&bench, &["GenerateDataKey"], AT_ONCE);
        let more = [("INPUT_PROBE", "off")];
        let ran = bench.run_as(who, "verify", &bench.key, &more).await.green();
        no_check_fails(&ran);
        // With nothing to contradict it, it is.
        bench.lab.world().put_object(BUCKET, KEYS[0], state(20), Encryption::SseS3);
        bench.lab.world().put_object(BUCKET, KEYS[1], state(20), Encryption::SseS3);
        let digest = bench.digest();
        let ran = bench.run_as(who, "apply", &bench.key, &more).await.red("key-denied");
        assert_eq!(ran.check("grant-iam-policy"), "fail", "{}", ran.log);
        bench.assert_untouched(&digest);
    }
}

/// Without a version to fall back on nothing is tried, and nobody is called denied.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_version_nothing_is_tried() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.bucket_mut(BUCKET).versioned = false;
        for key in KEYS {
            world.remove_object(BUCKET, key);
            world.put_object(BUCKET, key, state(7), Encryption::SseS3);
        }
    })
    .await;
    break_dry_runs(&bench, &["Decrypt", "GenerateDataKey"], (500, "InternalError"));
    let digest = bench.digest();
    let ran = bench.run("apply", &[]).await.red("aws-unavailable");
    assert!(ran.summary.contains("tells nothing"), "{}", ran.summary);
    assert!(!ran.log.contains("grant what may be missing"), "{}", ran.log);
    bench.assert_untouched(&digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_was_read_and_denies_needs_no_dry_run() {
    let deny = |bench: &Bench| {
        bench.change_key(|key| {
            key.policy["Statement"].as_array_mut().unwrap().push(json!({
                "Sid": "No", "Effect": "Deny", "Action": "kms:Decrypt", "Resource": "*",
                "Principal": { "AWS": format!("arn:aws:iam::{STATE_ACCOUNT}:user/admin") }
            }));
        });
    };
    let bench = Bench::new().await;
    break_dry_runs(&bench, &["Decrypt", "GenerateDataKey"], AT_ONCE);
    deny(&bench);
    let digest = bench.digest();
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.red("key-denied");
    assert!(ran.log.contains("the statement No of the key policy"), "{}", ran.log);
    bench.assert_untouched(&digest);
    // A policy that does not name the principal is for S3 to judge, which refuses the first copy.
    let bench = Bench::new().await;
    break_dry_runs(&bench, &["Decrypt", "GenerateDataKey"], AT_ONCE);
    bench.change_key(|key| {
        key.policy["Statement"][0]["Action"] = json!(["kms:Describe*", "kms:Get*", "kms:Put*"]);
    });
    let ran = bench.run_as("admin", "apply", &bench.key, &[]).await.red("rekey-failed");
    assert!(ran.log.contains("one state goes first"), "{}", ran.log);
    assert_eq!(bench.encryption(KEYS[0]), Encryption::SseS3);
}

/// Nor does it lock a reader out.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_locked_out_by_denials_only() {
    for answer in UNCLEAR {
        let bench = Bench::new().await;
        let reader = bench.lab.world().add_reader_role("plan", DEPLOY_ACCOUNT, true, true);
        let more = [("INPUT_MUST-READ", reader.as_str()), ("INPUT_PROBE", "off")];
        break_dry_runs(&bench, &["Decrypt"], answer);
        let ran = bench.run("plan", &more).await.green();
        assert_eq!(ran.check("readers"), "unknown", "{answer:?}: {}", ran.log);

        // The read itself.
        let bench = Bench::with(Topology::Roles, |world| put_all_under_the_key(world, 20)).await;
        let reader = bench.lab.world().add_reader_role("plan", DEPLOY_ACCOUNT, true, true);
        let more = [("INPUT_MUST-READ", reader.as_str()), ("INPUT_PROBE", "off")];
        let _ = bench.run("apply", &[("INPUT_PROBE", "off")]).await.green();
        for key in KEYS {
            // The survey's is the first.
            let second = Matcher::every("GetObject").key(key).from(2);
            bench.lab.inject(second, Effect::fail(answer.0, answer.1));
        }
        let ran = bench.run("verify", &more).await.green();
        assert_eq!(ran.check("readers"), "unknown", "{answer:?}: {}", ran.log);
    }
}
