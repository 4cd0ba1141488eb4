//! The real Terraform, offline: the built-in `terraform_data` resource needs no provider.

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lab::Lab;

/// Terraform on PATH.
pub struct Terraform {
    program: PathBuf,
}

/// What a server without AWS's host names needs; backend.tf itself stays as it is.
const ELSEWHERE: [&str; 4] = [
    "-backend-config=use_path_style=true",
    "-backend-config=skip_credentials_validation=true",
    "-backend-config=skip_requesting_account_id=true",
    "-backend-config=skip_metadata_api_check=true",
];

impl Terraform {
    /// Terraform, when it is on PATH.
    pub fn find() -> Option<Self> {
        super::on_path("terraform").map(|program| Self { program })
    }

    /// A module with one resource whose input is a secret.
    pub fn write_module(&self, folder: &Path) {
        let text = format!(
            "resource \"terraform_data\" \"this\" {{\n  input = \"{}\"\n}}\n",
            super::CANARY
        );
        std::fs::write(folder.join("main.tf"), text).unwrap();
    }

    /// `init` and `apply`.
    pub fn apply(&self, lab: &Lab, principal: &str, folder: &Path) {
        self.init(&lab.env(principal), folder);
        let (code, log) =
            self.call(&lab.env(principal), folder, &["apply", "-auto-approve", "-input=false"]);
        assert_eq!(code, 0, "{log}");
    }

    /// `init` anew, as a fresh runner does, and `plan -detailed-exitcode`: 0 is no change.
    pub fn plan(&self, lab: &Lab, principal: &str, folder: &Path) -> i32 {
        self.init(&lab.env(principal), folder);
        self.call(&lab.env(principal), folder, &["plan", "-detailed-exitcode", "-input=false"]).0
    }

    /// `init` of a fresh checkout.
    pub fn init(&self, environment: &[(String, String)], folder: &Path) {
        let _ = std::fs::remove_dir_all(folder.join(".terraform"));
        let mut arguments = vec!["init", "-input=false", "-no-color"];
        arguments.extend(ELSEWHERE);
        let (code, log) = self.call(environment, folder, &arguments);
        assert_eq!(code, 0, "{log}");
    }

    /// Any command; its exit code and what it printed.
    pub fn call(
        &self,
        environment: &[(String, String)],
        folder: &Path,
        arguments: &[&str],
    ) -> (i32, String) {
        let result = Command::new(&self.program)
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder)
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_IN_AUTOMATION", "1")
            .envs(environment.iter().map(|(k, v)| (k, v)))
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&result.stdout).into_owned()
            + &String::from_utf8_lossy(&result.stderr);
        (result.status.code().unwrap_or(-1), log)
    }
}
