//! The roles that must keep reading the states once they are under the key: each is
//! assumed and tried before anything is re-keyed.

use futures_util::future::join_all;

use crate::aws::{Aws, Bucket, DryRun, Kind};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::grants;
use crate::names::{KeyArn, printable};
use crate::policies::{Policy, Reach};

/// What was found out about a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// It sees every state, and would decrypt it.
    Reads,
    /// It would be locked out, and why.
    LockedOut {
        /// What was refused.
        why: String,
        /// The statements that it lacks.
        remedy: String,
    },
    /// Not shown either way.
    Unknown(String),
}

/// What the readers are tried on.
pub struct Trial<'a> {
    /// This principal's clients.
    pub aws: &'a Aws,
    /// The target key.
    pub key: &'a KeyArn,
    /// The state bucket's name and the account that must own it.
    pub bucket: (&'a str, Option<&'a str>),
    /// The states' object keys.
    pub states: &'a [String],
    /// S3 Bucket Keys are on, as far as is known.
    pub bucket_key: bool,
    /// The key policy, where it may be read.
    pub key_policy: Option<&'a Policy>,
}

impl Trial<'_> {
    /// Tries every reader, side by side. Also returns the secrets of their sessions.
    pub async fn run(&self, roles: &[String]) -> (Vec<(String, Reader)>, Vec<String>) {
        let tried = join_all(roles.iter().map(|role| async move {
            match self.aws.assume(role).await {
                Ok(session) => (role.clone(), self.reads(role, &session.aws).await, session.secrets),
                Err(error) => {
                    let why = format!(
                        "it could not be assumed ({error}); let its trust policy name this principal, and \
                         this principal's policy sts:AssumeRole on it"
                    );
                    (role.clone(), Reader::Unknown(why), Vec::new())
                }
            }
        }))
        .await;
        let mut readers = Vec::new();
        let mut secrets = Vec::new();
        for (role, reader, more) in tried {
            readers.push((role, reader));
            secrets.extend(more);
        }
        (readers, secrets)
    }

    async fn reads(&self, role: &str, aws: &Aws) -> Reader {
        let bucket = aws.bucket(self.bucket.0, self.bucket.1, None);
        let keys = aws.in_region(self.key.region()).keys();
        let tried = join_all(self.states.iter().map(|state| {
            let (bucket, keys) = (&bucket, &keys);
            async move {
                let context = crate::preflight::context(
                    self.key,
                    bucket,
                    Some(state).filter(|_| !self.bucket_key),
                );
                tokio::join!(
                    self.head(bucket, state),
                    keys.may_decrypt(self.key.as_str(), &context)
                )
            }
        }))
        .await;
        let mut refused = None;
        for (head, decrypt) in tried {
            if let Some(reader) = head {
                return reader;
            }
            match decrypt {
                DryRun::Allowed => {}
                DryRun::Refused(error) => refused = Some(error),
                DryRun::Unclear(error) => {
                    return Reader::Unknown(format!(
                        "a dry run of kms:Decrypt says neither ({error})"
                    ));
                }
            }
        }
        match refused {
            None => Reader::Reads,
            Some(error) => self.sides(role, aws, &error).await,
        }
    }

    /// What stands in the way already in S3; a state that is not there yet does not.
    async fn head(&self, bucket: &Bucket, state: &str) -> Option<Reader> {
        match bucket.head(state).await {
            Ok(_) => None,
            Err(error) if error.kind == Kind::NotFound => None,
            Err(error) if error.kind == Kind::Denied => Some(Reader::LockedOut {
                why: format!("S3 refuses it `{state}` ({error})"),
                remedy: format!(
                    "Grant s3:GetObject on arn:{}:s3:::{}/{state}",
                    self.key.partition(),
                    bucket.name()
                ),
            }),
            Err(error) => Some(Reader::Unknown(error.to_string())),
        }
    }

    /// Which side refuses, as far as there is evidence: the key policy, then what IAM says
    /// of the role's own policies.
    async fn sides(&self, role: &str, aws: &Aws, error: &crate::aws::AwsError) -> Reader {
        let account = role.split(':').nth(4).unwrap_or_default();
        let reach = self.key_policy.map(|policy| policy.reach("kms:Decrypt", role, account));
        if reach == Some(Reach::Perhaps) {
            return Reader::Unknown(
                "the key policy allows it under conditions only, so a direct call cannot tell"
                    .into(),
            );
        }
        let (by_self, by_us) = tokio::join!(
            aws.not_allowed_by_iam(role, &["kms:Decrypt"], self.key.as_str()),
            self.aws.not_allowed_by_iam(role, &["kms:Decrypt"], self.key.as_str())
        );
        let iam = by_self.or(by_us).ok().map(|refused| refused.is_empty());
        let grants = grants::Sides { key_policy: reach.map(|reach| reach == Reach::Allowed), iam };
        let remedy = grants::reader_statements(role, self.key, grants);
        Reader::LockedOut { why: format!("kms:Decrypt is refused ({error}); {grants}"), remedy }
    }
}

/// One check for all readers, and a failure for each that would be locked out.
pub fn judge(readers: &[(String, Reader)]) -> (Check, Vec<Failure>) {
    let mut failures = Vec::new();
    let mut unknown = Vec::new();
    for (role, reader) in readers {
        let role = printable(role);
        match reader {
            Reader::Reads => {}
            Reader::LockedOut { why, remedy } => failures.push(Failure::new(
                FailureReason::ReadersLockedOut,
                format!("{role} must read the states but could not: {why}"),
                remedy.clone(),
            )),
            Reader::Unknown(why) => unknown.push(format!("{role}: {why}")),
        }
    }
    let id = CheckId::Readers;
    let check = if !failures.is_empty() {
        let out: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
        let remedies: Vec<&str> = failures.iter().map(|failure| failure.remedy.as_str()).collect();
        Check::new(id, Status::Fail, out.join("; ")).remedy(remedies.join("\n\n"))
    } else if unknown.is_empty() {
        Check::new(id, Status::Pass, format!("{} of {0} would read", readers.len()))
    } else {
        Check::new(id, Status::Unknown, unknown.join("; "))
    };
    (check, failures)
}
