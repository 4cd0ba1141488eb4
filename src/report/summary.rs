//! The job summary: the verdict first, then what it rests on.

use super::escape::{block, code, label, text};
use super::{Action, Encryption, FileAction, FileReport, ObjectReport, Report, Verdict};
use crate::check::{CheckId, FailureReason, Status};
use crate::inputs::Mode;

/// The runner drops a summary over 1 MiB altogether; this leaves room for the other
/// summaries of a step and for masking, which can lengthen a line.
pub const JOB_SUMMARY: usize = 900 * 1024;

/// Renders the summary. Whatever the number of objects, it stays below the limit (bytes; 16 KiB
/// at least); what does not fit is in the report.
pub fn markdown(report: &Report, report_path: &str, limit: usize) -> String {
    let mut out = String::new();
    let environment = text(report.environment.as_deref().unwrap_or("?"));
    let line = headline(report);
    let (sign, line) = line.split_once(' ').unwrap_or_default();
    let line = text(line);
    out.push_str(&format!("## Terraform state of {environment}\n\n### {sign} {line}\n\n"));
    let failures = report.grouped_failures();
    let pieces = failures
        .iter()
        .map(|failure| {
            let (id, message) = (text(failure.reason.id()), text(&clip(&failure.message, 4096)));
            let remedy = block(&clip(&failure.remedy, 16 << 10));
            format!("**{id}** {message}\n\n{remedy}\n")
        })
        .chain(report.warnings.iter().map(|w| format!("⚠️ {}\n\n", text(&clip(w, 4096)))));
    // They are few (some a state at most), but not bounded.
    let count = failures.len() + report.warnings.len();
    for (at, piece) in pieces.enumerate() {
        if out.len() + piece.len() > limit / 3 {
            out.push_str(&format!("… and {} more; the report has all of them.\n\n", count - at));
            break;
        }
        out.push_str(&piece);
    }
    out.push_str(&facts(report));
    out.push_str(&key(report, limit / 4));
    let mut tail = tail(report, report_path);
    if out.len() + tail.len() + 4096 > limit {
        // The verdict is above; the evidence is in the job summary and the report.
        tail = colophon(report, report_path);
    }
    let room = limit.saturating_sub(out.len() + tail.len());
    out.push_str(&objects(&report.objects, room));
    out.push_str(&tail);
    out
}

/// A text's beginning, where it is too long for a summary.
fn clip(value: &str, bytes: usize) -> std::borrow::Cow<'_, str> {
    if value.len() <= bytes {
        return value.into();
    }
    let mut cut = bytes;
    while !value.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{} … (whole in the report)", &value[..cut]).into()
}

/// The verdict, or what else the run amounts to, in one line that begins with a sign.
pub fn headline(report: &Report) -> String {
    let count = report.objects.iter().filter(|o| o.after.is_some()).count();
    let states = if count == 1 { "1 state".to_owned() } else { format!("{count} states") };
    let mode = report.mode.map_or("", Mode::as_str);
    let open = || clip(report.left_open.first().map_or("", String::as_str), 200);
    match (report.failures.first(), report.mode) {
        (Some(failure), _) => {
            format!("❌ {mode} failed: {}", failure.reason.meaning()).replacen("❌  ", "❌ ", 1)
        }
        (None, Some(Mode::Backend)) => "✅ backend files are as wanted".to_owned(),
        (None, Some(about)) if about.is_about_a_key() => match report.verified {
            true => format!("✅ {mode}: done"),
            false => format!("🔷 {mode}: what it would do is below; nothing of that was written"),
        },
        (None, _) if count == 0 => match report.verdict {
            Some(Verdict::Partly) => {
                format!("⚠️ partly protected: {}; nothing was verified", open())
            }
            Some(Verdict::Unprotected) => {
                "⚠️ unprotected on purpose: no state exists yet; nothing was verified".to_owned()
            }
            _ => "⚪ no state exists yet; nothing was verified".to_owned(),
        },
        (None, Some(Mode::Plan)) => match (would(report), would_write(report)) {
            (0, 0) => format!("✅ plan: nothing to do, {states} as wanted"),
            (0, files) => {
                format!("🔷 plan: {states} as wanted; apply would write {}", backend_files(files))
            }
            (n, 0) => format!("🔷 plan: apply would re-key {n} of {count}"),
            (n, files) => format!(
                "🔷 plan: apply would re-key {n} of {count}, and write {}",
                backend_files(files)
            ),
        },
        (None, _) => match report.verdict {
            Some(Verdict::Protected) => format!(
                "✅ protected: {states} under the customer-managed key, read back and unchanged"
            ),
            Some(Verdict::Partly) => format!(
                "⚠️ partly protected: {states} under the customer-managed key, read back and unchanged; but {}",
                open()
            ),
            Some(Verdict::Unprotected) => format!(
                "⚠️ unprotected on purpose: {states} back under SSE-S3, read back and unchanged"
            ),
            _ if report.verified => format!("✅ {states} readable; no key is asked for"),
            _ => format!("⚠️ {mode}: done, but not everything could be verified"),
        },
    }
}

fn backend_files(count: usize) -> String {
    match count {
        1 => "1 backend file".to_owned(),
        n => format!("{n} backend files"),
    }
}

fn would(report: &Report) -> usize {
    report.objects.iter().filter(|o| o.action == Action::WouldRekey).count()
}

fn would_write(report: &Report) -> usize {
    let would =
        |file: &&FileReport| matches!(file.action, FileAction::WouldWrite | FileAction::WouldEdit);
    report.backend_files.iter().filter(would).count()
}

fn facts(report: &Report) -> String {
    let mut rows = Vec::new();
    if let Some(bucket) = &report.bucket {
        let region = bucket.region.as_deref().unwrap_or("unknown");
        rows.push(("Bucket", format!("{} in {}", code(&bucket.name), text(region))));
        if let Some(owner) = &bucket.expected_owner {
            rows.push(("Bucket's account", code(owner)));
        }
    }
    let target = match (&report.target.kms_key_arn, report.target.encryption) {
        (Some(key), _) => format!("SSE-KMS under {}", code(key.as_str())),
        (None, "AES256") => "SSE-S3".to_owned(),
        // Inputs that could not be taken say nothing of the key.
        _ if report.failures.iter().any(|it| it.reason == FailureReason::InvalidInput) => {
            String::new()
        }
        _ => "none (STATE_KMS_KEY_ID is empty)".to_owned(),
    };
    if !target.is_empty() {
        rows.push(("Target", target));
    }
    if let Some(caller) = &report.caller {
        rows.push(("Principal", code(&caller.arn)));
    }
    let mut out = String::from("| | |\n|---|---|\n");
    for (name, value) in rows {
        out.push_str(&format!("| {name} | {value} |\n"));
    }
    out.push('\n');
    out
}

/// What a key mode did, or would do.
fn key(report: &Report, room: usize) -> String {
    let Some(key) = &report.key else { return String::new() };
    let mut out = String::from("#### Key\n\n");
    for name in [&key.arn, &key.alias].into_iter().flatten() {
        out.push_str(&format!("- {}\n", code(name)));
    }
    for step in &key.steps {
        let mark = if step.done { "✅ done" } else { "🔷 not done" };
        out.push_str(&format!("- {mark}: {}\n", text(&clip(&step.what, 2048))));
    }
    if key.steps.is_empty() {
        out.push_str("- nothing to do\n");
    }
    out.push('\n');
    if let Some(diff) = &key.diff {
        out.push_str(&block(&clip(diff, room / 2)));
        out.push('\n');
    }
    for note in &key.notes {
        let piece = block(&clip(note, 4096));
        if out.len() + piece.len() > room {
            out.push_str("… and more in the report.\n\n");
            break;
        }
        out.push_str(&piece);
        out.push('\n');
    }
    out
}

const OBJECTS: &str = "| Stack | State | Before → after | Key | Version | Serial | Bytes | Same content | \
                       Last read |\n|---|---|---|---|---|---|---|---|---|\n";

fn objects(objects: &[ObjectReport], room: usize) -> String {
    if objects.is_empty() {
        return String::new();
    }
    let mut out = format!("#### States\n\n{OBJECTS}");
    // What needs attention comes first, should there be too many.
    let mut order: Vec<&ObjectReport> = objects.iter().collect();
    order.sort_by_key(|object| object.detail.is_none());
    for (at, object) in order.iter().enumerate() {
        let row = row(object);
        if out.len() + row.len() + 200 > room {
            out.push_str(&format!(
                "\n… and {} more; the report has all of them.\n",
                order.len() - at
            ));
            break;
        }
        out.push_str(&row);
    }
    out.push('\n');
    out
}

fn row(object: &ObjectReport) -> String {
    let dash = || "–".to_owned();
    let short = |encryption: &Option<Encryption>| {
        encryption.as_ref().map_or("–".to_owned(), |e| text(&e.algorithm))
    };
    let change = if object.before == object.after {
        short(&object.after)
    } else {
        format!("{} → {}", short(&object.before), short(&object.after))
    };
    let key = object.after.as_ref().and_then(|e| e.kms_key.as_deref());
    let key = key.map(|key| code(key.rsplit('/').next().unwrap_or(key)));
    let note = match (&object.detail, object.action) {
        (Some(detail), _) => format!("<br>❌ {}", text(detail)),
        (None, Action::Absent) => "<br>not there".to_owned(),
        (None, Action::WouldRekey) => "<br>would be re-keyed".to_owned(),
        (None, Action::ByAnother) => "<br>re-keyed by another writer".to_owned(),
        (None, _) => String::new(),
    };
    let same = match object.same_content {
        Some(true) => "✅",
        Some(false) => "❌",
        None => "–",
    };
    format!(
        "| {} | {}{note} | {change} | {} | {} | {} | {} | {same} | {} |\n",
        object.module.as_deref().map_or_else(dash, text),
        code(&object.key),
        key.unwrap_or_else(dash),
        object.version_id.as_deref().map_or_else(dash, code),
        object.serial.map_or_else(dash, |n| n.to_string()),
        object.size.map_or_else(dash, |n| n.to_string()),
        object.read_at.as_deref().map_or_else(dash, text),
    )
}

fn tail(report: &Report, report_path: &str) -> String {
    let mut out = String::new();
    if !report.backend_files.is_empty() {
        out.push_str("#### Backend files\n\n");
        for file in report.backend_files.iter().take(20) {
            let action = match file.action {
                FileAction::Unchanged => "as wanted",
                FileAction::Written => "written",
                FileAction::Edited => "its backend block was edited",
                FileAction::WouldWrite => "would be written",
                FileAction::WouldEdit => "its backend block would be edited",
                FileAction::Kept => "differs and was kept",
                FileAction::Left => "differs and was left, as was asked for",
                FileAction::Absent => "not there",
                FileAction::NoModule => "the module's folder is not there",
            };
            out.push_str(&format!("- {}: {action}\n", code(&clip(&file.path, 300))));
            for difference in file.differences.iter().take(8) {
                out.push_str(&format!("  - {}\n", text(&clip(difference, 300))));
            }
        }
        if report.backend_files.len() > 20 {
            out.push_str("- … and more in the report\n");
        }
        out.push('\n');
    }
    out.push_str(&gate(report));
    out.push_str(&checks(report));
    if !report.statements.is_empty() {
        let files: Vec<String> = report.statements.iter().map(|path| code(path)).collect();
        out.push_str(&format!(
            "The missing statements are also files in the workspace, whole even where GitHub masks parts \
             here: {}\n\n",
            files.join(", ")
        ));
    }
    out.push_str(&drawing(report));
    out.push_str(&next_steps(report));
    out.push_str(&colophon(report, report_path));
    out
}

fn colophon(report: &Report, report_path: &str) -> String {
    format!(
        "<sub>{} requests in {:.1} s · tfstate-kms {} · full report: {}. Where GitHub shows `***`, a \
         value is kept as a secret; the report file is whole. Keep regions, accounts and ARNs in \
         `vars`.</sub>\n",
        report.requests,
        report.seconds,
        report.version,
        code(&clip(report_path, 300))
    )
}

/// The probe's evidence: what each of the two sessions was answered. Bounded, since the
/// verdict is one for all.
fn gate(report: &Report) -> String {
    const ROWS: usize = 20;
    let Some(evidence) = &report.gate_evidence else { return String::new() };
    let mut out = format!(
        "#### Gate: {}\n\nTried by {}, {}.\n\n| State | Full session GET | Probe HEAD | Probe GET |\n\
         |---|---|---|---|\n",
        text(report.gate.id()),
        code(evidence.way),
        text(&evidence.scope)
    );
    for seen in evidence.observations.iter().take(ROWS) {
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            code(&seen.key),
            text(&seen.full_get),
            text(&seen.probe_head),
            text(&seen.probe_get)
        ));
    }
    if evidence.observations.len() > ROWS {
        out.push_str("\n… and more in the report.\n");
    }
    out.push('\n');
    out
}

fn checks(report: &Report) -> String {
    let checks = &report.checks;
    if checks.is_empty() {
        return String::new();
    }
    let mut out = String::from("#### Checks\n\n| | Check | Evidence |\n|---|---|---|\n");
    for check in checks {
        let sign = match check.status {
            Status::Pass => "✅",
            Status::Unknown => "❔",
            Status::Warn => "⚠️",
            Status::Fail => "❌",
        };
        out.push_str(&format!(
            "| {sign} | {}<br>{} | {} |\n",
            code(check.id.id()),
            text(check.title),
            text(&clip(&check.evidence, 1024))
        ));
    }
    out.push('\n');
    // Two checks can share a remedy, as the two sides of a grant do.
    let mut said: Vec<&str> = Vec::new();
    for check in checks {
        let Some(remedy) = check.remedy.as_deref() else { continue };
        if said.contains(&remedy) {
            continue;
        }
        said.push(remedy);
        let ids: Vec<String> = checks
            .iter()
            .filter(|c| c.remedy.as_deref() == Some(remedy))
            .map(|c| code(c.id.id()))
            .collect();
        if report.failures.iter().any(|failure| failure.remedy.contains(remedy)) {
            out.push_str(&format!("What to do about {} is at the top.\n\n", ids.join(" and ")));
            continue;
        }
        out.push_str(&format!(
            "<details><summary>What to do about {}</summary>\n\n{}\n</details>\n\n",
            ids.join(" and "),
            block(&clip(remedy, 6 << 10))
        ));
    }
    out
}

fn drawing(report: &Report) -> String {
    let (Some(caller), Some(bucket)) = (&report.caller, &report.bucket) else {
        return String::new();
    };
    let who = caller.arn.rsplit(':').next().unwrap_or(&caller.arn);
    let states = report.objects.iter().filter(|o| o.after.is_some()).count();
    let mut out = String::from("```mermaid\nflowchart LR\n");
    out.push_str(&format!(
        "  subgraph caller[\"account {}\"]\n    p[\"{}\"]\n  end\n",
        label(&caller.account),
        label(who)
    ));
    let owner = bucket.expected_owner.as_deref().unwrap_or("of the bucket");
    out.push_str(&format!(
        "  subgraph state[\"account {}\"]\n    b[(\"{}: {states} states\")]\n",
        label(owner),
        label(&bucket.name)
    ));
    if let Some(key) = &report.target.kms_key_arn {
        out.push_str(&format!("    k{{{{\"CMK {}\"}}}}\n    b --- k\n", label(key.id())));
    }
    out.push_str("  end\n  p -- s3:GetObject --> b\n");
    // A key mode does not use the key.
    if report.target.kms_key_arn.is_some() && !report.mode.is_some_and(Mode::is_about_a_key) {
        out.push_str(match grant(report) {
            Status::Pass | Status::Warn => "  p -- kms:Decrypt --> k\n",
            Status::Unknown => "  p -. \"KMS grant not shown\" .-> k\n",
            Status::Fail => "  p -. \"KMS grant missing\" .-> k\n",
        });
    }
    out.push_str("```\n\n");
    out
}

/// Whether the principal gets through to the key: a state that was read under it shows that,
/// and otherwise the worse of the grant's two sides says.
fn grant(report: &Report) -> Status {
    let read = report.objects.iter().any(|object| {
        let key = object.after.as_ref().and_then(|after| after.kms_key.as_deref());
        let target = report.target.kms_key_arn.as_ref().map(|key| key.as_str());
        object.read_at.is_some() && key.is_some() && key == target
    });
    if read {
        return Status::Pass;
    }
    let sides = [CheckId::GrantKeyPolicy, CheckId::GrantIamPolicy];
    let found = sides.iter().map(|id| report.check(*id).map_or(Status::Unknown, |c| c.status));
    let worst = [Status::Fail, Status::Unknown, Status::Warn];
    let found: Vec<Status> = found.collect();
    worst.into_iter().find(|status| found.contains(status)).unwrap_or(Status::Pass)
}

fn next_steps(report: &Report) -> String {
    let steps: &[&str] = match (report.failures.is_empty(), report.mode) {
        (false, _) => {
            &["Mend what is named above and run again: a second run changes only what differs."]
        }
        (true, Some(Mode::Plan)) if would(report) > 0 => {
            &["Run mode `apply`, while no other run writes these states."]
        }
        (true, Some(Mode::Apply)) if report.changed && report.target.kms_key_arn.is_some() => {
            match report.check(CheckId::History).map(|check| check.status) {
                Some(Status::Pass) => &["`terraform plan` should show no changes."],
                _ => &[
                    "`terraform plan` should show no changes.",
                    "Older versions of a re-keyed state stay readable without the key until they are aged out.",
                ],
            }
        }
        (true, Some(Mode::Rollback)) => &[
            "Keep kms:Decrypt and the key until nothing is under it any more, old versions included.",
        ],
        _ => &[],
    };
    if steps.is_empty() {
        return String::new();
    }
    let list: Vec<String> = steps.iter().map(|step| format!("- {step}\n")).collect();
    format!("#### Next\n\n{}\n", list.concat())
}

#[cfg(test)]
mod tests;
