//! The main job from beginning to end, on the embedded lab: an AWS in one process with a
//! state account and a deploy account.
//!
//! Both stacks' states are written by the real Terraform when it is on PATH. Then the
//! real action binary runs as the runner would run it: backend → plan → apply → verify →
//! apply again → rollback, each with its verdict, and `terraform plan` shows that nothing
//! changed for Terraform. Last comes the life of a key: made, used, retired, recovered, and a
//! principal taken out of its policy.

#![allow(clippy::print_stdout, reason = "the demo talks to whoever started it")]

#[path = "../tests/common/mod.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "shared with the tests")]
mod common;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use aws_lab::{Encryption, Lab, Topology, cabal};
use common::terraform::Terraform;
use common::{BUCKET, KEYS, Ran, Workspace, bench, built, state, step};

#[tokio::main]
async fn main() -> Result<()> {
    built::build("demo");
    let lab = Lab::start(cabal(Topology::Roles)).await?;
    let key = lab.world().state_key_arn().to_owned();
    let workspace = bench::workspace();
    println!("Lab at {}: bucket {BUCKET} in the state account, key {key},", lab.endpoint());
    println!("and a deploy role of another account, granted as the runbook says.\n");

    let terraform = Terraform::find();
    match &terraform {
        Some(_) => {}
        None => {
            println!("SKIPPED Terraform: it is not on PATH; the states are made here instead\n")
        }
    }
    let demo = Demo { lab: &lab, workspace: &workspace, key: &key, terraform };
    tokio::task::block_in_place(|| demo.run())?;
    let summary = keep_summary(&workspace)?;
    println!("The summary of the migration is in {}", summary.display());
    Ok(())
}

struct Demo<'a> {
    lab: &'a Lab,
    workspace: &'a Workspace,
    key: &'a str,
    terraform: Option<Terraform>,
}

impl Demo<'_> {
    fn run(&self) -> Result<()> {
        println!("1. Before: the backend without a key, and both stacks' states");
        self.action("backend", "", &[])?;
        self.make_states()?;

        println!("2. STATE_KMS_KEY_ID is set: what would happen?");
        let plan = self.action("plan", self.key, &[])?;
        ensure!(plan.output("changed") == "false", "a plan changes nothing");

        println!("3. The migration");
        let apply = self.action("apply", self.key, &[])?;
        ensure!(apply.output("verified") == "true", "the migration is verified");
        ensure!(apply.output("gate") == "holds", "S3 access alone reads the states no more");
        std::fs::write(self.workspace.path().join("summary.md"), &apply.summary)?;
        self.terraform_sees_no_change()?;

        println!("4. A scheduled check, and the same again: nothing left to do");
        self.action("verify", self.key, &[])?;
        let again = self.action("apply", self.key, &[])?;
        ensure!(again.output("changed") == "false", "a second run changes nothing");

        println!("5. The variable is lost: Terraform would undo the encryption at its next write");
        let lost = self.workspace.run(&step(self.lab, "deploy", "apply", ""));
        ensure!(lost.output("failure-reason") == "downgrade-refused", "{}", lost.log);
        println!("   ✔ refused: downgrade-refused\n");

        println!("6. Back to SSE-S3, on purpose");
        self.action("rollback", "", &[])?;
        self.terraform_sees_no_change()?;
        self.life_of_a_key()?;
        println!("{}", "─".repeat(72));
        println!("{}", apply.summary);
        println!("{}", "─".repeat(72));
        Ok(())
    }

    /// As the administrator of the state account.
    fn life_of_a_key(&self) -> Result<()> {
        println!("7. Another key, from nothing to a verified environment in three runs");
        let principal = self.lab.world().principal_mut("deploy").identity.arn.clone();
        let new = [("INPUT_ALIAS", "alias/next"), ("INPUT_DEPLOY-PRINCIPALS", principal.as_str())];
        self.key("create-key", &new)?;
        let made = self.key("create-key", &[new[0], new[1], ("INPUT_CONFIRM", "create")])?;
        let key = made.output("kms-key-arn").to_owned();
        let id = made.output("kms-key-id").to_owned();
        // Part 2 of the runbook: the statement that the summary gives.
        let statement = serde_json::json!({ "Statement": [{ "Effect": "Allow", "Resource": key,
            "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"] }] });
        self.lab.world().change_policies("deploy", |policies| policies.push(statement.clone()));
        self.action("apply", &key, &[])?;
        self.terraform_sees_no_change()?;

        println!(
            "8. The old key: nothing may need it, then it is retired, and recovered once more"
        );
        let old = self.key.to_owned();
        let old_id = old.rsplit('/').next().unwrap_or_default().to_owned();
        let target = ("INPUT_TARGET-KEY", old.as_str());
        let refused = self.run_key("retire-key", &[target]);
        ensure!(refused.output("failure-reason") == "key-in-use", "{}", refused.log);
        println!("   ✔ retire-key refused: old versions of the states are under it");
        let under = |key: &String| {
            let world = self.lab.world();
            let all = KEYS.iter().flat_map(|state| world.versions(BUCKET, state).to_vec());
            all.filter(|version| version.encryption.kms_key() == Some(key)).count()
        };
        let count = under(&old).to_string();
        let confirm = ("INPUT_CONFIRM", old_id.as_str());
        self.key("retire-key", &[target, confirm, ("INPUT_ABANDON-VERSIONS", &count)])?;
        self.key("recover-key", &[target, confirm])?;

        println!("9. The deploy principal is compromised");
        let who = ("INPUT_DEPLOY-PRINCIPALS", principal.as_str());
        let target = ("INPUT_TARGET-KEY", key.as_str());
        self.key("revoke", &[target, who, ("INPUT_CONFIRM", &id)])?;
        let shut = self.workspace.run(&step(self.lab, "deploy", "verify", &key));
        ensure!(shut.output("failure-reason") == "state-unreadable", "{}", shut.log);
        println!("   ✔ it reads the states no more\n");
        Ok(())
    }

    fn run_key(&self, mode: &str, more: &[(&str, &str)]) -> Ran {
        let mut variables = step(self.lab, "key-admin", mode, "");
        variables.extend(common::variables(more));
        self.workspace.run(&variables)
    }

    fn key(&self, mode: &str, more: &[(&str, &str)]) -> Result<Ran> {
        let ran = self.run_key(mode, more);
        ensure!(ran.code == 0, "mode {mode} failed:\n{}", ran.log);
        println!(
            "   ✔ {mode}: changed={} verified={}",
            ran.output("changed"),
            ran.output("verified")
        );
        for line in ran
            .log
            .lines()
            .filter(|line| line.starts_with("done: ") || line.starts_with("not done: "))
            .filter(|line| !line.contains(" requests in "))
        {
            println!("     {line}");
        }
        println!();
        Ok(ran)
    }

    fn action(&self, mode: &str, key: &str, more: &[(&str, &str)]) -> Result<Ran> {
        let mut variables = step(self.lab, "deploy", mode, key);
        // The job has `permissions: id-token: write`.
        variables.extend(self.lab.oidc_env());
        variables.extend(common::variables(more));
        let ran = self.workspace.run(&variables);
        ensure!(ran.code == 0, "mode {mode} failed:\n{}", ran.log);
        println!(
            "   ✔ {mode}: encryption={} rekeyed={} changed={} verified={} gate={}",
            ran.output("encryption"),
            ran.output("rekeyed"),
            ran.output("changed"),
            ran.output("verified"),
            ran.output("gate"),
        );
        for state in KEYS {
            if let Some(version) = self.lab.world().current(BUCKET, state) {
                println!("     {state}: {:?}", version.encryption);
            }
        }
        println!();
        Ok(ran)
    }

    fn make_states(&self) -> Result<()> {
        match &self.terraform {
            Some(terraform) => {
                for module in ["infra", "dns"] {
                    terraform.write_module(&self.workspace.module(module));
                    terraform.apply(self.lab, "deploy", &self.workspace.module(module));
                }
                println!("   ✔ terraform apply wrote both states\n");
            }
            None => {
                for key in KEYS {
                    self.lab.world().put_object(BUCKET, key, state(1), Encryption::SseS3);
                }
            }
        }
        Ok(())
    }

    fn terraform_sees_no_change(&self) -> Result<()> {
        let Some(terraform) = &self.terraform else { return Ok(()) };
        for module in ["infra", "dns"] {
            let code = terraform.plan(self.lab, "deploy", &self.workspace.module(module));
            ensure!(code == 0, "terraform plan for {module} is not a clean no-op (exit {code})");
        }
        println!("   ✔ terraform plan -detailed-exitcode: no changes, both stacks\n");
        Ok(())
    }
}

/// The workspace goes with the demo; the summary stays in the target folder.
fn keep_summary(workspace: &Workspace) -> Result<PathBuf> {
    let kept = built::profile_folder().join("demo-summary.md");
    std::fs::copy(workspace.path().join("summary.md"), &kept)?;
    Ok(kept)
}
