//! The log, and workflow commands in it.
//!
//! The runner parses every line of stdout and stderr: `::command::` at the beginning of
//! a line, and the older `##[command]` anywhere in it. So each text is made one line
//! that holds neither.

use std::io::{self, Write};
use std::sync::Mutex;

use crate::names::is_deceptive;

/// The runner shows ten annotations of each kind for a step and drops the rest.
const ANNOTATIONS: usize = 10;
/// The runner cuts an annotation's message here (characters).
const MESSAGE_LIMIT: usize = 4096;

/// The kinds of annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Annotation {
    /// Red, and says why the step failed.
    Error,
    /// Yellow.
    Warning,
    /// Blue.
    Notice,
}

/// Writes the log.
pub struct Log {
    out: Mutex<State>,
}

struct State {
    sink: Box<dyn Write + Send>,
    shown: [usize; 3],
    group: bool,
}

impl Log {
    /// A log on standard output, where the runner reads it.
    pub fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    /// A log elsewhere.
    pub fn to(sink: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new(State { sink, shown: [0; 3], group: false }) }
    }

    /// Begins a group of lines that the runner folds; ends the one before.
    pub fn group(&self, title: &str) {
        self.end_group();
        self.with(|state| {
            state.group = true;
            state.line(&format!("::group::{}", escape_data(&neutral(title))));
        });
    }

    /// Ends the group.
    pub fn end_group(&self) {
        self.with(|state| {
            if std::mem::take(&mut state.group) {
                state.line("::endgroup::");
            }
        });
    }

    /// One or more plain lines.
    pub fn line(&self, text: &str) {
        self.with(|state| {
            for line in text.split('\n') {
                state.line(&neutral(line));
            }
        });
    }

    /// Has the runner replace a value by `***` wherever it shows from now on. The line
    /// itself is a command, which the runner does not show.
    pub fn mask(&self, secret: &str) {
        if !secret.trim().is_empty() {
            self.with(|state| state.line(&format!("::add-mask::{}", escape_data(secret))));
        }
    }

    /// An annotation on the workflow run. Past the runner's limit it becomes a plain line,
    /// so that nothing goes unsaid.
    pub fn annotate(&self, kind: Annotation, title: &str, message: &str) {
        self.with(|state| {
            let (at, command) = match kind {
                Annotation::Error => (0, "error"),
                Annotation::Warning => (1, "warning"),
                Annotation::Notice => (2, "notice"),
            };
            state.shown[at] += 1;
            if state.shown[at] > ANNOTATIONS {
                for line in format!("{command}: {title}: {message}").split('\n') {
                    state.line(&neutral(line));
                }
                return;
            }
            let text = shortened(message);
            let lines: Vec<String> = text.split('\n').map(neutral).collect();
            state.line(&format!(
                "::{command} title={}::{}",
                escape_property(&neutral(title)),
                escape_data(&lines.join("\n"))
            ));
        });
    }

    fn with(&self, act: impl FnOnce(&mut State)) {
        // A panic elsewhere while the lock was held is no reason to stop logging.
        act(&mut self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl State {
    fn line(&mut self, text: &str) {
        // There is nobody left to tell when standard output is closed.
        let _ = writeln!(self.sink, "{text}").and_then(|()| self.sink.flush());
    }
}

/// A message that the runner would cut, with a word on where the rest is.
fn shortened(message: &str) -> String {
    const REST: &str = " … (the rest is in the report)";
    if message.chars().count() <= MESSAGE_LIMIT {
        return message.to_owned();
    }
    let kept = message.chars().take(MESSAGE_LIMIT - REST.chars().count());
    kept.chain(REST.chars()).collect()
}

/// Makes a text one line in which the runner finds no command.
pub fn neutral(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| match c {
            '\t' => ' ',
            c if is_deceptive(c) => '\u{fffd}',
            c => c,
        })
        .collect();
    // The runner trims a line before it looks for `::`.
    let line = line.replace("##[", "#\u{200b}#[");
    match line.trim_start().strip_prefix("::") {
        Some(rest) => format!(":\u{200b}:{rest}"),
        None => line,
    }
}

/// Escapes a command's message (actions/toolkit `command.ts`, escapeData).
fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a command's property (escapeProperty).
fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(act: impl FnOnce(&Log)) -> String {
        let sink = Sink::default();
        act(&Log::to(Box::new(sink.clone())));
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn groups_close_by_themselves() {
        let text = logged(|log| {
            log.group("one");
            log.line("a\nb");
            log.group("two");
            log.end_group();
            log.end_group();
        });
        assert_eq!(text, "::group::one\na\nb\n::endgroup::\n::group::two\n::endgroup::\n");
    }

    #[test]
    fn annotations_are_escaped_and_counted() {
        let text = logged(|log| log.annotate(Annotation::Error, "a:b,c", "50%\nnext"));
        assert_eq!(text, "::error title=a%3Ab%2Cc::50%25%0Anext\n");
        let text = logged(|log| {
            for _ in 0..12 {
                log.annotate(Annotation::Warning, "t", "m");
            }
        });
        assert_eq!(text.lines().filter(|l| l.starts_with("::warning")).count(), 10);
        assert_eq!(text.lines().filter(|l| *l == "warning: t: m").count(), 2);
    }

    #[test]
    fn a_message_that_is_cut_says_so() {
        let of = |length| logged(|log| log.annotate(Annotation::Error, "t", &"ä".repeat(length)));
        assert!(of(MESSAGE_LIMIT).trim_end().ends_with("ää"));
        let cut = of(MESSAGE_LIMIT + 1);
        assert!(cut.trim_end().ends_with("ä … (the rest is in the report)"), "{cut}");
        let message = cut.trim_end().strip_prefix("::error title=t::").unwrap();
        assert_eq!(message.chars().count(), MESSAGE_LIMIT);
    }

    proptest! {
        #[test]
        fn no_text_becomes_a_command(text in "(?s)(.|::|##\\[|\\n|\\r|error|stop-commands){0,40}") {
            let out = logged(|log| log.line(&text));
            for line in out.split(['\n', '\r']) {
                prop_assert!(!line.trim().starts_with("::"), "{line:?}");
                prop_assert!(!line.contains("##["), "{line:?}");
            }
            let out = logged(|log| log.annotate(Annotation::Notice, &text, &text));
            prop_assert_eq!(out.matches(['\n', '\r']).count(), 1);
            prop_assert!(!out.contains("##["));
        }
    }
}
