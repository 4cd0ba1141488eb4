//! What a test can do to a request: delay it, fail it, cut it, or act just before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

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
    /// It is carried out, and answered with this error all the same.
    FailAfter {
        /// HTTP status.
        status: u16,
        /// The service's code.
        code: String,
    },
    /// No answer ever comes; it is not carried out.
    Timeout,
    /// It is carried out, and answered, only after this time: also where the client has gone.
    Late(Duration),
    /// The connection is closed before it is carried out.
    ResetBefore,
    /// It is carried out, and the connection closed without an answer.
    ResetAfter,
    /// It is carried out, and the answer breaks off in the middle of its body, or of its head
    /// where it has none.
    Truncate,
    /// It is carried out, and the answer stops there, and the connection stays open.
    Stall,
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

    /// An error after the deed.
    pub fn fail_after(status: u16, code: &str) -> Self {
        Self::FailAfter { status, code: code.to_owned() }
    }

    /// A standstill, and what tells of its beginning.
    pub fn freeze(moment: Moment) -> (Self, Receiver<()>) {
        let (told, listener) = channel();
        (Self::Freeze(Freeze { moment, begun: AtomicBool::new(false), told }), listener)
    }
}

/// How often a fault has struck.
#[derive(Debug, Clone, Default)]
pub struct Struck(Arc<AtomicU32>);

impl Struck {
    /// So many requests.
    pub fn times(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) struct Fault {
    matcher: Matcher,
    effect: Arc<Effect>,
    seen: u32,
    struck: Struck,
}

impl Fault {
    pub(crate) fn new(matcher: Matcher, effect: Effect) -> (Self, Struck) {
        let struck = Struck::default();
        let effect = Arc::new(effect);
        (Self { matcher, effect, seen: 0, struck: struck.clone() }, struck)
    }

    /// Whether this request is meant; counts it.
    pub(crate) fn is_due(&mut self, operation: &str, key: Option<&str>) -> bool {
        let matcher = &self.matcher;
        if matcher.operation.as_deref().is_some_and(|wanted| wanted != operation)
            || matcher.key.as_deref().is_some_and(|wanted| Some(wanted) != key)
        {
            return false;
        }
        self.seen += 1;
        self.seen >= matcher.from && self.seen - matcher.from < matcher.count
    }

    /// It is somebody's act, which is no request's fate.
    pub(crate) fn acts(&self) -> bool {
        matches!(*self.effect, Effect::Act(_))
    }

    /// Has its effect.
    pub(crate) fn strike(&self) -> Arc<Effect> {
        self.struck.0.fetch_add(1, Ordering::SeqCst);
        self.effect.clone()
    }
}
