//! A run of `apply` or `rollback` on some states, or of a key mode on their key, and what
//! must hold after it.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Result, ensure};
use aws_lab::{Effect, Encryption, Matcher, Topology, WorkflowJob, WorkflowRun, World};
use serde_json::{Value, json};

use crate::common::bench::Bench;
use crate::common::{BUCKET, KEYS, Ran, state};

/// A state that only a listing names.
const LISTED: &str = "env:/blue/production";
const DEPLOY_ACCOUNT: &str = "222222222222";
/// What this run's job runs on.
const RUNNER: &str = "runner-1";
/// Requests for lists of runs that one look at them takes.
const LISTS: u32 = 9;

/// What belongs to the run beside the re-key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// Nothing.
    Nothing,
    /// The gate's probe, the look for runs in flight and the check run.
    Guards,
    /// The same, and another run of the workflow, which ends while it is waited for.
    Others,
    /// Terraform's lock, a prefix, tags, a reader, and a key policy with kms:ViaService, under
    /// which one state goes first.
    Everything,
    /// Old versions, which are re-keyed, too.
    History,
    /// A key policy under which S3 writes and does not read, as only S3 can tell: the state
    /// that goes first is put back, and the run fails.
    Refusal,
    /// States that need the key, which `retire-key` is to leave alone then.
    Needed,
}

/// How the states are re-keyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// `apply`, `rollback`, or a key mode.
    pub mode: &'static str,
    /// What else is done.
    pub with: With,
    /// By S3's in-place operation, which takes the bucket owner's administrator.
    pub in_place: bool,
}

/// A way.
pub const fn way(mode: &'static str, with: With, in_place: bool) -> Way {
    Way { mode, with, in_place }
}

/// What the way from a crash to the wanted end has taken beside another run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// A lock that was left, and released as the run said.
    pub unlocked: bool,
    /// A state that could not be read, and was brought back as the run said.
    pub brought_back: bool,
}

impl Way {
    /// As a table has it.
    pub fn name(self) -> String {
        let how = if self.in_place { " in place" } else { "" };
        let with = match self.with {
            With::Nothing => "",
            With::Guards => ", probe, runs in flight, check run",
            With::Others => ", another run waited for",
            With::Everything => ", lock, prefix, tags, reader, kms:ViaService",
            With::History => ", old versions",
            With::Refusal => ", unreadable and restored",
            With::Needed => " of a key that states need",
        };
        format!("`{}`{how}{with}", self.mode)
    }

    /// GitHub is asked for runs, and told of this one.
    pub fn is_on_github(self) -> bool {
        matches!(self.with, With::Guards | With::Others)
    }

    fn who(self) -> &'static str {
        if self.in_place { "admin" } else { "deploy" }
    }

    /// The states.
    pub fn keys(self) -> Vec<&'static str> {
        let listed = (self.with == With::Everything).then_some(LISTED);
        KEYS.into_iter().chain(listed).collect()
    }

    /// The lab, with the states as they are before.
    pub async fn bench(self) -> Bench {
        let bench = Bench::with(Topology::Roles, |world| {
            if self.is_of_a_key() {
                self.arrange_key(world);
            } else {
                self.arrange_states(world);
            }
            world.github.workflows = vec!["infra.yml".into()];
            world.github.runs = vec![run(1, RUNNER, "State under the key")];
            if self.with == With::Others {
                world.github.runs.push(run(2, "runner-2", "terraform plan"));
            }
        })
        .await;
        if self.with == With::Others {
            // At the second look it is over.
            let second = Matcher::every("ListRepositoryRuns").nth(LISTS + 1);
            bench.lab.inject(second, Effect::Act(Box::new(others_end)));
        }
        bench
    }

    fn arrange_states(self, world: &mut World) {
        let key = world.state_key_arn().to_owned();
        let tag = |world: &mut World| {
            if self.with == With::Everything {
                world.tag_object(BUCKET, KEYS[0], &[("team", "infra")]);
            }
        };
        tag(world);
        for (at, name) in self.keys().into_iter().enumerate() {
            let before = match self.mode {
                "rollback" => Encryption::Kms { key: key.clone() },
                _ => Encryption::SseS3,
            };
            // The two usual ones are there already, under SSE-S3.
            let more = name == LISTED || self.mode == "rollback" || self.with == With::History;
            if more {
                world.put_object(BUCKET, name, state(7 + at as u64), before);
            }
        }
        tag(world);
        if self.with == With::Everything {
            world.add_reader_role("report", DEPLOY_ACCOUNT, true, true);
        }
        if matches!(self.with, With::Everything | With::Refusal) {
            world.require_via_service(&key);
            let grant = json!({ "Effect": "Allow", "Principal": "*",
                "Action": ["s3:ListBucketVersions", "s3:GetObjectVersion"],
                "Resource": [format!("arn:aws:s3:::{BUCKET}"), format!("arn:aws:s3:::{BUCKET}/*")] });
            let policy = world.bucket_mut(BUCKET).policy.as_mut().unwrap();
            policy["Statement"].as_array_mut().unwrap().push(grant);
        }
        if self.with == With::Refusal {
            world.drop_from_key_policy(&key, "kms:Decrypt");
        }
    }

    /// The environment of the run.
    pub fn variables(self, bench: &Bench) -> Vec<(String, String)> {
        if self.is_of_a_key() {
            return super::keys::variables(bench, self.mode);
        }
        let key = if self.mode == "rollback" { "" } else { &bench.key };
        let reader = format!("arn:aws:iam::{DEPLOY_ACCOUNT}:role/report");
        let mut more = vec![];
        if self.in_place {
            more.push(("INPUT_STRATEGY", "in-place"));
        }
        if !self.is_on_github() {
            more.push(("INPUT_PROBE", "off"));
        }
        match self.with {
            With::Nothing | With::Guards | With::Refusal | With::Needed => {}
            // Short, so that the pauses are.
            With::Others => more.push(("INPUT_IN-FLIGHT-TIMEOUT", "8")),
            With::Everything => more.extend([
                ("INPUT_LOCK", "s3"),
                ("INPUT_LOCK-TIMEOUT", "0"),
                ("INPUT_MUST-READ", reader.as_str()),
                ("INPUT_STATE-KEYS", "infra={environment}\ndns={environment}-bootstrap\nenv:/*"),
            ]),
            With::History => more.push(("INPUT_HISTORY", "rekey")),
        }
        let mut variables = bench.variables(self.who(), self.mode, key, &more);
        if self.is_on_github() {
            variables.extend(bench.lab.github_env());
            variables.push(("INPUT_CHECK-RUN".into(), "true".into()));
            let workflow = "example/infrastructure/.github/workflows/infra.yml@refs/heads/main";
            variables.push(("GITHUB_WORKFLOW_REF".into(), workflow.into()));
            variables.push(("RUNNER_NAME".into(), RUNNER.into()));
        }
        variables
    }

    /// Runs it once.
    pub fn run(self, bench: &Bench) -> Ran {
        let variables = self.variables(bench);
        tokio::task::block_in_place(|| bench.workspace.run(&variables))
    }

    /// Runs it once, with further variables. It must end by itself within this time.
    pub fn run_within(self, bench: &Bench, more: &[(&str, &str)], limit: Duration) -> Result<Ran> {
        let mut variables = self.variables(bench);
        variables
            .extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        tokio::task::block_in_place(|| {
            let child = bench.workspace.start(&variables);
            let pid = child.id().to_string();
            let (ended, end) = mpsc::channel::<()>();
            let watch = std::thread::spawn(move || {
                let late = end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
                if late {
                    let _ = std::process::Command::new("kill").args(["-KILL", &pid]).status();
                }
                late
            });
            let ran = bench.workspace.finish(child, &variables);
            drop(ended);
            let late = watch.join().unwrap_or(true);
            ensure!(!late, "it did not end by itself within {limit:?}\n{}", ran.log);
            Ok(ran)
        })
    }

    /// How many things are to be as wanted.
    pub fn all(self) -> usize {
        if self.is_of_a_key() { 1 } else { self.keys().len() }
    }

    /// How many are.
    pub fn done(self, bench: &Bench) -> usize {
        if self.is_of_a_key() {
            return usize::from(self.key_done(bench));
        }
        let wanted = |key: &&&str| bench.encryption(key) == self.wanted(bench);
        self.keys().iter().filter(wanted).count()
    }

    /// The bytes of before, under the encryption of before or the one that is wanted; and
    /// nothing that was ever there is gone.
    pub fn intact(self, bench: &Bench) -> Result<()> {
        if self.is_of_a_key() {
            return self.key_intact(bench);
        }
        for (at, key) in self.keys().into_iter().enumerate() {
            let written = state(7 + at as u64);
            ensure!(bench.body(key) == written, "`{key}` has other bytes");
            let now = bench.encryption(key);
            let known = [self.wanted(bench), self.former(bench)].contains(&now);
            ensure!(known, "`{key}` is under {now:?}");
            let world = bench.lab.world();
            let versions = world.versions(BUCKET, key);
            ensure!(versions.iter().all(|one| one.body == written), "`{key}` was overwritten once");
            let tagged = self.with == With::Everything && key == KEYS[0];
            let tags = versions.iter().all(|one| one.tags.contains_key("team") == tagged);
            let found: Vec<_> = versions.iter().map(|one| &one.tags).collect();
            ensure!(tags, "`{key}` has other tags: {found:?}");
        }
        Ok(())
    }

    /// Runs it until it has come to its end, doing on the way what a run says is to be done.
    pub fn to_the_end(self, bench: &Bench) -> Result<Taken> {
        let mut taken = Taken::default();
        others_end(&mut bench.lab.world());
        let mut ran = self.run(bench);
        if !locks(bench, &self.keys()).is_empty() {
            let reason = ran.output("failure-reason");
            ensure!(["", "state-locked"].contains(&reason), "{reason}\n{}", ran.log);
            unlock(bench, &ran)?;
            taken.unlocked = true;
            ran = self.run(bench);
        }
        if self.with == With::Refusal && ran.output("failure-reason") == "state-unreadable" {
            bring_back(bench, &ran)?;
            taken.brought_back = true;
            ran = self.run(bench);
        }
        self.converged(bench, &ran)?;
        Ok(taken)
    }

    /// All that an undisturbed run comes to.
    pub fn converged(self, bench: &Bench, ran: &Ran) -> Result<()> {
        if self.is_of_a_key() {
            return self.key_converged(bench, ran);
        }
        self.intact(bench)?;
        let reason = ran.output("failure-reason");
        if self.with == With::Refusal {
            ensure!(reason == "restored", "the next run ended otherwise: {reason}\n{}", ran.log);
            ensure!(self.done(bench) == 0, "a state that cannot be read was left");
            return Ok(());
        }
        ensure!(ran.code == 0, "the next run failed: {reason}\n{}", ran.log);
        ensure!(self.done(bench) == self.keys().len(), "the next run left a state as it was");
        let keyed = bench.workspace.backend("infra").contains("kms_key_id");
        ensure!(keyed == (self.mode == "apply"), "backend.tf is not as wanted");
        ensure!(locks(bench, &self.keys()).is_empty(), "a lock was left");
        if self.with == With::History {
            let (world, wanted) = (bench.lab.world(), self.wanted(bench));
            let all = KEYS.iter().flat_map(|key| world.versions(BUCKET, key));
            ensure!(all.into_iter().all(|one| one.encryption == wanted), "an old version was left");
        }
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

/// A run of the workflow with one job, which is at this step.
fn run(id: u64, runner: &str, step: &str) -> WorkflowRun {
    WorkflowRun {
        id,
        workflow: "infra.yml".into(),
        status: "in_progress".into(),
        branch: "main".into(),
        created_at: format!("2026-11-24T02:0{id}:00Z"),
        again_at: None,
        jobs: vec![WorkflowJob {
            status: "in_progress".into(),
            started_at: format!("2026-11-24T02:0{id}:10Z"),
            runner: runner.into(),
            step: Some(step.into()),
        }],
    }
}

/// All runs but this one are over.
fn others_end(world: &mut World) {
    for run in world.github.runs.iter_mut().skip(1) {
        run.status = "completed".into();
        run.jobs.iter_mut().for_each(|job| job.status = "completed".into());
    }
}

/// The locks that are there: object keys and bodies.
pub fn locks(bench: &Bench, keys: &[&str]) -> Vec<(String, Vec<u8>)> {
    let world = bench.lab.world();
    let names = keys.iter().map(|key| format!("{key}.tflock"));
    let held = names.filter_map(|name| {
        let body = world.current(BUCKET, &name)?.body.to_vec();
        Some((name, body))
    });
    held.collect()
}

/// The run says of each lock that is there by which command to release it. Returns their
/// object keys.
pub fn named_locks(bench: &Bench, keys: &[&str], ran: &Ran) -> Result<Vec<String>> {
    let mut named = Vec::new();
    for (name, body) in locks(bench, keys) {
        let info: Value = serde_json::from_slice(&body)?;
        let command = format!("terraform force-unlock {}", info["ID"].as_str().unwrap_or_default());
        ensure!(
            ran.log.contains(&command),
            "`{name}` is there, and not said: {command}\n{}",
            ran.log
        );
        named.push(name);
    }
    Ok(named)
}

/// Releases what a killed run has left, if the run says by which command.
fn unlock(bench: &Bench, ran: &Ran) -> Result<()> {
    for name in named_locks(bench, &[KEYS[0], KEYS[1], LISTED], ran)? {
        bench.lab.world().delete_object(BUCKET, &name);
    }
    Ok(())
}

/// Brings the version back that the run names.
fn bring_back(bench: &Bench, ran: &Ran) -> Result<()> {
    for key in KEYS {
        let mut world = bench.lab.world();
        if world.current(BUCKET, key).unwrap().encryption == Encryption::SseS3 {
            continue;
        }
        let source = format!("--copy-source '{BUCKET}/{key}?versionId=");
        let named = ran.log.split(&source).nth(1).and_then(|rest| rest.split('\'').next());
        let version =
            world.versions(BUCKET, key).iter().find(|one| Some(&*one.version_id) == named);
        let Some(version) = version else {
            anyhow::bail!("no version of `{key}` to go back to is named\n{}", ran.log);
        };
        ensure!(version.encryption == Encryption::SseS3, "{named:?} is under the key, too");
        let body = version.body.clone();
        world.put_object(BUCKET, key, body, Encryption::SseS3);
    }
    Ok(())
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
