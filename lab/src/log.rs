//! The request log, and what it says of waiting.

use std::collections::BTreeMap;
use std::time::Duration;

/// One request.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// `s3`, `kms`, `sts`, `iam` or `github`.
    pub service: &'static str,
    /// Such as `GetObject`.
    pub operation: String,
    /// The access key's principal, where the request was signed by a known one.
    pub principal: Option<String>,
    /// The object key or the KMS key.
    pub resource: Option<String>,
    /// The answer's status; 0 when there was none.
    pub status: u16,
    /// When it arrived, since the lab's start.
    pub start: Duration,
    /// When it was answered.
    pub end: Duration,
    /// The headers that decide something (`if-match`, `x-amz-…`).
    pub headers: BTreeMap<String, String>,
}

impl LogEntry {
    /// Whether it asks for a change of objects or keys.
    pub fn is_write(&self) -> bool {
        let reads = [
            "Get",
            "Head",
            "List",
            "Describe",
            "Encrypt",
            "Decrypt",
            "Generate",
            "ReEncrypt",
            "Assume",
            "Simulate",
        ];
        !reads.iter().any(|read| self.operation.starts_with(read))
    }
}

/// The longest chain of requests of which each began after the one before had ended: the
/// sequential round trips.
pub fn sequential_round_trips(log: &[LogEntry]) -> usize {
    let mut entries: Vec<&LogEntry> = log.iter().collect();
    entries.sort_by_key(|entry| entry.end);
    // The greedy choice of the earliest end gives the longest chain.
    let (mut chain, mut end) = (0, None);
    for entry in entries {
        if end.is_none_or(|end| entry.start >= end) {
            (chain, end) = (chain + 1, Some(entry.end));
        }
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_is_one_round_trip() {
        let entry = |start, end| LogEntry {
            service: "s3",
            operation: "GetObject".into(),
            principal: None,
            resource: None,
            status: 200,
            start: Duration::from_millis(start),
            end: Duration::from_millis(end),
            headers: BTreeMap::new(),
        };
        assert_eq!(sequential_round_trips(&[]), 0);
        let log = [entry(0, 10), entry(1, 11), entry(12, 20), entry(5, 25), entry(21, 30)];
        assert_eq!(sequential_round_trips(&log), 3);
    }
}
