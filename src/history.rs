//! Old versions that stay readable without the key: counted, and re-keyed in place where
//! that is asked for and AWS allows it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, StreamExt};

use crate::aws::{
    AwsError, Bucket, Budget, Keys, Kind, OldVersion, Seen, ServerSide, Versions, WriteAs,
};
use crate::check::{Check, CheckId, Status};
use crate::names::{printable, some_of};
use crate::rekey::{Outcome, Rekey};
use crate::survey::{self, Found, Manager};

/// Versions looked at at the same time.
const PARALLEL: usize = 64;
/// More noncurrent versions of one state than this are not looked at one by one.
const LIMIT: usize = 2_000;

/// A noncurrent version of a state, as it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    /// The state.
    pub key: String,
    /// The version.
    pub version: OldVersion,
    /// Its encryption.
    pub encryption: ServerSide,
}

impl Old {
    /// Whether S3 re-encrypts it in place: SSE-S3 and SSE-KMS only; unencrypted versions and
    /// those under DSSE are refused (S3 API Reference, UpdateObjectEncryption).
    pub fn can_go(&self) -> bool {
        matches!(self.encryption, ServerSide::S3 | ServerSide::Kms(_))
    }
}

/// What was found among the old versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    versions: Vec<Old>,
    /// The wanted key's ARN.
    target: String,
    /// Who manages the other keys that versions are under.
    managers: BTreeMap<String, Manager>,
    /// Why the look is not complete, by state.
    incomplete: BTreeMap<String, String>,
    /// How many of the versions S3 says a replication status of.
    replicated: usize,
}

/// The versions of each state, as listed.
pub type Listed = Vec<(String, Result<Versions, AwsError>)>;

/// Lists the versions of the states.
pub async fn list(bucket: &Bucket, states: &[String]) -> Listed {
    stream::iter(states.to_vec())
        .map(|key| async move {
            let versions = bucket.versions_of(&key).await;
            (key, versions)
        })
        .buffered(PARALLEL)
        .collect()
        .await
}

/// Looks at the encryption of each (s3:GetObjectVersion).
pub async fn look(bucket: &Bucket, listed: Listed, target: &str) -> History {
    let mut history = History { target: target.to_owned(), ..Default::default() };
    let mut todo = Vec::new();
    for (key, versions) in listed {
        match versions {
            Ok(Versions { old: mut versions, .. }) => {
                if versions.len() > LIMIT {
                    let all = versions.len();
                    let why = format!(
                        "`{}` has {all} old versions; the newest {LIMIT} were looked at",
                        printable(&key)
                    );
                    history.incomplete.insert(key.clone(), why);
                    versions.truncate(LIMIT);
                }
                todo.extend(versions.into_iter().map(|version| (key.clone(), version)));
            }
            Err(error) => {
                history.incomplete.insert(key, error.lack());
            }
        }
    }
    let seen = stream::iter(todo)
        .map(|(key, version)| async move {
            let head = bucket.head_version(&key, &version.id).await;
            (key, version, head)
        })
        .buffered(PARALLEL)
        .collect::<Vec<_>>()
        .await;
    for (key, version, head) in seen {
        match head {
            Ok(head) => {
                history.replicated += usize::from(head.replication.is_some());
                history.add(Old { key, version, encryption: head.server_side });
            }
            // It was there when it was listed: a lifecycle rule has ended it since.
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => {
                history
                    .incomplete
                    .insert(key, AwsError { operation: "s3:GetObjectVersion", ..error }.lack());
            }
        }
    }
    history
}

impl History {
    /// Adds a version that this run has just replaced.
    pub fn add(&mut self, old: Old) {
        self.versions.push(old);
    }

    /// The wanted key's ARN.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Takes in what a later look at these states has shown.
    pub fn replace(&mut self, states: &[String], later: Self) {
        self.versions.retain(|old| !states.contains(&old.key));
        self.incomplete.retain(|key, _| !states.contains(key));
        self.versions.extend(later.versions);
        self.incomplete.extend(later.incomplete);
        self.managers.extend(later.managers);
    }

    /// These states may have old versions that nobody has looked at.
    pub fn unseen(&mut self, states: &[String], why: &str) {
        self.incomplete.extend(states.iter().map(|key| (key.clone(), why.to_owned())));
    }

    /// Asks KMS who manages the other keys that versions are under, but for those that are
    /// known.
    pub async fn ask_for_managers(&mut self, keys: &Keys, known: BTreeMap<String, Manager>) {
        self.managers = known;
        let ids = self.versions.iter().filter_map(|old| old.encryption.kms_key());
        let unknown = ids
            .filter(|id| *id != self.target && !self.managers.contains_key(*id))
            .map(str::to_owned)
            .collect();
        self.managers.extend(survey::managers(keys, unknown).await);
    }

    /// The newest noncurrent version of a state that does not need the wanted key, of those that
    /// were listed before this run wrote anything.
    pub fn way_back(&self, state: &str) -> Option<&Old> {
        let own = self.versions.iter().filter(|old| old.key == state);
        let mut readable = own.filter(|old| old.encryption.kms_key() != Some(&self.target));
        // S3 lists a state's versions from the newest to the oldest (S3 API Reference,
        // ListObjectVersions). Two can have the same second, so their order tells, and not the time.
        readable.next()
    }

    /// Who manages the keys that were asked about.
    pub fn managers(&self) -> &BTreeMap<String, Manager> {
        &self.managers
    }

    fn gone(&mut self, old: &Old) {
        self.versions.retain(|other| other != old);
    }

    fn rekeyed(&mut self, done: &Old) {
        let target = ServerSide::Kms(self.target.clone());
        for old in self.versions.iter_mut().filter(|old| *old == done) {
            old.encryption = target.clone();
        }
    }

    /// Whether a version can be read without a grant on a customer-managed key: aws/s3 lets
    /// everybody use it who may use S3 in the account.
    fn is_exposed(&self, old: &Old) -> bool {
        match &old.encryption {
            ServerSide::Kms(id) | ServerSide::Dsse(id) => {
                *id != self.target && self.managers.get(id) == Some(&Manager::Aws)
            }
            // Its key is with its writer.
            ServerSide::Customer => false,
            ServerSide::None | ServerSide::S3 | ServerSide::Other(_) => true,
        }
    }

    /// Those that can be read without the key.
    pub fn exposed(&self) -> impl Iterator<Item = &Old> {
        self.versions.iter().filter(|old| self.is_exposed(old))
    }

    /// Versions that other keys of the customer's are still needed for, by key.
    fn other_keys(&self) -> BTreeMap<&str, Vec<&Old>> {
        let mut others = BTreeMap::<&str, Vec<&Old>>::new();
        for old in self.versions.iter().filter(|old| !self.is_exposed(old)) {
            if let Some(id) = old.encryption.kms_key().filter(|id| *id != self.target) {
                others.entry(id).or_default().push(old);
            }
        }
        others
    }

    /// Why not all is known.
    fn gaps(&self) -> Vec<String> {
        let mut gaps: Vec<String> = self.incomplete.values().cloned().collect();
        gaps.sort_unstable();
        gaps.dedup();
        let unknown = self
            .other_keys()
            .into_keys()
            .filter(|id| self.managers.get(*id).is_none_or(|manager| *manager == Manager::Unknown));
        gaps.extend(unknown.map(|id| {
            format!("whether {} is customer-managed (needs kms:DescribeKey on it)", printable(id))
        }));
        gaps
    }

    /// How many of the versions that were first looked at S3 says a replication status of.
    pub fn replicated(&self) -> usize {
        self.replicated
    }

    /// The bucket has never had versioning, so there was nothing to be listed.
    pub fn never_versioned(&mut self) {
        self.incomplete.clear();
    }

    /// The check, with the lifecycle rule that ages the exposed versions out. `versioned`: whether
    /// the bucket's versioning is on, where that is known.
    pub fn check(&self, bucket: &str, states: &[String], versioned: Option<bool>) -> Check {
        let id = CheckId::History;
        let all = self.versions.len();
        let exposed = self.exposed().count();
        let mut evidence = match exposed {
            0 if all == 0 && self.incomplete.is_empty() && versioned == Some(false) => {
                "there are no noncurrent versions: versioning is off".to_owned()
            }
            0 if all == 0 && self.incomplete.is_empty() => {
                "there are no noncurrent versions".to_owned()
            }
            0 if all == 0 => "noncurrent versions were not looked at".to_owned(),
            0 => format!("none of {all} noncurrent versions is readable without a KMS key"),
            n => {
                let dates = || self.exposed().filter_map(|old| old.version.written_at);
                let span = match (dates().min(), dates().max()) {
                    (Some(first), Some(last)) => format!(", written {first} to {last}"),
                    _ => String::new(),
                };
                // What has no date may be older or newer than that.
                let span = match n - dates().count() {
                    0 => span,
                    dateless => format!("{span} ({dateless} of unknown date)"),
                };
                format!("{n} of {all} noncurrent versions are readable without the key{span}")
            }
        };
        let by_aws = self.exposed().filter(|old| old.encryption.kms_key().is_some()).count();
        if by_aws > 0 {
            evidence.push_str(&format!(
                "; {by_aws} of these are under a key that AWS manages, which whoever may use S3 in its account \
                 may use"
            ));
        }
        for (key, versions) in self.other_keys() {
            let named = versions
                .iter()
                .map(|old| format!("{} ({})", printable(&old.key), printable(&old.version.id)));
            let (count, key, named) = (versions.len(), printable(key), some_of(named, 10, ", "));
            evidence.push_str(&format!("; {count} still need the key {key}: {named}"));
        }
        let gaps = self.gaps();
        let complete = gaps.is_empty();
        if !complete {
            evidence.push_str(&format!("; not all is known: {}", some_of(gaps, 5, "; ")));
        }
        match (exposed, complete) {
            (1.., _) => Check::new(id, Status::Warn, evidence).remedy(lifecycle(bucket, states)),
            (0, false) => Check::new(id, Status::Unknown, evidence),
            (0, true) => Check::new(id, Status::Pass, evidence),
        }
    }

    /// The output `exposed-versions`; empty when some could not be looked at, of which this run
    /// may have made one itself: the next run would count differently.
    pub fn output(&self) -> String {
        match self.gaps().is_empty() {
            true => self.exposed().count().to_string(),
            false => String::new(),
        }
    }

    /// All versions were looked at, and none is readable without the key.
    pub fn is_closed(&self) -> bool {
        self.gaps().is_empty() && self.exposed().next().is_none()
    }
}

/// The rules that let old versions of the states expire, fit for
/// `aws s3api put-bucket-lifecycle-configuration`.
pub(crate) fn lifecycle(bucket: &str, states: &[String]) -> String {
    const SHOWN: usize = 10;
    let rules: Vec<serde_json::Value> = states
        .iter()
        .take(SHOWN)
        .map(|state| {
            serde_json::json!({
                "ID": format!("expire-old-versions-of-{state}"),
                "Status": "Enabled",
                "Filter": { "Prefix": state },
                "NoncurrentVersionExpiration": { "NoncurrentDays": 90 },
            })
        })
        .collect();
    let rest = match states.len() {
        all if all > SHOWN => {
            format!("; they are of the first {SHOWN} of {all} states, and one is needed for each")
        }
        _ => String::new(),
    };
    format!(
        "Let them age out. Add these rules to the bucket's own (the call replaces all rules; a prefix also meets \
         longer keys{rest}):\naws s3api put-bucket-lifecycle-configuration --bucket {bucket} \
         --lifecycle-configuration file://rules.json\n{:#}\nOr re-key them in place: `history: rekey`",
        serde_json::json!({ "Rules": rules })
    )
}

/// What a re-key of old versions works with.
#[derive(Debug)]
pub struct RekeyVersions<'a> {
    /// The state bucket.
    pub bucket: &'a Bucket,
    /// Bounds the bytes that are held for a restore.
    pub budget: &'a Budget,
    /// The target key's ARN.
    pub kms_key: &'a str,
    /// The endpoint is not AWS's own, so it may take the operation for an overwrite of the
    /// current state: one version at a time, the state looked at before and after.
    pub careful: bool,
    /// The bucket keeps every version from now on (versioning is on, not suspended).
    pub versioned: bool,
}

/// What a re-key of old versions came to.
#[derive(Debug, Default)]
pub struct RekeyedVersions {
    /// Versions that are under the key now and have the bytes of before.
    pub done: usize,
    /// Something was written, for better or worse.
    pub wrote: bool,
    /// Archived versions that S3 does not re-encrypt.
    pub archived: Vec<String>,
    /// What went wrong.
    pub problems: Vec<String>,
}

/// What became of an old version.
enum Rekeyed {
    /// It is under the key.
    Yes,
    /// It is not there any more: a lifecycle rule, or somebody, has ended it.
    Gone,
    /// It is archived, and S3 does not re-encrypt it there.
    Archived,
}

/// What shows that a version is the same as before.
struct Print {
    seen: Seen,
    /// Of its bytes; `None`: it is archived, so its headers have to do. The ETag and the size stay
    /// in place (S3 API Reference, UpdateObjectEncryption).
    sha256: Option<[u8; 32]>,
}

impl Print {
    fn is_like(&self, before: &Self) -> bool {
        match (self.sha256, before.sha256) {
            (Some(now), Some(before)) => now == before,
            _ => (&self.seen.etag, self.seen.size) == (&before.seen.etag, before.seen.size),
        }
    }
}

impl RekeyVersions<'_> {
    /// Re-keys the exposed versions in place, as far as S3 does that, each compared with what it was; those that
    /// fail stay exposed. Begins no other once `stopped` says so, or one that was sent did not
    /// end well.
    pub async fn run(&self, history: &mut History, stopped: impl Fn() -> bool) -> RekeyedVersions {
        let exposed: Vec<Old> = history.exposed().filter(|old| old.can_go()).cloned().collect();
        let stop = AtomicBool::new(false);
        let (stop, stopped) = (&stop, &stopped);
        let results = stream::iter(exposed)
            .map(|old| async move {
                if stop.load(Ordering::Relaxed) || stopped() {
                    return (old, None);
                }
                let result = if self.careful {
                    self.carefully(&old).await
                } else {
                    self.version(&old).await
                };
                // What was sent and did not end well is not tried on others: there is no way back.
                if let Err((_, true)) = &result {
                    stop.store(true, Ordering::Relaxed);
                }
                (old, Some(result))
            })
            .buffered(if self.careful { 1 } else { 8 })
            .collect::<Vec<_>>()
            .await;
        let mut all = RekeyedVersions::default();
        for (old, result) in results {
            match result {
                Some(Ok(Rekeyed::Yes)) => {
                    (all.done, all.wrote) = (all.done + 1, true);
                    history.rekeyed(&old);
                }
                Some(Ok(Rekeyed::Gone)) => history.gone(&old),
                Some(Ok(Rekeyed::Archived)) => {
                    let (key, version) = (printable(&old.key), printable(&old.version.id));
                    all.archived.push(format!("`{key}` version {version}"));
                }
                Some(Err((problem, wrote))) => {
                    all.wrote |= wrote;
                    let (key, version) = (&old.key, &old.version.id);
                    all.problems.push(format!("`{key}` version {version}: {problem}"));
                }
                None => {}
            }
        }
        all
    }

    /// The error also says whether the request was sent and perhaps carried out.
    async fn version(&self, old: &Old) -> Result<Rekeyed, (String, bool)> {
        let (key, version) = (&old.key, &old.version.id);
        let unsent = |error: AwsError| (error.to_string(), false);
        let sent_in_vain = |error: AwsError| (error.to_string(), true);
        let before = match self.print(key, version).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(Rekeyed::Gone),
            print => print.map_err(unsent)?,
        };
        let sent = self.bucket.encrypt_in_place(key, Some(version), self.kms_key).await;
        // A server that does not know the operation may answer 404 as well: the next read tells.
        match sent {
            Err(error) if error.kind == Kind::Archived => return Ok(Rekeyed::Archived),
            Err(error) if !error.kind.is_ambiguous() && error.kind != Kind::NotFound => {
                return Err(unsent(error));
            }
            _ => {}
        }
        // A lost answer, too, is settled by a look.
        let after = match self.print(key, version).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(Rekeyed::Gone),
            print => print.map_err(sent_in_vain)?,
        };
        if !after.is_like(&before) {
            let why = "its bytes are not what they were: the server has overwritten it";
            return Err((why.into(), true));
        }
        match after.seen.server_side {
            ServerSide::Kms(id) if id == self.kms_key => Ok(Rekeyed::Yes),
            other => Err((format!("it is {} afterwards", crate::plan::describe(&other)), true)),
        }
    }

    async fn print(&self, key: &str, version: &str) -> Result<Print, AwsError> {
        match self.bucket.hash_version(key, version).await {
            Err(error) if error.kind == Kind::Archived => {
                Ok(Print { seen: self.bucket.head_version(key, version).await?, sha256: None })
            }
            hashed => hashed.map(|(seen, sha256)| Print { seen, sha256: Some(sha256) }),
        }
    }

    /// The same, with an eye on the current state. The error also says whether it was written.
    async fn carefully(&self, old: &Old) -> Result<Rekeyed, (String, bool)> {
        let key = &old.key;
        let before = match survey::look(self.bucket, key, self.budget, |_| true).await {
            Found::Readable(state) if state.body.is_some() && !state.is_update_request => state,
            _ => return Err(("the current state could not be held for a restore".into(), false)),
        };
        let result = self.version(old).await;
        let seen = self.bucket.head(key).await;
        if seen.is_ok_and(|seen| seen.etag == before.seen.etag) {
            return result;
        }
        let write = WriteAs::Kms(self.kms_key.to_owned());
        let in_place = AtomicBool::new(false);
        let (bucket, budget, versioned) = (self.bucket, self.budget, self.versioned);
        let rekey = Rekey { bucket, budget, in_place, only_in_place: false, versioned };
        match rekey.undo_overwrite(key, &before, &write).await {
            // Another writer's new state.
            Ok(None) => result,
            Err(why) => {
                let what =
                    "the current state has changed and cannot be looked at: it may be overwritten";
                Err((format!("{what} ({why})"), true))
            }
            Ok(Some(outcome)) => {
                let now = match outcome {
                    Outcome::Lost { former, .. } => {
                        format!("IT COULD NOT BE RESTORED. {}", former.describe())
                    }
                    Outcome::ByAnother(_) | Outcome::Superseded(..) => {
                        "another writer has written it anew".to_owned()
                    }
                    Outcome::Vanished => "another writer has deleted it since".to_owned(),
                    Outcome::Changed(_, what) | Outcome::Restored { changed: what, .. }
                        if !what.is_empty() =>
                    {
                        format!(
                            "it was restored and read, but not with the same {}",
                            what.join(", ")
                        )
                    }
                    Outcome::Restored { .. } | Outcome::Changed(..) | Outcome::Rekeyed(_) => {
                        "it was restored and read".to_owned()
                    }
                    // An undo ends in none of these.
                    Outcome::Untouched(_) | Outcome::Ignored(_) | Outcome::Abandoned(_) => {
                        "run mode `verify` to see what is there".to_owned()
                    }
                };
                let why = "the server does not know UpdateObjectEncryption and has overwritten the \
                           current state with the request";
                Err((format!("{why}; {now}"), true))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::DateTime;
    use aws_smithy_types::date_time::Format;

    use super::*;

    fn at(text: &str) -> DateTime {
        DateTime::from_str(text, Format::DateTime).unwrap()
    }

    /// As texts, a time without a fraction comes after one with it.
    #[test]
    fn the_span_is_of_times_and_does_not_hide_what_has_none() {
        let mut history = History { target: "key".into(), ..Default::default() };
        let (first, last) = ("2026-11-24T03:35:02Z", "2026-11-24T03:35:02.5Z");
        for written_at in [Some(last), Some(first), None] {
            let version = OldVersion { id: "v".into(), written_at: written_at.map(at) };
            history.add(Old { key: "production".into(), version, encryption: ServerSide::S3 });
        }
        let check = history.check("bucket", &[], Some(true));
        let said = format!("written {first} to {last} (1 of unknown date)");
        assert!(check.evidence.contains(&said), "{}", check.evidence);
    }

    /// S3 lists versions from the newest to the oldest, and dates them to the second.
    #[test]
    fn the_way_back_is_the_newest_of_two_versions_of_one_second() {
        let target = "arn:aws:kms:us-east-1:111111111111:key/11111111-2222-4333-8444-555555555555";
        let old = |id: &str, second: &str, encryption: ServerSide| Old {
            key: "production".into(),
            version: OldVersion {
                id: id.into(),
                written_at: Some(at(&format!("2026-11-24T03:35:{second}Z"))),
            },
            encryption,
        };
        let mut history = History { target: target.into(), ..Default::default() };
        history.add(old("under-the-key", "03", ServerSide::Kms(target.into())));
        history.add(old("newer", "02", ServerSide::S3));
        history.add(old("older", "02", ServerSide::S3));
        history.add(old("oldest", "01", ServerSide::S3));
        assert_eq!(
            history.way_back("production").map(|old| old.version.id.as_str()),
            Some("newer")
        );
        assert_eq!(history.way_back("other"), None);
    }
}
