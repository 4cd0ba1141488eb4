//! The action's binary: where it is, and how an example has it built.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The binary under test. Cargo names it to tests; to an example it is a neighbour.
pub fn binary() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_tfstate-kms") {
        Some(path) => path.into(),
        None => profile_folder().join("tfstate-kms"),
    }
}

/// `cargo run --example` builds the library only. The rest is left to Cargo, too.
pub fn build(example: &str) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let release = !cfg!(debug_assertions);
    let mut command = Command::new(cargo);
    // With the example named too, the dependencies are those that are built already.
    command.args(["build", "--quiet", "--locked", "--bin", "tfstate-kms", "--example", example]);
    command.args(release.then_some("--release"));
    let built = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
    assert!(built.success(), "the action could not be built");
    assert!(binary().exists(), "{} is missing", binary().display());
}

/// …/target/<profile>, of …/target/<profile>/examples/<example>
pub fn profile_folder() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().to_owned()
}
