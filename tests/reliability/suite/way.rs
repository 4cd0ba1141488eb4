//! A run of `apply` or `rollback` on two states, and what must hold after it.

use std::path::Path;

use anyhow::{Result, ensure};
use aws_lab::{Encryption, Topology, WorkflowRun};

use crate::common::bench::Bench;
use crate::common::{BUCKET, KEYS, Ran, state};

/// How the two states are re-keyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// `apply` or `rollback`.
    pub mode: &'static str,
    /// With the gate's probe, the look for runs in flight and the check run.
    pub full: bool,
    /// By S3's in-place operation, which takes the bucket owner's administrator.
    pub in_place: bool,
}

impl Way {
    /// As a table has it.
    pub fn name(self) -> String {
        let how = if self.in_place { ", in place" } else { "" };
        let probe = if self.full { "on" } else { "off" };
        format!("`{}`{how}, probe {probe}", self.mode)
    }

    fn who(self) -> &'static str {
        if self.in_place { "admin" } else { "deploy" }
    }

    /// The lab, with both states as they are before.
    pub async fn bench(self) -> Bench {
        Bench::with(Topology::Roles, |world| {
            let key = world.state_key_arn().to_owned();
            if self.mode == "rollback" {
                for (at, name) in KEYS.iter().enumerate() {
                    let kms = Encryption::Kms { key: key.clone() };
                    world.put_object(BUCKET, name, state(7 + at as u64), kms);
                }
            }
            world.github.workflows = vec!["infra.yml".into()];
            world.github.runs = vec![WorkflowRun {
                id: 1,
                workflow: "infra.yml".into(),
                status: "in_progress".into(),
                branch: "main".into(),
                created_at: "2026-11-24T02:00:00Z".into(),
                jobs: vec![],
            }];
        })
        .await
    }

    /// The environment of the run.
    pub fn variables(self, bench: &Bench) -> Vec<(String, String)> {
        let key = if self.mode == "rollback" { "" } else { &bench.key };
        let mut more = vec![];
        if self.in_place {
            more.push(("INPUT_STRATEGY", "in-place"));
        }
        if !self.full {
            more.push(("INPUT_PROBE", "off"));
        }
        let mut variables = bench.variables(self.who(), self.mode, key, &more);
        if self.full {
            variables.extend(bench.lab.github_env());
            variables.push(("INPUT_CHECK-RUN".into(), "true".into()));
            let workflow = "example/infrastructure/.github/workflows/infra.yml@refs/heads/main";
            variables.push(("GITHUB_WORKFLOW_REF".into(), workflow.into()));
        }
        variables
    }

    /// Runs it as often as is asked for, undisturbed.
    pub fn run(self, bench: &Bench) -> Ran {
        let variables = self.variables(bench);
        tokio::task::block_in_place(|| bench.workspace.run(&variables))
    }

    /// How many states are as wanted.
    pub fn done(self, bench: &Bench) -> usize {
        KEYS.iter().filter(|key| bench.encryption(key) == self.wanted(bench)).count()
    }

    /// The bytes of before, under the encryption of before or the one that is wanted; and
    /// nothing that was ever there is gone.
    pub fn intact(self, bench: &Bench) -> Result<()> {
        for (at, key) in KEYS.iter().enumerate() {
            let written = state(7 + at as u64);
            ensure!(bench.body(key) == written, "`{key}` has other bytes");
            let now = bench.encryption(key);
            let known = [self.wanted(bench), self.former(bench)].contains(&now);
            ensure!(known, "`{key}` is under {now:?}");
            let world = bench.lab.world();
            let versions = world.versions(BUCKET, key);
            ensure!(versions.iter().all(|one| one.body == written), "`{key}` was overwritten once");
        }
        Ok(())
    }

    /// All that an undisturbed run comes to.
    pub fn converged(self, bench: &Bench, ran: &Ran) -> Result<()> {
        ensure!(ran.code == 0, "the next run failed: {}", ran.output("failure-reason"));
        self.intact(bench)?;
        ensure!(self.done(bench) == KEYS.len(), "the next run left a state as it was");
        let keyed = bench.workspace.backend("infra").contains("kms_key_id");
        ensure!(keyed == (self.mode == "apply"), "backend.tf is not as wanted");
        Ok(())
    }

    /// Temporary files that a run which was killed while it wrote a backend.tf has left.
    pub fn leftovers(bench: &Bench) -> usize {
        let files = files(&bench.workspace.path().join("terraform"));
        files.iter().filter(|file| !file.ends_with("/backend.tf")).count()
    }

    fn wanted(self, bench: &Bench) -> Encryption {
        self.encryption(bench, self.mode == "apply")
    }

    fn former(self, bench: &Bench) -> Encryption {
        self.encryption(bench, self.mode != "apply")
    }

    fn encryption(self, bench: &Bench, keyed: bool) -> Encryption {
        if keyed { Encryption::Kms { key: bench.key.clone() } } else { Encryption::SseS3 }
    }
}

/// All files below a folder, sorted, relative to it.
pub fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}
