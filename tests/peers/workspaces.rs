//! Terraform's workspaces: what the action writes and re-keys is where Terraform looks.

use aws_lab::{Encryption, Topology};

use crate::common::terraform::Terraform;
use crate::common::{BUCKET, step, variables};
use crate::{lab, peer, workspace};

#[tokio::test(flavor = "multi_thread")]
async fn terraform_plans_no_change_in_any_workspace() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    for line in ["infra=env:/{workspace}/stack", "infra=env:/*/stack", "infra=env:/blue/stack"] {
        let (lab, key) = lab(Topology::Roles).await;
        let checkout = workspace();
        let folder = checkout.module("infra");
        let action = |mode: &str, key: &str, workspace: &str| {
            let mut all = step(&lab, "deploy", mode, key);
            all.extend(variables(&[
                ("INPUT_MODULES", "infra"),
                ("INPUT_STATE-KEYS", line),
                ("TF_WORKSPACE", workspace),
            ]));
            checkout.run(&all).green()
        };
        let call = |workspace: &str, arguments: &[&str]| {
            let mut environment = lab.env("deploy");
            environment.push(("TF_WORKSPACE".into(), workspace.into()));
            terraform.call(&environment, &folder, arguments)
        };
        tokio::task::block_in_place(|| {
            let _ = action("backend", "", "blue");
            terraform.write_module(&folder);
            terraform.init(&lab.env("deploy"), &folder);
            let (code, log) =
                terraform.call(&lab.env("deploy"), &folder, &["workspace", "new", "blue"]);
            assert_eq!(code, 0, "{log}");
            for name in ["blue", "default"] {
                let (code, log) = call(name, &["apply", "-auto-approve", "-input=false"]);
                assert_eq!(code, 0, "{log}");
            }
            let ran = action("apply", &key, "blue");
            let both = line.contains('*');
            assert_eq!(ran.output("rekeyed"), if both { "2" } else { "1" }, "{}", ran.log);
            for (object, re_keyed) in [("env:/blue/stack", true), ("stack", both)] {
                let now = lab.world().current(BUCKET, object).unwrap().encryption.clone();
                assert_eq!(now == Encryption::Kms { key: key.clone() }, re_keyed, "{object}");
            }
            terraform.init(&lab.env("deploy"), &folder);
            for name in ["blue", "default"] {
                let (code, log) = call(name, &["plan", "-detailed-exitcode", "-input=false"]);
                assert_eq!(code, 0, "{line}: {name}: {log}");
            }
        });
    }
}
