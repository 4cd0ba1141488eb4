//! The modes that change a key: what there is before, and what must hold after them.

use anyhow::{Context, Result, ensure};
use aws_lab::{Encryption, World};
use tfstate_kms::key_policy;

use super::way::{Way, With};
use crate::common::bench::{Bench, put_all_under_the_key};
use crate::common::{BUCKET, KEYS, Ran, state};

/// Whose use of the key is granted, or taken back.
pub const PRINCIPAL: &str = "arn:aws:iam::222222222222:role/cicd";
const ALIAS: &str = "alias/next";

/// Keys of its owner's own.
fn own_keys(world: &World) -> usize {
    world.keys().filter(|key| !key.aws_managed).count()
}

/// What a key mode is given, by the administrator of the state account.
pub fn variables(bench: &Bench, mode: &str) -> Vec<(String, String)> {
    let id = bench.key.rsplit('/').next().unwrap_or_default();
    let principals = ("INPUT_DEPLOY-PRINCIPALS", PRINCIPAL);
    let target = [("INPUT_TARGET-KEY", bench.key.as_str()), ("INPUT_CONFIRM", id), principals];
    let create = [("INPUT_ALIAS", ALIAS), ("INPUT_CONFIRM", "create"), principals];
    let more = if mode == "create-key" { create } else { target };
    bench.job_variables("key-admin", mode, "", &more)
}

impl Way {
    /// It changes a key, and no state.
    pub fn is_of_a_key(self) -> bool {
        self.mode.ends_with("-key") || self.mode == "revoke"
    }

    /// The states are under the key all the time.
    fn keyed(self) -> bool {
        ["recover-key", "revoke"].contains(&self.mode) || self.with == With::Needed
    }

    /// The key, and the states with it, as they are before.
    pub fn arrange_key(self, world: &mut World) {
        if self.keyed() {
            put_all_under_the_key(world, SERIAL);
        }
        if self.mode == "recover-key" {
            let key = world.state_key_arn().to_owned();
            let key = world.key_mut(&key);
            (key.state, key.deletion) = ("PendingDeletion".into(), Some(4_000_000_000));
        }
    }

    /// The key is as wanted.
    pub fn key_done(self, bench: &Bench) -> bool {
        let world = bench.lab.world();
        let key = world.keys().find(|key| key.arn == bench.key);
        let made = world.keys().find(|key| Some(&*key.arn) == world.alias(ALIAS));
        match self.mode {
            "create-key" => {
                made.is_some_and(|key| key.rotation && key.policy.to_string().contains(PRINCIPAL))
            }
            "retire-key" => key.is_some_and(|key| key.state == "PendingDeletion"),
            "recover-key" => key.is_some_and(|key| key.state == "Enabled"),
            _ => key.is_some_and(|key| !key.policy.to_string().contains(PRINCIPAL)),
        }
    }

    /// No key is gone, none is there twice, none is taken from those who need it; no state was
    /// touched.
    pub fn key_intact(self, bench: &Bench) -> Result<()> {
        let world = bench.lab.world();
        let most = if self.mode == "create-key" { 2 } else { 1 };
        let keys = own_keys(&world);
        ensure!(keys <= most, "there are {keys} keys");
        let key = world.keys().find(|key| key.arn == bench.key).context("the key is gone")?;
        let states: &[&str] = match (self.mode, self.with) {
            ("retire-key", With::Needed) => &["Enabled"],
            ("retire-key", _) => &["Enabled", "Disabled", "PendingDeletion"],
            ("recover-key", _) => &["PendingDeletion", "Disabled", "Enabled"],
            _ => &["Enabled"],
        };
        ensure!(states.contains(&&*key.state), "the key is {}", key.state);
        let administrators = key_policy::administrators(&key.policy);
        let root = administrators.iter().any(|arn| arn.ends_with(":root"));
        ensure!(root, "nobody administers the key: {administrators:?}");
        for (at, name) in KEYS.iter().enumerate() {
            let current = world.current(BUCKET, name).context("a state is gone")?;
            let (serial, encryption) = match self.keyed() {
                true => (SERIAL, Encryption::Kms { key: bench.key.clone() }),
                false => (7 + at as u64, Encryption::SseS3),
            };
            ensure!(current.body == state(serial), "`{name}` has other bytes");
            ensure!(current.encryption == encryption, "`{name}` is under {:?}", current.encryption);
        }
        Ok(())
    }

    /// All that an undisturbed run comes to.
    pub fn key_converged(self, bench: &Bench, ran: &Ran) -> Result<()> {
        self.key_intact(bench)?;
        let reason = ran.output("failure-reason");
        if self.with == With::Needed {
            ensure!(reason == "key-in-use", "the next run ended otherwise: {reason}\n{}", ran.log);
            return Ok(());
        }
        ensure!(ran.code == 0, "the next run failed: {reason}\n{}", ran.log);
        ensure!(self.key_done(bench), "the next run left the key as it was\n{}", ran.log);
        Ok(())
    }
}

/// Of the states that are under the key.
const SERIAL: u64 = 7;
