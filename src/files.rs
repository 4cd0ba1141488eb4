//! Writes files into the workspace: atomically, below it, and for its owner.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Writes a file below the workspace in one step, so that no reader ever sees half of it.
///
/// The container runs as root; a file of root's would break later steps and
/// self-hosted checkouts, so it is given to the workspace's owner.
///
/// # Errors
/// Of the file system, or when the folder lies outside the workspace (a symbolic link).
pub fn write(workspace: &Path, relative: &Path, content: &[u8]) -> io::Result<()> {
    let path = workspace.join(relative);
    let folder = path.parent().unwrap_or(workspace);
    if !folder.canonicalize()?.starts_with(workspace.canonicalize()?) {
        return Err(leads_out());
    }
    // Beside the file, under a name of its own that the next run finds again should this one
    // be killed here.
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no file name"))?;
    let beside = folder.join(format!(".{}.tfstate-kms", name.to_string_lossy()));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
    let written = file
        .write_all(content)
        .and_then(|()| fs::set_permissions(&beside, fs::Permissions::from_mode(0o644)))
        .and_then(|()| give_to_owner(workspace, &beside))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// The same, with the folders on the way to it: each is the workspace owner's, too, and
/// none is made through a symbolic link that leads out.
///
/// # Errors
/// As [`write`].
pub fn write_below(workspace: &Path, relative: &Path, content: &[u8]) -> io::Result<()> {
    let root = workspace.canonicalize()?;
    let mut folder = root.clone();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        match fs::create_dir(&folder) {
            Ok(()) => give_to_owner(workspace, &folder)?,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
        }
        if !folder.canonicalize()?.starts_with(&root) {
            return Err(leads_out());
        }
    }
    write(workspace, relative, content)
}

fn leads_out() -> io::Error {
    let why = "the folder is a symbolic link that leads out of the workspace";
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

fn give_to_owner(workspace: &Path, path: &Path) -> io::Result<()> {
    let (owner, own) = (fs::metadata(workspace)?, fs::metadata(path)?);
    if (owner.uid(), owner.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    // Only root may give files away; for anyone else the file is theirs already.
    match std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// Reads a file that may not be there.
///
/// # Errors
/// Of the file system, but for a missing file.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_readable_by_all() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["one", "two"] {
            write(folder.path(), Path::new("a.tf"), content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join("a.tf")).unwrap(), content);
        }
        let mode = fs::metadata(folder.path().join("a.tf")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_run_left_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".a.tf.tfstate-kms"), "half").unwrap();
        write(folder.path(), Path::new("a.tf"), b"whole").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("a.tf")).unwrap(), "whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_out_of_the_workspace_is_refused() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), inside.path().join("infra")).unwrap();
        let error = write(inside.path(), Path::new("infra/backend.tf"), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_are_made_on_the_way_but_not_through_a_link() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_below(inside.path(), Path::new("a/b/report.json"), b"x").unwrap();
        assert_eq!(fs::read(inside.path().join("a/b/report.json")).unwrap(), b"x");
        std::os::unix::fs::symlink(outside.path(), inside.path().join("out")).unwrap();
        write_below(inside.path(), Path::new("out/b/report.json"), b"x").unwrap_err();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_file_is_no_error() {
        assert_eq!(read(Path::new("no/such/file")).unwrap(), None);
    }
}
