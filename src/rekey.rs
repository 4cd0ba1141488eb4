//! Re-keys one state by a conditional copy onto itself, reads it back, and puts it
//! back as it was when it cannot be read.
//!
//! The object is at every moment either as it was or as wanted: a copy is one atomic
//! write. What can go wrong is that it is not *readable* as wanted, so nothing is
//! copied before its bytes are in memory, or in an old version that can be read.

use std::time::Duration;

use crate::aws::{AwsError, Bucket, Budget, Copied, Hold, Kind, ServerSide, WriteAs};
use crate::survey::{self, Body, Found, Readable};

/// How often a state that others keep changing is surveyed anew.
const ATTEMPTS: u32 = 5;

/// Between the first attempt and the second; it doubles from there.
const PAUSE: Duration = Duration::from_millis(50);

/// How often an ambiguous look is repeated before the outcome counts as unknown.
const LOOKS: u32 = 3;

/// What became of a state.
#[derive(Debug)]
pub enum Outcome {
    /// It is as wanted, was read back, and is the same as before.
    Rekeyed(Box<Readable>),
    /// It is as wanted by another writer's hand, and readable.
    ByAnother(Box<Readable>),
    /// It is not there any more.
    Vanished,
    /// Nothing was written.
    Untouched(Untouched),
    /// It could not be read back, and is again what it was.
    Restored(AwsError),
    /// It was written, and this principal cannot tell or mend what it is now.
    Lost {
        /// What went wrong first.
        error: AwsError,
        /// Why it could not be put back.
        because: String,
        /// The version that holds the state as it was.
        former_version: Option<String>,
    },
    /// It is as wanted and readable, but these things are not what they were.
    Changed(Box<Readable>, Vec<&'static str>),
}

/// Why nothing was written.
#[derive(Debug)]
pub enum Untouched {
    /// AWS refused the copy.
    Refused(AwsError),
    /// Nobody could put it back if it turned out to be unreadable.
    NotRestorable(String),
    /// Another writer came first, every time.
    Contended,
    /// It cannot be read any more.
    Unreadable(String),
}

/// From where a state can be put back.
enum Backup {
    Bytes(Body),
    Version(String),
}

/// Re-keys one state. `before` is what the survey read; `in_place` tries S3's
/// UpdateObjectEncryption first, where it can do what is asked for.
pub async fn rekey(
    bucket: &Bucket,
    budget: &Budget,
    key: &str,
    before: &Readable,
    write: &WriteAs,
    in_place: bool,
) -> Outcome {
    let mut job = Job { bucket, budget, key, write, in_place, unsure: false };
    let mut before = before.clone();
    for attempt in 0..ATTEMPTS {
        match job.attempt(&before).await {
            Attempt::Done(outcome) => return outcome,
            Attempt::Again(now) => before = *now,
        }
        tokio::time::sleep(PAUSE * (1 << attempt)).await;
    }
    Outcome::Untouched(Untouched::Contended)
}

enum Attempt {
    Done(Outcome),
    Again(Box<Readable>),
}

struct Job<'a> {
    bucket: &'a Bucket,
    budget: &'a Budget,
    key: &'a str,
    write: &'a WriteAs,
    in_place: bool,
    /// The answer to a write of this run was lost: what is there may be ours.
    unsure: bool,
}

impl Job<'_> {
    async fn attempt(&mut self, before: &Readable) -> Attempt {
        let backup = match self.backup(before).await {
            Ok(backup) => backup,
            Err(attempt) => return attempt,
        };
        if let Some(attempt) = self.in_place(before, &backup).await {
            return attempt;
        }
        match self.bucket.copy_onto_itself(self.key, &before.seen, self.write).await {
            Ok(copied) => self.read_back(before, &backup, &copied).await,
            Err(error) => match error.kind {
                Kind::ConditionFailed | Kind::Conflict => {
                    self.look_again(before, None, &error).await
                }
                kind if kind.is_ambiguous() => self.look_again(before, None, &error).await,
                Kind::NotFound => Attempt::Done(Outcome::Vanished),
                _ => Attempt::Done(Outcome::Untouched(Untouched::Refused(error))),
            },
        }
    }

    /// Changes the encryption without writing the object anew: same ETag, same version, no
    /// readable version left behind. `None`: it cannot be done so, copy it.
    async fn in_place(&mut self, before: &Readable, backup: &Backup) -> Option<Attempt> {
        let WriteAs::Kms(target) = self.write else { return None };
        let possible = matches!(before.seen.server_side, ServerSide::S3 | ServerSide::Kms(_));
        if !self.in_place || !possible {
            return None;
        }
        // The operation knows no condition. It writes no body, so a newer state that it
        // meets is encrypted and not lost; the read-back finds out.
        match self.bucket.encrypt_in_place(self.key, None, target).await {
            Ok(()) => {
                let same = Copied {
                    etag: before.seen.etag.clone(),
                    version_id: before.seen.version_id.clone(),
                };
                Some(self.read_back(before, backup, &same).await)
            }
            Err(error) if error.kind.is_ambiguous() => {
                Some(self.look_again(before, Some(backup), &error).await)
            }
            Err(_) => None,
        }
    }

    /// Makes sure that the state could be put back.
    async fn backup(&mut self, before: &Readable) -> Result<Backup, Attempt> {
        if let Some(body) = &before.body {
            return Ok(Backup::Bytes(body.clone()));
        }
        if before.seen.size <= Budget::BYTES {
            let etag = Some(before.seen.etag.as_str());
            match self.bucket.get(self.key, etag, Hold::Wait, self.budget).await {
                Ok(download) => {
                    if let Some(held) = download.body {
                        return Ok(Backup::Bytes(Body(held)));
                    }
                }
                Err(error) if error.kind == Kind::ConditionFailed => {
                    return Err(self.look_again(before, None, &error).await);
                }
                Err(error) => return Err(untouched(Untouched::Unreadable(error.to_string()))),
            }
        }
        let why = match &before.seen.version_id {
            None => "the bucket keeps no versions".to_owned(),
            Some(version) => match self.bucket.head_version(self.key, version).await {
                Ok(_) => return Ok(Backup::Version(version.clone())),
                Err(error) => format!("its version {version} cannot be read ({error})"),
            },
        };
        Err(untouched(Untouched::NotRestorable(format!(
            "{} bytes are too many to hold in memory, and {why}",
            before.seen.size
        ))))
    }

    /// The copy went through: read the object that it wrote, by its ETag.
    async fn read_back(&mut self, before: &Readable, backup: &Backup, copied: &Copied) -> Attempt {
        let etag = Some(copied.etag.as_str()).filter(|etag| !etag.is_empty());
        let keep = |_: &ServerSide| false;
        match survey::read(self.bucket, self.key, etag, self.budget, keep).await {
            Found::Readable(after) => {
                if after.sha256 != before.sha256 {
                    // The same ETag and other bytes: not a race, but a broken server.
                    let error = not_the_same(self.key);
                    return Attempt::Done(self.restore(before, backup, copied, error).await);
                }
                Attempt::Done(self.compare(before, after))
            }
            Found::Absent { .. } => Attempt::Done(Outcome::Vanished),
            Found::Failed(error) if error.kind == Kind::ConditionFailed => {
                self.look_again(before, Some(backup), &error).await
            }
            Found::Unreadable { error, .. } | Found::Refused(error) | Found::Failed(error) => {
                Attempt::Done(self.restore(before, backup, copied, error).await)
            }
            Found::CustomerKey => Attempt::Done(Outcome::Vanished),
        }
    }

    fn compare(&self, before: &Readable, after: Box<Readable>) -> Outcome {
        let mut changed = Vec::new();
        let (was, is) = (&before.seen.attributes, &after.seen.attributes);
        if !self.is_wanted(&after.seen.server_side) {
            changed.push("encryption (not what the copy asked for)");
        }
        for (same, what) in [
            (was.content_type == is.content_type, "Content-Type"),
            (was.metadata == is.metadata, "metadata"),
            (was.headers == is.headers, "headers"),
            (was.storage_class == is.storage_class, "storage class"),
            (was.redirect == is.redirect, "website redirect"),
            (before.tags == after.tags, "tags"),
            (was.retention == is.retention && was.legal_hold == is.legal_hold, "Object Lock"),
        ] {
            if !same {
                changed.push(what);
            }
        }
        if changed.is_empty() { Outcome::Rekeyed(after) } else { Outcome::Changed(after, changed) }
    }

    /// Somebody wrote, or nobody knows whether we did: what is there now decides. `backup`
    /// is given where this run has changed, or may have changed, the object.
    async fn look_again(
        &mut self,
        before: &Readable,
        backup: Option<&Backup>,
        error: &AwsError,
    ) -> Attempt {
        self.unsure |= error.kind.is_ambiguous();
        let ours = self.unsure;
        let found = self.look().await;
        match found {
            Found::Readable(now) if self.in_place && is_our_request(&now) => {
                let Some(backup) = backup else { return Attempt::Again(now) };
                let overwritten = Copied { etag: now.seen.etag.clone(), version_id: None };
                let error = AwsError::new(
                    Kind::Other,
                    "s3:UpdateObjectEncryption",
                    "the server does not know this operation and has overwritten the state with the request",
                );
                Attempt::Done(self.restore(before, backup, &overwritten, error).await)
            }
            Found::Readable(now) if self.is_wanted(&now.seen.server_side) => {
                // A lost answer of our own copy, or an equal write of another run.
                if now.sha256 == before.sha256 {
                    Attempt::Done(self.compare(before, now))
                } else {
                    Attempt::Done(Outcome::ByAnother(now))
                }
            }
            Found::Readable(now) => Attempt::Again(now),
            Found::Absent { .. } | Found::CustomerKey => Attempt::Done(Outcome::Vanished),
            // Re-encrypted in place and not readable: the same ETag, so the same bytes.
            Found::Unreadable { seen, error: now }
                if seen.etag == before.seen.etag && self.is_wanted(&seen.server_side) =>
            {
                let Some(backup) = backup else {
                    return untouched(Untouched::Unreadable(now.to_string()));
                };
                let same = Copied { etag: seen.etag.clone(), version_id: None };
                Attempt::Done(self.restore(before, backup, &same, now).await)
            }
            Found::Unreadable { seen, error: now } if ours && seen.etag != before.seen.etag => {
                // Perhaps our copy, perhaps another's newer state: bytes of before must not
                // be put over the latter.
                Attempt::Done(Outcome::Lost {
                    error: now,
                    because: "the answer to the copy was lost, so it may be another writer's state"
                        .into(),
                    former_version: before.seen.version_id.clone(),
                })
            }
            Found::Unreadable { error, .. } | Found::Refused(error) => {
                untouched(Untouched::Unreadable(error.to_string()))
            }
            Found::Failed(now) if ours => Attempt::Done(Outcome::Lost {
                error: error.clone(),
                because: format!("the state could not be looked at afterwards ({now})"),
                former_version: before.seen.version_id.clone(),
            }),
            Found::Failed(now) => untouched(Untouched::Unreadable(now.to_string())),
        }
    }

    /// Looks until there is an answer, within reason.
    async fn look(&self) -> Found {
        let keep = |now: &ServerSide| !self.is_wanted(now);
        let mut found = survey::look(self.bucket, self.key, self.budget, keep).await;
        for _ in 1..LOOKS {
            match &found {
                Found::Failed(error) if error.kind.is_ambiguous() => {}
                _ => break,
            }
            found = survey::look(self.bucket, self.key, self.budget, keep).await;
        }
        found
    }

    /// Puts the state back as it was, if the object still is the one that our copy
    /// wrote, and reads it.
    async fn restore(
        &self,
        before: &Readable,
        backup: &Backup,
        copied: &Copied,
        error: AwsError,
    ) -> Outcome {
        let seen = &before.seen;
        let write = former(&seen.server_side);
        let written = match backup {
            Backup::Bytes(body) => {
                let bytes = body.0.bytes.clone();
                let attributes = &seen.attributes;
                self.bucket
                    .put_back(self.key, bytes, attributes, &before.tags, &write, &copied.etag)
                    .await
            }
            Backup::Version(version) => {
                let class = seen.attributes.storage_class.as_deref();
                self.bucket.copy_version_back(self.key, version, class, &write, &copied.etag).await
            }
        };
        // Whatever the answer was, only a read tells.
        match self.look().await {
            // It could not be read for a moment only.
            Found::Readable(now)
                if now.sha256 == before.sha256 && self.is_wanted(&now.seen.server_side) =>
            {
                self.compare(before, now)
            }
            Found::Readable(now) if now.sha256 == before.sha256 => Outcome::Restored(error),
            // Another writer came between: its state is newer than ours.
            Found::Readable(now) => Outcome::ByAnother(now),
            Found::Absent { .. } => Outcome::Vanished,
            other => {
                let because = match (written, other.error()) {
                    (Err(refused), _) => refused.to_string(),
                    (Ok(_), Some(unreadable)) => unreadable.to_string(),
                    (Ok(_), None) => "it is not readable".into(),
                };
                Outcome::Lost { error, because, former_version: seen.version_id.clone() }
            }
        }
    }

    fn is_wanted(&self, now: &ServerSide) -> bool {
        match (self.write, now) {
            (WriteAs::S3, ServerSide::S3) => true,
            (WriteAs::Kms(wanted), ServerSide::Kms(key)) => wanted == key,
            (WriteAs::Dsse(wanted), ServerSide::Dsse(key)) => wanted == key,
            _ => false,
        }
    }
}

/// The body of UpdateObjectEncryption, taken for an object's by a server that does not know it.
fn is_our_request(now: &Readable) -> bool {
    let Some(body) = &now.body else { return false };
    let text = String::from_utf8_lossy(&body.0.bytes);
    text.trim_start().starts_with('<') && text.contains("ObjectEncryption")
}

fn untouched(why: Untouched) -> Attempt {
    Attempt::Done(Outcome::Untouched(why))
}

/// How a state was written before. S3 cannot write an unencrypted object any more.
fn former(encryption: &ServerSide) -> WriteAs {
    match encryption {
        ServerSide::Kms(key) => WriteAs::Kms(key.clone()),
        ServerSide::Dsse(key) => WriteAs::Dsse(key.clone()),
        ServerSide::None | ServerSide::S3 | ServerSide::Customer | ServerSide::Other(_) => {
            WriteAs::S3
        }
    }
}

fn not_the_same(key: &str) -> AwsError {
    let message = format!("`{key}` has other bytes than before, under the ETag of this write");
    AwsError::new(Kind::Other, "s3:GetObject", message)
}
