//! Policy documents, compared by meaning, and edited without side effects.

use proptest::prelude::*;

use super::*;

const ACCOUNT: &str = "111111111111";
const CICD: &str = "arn:aws:iam::222222222222:role/cicd";

fn role(name: &str) -> String {
    format!("arn:aws:iam::222222222222:role/{name}")
}

fn new(principals: &[&str]) -> Value {
    let principals: Vec<String> = principals.iter().map(|arn| (*arn).to_owned()).collect();
    wanted("aws", ACCOUNT, &principals, Usage::Direct)
}

/// The runbook's Part 1, word for word.
#[test]
fn it_means_what_the_runbook_says() {
    let runbook = json!({
      "Version": "2012-10-17",
      "Statement": [
        { "Sid": "RootAdmin", "Effect": "Allow",
          "Principal": { "AWS": "arn:aws:iam::111111111111:root" }, "Action": "kms:*", "Resource": "*" },
        { "Sid": "DeployPrincipalUse", "Effect": "Allow", "Principal": { "AWS": CICD },
          "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"], "Resource": "*" }
      ]
    });
    assert_eq!(new(&[CICD]), runbook);
    assert!(same(&new(&[CICD]), &runbook));
}

#[test]
fn meaning_is_not_spelling() {
    let a = json!({ "Statement": [{ "Sid": "A", "Effect": "Allow", "Action": ["kms:Decrypt", "kms:Encrypt"],
        "Principal": { "AWS": ["111111111111", "x"] }, "Resource": "*" }] });
    let b = json!({ "Statement": { "Effect": "Allow", "Action": ["KMS:encrypt", "kms:Decrypt", "kms:Decrypt"],
        "Principal": { "AWS": ["x", "arn:aws:iam::111111111111:root"] }, "Resource": ["*"] } });
    assert!(same(&a, &b));
    let mut c = b.clone();
    c["Statement"]["Effect"] = "Deny".into();
    assert!(!same(&a, &c));
    let mut d = b;
    d["Statement"]["Condition"] = json!({ "Bool": { "aws:SecureTransport": "true" } });
    assert!(!same(&a, &d));
}

#[test]
fn what_is_lacking_is_added_and_nothing_else() {
    let one = new(&[CICD]);
    assert!(lacking(&one, &one).is_empty());
    let two = new(&[CICD, &role("other")]);
    assert_eq!(lacking(&one, &two), [("DeployPrincipalUse".to_owned(), vec![role("other")])]);
    assert!(same(&grant(&one, &two), &two));
    // More than wanted is no lack, a condition is.
    assert!(lacking(&two, &one).is_empty());
    let mut conditional = one.clone();
    conditional["Statement"][1]["Condition"] = json!({ "Bool": { "aws:SecureTransport": "true" } });
    assert_eq!(lacking(&conditional, &one).len(), 1);
    let mended = grant(&conditional, &one);
    assert_eq!(mended["Statement"][1], conditional["Statement"][1]);
    assert_eq!(mended["Statement"][2]["Sid"], "DeployPrincipalUse2");
    assert!(lacking(&mended, &one).is_empty());
}

#[test]
fn the_hardened_policy_names_s3_and_the_states() {
    let states = ["production".to_owned()];
    let bucket = StateBucket { name: "b", bucket_keys: Some(false) };
    let usage = Usage::ThroughS3 { region: "us-east-1", bucket, states: &states };
    let policy = wanted("aws", ACCOUNT, &[CICD.to_owned()], usage);
    let text = policy.to_string();
    assert!(text.contains("kms:ViaService") && text.contains("arn:aws:s3:::b/production.tflock"));
    assert!(administrators(&policy).contains("arn:aws:iam::111111111111:root"));
    assert!(lacking(&policy, &policy).is_empty());
    // The wider grant covers the narrower one; not the other way round.
    assert!(lacking(&new(&[CICD]), &policy).is_empty());
    assert_eq!(lacking(&policy, &new(&[CICD])).len(), 1);
}

#[test]
fn a_revoked_principal_is_out_of_every_statement() {
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        new(&[])["Statement"][0],
        { "Sid": "Alone", "Effect": "Allow", "Principal": { "AWS": CICD }, "Action": "kms:Decrypt", "Resource": "*" },
        { "Sid": "Listed", "Effect": "Allow", "Principal": { "AWS": [CICD, role("x")] }, "Action": "kms:Decrypt", "Resource": "*" },
        { "Sid": "Session", "Effect": "Allow", "Principal": { "AWS": ["arn:aws:sts::222222222222:assumed-role/cicd/run", role("x")] },
          "Action": "kms:Decrypt", "Resource": "*" },
        { "Sid": "Condition", "Effect": "Allow", "Principal": { "AWS": "*" }, "Action": "kms:Decrypt", "Resource": "*",
          "Condition": { "ArnEquals": { "aws:PrincipalArn": [CICD, role("x")] } } },
        { "Sid": "OnlyCondition", "Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*",
          "Condition": { "StringEquals": { "aws:PrincipalArn": CICD } } },
        { "Sid": "Denied", "Effect": "Deny", "Principal": { "AWS": [CICD] }, "Action": "kms:*", "Resource": "*" },
        { "Sid": "Excepted", "Effect": "Deny", "NotPrincipal": { "AWS": [CICD, role("x")] }, "Action": "kms:Decrypt", "Resource": "*" },
    ] });
    let revoked = revoke(&policy, &Principal::of_arn(CICD)).unwrap();
    let sids: Vec<&str> = revoked.policy["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|s| s["Sid"].as_str())
        .collect();
    assert_eq!(sids, ["RootAdmin", "Listed", "Session", "Condition", "Denied", "Excepted"]);
    for statement in revoked.policy["Statement"].as_array().unwrap() {
        let denied = statement["Sid"] == "Denied";
        assert_eq!(statement.to_string().contains("cicd"), denied, "{statement}");
    }
    assert_eq!(revoked.remaining.len(), 1, "{:?}", revoked.remaining);
    let again = revoke(&revoked.policy, &Principal::of_arn(CICD)).unwrap();
    assert!(!again.changed && again.policy == revoked.policy);
    let shown = diff(&policy, &revoked.policy);
    assert!(shown.contains("-      \"Sid\": \"Alone\"") || shown.contains("Alone"), "{shown}");
}

#[test]
fn the_last_administrator_stays() {
    let policy = json!({ "Statement": [{ "Sid": "A", "Effect": "Allow", "Principal": { "AWS": CICD },
                                         "Action": "kms:*", "Resource": "*" }] });
    assert!(revoke(&policy, &Principal::of_arn(CICD)).unwrap_err().contains("nobody could change"));
    let root = Principal::of_arn("arn:aws:iam::111111111111:root");
    assert!(revoke(&new(&[CICD]), &root).is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Grant(u8),
    Revoke(u8),
}

proptest! {
    /// Whatever is granted and revoked in whatever order: root administers, foreign
    /// statements stay as they are, and who was revoked last has nothing.
    #[test]
    fn no_sequence_of_edits_loses_the_root_or_touches_another_statement(
        steps in prop::collection::vec(prop_oneof![(0_u8..4).prop_map(Step::Grant), (0_u8..4).prop_map(Step::Revoke)], 0..12),
        action in "kms:[A-Z][a-z]{1,8}",
    ) {
        let foreign = json!({ "Sid": "Foreign", "Effect": "Allow", "Principal": { "Service": "x.amazonaws.com", "AWS": role("foreign") },
                              "Action": action, "Resource": "*", "Condition": { "Bool": { "aws:SecureTransport": "true" } } });
        let mut policy = new(&[CICD]);
        policy["Statement"].as_array_mut().unwrap().push(foreign.clone());
        for step in &steps {
            match step {
                Step::Grant(n) => policy = grant(&policy, &new(&[&role(&format!("r{n}"))])),
                Step::Revoke(n) => {
                    let who = role(&format!("r{n}"));
                    policy = revoke(&policy, &Principal::of_arn(&who)).unwrap().policy;
                    let quoted = format!("{who}\"");
                    prop_assert!(!policy.to_string().contains(&quoted));
                }
            }
            prop_assert!(administrators(&policy).contains("arn:aws:iam::111111111111:root"));
            prop_assert!(policy["Statement"].as_array().unwrap().contains(&foreign));
            prop_assert!(lacking(&policy, &new(&[CICD])).is_empty());
            let sids: Vec<String> = policy["Statement"].as_array().unwrap().iter().map(|s| s["Sid"].to_string()).collect();
            prop_assert_eq!(sids.iter().collect::<BTreeSet<_>>().len(), sids.len());
        }
    }
}

/// KMS shows an account by its root, which others write as its id.
#[test]
fn an_account_is_the_same_by_id_and_by_root_in_every_partition() {
    for partition in ["aws", "aws-cn", "aws-us-gov"] {
        let by = |principal: &str| {
            json!({ "Statement": [{ "Sid": "RootAdmin", "Effect": "Allow", "Action": "kms:*",
                "Principal": { "AWS": principal }, "Resource": "*" }] })
        };
        let root = format!("arn:{partition}:iam::111111111111:root");
        assert!(same(&by("111111111111"), &by(&root)), "{partition}");
        assert!(lacking(&by("111111111111"), &by(&root)).is_empty(), "{partition}");
        assert!(!same(&by("222222222222"), &by(&root)), "{partition}");
    }
}
