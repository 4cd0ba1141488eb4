//! `retire-key`: proves that no version in the bucket needs the key, then schedules its end.

use futures_util::stream::{self, StreamExt};

use super::{Run, Target, Untaken, asked, refused};
use crate::aws::{AwsError, Bucket, ObjectVersion, ServerSide};
use crate::check::{Failure, FailureReason};
use crate::names::{KeyArn, printable, some_of};
use crate::report::{KeyReport, Report};

/// Versions looked at at the same time.
const PARALLEL: usize = 64;
/// Versions that are listed in a message.
const SHOWN: usize = 20;

/// Who needs the key.
#[derive(Debug, Default)]
struct Needs {
    /// All versions that were looked at.
    seen: usize,
    /// Current objects under the key.
    current: Vec<ObjectVersion>,
    /// Old versions under the key.
    old: Vec<ObjectVersion>,
    /// Those that could not be looked at.
    unknown: Vec<(ObjectVersion, AwsError)>,
}

impl Run<'_> {
    pub(super) async fn retire_key(
        &self,
        report: &mut Report,
        key: &mut KeyReport,
    ) -> Result<(), Failure> {
        let (request, admin) = (self.request, &self.request.key_admin);
        let Target { arn: target, aws, keys, bucket, described } =
            self.target_key(report, key).await?;
        let (needs, default) =
            tokio::join!(who_needs(&bucket, target), bucket.default_encryption());
        report.requests = aws.requests().count();
        let needs = needs.map_err(|e| refused(&e))?;
        self.log.line(&format!("{} versions looked at in this bucket", needs.seen));
        if let Ok((ServerSide::Kms(named) | ServerSide::Dsse(named), _)) = &default
            && named.rsplit('/').next() == Some(target.id())
        {
            return Err(in_use(
                format!("{target} is the default encryption of the bucket `{}`", request.bucket),
                "Change the bucket's default encryption first".into(),
            ));
        }
        refuse(&needs, admin.abandon_versions, target, &request.bucket)?;
        if let Some(count) = admin.abandon_versions.filter(|count| *count > 0) {
            report.warnings.push(format!("{count} old versions will be unreadable for good"));
        }
        key.notes.push(format!(
            "In the bucket `{}` nothing needs the key, of what this principal can see. Other buckets, backups and \
             replicas were not looked at",
            request.bucket
        ));
        match keys.grants(target.as_str()).await {
            Ok(grants) => key.notes.extend(grants.iter().map(|grant| {
                format!(
                    "There is a grant for {}: {}",
                    printable(&grant.grantee),
                    grant.operations.join(", ")
                )
            })),
            Err(error) => key.notes.push(format!("Its grants could not be seen ({error})")),
        }
        if described.state == "PendingDeletion" {
            let date = described.deletion_date.as_deref().unwrap_or("an unknown date");
            key.notes.push(format!("It will be deleted on {date} already"));
            return Ok(());
        }
        let may = admin.confirms_target();
        if described.state != "Disabled" {
            self.step(key, "disable the key", may, asked(keys.disable(target.id()))).await?;
        }
        let days = admin.deletion_days;
        let schedule = async {
            match keys.schedule_deletion(target.id(), days).await {
                Ok(date) => Ok(date),
                // Whatever was answered, the key itself tells.
                Err(error) => {
                    let now = keys.describe(target.as_str()).await;
                    let now = now.map_err(|e| Untaken { failure: refused(&e), perhaps: true })?;
                    if now.state == "PendingDeletion" {
                        Ok(now.deletion_date)
                    } else {
                        Err(Untaken::by(&error))
                    }
                }
            }
        };
        let what = format!("schedule its deletion in {days} days");
        let Some(date) = self.step(key, what, may, schedule).await? else {
            key.notes.push(format!("To do it, run again with `confirm: {}`", target.id()));
            return Ok(());
        };
        let date = date.unwrap_or_else(|| "an unknown date".into());
        key.came_to(&date);
        key.notes.push(format!(
            "Until {date} it can be saved: mode `recover-key`, or aws kms cancel-key-deletion --key-id {target}"
        ));
        report.requests = aws.requests().count();
        Ok(())
    }
}

async fn who_needs(bucket: &Bucket, target: &KeyArn) -> Result<Needs, AwsError> {
    let versions = bucket.all_versions().await?;
    let looked = stream::iter(versions)
        .map(|version| async move {
            let encryption = bucket.encryption_of(&version).await;
            (version, encryption)
        })
        .buffered(PARALLEL)
        .collect::<Vec<_>>()
        .await;
    let mut needs = Needs { seen: looked.len(), ..Needs::default() };
    for (version, encryption) in looked {
        match encryption {
            Ok(ServerSide::Kms(id) | ServerSide::Dsse(id)) => {
                // A replica of a multi-Region key has the same id.
                if id.rsplit('/').next() == Some(target.id()) {
                    if version.current {
                        needs.current.push(version);
                    } else {
                        needs.old.push(version);
                    }
                }
            }
            Ok(_) => {}
            Err(error) => needs.unknown.push((version, error)),
        }
    }
    Ok(needs)
}

fn in_use(message: String, remedy: String) -> Failure {
    Failure::new(FailureReason::KeyInUse, message, remedy)
}

fn named<'a>(versions: impl IntoIterator<Item = &'a ObjectVersion>) -> String {
    let all = versions.into_iter();
    some_of(all.map(|one| format!("{} ({})", printable(&one.key), printable(&one.id))), SHOWN, ", ")
}

/// Everything that still needs the key, or may, is a refusal.
fn refuse(
    needs: &Needs,
    abandon: Option<usize>,
    target: &KeyArn,
    bucket: &str,
) -> Result<(), Failure> {
    if !needs.current.is_empty() {
        let count = needs.current.len();
        return Err(in_use(
            format!("{count} current objects are under {target}: {}", named(&needs.current)),
            "Re-key them first: mode `apply` with another key, or `rollback`".into(),
        ));
    }
    if !needs.unknown.is_empty() {
        let all = needs.unknown.iter().map(|(version, _)| version);
        let why = needs.unknown.first().map(|(_, error)| error.to_string()).unwrap_or_default();
        return Err(in_use(
            format!("{} versions could not be looked at ({why}): {}", needs.unknown.len(), named(all)),
            "Grant s3:GetObject and s3:GetObjectVersion on the whole bucket: what is not seen may need the key"
                .into(),
        ));
    }
    let count = needs.old.len();
    if count == abandon.unwrap_or(0) {
        return Ok(());
    }
    if count == 0 {
        return Err(in_use(
            format!(
                "`abandon-versions` is {}, but no noncurrent version is under {target}",
                abandon.unwrap_or(0)
            ),
            "Leave `abandon-versions` out: there is nothing to give up".into(),
        ));
    }
    let mut keys: Vec<String> = needs.old.iter().map(|version| version.key.clone()).collect();
    keys.dedup();
    Err(in_use(
        format!("{count} old versions are under {target}: {}", named(&needs.old)),
        format!(
            "They cannot go back to SSE-S3 in place. {}\nOr give them up: `abandon-versions: {count}`",
            crate::history::lifecycle(bucket, &keys)
        ),
    ))
}
