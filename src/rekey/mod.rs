//! Re-keys one state, in place or by a conditional copy onto itself, reads it back, and
//! puts it back as it was when it cannot be read.
//!
//! The object is at every moment either as it was or as wanted: a copy is one atomic
//! write, and S3's in-place operation writes no body. What can go wrong is that it is not
//! *readable* as wanted, so nothing is written before its bytes are in memory, or (for a
//! copy, which leaves it behind) in an old version that can be read. Servers other than
//! AWS's may take the in-place operation for an overwrite; that is seen and undone.

mod aftermath;
mod outcome;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aftermath::overwritten;

use crate::aws::{AwsError, Bucket, Budget, Copied, Hold, Kind, ServerSide, WriteAs};
use crate::plan::COPY_LIMIT;
use crate::survey::{Body, Found, Readable};

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
    /// In place was asked for by name: never copy instead.
    pub only_in_place: bool,
    /// The bucket keeps every version from now on (versioning is on, not suspended).
    pub versioned: bool,
}

impl Rekey<'_> {
    /// Re-keys one state. `before` is what the survey read; its body, and with it its share
    /// of the budget, is given back at the end.
    pub async fn state(&self, key: &str, before: Readable, write: &WriteAs) -> Done {
        let mut job = Job::new(self, key, write);
        let mut outcome = Outcome::Untouched(Untouched::Contended);
        let mut before = before;
        let mut contended = true;
        let mut again = false;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * (1 << (attempt - 1))).await;
                again = true;
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
            (&outcome, contended, job.refused.take())
        {
            outcome = Outcome::Untouched(Untouched::Refused(error));
        }
        match &mut outcome {
            Outcome::Rekeyed(now)
            | Outcome::ByAnother(now)
            | Outcome::Superseded(_, now)
            | Outcome::Restored { now, .. }
            | Outcome::Ignored(now)
            | Outcome::Changed(now, _) => now.body = None,
            _ => {}
        }
        let alone = matches!(outcome, Outcome::Rekeyed(_)) && job.wrote && !job.unsure && !again;
        Done { outcome, wrote: job.wrote || job.unsure, alone }
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
        let job = Job { wrote: true, ..Job::new(self, key, write) };
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
    /// Why the last write did not do it, as far as is known.
    refused: Option<AwsError>,
    /// The bucket is known to keep every version from now on.
    versioned: bool,
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
            refused: None,
            versioned: run.versioned,
        }
    }

    async fn attempt(&mut self, before: &Readable) -> Attempt {
        // The plan begins with none of these; another writer may have come since.
        if let Some(why) = unfit(before) {
            return untouched(Untouched::Unfit(why));
        }
        let backup = match self.backup(before).await {
            Ok(backup) => backup,
            Err(attempt) => return attempt,
        };
        if let Some(attempt) = self.in_place(before, &backup).await {
            return attempt;
        }
        match self.run.bucket.copy_onto_itself(self.key, &before.seen, self.write).await {
            Ok(copied) => {
                self.wrote = true;
                // Only a bucket that keeps versions gives new ones ids.
                self.versioned |= copied.version_id.as_deref().is_some_and(|id| id != "null");
                self.read_back(before, &backup, &copied).await
            }
            Err(error) => match error.kind {
                Kind::ConditionFailed | Kind::Conflict => {
                    self.refused = Some(error.clone());
                    self.look_again(before, &backup, &error).await
                }
                kind if kind.is_ambiguous() => {
                    self.unsure = true;
                    self.refused = Some(error.clone());
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
        let only = self.run.only_in_place;
        let not = |why: &str| only.then(|| untouched(Untouched::NotInPlace(why.to_owned())));
        let WriteAs::Kms(target) = self.write else {
            return not("S3 re-encrypts in place under a KMS key only");
        };
        if !matches!(before.seen.server_side, ServerSide::S3 | ServerSide::Kms(_)) {
            return not("S3 re-encrypts in place only what is under SSE-S3 or SSE-KMS");
        }
        // It leaves no old version behind, so only held bytes could be put back.
        if !matches!(backup, Backup::Bytes(_)) {
            return not("its bytes are too many to hold in memory, so it could not be put back");
        }
        if !self.run.in_place.load(Ordering::Relaxed) {
            return not("nothing has shown yet that this principal reads what is under the key");
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
                self.refused = Some(error.clone());
                // Should the state be as it was, the next attempt copies it.
                self.run.in_place.store(only, Ordering::Relaxed);
                Some(self.look_again(before, backup, &error).await)
            }
            Err(error) if only => Some(untouched(Untouched::Refused(error))),
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
        let budget = self.run.budget;
        if let Some(share) = budget.reserve(before.seen.size).await {
            let etag = Some(before.seen.etag.as_str());
            let hold = Hold::Reserved(share);
            match self.run.bucket.get(self.key, etag, hold, budget).await {
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
                Err(error) if self.wrote || self.unsure => {
                    let because = "it could not be read again";
                    return Err(Attempt::Done(self.lost(before, error, because, None)));
                }
                Err(error) => return Err(untouched(Untouched::Unreadable(error))),
            }
        }
        let why = match before.seen.outlives(self.versioned) {
            None => "no version of it is known to outlive a write".to_owned(),
            Some(version) => match self.run.bucket.head_version(self.key, version).await {
                Ok(_) => return Ok(Backup::Version(version.to_owned())),
                Err(error) => format!("its version {version} cannot be read ({error})"),
            },
        };
        Err(untouched(Untouched::NotRestorable(format!(
            "its {} bytes are too many to hold in memory, and {why}",
            before.seen.size
        ))))
    }
}

/// What makes a state one that is not re-keyed, as in the plan.
fn unfit(state: &Readable) -> Option<&'static str> {
    if state.is_update_request {
        Some("the request of an in-place re-encryption, and no state")
    } else if matches!(state.seen.server_side, ServerSide::Other(_)) {
        Some("of an encryption that this version does not know")
    } else if state.seen.size > COPY_LIMIT {
        Some("larger than the 5 GB that S3 copies in one request")
    } else {
        None
    }
}

fn untouched(why: Untouched) -> Attempt {
    Attempt::Done(Outcome::Untouched(why))
}
