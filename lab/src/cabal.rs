//! The presets: a state account with bucket and key, a deploy account, and the
//! runbook's policies.

use serde_json::{Value, json};

use crate::github::{PROVIDER, SUBJECT};
use crate::policy::Identity;
use crate::world::{Key, World};

/// The account that owns bucket and key.
pub const STATE_ACCOUNT: &str = "111111111111";
/// The account of the deploy principal.
pub const DEPLOY_ACCOUNT: &str = "222222222222";
/// The state bucket.
pub const BUCKET: &str = "cabal-tf-backend";
/// Where everything is.
pub const REGION: &str = "us-east-1";
/// The key for the states. Terraform wants a real (version 4) UUID here.
pub const KEY: &str = "arn:aws:kms:us-east-1:111111111111:key/5c0ffee1-2222-4333-8444-555555555555";

/// Who deploys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// An IAM user in its own account, granted its exact state keys.
    Users,
    /// A role's session in its own account, granted the whole bucket; IAM side `s3:*`, `kms:*`.
    Roles,
    /// An IAM user in the state account itself.
    SameAccount,
    /// A role's session in the state account itself.
    SameAccountRole,
}

/// The preset. Principals: `deploy`, `admin` and the role `key-admin` (state account), `reader`
/// (S3 rights and no KMS), `no-key-policy` and `no-iam` (a grant on a single side of the account
/// border).
pub fn cabal(topology: Topology) -> World {
    let mut world = World::new();
    world.add_bucket(BUCKET, STATE_ACCOUNT, REGION);
    let user = |account: &str, name: &str| Identity {
        arn: format!("arn:aws:iam::{account}:user/{name}"),
        session_arn: None,
        account: account.to_owned(),
    };
    let role = |account: &str| Identity {
        arn: format!("arn:aws:iam::{account}:role/cicd"),
        session_arn: Some(format!("arn:aws:sts::{account}:assumed-role/cicd/lab")),
        account: account.to_owned(),
    };
    let deploy = match topology {
        Topology::Users => user(DEPLOY_ACCOUNT, "terraform"),
        Topology::SameAccount => user(STATE_ACCOUNT, "terraform"),
        Topology::Roles => role(DEPLOY_ACCOUNT),
        Topology::SameAccountRole => role(STATE_ACCOUNT),
    };
    let reader = user(DEPLOY_ACCOUNT, "reader");
    let no_key_policy = user(DEPLOY_ACCOUNT, "no-key-policy");
    let no_iam = user(DEPLOY_ACCOUNT, "no-iam");

    let named = |who: &[&Identity]| -> Value {
        json!({ "AWS": who.iter().map(|w| w.arn.clone()).collect::<Vec<_>>() })
    };
    let both = [&deploy, &no_key_policy, &no_iam];
    let keys: Vec<String> = ["production", "production-bootstrap"]
        .iter()
        .map(|key| format!("arn:aws:s3:::{BUCKET}/{key}"))
        .collect();
    let (objects, actions) = match topology {
        Topology::Roles => (
            json!([format!("arn:aws:s3:::{BUCKET}/*")]),
            json!([
                "s3:GetObject",
                "s3:PutObject",
                "s3:DeleteObject",
                "s3:GetObjectTagging",
                "s3:PutObjectTagging"
            ]),
        ),
        Topology::Users | Topology::SameAccount | Topology::SameAccountRole => {
            (json!(keys), json!(["s3:GetObject", "s3:PutObject", "s3:PutObjectAcl"]))
        }
    };
    world.bucket_mut(BUCKET).policy = Some(json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Sid": "Write", "Effect": "Allow", "Principal": named(&both), "Action": actions, "Resource": objects },
            { "Sid": "Read", "Effect": "Allow", "Principal": named(&[&reader]), "Action": "s3:GetObject",
              "Resource": format!("arn:aws:s3:::{BUCKET}/*") },
            { "Sid": "List", "Effect": "Allow",
              "Principal": named(&[&deploy, &no_key_policy, &no_iam, &reader]),
              "Action": "s3:ListBucket", "Resource": format!("arn:aws:s3:::{BUCKET}") },
        ],
    }));

    world.add_key(Key::new(KEY, key_policy(&[&deploy.arn, &no_iam.arn])));
    world.state_key = KEY.to_owned();
    world.aliases.insert(
        format!("arn:aws:kms:{REGION}:{STATE_ACCOUNT}:alias/cabal-tf-state-production"),
        KEY.to_owned(),
    );

    let allow = |action: Value, resource: Value| {
        json!({ "Version": "2012-10-17",
                "Statement": [{ "Effect": "Allow", "Action": action, "Resource": resource }] })
    };
    let s3 = || allow(json!("s3:*"), json!("*"));
    let all_kms = || allow(json!("kms:*"), json!("*"));
    let part_2 =
        || allow(json!(ACTIONS), json!(format!("arn:aws:kms:{REGION}:{STATE_ACCOUNT}:key/*")));
    let federation = || allow(json!("sts:GetFederationToken"), json!("*"));
    let own = match topology {
        Topology::Roles => vec![s3(), all_kms()],
        Topology::Users => vec![s3(), part_2(), federation()],
        // In the key's account the key policy's own statement is enough.
        Topology::SameAccount | Topology::SameAccountRole => vec![
            allow(
                json!("s3:*"),
                json!([
                    format!("arn:aws:s3:::{BUCKET}"),
                    format!("arn:aws:s3:::{BUCKET}/production*")
                ]),
            ),
            federation(),
        ],
    };
    if deploy.session_arn.is_some() {
        world.add_role(&deploy.arn, github_trust(&deploy.account), own.clone());
    }
    world.add_principal("deploy", deploy, own);
    world.add_principal("reader", reader, vec![s3()]);
    world.add_principal("no-key-policy", no_key_policy, vec![s3(), part_2()]);
    world.add_principal("no-iam", no_iam, vec![s3()]);
    let admin = user(STATE_ACCOUNT, "admin");
    world.add_principal("admin", admin, vec![allow(json!("*"), json!("*"))]);
    add_key_admin(&mut world);
    world
}

/// A role of the state account that manages keys and reads the bucket, its versions too.
fn add_key_admin(world: &mut World) {
    let arn = format!("arn:aws:iam::{STATE_ACCOUNT}:role/key-admin");
    let trust = json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": "sts:AssumeRole",
                        "Principal": { "AWS": format!("arn:aws:iam::{STATE_ACCOUNT}:root") } }],
    });
    let bucket = format!("arn:aws:s3:::{BUCKET}");
    let own = vec![json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": "kms:*", "Resource": "*" },
            { "Effect": "Allow", "Action": ["s3:Get*", "s3:List*"],
              "Resource": [bucket, format!("{bucket}/*")] },
            { "Effect": "Allow", "Action": ["sts:GetCallerIdentity", "sts:AssumeRole"],
              "Resource": "*" },
        ],
    })];
    world.add_role(&arn, trust, own.clone());
    let identity = Identity {
        session_arn: Some(format!("arn:aws:sts::{STATE_ACCOUNT}:assumed-role/key-admin/lab")),
        arn,
        account: STATE_ACCOUNT.to_owned(),
    };
    world.add_principal("key-admin", identity, own);
}

/// What SSE-KMS and the backend need (the runbook's four actions).
pub const ACTIONS: [&str; 4] =
    ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"];

/// The runbook's key policy: root administration, and the four actions for each principal.
pub fn key_policy(principals: &[&str]) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Sid": "RootAdmin", "Effect": "Allow",
              "Principal": { "AWS": format!("arn:aws:iam::{STATE_ACCOUNT}:root") },
              "Action": "kms:*", "Resource": "*" },
            { "Sid": "DeployPrincipalUse", "Effect": "Allow", "Principal": { "AWS": principals },
              "Action": ACTIONS, "Resource": "*" },
        ],
    })
}

/// Trusts the jobs of one repository. After "Create a role for OpenID Connect federation" of
/// the IAM User Guide, GitHub's section.
fn github_trust(account: &str) -> Value {
    let repository = SUBJECT.split(":ref:").next().unwrap_or_default();
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "Federated": format!("arn:aws:iam::{account}:oidc-provider/{PROVIDER}") },
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {
                "StringEquals": { format!("{PROVIDER}:aud"): "sts.amazonaws.com" },
                "StringLike": { format!("{PROVIDER}:sub"): format!("{repository}:*") },
            },
        }],
    })
}

impl World {
    /// A role that reads states, with the rights to use the key on the sides given, and that
    /// `deploy` may assume; returns its ARN.
    pub fn add_reader_role(
        &mut self,
        name: &str,
        account: &str,
        iam_side: bool,
        key_policy_side: bool,
    ) -> String {
        let arn = format!("arn:aws:iam::{account}:role/{name}");
        let deploy = self.principal_mut("deploy").clone();
        let grant = |principal: Option<&str>, action: Value, resource: Value| {
            let mut statement = json!({ "Effect": "Allow", "Action": action });
            if let Some(principal) = principal {
                statement["Principal"] = json!({ "AWS": principal });
            }
            if !resource.is_null() {
                statement["Resource"] = resource;
            }
            statement
        };
        let inline =
            |statement: Value| json!({ "Version": "2012-10-17", "Statement": [statement] });
        let kms = || json!(["kms:Decrypt", "kms:DescribeKey"]);
        let key = self.state_key.clone();

        let trust = inline(grant(Some(&deploy.identity.arn), json!("sts:AssumeRole"), Value::Null));
        let mut own = vec![inline(grant(None, json!("s3:*"), json!("*")))];
        if iam_side {
            own.push(inline(grant(None, kms(), json!(key))));
        }
        self.add_role(&arn, trust, own);

        let bucket = format!("arn:aws:s3:::{BUCKET}");
        let reads = [
            grant(Some(&arn), json!("s3:GetObject"), json!(format!("{bucket}/*"))),
            grant(Some(&arn), json!("s3:ListBucket"), json!(bucket)),
        ];
        let policy = self.bucket_mut(BUCKET).policy.as_mut();
        let statements = policy.and_then(|policy| policy["Statement"].as_array_mut());
        statements.expect("the preset's bucket policy").extend(reads);
        if key_policy_side {
            let statements = self.key_mut(&key).policy["Statement"].as_array_mut();
            let statements = statements.expect("the preset's key policy");
            statements.push(grant(Some(&arn), kms(), json!("*")));
        }

        let account = &deploy.identity.account;
        if self.may_call(&deploy, "sts:AssumeRole", &arn, account).is_err() {
            let one = inline(grant(None, json!("sts:AssumeRole"), json!(arn)));
            self.change_policies("deploy", |policies| policies.push(one.clone()));
        }
        arn
    }

    /// Changes the statement of the deploy principals in a key's policy.
    pub fn change_use_statement(&mut self, key: &str, change: impl FnOnce(&mut Value)) {
        change(&mut self.key_mut(key).policy["Statement"][1]);
    }

    /// Takes one action out of it.
    pub fn drop_from_key_policy(&mut self, key: &str, action: &str) {
        self.change_use_statement(key, |statement| {
            if let Some(actions) = statement["Action"].as_array_mut() {
                actions.retain(|a| a != action);
            }
        });
    }

    /// Makes it hold for S3's own use of the key only.
    pub fn require_via_service(&mut self, key: &str) {
        self.change_use_statement(key, |statement| {
            statement["Condition"] =
                json!({ "StringEquals": { "kms:ViaService": format!("s3.{REGION}.amazonaws.com") } });
        });
    }
}
