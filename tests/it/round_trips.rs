//! How many requests wait for one another, counted in the lab's log with a latency on each request.

use std::time::Duration;

use aws_lab::{Encryption, Topology, sequential_round_trips};

use crate::bench::Bench;
use crate::common::{BUCKET, state};

async fn measured(bench: &Bench, mode: &str, more: &[(&str, &str)]) -> usize {
    bench.lab.clear_log();
    let mut all = vec![("INPUT_PROBE", "off")];
    all.extend(more);
    let _ = bench.run(mode, &all).await.green();
    sequential_round_trips(&bench.lab.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn independent_requests_go_out_together() {
    let bench = Bench::new().await;
    bench.lab.set_latency(Duration::from_millis(100));
    assert!(measured(&bench, "apply", &[]).await <= 4);
    assert!(measured(&bench, "verify", &[]).await <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_states_take_no_more() {
    let modules: Vec<String> = (0..20).map(|n| format!("stack{n}")).collect();
    let bench = Bench::with(Topology::Roles, |world| {
        for module in &modules {
            let key = format!("states/{module}");
            world.put_object(BUCKET, &key, state(1), Encryption::SseS3);
        }
    })
    .await;
    // More than a busy machine needs to send a hundred requests, so that only waiting counts.
    bench.lab.set_latency(Duration::from_millis(300));
    let names = modules.join(" ");
    let more = [("INPUT_MODULES", names.as_str()), ("INPUT_STATE-KEYS", "states/{module}")];
    assert!(measured(&bench, "apply", &more).await <= 4);
    assert!(measured(&bench, "verify", &more).await <= 2);
}
