//! What is there: each state as this principal finds it.
//!
//! Only looks. A state is read to its end, since «readable» is a promise that only a
//! read can keep, and since its hash is what a re-key is later compared with.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;

use crate::aws::{AwsError, Bucket, Budget, Download, Held, Hold, Keys, Kind, Seen, ServerSide};
use crate::layout::{Layout, Pattern};
use crate::names::{may_be_state, printable};

/// Objects looked at at the same time.
const PARALLEL: usize = 64;
/// How often an object is read whose tags are another one's.
const LOOKS: u32 = 3;

/// All states of the environment.
#[derive(Debug)]
pub struct Survey {
    /// In the order of the layout; those below prefixes follow, by key.
    pub states: Vec<State>,
    /// Who manages the keys that objects are under, the target key apart.
    pub managers: BTreeMap<String, Manager>,
    /// Patterns that match no state.
    pub unmatched: Vec<Pattern>,
}

/// One state object.
#[derive(Debug, Clone)]
pub struct State {
    /// Its module, where one is known.
    pub module: Option<String>,
    /// Its object key.
    pub key: String,
    /// What was found there.
    pub found: Found,
}

/// What a look at an object key found.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing, or a delete marker on top of older versions.
    Absent {
        /// A delete marker hides older versions.
        deleted: bool,
    },
    /// It was read to its end.
    Readable(Box<Readable>),
    /// Its headers can be seen, its body cannot be read.
    Unreadable {
        /// The headers.
        seen: Box<Seen>,
        /// Why not.
        error: AwsError,
    },
    /// It is under a key that only its writer has (SSE-C).
    CustomerKey,
    /// S3 refuses even the headers. Without s3:ListBucket, that is also the answer for
    /// an object that is not there.
    Refused(AwsError),
    /// The look itself failed.
    Failed(AwsError),
}

/// A state that was read.
#[derive(Debug, Clone)]
pub struct Readable {
    /// Its headers.
    pub seen: Seen,
    /// SHA-256 of its body.
    pub sha256: [u8; 32],
    /// When S3 answered, RFC 3339 in UTC.
    pub read_at: String,
    /// What Terraform says of it, where its body is a plain state document.
    pub document: Option<Document>,
    /// Its tags, where it has any that this principal may see.
    pub tags: BTreeMap<String, String>,
    /// Its body, kept for a restore.
    pub body: Option<Body>,
    /// Its body is that of an UpdateObjectEncryption request: a server that does not know
    /// the operation has taken it for a PutObject.
    pub is_update_request: bool,
}

/// A held state. It cannot be printed.
#[derive(Clone)]
pub struct Body(pub Held);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body(not shown)")
    }
}

/// The head of a Terraform state document (Terraform: `internal/states/statefile`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Identifies the state through its whole life.
    pub lineage: String,
    /// Grows with every write.
    pub serial: u64,
}

impl Document {
    /// Reads the head of a state; `None` for anything else, such as a state under
    /// OpenTofu's client-side encryption.
    ///
    /// The parser's error would quote the state, so there is none.
    pub fn parse(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head {
            lineage: String,
            serial: u64,
        }
        let head: Head = serde_json::from_slice(body).ok()?;
        Some(Self { lineage: printable(&head.lineage), serial: head.serial })
    }
}

/// Who manages a KMS key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// Customer-managed: reading needs a grant.
    Customer,
    /// AWS-managed, such as aws/s3: whoever may use S3 in the account may use it.
    Aws,
    /// KMS does not say; to be treated like the customer's.
    Unknown,
}

impl Survey {
    /// Looks at every state of the layout. Bodies of objects that `wanted` says are to
    /// be changed are held for a restore, as far as the budget goes.
    ///
    /// # Errors
    /// A listing that failed: then nobody knows what else there is.
    pub async fn take(
        bucket: &Bucket,
        layout: &Layout,
        budget: &Budget,
        wanted: impl Fn(&ServerSide) -> bool,
    ) -> Result<Self, AwsError> {
        let wanted = &wanted;
        let look_at = |keys: Vec<(Option<String>, String)>| async move {
            stream::iter(keys)
                .map(|(module, key)| async move {
                    let found = look(bucket, &key, budget, wanted).await;
                    State { module, key, found }
                })
                .buffered(PARALLEL)
                .collect::<Vec<_>>()
                .await
        };
        let named: Vec<(Option<String>, String)> = layout
            .keys()
            .map(|(module, key)| (module.map(str::to_owned), key.to_owned()))
            .collect();
        let mut known: BTreeSet<String> = named.iter().map(|(_, key)| key.clone()).collect();
        // The workspace `default` need not have a state, and no listing of the others names it.
        let optional: Vec<(Option<String>, String)> = layout
            .patterns
            .iter()
            .filter_map(|p| Some((p.module().map(str::to_owned), p.default_key()?.to_owned())))
            .filter(|(_, key)| known.insert(key.clone()))
            .collect();
        let prefixes: BTreeSet<&str> = layout.patterns.iter().map(Pattern::prefix).collect();
        let listings = join_all(prefixes.into_iter().map(|prefix| bucket.list(prefix)));
        let (mut states, optional, listings) =
            tokio::join!(look_at(named), look_at(optional), listings);
        let is_missing = |state: &State| matches!(state.found, Found::Absent { deleted: false });
        states.extend(optional.into_iter().filter(|state| !is_missing(state)));
        let listed = matching(&layout.patterns, listings)?;
        let unmatched = unmatched(&layout.patterns, &states, &listed);
        let more = listed
            .into_iter()
            .filter(|(key, _)| !known.contains(key))
            .map(|(key, module)| (module, key))
            .collect();
        states.extend(look_at(more).await);
        Ok(Self { states, managers: BTreeMap::new(), unmatched })
    }

    /// The states' object keys.
    pub fn keys(&self) -> Vec<String> {
        self.states.iter().map(|state| state.key.clone()).collect()
    }

    /// The states that Object Lock keeps, and by what.
    pub fn locked(&self) -> Vec<(String, String)> {
        let locked = self.states.iter().filter_map(|state| {
            let by = state.found.seen()?.attributes.locked_by()?;
            Some((state.key.clone(), by))
        });
        locked.collect()
    }

    /// Asks KMS about every key that an object is under, but for the target key.
    pub async fn ask_for_managers(&mut self, keys: &Keys, target: Option<&str>) {
        let ids = self
            .states
            .iter()
            .filter_map(|state| state.found.seen())
            .filter_map(|seen| seen.server_side.kms_key())
            .filter(|id| Some(*id) != target)
            .map(str::to_owned);
        self.managers = managers(keys, ids.collect()).await;
    }

    /// Who manages a key; the target key is the customer's.
    pub fn manager(&self, key: &str) -> Manager {
        self.managers.get(key).copied().unwrap_or(Manager::Customer)
    }
}

/// The listed objects that a pattern matches, each with its module.
fn matching(
    patterns: &[Pattern],
    listings: Vec<Result<Vec<String>, AwsError>>,
) -> Result<BTreeMap<String, Option<String>>, AwsError> {
    let mut found = BTreeMap::new();
    for key in listings.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        if !may_be_state(&key) {
            continue;
        }
        let mut matching = patterns.iter().filter(|pattern| pattern.matches(&key)).peekable();
        if matching.peek().is_some() {
            let module = matching.find_map(Pattern::module).map(str::to_owned);
            found.insert(key, module);
        }
    }
    Ok(found)
}

/// The patterns that match neither a listed object nor a default workspace's state.
fn unmatched(
    patterns: &[Pattern],
    states: &[State],
    listed: &BTreeMap<String, Option<String>>,
) -> Vec<Pattern> {
    let is_there = |key: &str| {
        let of_key = |state: &&State| state.key == key;
        states.iter().filter(of_key).any(|state| !matches!(state.found, Found::Absent { .. }))
    };
    let matched = |pattern: &&Pattern| {
        listed.keys().any(|key| pattern.matches(key)) || pattern.default_key().is_some_and(is_there)
    };
    patterns.iter().filter(|pattern| !matched(pattern)).cloned().collect()
}

/// Asks KMS who manages these keys.
pub async fn managers(keys: &Keys, ids: BTreeSet<String>) -> BTreeMap<String, Manager> {
    let answers = join_all(ids.into_iter().map(|id| async move {
        let manager = match keys.describe(&id).await {
            Ok(key) if key.aws_managed => Manager::Aws,
            Ok(_) => Manager::Customer,
            Err(_) => Manager::Unknown,
        };
        (id, manager)
    }));
    answers.await.into_iter().collect()
}

impl Found {
    /// The headers, where there is an object whose headers may be seen.
    pub fn seen(&self) -> Option<&Seen> {
        match self {
            Self::Readable(readable) => Some(&readable.seen),
            Self::Unreadable { seen, .. } => Some(seen),
            _ => None,
        }
    }

    /// The error of an object that could not be looked at at all.
    pub fn error(&self) -> Option<&AwsError> {
        match self {
            Self::Unreadable { error, .. } | Self::Refused(error) | Self::Failed(error) => {
                Some(error)
            }
            _ => None,
        }
    }
}

impl Readable {
    fn new(download: Download, tags: BTreeMap<String, String>, keep: bool) -> Self {
        let Download { seen, sha256, read_at, beginning, body } = download;
        let document = body.as_ref().and_then(|held| Document::parse(&held.bytes));
        let text = String::from_utf8_lossy(&beginning);
        let is_update_request = text.starts_with('<') && text.contains("<ObjectEncryption");
        let body = body.filter(|_| keep).map(Body);
        Self { seen, sha256, read_at, document, tags, body, is_update_request }
    }
}

/// Looks at one object key: a GET, and where that is refused a HEAD, which needs no KMS.
pub async fn look(
    bucket: &Bucket,
    key: &str,
    budget: &Budget,
    wanted: impl Fn(&ServerSide) -> bool,
) -> Found {
    read(bucket, key, None, budget, wanted).await
}

/// The same, only if the object still has this ETag; otherwise
/// [`Kind::ConditionFailed`] in [`Found::Failed`].
pub async fn read(
    bucket: &Bucket,
    key: &str,
    if_match: Option<&str>,
    budget: &Budget,
    wanted: impl Fn(&ServerSide) -> bool,
) -> Found {
    let mut looks = 0;
    let error = loop {
        looks += 1;
        match bucket.get(key, if_match, Hold::IfRoom, budget).await {
            Ok(download) => {
                let count = download.seen.attributes.tag_count as usize;
                let tags = match count {
                    0 => Ok(BTreeMap::new()),
                    _ => bucket.tags(key).await,
                };
                match tags {
                    // They are of the object that was there a moment later: another one.
                    Ok(tags) if tags.len() != count && looks < LOOKS => {}
                    Ok(tags) => {
                        let keep = wanted(&download.seen.server_side);
                        return Found::Readable(Box::new(Readable::new(download, tags, keep)));
                    }
                    Err(error) => return Found::Failed(error),
                }
            }
            Err(error) => break error,
        }
    };
    match error.kind {
        Kind::NotFound => Found::Absent { deleted: error.delete_marker },
        Kind::Denied
        | Kind::Archived
        | Kind::KeyDisabled
        | Kind::KeyState
        | Kind::KeyNotFound
        | Kind::Invalid => {
            match bucket.head(key).await {
                Ok(seen) => Found::Unreadable { seen: Box::new(seen), error },
                Err(head) if head.kind == Kind::NotFound => {
                    Found::Absent { deleted: head.delete_marker }
                }
                // GET and HEAD both 400: the customer's key is not in the request.
                Err(head) if error.kind == Kind::Invalid && head.kind == Kind::Invalid => {
                    Found::CustomerKey
                }
                Err(_) if error.kind == Kind::Denied => Found::Refused(error),
                Err(_) => Found::Failed(error),
            }
        }
        _ => Found::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_head_of_a_state_is_read() {
        let body =
            br#"{"version":4,"serial":7,"lineage":"a-b","outputs":{"x":{"value":"secret"}}}"#;
        assert_eq!(Document::parse(body), Some(Document { lineage: "a-b".into(), serial: 7 }));
        for other in [&b""[..], b"{}", b"[]", b"not json", br#"{"serial":"secret","lineage":1}"#] {
            assert_eq!(Document::parse(other), None);
        }
    }
}
