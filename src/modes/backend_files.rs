//! Reads the modules' configuration files, and writes or edits what Terraform is to be told.

use std::path::{Path, PathBuf};

use super::Run;
use crate::backend::{
    self, BackendConfig, BackendFormat, ConfigFile, Decision, Judgement, Locking, Refusal, Syntax,
    Wanted, decide,
};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::files;
use crate::inputs::{FileFormat, Lock, Mode};
use crate::layout::ModuleState;
use crate::names::{KeyArn, printable, some_of};
use crate::report::{FileAction, FileReport, Report};

/// What is to become of one module's files.
pub(super) struct Judged<'a> {
    module: &'a ModuleState,
    config: BackendConfig,
    /// Relative to the workspace.
    folder: PathBuf,
    /// `None`: the folder is not there.
    files: std::io::Result<Option<Vec<Judgement>>>,
}

/// All modules' files, judged together: a run that refuses one leaves all of them as they were.
pub(super) struct Files<'a>(Vec<Judged<'a>>);

impl Files<'_> {
    fn judgements(&self) -> impl Iterator<Item = &Judgement> {
        self.0.iter().filter_map(|judged| judged.files.as_ref().ok()?.as_ref()).flatten()
    }

    /// Whether a file is to be written.
    pub(super) fn change(&self) -> bool {
        let changes =
            |it: &Judgement| matches!(it.decision, Decision::Write(_) | Decision::Edit(_));
        self.judgements().any(changes)
    }

    /// Whether Terraform takes lock objects.
    pub(super) fn lock_in_s3(&self) -> bool {
        self.judgements().any(|file| file.locking.in_s3)
    }

    /// How Terraform locks a module's states; `None`: its block is not seen here.
    pub(super) fn locking(&self, module: Option<&str>) -> Option<&Locking> {
        let of = self.0.iter().find(|judged| Some(judged.module.module.as_str()) == module)?;
        of.files.as_ref().ok()?.as_ref()?.first().map(|file| &file.locking)
    }

    /// The states of which Terraform's writes will name their encryption.
    pub(super) fn with_a_header(&self) -> Vec<&str> {
        let speaks = |judged: &&Judged<'_>| match &judged.files {
            Ok(Some(files)) => !files.is_empty() && files.iter().all(|file| file.encrypts),
            _ => false,
        };
        self.0.iter().filter(speaks).map(|judged| judged.module.key.as_str()).collect()
    }
}

/// The largest configuration file that is looked into at all.
const LOOKED_INTO: u64 = 16 << 20;

/// The configuration files of a folder.
fn read_folder(folder: &Path) -> std::io::Result<Vec<ConfigFile>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !backend::is_configuration(&name) {
            continue;
        }
        let path = entry.path();
        // Links are followed, as Terraform does; a pipe or a device would never end.
        let metadata = std::fs::metadata(&path);
        if let Ok(metadata) = metadata
            && (metadata.is_file() || (metadata.is_dir() && name == TF))
        {
            if metadata.len() > LOOKED_INTO {
                let why = std::io::Error::other(format!("longer than {LOOKED_INTO} bytes"));
                return Err(of_file(&name, &why));
            }
            let content = files::read(&path).map_err(|error| of_file(&name, &error))?;
            let content = content.unwrap_or_default();
            found.push(ConfigFile::new(&name, &content));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn of_file(name: &str, error: &std::io::Error) -> std::io::Error {
    std::io::Error::other(format!("`{}`: {error}", printable(name)))
}

const TF: &str = "backend.tf";
const TFBACKEND: &str = "backend.tfbackend";

impl Run<'_> {
    /// Mode `backend`: the files alone.
    pub(super) fn backend_mode(&self, report: &mut Report) {
        let files = self.judge_files(None, false);
        let may = self.enter_files(report, &files);
        if may {
            self.write_files(report, &files);
        }
        if self.request.layout.modules.is_empty() {
            report.failures.push(Failure::new(
                FailureReason::InvalidInput,
                "`state-keys` gives no module a key, so there is no backend file to write",
                "Use `{module}` in a line of `state-keys`, or `MODULE=KEY`",
            ));
        }
        self.consistency(report, &files);
        self.log.end_group();
    }

    /// Reads the files of all modules and decides what is to become of them. Writes nothing.
    ///
    /// `encrypt`: Terraform's writes must name their encryption also where there is no key.
    pub(super) fn judge_files(&self, bucket_region: Option<&str>, encrypt: bool) -> Files<'_> {
        let request = self.request;
        let given = request.region.as_ref();
        let asked_for = given.filter(|region| region.asked_for).map(|region| region.name.as_str());
        let ambient = given.map(|region| region.name.as_str());
        let region = asked_for.or(bucket_region).or(ambient).unwrap_or_default();
        let judge = |module| {
            let config = self.config(module, region, encrypt);
            let folder = request.module_folder(&module.module);
            let files = self.judge_folder(&folder, &config);
            Judged { module, config, folder, files }
        };
        Files(request.layout.modules.iter().map(judge).collect())
    }

    fn judge_folder(
        &self,
        relative: &Path,
        config: &BackendConfig,
    ) -> std::io::Result<Option<Vec<Judgement>>> {
        let request = self.request;
        let folder = self.workspace.join(relative);
        if !folder.is_dir() {
            return Ok(None);
        }
        let file = match request.file_format {
            FileFormat::Tf => Some((TF, BackendFormat::Tf)),
            FileFormat::TfBackend => Some((TFBACKEND, BackendFormat::TfBackend)),
            FileFormat::None => None,
        };
        let found = match file {
            Some((name, BackendFormat::TfBackend)) => files::read(&folder.join(name))?
                .map(|content| ConfigFile::read_as(name, &content, Syntax::Attributes))
                .into_iter()
                .collect(),
            _ => read_folder(&folder)?,
        };
        // What Terraform takes where the file says nothing.
        let names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        let wanted = Wanted {
            config,
            ambient_region: names.iter().find_map(|name| self.environment.get(name)),
            file,
            on_existing: request.on_existing,
            discard_extras: request.discard_extras,
            removes_key: request.mode == Mode::Rollback,
            allow_downgrade: request.allow_downgrade,
        };
        let mut all = decide(&found, &wanted);
        for file in &mut all {
            let writes = matches!(file.decision, Decision::Write(_) | Decision::Edit(_));
            let link = std::fs::symlink_metadata(folder.join(&file.file));
            if writes && link.is_ok_and(|metadata| metadata.is_symlink()) {
                file.decision = Decision::Refuse(Refusal::Link);
            }
        }
        Ok(Some(all))
    }

    fn config(&self, module: &ModuleState, region: &str, encrypt: bool) -> BackendConfig {
        let request = self.request;
        BackendConfig {
            bucket: request.bucket.clone(),
            key: module.backend_key().to_owned(),
            region: region.to_owned(),
            kms_key_id: request.key.as_ref().map(KeyArn::to_string),
            encrypt: encrypt || request.encrypt,
            acl: request.acl.clone(),
            use_lockfile: request.lock == Lock::S3,
            workspace_key_prefix: module.workspace.as_ref().map(|it| it.prefix.clone()),
        }
    }

    /// Enters what is to become of the files into the report. Returns whether they stand in no
    /// write's way.
    pub(super) fn enter_files(&self, report: &mut Report, files: &Files<'_>) -> bool {
        if self.request.layout.modules.is_empty() {
            return true;
        }
        self.log.group("Backend files");
        let nowhere = |judged: &Judged<'_>| {
            let files = judged.files.iter().flatten().flatten();
            let mut written = files.filter(|file| matches!(file.decision, Decision::Write(_)));
            judged.config.region.is_empty() && written.next().is_some()
        };
        if files.0.iter().any(nowhere) {
            self.log.line(
                "no region is given, so the files say region = \"\": Terraform takes AWS_REGION then",
            );
        }
        let failures = report.failures.len();
        for judged in &files.0 {
            match &judged.files {
                Ok(Some(files)) => {
                    files.iter().for_each(|file| self.enter(report, judged, file));
                }
                Ok(None) => self.no_folder(report, judged),
                Err(error) => report.failures.push(unreadable(&judged.folder, error)),
            }
        }
        report.failures.len() == failures
    }

    fn enter(&self, report: &mut Report, judged: &Judged<'_>, file: &Judgement) {
        let path = judged.folder.join(&file.file).display().to_string();
        let details = file.differences.join("; ");
        let verify = self.request.mode == Mode::Verify;
        let action = match &file.decision {
            Decision::AsWanted => {
                self.log.line(&format!("{path}: as wanted, not touched"));
                FileAction::Unchanged
            }
            Decision::Write(_) if verify && details.is_empty() => {
                self.log.line(&format!("{path}: not there"));
                FileAction::Absent
            }
            Decision::Write(_) | Decision::Edit(_) if verify => {
                report.failures.push(self.differs(&path, &details));
                FileAction::Kept
            }
            Decision::Write(_) => {
                self.log.line(&format!("{path}: to be written {details}"));
                FileAction::WouldWrite
            }
            Decision::Edit(_) => {
                self.log.line(&format!("{path}: the block is to be edited: {details}"));
                FileAction::WouldEdit
            }
            Decision::Leave => {
                report
                    .warnings
                    .push(format!("`{path}` is left as it is, as was asked for: {details}"));
                FileAction::Left
            }
            Decision::Refuse(why) => {
                report.failures.push(self.refused(*why, judged, &path, &details));
                FileAction::Kept
            }
        };
        if let Some(constraint) = &file.locking.too_old {
            report.warnings.push(format!(
                "`{path}` sets use_lockfile, but required_version (\"{}\") takes only versions before 1.10, which \
                 refuse it: raise required_version, or leave use_lockfile out",
                printable(constraint)
            ));
        }
        if !file.left_out.is_empty() {
            self.log.line(&format!("{path}: {}", left_out(file)));
        }
        report.backend_files.push(FileReport {
            module: judged.module.module.clone(),
            path,
            action,
            differences: file.differences.clone(),
        });
    }

    fn no_folder(&self, report: &mut Report, judged: &Judged<'_>) {
        let (module, request) = (&judged.module.module, self.request);
        let name = match request.file_format {
            FileFormat::Tf => TF,
            FileFormat::TfBackend => TFBACKEND,
            FileFormat::None => return,
        };
        let message = format!(
            "the folder `{}` of module `{module}` does not exist, so it gets no backend file",
            judged.folder.display()
        );
        if request.mode == Mode::Backend {
            report.failures.push(Failure::new(
                FailureReason::InvalidInput,
                message,
                "Check `modules` and `working-directory`, and that the checkout comes before this step",
            ));
        } else {
            self.notice("No backend file", &message);
        }
        report.backend_files.push(FileReport {
            module: module.clone(),
            path: judged.folder.join(name).display().to_string(),
            action: FileAction::NoModule,
            differences: Vec::new(),
        });
    }

    /// Writes what was decided. Returns whether all of it was.
    pub(super) fn write_files(&self, report: &mut Report, files: &Files<'_>) -> bool {
        let mut good = true;
        for judged in &files.0 {
            for file in judged.files.iter().flatten().flatten() {
                let (text, edits) = match &file.decision {
                    Decision::Write(text) => (text, false),
                    Decision::Edit(text) => (text, true),
                    _ => continue,
                };
                let relative = judged.folder.join(&file.file);
                let action = match (self.write_file(judged, &relative, text), edits) {
                    (Ok(()), true) => FileAction::Edited,
                    (Ok(()), false) => FileAction::Written,
                    (Err(error), _) => {
                        report.failures.push(unwritten(&relative, &error));
                        good = false;
                        FileAction::Kept
                    }
                };
                let path = relative.display().to_string();
                if action != FileAction::Kept {
                    report.changed = true;
                    self.said_otherwise(&path, action, &file.differences.join("; "));
                }
                let row = report.backend_files.iter_mut().find(|row| row.path == path);
                row.into_iter().for_each(|row| row.action = action);
            }
        }
        good
    }

    fn said_otherwise(&self, path: &str, action: FileAction, details: &str) {
        match action {
            _ if details.is_empty() => self.log.line(&format!("{path}: written")),
            FileAction::Edited => {
                self.notice("Backend block edited", &format!("{path} was edited: {details}"));
            }
            _ => self
                .notice("Backend file overwritten", &format!("{path} said otherwise: {details}")),
        }
    }

    fn write_file(&self, judged: &Judged<'_>, relative: &Path, text: &str) -> std::io::Result<()> {
        files::write(self.workspace, relative, text.as_bytes())?;
        // The key must have reached the file: read the whole folder again.
        let again = self.judge_folder(&judged.folder, &judged.config)?;
        let name = relative.file_name().map(|name| name.to_string_lossy().into_owned());
        let now = again.into_iter().flatten().find(|file| Some(&file.file) == name.as_ref());
        match now {
            Some(file) if file.decision == Decision::AsWanted => Ok(()),
            Some(file) => Err(std::io::Error::other(format!(
                "it was written but reads otherwise: {}",
                file.differences.join("; ")
            ))),
            None => Err(std::io::Error::other("it was written and is not there")),
        }
    }

    fn differs(&self, path: &str, details: &str) -> Failure {
        let message = format!("`{path}` means something else: {details}");
        if self.request.mode == Mode::Verify {
            let remedy = "Run mode `backend` or `apply` before terraform init";
            return Failure::new(FailureReason::Drift, message, remedy);
        }
        Failure::new(
            FailureReason::BackendDiffers,
            message,
            "Set in the file what is named as wanted, or let this action do it: `on-existing: edit`",
        )
    }

    fn refused(&self, why: Refusal, judged: &Judged<'_>, path: &str, details: &str) -> Failure {
        let reason = match self.request.mode {
            Mode::Verify => FailureReason::Drift,
            _ => FailureReason::BackendDiffers,
        };
        let failure = |message: String, remedy: &str| Failure::new(reason, message, remedy);
        match why {
            Refusal::Differs if self.request.file_format == FileFormat::None => failure(
                format!("`{path}` means something else: {details}"),
                "Set in the block what is named as wanted: Terraform's next write undoes the encryption \
                 otherwise. To have this action do it, leave `backend-format: none` out; to go on without, set \
                 `on-existing: ignore`",
            ),
            Refusal::Differs => self.differs(path, details),
            Refusal::Elsewhere => failure(
                format!(
                    "`{path}` is the backend of another state than module `{}`: {details}",
                    judged.module.module
                ),
                "Correct `bucket`, `region`, `state-keys`, `environment` or `modules` where the block is right. Where \
                 it is wrong, change it by hand: this action never moves a state",
            ),
            Refusal::Unresolved => failure(
                format!(
                    "`{path}` sets something by an expression, which is not worked out here: {details}"
                ),
                "Give the block the literal value, or set `on-existing: ignore` once the expression has that value",
            ),
            Refusal::Downgrade => Failure::new(
                FailureReason::DowngradeRefused,
                format!("STATE_KMS_KEY_ID is empty, but `{path}` has a key: {details}"),
                "Set the variable, and pass it by `with:`; a job without `environment:` reads an empty one. To go \
                 back to SSE-S3 use mode `rollback`; to leave the block as it is set `allow-downgrade: true`",
            ),
            Refusal::CustomerKey => failure(
                format!(
                    "`{path}` has a customer-provided key (sse_customer_key), which Terraform sends in place of a KMS key"
                ),
                "Take `sse_customer_key` out of the block, and run `terraform init -reconfigure` and an apply first",
            ),
            Refusal::WouldDrop => failure(
                format!("replacing `{path}` would drop what it holds: {details}"),
                "Use `on-existing: edit`, which sets the encryption and keeps the rest. To drop it in a \
                 `backend.tf`, add `discard-extras: true`; a block in another file is never replaced",
            ),
            Refusal::Link => failure(
                format!(
                    "`{path}` is a link, and its target may be other stacks' file, too: {details}"
                ),
                "Set in its target what is named as wanted, or put a file of its own in its place",
            ),
            Refusal::NotEditable => failure(
                format!(
                    "`{path}` could not be edited without changing more than the backend block: {details}"
                ),
                "Set in the block what is named as wanted, by hand",
            ),
            Refusal::Unclear => failure(
                format!("the backend block beside `{path}` cannot be told: {details}"),
                "Correct the file that is named; nothing was written",
            ),
        }
    }

    /// The check on the files, as they are now or would be.
    pub(super) fn consistency(&self, report: &mut Report, files: &Files<'_>) {
        let count = |action| report.backend_files.iter().filter(|f| f.action == action).count();
        let would = count(FileAction::WouldWrite) + count(FileAction::WouldEdit);
        let left_out: Vec<String> = files
            .judgements()
            .filter(|file| !file.left_out.is_empty())
            .map(|file| format!("`{}`: {}", file.file, left_out(file)))
            .collect();
        let good = [FileAction::Unchanged, FileAction::Written, FileAction::Edited].map(count);
        let good: usize = good.iter().sum();
        let (status, evidence) = if count(FileAction::Kept) > 0 {
            (Status::Fail, format!("{} of them mean something else", count(FileAction::Kept)))
        } else if count(FileAction::Left) > 0 {
            let left = count(FileAction::Left);
            (Status::Warn, format!("{left} of them mean something else and were left as they are"))
        } else if would > 0 {
            (Status::Warn, format!("{would} would be written by apply"))
        } else if !left_out.is_empty() {
            (Status::Unknown, some_of(left_out, 5, "; "))
        } else if good == 0 {
            if self.request.file_format == FileFormat::None {
                return;
            }
            (Status::Unknown, "there are none to look at".to_owned())
        } else {
            (Status::Pass, format!("{good} read back and compared by meaning"))
        };
        report.checks.push(Check::new(CheckId::BackendConsistent, status, evidence));
    }
}

fn left_out(file: &Judgement) -> String {
    format!(
        "{} not in the block: what `terraform init -backend-config` gives is not seen here",
        file.left_out.join(", ")
    )
}

fn unreadable(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        FailureReason::BackendWrite,
        format!("the configuration in `{}` could not be read: {error}", folder.display()),
        "Check the folder's permissions, and that the checkout comes before this step",
    )
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        FailureReason::BackendWrite,
        format!("`{}` could not be written: {error}", path.display()),
        "Check the folder's permissions, and that the checkout comes before this step",
    )
}
