//! What evidence about a key comes to.

use super::*;
use crate::aws::Lack;

const BUCKET: StateBucket<'_> = StateBucket { name: "b", bucket_keys: None };

const ARN: &str = "arn:aws:kms:us-east-1:111111111111:key/11111111-2222-4333-8444-555555555555";

fn target() -> KeyArn {
    KeyArn::parse(ARN).unwrap()
}

fn error(kind: Kind, code: &str) -> AwsError {
    AwsError {
        kind,
        operation: "kms:Decrypt",
        status: Some(400),
        code: Some(code.into()),
        message: None,
        request_id: None,
        bucket_region: None,
        delete_marker: false,
    }
}

fn refused() -> DryRun {
    DryRun::Refused(error(Kind::Denied, "AccessDeniedException"))
}

fn unclear() -> DryRun {
    DryRun::Unclear(error(Kind::Invalid, "ValidationException"))
}

fn healthy() -> KeyDescription {
    KeyDescription {
        arn: ARN.into(),
        state: "Enabled".into(),
        aws_managed: false,
        spec: "SYMMETRIC_DEFAULT".into(),
        usage: "ENCRYPT_DECRYPT".into(),
        deletion_date: None,
    }
}

fn evidence(generate: DryRun, decrypt: DryRun, encrypt: DryRun) -> Evidence {
    Evidence {
        caller: Ok(Caller {
            arn: "arn:aws:sts::222222222222:assumed-role/cicd/run".into(),
            account: "222222222222".into(),
            principal: crate::principal::Principal::of_arn("arn:aws:iam::222222222222:role/cicd"),
        }),
        key: Some(KeyEvidence {
            description: Ok(healthy()),
            rotation: Ok(true),
            policy: Err(error(Kind::Denied, "AccessDeniedException")),
            not_allowed_by_iam: None,
            read_under_key: false,
            encrypt,
            uses: vec![Use { state: "production".into(), generate, decrypt }],
        }),
    }
}

fn not_allowed(lack: Lack) -> NotAllowed {
    NotAllowed { action: "kms:Decrypt".into(), lack }
}

fn described(change: impl FnOnce(&mut KeyDescription)) -> Evidence {
    let mut evidence = evidence(DryRun::Allowed, DryRun::Allowed, DryRun::Allowed);
    let mut description = healthy();
    change(&mut description);
    if let Some(key) = &mut evidence.key {
        key.description = Ok(description);
    }
    evidence
}

fn status(judgement: &Judgement, id: CheckId) -> Status {
    judgement.checks.iter().find(|check| check.id == id).unwrap().status
}

#[test]
fn dry_runs_prove_refuse_or_leave_it_to_s3() {
    let ok = || DryRun::Allowed;
    for (generate, decrypt, encrypt, access, refusals) in [
        (ok(), ok(), ok(), Access::Proven, 0),
        (ok(), ok(), refused(), Access::Proven, 0),
        (ok(), refused(), ok(), Access::Refused, 1),
        (refused(), ok(), ok(), Access::Refused, 1),
        (refused(), refused(), ok(), Access::OnlyS3CanTell, 0),
        (refused(), refused(), refused(), Access::OnlyS3CanTell, 0),
        (unclear(), unclear(), ok(), Access::OnlyS3CanTell, 0),
        (ok(), unclear(), ok(), Access::OnlyS3CanTell, 0),
    ] {
        let what = format!("{generate:?} {decrypt:?} {encrypt:?}");
        let judgement = judge(&evidence(generate, decrypt, encrypt), Some(&target()), BUCKET);
        assert_eq!(judgement.access, Some(access), "{what}");
        assert_eq!(judgement.refusals.len(), refusals, "{what}");
    }
}

#[test]
fn encrypt_alone_is_a_warning() {
    let evidence = evidence(DryRun::Allowed, DryRun::Allowed, refused());
    let judgement = judge(&evidence, Some(&target()), BUCKET);
    assert_eq!(status(&judgement, CheckId::GrantKeyPolicy), Status::Warn);
}

#[test]
fn a_missing_grant_prints_both_statements_with_the_role() {
    let evidence = evidence(DryRun::Allowed, refused(), DryRun::Allowed);
    let judgement = judge(&evidence, Some(&target()), BUCKET);
    assert_eq!(status(&judgement, CheckId::GrantIamPolicy), Status::Unknown);
    let remedy = &judgement.refusals[0].remedy;
    for part in [
        "\"Sid\": \"DeployPrincipalUse\"",
        "\"Sid\": \"TerraformStateKms\"",
        "arn:aws:iam::222222222222:role/cicd",
        ARN,
    ] {
        assert!(remedy.contains(part), "{part} in {remedy}");
    }
}

#[test]
fn an_unfit_key_is_refused_with_the_rescue() {
    for (evidence, part, remedy) in [
        (described(|k| k.state = "Disabled".into()), "is disabled", "enable-key"),
        (
            described(|k| {
                k.state = "PendingDeletion".into();
                k.deletion_date = Some("2026-12-24T00:00:00Z".into());
            }),
            "2026-12-24",
            "cancel-key-deletion",
        ),
        (described(|k| k.state = "PendingImport".into()), "PendingImport", "describe-key"),
        (described(|k| k.aws_managed = true), "managed by AWS", "create-key"),
        (described(|k| k.spec = "RSA_2048".into()), "RSA_2048", "symmetric"),
        (described(|k| k.usage = "GENERATE_VERIFY_MAC".into()), "GENERATE_VERIFY_MAC", "symmetric"),
    ] {
        let judgement = judge(&evidence, Some(&target()), BUCKET);
        assert_eq!(status(&judgement, CheckId::KeyUsable), Status::Fail);
        let refusal = &judgement.refusals[0];
        assert_eq!(refusal.reason, FailureReason::KeyUnusable);
        assert!(refusal.message.contains(part), "{}", refusal.message);
        assert!(refusal.remedy.contains(remedy), "{}", refusal.remedy);
    }
}

#[test]
fn a_key_that_may_not_be_described_still_shows_its_state() {
    let disabled = || DryRun::Unclear(error(Kind::KeyDisabled, "DisabledException"));
    let mut evidence = evidence(disabled(), disabled(), disabled());
    if let Some(key) = &mut evidence.key {
        key.description = Err(error(Kind::Denied, "AccessDeniedException"));
    }
    let judgement = judge(&evidence, Some(&target()), BUCKET);
    assert_eq!(judgement.refusals[0].reason, FailureReason::KeyUnusable);
}

#[test]
fn without_a_key_there_is_nothing_to_judge() {
    let evidence = Evidence { caller: Err(error(Kind::Denied, "x")), key: None };
    let judgement = judge(&evidence, None, BUCKET);
    assert!(judgement.checks.is_empty() && judgement.access.is_none());
}

/// Where the evidence of each side comes from, and what it decides.
#[test]
fn the_side_that_lacks_the_grant_is_told_by_evidence() {
    let policy = |who: &str, condition: bool| {
        let mut statement = serde_json::json!({ "Effect": "Allow", "Principal": { "AWS": who },
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": "*" });
        if condition {
            statement["Condition"] =
                serde_json::json!({ "Bool": { "aws:SecureTransport": "true" } });
        }
        Ok(serde_json::json!({ "Statement": [statement] }).to_string())
    };
    let (cicd, other) = ("arn:aws:iam::222222222222:role/cicd", "arn:aws:iam::222222222222:role/x");
    let denied = || Err(error(Kind::Denied, "AccessDenied"));
    let broken = || Err(error(Kind::Unavailable, "Throttling"));
    let no = || vec![not_allowed(Lack::NoAllow)];
    type Text = Result<String, AwsError>;
    type Simulated = Option<Result<Vec<NotAllowed>, AwsError>>;
    // The key policy, IAM's simulation; what is known of either, and the evidence in words.
    type Row = (Text, Simulated, [Option<bool>; 2], [&'static str; 2]);
    let table: [Row; 9] = [
        (policy(other, false), None, [Some(false), None], ["has been read", "was not asked"]),
        (policy(cicd, false), None, [Some(true), None], ["has been read", "was not asked"]),
        (policy(cicd, true), None, [None, None], ["under conditions", "was not asked"]),
        (Ok("no policy".into()), None, [None, None], ["may not be read", "was not asked"]),
        (denied(), Some(Ok(vec![])), [None, Some(true)], ["may not be read", "has simulated it"]),
        (denied(), Some(Ok(no())), [None, Some(false)], ["may not be read", "has simulated it"]),
        (
            denied(),
            Some(denied().map(|_: String| no())),
            [None, None],
            ["may not be read", "may not be asked"],
        ),
        (
            denied(),
            Some(broken().map(|_: String| no())),
            [None, None],
            ["may not be read", "does not tell"],
        ),
        (
            policy(other, false),
            Some(Ok(no())),
            [Some(false), Some(false)],
            ["has been read", "has simulated it"],
        ),
    ];
    for (text, simulated, known, says) in table {
        let mut evidence = evidence(refused(), refused(), refused());
        let key = evidence.key.as_mut().unwrap();
        (key.policy, key.not_allowed_by_iam) = (text, simulated);
        let judgement = judge(&evidence, Some(&target()), BUCKET);
        let ids = [CheckId::GrantKeyPolicy, CheckId::GrantIamPolicy];
        for ((id, known), says) in ids.into_iter().zip(known).zip(says) {
            let check = judgement.checks.iter().find(|check| check.id == id).unwrap();
            let wanted = known
                .map_or(Status::Unknown, |grants| if grants { Status::Pass } else { Status::Fail });
            assert_eq!(check.status, wanted, "{id:?}: {}", check.evidence);
            assert!(check.evidence.contains(says), "{says}: {}", check.evidence);
        }
        // A side that is known to lack it is certain, whatever kms:ViaService may allow.
        let certain = known.contains(&Some(false));
        let access = if certain { Access::Refused } else { Access::OnlyS3CanTell };
        assert_eq!(
            (judgement.access, judgement.refusals.len()),
            (Some(access), usize::from(certain))
        );
        // Only what may be missing is printed.
        if let Some(refusal) = judgement.refusals.first() {
            for (side, sid) in known.iter().zip(["DeployPrincipalUse\"", "TerraformStateKms\""]) {
                assert_eq!(refusal.remedy.contains(sid), *side != Some(true), "{sid}");
            }
        }
    }
}

/// In the key's own account a key policy that names the principal is enough by itself, so
/// IAM's silence there is no proof.
#[test]
fn in_the_keys_account_iam_decides_only_where_the_key_policy_leaves_it_to_it() {
    for (account, access) in
        [("222222222222", Access::Refused), ("111111111111", Access::OnlyS3CanTell)]
    {
        let mut evidence = evidence(refused(), refused(), refused());
        if let Ok(caller) = &mut evidence.caller {
            caller.account = account.into();
            caller.principal =
                crate::principal::Principal::of_arn(&format!("arn:aws:iam::{account}:role/cicd"));
        }
        let key = evidence.key.as_mut().unwrap();
        key.not_allowed_by_iam = Some(Ok(vec![not_allowed(Lack::NoAllow)]));
        let judgement = judge(&evidence, Some(&target()), BUCKET);
        assert_eq!(judgement.access, Some(access), "{account}");
    }
}

const CICD: &str = "arn:aws:iam::222222222222:role/cicd";

/// Both dry runs refused with a message that ends so, in a key policy of these statements.
fn refused_with(clause: &str, statements: Option<serde_json::Value>) -> Evidence {
    let mut refusal = error(Kind::Denied, "AccessDeniedException");
    refusal.message = Some(format!("User: x is not authorized to perform: kms:Decrypt {clause}"));
    let run = || DryRun::Refused(refusal.clone());
    let mut evidence = evidence(run(), run(), run());
    if let (Some(key), Some(statements)) = (&mut evidence.key, statements) {
        key.policy = Ok(serde_json::json!({ "Statement": statements }).to_string());
    }
    evidence
}

fn remedy_of(evidence: &Evidence) -> String {
    judge(evidence, Some(&target()), BUCKET).remedy.unwrap().text
}

#[test]
fn where_an_allow_does_not_help_none_is_printed() {
    for (clause, says) in [
        ("with an explicit deny in an identity-based policy", "an IAM policy of"),
        ("with an explicit deny in a resource-based policy", "the key policy of"),
        ("because no session policy allows the kms:Decrypt action", "inline-session-policy"),
        ("with an explicit deny in a service control policy", "service control policy"),
        ("with an explicit deny in a resource control policy", "resource control policy"),
        ("because no permissions boundary allows the kms:Decrypt action", "permissions boundary"),
    ] {
        let evidence = refused_with(clause, None);
        let remedy = remedy_of(&evidence);
        assert!(remedy.contains(says) && remedy.contains("not help"), "{clause}: {remedy}");
        assert!(!remedy.contains("\"Allow\""), "{clause}: {remedy}");
        let judgement = judge(&evidence, Some(&target()), BUCKET);
        let check = judgement.checks.iter().find(|c| c.id == CheckId::GrantIamPolicy).unwrap();
        assert!(check.evidence.contains("AWS's message names"), "{clause}: {}", check.evidence);
    }
    // What AWS does not say is open.
    for clause in ["", "because no identity-based policy allows the kms:Decrypt action"] {
        assert!(remedy_of(&refused_with(clause, None)).contains("\"Allow\""), "{clause}");
    }
}

#[test]
fn a_statement_of_the_key_policy_that_denies_is_named() {
    let all = |effect: &str| {
        serde_json::json!({ "Sid": format!("{effect}Cicd"), "Effect": effect, "Principal": { "AWS": CICD },
            "Action": "kms:*", "Resource": "*" })
    };
    let statements = serde_json::json!([all("Allow"), all("Deny")]);
    let mut evidence = refused_with("Access Denied", Some(statements));
    // Of the IAM side nothing is known: that is printed.
    let remedy = remedy_of(&evidence);
    assert!(remedy.contains("the statement DenyCicd of the key policy"), "{remedy}");
    assert!(!remedy.contains("DeployPrincipalUse"), "{remedy}");
    assert!(remedy.contains("TerraformStateKms"), "{remedy}");
    evidence.key.as_mut().unwrap().not_allowed_by_iam = Some(Ok(Vec::new()));
    let judgement = judge(&evidence, Some(&target()), BUCKET);
    assert_eq!(judgement.access, Some(Access::Refused));
    assert!(!judgement.refusals[0].remedy.contains("\"Allow\""));
}

#[test]
fn what_iam_says_of_limits_is_said() {
    for (lack, says, allow) in [
        (Lack::NoAllow, "TerraformStateKms", true),
        (Lack::Deny, "explicit deny in an IAM policy of", false),
        (Lack::Boundary, "permissions boundary", false),
        (Lack::Organization, "service control policy", false),
    ] {
        let statements = serde_json::json!([{ "Effect": "Allow", "Principal": { "AWS": CICD },
            "Action": "kms:*", "Resource": "*" }]);
        let mut evidence = refused_with("Access Denied", Some(statements));
        evidence.key.as_mut().unwrap().not_allowed_by_iam = Some(Ok(vec![not_allowed(lack)]));
        let remedy = remedy_of(&evidence);
        assert!(remedy.contains(says), "{lack:?}: {remedy}");
        assert_eq!(remedy.contains("\"Allow\""), allow, "{lack:?}: {remedy}");
    }
}

#[test]
fn where_both_sides_allow_it_there_is_still_something_to_do() {
    let statements = serde_json::json!([{ "Effect": "Allow", "Principal": { "AWS": CICD },
        "Action": "kms:*", "Resource": "*" }]);
    let mut evidence = refused_with("Access Denied", Some(statements));
    let key = evidence.key.as_mut().unwrap();
    key.uses[0].generate = DryRun::Allowed;
    key.not_allowed_by_iam = Some(Ok(Vec::new()));
    let judgement = judge(&evidence, Some(&target()), BUCKET);
    assert_eq!(judgement.access, Some(Access::Refused));
    let remedy = &judgement.refusals[0].remedy;
    assert!(remedy.contains("CloudTrail") && !remedy.contains("\"Allow\""), "{remedy}");
}
