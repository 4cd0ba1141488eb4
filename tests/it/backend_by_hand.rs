//! Configuration written by hand: nothing of it is dropped, and no second block stands beside it.

use crate::bench::Bench;

const LOCKED: &str = r#"terraform {
  required_version = ">= 1.9"
  backend "s3" {
    bucket         = "cabal-tf-backend"
    key            = "production"
    region         = "us-east-1"
    dynamodb_table = "locks"
  }
}
"#;

const COMMENTED: &str = r#"# Ask the platform team before you change this.
terraform {
  backend "s3" {
    bucket = "cabal-tf-backend"
    key    = "production"
    region = "us-east-1"
  }
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_holds_beyond_the_block_is_not_dropped_unasked() {
    for text in [LOCKED, COMMENTED] {
        let bench = Bench::new().await;
        let digest = bench.digest();
        let file = bench.workspace.module("infra").join("backend.tf");
        std::fs::write(&file, text).unwrap();
        for (mode, reason) in
            [("plan", "backend-differs"), ("apply", "backend-differs"), ("verify", "drift")]
        {
            let ran = bench.run(mode, &[]).await;
            assert_eq!(ran.code, 1, "{mode}: {}", ran.log);
            assert!(ran.log.contains("kms_key_id"), "{mode}: {}", ran.log);
            // `verify` has the state's own drift to report, too.
            let reasons = ran.report["failures"].to_string();
            assert!(reasons.contains(reason), "{mode}: {reasons}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        assert_eq!(bench.workspace.backend("dns"), "", "a run that refuses writes no file");
        bench.assert_untouched(&digest);
        let discard = [("INPUT_DISCARD-EXTRAS", "true")];
        let ran = bench.run("apply", &discard).await.green();
        assert!(bench.workspace.backend("infra").contains("kms_key_id"), "{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn extras_are_no_difference_where_the_meaning_is_the_same() {
    let bench = Bench::new().await;
    let _ = bench.run("apply", &[]).await.green();
    let file = bench.workspace.module("infra").join("backend.tf");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("    encrypt", "    dynamodb_table = \"locks\" # kept\n    encrypt");
    std::fs::write(&file, &text).unwrap();
    for mode in ["plan", "apply", "verify"] {
        let ran = bench.run(mode, &[("INPUT_ON-EXISTING", "keep")]).await.green();
        assert_eq!(ran.check("backend-consistent"), "pass", "{}", ran.log);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_block_is_written_beside_one_in_another_file() {
    let block = "terraform {\n  backend \"s3\" {\n    key = \"production\"\n  }\n}\n";
    let json = r#"{"terraform": [{"backend": {"s3": {"key": "production"}}}]}"#;
    for (name, text) in [
        ("versions.tf", block),
        ("main.tofu", block),
        ("override.tf", block),
        ("x_override.tf", block),
        ("main.tf.json", json),
        ("main.tofu.json", json),
        ("cloud.tf", "terraform {\n  cloud {\n  }\n}\n"),
        ("other.tf", "terraform {\n  backend \"gcs\" {\n  }\n}\n"),
        ("broken.tf", "terraform {\n  backend \"s3\" {\n"),
    ] {
        let bench = Bench::new().await;
        let digest = bench.digest();
        let file = bench.workspace.module("dns").join(name);
        std::fs::write(&file, text).unwrap();
        for mode in ["backend", "apply"] {
            let ran = bench.run(mode, &[]).await.red("backend-differs");
            assert!(ran.log.contains(name), "{name}: {}", ran.log);
        }
        for module in ["infra", "dns"] {
            assert_eq!(bench.workspace.backend(module), "", "{name}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        bench.assert_untouched(&digest);
    }
    // Configuration without a block is no hindrance, nor is what Terraform does not read.
    let bench = Bench::new().await;
    let folder = bench.workspace.module("dns");
    std::fs::write(folder.join("main.tf"), "output \"backend\" {\n  value = 1\n}\n").unwrap();
    std::fs::write(folder.join(".hidden.tf"), block).unwrap();
    std::fs::write(folder.join("notes.txt"), block).unwrap();
    let _ = bench.run("apply", &[]).await.green();
}
