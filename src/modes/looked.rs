//! The first rounds of requests: survey, evidence, settings, readers and old versions, side by
//! side.

use futures_util::future::OptionFuture;

use super::Run;
use super::in_flight::is_worth_a_wait;
use super::old_versions::{old_versions, to_list_again};
use crate::aws::{Aws, AwsError, Bucket, Budget, Seen, Settings};
use crate::denials::Remedies;
use crate::grants::StateBucket;
use crate::history::{self, History};
use crate::in_flight::{Blind, Found};
use crate::inputs::{History as HistoryMode, Mode};
use crate::names::{KeyArn, partition_of};
use crate::plan::{self, Allowances, Goal, Plan};
use crate::policies::Policy;
use crate::preflight::Evidence;
use crate::readers::{Reader, Stands, Trial};
use crate::survey::{self, Survey};

/// What the first rounds of requests came to.
pub(super) struct Looked {
    /// The clients, in the bucket's region.
    pub(super) aws: Aws,
    pub(super) bucket: Bucket,
    pub(super) region: Result<String, AwsError>,
    pub(super) survey: Survey,
    pub(super) evidence: Evidence,
    pub(super) settings: Option<Settings>,
    pub(super) readers: Option<Vec<(String, Reader)>>,
    pub(super) history: Option<History>,
    pub(super) in_flight: Option<Result<Found, Blind>>,
    pub(super) budget: Budget,
}

impl Looked {
    /// The bucket, as statements for a key policy need it.
    pub(super) fn state_bucket(&self) -> StateBucket<'_> {
        let bucket_keys = self.settings.as_ref().and_then(Settings::bucket_keys);
        StateBucket { name: self.bucket.name(), bucket_keys }
    }

    /// The partition of everything here: the key's, else the principal's, else the region's.
    pub(super) fn partition<'a>(&'a self, goal: &'a Goal) -> &'a str {
        let of_caller =
            || self.evidence.caller.as_ref().ok().and_then(|caller| caller.arn.split(':').nth(1));
        let of_region = || self.region.as_deref().ok().and_then(partition_of);
        goal.key().map(KeyArn::partition).or_else(of_caller).or_else(of_region).unwrap_or("aws")
    }

    /// Whether the bucket is known to keep every version from now on.
    pub(super) fn versioned(&self) -> bool {
        self.settings.as_ref().is_some_and(|settings| matches!(settings.versioning, Ok(true)))
    }
}

impl Run<'_> {
    /// Looks; where another run is in the way of a write and may be waited for, waits and
    /// looks again.
    pub(super) async fn look_and_wait(&self, aws: Aws, goal: &Goal) -> Result<Looked, AwsError> {
        let (looked, in_flight) = tokio::join!(
            // These futures are large; joined on the stack they would overflow it.
            Box::pin(self.look(aws.clone(), goal)),
            Box::pin(self.in_flight(goal))
        );
        let mut looked = looked?;
        looked.in_flight = in_flight;
        let plan = plan::plan(goal, &looked.survey, Allowances::default(), &Remedies::default());
        let patient = !self.request.in_flight_timeout.is_zero() && self.writes(&plan, &looked);
        let Some(found) = looked.in_flight.take_if(|found| patient && is_worth_a_wait(found))
        else {
            return Ok(looked);
        };
        // What was seen before is of before, and its bodies take memory.
        drop(looked);
        let in_flight = Some(self.wait_for_runs(found).await);
        Ok(Looked { in_flight, ..Box::pin(self.look(aws, goal)).await? })
    }

    /// Whether a state would be re-keyed, or an old version of one.
    pub(super) fn writes(&self, plan: &Plan, looked: &Looked) -> bool {
        let mode = matches!(self.request.mode, Mode::Apply | Mode::Rollback);
        mode && (plan.rekeys().next().is_some() || !self.states_with_versions(looked).is_empty())
    }

    /// Everything that can be asked at once is asked at once.
    async fn look(&self, aws: Aws, goal: &Goal) -> Result<Looked, AwsError> {
        let request = self.request;
        let budget = Budget::new(request.memory);
        // Only a re-key needs the bodies later.
        let writes = matches!(request.mode, Mode::Apply | Mode::Rollback);
        let wanted = |now: &_| writes && goal.rewrite(now).is_some();
        let names: Vec<String> = request.layout.keys().map(|(_, key)| key.to_owned()).collect();
        let bucket_in = |aws: &Aws| {
            aws.bucket(&request.bucket, request.bucket_owner.as_deref(), request.acl.as_deref())
        };
        // A dormant `apply` stays light: without a key there is nothing to prepare.
        let examines = *goal != Goal::Unset || !writes;
        let lists = goal.key().is_some() && request.history != HistoryMode::Off;
        let role = self.environment.get("AWS_ROLE_ARN").map(str::to_owned);
        let known: Vec<String> =
            role.into_iter().chain(request.deploy_principals.clone()).collect();

        let bucket = bucket_in(&aws);
        let keys = goal.key().map(|key| aws.in_region(key.region()).keys());
        let settings = |bucket: Bucket| async move {
            if examines { Some(bucket.settings().await) } else { None }
        };
        let list = |bucket: Bucket, names: Vec<String>| async move {
            if lists { Some(history::list(&bucket, &names).await) } else { None }
        };
        let (region, mut survey, mut evidence, mut found_settings, mut listed) = tokio::join!(
            bucket.region(),
            Survey::take(&bucket, &request.layout, &budget, wanted),
            Evidence::gather(&aws, &bucket, keys.as_ref(), goal.key(), &names, &known),
            settings(bucket.clone()),
            list(bucket.clone(), names.clone())
        );
        let (mut aws, mut bucket) = (aws, bucket);
        let elsewhere = region.as_deref().ok().filter(|r| !r.is_empty() && *r != aws.region());
        if let Some(region) = elsewhere {
            self.log
                .line(&format!("the bucket is in {region}, not in {}; asking there", aws.region()));
            aws = aws.in_region(region);
            bucket = bucket_in(&aws);
            (survey, found_settings, listed) = tokio::join!(
                Survey::take(&bucket, &request.layout, &budget, wanted),
                settings(bucket.clone()),
                list(bucket.clone(), names.clone())
            );
        }
        let mut survey = survey?;

        // The second round: what could not be asked before the first was answered.
        let bucket_key =
            found_settings.as_ref().and_then(Settings::bucket_keys).unwrap_or_default();
        // States that only a listing named.
        let present = survey.keys();
        let found_late: Vec<String> =
            present.iter().filter(|key| !names.contains(key)).cloned().collect();
        // With Bucket Keys all of them were tried in the wrong context.
        let late = if bucket_key { present.clone() } else { found_late.clone() };
        let late_uses: OptionFuture<_> = (goal.key().is_some() && !late.is_empty())
            .then(|| Evidence::uses(keys.as_ref(), &bucket, goal.key(), &late, bucket_key))
            .into();
        let home_keys = aws.keys();
        let target = goal.key().map(|key| key.as_str());
        let key_policy = evidence.key_policy();
        if let Some(key) = &mut evidence.key {
            key.read_under_key = survey.states.iter().any(|state| match &state.found {
                survey::Found::Readable(state) => state.seen.server_side.kms_key() == target,
                _ => false,
            });
        }
        let under = |seen: &Seen| goal.key().is_some() && goal.rewrite(&seen.server_side).is_none();
        let stands = |found: &survey::Found| match found {
            survey::Found::Absent { .. } => Stands::Absent,
            found if found.seen().is_some_and(under) => Stands::Under,
            _ => Stands::Otherwise,
        };
        let states: Vec<(String, Stands)> =
            survey.states.iter().map(|state| (state.key.clone(), stands(&state.found))).collect();
        let readers = self.readers(
            &aws,
            goal,
            &states,
            key_policy.as_ref(),
            bucket_key,
            evidence.is_direct(),
        );
        let to_list = [to_list_again(&mut listed, &survey), found_late.clone()].concat();
        let history = old_versions(&bucket, listed, &to_list, target.unwrap_or_default());
        // Without named states, all dry runs are made only now, and IAM is asked after them.
        let ask_now = !names.is_empty();
        let evidence_first = async {
            if ask_now {
                evidence.ask_iam(&aws, goal.key()).await;
            }
        };
        let ((), late_uses, (), readers, mut history) = tokio::join!(
            survey.ask_for_managers(&home_keys, target),
            late_uses,
            evidence_first,
            readers,
            history
        );
        evidence.add(late_uses.unwrap_or_default());
        // Old versions under keys that no current state is under: one more round.
        let ask_late = async {
            if !ask_now {
                evidence.ask_iam(&aws, goal.key()).await;
            }
        };
        let older_keys = async {
            if let Some(history) = &mut history {
                history.ask_for_managers(&home_keys, survey.managers.clone()).await;
            }
        };
        tokio::join!(ask_late, older_keys);
        Ok(Looked {
            aws,
            bucket,
            region,
            survey,
            evidence,
            settings: found_settings,
            readers,
            history,
            budget,
            in_flight: None,
        })
    }

    /// Tries the roles of `must-read`.
    async fn readers(
        &self,
        aws: &Aws,
        goal: &Goal,
        states: &[(String, Stands)],
        key_policy: Option<&Policy>,
        bucket_key: bool,
        direct: bool,
    ) -> Option<Vec<(String, Reader)>> {
        let key = goal.key().filter(|_| !self.request.must_read.is_empty())?;
        let bucket = (self.request.bucket.as_str(), self.request.bucket_owner.as_deref());
        let trial = Trial { aws, key, bucket, states, direct, bucket_key, key_policy };
        let (readers, secrets) = trial.run(&self.request.must_read).await;
        self.mask(&secrets);
        Some(readers)
    }
}
