//! Configuration written by hand: its block is edited where it stands, nothing of it is dropped,
//! and no second block stands beside it.

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS};

const LOCKED: &str = r#"# Ask the platform team before you change this.
terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = { source = "hashicorp/aws" }
  }

  backend "s3" {
    bucket         = "cabal-tf-backend" # shared
    key            = "production"
    region         = "us-east-1"
    dynamodb_table = "locks"
    profile        = "ops"

    assume_role = {
      role_arn = "arn:aws:iam::111111111111:role/state"
    }
  }
}

provider "aws" {
  region = "us-east-1"
}
"#;

/// The same with the key.
fn encrypted(key: &str) -> String {
    LOCKED.replace(
        "    profile        = \"ops\"\n",
        &format!(
            "    profile        = \"ops\"\n    encrypt        = true\n    kms_key_id     = \"{key}\"\n"
        ),
    )
}

const BLOCK: &str = "terraform {\n  backend \"s3\" {\n    bucket = \"cabal-tf-backend\"\n    key    = \
                     \"production\"\n    region = \"us-east-1\"\n  }\n}\n";
const JSON: &str = r#"{
  "terraform": {
    "backend": {
      "s3": {
        "bucket": "cabal-tf-backend",
        "key": "production",
        "region": "us-east-1"
      }
    }
  }
}
"#;

fn read(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.workspace.module("infra").join(name)).unwrap_or_default()
}

fn write(bench: &Bench, name: &str, text: &str) {
    std::fs::write(bench.workspace.module("infra").join(name), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_edited_where_it_stands() {
    let bench = Bench::new().await;
    write(&bench, "backend.tf", LOCKED);
    let ran = bench.run("plan", &[]).await.green();
    assert_eq!(ran.report["backend_files"][0]["action"], "would-edit", "{}", ran.log);
    assert_eq!(read(&bench, "backend.tf"), LOCKED);
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(read(&bench, "backend.tf"), encrypted(&bench.key));
    assert_eq!(ran.report["backend_files"][0]["action"], "edited");
    assert!(ran.log.contains("::notice title=Backend block edited"), "{}", ran.log);
    assert!(ran.output("backend-files").contains("terraform/infra/backend.tf"));
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!(
        (ran.output("changed"), read(&bench, "backend.tf")),
        ("false", encrypted(&bench.key))
    );
    let _ = bench.run("verify", &[]).await.green();
    // Without the variable nothing is taken out, and no mode goes on.
    for mode in ["backend", "plan", "apply", "verify"] {
        let ran = bench.run_unset(mode, &[]).await;
        let reasons = ran.report["failures"].to_string();
        assert!(ran.code == 1 && reasons.contains("downgrade-refused"), "{mode}: {}", ran.log);
        assert_eq!(read(&bench, "backend.tf"), encrypted(&bench.key));
    }
    let allowed = [("INPUT_ALLOW-DOWNGRADE", "true")];
    let ran = bench.run_unset("backend", &allowed).await.green();
    assert!(ran.log.contains("::warning") && ran.log.contains("left as it is"), "{}", ran.log);
    // The way back leaves SSE-S3 named.
    let _ = bench.run_unset("rollback", &[]).await.green();
    let key_line = format!("    kms_key_id     = \"{}\"\n", bench.key);
    assert_eq!(read(&bench, "backend.tf"), encrypted(&bench.key).replace(&key_line, ""));
    let ran = bench.run_unset("apply", &[]).await.green();
    assert!(read(&bench, "backend.tf").contains("encrypt        = true"), "{}", ran.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_in_any_file_is_edited_there() {
    for (name, text) in [
        ("versions.tf", BLOCK),
        ("main.tofu", BLOCK),
        ("override.tf", BLOCK),
        ("x_override.tf", BLOCK),
        ("main.tf.json", JSON),
        ("main.tofu.json", JSON),
    ] {
        let bench = Bench::new().await;
        write(&bench, name, text);
        write(&bench, "main.tf", "output \"backend\" {\n  value = 1\n}\n");
        let _ = bench.run("apply", &[]).await.green();
        let after = read(&bench, name);
        assert!(after.contains("encrypt") && after.contains(&bench.key), "{name}: {after}");
        assert_eq!(bench.workspace.backend("infra"), "", "{name}");
        let ran = bench.run("verify", &[]).await.green();
        assert_eq!(ran.output("verified"), "true");
        let ran = bench.run("apply", &[]).await.green();
        assert_eq!((ran.output("changed"), read(&bench, name)), ("false", after));
        // The block that a person takes the key out of is drift, wherever it is.
        write(&bench, name, text);
        let ran = bench.run("verify", &[]).await.red("drift");
        assert!(ran.log.contains(name), "{name}: {}", ran.log);
    }
    // An override wins over the block that has the key.
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    write(&bench, "override.tf", BLOCK);
    let ran = bench.run("verify", &[]).await.red("drift");
    assert!(ran.log.contains("override.tf"), "{}", ran.log);
    let _ = bench.run("apply", &[]).await.green();
    assert!(read(&bench, "override.tf").contains(&bench.key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_block_gets_one() {
    let bench = Bench::new().await;
    let before = "# ours\nterraform {\n  required_version = \">= 1.9\"\n}\n";
    write(&bench, "backend.tf", before);
    let _ = bench.run("apply", &[]).await.green();
    let after = read(&bench, "backend.tf");
    assert!(
        after.starts_with(&format!("{before}\nterraform {{\n  backend \"s3\" {{\n")),
        "{after}"
    );
    let ran = bench.run("apply", &[]).await.green();
    assert_eq!((ran.output("changed"), read(&bench, "backend.tf")), ("false", after));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_edited_is_refused_before_any_write() {
    let expression = BLOCK.replace("\"production\"", "var.key");
    let elsewhere = BLOCK.replace("\"production\"", "\"staging\"");
    let region = BLOCK.replace("us-east-1", "eu-west-1");
    let customer = BLOCK.replace("    region", "    sse_customer_key = \"c2VjcmV0\"\n    region");
    let cloud = "terraform {\n  cloud {\n  }\n}\n";
    for (files, says) in [
        (&[("versions.tf", expression.as_str())][..], "by an expression"),
        (&[("versions.tf", elsewhere.as_str())], "wanted \"production\""),
        (&[("versions.tf", region.as_str())], "eu-west-1"),
        (&[("versions.tf", customer.as_str())], "sse_customer_key"),
        (&[("versions.tf", BLOCK), ("main.tf", BLOCK)], "more than one backend block"),
        (&[("main.tf", BLOCK), ("x.tofu", BLOCK)], "more than one backend block"),
        (&[("main.tf", BLOCK), ("main.tofu", "locals {\n}\n")], "main.tofu"),
        (&[("backend.tofu", "locals {\n}\n")], "backend.tofu"),
        (&[("cloud.tf", cloud)], "cloud"),
        (&[("store.tf", "terraform {\n  state_store \"x\" {\n  }\n}\n")], "state_store"),
        (&[("other.tf", "terraform {\n  backend \"gcs\" {\n  }\n}\n")], "gcs"),
        (&[("broken.tf", "terraform {\n  backend \"s3\" {\n")], "broken.tf"),
        (&[("broken.tf.json", "{\"terraform\": {\"backend\":")], "broken.tf.json"),
    ] {
        let bench = Bench::new().await;
        let digest = bench.digest();
        for (name, text) in files {
            write(&bench, name, text);
        }
        for mode in ["backend", "plan", "apply"] {
            let ran = bench.run(mode, &[]).await.red("backend-differs");
            assert!(ran.log.contains(says), "{mode} {says}: {}", ran.log);
            assert!(!ran.everything().contains("c2VjcmV0"));
        }
        for (name, text) in files {
            assert_eq!(&read(&bench, name), text);
        }
        for module in ["infra", "dns"] {
            assert_eq!(bench.workspace.backend(module), "", "{says}");
        }
        bench.assert_untouched(&digest);
    }
    // What neither program reads, and what says nothing of a backend, is no hindrance.
    let bench = Bench::new().await;
    write(&bench, ".hidden.tf", BLOCK);
    write(&bench, "notes.txt", BLOCK);
    write(&bench, "old.tf~", BLOCK);
    write(&bench, "broken.tf", "resource \"x\" {");
    let _ = bench.run("apply", &[]).await.green();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_replaced_only_where_nothing_is_dropped_unasked() {
    let bench = Bench::new().await;
    let digest = bench.digest();
    let overwrite = ("INPUT_ON-EXISTING", "overwrite");
    write(&bench, "backend.tf", LOCKED);
    for mode in ["backend", "plan", "apply"] {
        let ran = bench.run(mode, &[overwrite]).await.red("backend-differs");
        for part in ["dynamodb_table", "required_version", "comments"] {
            assert!(ran.log.contains(part), "{mode} {part}: {}", ran.log);
        }
    }
    assert_eq!(read(&bench, "backend.tf"), LOCKED);
    assert_eq!(bench.workspace.backend("dns"), "", "a run that refuses writes no file");
    bench.assert_untouched(&digest);
    let discard = ("INPUT_DISCARD-EXTRAS", "true");
    let _ = bench.run("apply", &[overwrite, discard]).await.green();
    let file = read(&bench, "backend.tf");
    assert!(file.contains(&bench.key) && !file.contains("dynamodb_table"), "{file}");
    // A block in another file is never replaced.
    let bench = Bench::new().await;
    write(&bench, "versions.tf", LOCKED);
    let ran = bench.run("apply", &[overwrite, discard]).await.red("backend-differs");
    assert!(ran.log.contains("versions.tf"), "{}", ran.log);
    assert_eq!(read(&bench, "versions.tf"), LOCKED);
}

#[tokio::test(flavor = "multi_thread")]
async fn extras_are_no_difference_where_the_meaning_is_the_same() {
    let bench = Bench::new().await;
    let same = encrypted(&bench.key);
    write(&bench, "backend.tf", &same);
    for (mode, existing) in [("plan", "keep"), ("apply", "keep"), ("verify", "edit")] {
        let ran = bench.run(mode, &[("INPUT_ON-EXISTING", existing)]).await.green();
        let want = if mode == "plan" { "warn" } else { "pass" };
        assert_eq!(ran.check("backend-consistent"), want, "{}", ran.log);
    }
    assert_eq!(read(&bench, "backend.tf"), same);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_files_of_its_own_a_block_is_compared_all_the_same() {
    let bench = Bench::new().await;
    let none = ("INPUT_BACKEND-FORMAT", "none");
    write(&bench, "main.tf", LOCKED);
    let digest = bench.digest();
    let ran = bench.run("apply", &[none]).await.red("backend-differs");
    assert!(ran.log.contains("kms_key_id") && ran.log.contains("undoes"), "{}", ran.log);
    bench.assert_untouched(&digest);
    // Opted out of, with a warning.
    let ran = bench.run("apply", &[none, ("INPUT_ON-EXISTING", "ignore")]).await.green();
    assert!(ran.log.contains("::warning") && ran.log.contains("main.tf"), "{}", ran.log);
    assert_eq!((ran.output("rekeyed"), ran.check("backend-consistent")), ("2", "warn"));
    let ran = bench.run("verify", &[none]).await.red("drift");
    assert!(ran.log.contains("main.tf"), "{}", ran.log);
    write(&bench, "main.tf", &encrypted(&bench.key));
    let ran = bench.run("verify", &[none]).await.green();
    assert_eq!(ran.check("backend-consistent"), "pass", "{}", ran.log);
    assert_eq!(bench.workspace.backend("dns"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_block_is_edited_and_what_it_leaves_out_is_unknown() {
    let bench = Bench::new().await;
    write(&bench, "main.tf", "terraform {\n  backend \"s3\" {}\n}\n");
    let one = ("INPUT_MODULES", "infra");
    let ran = bench.run("apply", &[one]).await.green();
    let file = read(&bench, "main.tf");
    assert!(file.contains(&bench.key) && !file.contains("bucket"), "{file}");
    assert_eq!(ran.check("backend-consistent"), "unknown", "{}", ran.log);
    assert!(ran.log.contains("bucket, key not in the block"), "{}", ran.log);
    // `keep` wants the file to say all of it.
    let ran = bench.run("plan", &[one, ("INPUT_ON-EXISTING", "keep")]).await.red("backend-differs");
    assert!(ran.log.contains("the file has none, wanted"), "{}", ran.log);
}

/// One file for several stacks, by links: writing would cut one of them off.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_not_replaced_by_a_file() {
    let bench = Bench::new().await;
    let shared = bench.workspace.path().join("shared.tf");
    std::fs::write(&shared, LOCKED).unwrap();
    let link = bench.workspace.module("infra").join("backend.tf");
    std::os::unix::fs::symlink(&shared, &link).unwrap();
    for mode in ["backend", "plan", "apply"] {
        let ran = bench.run(mode, &[]).await.red("backend-differs");
        assert!(ran.log.contains("is a link"), "{mode}: {}", ran.log);
    }
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read_to_string(&shared).unwrap(), LOCKED);
    // One that says what is wanted is as good as a file.
    std::fs::write(&shared, encrypted(&bench.key)).unwrap();
    let _ = bench.run("apply", &[]).await.green();
}

/// In mode `backend` no region need be given: a block's own is taken for right, unless the key says
/// otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_blocks_region_is_held_against_the_keys() {
    for (region, good) in [("us-east-1", true), ("eu-west-1", false)] {
        let bench = Bench::new().await;
        write(&bench, "main.tf", &BLOCK.replace("us-east-1", region));
        let mut variables = bench.variables("deploy", "backend", &bench.key, &[]);
        variables.retain(|(name, _)| !name.contains("REGION"));
        let ran = tokio::task::block_in_place(|| bench.workspace.run(&variables));
        if good {
            let _ = ran.green();
            assert!(read(&bench, "main.tf").contains(&bench.key));
        } else {
            let ran = ran.red("backend-differs");
            assert!(ran.log.contains("eu-west-1") && ran.log.contains("us-east-1"), "{}", ran.log);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_and_an_acl_of_the_users_stay() {
    let bench = Bench::new().await;
    let lock = [("INPUT_LOCK", "s3")];
    let _ = bench.run("backend", &lock).await.green();
    assert!(bench.workspace.backend("infra").contains("use_lockfile = true"));
    // A file of this action's own form is written whole, and keeps its lock.
    let _ = bench.run_unset("backend", &[]).await.green();
    let file = bench.workspace.backend("infra");
    assert!(!file.contains("kms_key_id") && file.contains("use_lockfile = true"), "{file}");
    // A block of the user's gets one where that is asked for.
    write(&bench, "backend.tf", LOCKED);
    let _ = bench.run("apply", &lock).await.green();
    assert!(read(&bench, "backend.tf").contains("use_lockfile   = true"));
    assert!(bench.lab.world().current(BUCKET, &format!("{}.tflock", KEYS[0])).is_none());
}
