//! The gate probe, by each way and with each verdict.

use aws_lab::{Effect, Encryption, Matcher, Topology};
use serde_json::json;

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, Ran};

async fn applied(topology: Topology) -> Bench {
    let bench = Bench::with(topology, |_| {}).await;
    let _ = bench.run("apply", &[("INPUT_PROBE", "off")]).await.green();
    bench
}

fn open_to_everyone(bench: &Bench) {
    bench.change_key(|key| {
        let everyone = json!({ "Sid": "Wide", "Effect": "Allow", "Principal": "*",
                               "Action": "kms:Decrypt", "Resource": "*" });
        key.policy["Statement"].as_array_mut().unwrap().push(everyone);
    });
}

fn evidence(ran: &Ran) -> String {
    ran.report["gate_evidence"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_holds_by_every_way_and_names_its_scope() {
    for (topology, way) in [
        (Topology::Roles, "web-identity"),
        (Topology::Users, "federation"),
        (Topology::SameAccount, "federation"),
    ] {
        let bench = applied(topology).await;
        for probe in ["auto", way] {
            let ran = bench.run("verify", &[("INPUT_PROBE", probe)]).await.green();
            assert_eq!(ran.output("gate"), "holds", "{topology:?}: {}", ran.log);
            let evidence = evidence(&ran);
            assert!(evidence.contains(way), "{evidence}");
            let limited = evidence.contains("of how wide the key policy is");
            assert_eq!(limited, topology != Topology::SameAccount, "{evidence}");
            assert!(ran.summary.contains("#### Gate: holds"), "{}", ran.summary);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_the_key_is_a_probe_too() {
    let bench = applied(Topology::Roles).await;
    let (closed, open) = {
        let mut world = bench.lab.world();
        (
            world.add_reader_role("s3-only", "222222222222", false, false),
            world.add_reader_role("auditor", "222222222222", true, true),
        )
    };
    let role = |arn: &str| vec![("INPUT_PROBE-ROLE-ARN".to_owned(), arn.to_owned())];
    let run = async |arn: &str| {
        let more = role(arn);
        let more: Vec<(&str, &str)> = more.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        bench.run("verify", &more).await
    };
    let ran = run(&closed).await.green();
    assert_eq!(ran.output("gate"), "holds");
    assert!(evidence(&ran).contains("for the role"));
    let ran = run(&open).await.red("gate-open");
    assert_eq!(ran.output("gate"), "open");
    assert!(ran.log.contains("has kms:Decrypt on the key"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_gate_fails_apply_and_verify() {
    let bench = applied(Topology::SameAccount).await;
    open_to_everyone(&bench);
    for mode in ["apply", "verify"] {
        let ran = bench.run(mode, &[]).await.red("gate-open");
        assert_eq!(ran.output("gate"), "open", "{}", ran.log);
        assert!(ran.log.contains("Principal *"), "{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_s3_and_no_key_at_all_are_open_gates() {
    let bench = applied(Topology::SameAccount).await;
    let aws_s3 = bench.lab.world().aws_s3_key(BUCKET);
    for (encryption, cause) in [
        (Encryption::Kms { key: aws_s3 }, "every principal of the account may use aws/s3"),
        (Encryption::SseS3, "it is not under the key (AES256)"),
    ] {
        bench.lab.world().put_object(BUCKET, KEYS[0], crate::common::state(1), encryption);
        let ran = bench.run("verify", &[]).await.red("drift");
        assert_eq!(ran.output("gate"), "open", "{}", ran.log);
        assert!(ran.log.contains(cause), "{}", ran.log);
    }
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!((ran.output("rekeyed"), ran.output("gate")), ("1", "holds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wide_key_policy_across_accounts_is_found_by_its_own_check() {
    let bench = applied(Topology::Roles).await;
    open_to_everyone(&bench);
    // The probe cannot see it from the other account: a session without kms is refused there.
    let ran = bench.run("verify", &[]).await.green();
    assert_eq!((ran.output("gate"), ran.check("key-policy")), ("holds", "unknown"));
    assert!(evidence(&ran).contains("it says nothing"));
    // Who may read the policy, sees it.
    let ran = bench.run_as("admin", "verify", &bench.key, &[("INPUT_PROBE", "off")]).await;
    assert_eq!(ran.check("key-policy"), "fail");
    let _ = ran.red("gate-open");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_shown_is_inconclusive() {
    type Arrange = fn(&Bench);
    let causes: [(&str, Arrange, &str); 6] = [
        (
            "throttled",
            |bench| {
                let probe = Matcher::every("GetObject").key(KEYS[0]);
                // The full session reads first; the probe's own GET comes after it.
                let later = Matcher { from: 2, ..probe };
                bench.lab.inject(later, Effect::fail(503, "SlowDown"));
            },
            "failed otherwise",
        ),
        (
            "key error",
            |bench| {
                let later = Matcher { from: 2, ..Matcher::every("GetObject").key(KEYS[0]) };
                bench.lab.inject(later, Effect::fail(400, "KMS.DisabledException"));
            },
            "failed otherwise",
        ),
        (
            "cut off",
            |bench| {
                let later = Matcher { from: 2, ..Matcher::every("GetObject").key(KEYS[0]) };
                bench.lab.inject(later, Effect::ResetBefore);
            },
            "failed otherwise",
        ),
        (
            "no session",
            |bench| {
                bench.lab.inject(
                    Matcher::every("AssumeRoleWithWebIdentity"),
                    Effect::fail(403, "AccessDenied"),
                );
            },
            "set AWS_ROLE_ARN or `deploy-principals`",
        ),
        (
            "no token",
            |bench| bench.lab.inject(Matcher::every("GetOidcToken"), Effect::fail(500, "x")),
            "no OIDC token",
        ),
        (
            "packed policy",
            |bench| bench.lab.world().packed_policy_limit = Some(10),
            "PackedPolicyTooLarge",
        ),
    ];
    for (what, arrange, says) in causes {
        let bench = applied(Topology::Roles).await;
        arrange(&bench);
        let ran = bench.run("verify", &[]).await.green();
        assert_eq!(ran.output("gate"), "inconclusive", "{what}: {}", ran.log);
        assert!(ran.log.contains("::warning") && ran.log.contains(says), "{what}: {}", ran.log);
        // Where a way is named, it has to tell.
        bench.lab.clear_faults();
        arrange(&bench);
        let named = [("INPUT_PROBE", "web-identity")];
        let ran = bench.run("verify", &named).await.red("gate-inconclusive");
        assert_eq!(ran.output("gate"), "inconclusive", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_made_is_inconclusive_by_the_other_ways_too() {
    let bench = applied(Topology::Users).await;
    bench.lab.inject(Matcher::every("GetFederationToken"), Effect::fail(403, "AccessDenied"));
    let ran = bench.run("verify", &[]).await.green();
    assert_eq!(ran.output("gate"), "inconclusive");
    let ran = bench.run("verify", &[("INPUT_PROBE", "federation")]).await;
    let _ = ran.red("gate-inconclusive");
    let role = "arn:aws:iam::222222222222:role/not-there";
    let more = [("INPUT_PROBE", "role"), ("INPUT_PROBE-ROLE-ARN", role)];
    let ran = bench.run("verify", &more).await.red("gate-inconclusive");
    assert!(ran.log.contains("could not be made"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_s3_itself_refuses_shows_nothing() {
    let bench = applied(Topology::Roles).await;
    let role = {
        let mut world = bench.lab.world();
        let arn = world.add_reader_role("nobody", "222222222222", false, false);
        world.role_mut(&arn).policies.clear();
        arn
    };
    let ran = bench.run("verify", &[("INPUT_PROBE-ROLE-ARN", &role)]).await.green();
    assert_eq!(ran.output("gate"), "inconclusive");
    assert!(ran.log.contains("S3 itself refuses"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_and_the_probes_credentials_are_masked_and_nowhere_else() {
    let bench = applied(Topology::Roles).await;
    // Outside a runner, nobody would take the command away.
    let ran = bench.run("verify", &[]).await.green();
    assert!(!ran.log.contains("::add-mask::"));
    let ran = bench.run("verify", &[("GITHUB_ACTIONS", "true")]).await.green();
    let masked: Vec<&str> =
        ran.log.lines().filter_map(|line| line.strip_prefix("::add-mask::")).collect();
    assert!(masked.len() >= 3, "token, secret key and session token: {}", masked.len());
    let rest: String = ran.log.lines().filter(|line| !line.starts_with("::add-mask::")).collect();
    for secret in masked {
        assert!(!rest.contains(secret) && !ran.summary.contains(secret));
        assert!(!ran.report.to_string().contains(secret));
    }
}
