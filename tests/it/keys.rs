//! The key's whole life: made, used, changed, retired, recovered; and what is refused.

use aws_lab::{BUCKET, DEPLOY_ACCOUNT, Effect, Encryption, Matcher, STATE_ACCOUNT, Topology};
use serde_json::{Value, json};
use tfstate_kms::key_policy;

use crate::bench::Bench;
use crate::common::{KEYS, Ran, state};

pub const DEPLOY: &str = "arn:aws:iam::222222222222:role/cicd";
const WRITES: [&str; 9] = [
    "CreateKey",
    "CreateAlias",
    "TagResource",
    "EnableKeyRotation",
    "PutKeyPolicy",
    "EnableKey",
    "DisableKey",
    "ScheduleKeyDeletion",
    "CancelKeyDeletion",
];

/// Runs a key mode as the administrator of the state account.
pub async fn run(bench: &Bench, mode: &str, more: &[(&str, &str)]) -> Ran {
    let variables = bench.job_variables("key-admin", mode, "", more);
    tokio::task::block_in_place(|| bench.workspace.run(&variables))
}

pub fn key_writes(bench: &Bench) -> Vec<String> {
    let log = bench.lab.log();
    log.iter().map(|e| e.operation.clone()).filter(|o| WRITES.contains(&o.as_str())).collect()
}

pub const NEW: [(&str, &str); 2] =
    [("INPUT_ALIAS", "alias/new"), ("INPUT_DEPLOY-PRINCIPALS", DEPLOY)];

pub async fn create(bench: &Bench, confirm: &str) -> Ran {
    run(bench, "create-key", &[NEW[0], NEW[1], ("INPUT_CONFIRM", confirm)]).await
}

/// The variable cannot name a key before there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_be_made_where_encryption_is_required() {
    let bench = Bench::new().await;
    let more = [NEW[0], NEW[1], ("INPUT_CONFIRM", "create"), ("INPUT_REQUIRE-ENCRYPTION", "true")];
    let ran = run(&bench, "create-key", &more).await.green();
    assert_eq!(ran.output("changed"), "true", "{}", ran.log);
}

/// Part 2 of the runbook, as the summary gives it.
fn part_two(bench: &Bench, arn: &str) {
    let statement = json!({ "Statement": [{ "Sid": "TerraformStateKms", "Effect": "Allow",
        "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"], "Resource": arn }] });
    bench.lab.world().change_policies("deploy", |policies| policies.push(statement.clone()));
}

pub fn policy(bench: &Bench, arn: &str) -> Value {
    bench.lab.world().key_mut(arn).policy.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_runs_lead_to_an_encrypted_verified_environment() {
    let bench = Bench::new().await;
    // Without a word of confirmation nothing is written.
    let ran = run(&bench, "create-key", &NEW).await.green();
    assert_eq!((ran.output("changed"), ran.output("verified")), ("false", "false"), "{}", ran.log);
    assert!(key_writes(&bench).is_empty());
    assert!(
        ran.summary.contains("not done") && ran.summary.contains("RootAdmin"),
        "{}",
        ran.summary
    );

    let ran = create(&bench, "create").await.green();
    let arn = ran.output("kms-key-arn").to_owned();
    assert!(arn.starts_with(&format!("arn:aws:kms:us-east-1:{STATE_ACCOUNT}:key/")), "{}", ran.log);
    assert_eq!((ran.output("changed"), ran.output("verified")), ("true", "true"));
    assert_eq!(key_writes(&bench), ["CreateKey", "EnableKeyRotation", "CreateAlias"]);
    let runbook = json!({ "Version": "2012-10-17", "Statement": [
        { "Sid": "RootAdmin", "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{STATE_ACCOUNT}:root") },
          "Action": "kms:*", "Resource": "*" },
        { "Sid": "DeployPrincipalUse", "Effect": "Allow", "Principal": { "AWS": DEPLOY },
          "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"], "Resource": "*" } ] });
    assert!(key_policy::same(&policy(&bench, &arn), &runbook));
    assert!(
        ran.summary.contains("TerraformStateKms") && ran.summary.contains(&arn),
        "{}",
        ran.summary
    );
    assert_eq!((ran.check("key-rotation"), ran.check("same-region")), ("pass", "pass"));

    // Again: the same key, and not one write.
    bench.lab.clear_log();
    let ran = create(&bench, "create policy").await.green();
    assert_eq!((ran.output("kms-key-arn"), ran.output("changed")), (arn.as_str(), "false"));
    assert!(key_writes(&bench).is_empty(), "{:?}", key_writes(&bench));

    part_two(&bench, &arn);
    let ran = bench.run_as("deploy", "apply", &arn, &[]).await.green();
    assert_eq!((ran.output("rekeyed"), ran.output("verified")), ("2", "true"), "{}", ran.log);
    let ran = bench.run_as("deploy", "verify", &arn, &[]).await.green();
    assert_eq!(ran.output("gate"), "holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_kms_does_not_show_yet_is_waited_for() {
    let bench = Bench::new().await;
    bench.lab.world().forget_new_keys_for(4);
    let ran = create(&bench, "create").await.green();
    assert_eq!(ran.output("verified"), "true", "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_lacks_is_mended_as_far_as_it_is_confirmed() {
    let bench = Bench::new().await;
    let arn = create(&bench, "create").await.green().output("kms-key-arn").to_owned();
    let mine = json!({ "Sid": "Mine", "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{STATE_ACCOUNT}:role/key-admin") },
                       "Action": "kms:Decrypt", "Resource": "*", "Condition": { "Bool": { "aws:SecureTransport": "true" } } });
    bench.lab.world().key_mut(&arn).policy["Statement"] =
        json!([policy(&bench, &arn)["Statement"][0], mine]);
    let ran = create(&bench, "create").await.green();
    assert_eq!(ran.output("changed"), "false");
    assert!(
        ran.summary.contains("+      \"Sid\": \"DeployPrincipalUse\"")
            || ran.summary.contains("DeployPrincipalUse")
    );
    let ran = create(&bench, "policy").await.green();
    assert_eq!((ran.output("changed"), ran.output("verified")), ("true", "true"), "{}", ran.log);
    let now = policy(&bench, &arn);
    assert_eq!(now["Statement"][1], mine, "another statement stays as it is");
    assert!(now.to_string().contains("DeployPrincipalUse"));
    // The remnant of a principal that is gone is shown.
    bench.lab.world().key_mut(&arn).policy["Statement"].as_array_mut().unwrap().push(
        json!({ "Sid": "Gone", "Effect": "Allow", "Principal": { "AWS": "AIDAGONEGONEGONE" }, "Action": "kms:Decrypt", "Resource": "*" }));
    let ran = create(&bench, "create").await.green();
    assert!(ran.report.to_string().contains("AIDAGONEGONEGONE"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hardened_policy_lets_the_states_through_and_nothing_else() {
    // With S3 Bucket Keys, KMS is told the bucket and not the object.
    for bucket_key in [false, true] {
        let bench = Bench::with(Topology::Roles, |world| {
            world.bucket_mut(BUCKET).bucket_key = bucket_key;
        })
        .await;
        let more = [
            NEW[0],
            NEW[1],
            ("INPUT_CONFIRM", "create"),
            ("INPUT_KEY-POLICY", "hardened"),
            ("INPUT_ROTATION-DAYS", "180"),
        ];
        let ran = run(&bench, "create-key", &more).await.green();
        assert_eq!(ran.summary.contains("S3 Bucket Keys are on"), bucket_key, "{}", ran.summary);
        let arn = ran.output("kms-key-arn").to_owned();
        let text = policy(&bench, &arn).to_string();
        assert!(text.contains("kms:ViaService"));
        assert_eq!(text.contains(&format!("\"arn:aws:s3:::{BUCKET}\"")), bucket_key, "{text}");
        part_two(&bench, &arn);
        let ran = bench.run_as("deploy", "apply", &arn, &[]).await.green();
        assert!(ran.log.contains("one state goes first"), "{}", ran.log);
        assert_eq!(ran.output("rekeyed"), "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_variable_is_set_where_the_token_may() {
    let bench = Bench::with(Topology::Roles, |world| {
        world.github.variables.insert("prod env".into(), [].into());
    })
    .await;
    let more = [NEW[0], NEW[1], ("INPUT_CONFIRM", "create"), ("INPUT_SET-VARIABLE", "prod env")];
    let ran = run(&bench, "create-key", &more).await.red("variable-not-set");
    assert!(ran.log.contains("fine-grained token"), "{}", ran.log);
    bench.lab.world().github.permissions.insert("environments:write".into());
    let ran = run(&bench, "create-key", &more).await.green();
    let arn = ran.output("kms-key-arn").to_owned();
    let value = |bench: &Bench| {
        bench.lab.world().github.variables["prod env"].get("STATE_KMS_KEY_ID").cloned()
    };
    assert_eq!(value(&bench), Some(arn.clone()));
    let ran = run(&bench, "create-key", &more).await.green();
    assert_eq!(ran.output("changed"), "false");
    // Another value is changed only where that is confirmed.
    bench
        .lab
        .world()
        .github
        .variables
        .get_mut("prod env")
        .unwrap()
        .insert("STATE_KMS_KEY_ID".into(), "other".into());
    let ran = run(&bench, "create-key", &more).await.green();
    assert_eq!((value(&bench), ran.output("changed")), (Some("other".to_owned()), "false"));
    let more =
        [NEW[0], NEW[1], ("INPUT_CONFIRM", "create,variable"), ("INPUT_SET-VARIABLE", "prod env")];
    let _ = run(&bench, "create-key", &more).await.green();
    assert_eq!(value(&bench), Some(arn));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_in_the_right_place_only_and_for_principals_that_exist() {
    let bench = Bench::new().await;
    // A role of the deploy account would make a key that S3 cannot take.
    let variables =
        bench.variables("deploy", "create-key", "", &[NEW[0], NEW[1], ("INPUT_CONFIRM", "create")]);
    let ran =
        tokio::task::block_in_place(|| bench.workspace.run(&variables)).red("wrong-bucket-owner");
    assert!(ran.log.contains(DEPLOY_ACCOUNT), "{}", ran.log);
    let nobody = [
        NEW[0],
        ("INPUT_DEPLOY-PRINCIPALS", "arn:aws:iam::222222222222:role/nobody"),
        ("INPUT_CONFIRM", "create"),
    ];
    let ran = run(&bench, "create-key", &nobody).await.red("key-change-failed");
    assert!(ran.log.contains("principals that exist"), "{}", ran.log);
    assert!(!bench.lab.log().iter().any(|e| e.operation == "CreateKey" && e.status == 200));
    for (more, says) in [
        (vec![("INPUT_ALIAS", "alias/aws/x"), NEW[1]], "must be `alias/`"),
        (vec![NEW[0]], "`deploy-principals` is required"),
        (vec![NEW[0], NEW[1], ("INPUT_CONFIRM", "yes")], "`confirm` is `yes`"),
        (vec![NEW[0], NEW[1], ("INPUT_ROTATION-DAYS", "10")], "from 90 to 2560"),
        (vec![NEW[0], NEW[1], ("INPUT_TARGET-KEY", "x")], "has no meaning in mode `create-key`"),
    ] {
        let ran = run(&bench, "create-key", &more).await.red("invalid-input");
        assert!(ran.log.contains(says), "{says}: {}", ran.log);
    }
    let ran = bench.run("apply", &[("INPUT_CONFIRM", "x")]).await.red("invalid-input");
    assert!(ran.log.contains("has no meaning in mode `apply`"), "{}", ran.log);
}

/// States under an old key, then under a new one.
pub async fn changed() -> (Bench, String, String) {
    let bench = Bench::new().await;
    let old = bench.key.clone();
    let _ = bench.run("apply", &[]).await.green();
    let new = create(&bench, "create").await.green().output("kms-key-arn").to_owned();
    part_two(&bench, &new);
    let ran = bench.run_as("deploy", "apply", &new, &[]).await.green();
    assert_eq!(ran.output("rekeyed"), "2", "{}", ran.log);
    // Who may list versions sees what still needs the old key.
    let ran = bench.run_as("admin", "verify", &new, &[]).await.green();
    let needs = format!("2 still need the key {old}: {} (", KEYS[0]);
    assert!(ran.report.to_string().contains(&needs), "{}", ran.report);
    (bench, old, new)
}

pub fn id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_something_needs_is_not_retired() {
    let (bench, old, new) = changed().await;
    // Current objects.
    let confirm = ("INPUT_CONFIRM", id(&new));
    let ran =
        run(&bench, "retire-key", &[("INPUT_TARGET-KEY", &new), confirm]).await.red("key-in-use");
    assert!(ran.log.contains("2 current objects are under"), "{}", ran.log);
    // The one that the variable names.
    let named = [("INPUT_TARGET-KEY", new.as_str()), ("STATE_KMS_KEY_ID", new.as_str())];
    let ran = run(&bench, "retire-key", &named).await.red("invalid-input");
    assert!(ran.log.contains("is the key that STATE_KMS_KEY_ID names"), "{}", ran.log);
    // Old versions, unless they are given up by their exact number.
    let target = ("INPUT_TARGET-KEY", old.as_str());
    let confirm = ("INPUT_CONFIRM", id(&old));
    let ran = run(&bench, "retire-key", &[target, confirm]).await.red("key-in-use");
    assert!(ran.log.contains("2 old versions are under"), "{}", ran.log);
    assert!(ran.summary.contains("NoncurrentVersionExpiration"), "{}", ran.summary);
    for wrong in ["1", "3"] {
        let _ = run(&bench, "retire-key", &[target, confirm, ("INPUT_ABANDON-VERSIONS", wrong)])
            .await
            .red("key-in-use");
    }
    // What cannot be looked at.
    bench.lab.world().put_object(BUCKET, "elsewhere/secret", state(1), Encryption::SseS3);
    bench.lab.inject(
        Matcher::every("HeadObject").key("elsewhere/secret"),
        Effect::fail(403, "AccessDenied"),
    );
    let two = ("INPUT_ABANDON-VERSIONS", "2");
    let ran = run(&bench, "retire-key", &[target, confirm, two]).await.red("key-in-use");
    assert!(ran.log.contains("could not be looked at"), "{}", ran.log);
    bench.lab.clear_faults();
    // The bucket's default.
    bench.lab.world().bucket_mut(BUCKET).default_encryption = Encryption::Kms { key: old.clone() };
    let ran = run(&bench, "retire-key", &[target, confirm, two]).await.red("key-in-use");
    assert!(ran.log.contains("default encryption"), "{}", ran.log);
    let log = key_writes(&bench);
    assert!(!log.iter().any(|o| o == "DisableKey" || o == "ScheduleKeyDeletion"), "{log:?}");
    assert_eq!(bench.lab.world().key_mut(&old).state, "Enabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_retired_and_recovered() {
    let (bench, old, _) = changed().await;
    let target = ("INPUT_TARGET-KEY", old.as_str());
    let two = ("INPUT_ABANDON-VERSIONS", "2");
    let ran = run(&bench, "retire-key", &[target, two]).await.green();
    assert_eq!((ran.output("changed"), ran.output("verified")), ("false", "false"));
    assert_eq!(bench.lab.world().key_mut(&old).state, "Enabled");
    let confirm = ("INPUT_CONFIRM", id(&old));
    let ran = run(&bench, "retire-key", &[target, two, confirm, ("INPUT_DELETION-DAYS", "7")])
        .await
        .green();
    assert_eq!(ran.output("changed"), "true", "{}", ran.log);
    assert_eq!(bench.lab.world().key_mut(&old).state, "PendingDeletion");
    assert!(ran.summary.contains("recover-key"), "{}", ran.summary);
    // Again: nothing left to do.
    let ran = run(&bench, "retire-key", &[target, two, confirm]).await.green();
    assert_eq!(ran.output("changed"), "false");

    // A state goes back under it: it is needed after all.
    let kms = Encryption::Kms { key: old.clone() };
    bench.lab.world().put_object(BUCKET, KEYS[0], state(50), kms);
    let ran = run(&bench, "recover-key", &[target]).await.green();
    assert_eq!(
        (ran.output("changed"), bench.lab.world().key_mut(&old).state.as_str()),
        ("false", "PendingDeletion")
    );
    let ran = run(&bench, "recover-key", &[target, confirm]).await.green();
    assert_eq!(
        (ran.output("changed"), ran.check("object-readable")),
        ("true", "pass"),
        "{}",
        ran.log
    );
    assert_eq!(bench.lab.world().key_mut(&old).state, "Enabled");
    let ran = run(&bench, "recover-key", &[target, confirm]).await.green();
    assert_eq!(ran.output("changed"), "false");
    // Too late.
    let gone = old.replace(id(&old), "00000000-0000-4000-8000-00000000dead");
    let ran = run(&bench, "recover-key", &[("INPUT_TARGET-KEY", &gone)]).await.red("key-gone");
    assert!(ran.log.contains("nobody can bring it back"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compromised_principal_is_taken_out() {
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    let grant = bench.lab.world().add_grant(&bench.key, DEPLOY, &["Decrypt"]);
    let target = ("INPUT_TARGET-KEY", bench.key.as_str());
    let who = ("INPUT_DEPLOY-PRINCIPALS", DEPLOY);
    let before = policy(&bench, &bench.key);
    let ran = run(&bench, "revoke", &[target, who]).await.green();
    assert_eq!(ran.output("changed"), "false");
    assert_eq!(policy(&bench, &bench.key), before);
    assert!(
        ran.summary.contains("key policy afterwards") && ran.summary.contains(&grant),
        "{}",
        ran.summary
    );
    let confirm = ("INPUT_CONFIRM", id(&bench.key));
    let ran = run(&bench, "revoke", &[target, who, confirm]).await.green();
    assert_eq!(ran.output("changed"), "true", "{}", ran.log);
    let now = policy(&bench, &bench.key);
    assert!(!now.to_string().contains(DEPLOY), "{now}");
    assert!(
        key_policy::administrators(&now).contains(&format!("arn:aws:iam::{STATE_ACCOUNT}:root"))
    );
    let _ = bench.run("verify", &[]).await.red("state-unreadable");
    let ran = run(&bench, "revoke", &[target, who, confirm]).await.green();
    assert_eq!(ran.output("changed"), "false");
    // Never the last administrator.
    let root = format!("arn:aws:iam::{STATE_ACCOUNT}:role/key-admin");
    bench.lab.world().key_mut(&bench.key).policy = json!({ "Statement": [{ "Sid": "Only", "Effect": "Allow",
        "Principal": { "AWS": root }, "Action": "kms:*", "Resource": "*" }] });
    let only = ("INPUT_DEPLOY-PRINCIPALS", root.as_str());
    let _ = run(&bench, "revoke", &[target, only, confirm]).await.red("last-administrator");
}

/// Two keys that could be the one that is asked for: which, is for the operator to say.
#[tokio::test(flavor = "multi_thread")]
async fn two_keys_that_could_be_meant_are_a_refusal() {
    let bench = Bench::new().await;
    let made = create(&bench, "create").await.green().output("kms-key-arn").to_owned();
    let twin = bench.lab.world().add_key_like(&made);
    bench.lab.clear_log();
    for confirm in ["", "create"] {
        let ran = create(&bench, confirm).await.red("key-ambiguous");
        for arn in [&made, &twin] {
            let id = arn.rsplit('/').next().unwrap();
            assert!(ran.log.contains(id), "{id}: {}", ran.log);
        }
    }
    assert!(key_writes(&bench).is_empty(), "{:?}", key_writes(&bench));
}
