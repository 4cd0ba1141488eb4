//! What a write has come to: the object is read, compared, and put back where it cannot be
//! read.

use super::{Attempt, Backup, Job, LOOKS, Outcome, Untouched, untouched};
use crate::aws::{AwsError, Copied, Kind, Seen, ServerSide, WriteAs};
use crate::rekey::Former;
use crate::survey::{self, Found, Readable};

impl Job<'_> {
    /// Our write went through: read the object that it wrote, by its ETag.
    pub(super) async fn read_back(
        &mut self,
        before: &Readable,
        backup: &Backup,
        copied: &Copied,
    ) -> Attempt {
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
        let mut changed = differences(before, &after);
        let is_wanted = self.is_wanted(&after.seen.server_side);
        if !is_wanted && after.seen.server_side == before.seen.server_side {
            return Outcome::Ignored(after);
        }
        if !is_wanted {
            changed.insert(0, "encryption (not what was asked for)");
        }
        if changed.is_empty() { Outcome::Rekeyed(after) } else { Outcome::Changed(after, changed) }
    }

    /// Somebody wrote, or nobody knows whether we did: what is there now decides.
    pub(super) async fn look_again(
        &mut self,
        before: &Readable,
        backup: &Backup,
        error: &AwsError,
    ) -> Attempt {
        let found = self.look().await;
        self.judge(before, backup, found, error).await
    }

    pub(super) async fn look_again_unwritten(&mut self, before: &Readable) -> Attempt {
        match self.look().await {
            Found::Readable(now) => self.found(before, now),
            Found::Absent { .. } => Attempt::Done(Outcome::Vanished),
            other if self.wrote || self.unsure => Attempt::Done(self.lost(
                before,
                not_the_same(self.key),
                "it was written since, perhaps by this run, and could not be read again",
                other.seen(),
            )),
            other => {
                let why = other.error().cloned().unwrap_or_else(with_customer_key);
                untouched(Untouched::Unreadable(why))
            }
        }
    }

    /// A state that can be read: it is settled, or the next attempt's.
    fn found(&self, before: &Readable, now: Box<Readable>) -> Attempt {
        let ours = self.unsure || self.wrote;
        if now.is_update_request {
            // No state, whatever its encryption. Its bytes may be those of our own request.
            return match self.in_place && ours {
                true => Attempt::Done(self.lost(
                    before,
                    overwritten(),
                    "its bytes of before are not at hand any more",
                    Some(&now.seen),
                )),
                false => Attempt::Again(now),
            };
        }
        if ours && now.sha256 == before.sha256 && self.is_wanted(&now.seen.server_side) {
            // A lost answer of our own copy.
            return Attempt::Done(self.compare(before, now));
        }
        if self.is_settled(&now.seen.server_side) {
            return Attempt::Done(Outcome::ByAnother(now));
        }
        Attempt::Again(now)
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
                self.wrote = true;
                let etag = now.seen.etag.clone();
                Attempt::Done(self.restore(before, backup, &etag, overwritten()).await)
            }
            Found::Readable(now) => self.found(before, now),
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
                untouched(Untouched::Unreadable(error))
            }
            // Perhaps our copy, perhaps another's newer state: bytes of before must not be
            // put over the latter.
            Found::Unreadable { seen, error: now } if ours => Attempt::Done(self.lost(
                before,
                now,
                "it is not the object that this run wrote, or nobody can tell, so it may be another writer's state",
                Some(&seen),
            )),
            Found::Unreadable { error, .. } => untouched(Untouched::Unreadable(error)),
            Found::Refused(now) | Found::Failed(now) if ours => {
                let because = format!("the state could not be looked at afterwards ({now})");
                Attempt::Done(self.lost(before, error.clone(), &because, None))
            }
            Found::CustomerKey => {
                match ours {
                    true => Attempt::Done(self.lost(before, error.clone(), CUSTOMER_KEY, None)),
                    false => untouched(Untouched::Unreadable(with_customer_key())),
                }
            }
            Found::Refused(error) | Found::Failed(error) => {
                untouched(Untouched::Unreadable(error))
            }
        }
    }

    /// `now`: the object as it was seen last, if at all.
    pub(super) fn lost(
        &self,
        before: &Readable,
        error: AwsError,
        because: &str,
        now: Option<&Seen>,
    ) -> Outcome {
        let same = |now: &Seen| now.etag == before.seen.etag && self.is_wanted(&now.server_side);
        // A version outlives whatever came after it; in place it is this very version.
        let former = match before.seen.outlives(self.versioned) {
            _ if now.is_some_and(same) => Former::InPlace,
            Some(version) => Former::Version(version.to_owned()),
            None => Former::Nowhere,
        };
        Outcome::Lost { error, because: because.to_owned(), certain: self.wrote, former }
    }

    /// Looks until there is an answer, within reason.
    pub(super) async fn look(&self) -> Found {
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
    pub(super) async fn restore(
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
        let ours = |written: &Result<Copied, AwsError>, now: &Seen| {
            now.etag == etag || written.as_ref().is_ok_and(|copied| copied.etag == now.etag)
        };
        // Whatever the answer was, only a read tells.
        match self.look().await {
            // It could not be read for a moment only.
            Found::Readable(now)
                if now.sha256 == before.sha256 && self.is_wanted(&now.seen.server_side) =>
            {
                self.compare(before, now)
            }
            Found::Readable(now) if now.sha256 == before.sha256 => {
                let changed = differences(before, &now);
                Outcome::Restored { error, now, changed }
            }
            // Another writer came between: its state is newer than ours. What was to be
            // replaced, or was just written, and wrong, is nobody else's.
            Found::Readable(now) if !now.is_update_request && !ours(&written, &now.seen) => {
                if self.is_wanted(&now.seen.server_side) {
                    Outcome::ByAnother(now)
                } else {
                    Outcome::Superseded(error, now)
                }
            }
            Found::Absent { .. } => Outcome::Vanished,
            other => {
                let because = match (written, &other) {
                    (Err(refused), _) => refused.to_string(),
                    (Ok(_), Found::Readable(_)) => "its bytes are still not what they were".into(),
                    (Ok(_), other) => {
                        other.error().map_or("it is not readable".to_owned(), ToString::to_string)
                    }
                };
                self.lost(before, error, &because, other.seen())
            }
        }
    }

    /// Whether a state that another writer left so may stay so, as in the plan.
    fn is_settled(&self, now: &ServerSide) -> bool {
        match (self.write, now) {
            (WriteAs::S3, ServerSide::None) => true,
            (WriteAs::Kms(wanted), ServerSide::Dsse(key)) => wanted == key,
            _ => self.is_wanted(now),
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

const CUSTOMER_KEY: &str = "another writer has put it under a key of its own (SSE-C)";

fn with_customer_key() -> AwsError {
    AwsError::new(Kind::Invalid, "s3:GetObject", CUSTOMER_KEY)
}

/// What two readings of a state do not have in common, apart from body and encryption.
fn differences(before: &Readable, after: &Readable) -> Vec<&'static str> {
    let (was, is) = (&before.seen.attributes, &after.seen.attributes);
    // In place it stays in an archive class, a copy of it does not.
    let keeps_class =
        was.storage_class == is.storage_class || was.written_class() == is.storage_class.as_deref();
    let compared = [
        (was.content_type == is.content_type, "Content-Type"),
        (was.metadata == is.metadata, "metadata"),
        (was.headers == is.headers, "headers"),
        (keeps_class, "storage class"),
        (was.redirect == is.redirect, "website redirect"),
        (before.tags == after.tags, "tags"),
        (is.is_locked_like(was), "Object Lock"),
    ];
    compared.into_iter().filter(|(same, _)| !same).map(|(_, what)| what).collect()
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

pub(super) fn overwritten() -> AwsError {
    AwsError::new(
        Kind::Other,
        "s3:UpdateObjectEncryption",
        "the server does not know this operation and has overwritten the state with the request",
    )
}
