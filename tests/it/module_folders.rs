//! `modules`: folders at any depth, none of them twice, none outside the workspace.

use std::os::unix::fs::symlink;

use crate::bench::{Bench, workspace};
use crate::common::{Ran, Workspace, variables};

fn backend(workspace: &Workspace, more: &[(&str, &str)]) -> Ran {
    let mut all = variables(&[
        ("INPUT_MODE", "backend"),
        ("INPUT_BUCKET", "cabal-tf-backend"),
        ("INPUT_ENVIRONMENT", "production"),
        // No endpoint answers here: a request would fail the run.
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    ]);
    all.extend(variables(more));
    workspace.run(&all)
}

fn file(workspace: &Workspace, path: &str) -> String {
    std::fs::read_to_string(workspace.path().join(path)).unwrap_or_default()
}

#[test]
fn a_module_may_lie_deeper() {
    let workspace = workspace();
    std::fs::create_dir_all(workspace.module("network/vpc")).unwrap();
    let keys = ("INPUT_STATE-KEYS", "{environment}/{module}.tfstate");
    let ran = backend(&workspace, &[("INPUT_MODULES", "infra ./network/vpc/"), keys]).green();
    let written = file(&workspace, "terraform/network/vpc/backend.tf");
    assert!(written.contains("\"production/network/vpc.tfstate\""), "{written}");
    assert_eq!(
        ran.output("backend-files"),
        "terraform/infra/backend.tf\nterraform/network/vpc/backend.tf"
    );
    // The cabal layout knows one key for every stack but `dns`.
    let ran = backend(&workspace, &[("INPUT_MODULES", "network/vpc")]);
    let ran = ran.green();
    assert!(file(&workspace, "terraform/network/vpc/backend.tf").contains("\"production\""));
    assert_eq!(ran.output("backend-files"), "terraform/network/vpc/backend.tf");
}

#[test]
fn the_root_may_be_a_module() {
    let workspace = workspace();
    for (folder, path) in [("", "terraform/backend.tf"), (".", "backend.tf"), ("./", "backend.tf")]
    {
        let more = [
            ("INPUT_MODULES", "."),
            ("INPUT_WORKING-DIRECTORY", folder),
            ("INPUT_STATE-KEYS", "root.tfstate"),
        ];
        let ran = backend(&workspace, &more).green();
        assert_eq!(ran.output("backend-files"), path);
        assert!(file(&workspace, path).contains("\"root.tfstate\""), "{}", ran.log);
    }
    let more = [("INPUT_MODULES", "."), ("INPUT_STATE-KEYS", "{module}.tfstate")];
    let ran = backend(&workspace, &more).red("invalid-input");
    assert!(ran.log.contains("write `.=KEY`"), "{}", ran.log);
}

#[test]
fn no_module_lies_outside() {
    let workspace = workspace();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), workspace.module("linked")).unwrap();
    let absolute = outside.path().display().to_string();
    for (module, says) in [
        ("..", "must not contain"),
        ("../terraform/infra", "must not contain"),
        ("infra/../dns", "must not contain"),
        (absolute.as_str(), "not an absolute path"),
        ("linked", "leads out of the workspace"),
    ] {
        let modules = format!("infra {module}");
        let more =
            [("INPUT_MODULES", modules.as_str()), ("INPUT_STATE-KEYS", "infra=a\nlinked=b\n*")];
        let ran = backend(&workspace, &more).red("invalid-input");
        assert!(ran.log.contains(says), "{module}: {}", ran.log);
        assert_eq!(workspace.backend("infra"), "", "{module}: nothing is written");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_modules_in_one_folder_are_an_error() {
    let bench = Bench::new().await;
    let digest = bench.digest();
    symlink("infra", bench.workspace.module("same")).unwrap();
    let keys = ("INPUT_STATE-KEYS", "infra=production\nsame=production-bootstrap\n*");
    for (modules, says) in [
        ("infra ./infra", "names one folder twice"),
        ("infra,infra/", "names one folder twice"),
        (". ./", "names one folder twice"),
        ("infra same", "are one folder on disk"),
    ] {
        for mode in ["backend", "plan", "apply", "verify", "rollback"] {
            let key = if mode == "rollback" { "" } else { &bench.key };
            let more = [("INPUT_MODULES", modules), keys];
            let ran = bench.run_as("deploy", mode, key, &more).await.red("invalid-input");
            assert!(ran.log.contains(says), "{modules}: {}", ran.log);
        }
    }
    assert_eq!(bench.workspace.backend("infra"), "");
    bench.assert_untouched(&digest);
}
