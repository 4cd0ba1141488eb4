//! Configuration written by hand, and Terraform after the action has edited it: it finds the same
//! state, and its next write is under the key.

use aws_lab::{Encryption, Lab, Topology};
use serde_json::json;

use crate::common::terraform::Terraform;
use crate::common::{BUCKET, KEYS, Workspace, step, variables};
use crate::{lab, peer, workspace};

const BLOCK: &str = r#"# Ask the platform team before you change this.
terraform {
  required_version = ">= 1.5"

  backend "s3" {
    bucket = "cabal-tf-backend" # shared
    key    = "production"
    region = "us-east-1"
  }
}
"#;

const JSON: &str = r#"{
  "terraform": {
    "backend": {
      "s3": {
        "bucket": "cabal-tf-backend",
        "key": "production",
        "region": "us-east-1"
      }
    }
  }
}
"#;

/// The stack's state, written by Terraform, with this in its folder.
fn stack(terraform: &Terraform, lab: &Lab, principal: &str, files: &[(&str, &str)]) -> Workspace {
    let checkout = workspace();
    let folder = checkout.module("infra");
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
    if !folder.join("main.tf").exists() {
        terraform.write_module(&folder);
    }
    terraform.apply(lab, principal, &folder);
    checkout
}

fn action(
    checkout: &Workspace,
    lab: &Lab,
    who: &str,
    mode: &str,
    key: &str,
    more: &[(&str, &str)],
) -> crate::common::Ran {
    let mut all = step(lab, who, mode, key);
    all.extend(variables(&[("INPUT_MODULES", "infra")]));
    for (name, value) in variables(more) {
        all.retain(|(known, _)| *known != name);
        all.push((name, value));
    }
    checkout.run(&all)
}

/// A change of the stack, applied by Terraform.
fn change(terraform: &Terraform, lab: &Lab, principal: &str, checkout: &Workspace) {
    let more = "resource \"terraform_data\" \"more\" {}\n";
    std::fs::write(checkout.module("infra").join("more.tf"), more).unwrap();
    terraform.apply(lab, principal, &checkout.module("infra"));
}

fn encryption(lab: &Lab) -> Encryption {
    lab.world().current(BUCKET, KEYS[0]).unwrap().encryption.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn terraform_goes_on_under_the_key_wherever_the_block_stands() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    let elsewhere = BLOCK.replace("\"production\"", "\"elsewhere\"");
    for files in [
        &[("backend.tf", BLOCK)][..],
        &[("versions.tf", BLOCK)],
        &[("main.tf.json", JSON)],
        &[("backend.tf", elsewhere.as_str()), ("override.tf", BLOCK)],
        &[("a.tf", elsewhere.as_str()), ("z_override.tf.json", JSON)],
    ] {
        let (lab, key) = lab(Topology::Roles).await;
        tokio::task::block_in_place(|| {
            let checkout = stack(&terraform, &lab, "deploy", files);
            let folder = checkout.module("infra");
            assert_eq!(encryption(&lab), Encryption::SseS3);
            let ran = action(&checkout, &lab, "deploy", "apply", &key, &[]).green();
            assert_eq!(ran.output("rekeyed"), "1", "{}", ran.log);
            assert_eq!(terraform.plan(&lab, "deploy", &folder), 0, "{files:?}");
            change(&terraform, &lab, "deploy", &checkout);
            assert_eq!(encryption(&lab), Encryption::Kms { key: key.clone() }, "{files:?}");
            let (code, log) = terraform.call(&[], &folder, &["fmt", "-check", "-diff"]);
            assert_eq!(code, 0, "{log}");
            let ran = action(&checkout, &lab, "deploy", "verify", &key, &[]).green();
            assert_eq!(ran.output("verified"), "true");
            // And back: the same file, but for `encrypt = true`.
            let _ = action(&checkout, &lab, "deploy", "rollback", "", &[]).green();
            std::fs::remove_file(folder.join("more.tf")).unwrap();
            terraform.apply(&lab, "deploy", &folder);
            assert_eq!(encryption(&lab), Encryption::SseS3, "{files:?}");
            let (code, log) = terraform.call(&[], &folder, &["fmt", "-check", "-diff"]);
            assert_eq!(code, 0, "{log}");
        });
    }
}

/// What the action refuses to write beside, Terraform would refuse, too; what it leaves alone under
/// `backend-format: none`, Terraform's next write would take from under the key.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_would_have_done_harm() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    let (lab, key) = lab(Topology::Roles).await;
    tokio::task::block_in_place(|| {
        let checkout = stack(&terraform, &lab, "deploy", &[("versions.tf", BLOCK)]);
        let folder = checkout.module("infra");
        let none = ("INPUT_BACKEND-FORMAT", "none");
        let _ = action(&checkout, &lab, "deploy", "apply", &key, &[none]).red("backend-differs");
        let ignore = ("INPUT_ON-EXISTING", "ignore");
        let _ = action(&checkout, &lab, "deploy", "apply", &key, &[none, ignore]).green();
        assert_eq!(encryption(&lab), Encryption::Kms { key: key.clone() });
        change(&terraform, &lab, "deploy", &checkout);
        assert_eq!(encryption(&lab), Encryption::SseS3, "as was warned of");
        let ran = action(&checkout, &lab, "deploy", "verify", &key, &[none]).red("drift");
        assert!(ran.log.contains("versions.tf"), "{}", ran.log);

        std::fs::write(folder.join("backend.tf"), BLOCK).unwrap();
        let ran = action(&checkout, &lab, "deploy", "apply", &key, &[]).red("backend-differs");
        assert!(ran.log.contains("more than one backend block"), "{}", ran.log);
        let (code, log) = terraform.call(&lab.env("deploy"), &folder, &["init", "-no-color"]);
        assert!(code != 0 && log.contains("Duplicate"), "{log}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_region_in_the_file_is_where_terraform_finds_the_bucket() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    let (lab, key) = lab(Topology::Roles).await;
    tokio::task::block_in_place(|| {
        let checkout = workspace();
        let ambient = ("AWS_REGION", "eu-west-1");
        for mode in ["backend", "apply"] {
            let _ = action(&checkout, &lab, "deploy", mode, &key, &[ambient]).green();
            let file = checkout.backend("infra");
            assert!(file.contains("region     = \"us-east-1\""), "{mode}: {file}");
        }
        let folder = checkout.module("infra");
        terraform.write_module(&folder);
        let mut environment = lab.env("deploy");
        environment.retain(|(name, _)| name != "AWS_DEFAULT_REGION" && name != "AWS_REGION");
        environment.push(("AWS_REGION".into(), "eu-west-1".into()));
        terraform.init(&environment, &folder);
        let apply = ["apply", "-auto-approve", "-input=false"];
        let (code, log) = terraform.call(&environment, &folder, &apply);
        assert_eq!(code, 0, "{log}");
        assert_eq!(encryption(&lab), Encryption::Kms { key: key.clone() });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn terraform_can_write_where_the_policy_demands_a_header() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    for who in ["deploy", "admin"] {
        let (lab, key) = lab(Topology::SameAccount).await;
        let policy = json!({
            "Sid": "Demand", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
            "Resource": format!("arn:aws:s3:::{BUCKET}/*"),
            "Condition": { "Null": { "s3:x-amz-server-side-encryption": "true" } },
        });
        if let Some(text) = lab.world().bucket_mut(BUCKET).policy.as_mut() {
            text["Statement"].as_array_mut().unwrap().push(policy);
        }
        tokio::task::block_in_place(|| {
            // From the start, through the key, and back.
            let checkout = workspace();
            let _ = action(&checkout, &lab, who, "apply", "", &[]).green();
            terraform.write_module(&checkout.module("infra"));
            terraform.apply(&lab, who, &checkout.module("infra"));
            assert_eq!(encryption(&lab), Encryption::SseS3);
            let _ = action(&checkout, &lab, who, "apply", &key, &[]).green();
            let _ = action(&checkout, &lab, who, "rollback", "", &[]).green();
            change(&terraform, &lab, who, &checkout);
            assert_eq!(encryption(&lab), Encryption::SseS3);
        });
    }
}
