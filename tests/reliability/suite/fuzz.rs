//! Hostile input: everything that reads a text from outside gets mutations of real ones, and
//! must neither panic nor let them become more than text.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Result;
use tfstate_kms::backend::{self, BackendConfig, BackendFormat, Syntax, Value};
use tfstate_kms::check::{Failure, FailureReason};
use tfstate_kms::github::{Annotation, Log, write_outputs};
use tfstate_kms::inputs::{self, Environment};
use tfstate_kms::key_policy;
use tfstate_kms::layout::{Layout, Names};
use tfstate_kms::lock::LockInfo;
use tfstate_kms::names::KeyArn;
use tfstate_kms::policies::Policy;
use tfstate_kms::principal::Principal;
use tfstate_kms::report::{self, Report};
use tfstate_kms::survey::Document;

use super::answers;
use super::races::Random;
use super::{Bounds, Part, table};

const ARN: &str = "arn:aws:kms:us-east-1:111111111111:key/5c0ffee1-2222-4333-8444-555555555555";

/// Real texts that the mutations begin with.
const CORPUS: [&str; 17] = [
    ARN,
    "arn:aws-us-gov:kms:us-gov-west-1:111111111111:key/mrk-1234abcd12ab34cd56ef1234567890ab",
    "terraform {\n  backend \"s3\" {\n    bucket = \"b\"\n    key = \"k\"\n    region = \"us-east-1\"\n    encrypt = true\n    kms_key_id = \"x\"\n  }\n}\n",
    "bucket = \"b\"\nkey    = \"k\" # c\nregion = var.region\nassume_role = { role_arn = \"x\" }\n",
    r#"{"version":4,"terraform_version":"1.11.4","serial":7,"lineage":"a-b","outputs":{},"resources":[]}"#,
    r#"{"ID":"f1af2b35","Operation":"OperationTypeApply","Info":"","Who":"root@vm","Version":"1.11.4","Created":"2026-11-24T03:35:02Z","Path":"b/k"}"#,
    r#"{"Version":"2012-10-17","Statement":[{"Sid":"A","Effect":"Allow","Principal":{"AWS":["arn:aws:iam::222222222222:role/cicd","111111111111"]},"Action":["kms:*"],"Resource":"*","Condition":{"StringLike":{"kms:ViaService":"s3.*"}}},{"Effect":"Deny","NotPrincipal":{"AWS":"x"},"NotAction":"s3:Get*","NotResource":"*"}]}"#,
    "{environment}/{module}.tfstate\ndns={environment}-bootstrap\nenv:/*\n{workspace}",
    "infra dns,core\nnetwork",
    "::error title=x::y\n##[error]z\r::set-output name=a::b",
    "EOF\nname=value\nname<<EOF\n",
    "| a | <img src=x onerror=alert(1)> | `b` [c](javascript:d) **e** \u{202e}f ```\n```mermaid",
    "User: arn:aws:sts::222222222222:assumed-role/cicd/run is not authorized to perform: kms:Decrypt on resource: x because no resource-based policy allows the kms:Decrypt action",
    r#"{"total_count":1,"workflow_runs":[{"id":1,"path":".github/workflows/infra.yml@refs/heads/main","status":"queued","head_branch":"main","run_started_at":"2026-11-24T03:35:02Z","html_url":"https://github.com/o/r/actions/runs/1"}]}"#,
    r#"{"total_count":1,"jobs":[{"id":1,"status":"in_progress","conclusion":null,"started_at":"2026-11-24T03:35:02Z","runner_name":"r","steps":[{"name":"a","status":"in_progress"}]}]}"#,
    r#"<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>User: x is not authorized to perform: kms:Decrypt</Message><RequestId>R</RequestId></Error>"#,
    r#"{"__type":"com.amazonaws.kms#DryRunOperationException","message":"The request would have succeeded"}"#,
];

/// Pieces that mean something to somebody.
const PIECES: [&str; 30] = [
    "::",
    "##[",
    "]",
    "\n",
    "\r\n",
    "\0",
    "${",
    "%{",
    "\"",
    "\\",
    "'",
    "`",
    "```",
    "|",
    "<",
    ">",
    "&",
    "{",
    "}",
    "[",
    "*",
    "..",
    "/",
    "<<EOF",
    "=",
    "%0A",
    "\u{2028}",
    "\u{feff}",
    "arn:aws:iam::111111111111:root",
    "99999999999999999999",
];

/// A text that somebody hostile might send.
fn hostile(random: &mut Random) -> String {
    let at = |random: &mut Random, length: usize| random.below(length as u64 + 1) as usize;
    let mut bytes = CORPUS[random.below(CORPUS.len() as u64) as usize].as_bytes().to_vec();
    for _ in 0..=random.below(8) {
        let place = at(random, bytes.len());
        match random.below(6) {
            0 => bytes.truncate(place),
            1 => {
                let piece = PIECES[random.below(PIECES.len() as u64) as usize];
                bytes.splice(place..place, piece.bytes());
            }
            2 if place < bytes.len() => bytes[place] = random.below(256) as u8,
            3 if place < bytes.len() => {
                bytes.remove(place);
            }
            4 => {
                let other = CORPUS[random.below(CORPUS.len() as u64) as usize].as_bytes();
                let from = at(random, other.len());
                bytes.splice(place..place, other[from..].iter().copied());
            }
            _ => {
                let end = at(random, bytes.len() - place) + place;
                let part = bytes[place..end].to_vec();
                bytes.splice(place..place, part);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is tried, and what must hold. A broken promise panics.
type Target = (&'static str, fn(&str));

const TARGETS: [Target; 11] = [
    ("key ARNs", |text| {
        if let Ok(arn) = KeyArn::parse(text) {
            assert_eq!(arn.as_str(), text);
            assert!(text.starts_with("arn:") && !text.contains(char::is_whitespace));
        }
    }),
    ("inputs, state keys", |text| {
        for name in [
            "INPUT_KMS-KEY-ID",
            "INPUT_STATE-KEYS",
            "INPUT_MODULES",
            "INPUT_REPORT-PATH",
            "INPUT_REGION",
            "INPUT_MODE",
        ] {
            let environment = Environment::from([
                ("INPUT_BUCKET", "bucket"),
                ("INPUT_ENVIRONMENT", "e"),
                (name, text),
            ]);
            let (result, _) = inputs::resolve(&environment);
            if let Err(refused) = &result {
                assert!(refused.problems.iter().all(|problem| !problem.to_string().contains('\n')));
            }
            if let Ok(request) = result {
                assert!(
                    request.report_path.is_relative() && !request.report_path.starts_with("..")
                );
            }
        }
        let lines: Vec<&str> = text.lines().collect();
        let _ = Layout::from_templates(
            &lines,
            &["infra".into()],
            Names { environment: "e", workspace: None },
        );
    }),
    ("backend files (HCL)", |text| {
        for format in [BackendFormat::Tf, BackendFormat::TfBackend] {
            let config = BackendConfig {
                bucket: "b".into(),
                key: text.into(),
                region: text.into(),
                kms_key_id: Some(text.into()),
                encrypt: false,
                acl: None,
                use_lockfile: true,
                workspace_key_prefix: None,
            };
            for syntax in [format.into(), Syntax::Json] {
                if let Ok(existing) = backend::parse(text, syntax) {
                    let _ = backend::differences(&config, &existing, Some("us-east-1"));
                }
                // What an edit cannot set alone it does not set.
                let changes = [("kms_key_id", Some(Value::String("k".into()))), ("encrypt", None)];
                if let Some(edited) = backend::edit(text, syntax, &changes) {
                    let said = backend::parse(&edited, syntax).unwrap();
                    assert_eq!(said.attributes.get("kms_key_id"), changes[0].1.as_ref());
                }
            }
            // Whatever a value holds, it comes back as that value and as nothing else.
            if !text.contains('\0') {
                let written =
                    backend::parse(&backend::render(&config, format), format.into()).unwrap();
                assert!(backend::differences(&config, &written, None).is_empty(), "{written:?}");
            }
        }
    }),
    ("states", |text| {
        if let Some(document) = Document::parse(text.as_bytes()) {
            assert!(!document.lineage.contains('\n'));
        }
    }),
    ("lock files", |text| {
        if let Some(info) = LockInfo::parse(text.as_bytes()) {
            let holder = info.holder();
            assert!(!holder.contains('\n') && !holder.chars().any(turns_writing), "{holder}");
        }
    }),
    ("policies", |text| {
        let who = Principal::of_arn("arn:aws:iam::222222222222:role/cicd");
        if let Some(policy) = Policy::parse(text) {
            let _ = policy.reach("kms:Decrypt", &who);
            let _ = policy.width(&KeyArn::parse(ARN).unwrap());
            let _ = policy.denies_write("arn:aws:s3:::b/k", &[("x-amz-acl", text)], Some(&who));
        }
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
            let wanted = key_policy::wanted(
                "aws",
                "111111111111",
                std::slice::from_ref(&who.arn),
                key_policy::Usage::Direct,
            );
            if value.is_object() {
                let granted = key_policy::grant(&value, &wanted);
                assert!(key_policy::lacking(&granted, &wanted).is_empty(), "{granted}");
                if let Ok(revoked) = key_policy::revoke(&granted, &who) {
                    assert!(!key_policy::administrators(&revoked.policy).is_empty());
                }
            }
        }
    }),
    ("output files", |text| {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_outputs(file.path(), &[("one", text.to_owned()), ("two", "2".into())]).unwrap();
        let written = std::fs::read_to_string(file.path()).unwrap();
        let (first, rest) = written.split_once('\n').unwrap();
        let delimiter = first.strip_prefix("one<<").unwrap();
        assert_eq!(rest.split_once(&format!("\n{delimiter}\n")).unwrap().0, text);
    }),
    ("the log, workflow commands", |text| {
        let sink = Sink::default();
        let log = Log::to(Box::new(sink.clone()));
        log.line(text);
        log.group(text);
        log.annotate(Annotation::Error, text, text);
        let out = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(!out.chars().any(turns_writing), "the direction of writing is turned: {out}");
        for line in out.split(['\n', '\r']) {
            assert!(!line.contains("##["), "{line:?}");
            let command = line.trim_start().starts_with("::");
            assert!(
                !command || line.starts_with("::error title=") || line.starts_with("::group::"),
                "{line:?}"
            );
        }
        assert_eq!(out.lines().filter(|line| line.starts_with("::error ")).count(), 1);
    }),
    ("summaries (Markdown)", |text| {
        let mut report = Report::new();
        report.environment = Some(text.into());
        report.warnings.push(text.into());
        report.failures.push(Failure::new(FailureReason::Drift, text, text));
        let out = report::markdown(&report, text, report::JOB_SUMMARY);
        assert!(out.len() < report::JOB_SUMMARY);
        let outside = outside_of_fences(&out);
        assert!(!outside.contains("<img") && !outside.contains("](java"), "{out}");
        assert!(!out.chars().any(turns_writing), "the direction of writing is turned: {out}");
    }),
    ("AWS's answers", answers::aws),
    ("GitHub's answers", answers::github),
];

/// Unicode UAX #9: by these a text can look like another.
fn turns_writing(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The lines that are no code (CommonMark: a fence ends with one at least as long).
fn outside_of_fences(text: &str) -> String {
    let ticks = |line: &str| line.chars().take_while(|c| *c == '`').count();
    let (mut open, mut outside) = (0, String::new());
    for line in text.split('\n') {
        match (open, ticks(line)) {
            (0, 0..=2) => outside.push_str(line),
            (0, length) => open = length,
            (fence, length) if length >= fence && line.trim_end().len() == length => open = 0,
            _ => {}
        }
    }
    assert_eq!(open, 0, "a fence stays open: {text}");
    outside
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Tries an input; why it broke a promise.
fn broken(target: fn(&str), text: &str) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| target(text))).err()?;
    let said = panic.downcast_ref::<String>().cloned();
    Some(said.or(panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default())
}

/// Why an input breaks the promise of this target.
pub fn again(name: &str, text: &str) -> Option<String> {
    // A name with a slip in it would try nothing.
    let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else {
        return Some(format!("there is no target {name}"));
    };
    broken(*target, text).map(|why| format!("{name}: {why}\nwith {text:?}"))
}

/// Each target for an equal part of the time.
pub async fn part(bounds: Bounds) -> Result<Part> {
    let each = Duration::from_secs(bounds.seconds) / TARGETS.len() as u32;
    let (mut rows, mut defects, mut all) = (Vec::new(), Vec::new(), 0);
    let seed = UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    for (at, (name, target)) in TARGETS.iter().enumerate() {
        let (began, mut tried, mut crashes) = (Instant::now(), 0_u64, 0);
        // Other inputs each time; one that breaks a promise is shown whole.
        let mut random = Random::new(seed ^ (at as u64 + 1));
        while began.elapsed() < each {
            let text = hostile(&mut random);
            tried += 1;
            if let Some(why) = broken(*target, &text) {
                crashes += 1;
                if crashes <= 3 {
                    defects.push(format!("{name}: {why}\nwith {text:?}"));
                }
            }
        }
        all += tried;
        rows.push(vec![(*name).to_owned(), tried.to_string(), crashes.to_string()]);
    }
    let text = format!(
        "Mutations of {} real texts, each target for {:.1} s: **{:.1} minutes, {all} inputs in all.**\n\n{}",
        CORPUS.len(),
        each.as_secs_f64(),
        (each * TARGETS.len() as u32).as_secs_f64() / 60.0,
        table(&["reads", "inputs", "crashes or broken promises"], &rows)
    );
    Ok(Part { title: "Hostile input", text, defects })
}
