//! Every way in which a key or a grant can be wrong: the verdict, the failing checks, the
//! remedy, and a bucket that is as it was.

use aws_lab::{Encryption, Topology};
use serde_json::json;

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, Ran};

/// What is arranged, and what has to come of it.
struct Row {
    name: &'static str,
    who: &'static str,
    arrange: fn(&Bench) -> String,
    reason: &'static str,
    /// `id=status` of checks that tell.
    checks: &'static [&'static str],
    /// In the log or the summary.
    says: &'static [&'static str],
}

fn same(bench: &Bench) -> String {
    bench.key.clone()
}

const ROWS: &[Row] = &[
    Row {
        name: "key policy does not name the principal",
        who: "no-key-policy",
        arrange: same,
        reason: "rekey-failed",
        checks: &["grant-key-policy=unknown", "grant-iam-policy=unknown"],
        says: &["DeployPrincipalUse", "TerraformStateKms"],
    },
    Row {
        name: "IAM side lacks KMS",
        who: "no-iam",
        arrange: same,
        reason: "rekey-failed",
        checks: &["grant-key-policy=unknown", "grant-iam-policy=unknown"],
        says: &["hints at the IAM side", "TerraformStateKms"],
    },
    Row {
        name: "IAM side lacks KMS, and IAM says so",
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
    },
    Row {
        name: "S3 grants nothing",
        who: "deploy",
        arrange: |bench| {
            bench.lab.world().bucket_mut(BUCKET).policy = Some(json!({ "Statement": [] }));
            same(bench)
        },
        reason: "state-unreadable",
        checks: &["same-account=unknown"],
        says: &["Grant s3:GetObject"],
    },
    Row {
        name: "kms:Decrypt missing",
        who: "deploy",
        arrange: |bench| {
            bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-key-policy=unknown"],
        says: &["dry run of kms:Decrypt does not succeed"],
    },
    Row {
        name: "kms:GenerateDataKey missing",
        who: "deploy",
        arrange: |bench| {
            bench.lab.world().drop_from_key_policy(&bench.key, "kms:GenerateDataKey");
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-key-policy=unknown"],
        says: &["dry run of kms:GenerateDataKey does not succeed"],
    },
    Row {
        name: "alias",
        who: "deploy",
        arrange: |_| "alias/cabal-tf-state-production".into(),
        reason: "invalid-input",
        checks: &[],
        says: &["is an alias"],
    },
    Row {
        name: "key of another region",
        who: "deploy",
        arrange: |bench| bench.key.replace("us-east-1", "eu-west-1"),
        reason: "key-unusable",
        checks: &["same-region=fail", "key-usable=fail"],
        says: &["Create a key in us-east-1"],
    },
    Row {
        name: "key of another account",
        who: "deploy",
        arrange: |bench| bench.key.replace("111111111111", "333333333333"),
        reason: "wrong-bucket-owner",
        checks: &["same-account=fail"],
        says: &["does not belong to 333333333333"],
    },
    Row {
        name: "aws/s3",
        who: "admin",
        arrange: |bench| bench.lab.world().aws_s3_key(BUCKET),
        reason: "key-unusable",
        checks: &["key-usable=fail"],
        says: &["is managed by AWS"],
    },
    Row {
        name: "disabled",
        who: "deploy",
        arrange: |bench| {
            bench.change_key(|key| key.state = "Disabled".into());
            same(bench)
        },
        reason: "key-unusable",
        checks: &["key-usable=fail"],
        says: &["aws kms enable-key"],
    },
    Row {
        name: "pending deletion",
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
    },
    Row {
        name: "asymmetric",
        who: "deploy",
        arrange: |bench| {
            bench.change_key(|key| key.spec = "RSA_2048".into());
            same(bench)
        },
        reason: "key-unusable",
        checks: &["key-usable=fail"],
        says: &["RSA_2048"],
    },
    Row {
        name: "HMAC",
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
    },
    Row {
        name: "bucket policy refuses the key",
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
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_nothing_is_written() {
    for row in ROWS {
        let bench = Bench::new().await;
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
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_goes_through() {
    for topology in [Topology::Roles, Topology::Users, Topology::SameAccount] {
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
    for (action, check, status) in
        [("kms:Encrypt", "grant-key-policy", "warn"), ("kms:DescribeKey", "key-usable", "unknown")]
    {
        let bench = Bench::new().await;
        bench.lab.world().drop_from_key_policy(&bench.key, action);
        let ran = bench.run("apply", &[]).await.green();
        assert_eq!((ran.output("rekeyed"), ran.check(check)), ("2", status), "{action}");
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_of_a_missing_grant_is_enough_to_mend_it() {
    let bench = Bench::new().await;
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
    let ran = bench.run("apply", &[]).await.red("key-denied");
    let files = ran.report["statements"].as_array().unwrap();
    assert_eq!(files.len(), 3, "{files:?}");
    // Mended by what the file says, as a stranger would.
    let path = bench.workspace.path().join("tfstate-kms-key-policy-statement.json");
    let statement: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    insta::assert_snapshot!("summary_of_a_missing_grant", crate::output::steady(&ran.summary));
    bench.lab.world().change_use_statement(&bench.key, |own| *own = statement);
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(ran.output("gate"), "holds");
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
