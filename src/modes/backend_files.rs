//! Writes the backend files, or compares them with what they should say.

use std::path::Path;

use super::Run;
use crate::backend::{self, BackendConfig, BackendFormat};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::files;
use crate::inputs::{FileFormat, Lock, Mode, OnExisting};
use crate::layout::ModuleState;
use crate::names::KeyArn;
use crate::report::{FileAction, FileReport, Report};

impl Run<'_> {
    /// Brings every module's backend file to what the request asks for; `plan` and `verify` only
    /// compare. `bucket_region` is used where no input gives a region.
    ///
    /// Returns whether all files are as wanted, or would be.
    pub(super) fn backend_files(&self, report: &mut Report, bucket_region: Option<&str>) -> bool {
        let request = self.request;
        let Some(format) = request.backend_format() else { return true };
        self.log.group("Backend files");
        let region = request.region.as_deref().or(bucket_region).unwrap_or_default();
        if region.is_empty() {
            self.log.line(
                "no region is given, so the files say region = \"\": Terraform takes AWS_REGION then",
            );
        }
        let failures = report.failures.len();
        for module in &request.layout.modules {
            let Some(path) = request.backend_path(&module.module) else { continue };
            let config = self.config(module, region);
            let result = self.backend_file(&path, &config, format);
            self.record(report, module, &path, result);
        }
        if request.layout.modules.is_empty() && request.mode == Mode::Backend {
            report.failures.push(Failure::new(
                FailureReason::InvalidInput,
                "`state-keys` gives no module a key, so there is no backend file to write",
                "Use `{module}` in a line of `state-keys`, or `MODULE=KEY`",
            ));
        }
        self.consistency(report);
        self.log.end_group();
        report.failures.len() == failures
    }

    fn config(&self, module: &ModuleState, region: &str) -> BackendConfig {
        let request = self.request;
        BackendConfig {
            bucket: request.bucket.clone(),
            key: module.key.clone(),
            region: region.to_owned(),
            kms_key_id: request.key.as_ref().map(KeyArn::to_string),
            acl: request.acl.clone(),
            use_lockfile: request.lock == Lock::S3,
        }
    }

    fn backend_file(
        &self,
        relative: &Path,
        config: &BackendConfig,
        format: BackendFormat,
    ) -> std::io::Result<(FileAction, Vec<String>)> {
        let path = self.workspace.join(relative);
        if !path.parent().is_some_and(Path::is_dir) {
            return Ok((FileAction::NoModule, Vec::new()));
        }
        let may_write = matches!(self.request.mode, Mode::Backend | Mode::Apply | Mode::Rollback);
        let existing = files::read(&path)?;
        let differences = existing.as_deref().map(|content| self.compare(content, config, format));
        let action = match &differences {
            Some(differences) if differences.is_empty() => FileAction::Unchanged,
            Some(_) if self.request.on_existing == OnExisting::Keep => FileAction::Kept,
            None if self.request.mode == Mode::Verify => FileAction::Absent,
            Some(_) if self.request.mode == Mode::Verify => FileAction::Kept,
            _ if !may_write => FileAction::WouldWrite,
            _ => {
                let text = backend::render(config, format);
                files::write(self.workspace, relative, text.as_bytes())?;
                // The key must have reached the file: read back what was written.
                let written = files::read(&path)?.unwrap_or_default();
                let remaining = self.compare(&written, config, format);
                if !remaining.is_empty() {
                    return Err(std::io::Error::other(format!(
                        "it was written but reads otherwise: {}",
                        remaining.join("; ")
                    )));
                }
                FileAction::Written
            }
        };
        Ok((action, differences.unwrap_or_default()))
    }

    fn compare(
        &self,
        content: &[u8],
        config: &BackendConfig,
        format: BackendFormat,
    ) -> Vec<String> {
        let Ok(text) = std::str::from_utf8(content) else {
            return vec!["it is not UTF-8 text".into()];
        };
        match backend::parse(text, format) {
            Ok(existing) => {
                // What Terraform takes where the file says nothing.
                let names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
                let ambient = names.iter().find_map(|name| self.environment.get(name));
                let differences = backend::differences(config, &existing, ambient);
                differences.iter().map(ToString::to_string).collect()
            }
            Err(error) => vec![format!("it cannot be parsed: {error}")],
        }
    }

    fn record(
        &self,
        report: &mut Report,
        module: &ModuleState,
        path: &Path,
        result: std::io::Result<(FileAction, Vec<String>)>,
    ) {
        let shown = path.display().to_string();
        let (action, differences) = match result {
            Ok(result) => result,
            Err(error) => {
                report.failures.push(Failure::new(
                    FailureReason::BackendWrite,
                    format!("`{shown}` could not be written: {error}"),
                    "Check the folder's permissions, and that the checkout comes before this step",
                ));
                return;
            }
        };
        let details = differences.join("; ");
        match action {
            FileAction::Unchanged => self.log.line(&format!("{shown}: as wanted, not touched")),
            FileAction::Written if differences.is_empty() => {
                report.changed = true;
                self.log.line(&format!("{shown}: written"));
            }
            FileAction::Written => {
                report.changed = true;
                self.notice(
                    "Backend file overwritten",
                    &format!("{shown} said otherwise: {details}"),
                );
            }
            FileAction::WouldWrite => {
                self.log.line(&format!("{shown}: apply would write it {details}"));
            }
            FileAction::Absent => self.log.line(&format!("{shown}: not there")),
            FileAction::Kept => {
                let (reason, remedy) = if self.request.mode == Mode::Verify {
                    (FailureReason::Drift, "Run mode `backend` or `apply` before terraform init")
                } else {
                    (
                        FailureReason::BackendDiffers,
                        "Change the file, or set `on-existing: overwrite`",
                    )
                };
                report.failures.push(Failure::new(
                    reason,
                    format!("`{shown}` means something else: {details}"),
                    remedy,
                ));
            }
            FileAction::NoModule => {
                let folder = path.parent().unwrap_or(path).display();
                let message = format!(
                    "the folder `{folder}` of module `{}` does not exist, so it gets no backend file",
                    module.module
                );
                if self.request.mode == Mode::Backend {
                    report.failures.push(Failure::new(
                        FailureReason::InvalidInput,
                        message,
                        "Check `modules` and `working-directory`, and that the checkout comes before \
                         this step",
                    ));
                } else {
                    self.notice("No backend file", &message);
                }
            }
        }
        report.backend_files.push(FileReport {
            module: module.module.clone(),
            path: shown,
            action,
            differences,
        });
    }

    fn consistency(&self, report: &mut Report) {
        if self.request.file_format == FileFormat::None {
            return;
        }
        let count = |action| report.backend_files.iter().filter(|f| f.action == action).count();
        let good = count(FileAction::Unchanged) + count(FileAction::Written);
        let (status, evidence) = if count(FileAction::Kept) > 0 {
            (Status::Fail, format!("{} of them mean something else", count(FileAction::Kept)))
        } else if count(FileAction::WouldWrite) > 0 {
            (Status::Warn, format!("{} would be written by apply", count(FileAction::WouldWrite)))
        } else if good == 0 {
            (Status::Unknown, "there are none to look at".to_owned())
        } else {
            (Status::Pass, format!("{good} read back and compared by meaning"))
        };
        report.checks.push(Check::new(CheckId::BackendConsistent, status, evidence));
    }
}
