//! The region in the backend files is the bucket's, or the run fails.

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_not_the_keys_is_refused_without_a_request() {
    let bench = Bench::new().await;
    for variable in ["INPUT_REGION", "TF_VAR_AWS_REGION"] {
        for mode in ["backend", "plan", "apply", "verify"] {
            bench.lab.clear_log();
            let ran = bench.run(mode, &[(variable, "eu-west-1")]).await.red("invalid-input");
            for part in ["eu-west-1", "us-east-1"] {
                assert!(ran.log.contains(part), "{mode}: {}", ran.log);
            }
            assert!(bench.lab.log().is_empty(), "{mode}");
            assert_eq!(bench.workspace.backend("infra"), "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_not_the_buckets_fails_before_a_file_is_written() {
    let bench = Bench::new().await;
    for mode in ["plan", "apply", "verify"] {
        let ran = bench.run_unset(mode, &[("INPUT_REGION", "eu-west-1")]).await;
        let ran = ran.red("invalid-input");
        for part in ["eu-west-1", "us-east-1"] {
            assert!(ran.log.contains(part), "{mode}: {}", ran.log);
        }
        assert_eq!(bench.workspace.backend("infra"), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_only_the_environment_has_yields() {
    let bench = Bench::new().await;
    let ambient = [("AWS_REGION", "eu-west-1")];
    let wanted = "    region     = \"us-east-1\"\n";
    for mode in ["backend", "apply", "verify"] {
        let _ = bench.run(mode, &ambient).await.green();
        let file = bench.workspace.backend("infra");
        assert!(file.contains(wanted), "{mode}: {file}");
    }
    let bench = Bench::new().await;
    let _ = bench.run_unset("apply", &ambient).await.green();
    assert!(bench.workspace.backend("infra").contains("    region = \"us-east-1\"\n"));
    // Without a network and a key, it is all there is to go by.
    let bench = Bench::new().await;
    let _ = bench.run_unset("backend", &ambient).await.green();
    assert!(bench.workspace.backend("infra").contains("    region = \"eu-west-1\"\n"));
}
