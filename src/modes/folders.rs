//! The modules' folders, as they are on disk: inside the workspace, and each another one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Run;
use crate::check::{Failure, FailureReason};
use crate::report::Report;

impl Run<'_> {
    /// Refuses folders that lead out of the workspace, and two modules in one folder: one
    /// backend file cannot name two states. Returns whether the run may go on.
    pub(super) fn module_folders(&self, report: &mut Report) -> bool {
        let request = self.request;
        let modules: Vec<(&str, PathBuf)> = request
            .layout
            .modules
            .iter()
            .map(|state| (state.module.as_str(), request.module_folder(&state.module)))
            .collect();
        let problems = problems(self.workspace, &modules);
        let good = problems.is_empty();
        report.failures.extend(problems.into_iter().map(|problem| {
            Failure::new(
                FailureReason::InvalidInput,
                format!("`modules`: {problem}"),
                "Correct `modules` or `working-directory`; nothing was changed",
            )
        }));
        good
    }
}

/// What is wrong with the folders that exist.
fn problems(workspace: &Path, modules: &[(&str, PathBuf)]) -> Vec<String> {
    let Ok(root) = workspace.canonicalize() else { return Vec::new() };
    let mut problems = Vec::new();
    let mut seen: Vec<(&str, (u64, u64))> = Vec::new();
    for (module, relative) in modules {
        // A folder that is not there is told by the step that would write into it.
        let Ok(folder) = workspace.join(relative).canonicalize() else { continue };
        if !folder.starts_with(&root) {
            problems.push(format!(
                "the folder `{}` of module `{module}` is a link that leads out of the workspace",
                relative.display()
            ));
            continue;
        }
        // A bind mount has another path, and is the same folder.
        let Ok(metadata) = folder.metadata() else { continue };
        let place = (metadata.dev(), metadata.ino());
        match seen.iter().find(|(_, known)| *known == place) {
            Some((twin, _)) => problems.push(format!(
                "`{twin}` and `{module}` are one folder on disk, so they cannot have two states"
            )),
            None => seen.push((module, place)),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_before_folders_are_compared() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = inside.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", root.join("same")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("out")).unwrap();
        let found = |names: &[&'static str]| {
            let modules: Vec<_> = names.iter().map(|name| (*name, name.into())).collect();
            problems(root, &modules)
        };
        assert_eq!(found(&["a/b", "a", "missing"]), Vec::<String>::new());
        assert!(found(&["a/b", "same"])[0].contains("`a/b` and `same` are one folder"));
        assert!(found(&["out"])[0].contains("leads out of the workspace"));
    }
}
