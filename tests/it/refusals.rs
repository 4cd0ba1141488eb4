//! Every way in which a key or a grant can be wrong: the verdict, the failing checks, the
//! remedy, and a bucket that is as it was.

use aws_lab::Topology;
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::common::{BUCKET, Ran};
use crate::topologies::drop_from_iam;

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
fn may(bench: &Bench, actions: Value) {
    let one = json!({ "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": "*" }] });
    bench.lab.world().change_policies("deploy", |policies| policies.push(one.clone()));
}

/// Adds a statement to the bucket policy.
fn in_bucket_policy(bench: &Bench, statement: Value) {
    let mut world = bench.lab.world();
    let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
    policy["Statement"].as_array_mut().unwrap().push(statement);
}

/// Adds a statement to the key policy.
fn in_key_policy(bench: &Bench, statement: Value) {
    bench.change_key(|key| key.policy["Statement"].as_array_mut().unwrap().push(statement));
}

/// What denies an action to whom the principal is.
fn deny(principal: &str, action: &str) -> Value {
    json!({ "Sid": "NoMore", "Effect": "Deny", "Principal": { "AWS": principal },
            "Action": action, "Resource": "*" })
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
        says: &[
            "TerraformState222222222222cicd",
            "TerraformStateList222222222222cicd",
            "arn:aws:s3:::cabal-tf-backend/production-bootstrap",
            "aws s3api put-bucket-policy --bucket cabal-tf-backend",
            "aws iam put-role-policy --role-name cicd --policy-name TerraformState-cabal-tf-backend-production",
        ],
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
        checks: &["key-arn=fail"],
        // As the deploy principal's account has none of that name.
        says: &["is an alias", "Mend the input"],
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
        name: "usable replica in another region",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            let mut world = bench.lab.world();
            let mut key = world.key_mut(&bench.key).clone();
            let cut = key.arn.len() - key.id().len();
            let id = "mrk-5c0ffee1222243338444555555555555";
            key.arn = format!("{}{id}", &key.arn[..cut]).replace("us-east-1", "eu-west-1");
            let arn = key.arn.clone();
            world.add_key(key);
            arn
        },
        reason: "key-unusable",
        checks: &["same-region=fail", "key-usable=pass", "grant-key-policy=pass"],
        says: &["Name the key's replica in us-east-1: \
             arn:aws:kms:us-east-1:111111111111:key/mrk-5c0ffee1222243338444555555555555"],
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
            let deny = json!({ "Sid": "OtherKeyOnly", "Effect": "Deny", "Principal": "*",
                "Action": "s3:PutObject", "Resource": format!("arn:aws:s3:::{BUCKET}/*"),
                "Condition": { "StringNotEquals": {
                    "s3:x-amz-server-side-encryption-aws-kms-key-id": "arn:other" } } });
            in_bucket_policy(bench, deny);
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
        says: &["s3:PutObject", "TerraformState222222222222cicd", "aws s3api put-bucket-policy"],
        silent: &["TerraformStateKms", "on the key that the state is under now"],
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
        says: &["s3:PutObject", "TerraformState222222222222cicd", "aws s3api put-bucket-policy"],
        silent: &["TerraformStateKms", "on the key that the state is under now"],
    },
    Row {
        name: "IAM denies kms:Decrypt",
        topology: Topology::Users,
        who: "deploy",
        arrange: |bench| {
            let mut deny = deny("", "kms:Decrypt");
            deny.as_object_mut().unwrap().remove("Principal");
            let policy = json!({ "Statement": [deny] });
            bench.lab.world().change_policies("deploy", |policies| policies.push(policy.clone()));
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-iam-policy=unknown"],
        says: &["names an explicit deny in an identity-based policy", "in an IAM policy of"],
        silent: &["TerraformStateKms", "DeployPrincipalUse"],
    },
    Row {
        name: "the key policy, not to be read, denies kms:Decrypt",
        topology: Topology::Users,
        who: "deploy",
        arrange: |bench| {
            in_key_policy(bench, deny("arn:aws:iam::222222222222:user/terraform", "kms:Decrypt"));
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-key-policy=unknown"],
        says: &["There is an explicit deny in the key policy of"],
        silent: &["TerraformStateKms", "DeployPrincipalUse"],
    },
    Row {
        name: "key policy read: it denies",
        topology: Topology::SameAccountRole,
        who: "deploy",
        arrange: |bench| {
            may(bench, json!(["kms:*", "iam:SimulatePrincipalPolicy"]));
            in_key_policy(bench, deny("arn:aws:iam::111111111111:role/cicd", "kms:Decrypt"));
            same(bench)
        },
        reason: "key-denied",
        checks: &["grant-key-policy=fail", "grant-iam-policy=pass"],
        says: &["its statement NoMore denies it", "the statement NoMore of the key policy"],
        silent: &["TerraformStateKms", "DeployPrincipalUse"],
    },
    Row {
        name: "the session policy leaves KMS out",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            bench.lab.world().principal_mut("deploy").session_policy = Some(json!({ "Statement":
                [{ "Effect": "Allow", "Action": "s3:*", "Resource": "*" }] }));
            same(bench)
        },
        reason: "rekey-failed",
        checks: &["grant-key-policy=unknown", "grant-iam-policy=unknown"],
        says: &["a session policy that does not allow it", "inline-session-policy"],
        silent: &["TerraformState", "DeployPrincipalUse"],
    },
    Row {
        name: "the bucket policy, not to be read, denies s3:PutObject",
        topology: Topology::Roles,
        who: "deploy",
        arrange: |bench| {
            in_bucket_policy(bench, deny("arn:aws:iam::222222222222:role/cicd", "s3:PutObject"));
            same(bench)
        },
        reason: "rekey-failed",
        checks: &["grant-key-policy=pass", "bucket-policy=unknown"],
        says: &["There is an explicit deny in the bucket policy of cabal-tf-backend"],
        silent: &["TerraformState"],
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
