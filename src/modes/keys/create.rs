//! `create-key`: Part 1 of the runbook, as often as one likes, and never a second key.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use serde_json::Value;

use super::{Run, Untaken, asked, patiently, refused};
use crate::aws::{Aws, AwsError, Caller, Keys, Kind};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::grants::{self, StateBucket};
use crate::key_policy::{self, Usage};
use crate::modes::aws_failure;
use crate::names::{KeyArn, printable};
use crate::plan::Goal;
use crate::report::{BucketReport, KeyReport, Report};
use crate::{doctor, preflight};

/// Keys whose tags are read at the same time.
const PARALLEL: usize = 16;
/// The tags by which a key without its alias is found again.
const TAG_ALIAS: &str = "tfstate-kms:alias";
const TAG_BUCKET: &str = "tfstate-kms:bucket";

/// Where the key is to be.
struct Place {
    aws: Aws,
    keys: Keys,
    caller: Caller,
    region: String,
    partition: String,
    /// S3 Bucket Keys are on in the bucket; `None`: that may not be read.
    bucket_keys: Option<bool>,
}

impl Place {
    fn state_bucket<'a>(&self, name: &'a str) -> StateBucket<'a> {
        StateBucket { name, bucket_keys: self.bucket_keys }
    }
}

/// What a key has and lacks.
struct Existing {
    policy: Value,
    lacks: Vec<(String, Vec<String>)>,
    rotation: Option<String>,
    alias: bool,
    tags: bool,
}

impl Run<'_> {
    pub(super) async fn create_key(
        &self,
        report: &mut Report,
        key: &mut KeyReport,
    ) -> Result<(), Failure> {
        let admin = &self.request.key_admin;
        let place = self.place(report).await?;
        key.alias = Some(admin.alias.clone());
        let wanted = self.wanted_policy(&place);
        if let Some(about) = grants::about_bucket_keys(place.state_bucket(&self.request.bucket))
            && admin.hardened
        {
            key.notes.push(format!("`key-policy: hardened`: {about}"));
        }
        let found = self.find(&place).await;
        report.requests = place.aws.requests().count();
        let arn = match found? {
            Some(id) => Some(self.complete(report, key, &place, &id, &wanted).await?),
            None => {
                let may = admin.confirms("create");
                let what = "create the key, with its policy and tags";
                match self.step(key, what, may, self.make(&place, &wanted)).await? {
                    Some(arn) => {
                        key.came_to(arn.as_str());
                        key.arn = Some(arn.as_str().to_owned());
                        Some(self.complete(report, key, &place, arn.as_str(), &wanted).await?)
                    }
                    None => {
                        key.would("turn on rotation");
                        key.would(format!("give it the alias {}", printable(&admin.alias)));
                        key.notes.push(format!(
                            "The key policy would be:\n{}",
                            key_policy::pretty(&wanted)
                        ));
                        None
                    }
                }
            }
        };
        report.requests = place.aws.requests().count();
        if let Some(arn) = arn {
            report.set_target(&Goal::Under(arn.clone()));
            key.arn = Some(arn.as_str().to_owned());
            self.part_two(report, key, &arn);
            self.set_variable(key, &arn).await?;
        } else if let Some(environment) = &admin.set_variable {
            key.would(format!(
                "set STATE_KMS_KEY_ID on the environment {}",
                printable(environment)
            ));
        }
        if key.steps.iter().any(|step| !step.done) {
            key.notes.push(
                "Nothing of what is «not done» was written: `confirm` takes `create` (make or complete the key), \
                 `policy` (grant what the key policy lacks) and `variable` (change a variable that has another value)"
                    .into(),
            );
        }
        Ok(())
    }

    /// The bucket's region and account: SSE-KMS takes a key of no other place.
    async fn place(&self, report: &mut Report) -> Result<Place, Failure> {
        let request = self.request;
        let region = request.region.as_ref().map_or("us-east-1", |region| &region.name);
        let aws = Aws::connect(self.environment, region).await.map_err(|e| aws_failure(&e))?;
        let nobody = aws.bucket(&request.bucket, None, None);
        let (caller, found) = tokio::join!(aws.caller(&[]), nobody.region());
        let caller = caller.map_err(|e| aws_failure(&e))?;
        report.caller = Some(caller.clone());
        let found = found.map_err(|e| aws_failure(&e))?;
        // A server that names no region is in the one that was given.
        let region = if found.is_empty() { region.to_owned() } else { found };
        let aws = aws.in_region(&region);
        let account = &caller.account;
        let owner = request.bucket_owner.as_deref();
        let owned = aws.is_owner(&request.bucket, Some(account)).await;
        report.bucket = Some(BucketReport {
            name: request.bucket.clone(),
            region: Some(region.clone()),
            expected_owner: Some(account.clone()),
        });
        let same = |status, evidence: String| Check::new(CheckId::SameAccount, status, evidence);
        let elsewhere = owned == Some(false) || owner.is_some_and(|owner| owner != account);
        if elsewhere {
            let evidence = format!(
                "these credentials are of account {account}, the bucket `{}` is not",
                request.bucket
            );
            report.checks.push(same(Status::Fail, evidence.clone()));
            return Err(Failure::new(
                FailureReason::WrongBucketOwner,
                evidence,
                "The key must be in the bucket's account: run this mode with a role of that account",
            ));
        }
        if owned.is_none() && owner.is_none() {
            return Err(Failure::new(
                FailureReason::WrongBucketOwner,
                format!(
                    "whether the bucket `{}` belongs to account {account} cannot be seen",
                    request.bucket
                ),
                "Grant s3:ListBucket on it, or name its account by `bucket-owner`",
            ));
        }
        report.checks.push(same(Status::Pass, format!("key and bucket in {account}")));
        let evidence = format!("key and bucket in {region}");
        report.checks.push(Check::new(CheckId::SameRegion, Status::Pass, evidence));
        let partition = caller.arn.split(':').nth(1).unwrap_or("aws").to_owned();
        let bucket_keys = if request.key_admin.hardened {
            let bucket = aws.bucket(&request.bucket, Some(account), None);
            bucket.default_encryption().await.ok().map(|(_, on)| on)
        } else {
            None
        };
        Ok(Place { keys: aws.keys(), aws, caller, region, partition, bucket_keys })
    }

    fn wanted_policy(&self, place: &Place) -> Value {
        let request = self.request;
        let states = request.layout.for_policies();
        let usage = if request.key_admin.hardened {
            let bucket = place.state_bucket(&request.bucket);
            Usage::ThroughS3 { region: &place.region, bucket, states: &states }
        } else {
            Usage::Direct
        };
        let account = &place.caller.account;
        key_policy::wanted(&place.partition, account, &request.deploy_principals, usage)
    }

    fn tags(&self) -> BTreeMap<String, String> {
        [
            (TAG_ALIAS, self.request.key_admin.alias.as_str()),
            (TAG_BUCKET, self.request.bucket.as_str()),
            ("tfstate-kms:environment", self.request.environment.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The key that is there already: by its alias, else by the tags that CreateKey set.
    async fn find(&self, place: &Place) -> Result<Option<String>, Failure> {
        let alias = &self.request.key_admin.alias;
        let (by_alias, by_tags) =
            tokio::join!(place.keys.behind_alias(alias), self.find_by_tags(&place.keys));
        let mut found: BTreeSet<String> = by_tags?.into_iter().collect();
        found.extend(by_alias.map_err(|e| refused(&e))?);
        if found.len() > 1 {
            let list: Vec<String> = found.iter().map(|id| printable(id)).collect();
            return Err(Failure::new(
                FailureReason::KeyAmbiguous,
                format!(
                    "more than one key has the alias or the tags of {}: {}",
                    printable(alias),
                    list.join(", ")
                ),
                "Keep one: give the others another alias and take the tags tfstate-kms:* from them",
            ));
        }
        Ok(found.into_iter().next())
    }

    async fn find_by_tags(&self, keys: &Keys) -> Result<Vec<String>, Failure> {
        let ids = keys.all().await.map_err(|e| refused(&e))?;
        let wanted = self.tags();
        let wanted = &wanted;
        let found = stream::iter(ids)
            .map(|id| async move {
                let tags = keys.tags(&id).await;
                (id, tags)
            })
            .buffer_unordered(PARALLEL)
            .collect::<Vec<_>>()
            .await;
        let mut ids = Vec::new();
        for (id, tags) in found {
            match tags {
                Ok(tags)
                    if [TAG_ALIAS, TAG_BUCKET].iter().all(|t| tags.get(*t) == wanted.get(*t)) =>
                {
                    ids.push(id);
                }
                // A key whose policy shuts this principal out was not made by it.
                Ok(_) => {}
                Err(error) if matches!(error.kind, Kind::Denied | Kind::KeyNotFound) => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        Ok(ids)
    }

    /// Makes the key; a lost answer is looked after, so that none is made twice.
    async fn make(&self, place: &Place, wanted: &Value) -> Result<KeyArn, Untaken> {
        let principal = &place.caller.principal;
        let reach = crate::policies::Policy::parse(&wanted.to_string())
            .map(|policy| policy.reach("kms:PutKeyPolicy", principal));
        if matches!(reach, None | Some(crate::policies::Reach::Not)) {
            let failure = Failure::new(
                FailureReason::LastAdministrator,
                format!("the key policy would lock {} out", principal.arn),
                "Run this mode with a principal of the bucket's account",
            );
            return Err(Untaken { failure, perhaps: false });
        }
        let description = format!("Terraform state - {}", self.request.environment);
        let policy = wanted.to_string();
        // From here on it may be there.
        let made = |failure| Untaken { failure, perhaps: true };
        let arn = match place.keys.create(&description, &policy, &self.tags()).await {
            Ok(arn) => arn,
            Err(error) if error.kind.is_ambiguous() => {
                // It may have been made: its tags tell, as soon as KMS lists it.
                let mut found = Vec::new();
                for _ in 0..super::PATIENCE {
                    found = self.find_by_tags(&place.keys).await.map_err(made)?;
                    if !found.is_empty() {
                        break;
                    }
                    tokio::time::sleep(super::PAUSE).await;
                }
                match found.first() {
                    Some(id) => id.clone(),
                    None => return Err(Untaken::by(&error)),
                }
            }
            Err(error) => return Err(Untaken::by(&error)),
        };
        let described = patiently(async || place.keys.describe(&arn).await).await;
        let described = described.map_err(|e| made(refused(&e)))?;
        parsed(&described.arn).map_err(made)
    }

    /// Looks at a key that is there, and mends what `confirm` allows.
    async fn complete(
        &self,
        report: &mut Report,
        key: &mut KeyReport,
        place: &Place,
        id: &str,
        wanted: &Value,
    ) -> Result<KeyArn, Failure> {
        let admin = &self.request.key_admin;
        let (keys, alias) = (&place.keys, &admin.alias);
        let described = patiently(async || keys.describe(id).await).await;
        let described = described.map_err(|e| refused(&e))?;
        let arn = parsed(&described.arn)?;
        if let Some((evidence, remedy)) = preflight::unfit(&arn, &described) {
            let check = Check::new(CheckId::KeyUsable, Status::Fail, evidence.clone());
            report.checks.push(check.remedy(remedy.clone()));
            let remedy = format!("{remedy}\nOr choose another `alias` for a new key");
            return Err(Failure::new(FailureReason::KeyUnusable, evidence, remedy));
        }
        let now = self.existing(&arn, place, wanted).await.map_err(|e| refused(&e))?;
        let may = admin.confirms("create");
        let begun = key.steps.len();
        if !now.tags {
            let what = "tag the key, so that it is found without its alias";
            self.step(key, what, may, asked(keys.tag(id, &self.tags()))).await?;
        }
        if let Some(why) = &now.rotation {
            let days = admin.rotation_days;
            let rotate = asked(patiently(async || keys.rotate(id, days).await));
            self.step(key, why.as_str(), may, rotate).await?;
        }
        if !now.alias {
            let what = format!("give it the alias {}", printable(alias));
            let name = asked(patiently(async || keys.create_alias(alias, id).await));
            self.step(key, what, may, name).await?;
        }
        if !now.lacks.is_empty() {
            let after = key_policy::grant(&now.policy, wanted);
            key.diff = Some(key_policy::diff(&now.policy, &after));
            let lacks: Vec<String> = now
                .lacks
                .iter()
                .map(|(sid, who)| format!("{sid} for {}", who.join(", ")))
                .collect();
            let what = format!("grant what the key policy lacks: {}", lacks.join("; "));
            let after = after.to_string();
            let grant = asked(keys.put_policy(id, &after));
            self.step(key, what, admin.confirms("policy"), grant).await?;
        }
        // What was written is read back.
        let then = match key.steps[begun..].iter().any(|step| step.done) {
            true => self.existing(&arn, place, wanted).await.map_err(|e| refused(&e))?,
            false => now,
        };
        report.checks.push(Check::new(
            CheckId::KeyUsable,
            Status::Pass,
            "Enabled, SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT, customer-managed",
        ));
        report.checks.push(match &then.rotation {
            None => Check::new(CheckId::KeyRotation, Status::Pass, "rotation is on"),
            Some(why) => Check::new(CheckId::KeyRotation, Status::Warn, format!("to do: {why}")),
        });
        report.checks.push(doctor::key_policy(&arn, &Ok(then.policy.to_string()), None));
        let undone = may && (then.rotation.is_some() || !then.alias || !then.tags)
            || admin.confirms("policy") && !then.lacks.is_empty();
        if undone {
            return Err(Failure::new(
                FailureReason::KeyChangeFailed,
                format!("{arn} does not show yet what it was told"),
                "KMS may take some seconds: run again",
            ));
        }
        Ok(arn)
    }

    async fn existing(
        &self,
        arn: &KeyArn,
        place: &Place,
        wanted: &Value,
    ) -> Result<Existing, AwsError> {
        let (keys, id) = (&place.keys, arn.as_str());
        let admin = &self.request.key_admin;
        let (policy, rotation, alias, tags) = tokio::join!(
            keys.policy(id),
            keys.rotation(id),
            keys.behind_alias(&admin.alias),
            keys.tags(id)
        );
        let policy: Value = serde_json::from_str(&policy?).unwrap_or_default();
        let (rotation, tags) = (rotation?, tags?);
        let rotation = match (rotation.on, admin.rotation_days, rotation.days) {
            (false, Some(days), _) => Some(format!("turn on rotation, every {days} days")),
            (false, None, _) => Some("turn on rotation".to_owned()),
            (true, Some(wanted), Some(now)) if wanted != now => {
                Some(format!("rotate every {wanted} days instead of {now}"))
            }
            _ => None,
        };
        Ok(Existing {
            lacks: key_policy::lacking(&policy, wanted),
            policy,
            rotation,
            alias: alias?.as_deref() == Some(arn.id()),
            tags: self.tags().iter().all(|(name, value)| tags.get(name) == Some(value)),
        })
    }

    /// What is left to do on the other side of the account border.
    fn part_two(&self, report: &mut Report, key: &mut KeyReport, arn: &KeyArn) {
        let statement = grants::iam_policy_statement(arn);
        key.notes.push(format!(
            "Give each deploy principal of another account this statement in its own IAM policy (Part 2):\n{statement:#}\n"
        ));
        key.notes.push(format!(
            "Root administration leaves it to account {} whom its IAM policies let in: whoever has kms:* there \
             reads every environment",
            arn.account()
        ));
        self.keep_statement(report, "iam-policy-statement", &statement);
    }
}

fn parsed(arn: &str) -> Result<KeyArn, Failure> {
    KeyArn::parse(arn).map_err(|error| {
        Failure::new(
            FailureReason::KeyChangeFailed,
            format!("KMS answered with a key ARN that is not understood: {error}"),
            "Run again; if it stays so, report it",
        )
    })
}
