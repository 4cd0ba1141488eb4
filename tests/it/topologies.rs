//! Keys and grants across accounts: what goes through, and that what is printed where
//! something is missing is enough to mend it.

use aws_lab::{Encryption, Topology};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS};

/// The deploy principal's IAM policies do not allow this any more.
pub fn drop_from_iam(bench: &Bench, action: &str) {
    let quoted = json!(action).to_string();
    bench.lab.world().change_policies("deploy", |policies| {
        let text = json!(policies).to_string();
        assert!(text.contains(&quoted), "{text}");
        *policies = serde_json::from_str(&text.replace(&quoted, "\"kms:None\"")).unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_goes_through() {
    for topology in
        [Topology::Roles, Topology::Users, Topology::SameAccount, Topology::SameAccountRole]
    {
        let bench = Bench::with(topology, |_| {}).await;
        // A multi-Region key is as good as another.
        let key = {
            let mut world = bench.lab.world();
            let mut key = world.key_mut(&bench.key).clone();
            let cut = key.arn.len() - key.id().len();
            key.arn = format!("{}mrk-5c0ffee1222243338444555555555555", &key.arn[..cut]);
            let arn = key.arn.clone();
            world.add_key(key);
            arn
        };
        let ran = bench.run_as("deploy", "apply", &key, &[]).await.green();
        assert_eq!(ran.output("rekeyed"), "2", "{topology:?}");
        assert_eq!(bench.encryption(KEYS[0]), Encryption::Kms { key });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_s3_does_not_need_is_no_failure() {
    for (action, check, status, says) in [
        ("kms:Encrypt", "grant-key-policy", "warn", "DeployPrincipalUse"),
        ("kms:DescribeKey", "key-usable", "unknown", "Grant kms:DescribeKey on it"),
    ] {
        for of_iam in [false, true] {
            let bench = Bench::with(Topology::Users, |_| {}).await;
            if of_iam {
                drop_from_iam(&bench, action);
            } else {
                bench.lab.world().drop_from_key_policy(&bench.key, action);
            }
            let ran = bench.run("apply", &[]).await.green();
            assert_eq!((ran.output("rekeyed"), ran.check(check)), ("2", status), "{action}");
            assert!(ran.summary.contains(says), "{action}: {}", ran.summary);
        }
    }
}

/// A key of a third account, with the bucket's owner given: S3 takes it, the in-place
/// operation does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_elsewhere_needs_the_owner_and_is_a_warning() {
    let bench = Bench::new().await;
    let key = {
        let mut world = bench.lab.world();
        let mut key = world.key_mut(&bench.key).clone();
        key.arn = key.arn.replace("111111111111", "333333333333");
        let arn = key.arn.clone();
        world.add_key(key);
        arn
    };
    let digest = bench.digest();
    let _ = bench.run_as("deploy", "apply", &key, &[]).await.red("wrong-bucket-owner");
    bench.assert_untouched(&digest);
    let owner = ("INPUT_BUCKET-OWNER", "111111111111");
    let ran = bench.run_as("deploy", "apply", &key, &[owner]).await.green();
    assert_eq!((ran.output("rekeyed"), ran.check("same-account")), ("2", "warn"), "{}", ran.log);
    assert!(ran.summary.contains("A key in the bucket's account"), "{}", ran.summary);
    assert_eq!(bench.encryption(KEYS[0]), Encryption::Kms { key: key.clone() });
    assert_eq!(ran.output("gate"), "holds");
    // In place by name, where S3 refuses such a key: an error, and no copy.
    let other = Bench::new().await;
    let key = {
        let mut world = other.lab.world();
        let mut key = world.key_mut(&other.key).clone();
        key.arn = key.arn.replace("111111111111", "333333333333");
        let admin = json!({ "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111111111111:user/admin" },
                            "Action": "kms:*", "Resource": "*" });
        key.policy["Statement"].as_array_mut().unwrap().push(admin);
        let arn = key.arn.clone();
        world.add_key(key);
        arn
    };
    let more = [owner, ("INPUT_STRATEGY", "in-place")];
    let digest = other.digest();
    let ran = other.run_as("admin", "apply", &key, &more).await.red("rekey-failed");
    assert!(ran.log.contains("must be owned by the same account"), "{}", ran.log);
    other.assert_untouched(&digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn terse_denials_are_no_worse() {
    let bench = Bench::new().await;
    bench.lab.world().terse = true;
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
    let digest = bench.digest();
    let ran = bench.run("apply", &[]).await.red("key-denied");
    bench.assert_untouched(&digest);
    assert!(
        ran.summary.contains("TerraformStateKms") && ran.summary.contains("DeployPrincipalUse")
    );
}

/// Adds a statement to a key policy as the remedy says: into one of the same Sid, where there is
/// one without a condition.
fn add_as_told(policy: &mut Value, statement: &Value) {
    let statements = policy["Statement"].as_array_mut().unwrap();
    let Some(there) = statements.iter_mut().find(|one| one["Sid"] == statement["Sid"]) else {
        return statements.push(statement.clone());
    };
    assert_eq!(there.get("Condition"), statement.get("Condition"));
    let list = |value: &Value| match value {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    };
    for place in ["/Action", "/Principal/AWS"] {
        let mut all = list(there.pointer(place).unwrap());
        for one in list(statement.pointer(place).unwrap()) {
            if !all.contains(&one) {
                all.push(one);
            }
        }
        *there.pointer_mut(place).unwrap() = all.into();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_of_a_missing_grant_is_enough_to_mend_it() {
    let bench = Bench::new().await;
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
    let ran = bench.run("apply", &[]).await.red("key-denied");
    let files = ran.report["statements"].as_array().unwrap();
    assert_eq!(files.len(), 4, "{files:?}");
    // Mended by what the file says, as a stranger would.
    let path = bench.workspace.path().join("tfstate-kms-key-policy-statement.json");
    let statement: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    insta::assert_snapshot!("summary_of_a_missing_grant", crate::output::steady(&ran.summary));
    bench.change_key(|key| add_as_told(&mut key.policy, &statement));
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(ran.output("gate"), "holds");
    // Whoever else could use the key still can.
    let other = "arn:aws:iam::222222222222:user/no-iam";
    assert!(bench.lab.world().key_mut(&bench.key).policy.to_string().contains(other));
}

/// A whole side is missing, which only S3 can tell.
#[tokio::test(flavor = "multi_thread")]
async fn the_summary_of_a_refused_state_is_enough_to_mend_it() {
    let bench = Bench::new().await;
    let ran = bench.run_as("no-key-policy", "apply", &bench.key, &[]).await.red("rekey-failed");
    insta::assert_snapshot!("summary_of_a_refused_state", crate::output::steady(&ran.summary));
    let path = bench.workspace.path().join("tfstate-kms-key-policy-statement.json");
    let statement: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    bench.change_key(|key| add_as_told(&mut key.policy, &statement));
    let ran = bench.run_as("no-key-policy", "apply", &bench.key, &[]).await.green();
    assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log);
}

/// Where a failure's remedy prints JSON: each piece that begins and ends a line.
fn printed_json(text: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut piece: Option<String> = None;
    for line in text.lines() {
        if line == "{" {
            piece = Some(String::new());
        }
        if let Some(text) = &mut piece {
            text.push_str(line.strip_prefix("},").map_or(line, |_| "}"));
        }
        if line.starts_with('}') {
            found.extend(piece.take().map(|text| serde_json::from_str::<Value>(&text).unwrap()));
        }
    }
    found
}

/// What is printed where S3 itself grants nothing, in the place of all other rights to it: the
/// lock objects included.
#[tokio::test(flavor = "multi_thread")]
async fn the_statements_for_s3_are_enough_as_they_are() {
    for topology in [Topology::Users, Topology::Roles] {
        let bench = Bench::with(topology, |_| {}).await;
        bench.lab.world().bucket_mut(BUCKET).policy = Some(json!({ "Statement": [] }));
        let more = [("INPUT_LOCK", "s3")];
        let ran = bench.run("apply", &more).await.red("state-unreadable");
        let remedy = ran.report["failures"][0]["remedy"].as_str().unwrap();
        let (of_iam, of_bucket): (Vec<Value>, Vec<Value>) =
            printed_json(remedy).into_iter().partition(|one| one["Version"].is_string());
        assert_eq!((of_bucket.len(), of_iam.len()), (3, 1), "{remedy}");
        bench.lab.world().bucket_mut(BUCKET).policy = Some(json!({ "Statement": of_bucket }));
        bench.lab.world().change_policies("deploy", |policies| {
            policies.retain(|one| !one.to_string().contains("s3:"));
            policies.push(of_iam[0].clone());
        });
        let ran = bench.run("apply", &more).await.green();
        assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log);
        // Said once, though both states were refused.
        let ran = {
            bench.lab.world().bucket_mut(BUCKET).policy = Some(json!({ "Statement": [] }));
            bench.run("verify", &more).await.red("state-unreadable")
        };
        assert_eq!(ran.summary.matches("put-bucket-policy").count(), 1, "{}", ran.summary);
        assert!(!ran.summary.contains("s3:PutObject\""), "{}", ran.summary);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_without_the_right_to_write_can_verify() {
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:GenerateDataKey");
    let ran = bench.run("verify", &[]).await.green();
    assert_eq!(ran.check("grant-key-policy"), "unknown");
    assert_eq!(ran.check("object-readable"), "pass");
}

/// The hardened statements, from their files, in the place of all other rights to the key.
#[tokio::test(flavor = "multi_thread")]
async fn the_hardened_statements_are_enough_as_they_are() {
    for topology in [Topology::Users, Topology::Roles] {
        let bench = Bench::with(topology, |_| {}).await;
        bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
        let _ = bench.run("apply", &[]).await.red("key-denied");
        let file = |name: &str| -> serde_json::Value {
            let path = bench.workspace.path().join(format!("tfstate-kms-{name}.json"));
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let (of_key, of_iam) =
            (file("key-policy-statements-hardened"), file("iam-policy-statements-hardened"));
        bench.change_key(|key| {
            let statements = key.policy["Statement"].as_array_mut().unwrap();
            statements.truncate(1);
            statements.extend(of_key.as_array().unwrap().clone());
        });
        let policy = json!({ "Version": "2012-10-17", "Statement": of_iam });
        bench.lab.world().change_policies("deploy", |policies| {
            policies.retain(|one| !one.to_string().contains("kms:"));
            policies.push(policy.clone());
        });
        let ran = bench.run("apply", &[]).await.green();
        assert_eq!((ran.output("rekeyed"), ran.output("gate")), ("2", "holds"), "{}", ran.log);
        // IAM's simulation knows no value for these conditions: that is no lack.
        let asks = json!({ "Statement": [{ "Effect": "Allow", "Resource": "*",
            "Action": ["iam:SimulatePrincipalPolicy", "sts:GetFederationToken"] }] });
        bench.lab.world().change_policies("deploy", |policies| policies.push(asks.clone()));
        let _ = bench.run_unset("rollback", &[("INPUT_PROBE", "off")]).await.green();
        let ran = bench.run("apply", &[]).await.green();
        assert_eq!((ran.output("rekeyed"), ran.check("grant-iam-policy")), ("2", "warn"));
        assert!(ran.report.to_string().contains("simulation does not tell"), "{}", ran.log);
        // And nothing else: another object's context does not do.
        let (statement, other) = (of_key.to_string(), format!("{BUCKET}/production-elsewhere"));
        assert!(!statement.contains(&other) && !statement.contains("production*"), "{statement}");
    }
}
