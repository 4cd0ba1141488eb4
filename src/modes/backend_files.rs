//! Writes the backend files, or compares them with what they should say.

use std::path::Path;

use super::Run;
use crate::backend::{self, BackendConfig, BackendFormat, DifferenceKind, MAX_BYTES};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::files;
use crate::inputs::{FileFormat, Lock, Mode, OnExisting};
use crate::layout::ModuleState;
use crate::names::{KeyArn, printable};
use crate::report::{FileAction, FileReport, Report};

/// How a file differs from what is wanted.
struct Compared {
    /// In meaning: where the state lies, and how it is encrypted and locked.
    differences: Vec<String>,
    /// What writing the file would drop.
    extras: Vec<String>,
}

/// Whether there is a comment in HCL text; a string over several lines may pass for one.
fn has_comments(text: &str) -> bool {
    text.lines().any(|line| {
        let outside: String = line.split('"').step_by(2).collect();
        ["#", "//", "/*"].iter().any(|mark| outside.contains(mark))
    })
}

/// What another configuration file of the folder says of a backend: Terraform and OpenTofu read
/// them all, and take one backend or cloud block (Terraform: `configs/parser_config_dir.go`).
fn backend_elsewhere(folder: &Path, own: &Path) -> std::io::Result<Option<String>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in files {
        let (path, name) = (file.path(), file.file_name().to_string_lossy().into_owned());
        let json = name.ends_with(".tf.json") || name.ends_with(".tofu.json");
        let native = name.ends_with(".tf") || name.ends_with(".tofu");
        if !(json || native) || name.starts_with('.') || path == own {
            continue;
        }
        // Links are followed, as Terraform does; a pipe or a device would never end.
        let regular = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file);
        let Some(metadata) = regular else { continue };
        let shown = printable(&name);
        if metadata.len() > MAX_BYTES as u64 {
            return Ok(Some(format!(
                "`{shown}` is longer than {MAX_BYTES} bytes, so it was not read; it may hold a backend block"
            )));
        }
        let content = files::read(&path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let declares = match json {
            true => declares_in_json(&text),
            false => backend::parse(&text, BackendFormat::Tf)
                .map(|parsed| parsed.cloud || !parsed.backends.is_empty())
                .ok(),
        };
        let mentions = text.contains("backend") || text.contains("cloud");
        match declares {
            Some(true) => {
                return Ok(Some(format!(
                    "`{shown}` has a backend or cloud block, and Terraform takes one only. Set `encrypt` and \
                     `kms_key_id` there by hand, and use `backend-format: none`"
                )));
            }
            None if mentions => {
                return Ok(Some(format!(
                    "`{shown}` could not be parsed, so whether it has a backend block is not known"
                )));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Whether a file in JSON syntax has a backend or a cloud block; `None`: it is no JSON.
fn declares_in_json(text: &str) -> Option<bool> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let objects = |value: &serde_json::Value| match value {
        serde_json::Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    };
    let tops = objects(&value);
    let mut settings = tops.iter().filter_map(|top| top.get("terraform")).flat_map(objects);
    Some(settings.any(|it| it.get("backend").is_some() || it.get("cloud").is_some()))
}

const UNKNOWN: &str = "overwriting the file would drop what it holds";

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
        let writes = matches!(request.mode, Mode::Backend | Mode::Apply | Mode::Rollback);
        let modules = request.layout.modules.iter();
        let judged: Vec<_> = modules
            .filter_map(|module| {
                let path = request.backend_path(&module.module)?;
                let config = self.config(module, region);
                let result = self.judge_file(&path, &config, format);
                Some((module, path, config, result))
            })
            .collect();
        // A run that refuses one file leaves all of them as they were.
        let writes = writes && !judged.iter().any(|(.., result)| self.is_refused(result));
        for (module, path, config, mut result) in judged {
            if let (true, Ok((action @ FileAction::WouldWrite, _))) = (writes, &mut result) {
                match self.write_file(&path, &config, format) {
                    Ok(()) => *action = FileAction::Written,
                    Err(error) => result = Err(error),
                }
            }
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
            key: module.backend_key().to_owned(),
            region: region.to_owned(),
            kms_key_id: request.key.as_ref().map(KeyArn::to_string),
            acl: request.acl.clone(),
            use_lockfile: request.lock == Lock::S3,
        }
    }

    /// What is to be done with a file, and in what it differs. Writes nothing.
    fn judge_file(
        &self,
        relative: &Path,
        config: &BackendConfig,
        format: BackendFormat,
    ) -> std::io::Result<(FileAction, Vec<String>)> {
        let path = self.workspace.join(relative);
        let Some(folder) = path.parent().filter(|folder| folder.is_dir()) else {
            return Ok((FileAction::NoModule, Vec::new()));
        };
        if format == BackendFormat::Tf
            && let Some(elsewhere) = backend_elsewhere(folder, &path)?
        {
            return Ok((FileAction::Kept, vec![elsewhere]));
        }
        let existing = files::read(&path)?;
        let compared = existing.as_deref().map(|content| self.compare(content, config, format));
        let (differences, extras) = match compared {
            Some(Compared { differences, extras }) => (Some(differences), extras),
            None => (None, Vec::new()),
        };
        let action = match &differences {
            Some(differences) if differences.is_empty() => FileAction::Unchanged,
            Some(_) if !extras.is_empty() && !self.request.discard_extras => {
                let all = differences.into_iter().flatten().chain(extras).collect();
                return Ok((FileAction::Kept, all));
            }
            Some(_) if self.request.on_existing == OnExisting::Keep => FileAction::Kept,
            None if self.request.mode == Mode::Verify => FileAction::Absent,
            Some(_) if self.request.mode == Mode::Verify => FileAction::Kept,
            _ => FileAction::WouldWrite,
        };
        Ok((action, differences.unwrap_or_default()))
    }

    fn write_file(
        &self,
        relative: &Path,
        config: &BackendConfig,
        format: BackendFormat,
    ) -> std::io::Result<()> {
        let text = backend::render(config, format);
        files::write(self.workspace, relative, text.as_bytes())?;
        // The key must have reached the file: read back what was written.
        let written = files::read(&self.workspace.join(relative))?.unwrap_or_default();
        let Compared { differences: remaining, .. } = self.compare(&written, config, format);
        if remaining.is_empty() {
            return Ok(());
        }
        let why = format!("it was written but reads otherwise: {}", remaining.join("; "));
        Err(std::io::Error::other(why))
    }

    /// Whether a file keeps this run from writing any.
    fn is_refused(&self, result: &std::io::Result<(FileAction, Vec<String>)>) -> bool {
        match result {
            Ok((FileAction::Kept, _)) | Err(_) => true,
            Ok((FileAction::NoModule, _)) => self.request.mode == Mode::Backend,
            Ok(_) => false,
        }
    }

    fn compare(&self, content: &[u8], config: &BackendConfig, format: BackendFormat) -> Compared {
        let unreadable =
            |why: String| Compared { differences: vec![why], extras: vec![UNKNOWN.to_owned()] };
        let Ok(text) = std::str::from_utf8(content) else {
            return unreadable("it is not UTF-8 text".into());
        };
        let existing = match backend::parse(text, format) {
            Ok(existing) => existing,
            Err(error) => return unreadable(format!("it cannot be parsed: {error}")),
        };
        // What Terraform takes where the file says nothing.
        let names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        let ambient = names.iter().find_map(|name| self.environment.get(name));
        let all = backend::differences(config, &existing, ambient);
        let (extras, differences): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| one.kind == DifferenceKind::Extra);
        let lines = |list: Vec<backend::Difference>| list.iter().map(ToString::to_string).collect();
        let mut extras: Vec<String> = lines(extras);
        if has_comments(text) {
            extras.push("comments: overwriting the file would drop them".to_owned());
        }
        Compared { differences: lines(differences), extras }
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
                        "Set in the file what is named as wanted. To have this action replace the whole file, \
                         use `on-existing: overwrite`, and `discard-extras: true` where that drops something",
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
