//! Every way in which a key or a grant can be wrong: the verdict, the failing checks, the
//! remedy, and a bucket that is as it was.

use aws_lab::{Encryption, Topology};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, Ran};

/// What is arranged, and what has to come of it.
struct Row {
    name: &'static str,
    topology: Topology,
    who: &'static str,
    arrange: fn(&Bench) -> String,
    reason: &'static str,
    /// `id=status` of checks that tell.
    checks: &'static [&'static str],
    /// In the log or the summary.
    says: &'static [&'static str],
    /// Not there: a statement for a side that grants.
    silent: &'static [&'static str],
}

fn same(bench: &Bench) -> String {
    bench.key.clone()
}

/// The account's root may manage the key, and leaves its use to nobody.
fn only_administers(bench: &Bench) {
    bench.change_key(|key| {
        let statements = key.policy["Statement"].as_array_mut().unwrap();
        statements.truncate(1);
        statements[0]["Action"] = json!(["kms:Describe*", "kms:Get*", "kms:Put*", "kms:Create*"]);
    });
}

/// The deploy principal's IAM policies allow this, too.
fn may(bench: &Bench, actions: serde_json::Value) {
    let one = json!({ "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": "*" }] });
    bench.lab.world().change_policies("deploy", |policies| policies.push(one.clone()));
}

/// They do not allow this any more.
fn drop_from_iam(bench: &Bench, action: &str) {
    let quoted = json!(action).to_string();
    bench.lab.world().change_policies("deploy", |policies| {
        let text = json!(policies).to_string();
        assert!(text.contains(&quoted), "{text}");
        *policies = serde_json::from_str(&text.replace(&quoted, "\"kms:None\"")).unwrap();
    });
}

const ROWS: &[Row] = &[
    Row {
        name: "key policy does not name the principal",
        topology: Topology::Roles,
        who: "no-key-policy",
        arrange: same,
        reason: "rekey-failed",
        checks: &["grant-key-policy=unknown", "grant-iam-policy=unknown"],
        says: &["DeployPrincipalUse", "TerraformStateKms"],
        silent: &[],
    },
    Row {
        name: "IAM side lacks KMS",
        topology: Topology::Roles,
        who: "no-iam",
        arrange: same,
        reason: "rekey-failed",
        checks: &["grant-key-policy=unknown", "grant-iam-policy=unknown"],
        says: &["hints at the IAM side", "TerraformStateKms"],
        silent: &[],
    },
    Row {
        name: "IAM side lacks KMS, and IAM says so",
        topology: Topology::Roles,
        who: "no-iam",
        arrange: |bench| {
            bench.lab.world().change_policies("no-iam", |policies| {
                policies.push(json!({ "Statement": [{ "Effect": "Allow",
                    "Action": "iam:SimulatePrincipalPolicy", "Resource": "*" }] }));
            });
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-iam-policy=fail", "grant-key-policy=unknown"],
        says: &["IAM has simulated it", "TerraformStateKms"],
        silent: &[],
    },
    Row {
        name: "S3 grants nothing",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            bench.lab.world().bucket_mut(BUCKET).policy = Some(json!({ "Statement": [] }));
            same(bench)
        },
        reason: "state-unreadable",
        checks: &["same-account=unknown"],
        says: &["Grant s3:GetObject"],
        silent: &[],
    },
    Row {
        name: "kms:Decrypt missing",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-key-policy=unknown"],
        says: &["dry run of kms:Decrypt does not succeed"],
        silent: &[],
    },
    Row {
        name: "kms:GenerateDataKey missing",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            bench.lab.world().drop_from_key_policy(&bench.key, "kms:GenerateDataKey");
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-key-policy=unknown"],
        says: &["dry run of kms:GenerateDataKey does not succeed"],
        silent: &[],
    },
    Row {
        name: "alias",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |_| "alias/cabal-tf-state-production".into(),
        reason: "invalid-input",
        checks: &[],
        says: &["is an alias"],
        silent: &[],
    },
    Row {
        name: "key of another region",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| bench.key.replace("us-east-1", "eu-west-1"),
        reason: "key-unusable",
        checks: &["same-region=fail", "key-usable=fail"],
        says: &["Create a key in us-east-1"],
        silent: &[],
    },
    Row {
        name: "key of another account",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| bench.key.replace("111111111111", "333333333333"),
        reason: "wrong-bucket-owner",
        checks: &["same-account=fail"],
        says: &["does not belong to 333333333333"],
        silent: &[],
    },
    Row {
        name: "aws/s3",
        topology: Topology::Roles,
        who: "admin",
        arrange: |bench| bench.lab.world().aws_s3_key(BUCKET),
        reason: "key-unusable",
        checks: &["key-usable=fail"],
        says: &["is managed by AWS"],
        silent: &[],
    },
    Row {
        name: "disabled",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            bench.change_key(|key| key.state = "Disabled".into());
            same(bench)
        },
        reason: "key-unusable",
        checks: &["key-usable=fail"],
        says: &["aws kms enable-key"],
        silent: &[],
    },
    Row {
        name: "pending deletion",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            bench.change_key(|key| {
                key.state = "PendingDeletion".into();
                key.deletion = Some(1_798_070_400);
            });
            same(bench)
        },
        reason: "key-unusable",
        checks: &["key-usable=fail"],
        says: &["2026-12-24", "cancel-key-deletion"],
        silent: &[],
    },
    Row {
        name: "asymmetric",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            bench.change_key(|key| key.spec = "RSA_2048".into());
            same(bench)
        },
        reason: "key-unusable",
        checks: &["key-usable=fail"],
        says: &["RSA_2048"],
        silent: &[],
    },
    Row {
        name: "HMAC",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            bench.change_key(|key| {
                key.spec = "HMAC_256".into();
                key.usage = "GENERATE_VERIFY_MAC".into();
            });
            same(bench)
        },
        reason: "key-unusable",
        checks: &["key-usable=fail"],
        says: &["GENERATE_VERIFY_MAC"],
        silent: &[],
    },
    Row {
        name: "bucket policy refuses the key",
        topology: Topology::Roles,
        who: "admin",
        arrange: |bench| {
            let mut world = bench.lab.world();
            let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
            let deny = json!({ "Sid": "OtherKeyOnly", "Effect": "Deny", "Principal": "*",
                "Action": "s3:PutObject", "Resource": format!("arn:aws:s3:::{BUCKET}/*"),
                "Condition": { "StringNotEquals": {
                    "s3:x-amz-server-side-encryption-aws-kms-key-id": "arn:other" } } });
            policy["Statement"].as_array_mut().unwrap().push(deny);
            drop(world);
            same(bench)
        },
        reason: "bucket-policy-denies",
        checks: &["bucket-policy=fail"],
        says: &["OtherKeyOnly refuses production"],
        silent: &[],
    },
    Row {
        name: "key policy read: it does not grant, IAM does",
        topology: Topology::SameAccountRole,
        who: "deploy",
        arrange: |bench| {
            only_administers(bench);
            may(bench, json!(["kms:*", "iam:SimulatePrincipalPolicy"]));
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-key-policy=fail", "grant-iam-policy=pass"],
        says: &["the key policy has been read", "IAM has simulated it", "DeployPrincipalUse"],
        silent: &["TerraformStateKms"],
    },
    Row {
        name: "key policy read: it does not grant, of IAM nothing is known",
        topology: Topology::SameAccountRole,
        who: "deploy",
        arrange: |bench| {
            only_administers(bench);
            may(bench, json!("kms:GetKeyPolicy"));
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-key-policy=fail", "grant-iam-policy=unknown"],
        says: &["the key policy has been read", "DeployPrincipalUse", "TerraformStateKms"],
        silent: &[],
    },
    Row {
        name: "same account, no grant at all",
        topology: Topology::SameAccount,
        who: "deploy",
        arrange: |bench| {
            bench.lab.world().change_use_statement(&bench.key, |own| {
                own["Principal"] = json!({ "AWS": "arn:aws:iam::111111111111:role/another" });
            });
            same(bench)
        },
        reason: "rekey-failed",
        checks: &["grant-key-policy=unknown", "grant-iam-policy=unknown", "same-account=pass"],
        says: &["DeployPrincipalUse", "TerraformStateKms"],
        silent: &[],
    },
    Row {
        name: "IAM side lacks kms:Decrypt alone",
        topology: Topology::Users,
        who: "deploy",
        arrange: |bench| {
            drop_from_iam(bench, "kms:Decrypt");
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-iam-policy=unknown"],
        says: &["dry run of kms:Decrypt does not succeed", "hints at the IAM side"],
        silent: &[],
    },
    Row {
        name: "IAM side lacks kms:GenerateDataKey alone",
        topology: Topology::Users,
        who: "deploy",
        arrange: |bench| {
            drop_from_iam(bench, "kms:GenerateDataKey");
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-iam-policy=unknown"],
        says: &["dry run of kms:GenerateDataKey does not succeed", "hints at the IAM side"],
        silent: &[],
    },
    Row {
        name: "the bucket policy lacks s3:PutObject alone",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            let mut world = bench.lab.world();
            let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
            let text = policy.to_string().replace("\"s3:PutObject\"", "\"s3:None\"");
            *policy = serde_json::from_str(&text).unwrap();
            drop(world);
            same(bench)
        },
        reason: "rekey-failed",
        checks: &["grant-key-policy=pass", "grant-iam-policy=pass"],
        says: &["s3:PutObject"],
        silent: &["TerraformStateKms"],
    },
    Row {
        name: "the principal's own S3 side is for reads only",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            bench.lab.world().change_policies("deploy", |policies| {
                let text = json!(policies).to_string().replace("s3:*", "s3:GetObject");
                *policies = serde_json::from_str(&text).unwrap();
            });
            same(bench)
        },
        reason: "rekey-failed",
        checks: &["grant-key-policy=pass", "grant-iam-policy=pass"],
        says: &["s3:PutObject"],
        silent: &["TerraformStateKms"],
    },
];

fn assert_row(row: &Row, ran: &Ran) {
    for check in row.checks {
        let (id, status) = check.split_once('=').unwrap();
        assert_eq!(ran.check(id), status, "{}: {id}\n{}", row.name, ran.log);
    }
    for part in row.says {
        let said = ran.log.contains(part) || ran.report.to_string().contains(part);
        assert!(said, "{}: {part}\n{}", row.name, ran.log);
    }
    for part in row.silent {
        let said = ran.log.contains(part) || ran.summary.contains(part);
        assert!(!said, "{}: {part}\n{}", row.name, ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_nothing_is_written() {
    for row in ROWS {
        let bench = Bench::with(row.topology, |_| {}).await;
        let key = (row.arrange)(&bench);
        let digest = bench.digest();
        let plan = bench.run_as(row.who, "plan", &key, &[]).await;
        bench.assert_untouched(&digest);
        let ran = bench.run_as(row.who, "apply", &key, &[]).await.red(row.reason);
        bench.assert_untouched(&digest);
        assert_row(row, &ran);
        // What can be known before a write, `plan` knows too.
        if row.reason != "rekey-failed" {
            assert_eq!(plan.output("failure-reason"), row.reason, "{}", row.name);
        }
        for check in row.checks {
            let (id, status) = check.split_once('=').unwrap();
            assert_eq!(plan.check(id), status, "plan, {}: {id}\n{}", row.name, plan.log);
        }
    }
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
    // In place, where S3 refuses such a key: the copy takes over.
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
    let ran = other.run_as("admin", "apply", &key, &more).await.green();
    assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log);
    assert_eq!(other.encryption(KEYS[0]), Encryption::Kms { key });
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
        // And nothing else: another object's context does not do.
        let (statement, other) = (of_key.to_string(), format!("{BUCKET}/production-elsewhere"));
        assert!(!statement.contains(&other) && !statement.contains("production*"), "{statement}");
    }
}
