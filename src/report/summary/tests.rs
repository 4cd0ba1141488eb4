//! Tests of the summary.

use super::*;
use crate::check::{CheckId, Failure, FailureReason};
use crate::report::{BucketReport, FileReport};

fn object(key: &str) -> ObjectReport {
    let encryption = Encryption { algorithm: "AES256".into(), kms_key: None };
    ObjectReport {
        module: Some("infra".into()),
        key: key.into(),
        action: Action::Kept,
        before: Some(encryption.clone()),
        after: Some(encryption),
        version_id: Some("v1".into()),
        lineage: None,
        serial: Some(7),
        size: Some(1234),
        same_content: None,
        read_at: Some("2026-11-23T10:00:00Z".into()),
        detail: None,
    }
}

fn report() -> Report {
    let mut report = Report::new();
    report.mode = Some(Mode::Apply);
    report.environment = Some("production".into());
    report.bucket = Some(BucketReport {
        name: "cabal-tf-backend".into(),
        region: Some("us-east-1".into()),
        expected_owner: None,
    });
    report
}

#[test]
fn any_number_of_objects_stays_under_the_runners_limit() {
    let mut report = report();
    report.objects =
        (0..20_000).map(|n| object(&format!("state-{n}-{}", "x".repeat(100)))).collect();
    report.objects[19_999].detail = Some("cannot be read".into());
    let text = markdown(&report, "report.json", JOB_SUMMARY);
    assert!(text.len() < 1024 * 1024, "{}", text.len());
    assert!(text.contains("cannot be read"), "what failed is shown first");
    assert!(text.contains("more; the report has all of them"));
    assert!(text.contains("full report:"));
}

#[test]
fn any_number_of_failures_stays_under_the_limit_too() {
    let mut report = report();
    report.failures = (0..20_000)
        .map(|n| Failure::new(FailureReason::Drift, format!("state {n}"), "x".repeat(100)))
        .collect();
    assert!(markdown(&report, "report.json", JOB_SUMMARY).len() < 1024 * 1024);
}

#[test]
fn hostile_names_are_shown_and_not_obeyed() {
    let mut report = report();
    let hostile = "a|b<script>`*[x](javascript:y)\n## heading";
    report.objects = vec![object(hostile)];
    report.backend_files = vec![FileReport {
        module: hostile.into(),
        path: hostile.into(),
        action: FileAction::Kept,
        differences: vec![hostile.into()],
    }];
    report.checks = vec![
        crate::check::Check::new(CheckId::ObjectKey, Status::Fail, hostile).remedy("```\n# x"),
    ];
    let text = markdown(&report, hostile, JOB_SUMMARY);
    assert!(
        !text.contains("<script>")
            && !text.contains("](javascript")
            && !text.contains("\n## heading")
    );
}

#[test]
fn the_verdict_comes_first() {
    let mut report = report();
    assert!(markdown(&report, "r", JOB_SUMMARY).contains("### ⚪ no state exists yet"));
    report.objects = vec![object("production")];
    report.verified = true;
    assert!(markdown(&report, "r", JOB_SUMMARY).contains("### ✅ 1 state readable; no key"));
    report.verdict = Some(Verdict::Protected);
    assert!(markdown(&report, "r", JOB_SUMMARY).contains("### ✅ protected: 1 state under"));
    report.verdict = Some(Verdict::Partly);
    assert!(markdown(&report, "r", JOB_SUMMARY).contains("### ⚠️ partly protected: 1 state"));
    report.failures.push(Failure::new(FailureReason::Drift, "m", "r"));
    assert!(
        markdown(&report, "r", JOB_SUMMARY)
            .contains("### ❌ apply failed: a state or a backend file is not as wanted")
    );
}

#[test]
fn a_plan_that_would_write_a_file_has_something_to_do() {
    let mut report = report();
    report.mode = Some(Mode::Plan);
    report.objects = vec![object("production")];
    assert!(markdown(&report, "r", JOB_SUMMARY).contains("plan: nothing to do"));
    report.backend_files = vec![FileReport {
        module: "infra".into(),
        path: "infra/backend.tf".into(),
        action: FileAction::WouldWrite,
        differences: Vec::new(),
    }];
    let text = markdown(&report, "r", JOB_SUMMARY);
    assert!(text.contains("state as wanted; apply would write 1 backend file\n"), "{text}");
}

#[test]
fn evidence_of_any_length_stays_under_the_limit_and_closes_its_fences() {
    let mut report = report();
    let long = "`|<".repeat(200_000);
    for id in CheckId::ALL {
        let check = crate::check::Check::new(*id, crate::check::Status::Fail, long.clone());
        report.checks.push(check.remedy(format!("{id:?}{long}")));
    }
    report.failures = vec![Failure::new(FailureReason::Drift, long.clone(), long.clone()); 100];
    report.warnings = vec![long.clone(); 100];
    report.backend_files = vec![
        FileReport {
            module: long.clone(),
            path: long.clone(),
            action: FileAction::Kept,
            differences: vec![long; 50],
        };
        50
    ];
    for (limit, most) in [(JOB_SUMMARY, 1024 * 1024), (65_535, 65_535)] {
        let text = markdown(&report, "report.json", limit);
        assert!(text.len() <= most, "{} > {most}", text.len());
        let fences = text.lines().filter(|line| line.starts_with("```")).count();
        assert_eq!(fences % 2, 0, "every fence is closed");
        assert!(text.contains("full report:"));
    }
}
