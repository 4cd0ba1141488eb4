//! Re-keys one state, in place or by a conditional copy onto itself, reads it back, and
//! puts it back as it was when it cannot be read.
//!
//! The object is at every moment either as it was or as wanted: a copy is one atomic
//! write, and S3's in-place operation writes no body. What can go wrong is that it is not
//! *readable* as wanted, so nothing is written before its bytes are in memory, or (for a
//! copy, which leaves it behind) in an old version that can be read. Servers other than
//! AWS's may take the in-place operation for an overwrite; that is seen and undone.

mod outcome;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::aws::{AwsError, Bucket, Budget, Copied, Hold, Kind, Seen, ServerSide, WriteAs};
use crate::survey::{self, Body, Found, Readable};

pub use outcome::{Done, Former, Outcome, Untouched};

/// How often a state that others keep changing is surveyed anew.
const ATTEMPTS: u32 = 5;

/// Between the first attempt and the second; it doubles from there.
const PAUSE: Duration = Duration::from_millis(50);

/// How often an ambiguous look is repeated before the outcome counts as unknown.
const LOOKS: u32 = 3;

/// From where a state can be put back.
enum Backup {
    Bytes(Body),
    /// Its bytes do not fit into memory, but this version can be read.
    Version(String),
}

/// What every state of a run is re-keyed with.
#[derive(Debug)]
pub struct Rekey<'a> {
    /// The state bucket.
    pub bucket: &'a Bucket,
    /// Bounds the bytes that are held for a restore.
    pub budget: &'a Budget,
    /// Try S3's UpdateObjectEncryption first, where it can do what is asked for. Cleared by
    /// the first refusal, so that it is asked for in vain but once.
    pub in_place: AtomicBool,
}

impl Rekey<'_> {
    /// Re-keys one state. `before` is what the survey read; its body, and with it its share
    /// of the budget, is given back at the end.
    pub async fn state(&self, key: &str, before: Readable, write: &WriteAs) -> Done {
        let mut job = Job::new(self, key, write);
        let mut outcome = Outcome::Untouched(Untouched::Contended);
        let mut before = before;
        let mut contended = true;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * (1 << (attempt - 1))).await;
            }
            match job.attempt(&before).await {
                Attempt::Done(done) => {
                    outcome = done;
                    break;
                }
                Attempt::Again(now) => {
                    contended = now.seen.etag != before.seen.etag;
                    before = *now;
                }
            }
        }
        // The same object all the time: nobody came first, S3 did not do it.
        if let (Outcome::Untouched(Untouched::Contended), false, Some(error)) =
            (&outcome, contended, job.unanswered.take())
        {
            outcome = Outcome::Untouched(Untouched::Refused(error));
        }
        match &mut outcome {
            Outcome::Rekeyed(now)
            | Outcome::ByAnother(now)
            | Outcome::Superseded(_, now)
            | Outcome::Changed(now, _) => now.body = None,
            _ => {}
        }
        Done { outcome, wrote: job.wrote || job.unsure }
    }

    /// Where the object is this action's own in-place request, taken for a body: puts it
    /// back as it was read before. `None`: it is another writer's state.
    ///
    /// # Errors
    /// What is there cannot be seen, so it may be the one or the other.
    pub async fn undo_overwrite(
        &self,
        key: &str,
        before: &Readable,
        write: &WriteAs,
    ) -> Result<Option<Outcome>, String> {
        let job = Job { replaced: true, ..Job::new(self, key, write) };
        match job.look().await {
            Found::Readable(now) if now.is_update_request => {
                let body = before.body.clone().ok_or("its bytes are not at hand")?;
                let (backup, etag) = (Backup::Bytes(body), now.seen.etag.clone());
                Ok(Some(job.restore(before, &backup, &etag, overwritten()).await))
            }
            Found::Readable(_) => Ok(None),
            other => {
                Err(other.error().map_or("it is not readable".to_owned(), ToString::to_string))
            }
        }
    }
}

enum Attempt {
    Done(Outcome),
    Again(Box<Readable>),
}

struct Job<'a> {
    run: &'a Rekey<'a>,
    key: &'a str,
    write: &'a WriteAs,
    /// The answer to a write of this run was lost: what is there may be ours.
    unsure: bool,
    /// A write of this run was answered with success.
    wrote: bool,
    /// The in-place operation was sent.
    in_place: bool,
    /// A new object was written over the one that was read, or may have been.
    replaced: bool,
    /// What the last write that had no clear answer came to.
    unanswered: Option<AwsError>,
}

impl<'a> Job<'a> {
    fn new(run: &'a Rekey<'a>, key: &'a str, write: &'a WriteAs) -> Self {
        Self {
            run,
            key,
            write,
            unsure: false,
            wrote: false,
            in_place: false,
            replaced: false,
            unanswered: None,
        }
    }

    async fn attempt(&mut self, before: &Readable) -> Attempt {
        let backup = match self.backup(before).await {
            Ok(backup) => backup,
            Err(attempt) => return attempt,
        };
        if let Some(attempt) = self.in_place(before, &backup).await {
            return attempt;
        }
        match self.run.bucket.copy_onto_itself(self.key, &before.seen, self.write).await {
            Ok(copied) => {
                (self.wrote, self.replaced) = (true, true);
                self.read_back(before, &backup, &copied).await
            }
            Err(error) => match error.kind {
                Kind::ConditionFailed | Kind::Conflict => {
                    self.look_again(before, &backup, &error).await
                }
                kind if kind.is_ambiguous() => {
                    (self.unsure, self.replaced) = (true, true);
                    self.unanswered = Some(error.clone());
                    self.look_again(before, &backup, &error).await
                }
                Kind::NotFound => Attempt::Done(Outcome::Vanished),
                _ => untouched(Untouched::Refused(error)),
            },
        }
    }

    /// Changes the encryption without writing the object anew: same ETag, same version, no
    /// readable version left behind. `None`: it cannot be done so, copy it.
    async fn in_place(&mut self, before: &Readable, backup: &Backup) -> Option<Attempt> {
        let WriteAs::Kms(target) = self.write else { return None };
        let possible = matches!(before.seen.server_side, ServerSide::S3 | ServerSide::Kms(_));
        // It leaves no old version behind, so only held bytes could be put back.
        let restorable = matches!(backup, Backup::Bytes(_));
        if !self.run.in_place.load(Ordering::Relaxed) || !possible || !restorable {
            return None;
        }
        // The operation knows no condition. It writes no body, so a newer state that it
        // meets is encrypted and not lost; the read-back finds out.
        self.in_place = true;
        match self.run.bucket.encrypt_in_place(self.key, None, target).await {
            Ok(()) => {
                self.wrote = true;
                let same = Copied {
                    etag: before.seen.etag.clone(),
                    version_id: before.seen.version_id.clone(),
                };
                Some(self.read_back(before, backup, &same).await)
            }
            Err(error) if error.kind.is_ambiguous() => {
                self.unsure = true;
                self.unanswered = Some(error.clone());
                // Should the state be as it was, the next attempt copies it.
                self.run.in_place.store(false, Ordering::Relaxed);
                Some(self.look_again(before, backup, &error).await)
            }
            Err(_) => {
                self.run.in_place.store(false, Ordering::Relaxed);
                None
            }
        }
    }

    /// Makes sure that the state could be put back.
    async fn backup(&mut self, before: &Readable) -> Result<Backup, Attempt> {
        if let Some(body) = &before.body {
            return Ok(Backup::Bytes(body.clone()));
        }
        if let Some(share) = self.run.budget.reserve(before.seen.size).await {
            let etag = Some(before.seen.etag.as_str());
            let hold = Hold::Reserved(share);
            match self.run.bucket.get(self.key, etag, hold, self.run.budget).await {
                Ok(download) if download.seen.etag != before.seen.etag => {
                    return Err(self.look_again_unwritten(before).await);
                }
                Ok(download) => {
                    if let Some(held) = download.body {
                        return Ok(Backup::Bytes(Body(held)));
                    }
                }
                Err(error) if error.kind == Kind::ConditionFailed => {
                    return Err(self.look_again_unwritten(before).await);
                }
                Err(error) => return Err(untouched(Untouched::Unreadable(error.to_string()))),
            }
        }
        let why = match &before.seen.version_id {
            None => "the bucket keeps no versions".to_owned(),
            Some(version) => match self.run.bucket.head_version(self.key, version).await {
                Ok(_) => return Ok(Backup::Version(version.clone())),
                Err(error) => format!("its version {version} cannot be read ({error})"),
            },
        };
        Err(untouched(Untouched::NotRestorable(format!(
            "{} bytes are too many to hold in memory, and {why}",
            before.seen.size
        ))))
    }

    /// Our write went through: read the object that it wrote, by its ETag.
    async fn read_back(&mut self, before: &Readable, backup: &Backup, copied: &Copied) -> Attempt {
        let etag = Some(copied.etag.as_str()).filter(|etag| !etag.is_empty());
        let (bucket, budget) = (self.run.bucket, self.run.budget);
        let mut found = survey::read(bucket, self.key, etag, budget, |_| false).await;
        if let Found::Failed(error) = &found
            && error.kind.is_ambiguous()
        {
            // Not readable for a moment is no reason to write it once more.
            found = self.look().await;
        }
        let ours = |seen: &Seen| etag.is_some_and(|etag| etag == seen.etag);
        match found {
            Found::Readable(after) if after.sha256 == before.sha256 => {
                Attempt::Done(self.compare(before, after))
            }
            // The same ETag and other bytes: not a race, but a broken server.
            Found::Readable(after) if ours(&after.seen) => {
                let error = not_the_same(self.key);
                Attempt::Done(self.restore(before, backup, &after.seen.etag, error).await)
            }
            Found::Unreadable { seen, error } if ours(&seen) => {
                Attempt::Done(self.restore(before, backup, &seen.etag, error).await)
            }
            // Not even its headers. The restore is conditional on the ETag.
            Found::Refused(error) if !copied.etag.is_empty() => {
                Attempt::Done(self.restore(before, backup, &copied.etag, error).await)
            }
            Found::Failed(error) if error.kind == Kind::ConditionFailed => {
                self.look_again(before, backup, &error).await
            }
            Found::Failed(error) if !copied.etag.is_empty() => {
                Attempt::Done(self.restore(before, backup, &copied.etag, error).await)
            }
            other => self.judge(before, backup, other, &not_the_same(self.key)).await,
        }
    }

    fn compare(&self, before: &Readable, after: Box<Readable>) -> Outcome {
        let mut changed = Vec::new();
        let (was, is) = (&before.seen.attributes, &after.seen.attributes);
        if !self.is_wanted(&after.seen.server_side) {
            changed.push("encryption (not what was asked for)");
        }
        for (same, what) in [
            (was.content_type == is.content_type, "Content-Type"),
            (was.metadata == is.metadata, "metadata"),
            (was.headers == is.headers, "headers"),
            (was.storage_class == is.storage_class, "storage class"),
            (was.redirect == is.redirect, "website redirect"),
            (before.tags == after.tags, "tags"),
            (is.is_locked_like(was), "Object Lock"),
        ] {
            if !same {
                changed.push(what);
            }
        }
        if changed.is_empty() { Outcome::Rekeyed(after) } else { Outcome::Changed(after, changed) }
    }

    /// Somebody wrote, or nobody knows whether we did: what is there now decides.
    async fn look_again(
        &mut self,
        before: &Readable,
        backup: &Backup,
        error: &AwsError,
    ) -> Attempt {
        let found = self.look().await;
        self.judge(before, backup, found, error).await
    }

    async fn look_again_unwritten(&mut self, before: &Readable) -> Attempt {
        match self.look().await {
            Found::Readable(now) => Attempt::Again(now),
            Found::Absent { .. } => Attempt::Done(Outcome::Vanished),
            _ if self.wrote || self.unsure => Attempt::Done(self.lost(
                before,
                not_the_same(self.key),
                "another writer has written it since, and it cannot be read",
            )),
            other => {
                let why = other.error().map_or("it cannot be read".into(), ToString::to_string);
                untouched(Untouched::Unreadable(why))
            }
        }
    }

    async fn judge(
        &mut self,
        before: &Readable,
        backup: &Backup,
        found: Found,
        error: &AwsError,
    ) -> Attempt {
        let ours = self.unsure || self.wrote;
        match found {
            Found::Readable(now) if self.in_place && now.is_update_request => {
                (self.wrote, self.replaced) = (true, true);
                let etag = now.seen.etag.clone();
                Attempt::Done(self.restore(before, backup, &etag, overwritten()).await)
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
            Found::Absent { .. } => Attempt::Done(Outcome::Vanished),
            // Re-encrypted in place and not readable: the same ETag, so the same bytes.
            Found::Unreadable { seen, error: now }
                if self.in_place
                    && seen.etag == before.seen.etag
                    && self.is_wanted(&seen.server_side) =>
            {
                Attempt::Done(self.restore(before, backup, &seen.etag, now).await)
            }
            // As it was, and not readable any more for another reason.
            Found::Unreadable { seen, error } if seen.etag == before.seen.etag => {
                untouched(Untouched::Unreadable(error.to_string()))
            }
            // Perhaps our copy, perhaps another's newer state: bytes of before must not be
            // put over the latter.
            Found::Unreadable { error: now, .. } if ours => Attempt::Done(self.lost(
                before,
                now,
                "it is not the object that this run wrote, or nobody can tell, so it may be another writer's state",
            )),
            Found::Unreadable { error, .. } => {
                untouched(Untouched::Unreadable(error.to_string()))
            }
            Found::Refused(now) | Found::Failed(now) if ours => {
                let because = format!("the state could not be looked at afterwards ({now})");
                Attempt::Done(self.lost(before, error.clone(), &because))
            }
            Found::CustomerKey if ours => Attempt::Done(self.lost(
                before,
                error.clone(),
                "another writer has put it under a key of its own (SSE-C)",
            )),
            Found::CustomerKey => untouched(Untouched::Unreadable(
                "another writer has put it under a key of its own (SSE-C)".into(),
            )),
            Found::Refused(error) | Found::Failed(error) => {
                untouched(Untouched::Unreadable(error.to_string()))
            }
        }
    }

    fn lost(&self, before: &Readable, error: AwsError, because: &str) -> Outcome {
        let former = match (&before.seen.version_id, self.replaced) {
            (_, false) => Former::InPlace,
            (Some(version), true) => Former::Version(version.clone()),
            (None, true) => Former::Nowhere,
        };
        Outcome::Lost { error, because: because.to_owned(), former }
    }

    /// Looks until there is an answer, within reason.
    async fn look(&self) -> Found {
        let keep = |now: &ServerSide| !self.is_wanted(now);
        let (bucket, budget) = (self.run.bucket, self.run.budget);
        let mut found = survey::look(bucket, self.key, budget, keep).await;
        for _ in 1..LOOKS {
            match &found {
                Found::Failed(error) if error.kind.is_ambiguous() => {}
                _ => break,
            }
            found = survey::look(bucket, self.key, budget, keep).await;
        }
        found
    }

    /// Puts the state back as it was, if the object still has this ETag, and reads it.
    async fn restore(
        &self,
        before: &Readable,
        backup: &Backup,
        etag: &str,
        error: AwsError,
    ) -> Outcome {
        let seen = &before.seen;
        let write = former(&seen.server_side);
        let bucket = self.run.bucket;
        let written = match backup {
            Backup::Bytes(body) => {
                let bytes = body.0.bytes.clone();
                let attributes = &seen.attributes;
                bucket.put_back(self.key, bytes, attributes, &before.tags, &write, etag).await
            }
            Backup::Version(version) => {
                bucket.copy_version_back(self.key, version, &seen.attributes, &write, etag).await
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
            // What was to be replaced, or what was just written, and wrong: nobody else's.
            Found::Readable(now)
                if now.seen.etag == etag
                    || written.as_ref().is_ok_and(|copied| copied.etag == now.seen.etag) =>
            {
                let because = match written {
                    Err(refused) => refused.to_string(),
                    Ok(_) => "its bytes are still not what they were".into(),
                };
                self.lost(before, error, &because)
            }
            Found::Readable(now) if !now.is_update_request => {
                // Another writer came between: its state is newer than ours.
                if self.is_wanted(&now.seen.server_side) {
                    Outcome::ByAnother(now)
                } else {
                    Outcome::Superseded(error, now)
                }
            }
            Found::Absent { .. } => Outcome::Vanished,
            other => {
                let because = match (written, other.error()) {
                    (Err(refused), _) => refused.to_string(),
                    (Ok(_), Some(unreadable)) => unreadable.to_string(),
                    (Ok(_), None) => "it is not readable".into(),
                };
                self.lost(before, error, &because)
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
    let message = format!("`{key}` is not what this run has written");
    AwsError::new(Kind::Other, "s3:GetObject", message)
}

fn overwritten() -> AwsError {
    AwsError::new(
        Kind::Other,
        "s3:UpdateObjectEncryption",
        "the server does not know this operation and has overwritten the state with the request",
    )
}
