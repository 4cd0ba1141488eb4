//! A Terraform-like writer that comes between any two requests: no serial is lost, and
//! what the run says of a state is what was there when it was last read.

use anyhow::{Result, ensure};
use aws_lab::{Effect, Encryption, Matcher, Topology, Version, World};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::Value;

use super::way::locks;
use super::{Bounds, Part, defects, each, table};
use crate::common::bench::{Bench, workspace};
use crate::common::{BUCKET, KEYS, Ran, state};

/// A small generator with a fixed sequence for each seed (xorshift64*).
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

/// Who runs beside the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    Apply,
    Rollback,
    TwoApplies,
    /// The same, each with Terraform's lock, which the writer does not heed.
    TwoWithLocks,
    /// By S3's in-place operation, which knows no condition.
    InPlace,
    /// S3 writes and does not read: each write is put back.
    Restore,
}

const RUNS: [(Runs, &str); 6] = [
    (Runs::Apply, "`apply`"),
    (Runs::Rollback, "`rollback`"),
    (Runs::TwoApplies, "two `apply` at once"),
    (Runs::TwoWithLocks, "two `apply` at once, `lock: s3`"),
    (Runs::InPlace, "`apply` in place"),
    (Runs::Restore, "`apply`, unreadable and restored"),
];

#[derive(Debug, Clone, Copy)]
struct Case {
    seed: u64,
    runs: Runs,
}

/// What one interleaving came to.
#[derive(Debug, Clone, Copy, Default)]
struct Came {
    /// Writes that really came between.
    writes: usize,
    /// Runs that did all they were asked for.
    green: usize,
    /// Runs that gave way (`concurrent-writes`), or could not read what they wrote.
    red: usize,
    /// Of these, runs that put a state back.
    restored: usize,
}

fn serial(version: &Version) -> u64 {
    let document: Value = serde_json::from_slice(&version.body).unwrap();
    document["serial"].as_u64().unwrap()
}

/// At the time of the read, to the second, the version was the current one.
fn was_there(versions: &[Version], read: &Version, read_at: &str) -> Result<()> {
    let at = DateTime::from_str(read_at, Format::DateTime)?;
    let at = u64::try_from(at.secs())?;
    ensure!(read.modified <= at, "read at {at}, written at {}", read.modified);
    let next = versions.iter().skip_while(|one| one.version_id != read.version_id).nth(1);
    // The answer may come in the second after the one that it was given in.
    let until = next.map_or(u64::MAX, |next| next.modified + 1);
    ensure!(at <= until, "read at {at}, replaced at {until}");
    Ok(())
}

/// Up to six writes of the first state come between the requests of the runs.
async fn interleaved(case: Case) -> Result<Came> {
    let mut random = Random::new(case.seed);
    let bench = Bench::with(Topology::Roles, |world| {
        if case.runs == Runs::Rollback {
            let key = world.state_key_arn().to_owned();
            for (at, name) in KEYS.iter().enumerate() {
                let kms = Encryption::Kms { key: key.clone() };
                world.put_object(BUCKET, name, state(7 + at as u64), kms);
            }
        }
        if case.runs == Runs::Restore {
            let key = world.state_key_arn().to_owned();
            world.require_via_service(&key);
            world.drop_from_key_policy(&key, "kms:Decrypt");
        }
    })
    .await;
    let key = bench.key.clone();
    // Every other time the writer is gone when the run looks: else hardly any would be put back.
    let early = case.runs == Runs::Restore && (case.seed / RUNS.len() as u64).is_multiple_of(2);
    for write in 0..=random.below(if early { 1 } else { 6 }) {
        // Before a request that reads or writes this state, or before any at all.
        let matcher = match random.below(4) {
            _ if early => Matcher::every("GetObject").key(KEYS[0]).nth(1),
            0 => Matcher::any().nth(1 + random.below(30) as u32),
            some => {
                let writes = ["CopyObject", "UpdateObjectEncryption", "PutObject"];
                let write = writes[match case.runs {
                    Runs::InPlace => 1,
                    Runs::Restore if some == 3 => 2,
                    _ => 0,
                }];
                let operation = if some == 1 { "GetObject" } else { write };
                Matcher::every(operation).key(KEYS[0]).nth(1 + random.below(4) as u32)
            }
        };
        // Terraform with the old backend.tf, or with the new one.
        let encryption = match random.below(2) {
            _ if early => Encryption::SseS3,
            0 => Encryption::SseS3,
            _ => Encryption::Kms { key: key.clone() },
        };
        let act = move |world: &mut World| {
            world.put_object(BUCKET, KEYS[0], state(100 + write), encryption.clone());
        };
        bench.lab.inject(matcher, Effect::Act(Box::new(act)));
    }
    let (mode, variable) = match case.runs {
        Runs::Rollback => ("rollback", ""),
        _ => ("apply", key.as_str()),
    };
    let (who, strategy) = match case.runs {
        Runs::InPlace => ("admin", "in-place"),
        _ => ("deploy", "auto"),
    };
    let lock = if case.runs == Runs::TwoWithLocks { "s3" } else { "none" };
    let more = [("INPUT_PROBE", "off"), ("INPUT_STRATEGY", strategy), ("INPUT_LOCK", lock)];
    let variables = bench.variables(who, mode, variable, &more);
    let ran: Vec<Ran> = tokio::task::block_in_place(|| {
        let mut workspaces = vec![&bench.workspace];
        let other = workspace();
        if matches!(case.runs, Runs::TwoApplies | Runs::TwoWithLocks) {
            workspaces.push(&other);
        }
        let started: Vec<_> = workspaces.iter().map(|one| one.start(&variables)).collect();
        let ended = workspaces.iter().zip(started);
        ended.map(|(workspace, child)| workspace.finish(child, &variables)).collect()
    });

    let locks = locks(&bench, &KEYS);
    ensure!(locks.is_empty(), "{} locks were left\n{}", locks.len(), ran[0].log);
    let world = bench.lab.world();
    let versions = world.versions(BUCKET, KEYS[0]);
    // A copy repeats the serial before it and brings no older one back: the newest bytes
    // that anybody but the action wrote are the bytes that are there.
    let mut serials: Vec<u64> = versions.iter().map(serial).collect();
    serials.dedup();
    let mut once = serials.clone();
    once.sort_unstable();
    once.dedup();
    ensure!(serials.len() == once.len(), "a serial came back: {serials:?}\n{}", ran[0].log);

    // Bytes of a serial that was there already are a copy of the action's: it takes none off
    // the key again.
    if mode == "apply" && case.runs != Runs::Restore {
        let copies = versions.windows(2).filter(|two| serial(&two[0]) == serial(&two[1]));
        let keyed = Encryption::Kms { key: key.clone() };
        let down = copies.filter(|two| two[1].encryption != keyed).count();
        ensure!(down == 0, "{down} copies took a state off the key\n{}", ran[0].log);
    }

    let wanted = if mode == "rollback" { Encryption::SseS3 } else { Encryption::Kms { key } };
    let mut came = Came { writes: serials.len() - 1, ..Came::default() };
    for ran in &ran {
        let reason = ran.output("failure-reason");
        let expected: &[&str] = match case.runs {
            // Where another came between, nobody can read what is there, or it is as it was.
            Runs::Restore => {
                &["", "restored", "restore-failed", "concurrent-writes", "state-unreadable"]
            }
            _ => &["", "concurrent-writes"],
        };
        ensure!(expected.contains(&reason), "{reason}\n{}", ran.log);
        came.green += usize::from(ran.code == 0);
        came.red += usize::from(ran.code != 0);
        came.restored += usize::from(reason == "restored");
        if case.runs == Runs::Restore && ran.report["objects"][0]["version_id"].is_null() {
            // It says that it does not know.
            continue;
        }
        // True as of the last read: a write after it is not the run's to know.
        let row = &ran.report["objects"][0];
        let read = versions.iter().find(|one| row["version_id"] == one.version_id.as_str());
        let Some(read) = read else {
            anyhow::bail!("no such version: {row}\n{}", ran.log);
        };
        ensure!(row["serial"] == serial(read), "not its serial: {row}\n{}", ran.log);
        was_there(versions, read, row["read_at"].as_str().unwrap_or_default())?;
        if ran.code == 0 {
            ensure!(read.encryption == wanted, "not as wanted: {row}\n{}", ran.log);
        }
    }
    Ok(came)
}

/// Seeded interleavings.
pub async fn part(bounds: Bounds) -> Result<Part> {
    let kinds = RUNS.len() as u64;
    let case = |seed: u64| Case { seed, runs: RUNS[(seed % kinds) as usize].0 };
    let outcomes = each((0..bounds.seeds).map(case).collect(), 4, interleaved).await;
    let mut defects = defects(&outcomes);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (runs, name) in &RUNS {
        let own: Vec<_> = outcomes.iter().filter(|(case, _)| case.runs == *runs).collect();
        let came: Vec<&Came> =
            own.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).collect();
        let sum = |of: &dyn Fn(&Came) -> usize| came.iter().map(|came| of(came)).sum::<usize>();
        let (writes, green, restored) =
            (sum(&|came| came.writes), sum(&|came| came.green), sum(&|came| came.restored));
        // What never happens shows nothing.
        let shows = if *runs == Runs::Restore { restored > 0 } else { green > 0 };
        if writes == 0 || !shows {
            defects.push(format!(
                "{name}: nothing is shown by {writes} writes, {green} green runs, {restored} restores"
            ));
        }
        let red = sum(&|came| came.red);
        let numbers = [own.len(), writes, green, red, restored, own.len() - came.len()];
        let mut row = vec![(*name).to_owned()];
        row.extend(numbers.map(|number| number.to_string()));
        rows.push(row);
    }
    let head = [
        "beside the writer",
        "interleavings",
        "writes between",
        "runs green",
        "red",
        "of them restored",
        "lost or untrue",
    ];
    let text = format!(
        "A writer like Terraform changes a state just before a request of the run, with the old \
         backend.tf or with the new one: seeds 0 to {}. No serial may be lost or come back, no copy of \
         `apply` may take a state off the key, and the report's version and serial must be those of an \
         object that was the current one at the time that it names. After five attempts a run gives way \
         (`concurrent-writes`); the runs that cannot read what they write all end red. No lock may be left.\n\n{}",
        bounds.seeds - 1,
        table(&head, &rows)
    );
    Ok(Part { title: "Races", text, defects })
}
