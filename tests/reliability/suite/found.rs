//! What this has found, and how it was mended. An input is tried again with each run; the
//! other cases are among those of the tables.

use super::{Part, fuzz, table};

/// Something found.
struct Found {
    what: &'static str,
    /// The part and the case in it.
    by: &'static str,
    mended: &'static str,
}

const FOUND: [Found; 13] = [
    Found {
        what: "A run that was killed while it wrote a backend.tf left a temporary file, each time another one",
        by: "crash points: between two requests",
        mended: "The file beside has one name, and the next run takes it away",
    },
    Found {
        what: "After a kill with several locks each further run named one of them, and none once its states were re-keyed",
        by: "crash points: `apply` with `lock: s3`",
        mended: "All are named, also those of states that need nothing more",
    },
    Found {
        what: "A run that was killed before it had put an unreadable state back left the operator without the version to go back to",
        by: "crash points: `apply`, unreadable and restored",
        mended: "The next run names the version, with the command",
    },
    Found {
        what: "A service that was out of order was reported as another writer (`concurrent-writes`)",
        by: "faults: `CopyObject`, 500, 503 and an error in a 200, every time",
        mended: "Where the object is the same all the time, the service's own error is the reason",
    },
    Found {
        what: "A cancellation was not heeded while the check run was completed",
        by: "faults: `UpdateCheckRun`, no answer, SIGINT",
        mended: "Locks and check run get 0.7 s of a cancelled run",
    },
    Found {
        what: "S3 was not asked again after a 429, which other servers send where S3 sends 503",
        by: "faults: 429",
        mended: "A 429 is retried as a throttling is",
    },
    Found {
        what: "An in-place call without an answer was repeated in place",
        by: "faults: `UpdateObjectEncryption`, no answer",
        mended: "A state that is as it was is copied",
    },
    Found {
        what: "A lock whose writing a proxy answered with 520 stayed behind, unsaid",
        by: "faults: `PutObject` of a lock, 520 after the deed",
        mended: "A status that is not S3's leaves open whether something was written: the lock is looked for and released",
    },
    Found {
        what: "A check run stayed open for good after one 502",
        by: "faults: `UpdateCheckRun`, 500, 520, truncated",
        mended: "A PATCH is sent again as a GET is",
    },
    Found {
        what: "The time of a read was that of its entry in the report, when the version could be another one already",
        by: "races: the version was not the current one at the time in the report",
        mended: "It is taken when the answer comes",
    },
    Found {
        what: "Characters that turn the direction of writing (U+202E and its like) were shown, so that a text could look like another",
        by: "hostile input: summaries, logs, lock files",
        mended: "They are replaced wherever a text from outside is shown",
    },
    Found {
        what: "Large futures overflowed a thread's stack in an unoptimised build",
        by: "all parts run that build",
        mended: "The largest are boxed, and threads have 16 MiB",
    },
    Found {
        what: "Terraform gives up at a lock that is released between its refusal and its look at the holder, whatever its `-lock-timeout`",
        by: "Terraform beside the action, with the S3 lock",
        mended: "Terraform's own, which the loop runs again; the action asks again for a lock that is gone",
    },
];

/// Of the targets of hostile input, those that did not keep what they promise, with the text.
const INPUTS: [(&str, &str); 4] = [
    ("summaries (Markdown)", "| a \u{202e}f | `b`"),
    ("summaries (Markdown)", "```\n\u{202e}```mermaid"),
    ("the log, workflow commands", "a\u{202e}b\u{2066}c"),
    ("lock files", "{\"ID\":\"\u{202e}1\",\"Who\":\"root\u{202e}@vm\"}"),
];

/// The list, after another try of the inputs.
pub fn part() -> Part {
    let rows: Vec<Vec<String>> = FOUND
        .iter()
        .map(|Found { what, by, mended }| [what, by, mended].map(|&text| text.to_owned()).to_vec())
        .collect();
    let text = format!(
        "The {} inputs among it are tried again by each run; the other cases are among those above.\n\n{}",
        INPUTS.len(),
        table(&["what was found", "by", "what has become of it"], &rows)
    );
    let again = INPUTS.iter().filter_map(|(reads, text)| fuzz::again(reads, text));
    Part { title: "Found by this and mended", text, defects: again.collect() }
}
