//! What a test can do to a request: delay it, fail it, cut it, or act just before it.

use crate::world::World;

/// Which request is meant.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The operation's name, such as `CopyObject`.
    pub operation: String,
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
        Self { operation: operation.to_owned(), key: None, from: 1, count: u32::MAX }
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
}

impl Effect {
    /// An error without much of a message.
    pub fn fail(status: u16, code: &str) -> Self {
        Self::Fail { status, code: code.to_owned(), message: format!("injected {code}") }
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
        if matcher.operation != operation
            || matcher.key.as_deref().is_some_and(|wanted| Some(wanted) != key)
        {
            return false;
        }
        self.seen += 1;
        self.seen >= matcher.from && self.seen - matcher.from < matcher.count
    }
}
