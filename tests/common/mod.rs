//! Runs the real binary as the runner would: a scrubbed environment, the runner's files,
//! a workspace of its own.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod bench;
pub mod built;
pub mod terraform;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use aws_lab::Lab;
use serde_json::Value;

/// The state bucket of the lab's presets.
pub const BUCKET: &str = "cabal-tf-backend";
/// The environment whose states the presets grant.
pub const ENVIRONMENT: &str = "production";
/// The state keys of the two stacks.
pub const KEYS: [&str; 2] = ["production", "production-bootstrap"];

/// A state with a secret in it, which must never be seen anywhere.
pub const CANARY: &str = "canary-5f1d-do-not-print";

/// A Terraform state document.
pub fn state(serial: u64) -> Vec<u8> {
    format!(
        r#"{{"version":4,"terraform_version":"1.11.4","serial":{serial},"lineage":"0e8d1f0a-1111-4222-8333-944445555666","outputs":{{"password":{{"value":"{CANARY}","type":"string","sensitive":true}}}},"resources":[]}}"#
    )
    .into_bytes()
}

/// The same, in so many bytes.
pub fn sized_state(serial: u64, bytes: usize) -> Vec<u8> {
    let mut text = state(serial);
    text.resize(bytes, b' ');
    text
}

/// What a run of the action left behind.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Everything printed.
    pub log: String,
    /// The step's outputs.
    pub outputs: BTreeMap<String, String>,
    /// The job summary.
    pub summary: String,
    /// The JSON report.
    pub report: Value,
}

impl Ran {
    /// The output of that name.
    pub fn output(&self, name: &str) -> &str {
        self.outputs.get(name).map_or("(not set)", String::as_str)
    }

    /// Asserts success, showing the log otherwise.
    #[must_use]
    pub fn green(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.log);
        assert_eq!(self.output("failure-reason"), "", "{}", self.log);
        self
    }

    /// Asserts a failure of that reason, and that the log has it as an annotation.
    #[must_use]
    pub fn red(self, reason: &str) -> Self {
        assert_eq!(self.code, 1, "{}", self.log);
        assert_eq!(self.output("failure-reason"), reason, "{}", self.log);
        assert!(self.log.lines().any(|line| line.starts_with("::error title=")), "{}", self.log);
        assert_eq!(self.output("verified"), "false");
        self
    }

    /// The status of a check in the report.
    pub fn check(&self, id: &str) -> &str {
        let checks = self.report["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        checks
            .iter()
            .find(|check| check["id"] == id)
            .and_then(|check| check["status"].as_str())
            .unwrap_or("(not made)")
    }

    /// Everything that the run printed or wrote.
    pub fn everything(&self) -> String {
        format!("{}\n{:?}\n{}\n{}", self.log, self.outputs, self.summary, self.report)
    }
}

/// A workspace with the folders of both stacks.
pub struct Workspace {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

impl Workspace {
    /// An empty checkout.
    pub fn new(binary: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for module in ["infra", "dns"] {
            std::fs::create_dir_all(folder.path().join("terraform").join(module)).unwrap();
        }
        Self { folder, binary: binary.to_owned() }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of a stack.
    pub fn module(&self, module: &str) -> PathBuf {
        self.path().join("terraform").join(module)
    }

    /// A stack's backend.tf.
    pub fn backend(&self, module: &str) -> String {
        std::fs::read_to_string(self.module(module).join("backend.tf")).unwrap_or_default()
    }

    /// Runs the action. Nothing of this process' environment reaches it.
    pub fn run(&self, variables: &[(String, String)]) -> Ran {
        self.finish(self.start(variables), variables)
    }

    /// Begins a run.
    pub fn start(&self, variables: &[(String, String)]) -> Child {
        for name in [OUTPUT, SUMMARY] {
            let _ = std::fs::remove_file(self.path().join(name));
        }
        Command::new(&self.binary)
            .env_clear()
            .current_dir(self.path())
            .env("GITHUB_WORKSPACE", self.path())
            .env("GITHUB_OUTPUT", self.path().join(OUTPUT))
            .env("GITHUB_STEP_SUMMARY", self.path().join(SUMMARY))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(variables.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits for its end, and gathers what it left behind.
    pub fn finish(&self, child: Child, variables: &[(String, String)]) -> Ran {
        let result = child.wait_with_output().unwrap();
        let read = |name: &str| std::fs::read_to_string(self.path().join(name)).unwrap_or_default();
        let variable =
            |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let report = variable("INPUT_REPORT-PATH").unwrap_or("tfstate-kms-report.json");
        Ran {
            code: result.status.code().unwrap_or(-1),
            log: String::from_utf8_lossy(&result.stdout).into_owned()
                + &String::from_utf8_lossy(&result.stderr),
            outputs: outputs(&read(OUTPUT)),
            summary: read(SUMMARY),
            report: serde_json::from_str(&read(report)).unwrap_or_default(),
        }
    }
}

/// The runner's files, in the workspace.
const OUTPUT: &str = ".output";
const SUMMARY: &str = ".summary";

/// Reads GITHUB_OUTPUT as the runner does.
fn outputs(text: &str) -> BTreeMap<String, String> {
    let mut outputs = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (name, delimiter) = line.split_once("<<").unwrap();
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
        outputs.insert(name.to_owned(), value.join("\n"));
    }
    outputs
}

/// Name-value pairs from literals.
pub fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The environment of a step in the presets: credentials and the usual inputs.
pub fn step(lab: &Lab, principal: &str, mode: &str, key: &str) -> Vec<(String, String)> {
    let mut all = lab.env(principal);
    all.extend(variables(&[
        ("INPUT_MODE", mode),
        ("STATE_KMS_KEY_ID", key),
        ("INPUT_ENVIRONMENT", ENVIRONMENT),
        ("INPUT_BUCKET", BUCKET),
    ]));
    all
}

/// A program of that name on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
