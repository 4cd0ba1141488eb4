//! Other roles that must read the states, tried before anything is re-keyed.

use aws_lab::{Encryption, Topology};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, state};

/// Only through S3.
fn through_s3() -> Value {
    json!({ "StringEquals": { "kms:ViaService": "s3.us-east-1.amazonaws.com" } })
}

/// Puts a condition on what the key policy grants to a reader.
fn grant_only_if(bench: &Bench, reader: &str, condition: &Value) {
    bench.change_key(|key| {
        for statement in key.policy["Statement"].as_array_mut().unwrap() {
            if statement["Principal"].to_string().contains(reader) {
                statement["Condition"] = condition.clone();
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_would_be_locked_out_are_named_before_any_write() {
    let bench = Bench::with(Topology::Roles, |_| {}).await;
    let readers: Vec<String> = {
        let mut world = bench.lab.world();
        [
            ("plan", true, true),
            ("drift", true, true),
            ("no-iam-side", false, true),
            ("no-key-side", true, false),
            ("neither", false, false),
        ]
        .into_iter()
        .map(|(name, iam, key)| world.add_reader_role(name, "222222222222", iam, key))
        .collect()
    };
    let list = readers.join("\n");
    let more = [("INPUT_MUST-READ", list.as_str())];
    let digest = bench.digest();
    let ran = bench.run("apply", &more).await.red("readers-locked-out");
    bench.assert_untouched(&digest);
    assert_eq!(ran.check("readers"), "fail");
    for role in &readers[2..] {
        assert!(
            ran.log.contains(&format!("{role} must read the states but could not")),
            "{}",
            ran.log
        );
    }
    for role in &readers[..2] {
        assert!(!ran.log.contains(&format!("{role} must read")), "{}", ran.log);
    }
    // Of each the statements that it may lack: without evidence both, with evidence of the IAM
    // side what is missing, or may be.
    let lacks = async |evidence: bool| {
        for (role, iam) in readers[2..].iter().zip([false, true, false]) {
            let one = [("INPUT_MUST-READ", role.as_str())];
            let ran = bench.run("plan", &one).await.red("readers-locked-out");
            assert!(ran.log.contains(&format!("{role} must read")), "{}", ran.log);
            // The key's side can only be told by its account.
            assert!(ran.log.contains("StateReaderUse") && ran.log.contains(role), "{}", ran.log);
            let of_iam = ran.log.contains("TerraformStateKmsRead");
            assert_eq!(of_iam, !(evidence && iam), "{role}: {}", ran.log);
            if evidence {
                let told = if iam { "the IAM side grants it" } else { "the IAM side does not" };
                assert!(ran.log.contains(told), "{told}: {}", ran.log);
            }
        }
    };
    lacks(false).await;
    for role in &readers {
        bench.lab.world().role_mut(role).policies.push(json!({ "Statement": [{ "Effect": "Allow",
            "Action": "iam:SimulatePrincipalPolicy", "Resource": "*" }] }));
    }
    lacks(true).await;

    // Mended, it goes through.
    {
        let mut world = bench.lab.world();
        for role in &readers[2..] {
            world.role_mut(role).policies.push(json!({ "Statement": [{ "Effect": "Allow",
                "Action": ["kms:Decrypt", "kms:DescribeKey"], "Resource": "*" }] }));
        }
        let key = bench.key.clone();
        let all = json!({ "Sid": "Readers", "Effect": "Allow", "Principal": { "AWS": readers },
                          "Action": ["kms:Decrypt", "kms:DescribeKey"], "Resource": "*" });
        world.key_mut(&key).policy["Statement"].as_array_mut().unwrap().push(all);
    }
    let ran = bench.run("apply", &more).await.green();
    assert_eq!((ran.check("readers"), ran.output("rekeyed")), ("pass", "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_assumed_is_unknown_and_named() {
    let bench = Bench::with(Topology::Roles, |_| {}).await;
    let role = "arn:aws:iam::222222222222:role/not-there";
    let ran = bench.run("apply", &[("INPUT_MUST-READ", role)]).await.green();
    assert_eq!(ran.check("readers"), "unknown");
    assert!(ran.log.contains("::warning") && ran.log.contains(role), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_policy_for_s3_alone_locks_no_reader_out() {
    let bench = Bench::with(Topology::Roles, |_| {}).await;
    let reader = bench.lab.world().add_reader_role("plan", "222222222222", true, true);
    bench.lab.world().require_via_service(&bench.key);
    grant_only_if(&bench, &reader, &through_s3());
    let more = [("INPUT_MUST-READ", reader.as_str())];
    // Nothing can be told beforehand, since no direct call goes through for anyone.
    let ran = bench.run("apply", &more).await.green();
    assert_eq!((ran.check("readers"), ran.output("rekeyed")), ("unknown", "2"), "{}", ran.log);
    // Afterwards it is shown: the reader has read.
    let ran = bench.run("verify", &more).await.green();
    assert_eq!(ran.check("readers"), "pass", "{}", ran.log);
    // And one that cannot is named, though its dry run is refused just so.
    let shut = bench.lab.world().add_reader_role("shut", "222222222222", true, false);
    let more = [("INPUT_MUST-READ", shut.as_str())];
    let ran = bench.run("verify", &more).await.red("readers-locked-out");
    assert!(ran.log.contains("StateReaderUse"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_keys_own_account_iams_silence_is_no_proof() {
    let bench = Bench::with(Topology::Roles, |_| {}).await;
    // The key policy, which may not be read here, names the reader, through S3 alone.
    let reader = bench.lab.world().add_reader_role("plan", "111111111111", false, true);
    bench.lab.world().require_via_service(&bench.key);
    bench.lab.world().role_mut(&reader).policies.push(json!({ "Statement": [{ "Effect": "Allow",
        "Action": "iam:SimulatePrincipalPolicy", "Resource": "*" }] }));
    grant_only_if(&bench, &reader, &through_s3());
    let more = [("INPUT_MUST-READ", reader.as_str())];
    let ran = bench.run("apply", &more).await.green();
    assert_eq!((ran.check("readers"), ran.output("rekeyed")), ("unknown", "2"), "{}", ran.log);
    let ran = bench.run("verify", &more).await.green();
    assert_eq!(ran.check("readers"), "pass", "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_state_that_is_read_does_not_stand_for_all() {
    let bench = Bench::with(Topology::Roles, |_| {}).await;
    let reader = bench.lab.world().add_reader_role("plan", "222222222222", true, true);
    // One state is under the key and read; the reader's grant is for that one alone.
    let under = Encryption::Kms { key: bench.key.clone() };
    bench.lab.world().put_object(BUCKET, KEYS[1], state(9), under);
    let arn = format!("arn:aws:s3:::{BUCKET}/{}", KEYS[1]);
    let of_one = json!({ "StringEquals": { "kms:EncryptionContext:aws:s3:arn": arn } });
    grant_only_if(&bench, &reader, &of_one);
    let more = [("INPUT_MUST-READ", reader.as_str())];
    let ran = bench.run("plan", &more).await;
    assert_ne!(ran.check("readers"), "pass", "{}", ran.log);
}

/// Without s3:ListBucket, S3 says 403 of what is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_not_there_yet_locks_nobody_out() {
    let bench = Bench::new().await;
    let reader = {
        let mut world = bench.lab.world();
        let reader = world.add_reader_role("plan", "222222222222", true, true);
        let statements =
            world.bucket_mut(BUCKET).policy.as_mut().unwrap()["Statement"].as_array_mut();
        statements.unwrap().retain(|statement| {
            statement["Principal"]["AWS"] != reader.as_str()
                || statement["Action"] != "s3:ListBucket"
        });
        world.remove_object(BUCKET, KEYS[1]);
        reader
    };
    let more = [("INPUT_MUST-READ", reader.as_str())];
    for mode in ["plan", "apply", "verify"] {
        let ran = bench.run(mode, &more).await.green();
        assert_eq!(ran.check("readers"), "pass", "{mode}: {}", ran.log);
    }
    // It needs the key all the same, also where there is no state at all.
    bench.lab.world().remove_object(BUCKET, KEYS[0]);
    let ran = bench.run("apply", &more).await.green();
    assert_eq!(ran.check("readers"), "pass", "{}", ran.log);
    bench.lab.world().role_mut(&reader).policies.pop();
    let _ = bench.run("apply", &more).await.red("readers-locked-out");
}

/// A bench whose deploy principal may read the key policy, and a reader of another account,
/// of whose own policies IAM tells or not.
async fn with_the_key_policy(iam_side: bool, key_side: bool, simulates: bool) -> (Bench, String) {
    let bench = Bench::with(Topology::SameAccountRole, |_| {}).await;
    let allow = |action: &str| json!({ "Statement": [{ "Effect": "Allow", "Action": action, "Resource": "*" }] });
    let reader = {
        let mut world = bench.lab.world();
        world.change_policies("deploy", |policies| policies.push(allow("kms:GetKeyPolicy")));
        let reader = world.add_reader_role("plan", "222222222222", iam_side, key_side);
        if simulates {
            world.role_mut(&reader).policies.push(allow("iam:SimulatePrincipalPolicy"));
        }
        reader
    };
    (bench, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_evidence_only_the_missing_side_is_printed() {
    for (iam_side, key_side, simulates, prints) in [
        (false, true, true, [false, true]),
        (false, true, false, [false, true]),
        (true, false, true, [true, false]),
        (true, false, false, [true, true]),
        (false, false, true, [true, true]),
    ] {
        let (bench, reader) = with_the_key_policy(iam_side, key_side, simulates).await;
        let case = format!("{iam_side} {key_side} {simulates}");
        let more = [("INPUT_MUST-READ", reader.as_str())];
        let ran = bench.run("plan", &more).await.red("readers-locked-out");
        let printed = ["StateReaderUse", "TerraformStateKmsRead"].map(|sid| ran.log.contains(sid));
        assert_eq!(printed, prints, "{case}: {}", ran.log);
        let files = ["key-policy", "iam-policy"].map(|side| {
            ran.report["statements"]
                .to_string()
                .contains(&format!("reader-1-plan-{side}-statement"))
        });
        assert_eq!(files, prints, "{case}: {}", ran.report["statements"]);
    }
}

/// Against a Deny no Allow helps, so none is printed for that side.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_denied_is_told_which_statement_to_change() {
    let (bench, reader) = with_the_key_policy(true, true, true).await;
    bench.change_key(|key| {
        key.policy["Statement"].as_array_mut().unwrap().push(json!({
            "Sid": "NotThisOne", "Effect": "Deny", "Principal": { "AWS": reader },
            "Action": "kms:Decrypt", "Resource": "*"
        }));
    });
    let more = [("INPUT_MUST-READ", reader.as_str())];
    let ran = bench.run("plan", &more).await.red("readers-locked-out");
    assert!(ran.log.contains("the statement NotThisOne of the key policy"), "{}", ran.log);
    for allow in ["StateReaderUse", "TerraformStateKmsRead", "reader-1-plan"] {
        assert!(!ran.summary.contains(allow), "{allow}: {}", ran.summary);
    }
}

/// What the key policy allows under conditions is not known, and no excuse for the other side.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_in_the_key_policy_does_not_hide_the_missing_iam_side() {
    for (iam_side, simulates) in [(false, true), (true, true), (false, false)] {
        let (bench, reader) = with_the_key_policy(iam_side, true, simulates).await;
        grant_only_if(&bench, &reader, &through_s3());
        let more = [("INPUT_MUST-READ", reader.as_str())];
        let ran = bench.run("plan", &more).await;
        if iam_side || !simulates {
            assert_eq!(ran.green().check("readers"), "unknown", "{iam_side}");
            continue;
        }
        let ran = ran.red("readers-locked-out");
        let says = "the key policy is not known, the IAM side does not grant it";
        assert!(ran.log.contains(says), "{}", ran.log);
    }
}

/// Where GitHub masks a part of what is pasted, the files are whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_readers_lack_is_written_as_files_that_are_enough() {
    let bench = Bench::new().await;
    let readers = {
        let mut world = bench.lab.world();
        ["plan", "drift@night"]
            .map(|name| world.add_reader_role(name, "222222222222", false, false))
    };
    let list = readers.join(",");
    let more = [("INPUT_MUST-READ", list.as_str())];
    let ran = bench.run("apply", &more).await.red("readers-locked-out");
    let files: Vec<&str> = ran.report["statements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    let expected = [(1, "plan"), (2, "drift-night")].map(|(number, name)| {
        ["key-policy", "iam-policy"]
            .map(|side| format!("tfstate-kms-reader-{number}-{name}-{side}-statement.json"))
    });
    assert_eq!(files, expected.concat());
    for (at, file) in files.iter().enumerate() {
        assert!(ran.summary.contains(file), "{file}: {}", ran.summary);
        let text = std::fs::read_to_string(bench.workspace.path().join(file)).unwrap();
        let statement: Value = serde_json::from_str(&text).unwrap();
        if file.contains("key-policy") {
            bench.change_key(|key| key.policy["Statement"].as_array_mut().unwrap().push(statement));
        } else {
            let policy = json!({ "Version": "2012-10-17", "Statement": [statement] });
            bench.lab.world().role_mut(&readers[at / 2]).policies.push(policy);
        }
    }
    let ran = bench.run("apply", &more).await.green();
    assert_eq!((ran.check("readers"), ran.output("rekeyed")), ("pass", "2"), "{}", ran.log);
    assert_eq!(ran.report["statements"], json!([]));
}
