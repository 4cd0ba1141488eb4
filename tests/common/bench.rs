//! One lab, one workspace, one bucket with two states.

use aws_lab::{Effect, Encryption, Lab, Matcher, Topology, UpdateEncryption, World, cabal};

use super::{BUCKET, KEYS, Ran, Workspace, state};

/// A lab with both stacks' states in it, and a workspace.
pub struct Bench {
    pub lab: Lab,
    pub workspace: Workspace,
    pub key: String,
}

impl Bench {
    /// States under SSE-S3, deployed by a role of another account.
    pub async fn new() -> Self {
        Self::with(Topology::Roles, |_| {}).await
    }

    /// The same in another topology, arranged further before the lab starts.
    pub async fn with(topology: Topology, arrange: impl FnOnce(&mut World)) -> Self {
        let mut world = cabal(topology);
        for (at, key) in KEYS.iter().enumerate() {
            world.put_object(BUCKET, key, state(7 + at as u64), Encryption::SseS3);
        }
        arrange(&mut world);
        let key = world.state_key_arn().to_owned();
        let lab = Lab::start(world).await.unwrap();
        Self { lab, workspace: workspace(), key }
    }

    /// Runs a mode as the deploy principal, with the variable set.
    pub async fn run(&self, mode: &str, more: &[(&str, &str)]) -> Ran {
        self.run_as("deploy", mode, &self.key, more).await
    }

    /// Runs a mode with the variable empty.
    pub async fn run_unset(&self, mode: &str, more: &[(&str, &str)]) -> Ran {
        self.run_as("deploy", mode, "", more).await
    }

    /// Runs a mode as a principal of the preset.
    pub async fn run_as(&self, who: &str, mode: &str, key: &str, more: &[(&str, &str)]) -> Ran {
        let variables = self.variables(who, mode, key, more);
        // The binary is waited for on this thread; the lab answers on its own.
        tokio::task::block_in_place(|| self.workspace.run(&variables))
    }

    /// The environment of such a run.
    pub fn variables(
        &self,
        who: &str,
        mode: &str,
        key: &str,
        more: &[(&str, &str)],
    ) -> Vec<(String, String)> {
        let mut variables = super::step(&self.lab, who, mode, key);
        variables.extend(self.lab.oidc_env());
        for (name, value) in super::variables(more) {
            variables.retain(|(n, _)| *n != name);
            variables.push((name, value));
        }
        variables
    }

    /// The same, with what a job knows of GitHub where `more` does not say otherwise.
    pub fn job_variables(
        &self,
        who: &str,
        mode: &str,
        key: &str,
        more: &[(&str, &str)],
    ) -> Vec<(String, String)> {
        let mut variables = self.variables(who, mode, key, more);
        let github = self.lab.github_env();
        variables
            .extend(github.into_iter().filter(|(name, _)| more.iter().all(|(n, _)| n != name)));
        variables
    }

    /// Starts a run, interrupts it once this is so, and says how many seconds it took to end
    /// from there.
    pub fn interrupted(
        &self,
        variables: &[(String, String)],
        when: impl Fn(&Self) -> bool,
        signal: &str,
    ) -> (Ran, f64) {
        tokio::task::block_in_place(|| {
            let child = self.workspace.start(variables);
            while !when(self) {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let pid = child.id().to_string();
            let sent = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
            assert!(sent.success());
            let began = std::time::Instant::now();
            let ran = self.workspace.finish(child, variables);
            (ran, began.elapsed().as_secs_f64())
        })
    }

    /// The current encryption of a state.
    pub fn encryption(&self, key: &str) -> Encryption {
        self.lab.world().current(BUCKET, key).unwrap().encryption.clone()
    }

    /// The current body of a state.
    pub fn body(&self, key: &str) -> Vec<u8> {
        self.lab.world().current(BUCKET, key).unwrap().body.to_vec()
    }

    /// Everything in the bucket, in one value.
    pub fn digest(&self) -> String {
        self.lab.world().digest(BUCKET)
    }

    /// Asserts that no object, no version and no setting of the bucket was changed.
    pub fn assert_untouched(&self, digest: &str) {
        assert_eq!(self.digest(), digest, "the bucket was changed");
    }

    /// Changes the world just before the nth request of an operation on a state.
    pub fn before_nth(
        &self,
        operation: &str,
        key: &str,
        nth: u32,
        act: impl Fn(&mut World) + Send + Sync + 'static,
    ) {
        let matcher = Matcher::every(operation).key(key).nth(nth);
        self.lab.inject(matcher, Effect::Act(Box::new(act)));
    }

    /// Changes the state key.
    pub fn change_key(&self, change: impl FnOnce(&mut aws_lab::Key)) {
        change(self.lab.world().key_mut(&self.key));
    }

    /// The write calls since the log was cleared.
    pub fn writes(&self) -> Vec<String> {
        let log = self.lab.log();
        log.iter().filter(|entry| entry.is_write()).map(|entry| entry.operation.clone()).collect()
    }
}

/// Puts both states under the key, as a newer serial.
pub fn put_all_under_the_key(world: &mut World, serial: u64) {
    let key = world.state_key_arn().to_owned();
    for state_key in KEYS {
        let under = Encryption::Kms { key: key.clone() };
        world.put_object(BUCKET, state_key, state(serial), under);
    }
}

/// A server that takes UpdateObjectEncryption for a PutObject, conditions or not.
pub fn overwriting(world: &mut World) {
    let bucket = world.bucket_mut(BUCKET);
    bucket.update_encryption = UpdateEncryption::Overwrites;
    bucket.ignores_conditions = true;
}

/// A workspace for the binary under test.
pub fn workspace() -> Workspace {
    Workspace::new(&super::built::binary())
}
