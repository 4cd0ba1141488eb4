//! Tests of policy reading.

use serde_json::json;

use super::*;

const KEY: &str = "arn:aws:kms:us-east-1:111111111111:key/5c0ffee1-2222-4333-8444-555555555555";
const ROLE: &str = "arn:aws:iam::222222222222:role/cicd";

fn policy(statements: Value) -> Policy {
    Policy::parse(&json!({ "Statement": statements }).to_string()).unwrap()
}

fn allow(principal: Value) -> Value {
    json!({ "Effect": "Allow", "Principal": principal, "Action": ["kms:Decrypt"], "Resource": "*" })
}

#[test]
fn reach_is_read_from_principals_and_conditions() {
    let who = Principal::of_arn(ROLE);
    let reach = |statement: Value| policy(json!([statement])).reach("kms:Decrypt", &who);
    assert_eq!(reach(allow(json!({ "AWS": ROLE }))), Reach::Allowed);
    assert_eq!(reach(allow(json!({ "AWS": "arn:aws:iam::222222222222:root" }))), Reach::Allowed);
    assert_eq!(reach(allow(json!({ "AWS": "222222222222" }))), Reach::Allowed);
    assert_eq!(reach(allow(json!("*"))), Reach::Allowed);
    assert_eq!(reach(allow(json!({ "AWS": "arn:aws:iam::111111111111:root" }))), Reach::Not);
    let mut conditional = allow(json!({ "AWS": ROLE }));
    conditional["Condition"] = json!({ "StringEquals": { "kms:ViaService": "s3" } });
    assert_eq!(reach(conditional), Reach::Perhaps);
    let denied =
        json!([allow(json!("*")), { "Effect": "Deny", "Principal": "*", "Action": "kms:*" }]);
    assert_eq!(policy(denied).reach("kms:Decrypt", &who), Reach::Not);
    let doubtful = json!([allow(json!("*")), { "Effect": "Deny", "NotPrincipal": { "AWS": ROLE }, "Action": "kms:*" }]);
    assert_eq!(policy(doubtful).reach("kms:Decrypt", &who), Reach::Perhaps);
    let other = json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:Encrypt" });
    assert_eq!(reach(other), Reach::Not);
}

#[test]
fn a_wide_key_policy_is_seen() {
    let key = KeyArn::parse(KEY).unwrap();
    let width = |principal: Value| policy(json!([allow(principal)])).width(&key);
    assert!(width(json!("*")).everyone.contains("kms:Decrypt"));
    assert!(width(json!({ "AWS": "*" })).everyone.contains("kms:Decrypt"));
    assert_eq!(
        width(json!({ "AWS": "arn:aws:iam::333333333333:root" })).accounts,
        BTreeMap::from([("333333333333".to_owned(), BTreeSet::from(["kms:Decrypt"]))])
    );
    assert_eq!(width(json!({ "AWS": "AIDAEXAMPLEID" })).remnants, ["AIDAEXAMPLEID"]);
    let own = width(json!({ "AWS": ["arn:aws:iam::111111111111:root", ROLE] }));
    assert_eq!(own, Width { own_account: true, ..Width::default() });
}

#[test]
fn a_bucket_policy_that_refuses_what_is_sent_is_found() {
    let object = "arn:aws:s3:::b/production";
    let sent = [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", KEY),
    ];
    let deny = |condition: Value| {
        let statement = json!({ "Sid": "S", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
                                "Resource": "arn:aws:s3:::b/*", "Condition": condition });
        policy(json!([statement])).denies_write(object, &sent, Some(&Principal::of_arn(ROLE)))
    };
    let hit = vec![Ok("S".to_owned())];
    let sse = "s3:x-amz-server-side-encryption";
    assert!(deny(json!({ "StringNotEquals": { sse: "aws:kms" } })).is_empty());
    assert_eq!(deny(json!({ "StringNotEquals": { sse: "AES256" } })), hit);
    assert!(deny(json!({ "Null": { sse: "true" } })).is_empty());
    let id = "s3:x-amz-server-side-encryption-aws-kms-key-id";
    assert_eq!(deny(json!({ "StringNotEquals": { id: "arn:other" } })), hit);
    assert!(
        deny(json!({ "StringNotLikeIfExists": { id: "arn:aws:kms:*:111111111111:key/*" } }))
            .is_empty()
    );
    assert!(deny(json!({ "Bool": { "aws:SecureTransport": "false" } })).is_empty());
    assert_eq!(
        deny(json!({ "StringNotEquals": { "aws:PrincipalOrgID": "o" } })),
        vec![Err("S".to_owned())]
    );
    assert_eq!(deny(Value::Null), hit);
    // The two operators for ARNs are one, with wildcards in each part.
    for equal in ["ArnEquals", "ArnLike"] {
        let any = json!({ equal: { id: "arn:aws:kms:*:111111111111:key/*" } });
        assert_eq!(deny(any), hit, "{equal}");
        assert!(deny(json!({ equal: { id: "arn:aws:kms:*:key/*" } })).is_empty(), "{equal}");
    }
    for other in ["ArnNotEquals", "ArnNotLike"] {
        let own = json!({ other: { id: "arn:aws:kms:us-east-1:111111111111:key/*" } });
        assert!(deny(own).is_empty(), "{other}");
    }
}

#[test]
fn a_denial_counts_for_whom_it_names() {
    let denials = |who: Option<&Principal>, part: Value| {
        let mut statement = json!({ "Sid": "S", "Effect": "Deny", "Action": "s3:*" });
        for (name, value) in part.as_object().unwrap() {
            statement[name] = value.clone();
        }
        policy(json!([statement])).denies_write("arn:aws:s3:::b/production", &[], who)
    };
    let role = Principal::of_arn(ROLE);
    let all = json!("*");
    let (hit, unclear) = (vec![Ok("S".to_owned())], vec![Err("S".to_owned())]);
    let by = |principal: Value| json!({ "Principal": principal, "Resource": all });
    assert_eq!(denials(Some(&role), by(json!({ "AWS": ROLE }))), hit);
    assert_eq!(denials(Some(&role), by(json!({ "AWS": "222222222222" }))), hit);
    assert!(
        denials(Some(&role), by(json!({ "AWS": "arn:aws:iam::222222222222:role/other" })))
            .is_empty()
    );
    assert!(denials(Some(&role), by(json!({ "Service": "logging.s3.amazonaws.com" }))).is_empty());
    assert_eq!(denials(None, by(json!({ "AWS": ROLE }))), unclear);
    assert_eq!(denials(None, by(json!("*"))), hit);
    let session = "arn:aws:sts::222222222222:assumed-role/cicd/run";
    let guessed = Principal::of_caller(session, "222222222222", &[]);
    assert_eq!(
        denials(Some(&guessed), by(json!({ "AWS": "arn:aws:iam::222222222222:role/ci/cicd" }))),
        unclear
    );
    assert_eq!(
        denials(Some(&role), json!({ "NotPrincipal": { "AWS": ROLE }, "Resource": all })),
        unclear
    );
    let elsewhere = json!({ "Principal": "*", "NotResource": "arn:aws:s3:::b/prod*" });
    assert!(denials(Some(&role), elsewhere).is_empty());
    let here = json!({ "Principal": "*", "NotResource": "arn:aws:s3:::b/dev*" });
    assert_eq!(denials(Some(&role), here), hit);
}

#[test]
fn wildcards() {
    for (pattern, text, hit) in [
        ("*", "", true),
        ("a*", "abc", true),
        ("a*c", "abc", true),
        ("a*b*c", "axbxc", true),
        ("a*d", "abc", false),
        ("a?c", "abc", true),
        ("abc", "abcd", false),
        ("*bc", "abcbc", true),
        ("kms:re*", "kms:reencryptfrom", true),
    ] {
        assert_eq!(like(pattern, text), hit, "{pattern} {text}");
    }
}
