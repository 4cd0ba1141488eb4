//! Old versions that stay readable without the key: counted, and re-keyed in place where
//! that is asked for and AWS allows it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, StreamExt};

use crate::aws::{AwsError, Bucket, Budget, OldVersion, ServerSide, WriteAs};
use crate::check::{Check, CheckId, Status};
use crate::names::{printable, some_of};
use crate::rekey::{Outcome, Rekey};
use crate::survey::{self, Found};

/// Versions looked at at the same time.
const PARALLEL: usize = 64;
/// More noncurrent versions of one state than this are not looked at one by one.
const LIMIT: usize = 2_000;

/// A noncurrent version that can be read without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// The state.
    pub key: String,
    /// The version.
    pub version: OldVersion,
}

/// What was found among the old versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Readable without a customer-managed key.
    pub exposed: Vec<Exposed>,
    /// Under other KMS keys than the wanted one: which state and version, by key.
    pub other_keys: BTreeMap<String, Vec<(String, String)>>,
    /// All that were looked at.
    pub seen: usize,
    /// Why the look is not complete.
    pub incomplete: Option<String>,
}

/// The old versions of each state, as listed.
pub type Listed = Vec<(String, Result<Vec<OldVersion>, AwsError>)>;

/// Lists the noncurrent versions of the states.
pub async fn list(bucket: &Bucket, states: &[String]) -> Listed {
    stream::iter(states.to_vec())
        .map(|key| async move {
            let versions = bucket.old_versions(&key).await;
            (key, versions)
        })
        .buffered(PARALLEL)
        .collect()
        .await
}

/// Looks at the encryption of each (s3:GetObjectVersion).
pub async fn look(bucket: &Bucket, listed: Listed, target: &str) -> History {
    let mut history = History::default();
    let mut todo = Vec::new();
    for (key, versions) in listed {
        match versions {
            Ok(mut versions) => {
                if versions.len() > LIMIT {
                    let all = versions.len();
                    history.incomplete = Some(format!(
                        "`{key}` has {all} old versions; the newest {LIMIT} were looked at"
                    ));
                    versions.truncate(LIMIT);
                }
                todo.extend(versions.into_iter().map(|version| (key.clone(), version)));
            }
            Err(error) => history.incomplete = Some(needs(error.operation, &error)),
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
            Ok(head) => history.add(key, version, &head.server_side, target),
            Err(error) => {
                history.incomplete = Some(needs("s3:GetObjectVersion", &error));
            }
        }
    }
    history
}

fn needs(action: &str, error: &AwsError) -> String {
    format!("needs {action} ({})", error.code.as_deref().unwrap_or("refused"))
}

impl History {
    /// Counts a version that this run has just replaced, or that was looked at.
    pub fn add(&mut self, key: String, version: OldVersion, encryption: &ServerSide, target: &str) {
        self.seen += 1;
        match encryption {
            ServerSide::Kms(id) | ServerSide::Dsse(id) if id == target => {}
            ServerSide::Kms(id) | ServerSide::Dsse(id) => {
                self.other_keys.entry(id.clone()).or_default().push((key, version.id));
            }
            // Its key is with its writer.
            ServerSide::Customer => {}
            ServerSide::None | ServerSide::S3 | ServerSide::Other(_) => {
                self.exposed.push(Exposed { key, version });
            }
        }
    }

    /// The check, with the lifecycle rule that ages the exposed versions out.
    pub fn check(&self, states: &[String]) -> Check {
        let id = CheckId::History;
        let mut evidence = match self.exposed.len() {
            0 => format!("none of {} old versions is readable without a KMS key", self.seen),
            n => {
                let mut dates: Vec<&str> =
                    self.exposed.iter().filter_map(|e| e.version.written_at.as_deref()).collect();
                dates.sort_unstable();
                let span = match (dates.first(), dates.last()) {
                    (Some(first), Some(last)) => format!(", written {first} to {last}"),
                    _ => String::new(),
                };
                format!("{n} of {} old versions are readable without the key{span}", self.seen)
            }
        };
        for (key, versions) in &self.other_keys {
            let named = versions
                .iter()
                .map(|(state, version)| format!("{} ({})", printable(state), printable(version)));
            let (count, key, named) = (versions.len(), printable(key), some_of(named, 10, ", "));
            evidence.push_str(&format!("; {count} still need the key {key}: {named}"));
        }
        if let Some(why) = &self.incomplete {
            evidence.push_str(&format!("; not all could be looked at: {why}"));
        }
        match (self.exposed.is_empty(), &self.incomplete) {
            (false, _) => Check::new(id, Status::Warn, evidence).remedy(lifecycle(states)),
            (true, Some(_)) => Check::new(id, Status::Unknown, evidence),
            (true, None) => Check::new(id, Status::Pass, evidence),
        }
    }

    /// The output `exposed-versions`; empty when not even that much is known.
    pub fn output(&self) -> String {
        match (&self.incomplete, self.exposed.len()) {
            (Some(_), 0) => String::new(),
            (_, n) => n.to_string(),
        }
    }
}

/// The rules that let old versions of the states expire, fit for
/// `aws s3api put-bucket-lifecycle-configuration`.
pub(crate) fn lifecycle(states: &[String]) -> String {
    let rules: Vec<serde_json::Value> = states
        .iter()
        .take(10)
        .map(|state| {
            serde_json::json!({
                "ID": format!("expire-old-versions-of-{state}"),
                "Status": "Enabled",
                "Filter": { "Prefix": state },
                "NoncurrentVersionExpiration": { "NoncurrentDays": 90 },
            })
        })
        .collect();
    format!(
        "Let them age out. Add these rules to the bucket's own (the call replaces all rules; a prefix also \
         meets longer keys):\naws s3api put-bucket-lifecycle-configuration --lifecycle-configuration \
         file://rules.json\n{:#}\nOr re-key them in place: `history: rekey`",
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
}

/// What a re-key of old versions came to.
#[derive(Debug, Default)]
pub struct RekeyedVersions {
    /// Versions that are under the key now and have the bytes of before.
    pub done: usize,
    /// Something was written, for better or worse.
    pub wrote: bool,
    /// What went wrong.
    pub problems: Vec<String>,
}

impl RekeyVersions<'_> {
    /// Re-keys the exposed versions in place, each compared with what it was; those that
    /// fail stay exposed. Begins no other once `stopped` says so, or one that was sent did not
    /// end well.
    pub async fn run(&self, history: &mut History, stopped: impl Fn() -> bool) -> RekeyedVersions {
        let exposed = std::mem::take(&mut history.exposed);
        let stop = AtomicBool::new(false);
        let (stop, stopped) = (&stop, &stopped);
        let results = stream::iter(exposed)
            .map(|exposed| async move {
                if stop.load(Ordering::Relaxed) || stopped() {
                    return (exposed, None);
                }
                let result = if self.careful {
                    self.carefully(&exposed).await
                } else {
                    self.version(&exposed).await
                };
                // What was sent and did not end well is not tried on others: there is no way back.
                if let Err((_, true)) = &result {
                    stop.store(true, Ordering::Relaxed);
                }
                (exposed, Some(result))
            })
            .buffered(if self.careful { 1 } else { 8 })
            .collect::<Vec<_>>()
            .await;
        let mut all = RekeyedVersions::default();
        for (exposed, result) in results {
            match result {
                Some(Ok(())) => {
                    (all.done, all.wrote) = (all.done + 1, true);
                    continue;
                }
                Some(Err((problem, wrote))) => {
                    all.wrote |= wrote;
                    let (key, version) = (&exposed.key, &exposed.version.id);
                    all.problems.push(format!("`{key}` version {version}: {problem}"));
                }
                None => {}
            }
            history.exposed.push(exposed);
        }
        all
    }

    /// The error also says whether the request was sent and perhaps carried out.
    async fn version(&self, exposed: &Exposed) -> Result<(), (String, bool)> {
        let (key, version) = (&exposed.key, &exposed.version.id);
        let unsent = |error: AwsError| (error.to_string(), false);
        let sent_in_vain = |error: AwsError| (error.to_string(), true);
        let (_, before) = self.bucket.hash_version(key, version).await.map_err(unsent)?;
        let sent = self.bucket.encrypt_in_place(key, Some(version), self.kms_key).await;
        if let Err(error) = sent
            && !error.kind.is_ambiguous()
        {
            return Err(unsent(error));
        }
        // A lost answer, too, is settled by a look.
        let (seen, after) = self.bucket.hash_version(key, version).await.map_err(sent_in_vain)?;
        if before != after {
            let why = "its bytes are not what they were: the server has overwritten it";
            return Err((why.into(), true));
        }
        match seen.server_side {
            ServerSide::Kms(id) if id == self.kms_key => Ok(()),
            other => Err((format!("it is {} afterwards", crate::plan::describe(&other)), true)),
        }
    }

    /// The same, with an eye on the current state. The error also says whether it was written.
    async fn carefully(&self, exposed: &Exposed) -> Result<(), (String, bool)> {
        let key = &exposed.key;
        let before = match survey::look(self.bucket, key, self.budget, |_| true).await {
            Found::Readable(state) if state.body.is_some() && !state.is_update_request => state,
            _ => return Err(("the current state could not be held for a restore".into(), false)),
        };
        let result = self.version(exposed).await;
        let seen = self.bucket.head(key).await;
        if seen.is_ok_and(|seen| seen.etag == before.seen.etag) {
            return result;
        }
        let write = WriteAs::Kms(self.kms_key.to_owned());
        let in_place = AtomicBool::new(false);
        let rekey = Rekey { bucket: self.bucket, budget: self.budget, in_place };
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
                    Outcome::Restored(_) | Outcome::Rekeyed(_) => "it was restored and read",
                    Outcome::ByAnother(_) | Outcome::Superseded(..) => {
                        "another writer has written it anew"
                    }
                    _ => "IT COULD NOT BE RESTORED: its newest old version holds it",
                };
                let why = "the server does not know UpdateObjectEncryption and has overwritten the \
                           current state with the request";
                Err((format!("{why}; {now}"), true))
            }
        }
    }
}
