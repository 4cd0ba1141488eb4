//! The real backend client, before and after, for both stacks and both directions.

use aws_lab::{Effect, Encryption, Lab, Matcher, Topology};

use crate::common::terraform::Terraform;
use crate::common::{BUCKET, KEYS, step};
use crate::{lab, peer, workspace};

#[tokio::test(flavor = "multi_thread")]
async fn plan_is_a_clean_no_op_after_each_step() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    for topology in [Topology::Roles, Topology::Users] {
        let (lab, key) = lab(topology).await;
        let workspace = workspace();
        let plan_both = || {
            for module in ["infra", "dns"] {
                let code = terraform.plan(&lab, "deploy", &workspace.module(module));
                assert_eq!(code, 0, "{topology:?} {module}");
            }
        };
        tokio::task::block_in_place(|| {
            let _ = workspace.run(&step(&lab, "deploy", "backend", "")).green();
            for module in ["infra", "dns"] {
                terraform.write_module(&workspace.module(module));
                terraform.apply(&lab, "deploy", &workspace.module(module));
            }
            plan_both();
            let before = KEYS.map(|key| lab.world().current(BUCKET, key).unwrap().body.to_vec());

            let _ = workspace.run(&step(&lab, "deploy", "apply", &key)).green();
            plan_both();
            for state in KEYS {
                let now = lab.world().current(BUCKET, state).unwrap().encryption.clone();
                assert_eq!(now, Encryption::Kms { key: key.clone() });
            }
            // Terraform's own next write stays under the key.
            let changed = "resource \"terraform_data\" \"more\" {}\n";
            std::fs::write(workspace.module("infra").join("more.tf"), changed).unwrap();
            terraform.apply(&lab, "deploy", &workspace.module("infra"));
            let now = lab.world().current(BUCKET, KEYS[0]).unwrap().encryption.clone();
            assert_eq!(now, Encryption::Kms { key: key.clone() });
            let ran = workspace.run(&step(&lab, "deploy", "verify", &key)).green();
            assert_eq!(ran.output("verified"), "true");

            let _ = workspace.run(&step(&lab, "deploy", "rollback", "")).green();
            plan_both();
            for state in KEYS {
                let now = lab.world().current(BUCKET, state).unwrap().encryption.clone();
                assert_eq!(now, Encryption::SseS3);
            }
            let after = lab.world().current(BUCKET, KEYS[1]).unwrap().body.to_vec();
            assert_eq!(after, before[1], "the untouched stack's state is the same, byte for byte");
        });
    }
}

/// Both stacks under SSE-S3, with `use_lockfile` in their backend files.
async fn locking(terraform: &Terraform) -> (Lab, String, crate::common::Workspace) {
    let (lab, key) = lab(Topology::Roles).await;
    let workspace = workspace();
    tokio::task::block_in_place(|| {
        let mut variables = step(&lab, "deploy", "backend", "");
        variables.push(("INPUT_LOCK".into(), "s3".into()));
        let _ = workspace.run(&variables).green();
        for module in ["infra", "dns"] {
            terraform.write_module(&workspace.module(module));
            terraform.apply(&lab, "deploy", &workspace.module(module));
        }
    });
    (lab, key, workspace)
}

fn with_lock(lab: &Lab, key: &str) -> Vec<(String, String)> {
    let mut variables = step(lab, "deploy", "apply", key);
    variables.push(("INPUT_LOCK".into(), "s3".into()));
    variables.push(("GITHUB_ACTOR".into(), "octocat".into()));
    variables.push(("GITHUB_REPOSITORY".into(), "cabalmail/cabal-infra".into()));
    variables
}

#[tokio::test(flavor = "multi_thread")]
async fn terraform_says_who_holds_the_actions_lock_and_why() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    let (lab, key, workspace) = locking(&terraform).await;
    // The re-key stands still while the locks are held.
    lab.inject(Matcher::every("CopyObject"), Effect::Timeout);
    let variables = with_lock(&lab, &key);
    let folder = workspace.module("infra");
    tokio::task::block_in_place(|| {
        let child = workspace.start(&variables);
        while lab.world().current(BUCKET, "production.tflock").is_none() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let environment = lab.env("deploy");
        terraform.init(&environment, &folder);
        let arguments = ["apply", "-auto-approve", "-input=false", "-no-color"];
        let (code, log) = terraform.call(&environment, &folder, &arguments);
        assert_eq!(code, 1, "{log}");
        for part in [
            "Error acquiring the state lock",
            "octocat@cabalmail/cabal-infra",
            "tfstate-kms apply",
            "tfstate-kms changes the encryption of this state",
        ] {
            assert!(log.contains(part), "{part}: {log}");
        }
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success()
        );
        let _ = workspace.finish(child, &variables).red("cancelled");
        lab.clear_faults();
        // Released: Terraform goes on.
        let (code, log) = terraform.call(&environment, &folder, &arguments);
        assert_eq!(code, 0, "{log}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn terraforms_lock_is_waited_for() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    let (lab, key, workspace) = locking(&terraform).await;
    let folder = workspace.module("infra");
    let slow = "resource \"terraform_data\" \"slow\" {\n  provisioner \"local-exec\" {\n    \
                command = \"sleep 5\"\n  }\n}\n";
    std::fs::write(folder.join("slow.tf"), slow).unwrap();
    let environment = lab.env("deploy");
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let applying = scope.spawn(|| {
                terraform.call(&environment, &folder, &["apply", "-auto-approve", "-input=false"])
            });
            while lab.world().current(BUCKET, "production.tflock").is_none() {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let ran = workspace.run(&with_lock(&lab, &key)).green();
            assert!(ran.log.contains("waiting for the lock of `production`"), "{}", ran.log);
            assert!(ran.log.contains("OperationTypeApply"), "{}", ran.log);
            assert_eq!(ran.output("rekeyed"), "2");
            let (code, log) = applying.join().unwrap();
            assert_eq!(code, 0, "{log}");
        });
        for module in ["infra", "dns"] {
            assert_eq!(terraform.plan(&lab, "deploy", &workspace.module(module)), 0, "{module}");
        }
    });
}

/// What a killed run leaves, Terraform respects, and takes away as the next run says.
#[tokio::test(flavor = "multi_thread")]
async fn terraform_unlocks_what_a_killed_run_has_left() {
    if peer("terraform").is_none() {
        return;
    }
    let terraform = Terraform::find().unwrap();
    let (lab, key, workspace) = locking(&terraform).await;
    lab.inject(Matcher::every("CopyObject"), Effect::Timeout);
    let mut variables = with_lock(&lab, &key);
    variables.push(("INPUT_LOCK-TIMEOUT".into(), "0".into()));
    let locks = ["production.tflock", "production-bootstrap.tflock"];
    let left =
        |lab: &Lab| locks.iter().filter(|name| lab.world().current(BUCKET, name).is_some()).count();
    tokio::task::block_in_place(|| {
        let mut child = workspace.start(&variables);
        while left(&lab) < 2 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lab.clear_faults();
        let ran = workspace.run(&variables).red("state-locked");
        let environment = lab.env("deploy");
        for (module, name) in ["infra", "dns"].into_iter().zip(locks) {
            let body = lab.world().current(BUCKET, name).unwrap().body.to_vec();
            let info: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let id = info["ID"].as_str().unwrap();
            assert!(ran.log.contains(&format!("terraform force-unlock {id}")), "{}", ran.log);
            let folder = workspace.module(module);
            terraform.init(&environment, &folder);
            let unlock = ["force-unlock", "-force", id];
            let (code, log) = terraform.call(&environment, &folder, &unlock);
            assert_eq!(code, 0, "{log}");
        }
        assert_eq!(left(&lab), 0);
        let ran = workspace.run(&variables).green();
        assert_eq!(ran.output("rekeyed"), "2");
        for module in ["infra", "dns"] {
            assert_eq!(terraform.plan(&lab, "deploy", &workspace.module(module)), 0, "{module}");
        }
    });
}
