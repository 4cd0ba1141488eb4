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

use crate::aws::{AwsError, Bucket, Kind, WriteAs};
use crate::names::{LOCK_SUFFIX, printable};

/// Locks worked on at the same time.
const PARALLEL: usize = 32;
/// Between two attempts at a lock that is held.
const PAUSE: Duration = Duration::from_secs(2);
/// Attempts at a lock that is refused and then gone, without a pause.
const AT_ONCE: u32 = 3;

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

/// Why a lock was not taken. Nothing of this run is left behind then.
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

/// A lock of this run.
#[derive(Debug, Clone)]
struct Held {
    bucket: Bucket,
    key: String,
    id: String,
}

/// The locks of a run, to be released on every way out.
#[derive(Debug, Default)]
pub struct Locks(Mutex<Vec<Held>>);

enum Try {
    Taken,
    Held(LockInfo),
}

impl Locks {
    /// Takes the locks of these states, all or none, waiting for holders as long as `patience`
    /// goes. Between attempts it holds none, so two runs never wait for one another.
    ///
    /// # Errors
    /// Why not: every state whose lock is held, or could not be taken, by its key.
    pub async fn take(
        &self,
        bucket: &Bucket,
        infos: &[(String, LockInfo)],
        write: &WriteAs,
        patience: Duration,
        waits: impl Fn(&str, &str),
    ) -> Result<(), Vec<Refused>> {
        let began = Instant::now();
        loop {
            let results = stream::iter(infos.to_vec())
                .map(|(key, info)| async move {
                    let result = self.one(bucket, &key, &info, write).await;
                    (key, result)
                })
                .buffer_unordered(PARALLEL)
                .collect::<Vec<_>>()
                .await;
            let (mut held, mut failed) = (Vec::new(), Vec::new());
            for (key, result) in results {
                match result {
                    Ok(Try::Taken) => {}
                    Ok(Try::Held(by)) => held.push((key, by)),
                    Err(refused) => failed.push((key, refused)),
                }
            }
            if held.is_empty() && failed.is_empty() {
                return Ok(());
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
            tokio::time::sleep(PAUSE.min(left)).await;
        }
    }

    /// Takes a lock. One that its holder gives back between the refusal and the look at it is
    /// held by nobody, and asked for again.
    async fn one(
        &self,
        bucket: &Bucket,
        key: &str,
        info: &LockInfo,
        write: &WriteAs,
    ) -> Result<Try, Refused> {
        for _ in 0..AT_ONCE {
            if let Some(tried) = self.attempt(bucket, key, info, write).await? {
                return Ok(tried);
            }
        }
        let who = "others, one after the other".to_owned();
        Ok(Try::Held(LockInfo { id: "(gone)".into(), who, ..LockInfo::default() }))
    }

    /// `None`: somebody held it, and does not any more.
    async fn attempt(
        &self,
        bucket: &Bucket,
        key: &str,
        info: &LockInfo,
        write: &WriteAs,
    ) -> Result<Option<Try>, Refused> {
        let object = format!("{key}{LOCK_SUFFIX}");
        let failed =
            |error: &AwsError| Refused::Failed { key: key.to_owned(), why: error.to_string() };
        // A server that knows no conditions would delete another's lock below.
        match read(bucket, &object).await {
            Ok(Some((by, _))) if by.id == info.id => return Ok(Some(Try::Taken)),
            Ok(Some((by, _))) => return Ok(Some(Try::Held(by))),
            Ok(None) => {}
            Err(error) => return Err(failed(&error)),
        }
        if let Err(error) = bucket.may_delete(&object).await {
            return Err(match error.kind {
                Kind::Denied => {
                    Refused::NotReleasable { key: key.to_owned(), why: error.to_string() }
                }
                _ => failed(&error),
            });
        }
        // Before it is written: a run that is cancelled meanwhile has to know of it.
        let id = info.id.clone();
        self.held().push(Held { bucket: bucket.clone(), key: object.clone(), id });
        let error = match bucket.put_new(&object, info.to_bytes(), write).await {
            Ok(()) => return Ok(Some(Try::Taken)),
            Err(error) => error,
        };
        let contested = matches!(error.kind, Kind::ConditionFailed | Kind::Conflict);
        if !contested && !error.kind.is_ambiguous() {
            self.forget(&info.id);
            return Err(failed(&error));
        }
        // Somebody came first; or it is ours, and only the answer was lost.
        match read(bucket, &object).await {
            Ok(Some((by, _))) if by.id == info.id => Ok(Some(Try::Taken)),
            Ok(Some((by, _))) => {
                self.forget(&info.id);
                Ok(Some(Try::Held(by)))
            }
            Ok(None) if contested => {
                self.forget(&info.id);
                Ok(None)
            }
            // It may be ours, or come to be: to be released on the way out, if it is.
            Ok(None) | Err(_) => Err(failed(&error)),
        }
    }

    /// The complaint about every lock that is still held.
    pub fn left_behind(&self, why: &str) -> Vec<String> {
        self.held().iter().map(|lock| lock.complaint(why)).collect()
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
        match read(&self.bucket, &self.key).await {
            Ok(Some((by, etag))) if by.id == self.id => {
                match self.bucket.delete_if(&self.key, &etag).await {
                    Err(error) if error.kind != Kind::NotFound => Err(complain(&error)),
                    _ => Ok(()),
                }
            }
            // Somebody has forced it, and perhaps taken it.
            Ok(_) => Ok(()),
            Err(error) => Err(complain(&error)),
        }
    }
}

/// The locks on these states, as far as they can be read.
pub async fn on(bucket: &Bucket, states: Vec<String>) -> Vec<(String, LockInfo)> {
    stream::iter(states)
        .map(|key| async move {
            let found = read(bucket, &format!("{key}{LOCK_SUFFIX}")).await;
            Some((key, found.ok()??.0))
        })
        .buffered(PARALLEL)
        .filter_map(async |found| found)
        .collect()
        .await
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
