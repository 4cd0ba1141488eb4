//! What a test can do to a request: delay it, fail it, cut it, or act just before it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::world::World;

/// Which request is meant.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The operation's name, such as `CopyObject`; `None` is any.
    pub operation: Option<String>,
    /// The object key; `None` is any.
    pub key: Option<String>,
    /// The first occurrence that is meant, from 1.
    pub from: u32,
    /// How many from there on.
    pub count: u32,
}

impl Matcher {
    /// Every request of an operation.
    pub fn every(operation: &str) -> Self {
        Self { operation: Some(operation.to_owned()), ..Self::any() }
    }

    /// Every request, whatever the service.
    pub fn any() -> Self {
        Self { operation: None, key: None, from: 1, count: u32::MAX }
    }

    /// Only for this object.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Only the nth occurrence.
    #[must_use]
    pub fn nth(mut self, nth: u32) -> Self {
        (self.from, self.count) = (nth, 1);
        self
    }

    /// The nth occurrence and all after it.
    #[must_use]
    pub fn from(mut self, nth: u32) -> Self {
        self.from = nth;
        self
    }
}

/// What happens to it.
pub enum Effect {
    /// It is answered with this error and not carried out.
    Fail {
        /// HTTP status.
        status: u16,
        /// The service's code.
        code: String,
        /// The message.
        message: String,
    },
    /// No answer ever comes; it is not carried out.
    Timeout,
    /// The connection is closed before it is carried out.
    ResetBefore,
    /// It is carried out, and the connection closed without an answer.
    ResetAfter,
    /// It is carried out, and the answer's body breaks off in the middle.
    Truncate,
    /// The world is changed just before it is carried out, as a concurrent writer would.
    Act(Box<dyn Fn(&mut World) + Send + Sync>),
    /// The world stands still from here on, for whoever waits for it to kill the client.
    Freeze(Freeze),
}

/// Where in a request the world begins to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before it is carried out.
    Before,
    /// After it was carried out, and before its answer.
    CarriedOut,
    /// After its answer.
    Answered,
}

/// The first request that is meant is carried out up to a moment; then someone is told.
/// The further ones are neither carried out nor answered.
pub struct Freeze {
    pub(crate) moment: Moment,
    begun: AtomicBool,
    told: Sender<()>,
}

impl Freeze {
    /// Whether this request is the first one.
    pub(crate) fn begins(&self) -> bool {
        !self.begun.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn tell(&self) {
        // Nobody may be waiting any more.
        let _ = self.told.send(());
    }
}

impl Effect {
    /// An error without much of a message.
    pub fn fail(status: u16, code: &str) -> Self {
        Self::Fail { status, code: code.to_owned(), message: format!("injected {code}") }
    }

    /// A standstill, and what tells of its beginning.
    pub fn freeze(moment: Moment) -> (Self, Receiver<()>) {
        let (told, listener) = channel();
        (Self::Freeze(Freeze { moment, begun: AtomicBool::new(false), told }), listener)
    }
}

pub(crate) struct Fault {
    pub matcher: Matcher,
    pub effect: std::sync::Arc<Effect>,
    seen: u32,
}

impl Fault {
    pub(crate) fn new(matcher: Matcher, effect: Effect) -> Self {
        Self { matcher, effect: std::sync::Arc::new(effect), seen: 0 }
    }

    /// Whether this request is meant; counts it.
    pub(crate) fn hits(&mut self, operation: &str, key: Option<&str>) -> bool {
        let matcher = &self.matcher;
        if matcher.operation.as_deref().is_some_and(|wanted| wanted != operation)
            || matcher.key.as_deref().is_some_and(|wanted| Some(wanted) != key)
        {
            return false;
        }
        self.seen += 1;
        self.seen >= matcher.from && self.seen - matcher.from < matcher.count
    }
}
