//! Old versions that stay readable without the key: counted, and re-keyed in place where
//! that is asked for and AWS allows it.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};

use crate::aws::{AwsError, Bucket, OldVersion, ServerSide};
use crate::check::{Check, CheckId, Status};

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
    /// Under other KMS keys than the wanted one: how many, by key.
    pub other_keys: BTreeMap<String, usize>,
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
                *self.other_keys.entry(id.clone()).or_default() += 1;
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
        for (key, count) in &self.other_keys {
            evidence.push_str(&format!("; {count} still need the key {key}"));
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
fn lifecycle(states: &[String]) -> String {
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

/// Re-keys the exposed versions in place, each compared with what it was. Returns what
/// is still exposed and why.
pub async fn rekey(bucket: &Bucket, history: &mut History, kms_key: &str) -> (usize, Vec<String>) {
    let exposed = std::mem::take(&mut history.exposed);
    let results = stream::iter(exposed)
        .map(|exposed| async move {
            let result = rekey_version(bucket, &exposed, kms_key).await;
            (exposed, result)
        })
        .buffered(8)
        .collect::<Vec<_>>()
        .await;
    let (mut done, mut problems) = (0, Vec::new());
    for (exposed, result) in results {
        match result {
            Ok(()) => done += 1,
            Err(problem) => {
                problems
                    .push(format!("`{}` version {}: {problem}", exposed.key, exposed.version.id));
                history.exposed.push(exposed);
            }
        }
    }
    (done, problems)
}

async fn rekey_version(bucket: &Bucket, exposed: &Exposed, kms_key: &str) -> Result<(), String> {
    let (key, version) = (&exposed.key, &exposed.version.id);
    let text = |error: AwsError| error.to_string();
    let (_, before) = bucket.hash_version(key, version).await.map_err(text)?;
    bucket.encrypt_in_place(key, Some(version), kms_key).await.map_err(text)?;
    let (seen, after) = bucket.hash_version(key, version).await.map_err(text)?;
    if before != after {
        return Err("its bytes are not what they were: the server has overwritten it".into());
    }
    match seen.server_side {
        ServerSide::Kms(id) if id == kms_key => Ok(()),
        other => Err(format!("it is {} afterwards", crate::plan::describe(&other))),
    }
}
