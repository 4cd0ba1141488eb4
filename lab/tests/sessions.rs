//! Sessions with less power, web identities and the policy simulator, through AWS's own SDK.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_lab::{BUCKET, Encryption, Lab, REGION, STATE_ACCOUNT, Topology, World, cabal};
use aws_sdk_iam::types::PolicyEvaluationDecisionType as Verdict;
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_sts::types::Credentials as StsCredentials;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CICD: &str = "arn:aws:iam::222222222222:role/cicd";

async fn lab_with(topology: Topology, arrange: impl FnOnce(&mut World)) -> Lab {
    let mut world = cabal(topology);
    let key = world.state_key_arn().to_owned();
    world.put_object(BUCKET, "production", "{}", Encryption::Kms { key });
    arrange(&mut world);
    Lab::start(world).await.unwrap()
}

async fn lab(topology: Topology) -> Lab {
    lab_with(topology, |_| ()).await
}

fn config(lab: &Lab, credentials: Option<Credentials>) -> SdkConfig {
    let mut builder = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(lab.endpoint());
    builder.set_credentials_provider(credentials.map(SharedCredentialsProvider::new));
    builder.build()
}

/// A principal of the preset.
fn of(lab: &Lab, principal: &str) -> SdkConfig {
    let env = lab.env(principal);
    let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let (id, secret) = (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"));
    let token = get("AWS_SESSION_TOKEN");
    config(lab, Some(Credentials::new(id.unwrap(), secret.unwrap(), token, None, "lab")))
}

/// A session that STS started.
fn session(lab: &Lab, credentials: Option<&StsCredentials>) -> SdkConfig {
    let c = credentials.unwrap();
    let token = Some(c.session_token.clone());
    let (id, secret) = (c.access_key_id.clone(), c.secret_access_key.clone());
    config(lab, Some(Credentials::new(id, secret, token, None, "sts")))
}

fn s3(config: &SdkConfig) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(true).build();
    aws_sdk_s3::Client::from_conf(config)
}

fn sts(config: &SdkConfig) -> aws_sdk_sts::Client {
    aws_sdk_sts::Client::new(config)
}

async fn arn(config: &SdkConfig) -> String {
    sts(config).get_caller_identity().send().await.unwrap().arn.unwrap()
}

/// What HEAD and GET of the state say: nothing, or the error's status and code. A HEAD has no
/// body, so no code either.
async fn head_and_get(config: &SdkConfig) -> (u16, u16) {
    let s3 = s3(config);
    let status = |raw: Option<&aws_sdk_s3::config::http::HttpResponse>| {
        raw.map_or(200, |raw| raw.status().as_u16())
    };
    let head = s3.head_object().bucket(BUCKET).key("production").send().await;
    let get = s3.get_object().bucket(BUCKET).key("production").send().await;
    (
        status(head.as_ref().err().and_then(|e| e.raw_response())),
        status(get.as_ref().err().and_then(|e| e.raw_response())),
    )
}

fn allow(action: Value, resource: &str) -> String {
    json!({ "Version": "2012-10-17",
            "Statement": [{ "Effect": "Allow", "Action": action, "Resource": resource }] })
    .to_string()
}

/// S3's right to read, without KMS's.
fn reading() -> String {
    allow(json!("s3:GetObject"), &format!("arn:aws:s3:::{BUCKET}/*"))
}

/// The code and the message of a refusal.
fn refusal<T: std::fmt::Debug, E: ProvideErrorMetadata>(result: Result<T, E>) -> (String, String) {
    let error = result.expect_err("a refusal");
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    (text(error.code()), text(error.message()))
}

/// A request to GitHub's endpoint, as a job makes it.
async fn github(lab: &Lab, bearer: &str, audience: &str) -> (u16, Value) {
    let env = lab.oidc_env();
    let url = &env.iter().find(|(name, _)| name == "ACTIONS_ID_TOKEN_REQUEST_URL").unwrap().1;
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let request = format!(
        "GET /{path}&audience={audience} HTTP/1.1\r\nHost: {host}\r\nAuthorization: bearer {bearer}\r\nConnection: close\r\n\r\n"
    );
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

async fn web_token(lab: &Lab, audience: &str) -> String {
    let env = lab.oidc_env();
    let bearer = &env.iter().find(|(name, _)| name == "ACTIONS_ID_TOKEN_REQUEST_TOKEN").unwrap().1;
    let (status, body) = github(lab, bearer, audience).await;
    assert_eq!(status, 200, "{body}");
    body["value"].as_str().unwrap().to_owned()
}

fn web_identity(
    lab: &Lab,
    role: &str,
    token: &str,
) -> aws_sdk_sts::operation::assume_role_with_web_identity::builders::AssumeRoleWithWebIdentityFluentBuilder
{
    sts(&config(lab, None))
        .assume_role_with_web_identity()
        .role_arn(role)
        .role_session_name("probe")
        .web_identity_token(token)
}

#[tokio::test]
async fn a_web_identity_needs_no_credentials_and_may_be_limited() {
    let lab = lab(Topology::Roles).await;
    let token = web_token(&lab, "sts.amazonaws.com").await;

    let full = web_identity(&lab, CICD, &token).send().await.unwrap();
    assert_eq!(full.audience(), Some("sts.amazonaws.com"));
    assert!(full.subject_from_web_identity_token().unwrap().starts_with("repo:"));
    let full = session(&lab, full.credentials());
    assert_eq!(arn(&full).await, "arn:aws:sts::222222222222:assumed-role/cicd/probe");
    assert_eq!(head_and_get(&full).await, (200, 200));

    let probe = web_identity(&lab, CICD, &token).policy(reading()).send().await.unwrap();
    let probe = session(&lab, probe.credentials());
    assert_eq!(head_and_get(&probe).await, (200, 403));
    assert_eq!(head_and_get(&of(&lab, "deploy")).await, (200, 200));

    let log = lab.log();
    let asked: Vec<_> = log.iter().map(|e| (e.service, e.operation.as_str(), e.status)).collect();
    assert_eq!(asked[0], ("github", "GetOidcToken", 200));
    assert_eq!(asked[1], ("sts", "AssumeRoleWithWebIdentity", 200));
    assert!(!log.iter().any(aws_lab::LogEntry::is_write), "{asked:?}");
    assert!(lab.principals().iter().all(|name| !name.contains("session")));
}

#[tokio::test]
async fn web_identities_are_refused() {
    let lab = lab(Topology::Roles).await;
    let token = web_token(&lab, "sts.amazonaws.com").await;
    let not = "Not authorized to perform sts:AssumeRoleWithWebIdentity";

    let forged = refusal(web_identity(&lab, CICD, "e30.e30.").send().await);
    assert_eq!(forged.0, "InvalidIdentityToken");
    let other = web_token(&lab, "https%3A%2F%2Fexample.com").await;
    let other = refusal(web_identity(&lab, CICD, &other).send().await);
    assert_eq!(other, ("InvalidIdentityToken".into(), "Incorrect token audience".into()));
    let unknown = web_identity(&lab, "arn:aws:iam::222222222222:role/none", &token).send().await;
    assert_eq!(refusal(unknown), ("AccessDenied".into(), not.into()));

    let sub = "token.actions.githubusercontent.com:sub";
    for change in [
        |s: &mut Value, _: &str| s["Action"] = json!("sts:AssumeRole"),
        |s: &mut Value, _: &str| {
            s["Principal"]["Federated"] =
                json!("arn:aws:iam::222222222222:oidc-provider/example.com");
        },
        |s: &mut Value, sub: &str| s["Condition"]["StringLike"][sub] = json!("repo:other/*"),
    ] {
        let trust = {
            let mut world = lab.world();
            let role = world.role_mut(CICD);
            let before = role.trust.clone();
            change(&mut role.trust["Statement"][0], sub);
            before
        };
        let refused = refusal(web_identity(&lab, CICD, &token).send().await);
        assert_eq!(refused, ("AccessDenied".into(), not.into()));
        lab.world().role_mut(CICD).trust = trust;
    }

    assert_eq!(github(&lab, "wrong", "sts.amazonaws.com").await.0, 401);
}

#[tokio::test]
async fn session_policies_have_their_form_and_size() {
    let lab = lab(Topology::Roles).await;
    let token = web_token(&lab, "sts.amazonaws.com").await;
    let with = async |policy: String| {
        let result = web_identity(&lab, CICD, &token).policy(policy).send().await;
        result.map_err(|e| e.code().unwrap_or_default().to_owned()).map(|_| ())
    };
    let sized = |length: usize| {
        let policy = reading();
        format!("{policy}{}", " ".repeat(length - policy.len()))
    };
    assert_eq!(with(sized(2048)).await, Ok(()));
    assert_eq!(with(sized(2049)).await, Err("ValidationError".into()));
    for malformed in [
        "{".to_owned(),
        "[]".to_owned(),
        json!({ "Statement": [{ "Effect": "Allow", "Action": "s3:*" }] }).to_string(),
        json!({ "Statement": [{ "Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*" }] })
            .to_string(),
    ] {
        assert_eq!(with(malformed).await, Err("MalformedPolicyDocument".into()));
    }
    lab.world().packed_policy_limit = Some(300);
    assert_eq!(with(sized(300)).await, Ok(()));
    assert_eq!(with(sized(301)).await, Err("PackedPolicyTooLarge".into()));
}

#[tokio::test]
async fn a_federated_user_is_its_user_with_less() {
    for topology in [Topology::Users, Topology::SameAccount] {
        let lab = lab(topology).await;
        let user = sts(&of(&lab, "deploy"));
        let token = || user.get_federation_token().name("probe");

        let limited = token().policy(reading()).send().await.unwrap();
        let limited = session(&lab, limited.credentials());
        assert!(arn(&limited).await.ends_with(":federated-user/probe"), "{topology:?}");
        assert_eq!(head_and_get(&limited).await, (200, 403), "{topology:?}");

        let everything = allow(json!("*"), "*");
        let full = token().policy(everything).send().await.unwrap();
        let full = session(&lab, full.credentials());
        assert_eq!(head_and_get(&full).await, (200, 200), "{topology:?}");
        let none = token().send().await.unwrap();
        let none = session(&lab, none.credentials());
        assert_eq!(head_and_get(&none).await, (403, 403), "{topology:?}");

        let again = sts(&limited).get_federation_token().name("again").send().await;
        let message = "Cannot call GetFederationToken with session credentials";
        assert_eq!(refusal(again), ("AccessDenied".into(), message.into()));
    }
    let lab = lab(Topology::Users).await;
    let reader = sts(&of(&lab, "reader")).get_federation_token().name("probe").send().await;
    let (code, message) = refusal(reader);
    assert_eq!(code, "AccessDenied");
    assert!(message.contains("sts:GetFederationToken"), "{message}");
}

#[tokio::test]
async fn a_wide_open_key_is_found_in_its_own_account_only() {
    let open = |world: &mut World| {
        let key = world.state_key_arn().to_owned();
        world.change_use_statement(&key, |statement| statement["Principal"] = json!("*"));
    };
    for (topology, get) in [(Topology::SameAccount, 200), (Topology::Users, 403)] {
        let lab = lab_with(topology, open).await;
        let user = sts(&of(&lab, "deploy"));
        let probe = user.get_federation_token().name("probe").policy(reading()).send().await;
        let probe = session(&lab, probe.unwrap().credentials());
        assert_eq!(head_and_get(&probe).await, (200, get), "{topology:?}");
    }
}

#[tokio::test]
async fn reader_roles_read_with_the_grants_of_both_sides() {
    for (iam_side, key_policy_side, get) in
        [(true, true, 200), (true, false, 403), (false, true, 403), (false, false, 403)]
    {
        let (mut far, mut near) = (String::new(), String::new());
        let lab = lab_with(Topology::Roles, |world| {
            far = world.add_reader_role("far", "333333333333", iam_side, key_policy_side);
            near = world.add_reader_role("near", STATE_ACCOUNT, iam_side, key_policy_side);
        })
        .await;
        let deploy = sts(&of(&lab, "deploy"));
        let assume = |role: &str| deploy.assume_role().role_arn(role).role_session_name("read");
        let what = format!("{iam_side} {key_policy_side}");

        let session_of_far = assume(&far).send().await.unwrap();
        let far_session = session(&lab, session_of_far.credentials());
        let shown = session_of_far.assumed_role_user().unwrap().arn();
        assert_eq!(shown, "arn:aws:sts::333333333333:assumed-role/far/read");
        assert_eq!(arn(&far_session).await, shown);
        assert_eq!(head_and_get(&far_session).await, (200, get), "{what}");
        let key = lab.world().state_key_arn().to_owned();
        let kms = aws_sdk_kms::Client::new(&far_session);
        let described = kms.describe_key().key_id(key).send().await;
        assert_eq!(described.is_ok(), get == 200, "{what}");

        // In the key's account one side is enough.
        let near_session = assume(&near).send().await.unwrap();
        let near_session = session(&lab, near_session.credentials());
        let get = if iam_side || key_policy_side { 200 } else { 403 };
        assert_eq!(head_and_get(&near_session).await, (200, get), "{what}");

        let limited = assume(&far).policy(reading()).send().await.unwrap();
        let limited = session(&lab, limited.credentials());
        assert_eq!(head_and_get(&limited).await, (200, 403), "{what}");
    }
}

#[tokio::test]
async fn roles_are_assumed_as_their_trust_says() {
    let mut reader = String::new();
    let lab = lab_with(Topology::SameAccount, |world| {
        reader = world.add_reader_role("reads", STATE_ACCOUNT, true, true);
    })
    .await;
    let may = async |lab: &Lab| {
        let deploy = sts(&of(lab, "deploy"));
        deploy.assume_role().role_arn(&reader).role_session_name("read").send().await.is_ok()
    };
    let trust = |principal: &str| json!({ "Statement": { "Effect": "Allow", "Principal": { "AWS": principal }, "Action": "sts:AssumeRole" } });
    let user = lab.world().principal_mut("deploy").identity.arn.clone();
    let root = format!("arn:aws:iam::{STATE_ACCOUNT}:root");
    for (principal, own_policy, allowed) in [
        (&*user, true, true),
        // One account: named itself, the user needs no policy of its own …
        (&*user, false, true),
        // … named by its account, it does …
        (&*root, true, true),
        (&*root, false, false),
        // … and its own policy is not enough.
        ("arn:aws:iam::333333333333:root", true, false),
    ] {
        lab.world().role_mut(&reader).trust = trust(principal);
        lab.world().change_policies("deploy", |policies| {
            policies.retain(|policy| !policy.to_string().contains("sts:AssumeRole"));
            if own_policy {
                policies.push(serde_json::from_str(&allow(json!("sts:AssumeRole"), "*")).unwrap());
            }
        });
        assert_eq!(may(&lab).await, allowed, "{principal} {own_policy}");
    }

    // The preset's role trusts GitHub, not itself.
    let roles = lab_with(Topology::Roles, |world| {
        let all = serde_json::from_str(&allow(json!("sts:*"), "*")).unwrap();
        world.change_policies("deploy", |policies| policies.push(Value::clone(&all)));
    })
    .await;
    let own = sts(&of(&roles, "deploy"));
    let (code, message) =
        refusal(own.assume_role().role_arn(CICD).role_session_name("again").send().await);
    assert_eq!(code, "AccessDenied");
    let expected = format!(
        "User: arn:aws:sts::222222222222:assumed-role/cicd/lab is not authorized to perform: \
         sts:AssumeRole on resource: {CICD}"
    );
    assert_eq!(message, expected);
    let missing = own.assume_role().role_arn(format!("{CICD}-2")).role_session_name("again");
    assert_eq!(refusal(missing.send().await).0, "AccessDenied");
    let long = own.assume_role().role_arn(CICD).role_session_name("again").duration_seconds(3601);
    assert_eq!(refusal(long.send().await).0, "ValidationError");
}

#[tokio::test]
async fn credentials_of_a_session_need_its_token_and_signature() {
    let lab = lab(Topology::Users).await;
    let user = sts(&of(&lab, "deploy"));
    let probe = user.get_federation_token().name("probe").send().await.unwrap();
    let c = probe.credentials().unwrap();
    for (secret, token, code) in [
        (c.secret_access_key.as_str(), None, "InvalidClientTokenId"),
        ("wrong", Some(c.session_token.clone()), "SignatureDoesNotMatch"),
    ] {
        let made = Credentials::new(&c.access_key_id, secret, token, None, "test");
        let identity = sts(&config(&lab, Some(made))).get_caller_identity().send().await;
        assert_eq!(refusal(identity).0, code);
    }
    // Such a session calls nothing of IAM.
    let iam = aws_sdk_iam::Client::new(&session(&lab, Some(c)));
    let simulate = iam.simulate_principal_policy().policy_source_arn(CICD).action_names("s3:*");
    assert_eq!(refusal(simulate.send().await).0, "InvalidClientTokenId");
}

#[tokio::test]
async fn the_simulator_reads_identity_policies_only() {
    let lab = lab_with(Topology::Roles, |world| {
        let simulate = json!({ "Statement": [
            { "Effect": "Allow", "Action": "iam:SimulatePrincipalPolicy", "Resource": "*" },
            { "Effect": "Deny", "Action": "kms:Encrypt", "Resource": "*" },
        ] });
        world.change_policies("deploy", |policies| policies.push(simulate.clone()));
    })
    .await;
    let iam = aws_sdk_iam::Client::new(&of(&lab, "deploy"));
    let key = lab.world().state_key_arn().to_owned();
    let simulate = |arn: &str| iam.simulate_principal_policy().policy_source_arn(arn);

    let answer = simulate(CICD)
        .action_names("kms:Decrypt")
        .action_names("kms:Encrypt")
        .action_names("dynamodb:PutItem")
        .resource_arns(&key)
        .resource_arns("*")
        .send()
        .await
        .unwrap();
    let decisions: Vec<_> = answer
        .evaluation_results()
        .iter()
        .map(|r| (r.eval_action_name(), r.eval_resource_name().unwrap(), r.eval_decision().clone()))
        .collect();
    assert!(!answer.is_truncated());
    assert_eq!(decisions[0], ("kms:Decrypt", &*key, Verdict::Allowed));
    assert_eq!(decisions[1], ("kms:Decrypt", "*", Verdict::Allowed));
    assert_eq!(decisions[2].2, Verdict::ExplicitDeny);
    assert_eq!(decisions[4].2, Verdict::ImplicitDeny);
    assert_eq!(decisions.len(), 6);

    let user = "arn:aws:iam::222222222222:user/no-iam";
    let no_iam = simulate(user).action_names("kms:Decrypt").resource_arns(&key).send().await;
    assert_eq!(*no_iam.unwrap().evaluation_results()[0].eval_decision(), Verdict::ImplicitDeny);

    let page = simulate(CICD).action_names("s3:A").action_names("s3:B").max_items(1);
    let page = page.send().await.unwrap();
    assert!(page.is_truncated() && page.evaluation_results().len() == 1);
    let all = simulate(CICD).action_names("s3:A").action_names("s3:B").max_items(1);
    let all: Vec<_> = all.into_paginator().items().send().collect::<Result<_, _>>().await.unwrap();
    assert_eq!(all.len(), 2);

    for (arn, code) in [
        ("arn:aws:iam::222222222222:role/none", "NoSuchEntity"),
        ("arn:aws:sts::222222222222:assumed-role/cicd/lab", "InvalidInput"),
        ("arn:aws:iam::111111111111:user/admin", "AccessDenied"),
    ] {
        let refused = refusal(simulate(arn).action_names("s3:A").send().await);
        assert_eq!(refused.0, code, "{refused:?}");
    }
    let reader = aws_sdk_iam::Client::new(&of(&lab, "reader"));
    let refused = reader.simulate_principal_policy().policy_source_arn(CICD).action_names("s3:A");
    assert_eq!(refusal(refused.send().await).0, "AccessDenied");
    assert!(lab.log().iter().all(|entry| entry.service == "iam" && !entry.is_write()));
}
