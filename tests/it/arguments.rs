//! The command line: nothing runs by accident.

use std::process::Command;

use crate::bench::Bench;
use crate::common::built;

/// Runs the binary with arguments in a complete environment; exit code, stdout, stderr.
fn called(bench: &Bench, arguments: &[&str], without: &[&str]) -> (i32, String, String) {
    let mut variables = bench.variables("deploy", "apply", &bench.key, &[]);
    variables.retain(|(name, _)| !without.contains(&name.as_str()));
    let result = Command::new(built::binary())
        .args(arguments)
        .env_clear()
        .envs(variables)
        .current_dir(bench.workspace.path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (result.status.code().unwrap_or(-1), text(&result.stdout), text(&result.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn help_and_version_do_nothing_else() {
    let bench = Bench::new().await;
    let digest = bench.digest();
    for (argument, says) in [("--version", "tfstate-kms 0."), ("--help", "Usage: tfstate-kms")] {
        let (code, stdout, stderr) =
            tokio::task::block_in_place(|| called(&bench, &[argument], &[]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{argument}");
        assert!(stdout.contains(says), "{argument}: {stdout}");
    }
    untouched(&bench, &digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_argument_is_exit_code_2() {
    let bench = Bench::new().await;
    let digest = bench.digest();
    for argument in ["plan", "apply", "--mode=plan", "-v", ""] {
        let (code, stdout, stderr) =
            tokio::task::block_in_place(|| called(&bench, &[argument], &[]));
        assert_eq!((code, stdout.as_str()), (2, ""), "{argument}");
        assert!(stderr.starts_with("error: unexpected argument"), "{argument}: {stderr}");
    }
    untouched(&bench, &digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mode_outside_actions_the_help_is_shown() {
    let bench = Bench::new().await;
    let digest = bench.digest();
    let (code, stdout, stderr) =
        tokio::task::block_in_place(|| called(&bench, &[], &["INPUT_MODE"]));
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("INPUT_MODE"), "{stderr}");
    untouched(&bench, &digest);
}

fn untouched(bench: &Bench, digest: &str) {
    bench.assert_untouched(digest);
    assert!(bench.lab.log().is_empty(), "{:?}", bench.lab.log());
    for file in ["tfstate-kms-report.json", "terraform/infra/backend.tf"] {
        assert!(!bench.workspace.path().join(file).exists(), "{file}");
    }
}
