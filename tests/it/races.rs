//! A Terraform-like writer that comes between any two requests: no serial is lost, and
//! what the run says of a state is what is there.

use aws_lab::{Encryption, Topology};

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, state};

/// A small generator with a fixed sequence for each seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

/// One seeded interleaving of up to three writes with `apply` or `rollback`.
async fn interleaved(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let rollback = random.below(3) == 0;
    let bench = Bench::with(Topology::Roles, |_| {}).await;
    if rollback {
        let _ = bench.run("apply", &[("INPUT_PROBE", "off")]).await.green();
    }
    let key = bench.key.clone();
    for write in 0..=random.below(3) {
        let operation = ["GetObject", "CopyObject"][random.below(2) as usize];
        let nth = 1 + random.below(4) as u32;
        // Terraform with the old backend.tf, or with the new one.
        let encryption = match random.below(2) {
            0 => Encryption::SseS3,
            _ => Encryption::Kms { key: key.clone() },
        };
        bench.before_nth(operation, KEYS[0], nth, move |world| {
            world.put_object(BUCKET, KEYS[0], state(100 + write), encryption.clone());
        });
    }
    let (mode, variable) = if rollback { ("rollback", "") } else { ("apply", key.as_str()) };
    let ran = bench.run_as("deploy", mode, variable, &[("INPUT_PROBE", "off")]).await;

    let world = bench.lab.world();
    let versions = world.versions(BUCKET, KEYS[0]);
    // The newest bytes that anybody but the action wrote are the bytes that are there.
    let serial = |body: &[u8]| -> u64 {
        let document: serde_json::Value = serde_json::from_slice(body).unwrap();
        document["serial"].as_u64().unwrap()
    };
    let mut serials: Vec<u64> = versions.iter().map(|version| serial(&version.body)).collect();
    let now = serials.last().copied().unwrap();
    // A copy repeats the serial before it and brings no older one back.
    serials.dedup();
    let mut unique = serials.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(
        serials.len(),
        unique.len(),
        "seed {seed}: a serial came back: {serials:?}\n{}",
        ran.log
    );
    let current = versions.last().unwrap();
    if ran.code == 0 {
        let wanted = match rollback {
            true => Encryption::SseS3,
            false => Encryption::Kms { key },
        };
        let row = &ran.report["objects"][0];
        // True as of the last read: a write after it is not the run's to know.
        if row["version_id"] == current.version_id.as_str() {
            assert_eq!(current.encryption, wanted, "seed {seed}\n{}", ran.log);
            assert_eq!(row["serial"], now, "seed {seed}\n{}", ran.log);
        }
    } else {
        assert_eq!(ran.output("failure-reason"), "concurrent-writes", "seed {seed}\n{}", ran.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_serial_is_lost_whoever_comes_between() {
    let seeds = std::env::var("RACE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        interleaved(seed).await;
    }
}
