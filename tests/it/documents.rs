//! What is written down is what the code has: action.yml, the report's schema, the README.

use std::collections::BTreeSet;
use std::path::Path;

use tfstate_kms::check::{CheckId, FailureReason};
use tfstate_kms::inputs::KNOWN;
use tfstate_kms::report::Report;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The keys of a section of action.yml, which has them two spaces in.
fn section(text: &str, name: &str) -> BTreeSet<String> {
    let from = text.lines().skip_while(|line| *line != format!("{name}:")).skip(1);
    from.take_while(|line| line.is_empty() || line.starts_with(' '))
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
        .filter(|key| !key.starts_with(' '))
        .map(str::to_owned)
        .collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn action_yml_has_the_inputs_and_outputs_that_the_code_has() {
    let action = file("action.yml");
    assert_eq!(section(&action, "inputs"), set(KNOWN));
    let outputs = Report::new().outputs("");
    assert_eq!(section(&action, "outputs"), set(outputs.iter().map(|(name, _)| *name)));
}

#[test]
fn the_schema_and_the_readme_know_every_check_and_reason() {
    let schema: serde_json::Value = serde_json::from_str(&file("docs/report.schema.json")).unwrap();
    let enumerated = |path: &str| -> BTreeSet<String> {
        let values = schema.pointer(path).and_then(|v| v.as_array()).unwrap();
        values.iter().filter_map(|v| v.as_str()).map(str::to_owned).collect()
    };
    let checks = set(CheckId::ALL.iter().map(|id| id.id()));
    let reasons = set(FailureReason::ALL.iter().map(|reason| reason.id()));
    assert_eq!(enumerated("/properties/checks/items/properties/id/enum"), checks);
    assert_eq!(enumerated("/properties/failures/items/properties/reason/enum"), reasons);
    let readme = file("README.md");
    for name in checks.iter().chain(&reasons) {
        assert!(readme.contains(&format!("`{name}`")), "README.md does not name `{name}`");
    }
    for command in ["cargo run --example demo", "cargo test"] {
        assert!(readme.contains(command));
    }
}
