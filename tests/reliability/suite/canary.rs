//! Secrets that must not be found in anything that a run leaves.

use anyhow::{Result, ensure};
use aws_lab::{Effect, Matcher};
use aws_smithy_types::base64;

use super::way::{Way, With, files};
use super::{Bounds, Part, defects, each, keys, table};
use crate::common::bench::Bench;
use crate::common::{BUCKET, CANARY, KEYS};

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
    /// GitHub is as usual: the check run shows the failure.
    NoneRead,
    Refused,
    Failed,
    Reset,
    Truncated,
}

const EVERY: [(Every, &str); 6] = [
    (Every::Answered, "is answered"),
    (Every::NoneRead, "is answered, but to read (403)"),
    (Every::Refused, "is refused (403)"),
    (Every::Failed, "fails (500)"),
    (Every::Reset, "is carried out and reset"),
    (Every::Truncated, "is answered by half"),
];

impl Every {
    fn matcher(self) -> Matcher {
        if self == Self::NoneRead { Matcher::every("GetObject") } else { Matcher::any() }
    }

    fn effect(self) -> Option<Effect> {
        match self {
            Self::Answered => None,
            Self::NoneRead | Self::Refused => Some(Effect::fail(403, "AccessDenied")),
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

impl Case {
    /// It takes locks, or ends its check run red.
    fn posts_and_locks(&self) -> bool {
        self.mode == "apply" && matches!(self.every, Every::Answered | Every::NoneRead)
    }
}

/// As it is, as Rust prints bytes, and in base64, in which it looks otherwise at each of three
/// places and with the alphabet for URLs.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{bytes:?}");
    let mut forms = vec![secret.to_owned(), hex, list.trim_matches(['[', ']']).to_owned()];
    for before in 0..3 {
        let text = base64::encode([&vec![0; before], bytes].concat());
        // Without the characters that its neighbours have a part in.
        let own = &text[(8 * before).div_ceil(6)..8 * (before + bytes.len()) / 6];
        forms.extend([own.to_owned(), own.replace('+', "-").replace('/', "_")]);
    }
    forms
}

fn all_secrets(bench: &Bench) -> Vec<String> {
    let mut secrets = bench.lab.secrets();
    secrets.push(CANARY.to_owned());
    secrets
}

/// Which of the forms is among the bytes.
fn shows(bytes: &[u8], forms: &[String]) -> bool {
    // The windows of a long text by each form's length take their time in a debug build.
    let text = String::from_utf8_lossy(bytes);
    forms.iter().any(|form| text.contains(form.as_str()))
}

/// Neither what a run printed nor a file that it left has a secret, nor what it told GitHub or
/// wrote into a lock. Returns how many bytes were searched.
pub fn not_shown(bench: &Bench, log: &str) -> Result<usize> {
    let lines = log.lines().filter(|line| !line.starts_with("::add-mask::"));
    let printed = lines.collect::<Vec<_>>().join("\n").into_bytes();
    let folder = bench.workspace.path();
    let mut places = vec![("(printed)".to_owned(), printed)];
    for file in files(folder) {
        let bytes = std::fs::read(folder.join(&file))?;
        places.push((file, bytes));
    }
    places.extend(told(bench));
    let secrets = all_secrets(bench);
    let forms: Vec<_> = secrets.iter().map(|secret| forms(secret)).collect();
    for (place, bytes) in &places {
        let shown = forms.iter().position(|forms| shows(bytes, forms));
        ensure!(shown.is_none(), "secret no. {shown:?} is in {place}");
    }
    Ok(places.iter().map(|(_, bytes)| bytes.len()).sum())
}

/// What has gone out to be seen: check runs, and the locks' bodies, those of released ones too.
fn told(bench: &Bench) -> Vec<(String, Vec<u8>)> {
    let world = bench.lab.world();
    let checks = world.github.check_runs.iter();
    let mut told: Vec<_> =
        checks.map(|one| ("a check run".to_owned(), one.to_string().into_bytes())).collect();
    for key in KEYS {
        let lock = format!("{key}.tflock");
        let bodies = world.versions(BUCKET, &lock).iter().map(|one| one.body.to_vec());
        told.extend(bodies.map(|body| (lock.clone(), body)));
    }
    told
}

/// What of that there has been.
#[derive(Debug, Clone, Copy, Default)]
struct Searched {
    bytes: usize,
    locks: usize,
    green_checks: usize,
    red_checks: usize,
}

/// Runs the mode and searches all that it left.
async fn searched(case: Case) -> Result<Searched> {
    let before = if ["verify", "rollback"].contains(&case.mode) { "rollback" } else { "apply" };
    let way = Way { mode: before, with: With::Guards, in_place: false };
    let bench = way.bench().await;
    ensure!(shows(&bench.body(KEYS[0]), &forms(CANARY)), "no canary in the state");
    if let Some(effect) = case.every.effect() {
        bench.lab.inject(case.every.matcher(), effect);
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
    if !of_a_key {
        variables.push(("INPUT_LOCK".into(), "s3".into()));
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
    let bytes = not_shown(&bench, &ran.log)?;
    let world = bench.lab.world();
    let concluded =
        |how: &str| world.github.check_runs.iter().filter(|one| one["conclusion"] == how).count();
    let locks = world.versions(BUCKET, &format!("{}.tflock", KEYS[0])).len();
    // A re-key leaves versions behind that are readable without the key: `partly`.
    let green_checks = concluded("success") + concluded("neutral");
    let red_checks = concluded("failure");
    Ok(Searched { bytes, locks, green_checks, red_checks })
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
    let always: Vec<Case> = cases.iter().filter(|case| case.posts_and_locks()).copied().collect();
    let mut cases = Bounds { stride, ..bounds }.of(cases);
    cases.retain(|case| !case.posts_and_locks());
    cases.extend(always);
    for (mode, on_github) in MODES.iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let met = cases.iter().any(|case| case.mode == *mode && case.on_github == on_github);
        ensure!(met, "{mode} is never tried (on GitHub: {on_github})");
    }
    let outcomes = each(cases, 16, searched).await;
    let all = || outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok());
    for (what, of) in [
        ("lock", (|one| one.locks) as fn(&Searched) -> usize),
        ("green check run", |one| one.green_checks),
        ("red check run", |one| one.red_checks),
    ] {
        ensure!(all().any(|one| of(one) > 0), "no {what} was searched");
    }
    let rows: Vec<Vec<String>> = EVERY
        .iter()
        .map(|(every, name)| {
            let own: Vec<_> = outcomes.iter().filter(|(case, _)| case.every == *every).collect();
            let bytes: Vec<usize> =
                own.iter().filter_map(|(_, one)| Some(one.as_ref().ok()?.bytes)).collect();
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
         that was printed, every file in the workspace (report, outputs, summary, backend files, \
         statements), the check runs and the locks' bodies, for the text, its hexadecimal form, its list \
         of bytes and its base64 (both alphabets, at each of three places). Every mode, with \
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
        let secret = "hunter2?>";
        let forms = forms(secret);
        let mut texts = vec![
            "a hunter2?> b".to_owned(),
            "0168756e746572323f3e".to_owned(),
            "[1, 104, 117, 110, 116, 101, 114, 50, 63, 62, 2]".to_owned(),
        ];
        for before in ["", "a", "bc", "def"] {
            let text = base64::encode(format!("{before}{secret}, and more"));
            texts.extend([text.replace('+', "-").replace('/', "_"), text]);
        }
        for text in texts {
            assert!(shows(text.as_bytes(), &forms), "{text}");
        }
        assert!(!shows(b"hunter2", &forms) && !shows(b"aHVudGVy", &forms));
    }
}
