//! Cancellation of a run.
//!
//! GitHub's runner sends SIGINT when a workflow is cancelled, SIGTERM 7.5 seconds later,
//! and gives up another 2.5 seconds after that (actions/runner, ProcessInvoker). So what
//! only looks stops at once, what writes gets a few seconds to end well, and the report is
//! written within seven.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::check::FailureReason;

/// How long a state in hand may take to be finished or restored.
const GRACE: Duration = Duration::from_secs(5);
/// When the report is written, whatever else goes on.
const LIMIT: Duration = Duration::from_secs(6);

/// What a cancelled run may take for each thing that it leaves behind: locks, check run.
const HASTE: Duration = Duration::from_millis(700);

/// Why a run is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A signal: the workflow was cancelled.
    Signal,
    /// The run has taken as long as it may (`time-limit`).
    TimeLimit,
}

impl From<Why> for FailureReason {
    fn from(why: Why) -> Self {
        match why {
            Why::Signal => Self::Cancelled,
            Why::TimeLimit => Self::TimeLimit,
        }
    }
}

/// Whether, and since when, the run is asked to stop.
#[derive(Debug, Clone)]
pub struct Cancelled(Arc<watch::Sender<Option<(Instant, Why)>>>);

impl Default for Cancelled {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Cancelled {
    /// Asks the run to stop.
    pub fn set(&self, why: Why) {
        self.0.send_if_modified(|since| {
            let first = since.is_none();
            since.get_or_insert_with(|| (Instant::now(), why));
            first
        });
    }

    /// Why it was asked to, if it was.
    pub fn why(&self) -> Option<Why> {
        self.0.borrow().map(|(_, why)| why)
    }

    /// The same, as the reason of a failure.
    pub fn reason(&self) -> FailureReason {
        self.why().map_or(FailureReason::Cancelled, FailureReason::from)
    }

    /// Whether it was asked to.
    pub fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Ends when the run is asked to stop: nothing that only looks goes on.
    pub async fn asked(&self) {
        self.since().await;
    }

    /// Ends when what is in hand must be let go.
    pub async fn grace_over(&self) {
        tokio::time::sleep_until(self.since().await + GRACE).await;
    }

    /// Ends shortly after the run is asked to stop: for what is done when all else is over.
    pub async fn haste_over(&self) {
        self.asked().await;
        tokio::time::sleep(HASTE).await;
    }

    /// Ends when the report has to be written.
    pub async fn time_over(&self) {
        tokio::time::sleep_until(self.since().await + LIMIT).await;
    }

    async fn since(&self) -> Instant {
        let mut receiver = self.0.subscribe();
        let since = receiver.wait_for(Option::is_some).await.ok().and_then(|since| *since);
        match since {
            Some((since, _)) => since,
            // The sender lives as long as this value.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_request_counts() {
        let cancelled = Cancelled::default();
        assert!(!cancelled.is_set());
        let other = cancelled.clone();
        let waits = tokio::spawn(async move {
            other.asked().await;
            let asked = Instant::now();
            other.grace_over().await;
            let grace = asked.elapsed();
            other.time_over().await;
            (grace, asked.elapsed())
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        cancelled.set(Why::TimeLimit);
        tokio::time::sleep(Duration::from_secs(2)).await;
        cancelled.set(Why::Signal);
        assert_eq!(cancelled.why(), Some(Why::TimeLimit));
        let (grace, all) = waits.await.unwrap();
        assert_eq!((grace.as_secs(), all.as_secs()), (5, 6));
    }
}
