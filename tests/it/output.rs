//! What a user sees, whole, and that nothing from outside gets out of its place.

use std::path::Path;

use aws_lab::{Effect, Encryption, Matcher, Topology};

use crate::bench::Bench;
use crate::common::{BUCKET, KEYS, Ran, state};

/// Replaces what differs from run to run.
pub fn steady(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut words: Vec<String> = Vec::new();
        for word in line.split(' ') {
            let inner = word.trim_start_matches("<code>").trim_end_matches("</code>");
            let inner = inner.trim_end_matches(';');
            let is_time = inner.len() == 20 && inner.ends_with('Z') && inner.contains('T');
            let is_version = word.starts_with("<code>v-") || word.starts_with("<code>ver-");
            words.push(if is_time {
                "TIME".into()
            } else if is_version {
                "VERSION".into()
            } else {
                word.into()
            });
        }
        let line = words.join(" ");
        match line.find(" requests in ") {
            Some(at) => {
                let tail = line[at..].split_once(" s").map_or("", |(_, tail)| tail);
                out.push_str(&format!("N requests in T s{tail}\n"));
            }
            None => out.push_str(&format!("{line}\n")),
        }
    }
    out
}

fn validate(ran: &Ran) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.schema.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&ran.report).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{:#}", ran.report);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_of_a_migration() {
    let bench = Bench::new().await;
    let ran = bench.run("apply", &[]).await.green();
    validate(&ran);
    let summary = steady(&ran.summary);
    for part in [
        "### ⚠️ partly protected: 2 states under the customer-managed key, read back and unchanged; but ",
        "| infra | <code>production</code> | AES256 → aws:kms |",
        "```mermaid",
        "Older versions of a re-keyed state stay readable",
    ] {
        assert!(summary.contains(part), "{part}\n{summary}");
    }
    insta::assert_snapshot!("summary_of_a_migration", summary.replace(&bench.key, "KEY-ARN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_failures_fit_the_schema() {
    let bench = Bench::new().await;
    bench.change_key(|key| key.state = "Disabled".into());
    validate(&bench.run("apply", &[]).await.red("key-unusable"));
    validate(&bench.run("apply", &[("INPUT_MODE", "nonsense")]).await.red("invalid-input"));
    validate(&bench.run_unset("verify", &[]).await.green());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_keys_stay_where_they_belong() {
    let hostile = "env:/a|b ##[error]x ::error::y <script> `z` [l](u) $(id)%0A/production";
    let bench = Bench::with(Topology::Roles, |world| {
        world.put_object(BUCKET, hostile, state(1), Encryption::SseS3);
    })
    .await;
    let templates = "infra={environment}\ndns={environment}-bootstrap\nenv:/*";
    let ran = bench.run("apply", &[("INPUT_STATE-KEYS", templates)]).await.green();
    assert_eq!(ran.output("rekeyed"), "3");
    for line in ran.log.lines() {
        assert!(!line.contains("##["), "{line}");
        assert!(!line.trim_start().starts_with("::error"), "{line}");
    }
    // In a fenced block nothing is markup.
    let prose: String = ran.summary.split("```").step_by(2).collect();
    assert!(!prose.contains("<script>") && !prose.contains("[l](u)"), "{prose}");
    assert_eq!(ran.report["objects"][2]["key"], hostile);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_of_the_server_stay_one_line() {
    let bench = Bench::new().await;
    let message = "no\n::error::injected\n##[warning]x <b>y</b>";
    let effect = Effect::Fail { status: 403, code: "AccessDenied".into(), message: message.into() };
    bench.lab.inject(Matcher::every("CopyObject").key(KEYS[0]), effect);
    let ran = bench.run("apply", &[]).await.red("rekey-failed");
    assert!(!ran.log.lines().any(|line| line.starts_with("::error::")), "{}", ran.log);
    assert!(!ran.log.contains("##["), "{}", ran.log);
    assert!(!ran.summary.contains("<b>y"), "{}", ran.summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_can_be_left_out_and_the_report_moved() {
    let bench = Bench::new().await;
    let more = [("INPUT_SUMMARY", "false"), ("INPUT_REPORT-PATH", "terraform/report.json")];
    let ran = bench.run("verify", &more).await.red("drift");
    assert_eq!(ran.summary, "");
    assert_eq!(ran.output("report"), "terraform/report.json");
    assert_eq!(ran.report["mode"], "verify");
}
