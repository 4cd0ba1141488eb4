//! The roles that must keep reading the states once they are under the key: each is
//! assumed and tried before anything is re-keyed.

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use serde_json::Value;

use crate::aws::{Aws, AwsError, DryRun, Kind, NotAllowed};
use crate::check::{Check, CheckId, Failure, FailureReason, Status};
use crate::denials::{self, Cause, Parties, PolicyKind};
use crate::grants::{self, InBucket, Sides};
use crate::names::{KeyArn, printable};
use crate::policies::{Policy, Reach};
use crate::preflight::key_policy_of;
use crate::principal::Principal;

/// States tried at the same time, for each reader.
const PARALLEL: usize = 32;

/// What was found out about a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// It sees every state, and would decrypt it.
    Reads,
    /// It would be locked out, and why.
    LockedOut {
        /// What was refused.
        why: String,
        /// What to do: the statements that it lacks, and how they get to their place.
        remedy: String,
        /// Those statements, each with the side that it is for.
        statements: Vec<(&'static str, Value)>,
    },
    /// Not shown either way.
    Unknown(String),
}

/// How a state stands that the readers are tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It is not there yet, as this principal may see. Who lacks s3:ListBucket is refused it.
    Absent,
    /// It is under the target key.
    Under,
    /// It is there, under something else or perhaps not.
    Otherwise,
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
    pub states: &'a [(String, Stands)],
    /// This principal's own direct calls on the key were allowed, so a refusal of a
    /// reader's is no matter of kms:ViaService.
    pub direct: bool,
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
        let (some_bucket, some_keys) = (&bucket, &keys);
        let tried = stream::iter(self.states.to_vec())
            .map(|(state, stands)| async move {
                if stands == Stands::Under {
                    // The real thing is better evidence than any dry run.
                    match some_bucket.try_get(&state).await {
                        Ok(()) => return Tried::Read,
                        // S3 says the same for its own grant and the key's; a HEAD needs no key.
                        Err(get) if get.is_denial() => {
                            return match some_bucket.head(&state).await {
                                Ok(_) => Tried::Shut(get),
                                Err(head) => Tried::of_s3(self, role, &state, head),
                            };
                        }
                        // Nobody reads it before it is restored.
                        Err(get) if get.kind == Kind::Archived => {}
                        Err(get) if get.kind == Kind::NotFound => return Tried::NotThere,
                        Err(error) => return Tried::Settled(Reader::Unknown(error.to_string())),
                    }
                }
                let context = crate::preflight::context(
                    self.key,
                    some_bucket,
                    Some(&state).filter(|_| !self.bucket_key),
                );
                let refused = async {
                    match stands {
                        Stands::Absent => None,
                        _ => some_bucket.head(&state).await.err(),
                    }
                };
                let (refused, decrypt) =
                    tokio::join!(refused, some_keys.may_decrypt(self.key.as_str(), &context));
                match (refused, decrypt) {
                    (Some(error), _) if error.kind != Kind::NotFound => {
                        Tried::of_s3(self, role, &state, error)
                    }
                    (_, DryRun::Allowed) => Tried::WouldDecrypt,
                    (_, DryRun::Refused(error)) => Tried::Refused(error),
                    (_, DryRun::Unclear(error)) => Tried::Settled(Reader::Unknown(format!(
                        "a dry run of kms:Decrypt says neither ({error})"
                    ))),
                }
            })
            .buffered(PARALLEL)
            .collect::<Vec<_>>()
            .await;
        let read = tried.iter().any(|one| matches!(one, Tried::Read));
        let decrypts = read || tried.iter().any(|one| matches!(one, Tried::WouldDecrypt));
        let mut refused = None;
        let mut settled = self
            .states
            .is_empty()
            .then(|| Reader::Unknown("there is no state to try it on".to_owned()));
        for one in tried {
            match one {
                Tried::Settled(reader @ Reader::LockedOut { .. }) => return reader,
                Tried::Settled(reader) => settled = Some(reader),
                Tried::Shut(error) => return self.sides(role, aws, &error, true, decrypts).await,
                Tried::Refused(error) => refused = Some(error),
                Tried::Read | Tried::WouldDecrypt | Tried::NotThere => {}
            }
        }
        match refused {
            None => settled.unwrap_or(Reader::Reads),
            Some(error) => match self.sides(role, aws, &error, false, decrypts).await {
                // It reads a state under the key through S3, so perhaps only the direct call is
                // refused; or the key policy lets it read that state alone.
                Reader::LockedOut { why, .. } if read => Reader::Unknown(format!(
                    "it reads a state under the key, but whether it would read every other cannot be told ({why})"
                )),
                reader => reader,
            },
        }
    }

    /// What a reader may lack in S3.
    fn in_bucket(&self, role: &str) -> String {
        let states: Vec<String> = self.states.iter().map(|(state, _)| state.clone()).collect();
        let (bucket, owner) = self.bucket;
        let partition = self.key.partition();
        let (writes, in_place, locks, acl, retains) = (false, false, false, false, false);
        let needs = InBucket {
            principal: role,
            partition,
            bucket,
            owner,
            states: &states,
            writes,
            in_place,
            locks,
            acl,
            retains,
        };
        needs.remedy()
    }

    /// Which side refuses, as far as there is evidence: the key policy, then what IAM says
    /// of the role's own policies.
    /// `shut`: the read itself was refused, and no dry run. `decrypts`: something else was read, or
    /// would be decrypted, under the key.
    async fn sides(
        &self,
        role: &str,
        aws: &Aws,
        error: &AwsError,
        shut: bool,
        decrypts: bool,
    ) -> Reader {
        let who = Principal::of_arn(role);
        let reach = self.key_policy.map(|policy| policy.reach("kms:Decrypt", &who));
        let (by_self, by_us) = tokio::join!(
            aws.not_allowed_by_iam(role, &["kms:Decrypt"], self.key.as_str()),
            self.aws.not_allowed_by_iam(role, &["kms:Decrypt"], self.key.as_str())
        );
        // In the key's own account a key policy that names the role is enough, and one that may
        // not be read may do so through S3 only.
        let own = who.account == self.key.account();
        let needs_iam = !own || reach == Some(Reach::Allowed);
        let believed =
            |refused: &Vec<NotAllowed>| !decrypts || !NotAllowed::any_forbids(refused, !own);
        let iam = by_self.or(by_us).ok().filter(believed).map(|refused| refused.is_empty());
        let certain = shut || reach == Some(Reach::Not) || (iam == Some(false) && needs_iam);
        if !certain && reach == Some(Reach::Perhaps) {
            return Reader::Unknown(
                "the key policy allows it under conditions only, so a direct call cannot tell"
                    .into(),
            );
        }
        if !certain && !self.direct {
            return Reader::Unknown(format!(
                "a direct kms:Decrypt is refused to it ({error}), as to this principal: with kms:ViaService in \
                 the key policy, which may not be read here, that is no sign. Run mode `verify` afterwards"
            ));
        }
        let key_policy = match reach {
            Some(Reach::Allowed) => Some(true),
            Some(Reach::Not) => Some(false),
            Some(Reach::Perhaps) | None => None,
        };
        let found = Sides { key_policy, iam };
        let (remedy, lacks) = self.remedy(&who, error, found);
        Reader::LockedOut {
            why: format!("it may not decrypt ({error}); {found}"),
            remedy,
            statements: grants::reader_documents(role, self.key, lacks),
        }
    }

    /// What to do, and on which sides an Allow may be missing: it helps against no Deny, nor
    /// where what others allow is limited.
    fn remedy(&self, who: &Principal, error: &AwsError, found: Sides) -> (String, Sides) {
        let denied = self.key_policy.and_then(|policy| policy.denied_by("kms:Decrypt", who));
        let cause = match &denied {
            Some(_) => Some(Cause { by: PolicyKind::Resource, explicit: true }),
            None => error.message.as_deref().and_then(Cause::of),
        };
        let limited = cause.is_some_and(|cause| !cause.is_lack());
        let unless = |open: bool| (!open).then_some(true);
        let lacks = Sides {
            key_policy: unless(match found.key_policy {
                Some(granted) => !granted && denied.is_none(),
                None => !limited,
            }),
            iam: unless(found.iam.map_or(!limited, |granted| !granted)),
        };
        let (role, of_key) = (who.arn.as_str(), key_policy_of(self.key));
        let policy = match &denied {
            Some(sid) => format!("the statement {} of {of_key}", printable(sid)),
            None => of_key,
        };
        let principal = format!("{role} (account {})", who.account);
        let parties = Parties { principal: &principal, policy: &policy };
        let mut parts: Vec<String> =
            cause.and_then(|cause| cause.advice(parties)).into_iter().collect();
        if lacks.key_policy.is_none() || lacks.iam.is_none() {
            parts.push(grants::of_reader(role, self.key, lacks));
        } else if parts.is_empty() {
            parts.push(denials::unexplained(&principal));
        }
        (parts.join("\n\n"), lacks)
    }
}

/// What a try on one state came to.
enum Tried {
    /// A state under the key was read.
    Read,
    /// A dry run on the key would have succeeded.
    WouldDecrypt,
    /// A state under the key was refused, though its headers may be seen.
    Shut(AwsError),
    /// A dry run on the key was refused.
    Refused(AwsError),
    /// It has gone since.
    NotThere,
    /// Nothing more has to be asked.
    Settled(Reader),
}

impl Tried {
    /// What stands in the way in S3, where a state that is not there does not.
    fn of_s3(trial: &Trial<'_>, role: &str, state: &str, error: AwsError) -> Self {
        match error.kind {
            Kind::NotFound => Self::NotThere,
            Kind::Denied => Self::Settled(Reader::LockedOut {
                why: format!("S3 refuses it `{state}` ({error})"),
                remedy: trial.in_bucket(role),
                statements: Vec::new(),
            }),
            _ => Self::Settled(Reader::Unknown(error.to_string())),
        }
    }
}

/// The name of a file for a reader's statement: by its number among the readers and, for
/// people, by the role's name.
pub fn file_name(number: usize, role: &str, side: &str) -> String {
    const LONGEST: usize = 64;
    let name = role.rsplit('/').next().unwrap_or_default().chars().take(LONGEST);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = name.map(plain).collect();
    format!("reader-{number}-{name}-{side}-statement")
}

/// One check for all readers, and a failure for each that would be locked out.
pub fn judge(readers: &[(String, Reader)]) -> (Check, Vec<Failure>) {
    let mut failures = Vec::new();
    let mut unknown = Vec::new();
    for (role, reader) in readers {
        let role = printable(role);
        match reader {
            Reader::Reads => {}
            Reader::LockedOut { why, remedy, .. } => failures.push(Failure::new(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_leads_nowhere_else() {
        let name = |role| file_name(2, role, "iam-policy");
        assert_eq!(name("arn:aws:iam::1:role/ci/plan"), "reader-2-plan-iam-policy-statement");
        assert_eq!(name("arn:aws:iam::1:role/a.b@c"), "reader-2-a-b-c-iam-policy-statement");
        assert_eq!(name("../..\\x y"), "reader-2----x-y-iam-policy-statement");
        assert!(name(&"x".repeat(500)).len() < 100);
    }
}
