//! Tries the gate: makes the probe's session and reads with it.

use super::Run;
use crate::aws::{Aws, Bucket};
use crate::gate::{self, Gate, Way};
use crate::github;
use crate::inputs::{Mode, Probe};
use crate::plan::Goal;
use crate::report::{Action, GateReport, Report};

impl Run<'_> {
    /// Whether the gate is to be tried in this run.
    pub(super) fn probes(&self, goal: &Goal) -> bool {
        let gated = matches!(self.request.mode, Mode::Apply | Mode::Verify);
        gated && goal.key().is_some() && self.request.probe != Probe::Off
    }

    /// The verdict, with the evidence in the report. The session's credentials and the
    /// token are masked in the log and dropped with this call.
    pub(super) async fn gate(
        &self,
        report: &mut Report,
        goal: &Goal,
        aws: &Aws,
        bucket: &Bucket,
    ) -> Gate {
        let request = self.request;
        let (Some(key), true) = (goal.key(), self.probes(goal)) else { return Gate::Off };
        // Every state that may be there: one that is not under the key is open, too, and of
        // one that was lost nothing is shown.
        let states: Vec<(String, bool)> = report
            .objects
            .iter()
            .filter(|row| row.action != Action::Absent)
            .map(|row| (row.key.clone(), row.read_at.is_some()))
            .collect();
        if states.is_empty() {
            return gate::verdict(&[]);
        }
        if !states.iter().any(|(_, read)| *read) {
            return Gate::Inconclusive("no state is read by the full session".into());
        }
        self.log.group("Gate probe");
        let way = gate::way(
            request.probe,
            request.probe_role.as_deref(),
            self.environment,
            report.caller.as_ref(),
            aws.long_term_keys().await,
        );
        let way = match way {
            Ok(way) => way,
            Err(why) => return Gate::Inconclusive(format!("there is no way to try it: {why}")),
        };
        let names: Vec<String> = states.iter().map(|(key, _)| key.clone()).collect();
        let policy = gate::session_policy(key.partition(), bucket.name(), &names);
        let token = async || {
            let token = github::oidc_token(self.environment).await?;
            // Before it is used: STS may refuse it.
            self.mask(std::slice::from_ref(&token));
            Ok(token)
        };
        let session = match gate::session(aws, &way, &policy, token).await {
            Ok(made) => made,
            Err(why) => return Gate::Inconclusive(why),
        };
        self.mask(&session.secrets);
        let probe = session.aws.bucket(bucket.name(), request.bucket_owner.as_deref(), None);
        let seen = gate::observe(&probe, &states).await;
        let verdict = gate::verdict(&seen);
        for one in &seen {
            self.log.line(&format!(
                "`{}`: full session GET {}, probe HEAD {}, probe GET {}",
                one.state,
                if one.full_get { "200" } else { "failed" },
                word(&one.probe_head),
                word(&one.probe_get)
            ));
        }
        report.gate_evidence = Some(GateReport {
            way: way.name(),
            scope: scope(&way, report, key.account()),
            observations: seen
                .iter()
                .map(|one| crate::report::ObservationReport {
                    key: one.state.clone(),
                    full_get: if one.full_get { "200".into() } else { "failed".into() },
                    probe_head: word(&one.probe_head),
                    probe_get: word(&one.probe_get),
                })
                .collect(),
        });
        verdict
    }
}

fn word(answer: &gate::Answer) -> String {
    match answer {
        gate::Answer::Ok => "200".into(),
        gate::Answer::Denied => "403".into(),
        gate::Answer::Other(error) => crate::names::printable(error),
    }
}

/// What the verdict is about, and what it is not.
fn scope(way: &Way, report: &Report, key_account: &str) -> String {
    let own = report.caller.as_ref().map(|caller| caller.account.as_str());
    let account = match way {
        Way::Role(role) => return format!("for the role {role}, as it is"),
        // With roles in a chain, it is not this principal's.
        Way::WebIdentity { role, .. } => role.split(':').nth(4).or(own),
        Way::Federation => own,
    };
    let account = account.unwrap_or("unknown");
    if account == key_account {
        return format!(
            "for a principal of account {account}, the key's own, with S3 rights alone"
        );
    }
    format!(
        "for a principal of account {account} with S3 rights alone; of how wide the key policy is in account \
         {key_account} it says nothing (see the check key-policy, or give a `probe-role-arn` there)"
    )
}
