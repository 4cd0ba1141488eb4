//! Tests of [`resolve`].

use super::*;

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn request<const N: usize>(variables: [(&str, &str); N]) -> Request {
    let (result, warnings) = resolve(&Environment::from(variables));
    assert!(warnings.is_empty(), "{warnings:?}");
    result.unwrap_or_else(|refused| panic!("{:?}", refused.problems))
}

fn problems<const N: usize>(variables: [(&str, &str); N]) -> Vec<String> {
    let (result, _) = resolve(&Environment::from(variables));
    result.unwrap_err().problems.iter().map(ToString::to_string).collect()
}

#[test]
fn todays_variables_are_enough() {
    let request = request([
        ("STATE_KMS_KEY_ID", ARN),
        ("TF_ENVIRONMENT", "production"),
        ("TF_MODULE", "dns"),
        ("TF_STATE_BUCKET", "cabal-tf-backend"),
        ("TF_VAR_AWS_REGION", "us-east-1"),
    ]);
    assert_eq!(request.mode, Mode::Apply);
    assert_eq!(request.key.as_ref().map(KeyArn::as_str), Some(ARN));
    assert_eq!(request.bucket_owner.as_deref(), Some("111122223333"));
    assert_eq!(request.layout.modules[0].key, "production-bootstrap");
    assert_eq!(request.module_folder("dns"), PathBuf::from("terraform/dns"));
    assert_eq!(request.region, Some(GivenRegion { name: "us-east-1".into(), asked_for: true }));
}

#[test]
fn inputs_win_over_variables_and_empty_ones_do_not_count() {
    let request = request([
        ("INPUT_KMS-KEY-ID", ""),
        ("STATE_KMS_KEY_ID", " "),
        ("INPUT_ENVIRONMENT", "stage"),
        ("TF_ENVIRONMENT", "production"),
        ("INPUT_BUCKET", "one-bucket"),
        ("TF_STATE_BUCKET", "another"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("INPUT_MODULES", "infra,\n dns  infra"),
    ]);
    assert_eq!(request.key, None);
    assert_eq!(request.bucket_owner, None);
    assert_eq!((request.environment.as_str(), request.bucket.as_str()), ("stage", "one-bucket"));
    assert_eq!(request.region, Some(GivenRegion { name: "eu-west-1".into(), asked_for: false }));
    assert_eq!(request.layout.modules.len(), 2);
}

#[test]
fn all_problems_are_reported_at_once() {
    let all = problems([
        ("INPUT_MODE", "aply"),
        ("INPUT_KMS-KEY-ID", "alias/state"),
        ("INPUT_ENVIRONMENT", "../prod"),
        ("INPUT_MODULES", "infra ../../etc"),
        ("INPUT_BUCKET", "Bad_Bucket"),
        ("INPUT_BUCKET-OWNER", "12"),
        ("INPUT_REGION", "***"),
        ("INPUT_REQUIRE-STATE", "yes"),
        ("INPUT_WORKING-DIRECTORY", "../elsewhere"),
        ("INPUT_REPORT-PATH", "/etc/passwd"),
        ("INPUT_ACL", "everyone"),
        ("INPUT_PROBE", "always"),
        ("INPUT_MUST-READ", "plan-role"),
        ("INPUT_IN-FLIGHT", "a/b.yml"),
        ("INPUT_CONFIRM", "x"),
    ]);
    for part in [
        "`mode` is `aply`; it takes `backend`, `plan`, `apply`, `verify`, `rollback`, `create-key`",
        "`kms-key-id` `alias/state` is an alias",
        "`environment` is `../prod`: it must not contain",
        "`modules` is `../../etc`: it must not contain",
        "`bucket` is `Bad_Bucket`: a bucket's name has lower-case letters",
        "`bucket-owner` is `12`: it is not an account id",
        "`region` is `***`",
        "`require-state` is `yes`; it takes true or false",
        "`working-directory` is `../elsewhere`: it must be a path below the workspace",
        "`report-path` is `/etc/passwd`: it must be a path below the workspace",
        "`acl` is `everyone`: it is not a canned ACL",
        "`probe` is `always`; it takes `auto`, `web-identity`, `federation`, `role` or `off`",
        "`must-read` is `plan-role`: it is not the ARN of an IAM role or user",
        "`in-flight` is `a/b.yml`: it must be `auto`, `none` or file names",
        "`confirm` has no meaning in mode",
    ] {
        assert!(all.iter().any(|p| p.contains(part)), "missing: {part}\nin {all:#?}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let base = [("INPUT_BUCKET", "one-bucket"), ("INPUT_ENVIRONMENT", "production")];
    let with = |more: [(&'static str, &'static str); 2]| {
        problems([base[0], base[1], more[0], more[1]]).join("\n")
    };
    let other = "arn:aws:kms:us-east-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab";
    assert!(
        with([("INPUT_KMS-KEY-ID", ARN), ("STATE_KMS_KEY_ID", other)])
            .contains("give one of them, or both alike")
    );
    assert!(
        with([("INPUT_KMS-KEY-ID", ARN), ("INPUT_MODE", "rollback")])
            .contains("Clear the variable first")
    );
    assert!(
        with([("INPUT_BACKEND-FORMAT", "none"), ("INPUT_MODE", "backend")])
            .contains("nothing to write")
    );
    assert!(
        problems([("TF_ENVIRONMENT", "a"), ("TF_VAR_ENVIRONMENT", "b"), base[0]])
            .join("")
            .contains("TF_ENVIRONMENT (`a`) and TF_VAR_ENVIRONMENT (`b`) differ")
    );
}

#[test]
fn what_is_required_is_named() {
    let all = problems([("INPUT_MODE", "apply")]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].starts_with("`environment` is required"));
    assert!(all[1].starts_with("`bucket` is required"));
}

#[test]
fn absolute_paths_in_the_workspace_become_relative() {
    let request = request([
        ("GITHUB_WORKSPACE", "/github/workspace"),
        ("INPUT_BUCKET", "one-bucket"),
        ("INPUT_ENVIRONMENT", "production"),
        ("INPUT_WORKING-DIRECTORY", "/github/workspace/./stacks"),
    ]);
    assert_eq!(request.working_directory, PathBuf::from("stacks"));
}

#[test]
fn an_alias_can_be_looked_up() {
    let (result, _) = resolve(&Environment::from([("STATE_KMS_KEY_ID", "alias/state")]));
    assert_eq!(result.unwrap_err().key_to_look_up.as_deref(), Some("alias/state"));
}

#[test]
fn inputs_that_would_do_nothing_are_refused() {
    for (name, value, says) in [
        ("INPUT_IN-FLIGHT", ",", "names no file"),
        ("INPUT_IN-FLIGHT-BRANCH", "refs/heads/main", "without `refs/heads/`"),
        ("INPUT_TIME-LIMIT", "0", "at least one second"),
        (
            "INPUT_PROBE-ROLE-ARN",
            "arn:aws:iam::111111111111:role/a arn:aws:iam::111111111111:role/b",
            "takes one ARN",
        ),
    ] {
        let all = problems([("INPUT_BUCKET", "b-1"), ("INPUT_ENVIRONMENT", "e"), (name, value)]);
        assert!(all.len() == 1 && all[0].contains(says), "{name}: {all:?}");
    }
    for probe in ["federation", "web-identity"] {
        let all = problems([
            ("INPUT_BUCKET", "b-1"),
            ("INPUT_ENVIRONMENT", "e"),
            ("INPUT_PROBE", probe),
            ("INPUT_PROBE-ROLE-ARN", "arn:aws:iam::111111111111:role/a"),
        ]);
        assert!(all.len() == 1 && all[0].contains("goes with"), "{probe}: {all:?}");
    }
}
