//! `state-keys`: what cannot be meant is refused, and what is not there is not called fine.

use aws_lab::Topology;

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS};

#[tokio::test(flavor = "multi_thread")]
async fn patterns_addresses_and_variables_are_refused() {
    let bench = Bench::new().await;
    let digest = bench.digest();
    for (keys, says) in [
        ("prod/*.tfstate", "`*` is understood only"),
        ("**", "`*` is understood only"),
        ("infra=env:/*", "gives module `infra` no key of its own"),
        ("infra=*", "gives module `infra` no key of its own"),
        ("env:/*/prod/*", "`*` is understood only"),
        ("s3://cabal-tf-backend/production", "it is an address"),
        ("https://x/production", "it is an address"),
        ("arn:aws:s3:::cabal-tf-backend/production", "it is an address"),
        ("$STACK.tfstate", "a variable was not expanded"),
        ("${STACK}/x", "a variable was not expanded"),
        ("[\"production\"]", "it is written as a list"),
        ("- production", "it is written as a list"),
        ("a//b", "`//`"),
    ] {
        let more = [("INPUT_STATE-KEYS", keys), ("INPUT_MODULES", "infra")];
        for mode in ["backend", "plan", "apply"] {
            let ran = bench.run(mode, &more).await.red("invalid-input");
            assert!(ran.log.contains(says), "{keys}: {}", ran.log);
            assert_eq!(bench.workspace.backend("infra"), "", "{keys}");
        }
    }
    bench.assert_untouched(&digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_matches_nothing_is_an_error() {
    let bench = Bench::new().await;
    let digest = bench.digest();
    let more = [("INPUT_STATE-KEYS", "nowhere/*\n{environment}"), ("INPUT_MODULES", "infra")];
    for mode in ["plan", "apply", "verify"] {
        let ran = bench.run(mode, &more).await.red("state-missing");
        assert!(ran.log.contains("there is no state below `nowhere/`"), "{}", ran.log);
    }
    bench.assert_untouched(&digest);
    // Without a key nothing is to be re-keyed, and the step stays quiet.
    let _ = bench.run_unset("apply", &more).await.green();
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_are_not_there_are_warned_of_and_never_verified() {
    let bench = Bench::with(Topology::Roles, |world| {
        KEYS.iter().for_each(|key| world.remove_object(BUCKET, key));
    })
    .await;
    let ran = bench.run("apply", &[]).await.green();
    assert!(ran.log.contains("::warning"), "{}", ran.log);
    assert!(ran.log.contains("none of the states exists yet: `production`"), "{}", ran.log);
    let ran = bench.run("verify", &[]).await.red("state-missing");
    assert!(ran.log.contains("nothing to verify"), "{}", ran.log);
}
