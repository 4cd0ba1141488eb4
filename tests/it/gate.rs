//! The gate probe, by each way and with each verdict.

use aws_lab::{Effect, Encryption, Matcher, Moment, Topology, World, cabal};
use serde_json::{Value, json};

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
        (Topology::SameAccountRole, "web-identity"),
    ] {
        let bench = applied(topology).await;
        for probe in ["auto", way] {
            let ran = bench.run("verify", &[("INPUT_PROBE", probe)]).await.green();
            assert_eq!(ran.output("gate"), "holds", "{topology:?}: {}", ran.log);
            let evidence = evidence(&ran);
            assert!(evidence.contains(way), "{evidence}");
            let limited = evidence.contains("of how wide the key policy is");
            let across = matches!(topology, Topology::Roles | Topology::Users);
            assert_eq!(limited, across, "{evidence}");
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
    for (topology, way) in
        [(Topology::SameAccount, "federation"), (Topology::SameAccountRole, "web-identity")]
    {
        let bench = applied(topology).await;
        open_to_everyone(&bench);
        for mode in ["apply", "verify"] {
            let ran = bench.run(mode, &[]).await.red("gate-open");
            assert_eq!(ran.output("gate"), "open", "{}", ran.log);
            assert!(ran.log.contains("Principal *"), "{}", ran.log);
            assert!(evidence(&ran).contains(way), "{}", evidence(&ran));
        }
    }
}

/// AWS_ROLE_ARN is of the job's first role, which need not be this principal's.
#[tokio::test(flavor = "multi_thread")]
async fn the_scope_is_of_the_role_that_the_probe_assumes() {
    let bench = applied(Topology::SameAccountRole).await;
    let first = {
        let mut world = bench.lab.world();
        let arn = world.add_reader_role("first", "222222222222", false, false);
        let cicd = "arn:aws:iam::111111111111:role/cicd";
        let trust =
            world.role_mut(cicd).trust.to_string().replace("::111111111111:", "::222222222222:");
        world.role_mut(&arn).trust = serde_json::from_str(&trust).unwrap();
        arn
    };
    let ran = bench.run("verify", &[("AWS_ROLE_ARN", &first)]).await.green();
    assert_eq!(ran.output("gate"), "holds", "{}", ran.log);
    let evidence = evidence(&ran);
    assert!(evidence.contains("of how wide the key policy is"), "{evidence}");
}

/// In the key's own account a role needs no grant of its own to get through a wide key policy.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_the_keys_own_account_finds_what_is_open_to_everyone() {
    // Whether or not this principal reads what is under aws/s3.
    for (topology, reason) in
        [(Topology::SameAccountRole, "drift"), (Topology::Roles, "state-unreadable")]
    {
        let bench = applied(topology).await;
        let role = bench.lab.world().add_reader_role("s3-only", "111111111111", false, false);
        let more = [("INPUT_PROBE-ROLE-ARN", role.as_str())];
        let ran = bench.run("verify", &more).await.green();
        assert_eq!(ran.output("gate"), "holds", "{}", ran.log);
        let under = bench.encryption(KEYS[0]);
        let aws_s3 = Encryption::Kms { key: bench.lab.world().aws_s3_key(BUCKET) };
        bench.lab.world().put_object(BUCKET, KEYS[0], crate::common::state(1), aws_s3);
        let ran = bench.run("verify", &more).await.red(reason);
        assert_eq!(ran.output("gate"), "open", "{}", ran.log);
        assert!(ran.log.contains("every principal of the account may use aws/s3"), "{}", ran.log);
        bench.lab.world().put_object(BUCKET, KEYS[0], crate::common::state(2), under);
        open_to_everyone(&bench);
        let ran = bench.run("verify", &more).await.red("gate-open");
        assert_eq!(ran.output("gate"), "open", "{}", ran.log);
        assert!(ran.log.contains("the key policy allows everyone (Principal *)"), "{}", ran.log);
        assert!(!ran.log.contains("on both sides"), "{}", ran.log);
        assert!(evidence(&ran).contains("\"way\":\"role\""), "{}", evidence(&ran));
    }
}

/// Gives the deploy role a path, which its sessions do not show.
fn with_a_path(world: &mut World) -> &'static str {
    const PLAIN: &str = "arn:aws:iam::222222222222:role/cicd";
    const FULL: &str = "arn:aws:iam::222222222222:role/ci/cicd";
    let role = world.role_mut(PLAIN).clone();
    world.add_role(FULL, role.trust, role.policies);
    // The name without the path is nobody's.
    world.role_mut(PLAIN).trust = json!({ "Statement": [] });
    world.principal_mut("deploy").identity.arn = FULL.to_owned();
    let renamed = |policy: &mut Value| {
        *policy = serde_json::from_str(&policy.to_string().replace(PLAIN, FULL)).unwrap();
    };
    renamed(world.bucket_mut(BUCKET).policy.as_mut().unwrap());
    let key = world.state_key_arn().to_owned();
    renamed(&mut world.key_mut(&key).policy);
    FULL
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_a_path_is_found_where_its_arn_is_told() {
    let bench = Bench::with(Topology::Roles, |world| {
        with_a_path(world);
    })
    .await;
    let full = with_a_path(&mut cabal(Topology::Roles));
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!((ran.output("rekeyed"), ran.output("gate")), ("2", "inconclusive"), "{}", ran.log);
    assert!(ran.log.contains("set AWS_ROLE_ARN or `deploy-principals`"), "{}", ran.log);
    let told = [("AWS_ROLE_ARN", full), ("INPUT_DEPLOY-PRINCIPALS", full)];
    for one in told {
        let ran = bench.run("verify", &[one]).await.green();
        assert_eq!(ran.output("gate"), "holds", "{one:?}: {}", ran.log);
    }
    // What is printed when a grant is missing can be pasted as it is.
    bench.lab.world().drop_from_key_policy(&bench.key, "kms:Decrypt");
    let ran = bench.run("verify", &[]).await.red("key-denied");
    assert!(ran.summary.contains("If the role has a path"), "{}", ran.summary);
    for one in told {
        let ran = bench.run("verify", &[one]).await.red("key-denied");
        assert!(!ran.summary.contains("If the role has a path"), "{}", ran.summary);
        let file = bench.workspace.path().join("tfstate-kms-key-policy-statement.json");
        let statement: Value =
            serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(statement["Principal"]["AWS"], full);
        assert!(ran.summary.contains(full), "{one:?}: {}", ran.summary);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_s3_and_no_key_at_all_are_open_gates() {
    for topology in [Topology::SameAccount, Topology::SameAccountRole] {
        let bench = applied(topology).await;
        let aws_s3 = bench.lab.world().aws_s3_key(BUCKET);
        for (encryption, cause) in [
            (Encryption::Kms { key: aws_s3 }, "every principal of the account may use aws/s3"),
            (Encryption::SseS3, "it is not under the key (AES256)"),
        ] {
            let body = crate::common::state(1);
            bench.lab.world().put_object(BUCKET, KEYS[0], body, encryption);
            let ran = bench.run("verify", &[]).await.red("drift");
            assert_eq!(ran.output("gate"), "open", "{}", ran.log);
            assert!(ran.log.contains(cause), "{}", ran.log);
        }
        let ran = bench.run("apply", &[]).await.green();
        assert_eq!((ran.output("rekeyed"), ran.output("gate")), ("1", "holds"));
    }
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

/// A way to a session, by what makes it.
struct Way {
    name: &'static str,
    topology: Topology,
    /// The call that makes the session.
    operation: &'static str,
}

const WAYS: [Way; 3] = [
    Way { name: "web-identity", topology: Topology::Roles, operation: "AssumeRoleWithWebIdentity" },
    Way { name: "federation", topology: Topology::Users, operation: "GetFederationToken" },
    Way { name: "role", topology: Topology::Roles, operation: "AssumeRole" },
];

impl Way {
    /// States under the key, and the inputs that lead to this way.
    async fn bench(&self) -> (Bench, Vec<(&'static str, String)>) {
        let bench = applied(self.topology).await;
        let mut more = vec![];
        if self.name == "role" {
            let mut world = bench.lab.world();
            let role = world.add_reader_role("s3-only", "222222222222", false, false);
            more.push(("INPUT_PROBE-ROLE-ARN", role));
        }
        (bench, more)
    }
}

async fn verify(bench: &Bench, more: &[(&str, String)]) -> Ran {
    let more: Vec<(&str, &str)> = more.iter().map(|(k, v)| (*k, v.as_str())).collect();
    bench.run("verify", &more).await
}

/// What a request of the probe's comes to. In `verify` the full session's GET of a state is
/// the first, and its HEAD is not asked for.
async fn what_cannot_be_shown_is_inconclusive(way: &Way) {
    let head = || Matcher::every("HeadObject").key(KEYS[0]);
    let get = || Matcher::every("GetObject").key(KEYS[0]).from(2);
    let causes: [(Option<Matcher>, Effect, &str); 8] = [
        (Some(get()), Effect::fail(503, "SlowDown"), "failed otherwise"),
        (Some(get()), Effect::fail(400, "KMS.DisabledException"), "failed otherwise"),
        (Some(get()), Effect::fail(403, "InvalidObjectState"), "failed otherwise"),
        (Some(get()), Effect::ResetBefore, "failed otherwise"),
        (Some(head()), Effect::fail(503, "SlowDown"), "failed otherwise"),
        (Some(head()), Effect::fail(404, "NoSuchKey"), "failed otherwise"),
        (Some(head()), Effect::fail(403, "AccessDenied"), "S3 itself refuses"),
        (None, Effect::fail(403, "AccessDenied"), ""),
    ];
    let (bench, mut more) = way.bench().await;
    let ran = verify(&bench, &more).await.green();
    assert_eq!(ran.output("gate"), "holds", "{}: {}", way.name, ran.log);
    for (at, (matcher, effect, says)) in causes.iter().enumerate() {
        let matcher = matcher.clone().unwrap_or(Matcher::every(way.operation));
        let again = || match effect {
            Effect::Fail { status, code, .. } => Effect::fail(*status, code),
            _ => Effect::ResetBefore,
        };
        bench.lab.inject(matcher.clone(), again());
        let ran = verify(&bench, &more).await.green();
        assert_eq!(ran.output("gate"), "inconclusive", "{} {at}: {}", way.name, ran.log);
        let warned = ran.log.contains("::warning") && ran.log.contains(says);
        assert!(warned, "{} {at}: {}", way.name, ran.log);
        // Where a way is named, it has to tell.
        bench.lab.clear_faults();
        bench.lab.inject(matcher, again());
        more.push(("INPUT_PROBE", way.name.to_owned()));
        let ran = verify(&bench, &more).await.red("gate-inconclusive");
        assert_eq!(ran.output("gate"), "inconclusive", "{} {at}", way.name);
        more.pop();
        bench.lab.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_shown_is_inconclusive_by_web_identity() {
    what_cannot_be_shown_is_inconclusive(&WAYS[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_shown_is_inconclusive_by_federation() {
    what_cannot_be_shown_is_inconclusive(&WAYS[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_shown_is_inconclusive_by_a_role() {
    what_cannot_be_shown_is_inconclusive(&WAYS[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_made_says_what_to_do() {
    let inconclusive = async |bench: &Bench, more: &[(&str, String)], says: &str| {
        let ran = verify(bench, more).await.green();
        assert_eq!(ran.output("gate"), "inconclusive", "{says}: {}", ran.log);
        assert!(ran.log.contains("::warning") && ran.log.contains(says), "{says}: {}", ran.log);
    };
    let [token, keys, role] = &WAYS;
    for way in [token, keys] {
        let (bench, more) = way.bench().await;
        bench.lab.world().packed_policy_limit = Some(10);
        inconclusive(&bench, &more, "PackedPolicyTooLarge").await;
    }
    let (bench, more) = token.bench().await;
    bench.lab.inject(Matcher::every("GetOidcToken"), Effect::fail(500, "x"));
    inconclusive(&bench, &more, "no OIDC token").await;
    bench.lab.clear_faults();
    bench.lab.inject(Matcher::every(token.operation), Effect::fail(403, "AccessDenied"));
    inconclusive(&bench, &more, "set AWS_ROLE_ARN or `deploy-principals`").await;
    let (bench, _) = role.bench().await;
    let nobody = "arn:aws:iam::222222222222:role/not-there".to_owned();
    inconclusive(&bench, &[("INPUT_PROBE-ROLE-ARN", nobody)], "could not be made").await;
    let refused = {
        let mut world = bench.lab.world();
        let arn = world.add_reader_role("nobody", "222222222222", false, false);
        world.role_mut(&arn).policies.clear();
        arn
    };
    inconclusive(&bench, &[("INPUT_PROBE-ROLE-ARN", refused)], "S3 itself refuses").await;
}

/// A state that even the full session does not read, or none at all, is no evidence.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_state_that_is_read_nothing_is_shown() {
    for way in &WAYS {
        let (bench, more) = way.bench().await;
        bench
            .lab
            .inject(Matcher::every("GetObject").key(KEYS[0]), Effect::fail(403, "AccessDenied"));
        let ran = verify(&bench, &more).await.red("state-unreadable");
        assert_eq!(
            (ran.output("gate"), ran.check("gate")),
            ("inconclusive", "unknown"),
            "{}",
            way.name
        );
        let says = format!("`{}` is not read by the full session either", KEYS[0]);
        assert!(ran.report.to_string().contains(&says), "{}: {}", way.name, ran.log);
        // A run that has failed needs no second word on it.
        assert_eq!(ran.report["failures"].as_array().unwrap().len(), 1, "{}", ran.log);
        assert!(!ran.log.contains("the gate could not be tried"), "{}", ran.log);
        bench.lab.clear_faults();
        KEYS.iter().for_each(|key| bench.lab.world().remove_object(BUCKET, key));
        let ran = verify(&bench, &more).await.red("state-missing");
        assert_eq!(ran.output("gate"), "inconclusive", "{}: {}", way.name, ran.log);
    }
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

/// A failure that the gate has nothing to do with does not hide an open one.
#[tokio::test(flavor = "multi_thread")]
async fn a_verify_that_is_refused_tries_the_gate_all_the_same() {
    let bench = applied(Topology::SameAccountRole).await;
    let shut = bench.lab.world().add_reader_role("shut", "222222222222", false, false);
    let more = [("INPUT_MUST-READ", shut.as_str())];
    let ran = bench.run("verify", &more).await.red("readers-locked-out");
    assert_eq!((ran.output("gate"), ran.check("gate")), ("holds", "pass"), "{}", ran.log);
    open_to_everyone(&bench);
    let ran = bench.run("verify", &more).await.red("readers-locked-out");
    assert_eq!((ran.output("gate"), ran.check("gate")), ("open", "fail"), "{}", ran.log);
    assert!(ran.report["failures"].to_string().contains("gate-open"), "{}", ran.log);
}

/// `off` is only what nobody has asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_was_asked_for_and_not_tried_is_inconclusive() {
    let untried = |ran: Ran| {
        assert_eq!(
            (ran.output("gate"), ran.check("gate")),
            ("inconclusive", "unknown"),
            "{}",
            ran.log
        );
        assert_eq!(ran.report["failures"].as_array().unwrap().len(), 1, "{}", ran.log);
        assert!(!ran.log.contains("the gate could not be tried"), "{}", ran.log);
        assert!(ran.report["gate_evidence"].is_null());
    };
    let off = |ran: &Ran| {
        assert_eq!((ran.output("gate"), ran.check("gate")), ("off", "(not made)"), "{}", ran.log);
    };
    for probe in ["auto", "web-identity"] {
        let probe = ("INPUT_PROBE", probe);
        // Refused before a write.
        let bench = Bench::new().await;
        let shut = bench.lab.world().add_reader_role("shut", "222222222222", false, false);
        let more = [probe, ("INPUT_MUST-READ", shut.as_str())];
        untried(bench.run("apply", &more).await.red("readers-locked-out"));
        // No state was read.
        let bench = applied(Topology::Roles).await;
        bench.lab.inject(Matcher::every("GetObject"), Effect::fail(403, "AccessDenied"));
        let ran = bench.run("verify", &[probe]).await.red("state-unreadable");
        assert_eq!((ran.output("gate"), ran.check("gate")), ("inconclusive", "unknown"));
        assert!(!bench.lab.log().iter().any(|entry| entry.operation.starts_with("Assume")));
        bench.lab.clear_faults();
        // The run did not even begin.
        let nobody = [probe, ("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
        untried(bench.run("verify", &nobody).await.red("credentials"));
        off(&bench.run("plan", &[probe]).await.green());
        off(&bench.run("verify", &[("INPUT_PROBE", "off")]).await.green());
    }
    let bench = Bench::new().await;
    off(&bench.run_unset("verify", &[]).await.green());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_at_the_gate_ends_well() {
    for way in &WAYS {
        let (bench, mut more) = way.bench().await;
        let (frozen, told) = Effect::freeze(Moment::Before);
        bench.lab.inject(Matcher::every(way.operation), frozen);
        more.push(("INPUT_PROBE", way.name.to_owned()));
        let more: Vec<(&str, &str)> = more.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let variables = bench.variables("deploy", "verify", &bench.key, &more);
        let (ran, seconds) = bench.interrupted(&variables, |_| told.try_recv().is_ok(), "-INT");
        let ran = ran.red("cancelled");
        assert!(seconds < 3.0, "{}: {seconds} s", way.name);
        assert_eq!(
            (ran.output("gate"), ran.check("gate")),
            ("inconclusive", "unknown"),
            "{}",
            way.name
        );
        assert_eq!(ran.check("object-readable"), "pass", "{}", ran.log);
        assert_eq!(ran.report["failures"].as_array().unwrap().len(), 1, "{}", ran.log);
    }
}
