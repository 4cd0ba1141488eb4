//! Secrets that must not be found in anything that a run leaves.

use anyhow::{Result, ensure};
use aws_lab::{Effect, Matcher};

use super::way::{Way, With, files};
use super::{Bounds, Part, defects, each, keys, table};
use crate::common::CANARY;
use crate::common::bench::Bench;

const MODES: [&str; 9] = [
    "backend",
    "plan",
    "apply",
    "verify",
    "rollback",
    "create-key",
    "retire-key",
    "recover-key",
    "revoke",
];
/// What happens to every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Every {
    Answered,
    Refused,
    Failed,
    Reset,
    Truncated,
}

const EVERY: [(Every, &str); 5] = [
    (Every::Answered, "is answered"),
    (Every::Refused, "is refused (403)"),
    (Every::Failed, "fails (500)"),
    (Every::Reset, "is carried out and reset"),
    (Every::Truncated, "is answered by half"),
];

impl Every {
    fn effect(self) -> Option<Effect> {
        match self {
            Self::Answered => None,
            Self::Refused => Some(Effect::fail(403, "AccessDenied")),
            Self::Failed => Some(Effect::fail(500, "InternalError")),
            Self::Reset => Some(Effect::ResetAfter),
            Self::Truncated => Some(Effect::Truncate),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    mode: &'static str,
    every: Every,
    /// GITHUB_ACTIONS: there the runner is told what to mask.
    on_github: bool,
}

/// As it is, and as Rust prints bytes.
fn forms(secret: &str) -> [String; 3] {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{bytes:?}");
    [secret.to_owned(), hex, list.trim_matches(['[', ']']).to_owned()]
}

fn all_secrets(bench: &Bench) -> Vec<String> {
    let mut secrets = bench.lab.secrets();
    secrets.push(CANARY.to_owned());
    secrets
}

fn shows(bytes: &[u8], secret: &str) -> bool {
    let found = |form: &String| bytes.windows(form.len()).any(|part| part == form.as_bytes());
    forms(secret).iter().any(found)
}

/// Neither what a run printed nor a file that it left has a secret. Returns how many bytes
/// were searched.
pub fn not_shown(bench: &Bench, log: &str) -> Result<usize> {
    let lines = log.lines().filter(|line| !line.starts_with("::add-mask::"));
    let printed = lines.collect::<Vec<_>>().join("\n").into_bytes();
    let folder = bench.workspace.path();
    let mut places = vec![("(printed)".to_owned(), printed)];
    for file in files(folder) {
        let bytes = std::fs::read(folder.join(&file))?;
        places.push((file, bytes));
    }
    let secrets = all_secrets(bench);
    for (place, bytes) in &places {
        let shown = secrets.iter().position(|secret| shows(bytes, secret));
        ensure!(shown.is_none(), "secret no. {shown:?} is in {place}");
    }
    Ok(places.iter().map(|(_, bytes)| bytes.len()).sum())
}

/// Runs the mode and searches all that it left.
async fn searched(case: Case) -> Result<usize> {
    let before = if ["verify", "rollback"].contains(&case.mode) { "rollback" } else { "apply" };
    let way = Way { mode: before, with: With::Guards, in_place: false };
    let bench = way.bench().await;
    ensure!(shows(&bench.body(crate::common::KEYS[0]), CANARY), "no canary in the state");
    if let Some(effect) = case.every.effect() {
        bench.lab.inject(Matcher::any(), effect);
    }
    let of_a_key = Way { mode: case.mode, ..way }.is_of_a_key();
    let mut variables = match of_a_key {
        true => keys::variables(&bench, case.mode),
        false => way.variables(&bench),
    };
    let key = if case.mode == "rollback" || of_a_key { "" } else { &bench.key };
    let debug = [("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full"), ("RUNNER_DEBUG", "1")];
    let debug = debug.into_iter().chain([("ACTIONS_STEP_DEBUG", "true")]);
    for (name, value) in debug.chain([("INPUT_MODE", case.mode), ("STATE_KMS_KEY_ID", key)]) {
        variables.retain(|(given, _)| given != name);
        variables.push((name.into(), value.into()));
    }
    if case.on_github {
        variables.push(("GITHUB_ACTIONS".into(), "true".into()));
    }
    let ran = tokio::task::block_in_place(|| bench.workspace.run(&variables));
    if case.every == Every::Answered {
        ensure!(ran.code == 0, "the run failed\n{}", ran.log);
    }
    ensure!(ran.output("failure-reason") != "internal", "internal\n{}", ran.log);
    if !case.on_github {
        ensure!(!ran.log.contains("::add-mask::"), "masks where nobody masks");
    }
    not_shown(&bench, &ran.log)
}

/// Every mode, whatever happens to its requests.
pub async fn part(bounds: Bounds) -> Result<Part> {
    let mut cases = Vec::new();
    for (every, _) in EVERY {
        for mode in MODES {
            cases.extend([false, true].map(|on_github| Case { mode, every, on_github }));
        }
    }
    // A stride that is prime to the number of modes, so that it meets each.
    let stride = bounds.stride.min(5);
    let cases = Bounds { stride, ..bounds }.of(cases);
    for (mode, on_github) in MODES.iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let met = cases.iter().any(|case| case.mode == *mode && case.on_github == on_github);
        ensure!(met, "{mode} is never tried (on GitHub: {on_github})");
    }
    let outcomes = each(cases, 6, searched).await;
    let rows: Vec<Vec<String>> = EVERY
        .iter()
        .map(|(every, name)| {
            let own: Vec<_> = outcomes.iter().filter(|(case, _)| case.every == *every).collect();
            let bytes: Vec<usize> =
                own.iter().filter_map(|(_, bytes)| bytes.as_ref().ok().copied()).collect();
            vec![
                (*name).to_owned(),
                own.len().to_string(),
                bytes.iter().sum::<usize>().to_string(),
                (own.len() - bytes.len()).to_string(),
            ]
        })
        .collect();
    let head = ["every request", "runs", "bytes searched", "runs that show a secret"];
    let text = format!(
        "Secrets: a value in the state bodies; secret keys and session tokens, those of the probe's \
         session too; the OIDC token, and the token that it is had with; `github-token`. Searched: all \
         that was printed and every file in the workspace (report, outputs, summary, backend files, \
         statements), for the text, its hexadecimal form and its list of bytes. Every mode, with \
         `RUST_LOG=trace`, `RUNNER_DEBUG=1` and `RUST_BACKTRACE=full`, with `GITHUB_ACTIONS=true` and \
         without; the `::add-mask::` lines, by which the runner learns what to mask, are left out, and \
         exist on GitHub only.\n\n{}",
        table(&head, &rows)
    );
    Ok(Part { title: "Canary", text, defects: defects(&outcomes) })
}

/// The search finds what it searches for.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_each_form() {
        for text in ["a hunter2 b", "0168756e74657232", "[1, 104, 117, 110, 116, 101, 114, 50, 2]"]
        {
            assert!(shows(text.as_bytes(), "hunter2"), "{text}");
        }
        assert!(!shows(b"hunter", "hunter2"));
    }
}
