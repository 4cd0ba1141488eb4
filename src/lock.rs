//! Terraform's own S3 lock (`use_lockfile`), held while states are re-keyed.
//!
//! An object beside the state, `KEY.tflock`, written with `If-None-Match: *`, that says who
//! holds it; released by GET, comparison of the id, DELETE (Terraform:
//! `internal/backend/remote-state/s3/client.go`). While this action holds it, `terraform
//! apply` says who and why; while Terraform holds it, the action waits.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};

use crate::aws::{Aws, AwsError, Bucket, Kind, WriteAs};
use crate::cancel::Cancelled;
use crate::names::{LOCK_SUFFIX, printable};

/// Locks worked on at the same time.
const PARALLEL: usize = 32;
/// Between two attempts at a lock that is held.
const PAUSE: Duration = Duration::from_secs(2);
/// Attempts at a lock that is refused and then gone, and looks at one whose writing got no answer.
const AT_ONCE: u32 = 3;
/// Between these.
const MOMENT: Duration = Duration::from_millis(200);

/// What the operation of this program's locks begins with.
const OPERATION: &str = "tfstate-kms ";

/// What a lock says of its holder (Terraform: `internal/states/statemgr/locker.go`). The order
/// and the names are those of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LockInfo {
    /// Names the lock; `terraform force-unlock` takes it.
    #[serde(rename = "ID")]
    pub id: String,
    /// What is being done.
    pub operation: String,
    /// More about it.
    pub info: String,
    /// By whom: `user@host`.
    pub who: String,
    /// The program's version.
    pub version: String,
    /// RFC 3339.
    pub created: String,
    /// `bucket/key` of the state.
    pub path: String,
}

impl LockInfo {
    /// A lock of this run.
    pub fn new(mode: &str, who: &str, run: Option<&str>, bucket: &str, key: &str) -> Self {
        let info = match run {
            Some(run) => format!("tfstate-kms changes the encryption of this state: {run}"),
            None => "tfstate-kms changes the encryption of this state".to_owned(),
        };
        // Terraform's JSON has no other escapes than these would need.
        let plain = |text: &str| printable(text).replace(['<', '>', '&', '"', '\\'], "_");
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            operation: format!("{OPERATION}{mode}"),
            info: plain(&info),
            who: plain(who),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created: crate::report::now(),
            path: format!("{bucket}/{key}"),
        }
    }

    /// The file's bytes, as Terraform writes them.
    pub fn to_bytes(&self) -> Bytes {
        // A structure of texts always serialises.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads a lock file; `None` for anything else.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// A run of this program has taken it.
    pub fn is_of_this_program(&self) -> bool {
        self.operation.starts_with(OPERATION)
    }

    /// Who holds it, in words for a log.
    pub fn holder(&self) -> String {
        let part = |name: &str, value: &str| match value {
            "" => String::new(),
            value => format!("{name} {}, ", printable(value)),
        };
        format!(
            "{}{}{}{}id {}",
            part("held by", &self.who),
            part("for", &self.operation),
            part("because", &self.info),
            part("since", &self.created),
            printable(&self.id)
        )
    }
}

/// Why a lock was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Somebody holds it, for longer than this run may wait.
    Held {
        /// The state.
        key: String,
        /// Who, and since when.
        holder: String,
        /// The lock's id.
        id: String,
    },
    /// This principal could not release it.
    NotReleasable {
        /// The state.
        key: String,
        /// The refusal.
        why: String,
    },
    /// It could not be written, or not looked at.
    Failed {
        /// The state.
        key: String,
        /// What went wrong.
        why: String,
    },
}

impl Refused {
    fn failed(key: &str, error: &AwsError) -> Self {
        Self::Failed { key: key.to_owned(), why: error.to_string() }
    }
}

/// A lock of this run.
#[derive(Debug, Clone)]
struct Held {
    bucket: Bucket,
    key: String,
    id: String,
    /// The lock object's; `None`: its writing got no answer, so it may be there, or come to be.
    etag: Option<String>,
}

/// The locks of a run, to be released on every way out.
#[derive(Debug, Default)]
pub struct Locks(Mutex<Vec<Held>>);

enum Try {
    Taken,
    Held(LockInfo),
    /// The run is cancelled.
    NotBegun,
}

impl Locks {
    /// Takes the locks of these states, all or none, waiting for holders as long as `patience`
    /// goes. Between attempts it holds none, so two runs never wait for one another. Returns
    /// whether they are taken: a cancelled run begins no other, and gives those that are being
    /// written the time to be answered.
    ///
    /// # Errors
    /// Why not: every state whose lock is held, or could not be taken, by its key.
    pub async fn take(
        &self,
        bucket: &Bucket,
        infos: &[(String, LockInfo)],
        write: &WriteAs,
        patience: Duration,
        cancelled: &Cancelled,
        waits: impl Fn(&str, &str),
    ) -> Result<bool, Vec<Refused>> {
        let began = Instant::now();
        loop {
            let results = stream::iter(infos.to_vec())
                .map(|(key, info)| async move {
                    let result = self.one(bucket, &key, &info, write, cancelled).await;
                    (key, result)
                })
                .buffer_unordered(PARALLEL)
                .collect::<Vec<_>>()
                .await;
            if cancelled.is_set() {
                return Ok(false);
            }
            let (mut held, mut failed) = (Vec::new(), Vec::new());
            for (key, result) in results {
                match result {
                    Ok(Try::Taken | Try::NotBegun) => {}
                    Ok(Try::Held(by)) => held.push((key, by)),
                    Err(refused) => failed.push((key, refused)),
                }
            }
            if held.is_empty() && failed.is_empty() {
                return Ok(true);
            }
            // What cannot be released now is tried again, and said, on the way out.
            let _ = self.release().await;
            if !failed.is_empty() {
                failed.sort_by(|(one, _), (other, _)| one.cmp(other));
                return Err(failed.into_iter().map(|(_, refused)| refused).collect());
            }
            held.sort_by(|(one, _), (other, _)| one.cmp(other));
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                let refused = held.into_iter().map(|(key, by)| Refused::Held {
                    key,
                    holder: by.holder(),
                    id: printable(&by.id),
                });
                return Err(refused.collect());
            }
            for (key, by) in &held {
                waits(key, &by.holder());
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE.min(left)) => {}
                () = cancelled.asked() => return Ok(false),
            }
        }
    }

    /// Takes a lock. One that its holder gives back between the refusal and the look at it is
    /// held by nobody, and asked for again; so is one that was written without an answer and is
    /// not there: should it come to be there after all, it is recognised by its id.
    async fn one(
        &self,
        bucket: &Bucket,
        key: &str,
        info: &LockInfo,
        write: &WriteAs,
        cancelled: &Cancelled,
    ) -> Result<Try, Refused> {
        let object = format!("{key}{LOCK_SUFFIX}");
        let mut unanswered = None;
        for attempt in 0..=AT_ONCE {
            if attempt > 0 {
                tokio::time::sleep(MOMENT).await;
            }
            let free = tokio::select! {
                free = self.is_free(bucket, key, &object, info) => free?,
                () = cancelled.asked() => return Ok(Try::NotBegun),
            };
            if let Some(tried) = free {
                return Ok(tried);
            }
            if attempt == AT_ONCE {
                break;
            }
            // Before it is written: a run that ends meanwhile has to know of it.
            self.begin(bucket, &object, info, None);
            let written = tokio::select! {
                written = bucket.put_new(&object, info.to_bytes(), write) => written,
                () = cancelled.grace_over() => return Ok(Try::NotBegun),
            };
            let error = match written {
                Ok(etag) => {
                    self.begin(bucket, &object, info, Some(etag));
                    return Ok(Try::Taken);
                }
                Err(error) => error,
            };
            let contested = matches!(error.kind, Kind::ConditionFailed | Kind::Conflict);
            if error.kind.is_ambiguous() {
                unanswered = Some(error);
                continue;
            }
            // Somebody came first, or an earlier attempt of this run has.
            if unanswered.is_none() {
                self.forget(&info.id);
            }
            if !contested {
                return Err(Refused::failed(key, &error));
            }
        }
        if let Some(error) = unanswered {
            return Err(Refused::failed(key, &error));
        }
        let who = "others, one after the other".to_owned();
        Ok(Try::Held(LockInfo { id: "(gone)".into(), who, ..LockInfo::default() }))
    }

    /// Whether a lock could be written now, and released again; otherwise how it stands.
    async fn is_free(
        &self,
        bucket: &Bucket,
        key: &str,
        object: &str,
        info: &LockInfo,
    ) -> Result<Option<Try>, Refused> {
        match read(bucket, object).await {
            Ok(Some((by, etag))) if by.id == info.id => {
                self.begin(bucket, object, info, Some(etag));
                return Ok(Some(Try::Taken));
            }
            Ok(Some((by, _))) => return Ok(Some(Try::Held(by))),
            Ok(None) => {}
            Err(error) => return Err(Refused::failed(key, &error)),
        }
        // Only now: a server that knows no conditions would delete another's lock.
        match bucket.may_delete(object).await {
            Ok(()) => Ok(None),
            Err(error) if error.kind == Kind::Denied => {
                Err(Refused::NotReleasable { key: key.to_owned(), why: error.to_string() })
            }
            Err(error) => Err(Refused::failed(key, &error)),
        }
    }

    /// The complaint about every lock that is still held.
    pub fn left_behind(&self, why: &str) -> Vec<String> {
        self.held().iter().map(|lock| lock.complaint(why)).collect()
    }

    fn begin(&self, bucket: &Bucket, object: &str, info: &LockInfo, etag: Option<String>) {
        self.forget(&info.id);
        let (bucket, key, id) = (bucket.clone(), object.to_owned(), info.id.clone());
        self.held().push(Held { bucket, key, id, etag });
    }

    fn forget(&self, id: &str) {
        self.held().retain(|lock| lock.id != id);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Held>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Releases all; returns what could not be, with the command that does it. Those stay on
    /// the list, for another attempt.
    pub async fn release(&self) -> Vec<String> {
        let held = self.held().clone();
        let results = stream::iter(held)
            .map(|lock| async move { (lock.id.clone(), lock.release().await) })
            .buffer_unordered(PARALLEL)
            .collect::<Vec<_>>()
            .await;
        let mut problems = Vec::new();
        for (id, result) in results {
            match result {
                Ok(()) => self.forget(&id),
                Err(problem) => problems.push(problem),
            }
        }
        problems
    }
}

impl Held {
    fn complaint(&self, why: &str) -> String {
        let Self { key, id, .. } = self;
        format!(
            "the lock `{key}` could not be released ({why}); release it by `terraform force-unlock {id}`"
        )
    }

    async fn release(&self) -> Result<(), String> {
        let complain = |error: &AwsError| self.complaint(&error.to_string());
        for attempt in 0..AT_ONCE {
            if attempt > 0 {
                tokio::time::sleep(MOMENT).await;
            }
            return match (read(&self.bucket, &self.key).await, self.own_etag()) {
                (Ok(Some((by, etag))), _) if by.id == self.id => self.delete(&etag).await,
                // Somebody has forced it, and perhaps taken it.
                (Ok(_), Some(_)) => Ok(()),
                (Ok(_), None) => continue,
                // It is under a key that turned out not to be usable. Its ETag is nobody else's.
                (Err(error), Some(etag)) if !error.kind.is_ambiguous() => self.delete(etag).await,
                (Err(error), _) => Err(complain(&error)),
            };
        }
        Err(self.complaint("its writing got no clear answer, and it may yet come to be there"))
    }

    fn own_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.is_empty())
    }

    /// Deletes the lock, if it still is this object.
    async fn delete(&self, etag: &str) -> Result<(), String> {
        match self.bucket.delete_if(&self.key, etag).await {
            Ok(()) => Ok(()),
            // It was forced meanwhile, and perhaps taken by another.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::ConditionFailed) => Ok(()),
            Err(error) => Err(self.complaint(&error.to_string())),
        }
    }
}

/// The lock objects of these states.
pub async fn on(
    bucket: &Bucket,
    states: Vec<String>,
) -> Vec<(String, Result<Option<LockInfo>, AwsError>)> {
    let look = |key: String| async move {
        let found = read(bucket, &format!("{key}{LOCK_SUFFIX}")).await;
        (key, found.map(|found| found.map(|(by, _)| by)))
    };
    stream::iter(states).map(look).buffered(PARALLEL).collect().await
}

/// The locks in DynamoDB: of states by the tables that their backend blocks name.
pub async fn in_tables(
    aws: &Aws,
    bucket: &str,
    states: Vec<(String, String)>,
) -> Vec<(String, String, Result<Option<LockInfo>, AwsError>)> {
    let look = |(key, table): (String, String)| async move {
        let found = aws.lock_in_table(&table, &format!("{bucket}/{key}")).await;
        let info = |text: String| LockInfo::parse(text.as_bytes()).unwrap_or_default();
        (key, table, found.map(|found| found.map(info)))
    };
    stream::iter(states).map(look).buffered(PARALLEL).collect().await
}

async fn read(bucket: &Bucket, object: &str) -> Result<Option<(LockInfo, String)>, AwsError> {
    match bucket.get_small(object).await {
        Ok((body, etag)) => {
            let unknown =
                || LockInfo { id: "(not a lock of Terraform)".into(), ..LockInfo::default() };
            Ok(Some((LockInfo::parse(&body).unwrap_or_else(unknown), etag)))
        }
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Terraform 1.11.4.
    const TERRAFORM: &str = r#"{"ID":"f1af2b35-e439-0781-ec9c-3b7f94b459d1","Operation":"OperationTypeApply","Info":"","Who":"root@vm","Version":"1.11.4","Created":"2026-11-24T03:35:02.093082354Z","Path":"cabal-tf-backend/production"}"#;

    #[test]
    fn terraforms_file_comes_back_byte_for_byte() {
        let info = LockInfo::parse(TERRAFORM.as_bytes()).unwrap();
        assert_eq!(info.to_bytes(), TERRAFORM.as_bytes());
        assert_eq!(
            info.holder(),
            "held by root@vm, for OperationTypeApply, since 2026-11-24T03:35:02.093082354Z, \
             id f1af2b35-e439-0781-ec9c-3b7f94b459d1"
        );
        // A lock that somebody made by hand is a lock.
        assert_eq!(LockInfo::parse(b"{}").unwrap().id, "");
        assert_eq!(LockInfo::parse(b"x"), None);
    }

    #[test]
    fn nothing_in_it_needs_an_escape_that_go_writes_otherwise() {
        let info = LockInfo::new("apply", "a<b>&\"c\\\u{2028}", Some("https://x/?a&b"), "b", "k");
        let text = String::from_utf8(info.to_bytes().to_vec()).unwrap();
        assert!(!text.contains(['<', '>', '&', '\\', '\u{2028}']), "{text}");
        assert_eq!(LockInfo::parse(text.as_bytes()), Some(info));
    }
}
