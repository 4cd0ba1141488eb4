//! What can become of a state.

use crate::aws::AwsError;
use crate::check::FailureReason;
use crate::names::printable;
use crate::survey::Readable;

/// What became of a state, and whether this run has written it, perhaps in vain.
#[derive(Debug)]
pub struct Done {
    /// What became of it.
    pub outcome: Outcome,
    /// A write of this run was carried out, or may have been.
    pub wrote: bool,
    /// Nobody else has written the state meanwhile, as far as this run has seen.
    pub alone: bool,
}

/// What became of a state.
#[derive(Debug)]
pub enum Outcome {
    /// It is as wanted, was read back, and is the same as before.
    Rekeyed(Box<Readable>),
    /// It is as wanted, readable, and another writer's newer content.
    ByAnother(Box<Readable>),
    /// It is not there any more.
    Vanished,
    /// Nothing was written.
    Untouched(Untouched),
    /// It could not be read back, and is again what it was.
    Restored {
        /// What went wrong.
        error: AwsError,
        /// What was restored, as it was read.
        now: Box<Readable>,
        /// What of it is not what it was, though its bytes are.
        changed: Vec<&'static str>,
    },
    /// It could not be read back, and before it was restored another writer wrote a newer
    /// state, which is readable but not as wanted.
    Superseded(AwsError, Box<Readable>),
    /// It was written, and this principal cannot tell or mend what it is now.
    Lost {
        /// What went wrong first.
        error: AwsError,
        /// Why it could not be put back.
        because: String,
        /// A write was answered with success; otherwise its answer was lost.
        certain: bool,
        /// Where the state as it was can be found.
        former: Former,
    },
    /// The run was stopped for this reason, and S3 did not answer in time: it is as it was, or
    /// as wanted.
    Abandoned(FailureReason),
    /// The write was answered with success, and the encryption is what it was.
    Ignored(Box<Readable>),
    /// It is as wanted and readable, but these things are not what they were.
    Changed(Box<Readable>, Vec<&'static str>),
}

/// Where a lost state can be found as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Former {
    /// In the version of this id.
    Version(String),
    /// In the object itself, re-encrypted in place: only the grant is missing.
    InPlace,
    /// Nowhere else: the bucket keeps no version of it, as far as is known.
    Nowhere,
}

impl Former {
    /// As a sentence without its full stop.
    pub fn describe(&self) -> String {
        match self {
            Self::Version(id) => format!("The state as it was is the version {}", printable(id)),
            Self::InPlace => {
                "Its bytes are those of before, under the wanted key: do not write this state until it \
                 can be read"
                    .to_owned()
            }
            Self::Nowhere => {
                "No version of it is known to be kept: do not write this state until it can be read"
                    .to_owned()
            }
        }
    }
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
    Unreadable(AwsError),
    /// Another writer has made it something that is not re-keyed.
    Unfit(&'static str),
    /// It was to be re-encrypted in place and no other way, which cannot be done.
    NotInPlace(String),
}
