//! Mode `backend`: files only, no credentials, no network.

use crate::bench::{Bench, workspace};
use crate::common::variables;

const ARN: &str = "arn:aws:kms:us-east-1:111111111111:key/11111111-2222-4333-8444-555555555555";

const WITH_KEY: &str = r#"terraform {
  backend "s3" {
    bucket     = "cabal-tf-backend"
    key        = "production-bootstrap"
    region     = ""
    encrypt    = true
    kms_key_id = "arn:aws:kms:us-east-1:111111111111:key/11111111-2222-4333-8444-555555555555"
  }
}
"#;

fn base(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all = variables(&[
        ("INPUT_MODE", "backend"),
        ("TF_STATE_BUCKET", "cabal-tf-backend"),
        ("TF_ENVIRONMENT", "production"),
        ("TF_MODULE", "dns"),
        // No endpoint answers here: a request would fail the run.
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    ]);
    all.extend(variables(more));
    all
}

#[test]
fn writes_what_the_script_writes() {
    let workspace = workspace();
    let ran = workspace.run(&base(&[("STATE_KMS_KEY_ID", ARN)])).green();
    assert_eq!(workspace.backend("dns"), WITH_KEY);
    assert_eq!(workspace.backend("infra"), "");
    assert_eq!(ran.output("backend-files"), "terraform/dns/backend.tf");
    assert_eq!(ran.output("changed"), "true");
    assert_eq!(ran.output("verified"), "false");
    assert!(ran.log.contains("region = \"\""), "{}", ran.log);
    assert!(!ran.log.contains("::notice") && !ran.log.contains("::warning"), "{}", ran.log);

    let ran = workspace.run(&base(&[])).green();
    assert!(ran.log.contains("::notice title=Backend file overwritten"), "{}", ran.log);
    assert!(!workspace.backend("dns").contains("kms_key_id"));
    let ran = workspace.run(&base(&[])).green();
    assert_eq!(ran.output("changed"), "false");
}

#[test]
fn the_file_belongs_to_the_workspaces_owner_and_all_may_read_it() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let workspace = workspace();
    let own = std::fs::metadata(workspace.path()).unwrap().uid();
    // Only root can make the workspace another's, as the runner's user is in a container.
    let owner = if own == 0 { 1001 } else { own };
    std::os::unix::fs::chown(workspace.path(), Some(owner), None).unwrap();
    let _ = workspace.run(&base(&[])).green();
    for file in ["terraform/dns/backend.tf", "tfstate-kms-report.json"] {
        let metadata = std::fs::metadata(workspace.path().join(file)).unwrap();
        assert_eq!(metadata.uid(), owner, "{file}");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o644, "{file}");
    }
}

#[test]
fn an_existing_file_is_kept_when_asked() {
    let workspace = workspace();
    let path = workspace.module("dns").join("backend.tf");
    std::fs::write(&path, "terraform {\n  backend \"s3\" {\n    encrypt = true\n  }\n}\n").unwrap();
    let before = workspace.backend("dns");
    let ran = workspace.run(&base(&[("INPUT_ON-EXISTING", "keep")])).red("backend-differs");
    assert_eq!(workspace.backend("dns"), before);
    assert!(ran.log.contains("bucket"), "{}", ran.log);
}

#[test]
fn a_file_of_the_same_meaning_is_not_touched() {
    let workspace = workspace();
    let same = "# by hand\nterraform {\n backend \"s3\" {\n  key=\"production-bootstrap\"\n  region = \"us-east-1\"\n  bucket = \"cabal-tf-backend\"\n }\n}\n";
    std::fs::write(workspace.module("dns").join("backend.tf"), same).unwrap();
    let ran = workspace.run(&base(&[("AWS_REGION", "us-east-1")])).green();
    assert_eq!(ran.output("changed"), "false");
    assert_eq!(workspace.backend("dns"), same);
}

#[test]
fn the_other_format_and_the_lock_are_written() {
    let workspace = workspace();
    let more = [
        ("INPUT_BACKEND-FORMAT", "tfbackend"),
        ("INPUT_LOCK", "s3"),
        ("INPUT_ACL", "bucket-owner-full-control"),
        ("INPUT_REGION", "eu-west-1"),
    ];
    let ran = workspace.run(&base(&more)).green();
    assert_eq!(ran.output("backend-files"), "terraform/dns/backend.tfbackend");
    let text = std::fs::read_to_string(workspace.module("dns").join("backend.tfbackend")).unwrap();
    assert_eq!(
        text,
        "bucket       = \"cabal-tf-backend\"\nkey          = \"production-bootstrap\"\nregion       = \
         \"eu-west-1\"\nacl          = \"bucket-owner-full-control\"\nuse_lockfile = true\n"
    );
}

#[test]
fn a_missing_folder_and_an_empty_variable_can_be_errors() {
    let workspace = workspace();
    let ran = workspace.run(&base(&[("INPUT_MODULES", "net")])).red("invalid-input");
    assert!(ran.log.contains("folder `terraform/net`"), "{}", ran.log);
    let ran = workspace.run(&base(&[("INPUT_REQUIRE-ENCRYPTION", "true")]));
    let ran = ran.red("encryption-required");
    assert!(ran.log.contains("STATE_KMS_KEY_ID"), "{}", ran.log);
    assert_eq!(workspace.backend("dns"), "");
}

#[test]
fn wrong_inputs_change_nothing_and_are_all_named() {
    let workspace = workspace();
    let more = [("STATE_KMS_KEY_ID", "alias/x"), ("INPUT_LOCK", "dynamo"), ("INPUT_CONFIRM", "1")];
    let ran = workspace.run(&base(&more)).red("invalid-input");
    for part in ["is an alias", "`lock` is `dynamo`", "`confirm` has no meaning"] {
        assert!(ran.log.contains(part), "{part} in {}", ran.log);
        assert!(ran.report.to_string().contains(part), "{part}");
    }
    assert_eq!(workspace.backend("dns"), "");
    assert!(ran.summary.contains("invalid&#45;input") || ran.summary.contains("invalid-input"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_in_mode_backend_asks_nobody() {
    let bench = Bench::new().await;
    let alias = "arn:aws:kms:us-east-1:111111111111:alias/cabal-tf-state-production";
    let _ = bench.run_as("deploy", "backend", alias, &[]).await.red("invalid-input");
    assert!(bench.lab.log().is_empty(), "{:?}", bench.lab.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_region_in_a_file_means_the_ambient_one() {
    let bench = Bench::new().await;
    let keep = [("INPUT_ON-EXISTING", "keep"), ("AWS_REGION", "us-east-1")];
    let elsewhere = [("INPUT_ON-EXISTING", "keep"), ("AWS_REGION", "eu-west-1")];
    let region = ("INPUT_REGION", "us-east-1");
    let file = bench.workspace.module("infra").join("backend.tf");
    let _ = bench.run("backend", &[region]).await.green();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"us-east-1\"", "\"\"")).unwrap();
    let _ = bench.run("backend", &[keep[0], keep[1], region]).await.green();
    let ran =
        bench.run("backend", &[elsewhere[0], elsewhere[1], region]).await.red("backend-differs");
    assert!(ran.log.contains("region"), "{}", ran.log);
}

/// The check on the files, in each of its states.
#[tokio::test(flavor = "multi_thread")]
async fn the_files_are_compared_by_meaning() {
    let bench = Bench::new().await;
    let ran = bench.run("plan", &[]).await.green();
    assert_eq!(ran.check("backend-consistent"), "warn", "would be written: {}", ran.log);
    let ran = bench.run("verify", &[("INPUT_BACKEND-FORMAT", "none")]).await;
    assert_eq!(ran.check("backend-consistent"), "(not made)");
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(ran.check("backend-consistent"), "pass", "{}", ran.log);
    let file = bench.workspace.module("infra").join("backend.tf");
    let other = std::fs::read_to_string(&file).unwrap().replace("us-east-1", "us-west-2");
    std::fs::write(&file, &other).unwrap();
    let ran = bench.run("verify", &[]).await.red("drift");
    assert_eq!(ran.check("backend-consistent"), "fail", "{}", ran.log);
    assert!(ran.log.contains("us-west-2"), "{}", ran.log);
    let keep = [("INPUT_ON-EXISTING", "keep")];
    let ran = bench.run("apply", &keep).await.red("backend-differs");
    assert_eq!(ran.check("backend-consistent"), "fail", "{}", ran.log);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), other);
    // What cannot be written stops the run before any state is touched.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let bench = Bench { workspace: bench.workspace, ..Bench::new().await };
    let digest = bench.digest();
    let ran = bench.run("apply", &[]).await.red("backend-write");
    bench.assert_untouched(&digest);
    assert!(
        ran.log.contains("`terraform/infra`") && ran.log.contains("`backend.tf`"),
        "{}",
        ran.log
    );
}
