//! Tests of the statements and of how they get to their place.

use super::*;

const KEY: &str = "arn:aws:kms:us-east-1:111111111111:key/5c0ffee1-2222-4333-8444-555555555555";

#[test]
fn only_what_may_be_missing_is_printed() {
    let key = KeyArn::parse(KEY).unwrap();
    let text = |key_policy, iam| {
        let role = "arn:aws:iam::222222222222:role/plan";
        of_reader(role, &key, Sides { key_policy, iam })
    };
    let both = text(None, None);
    assert!(both.contains("StateReaderUse") && both.contains("TerraformStateKmsRead"));
    assert!(!text(Some(true), Some(false)).contains("StateReaderUse"));
    assert!(!text(Some(false), Some(true)).contains("TerraformStateKmsRead"));
}

#[test]
fn the_commands_are_those_of_the_side_that_is_missing() {
    let key = KeyArn::parse(KEY).unwrap();
    let role = "arn:aws:iam::222222222222:role/ci/plan";
    let text = |key_policy, iam| of_reader(role, &key, Sides { key_policy, iam });
    let (of_key, of_iam) = ("aws kms put-key-policy", "aws iam put-role-policy --role-name plan ");
    let both = text(None, None);
    assert!(both.contains(of_key) && both.contains(of_iam), "{both}");
    assert!(!text(Some(true), Some(false)).contains(of_key));
    assert!(!text(Some(false), Some(true)).contains(of_iam));
    let user = put_policy("arn:aws:iam::222222222222:user/terraform", "P");
    assert!(user.unwrap().starts_with("aws iam put-user-policy --user-name terraform "));
    for other in [
        "<DEPLOY_PRINCIPAL_ARN>",
        "arn:aws:iam::1:root",
        "arn:aws:iam::1:role/a;b",
        "a:b:c:d:e:role/",
    ] {
        assert_eq!(put_policy(other, "P"), None, "{other}");
    }
}

#[test]
fn the_hardened_variant_names_service_and_states() {
    let key = KeyArn::parse(KEY).unwrap();
    let with = |states: &[String], bucket_keys| {
        let (partition, region) = (key.partition(), key.region());
        let bucket = StateBucket { name: "b", bucket_keys };
        hardened_statements(&["p".into()], partition, region, bucket, states).to_string()
    };
    let hardened = |states: &[String]| with(states, Some(false));
    let text = hardened(&["production".into()]);
    assert!(text.contains("s3.us-east-1.amazonaws.com"));
    let exact = r#"["arn:aws:s3:::b/production","arn:aws:s3:::b/production.tflock"]"#;
    assert!(text.contains(exact), "{text}");
    for bucket_keys in [Some(true), None] {
        let text = with(&["production".into()], bucket_keys);
        assert!(text.contains(r#".tflock","arn:aws:s3:::b"]"#), "{text}");
    }
    assert!(hardened(&["env:/".into()]).contains(r#"["arn:aws:s3:::b/env:/*"]"#));
    let many: Vec<String> = (0..5000).map(|n| format!("state-{n}")).collect();
    let text = hardened(&many);
    assert!(text.contains(r#"["arn:aws:s3:::b/*"]"#) && text.len() < 2000, "{text}");
}

/// What of a text is JSON: documents, and statements separated by commas.
fn json_of(text: &str) -> Vec<Value> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut from = None;
    for (at, line) in lines.iter().enumerate() {
        match *line {
            "{" => from = Some(at),
            "}" | "}," => {
                let text = lines[from.unwrap()..=at].join("\n");
                found.push(serde_json::from_str(text.trim_end_matches(',')).unwrap());
            }
            _ => {}
        }
    }
    found
}

fn deploy() -> Caller {
    Caller {
        arn: "arn:aws:sts::222222222222:assumed-role/cicd/run".into(),
        account: "222222222222".into(),
        principal: crate::principal::Principal::of_arn("arn:aws:iam::222222222222:role/cicd"),
    }
}

/// `put-role-policy` replaces the policy of that name: one for each purpose and key.
#[test]
fn a_policy_for_one_key_or_purpose_does_not_replace_another() {
    let key = KeyArn::parse(KEY).unwrap();
    let other = KeyArn::parse(&KEY.replace("5c0ffee1", "99999999")).unwrap();
    let role = "arn:aws:iam::222222222222:role/cicd";
    let texts = [&key, &other].map(|key| {
        let hardened = StateBucket { name: "b", bucket_keys: None };
        let states = ["production".to_owned()];
        let hardened = Some((hardened, states.as_slice()));
        [
            of_reader(role, key, Sides::default()),
            of_deploy(Some(&deploy()), key, Sides::default(), hardened),
        ]
    });
    let names: std::collections::BTreeSet<&str> = texts
        .iter()
        .flatten()
        .map(|text| text.split("--policy-name TerraformState").nth(1).unwrap())
        .map(|rest| rest.split(' ').next().unwrap())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.iter().all(|name| name.len() < 100 && name.starts_with("Kms")), "{names:?}");
}

/// The Sids of a policy have to differ.
#[test]
fn each_reader_has_a_sid_of_its_own() {
    let key = KeyArn::parse(KEY).unwrap();
    let sids: std::collections::BTreeSet<String> = [
        "arn:aws:iam::222222222222:role/plan",
        "arn:aws:iam::222222222222:role/ci/drift-check",
        "arn:aws:iam::333333333333:role/plan",
    ]
    .iter()
    .map(|role| {
        let text = of_reader(role, &key, Sides { key_policy: None, iam: Some(true) });
        json_of(&text)[0]["Sid"].as_str().unwrap().to_owned()
    })
    .collect();
    assert_eq!(sids.len(), 3, "{sids:?}");
    assert!(sids.iter().all(|sid| sid.bytes().all(|b| b.is_ascii_alphanumeric())), "{sids:?}");
}

/// What is printed for the key policy are elements of its list; what is printed for IAM is a
/// policy as it stands.
#[test]
fn what_is_printed_fits_what_is_said_of_it() {
    let key = KeyArn::parse(KEY).unwrap();
    let states = ["production".to_owned()];
    let bucket = StateBucket { name: "b", bucket_keys: Some(false) };
    let text = |key_policy, iam| {
        let sides = Sides { key_policy, iam };
        of_deploy(Some(&deploy()), &key, sides, Some((bucket, states.as_slice())))
    };
    let of_key = json_of(&text(None, Some(true)));
    assert_eq!(of_key.len(), 3);
    for statement in of_key {
        assert!(statement["Sid"].is_string() && statement["Principal"].is_object(), "{statement}");
    }
    let of_iam = json_of(&text(Some(true), None));
    assert_eq!(of_iam.len(), 2);
    for document in of_iam {
        assert_eq!(document["Version"], "2012-10-17");
        let statements = document["Statement"].as_array().unwrap();
        assert!(!statements.is_empty() && statements.iter().all(|one| one["Sid"].is_string()));
    }
    for part in ["Take ONE variant", "credentials of account 222222222222", "Then run again"] {
        assert!(text(None, None).contains(part), "{part}");
    }
}
