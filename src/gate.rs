//! The gate: does S3 read access alone still read a state?
//!
//! Tried, not inferred: a session that has s3:GetObject on the states and nothing else
//! is made, and asked to read. [`verdict`] is pure and says `holds` only with all three
//! observations at hand.

use futures_util::stream::{self, StreamExt};

use crate::aws::{Aws, AwsError, Bucket, Caller, Kind, Session};
use crate::inputs::{Environment, Probe};

/// States tried at the same time.
const PARALLEL: usize = 64;

/// How a session with less power is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Assume the role of `probe-role-arn`, as it is.
    Role(String),
    /// Assume the deploy role again by the runner's OIDC token, with a session policy.
    WebIdentity {
        /// The role's full ARN, path included.
        role: String,
        /// It was taken from the session's ARN, which has lost the role's path.
        guessed: bool,
    },
    /// GetFederationToken of an IAM user's long-term keys, with a session policy.
    Federation,
}

impl Way {
    /// As the input `probe` names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Role(_) => "role",
            Self::WebIdentity { .. } => "web-identity",
            Self::Federation => "federation",
        }
    }
}

/// What one request of the probe came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Ok,
    /// 403: the GET's with AccessDenied; a HEAD's has no body, and so no code.
    Denied,
    /// Anything else, in words.
    Other(String),
}

impl Answer {
    fn of<T>(result: Result<T, AwsError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            // A 403 with another code (clock, token) is no word of a policy.
            Err(error) if error.kind == Kind::Denied => Self::Denied,
            Err(error) => Self::Other(error.to_string()),
        }
    }

    /// The same of a request whose refusal has a body: without S3's own code it may be a
    /// proxy's, or one of an archived object.
    fn with_code<T>(result: Result<T, AwsError>) -> Self {
        match result {
            Err(error) if !error.is_denial() => Self::Other(error.to_string()),
            result => Self::of(result),
        }
    }
}

/// The three observations on one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observations {
    /// The state's object key.
    pub state: String,
    /// The full session read it (GET 200).
    pub full_get: bool,
    /// The probe's HEAD, which needs no KMS.
    pub probe_head: Answer,
    /// The probe's GET.
    pub probe_get: Answer,
}

/// Whether S3 access alone reads the states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It does not: tried and refused.
    Holds,
    /// It does, for this state.
    Open(String),
    /// Not shown either way, and why.
    Inconclusive(String),
    /// Not tried.
    Off,
}

impl Gate {
    /// The output `gate`.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Open(_) => "open",
            Self::Inconclusive(_) => "inconclusive",
            Self::Off => "off",
        }
    }
}

/// Judges the observations: open if any state was read, holding only if the read of every
/// state was refused while its headers were seen and the full session reads it.
pub fn verdict(observations: &[Observations]) -> Gate {
    if let Some(open) = observations.iter().find(|seen| seen.probe_get == Answer::Ok) {
        return Gate::Open(open.state.clone());
    }
    for seen in observations {
        let state = &seen.state;
        let why = match (seen.full_get, &seen.probe_head, &seen.probe_get) {
            (true, Answer::Ok, Answer::Denied) => continue,
            (false, ..) => format!("`{state}` is not read by the full session either"),
            (_, Answer::Denied, _) => {
                format!(
                    "S3 itself refuses `{state}` to the probe, so its refusal says nothing of the key"
                )
            }
            (_, Answer::Other(error), _) | (_, _, Answer::Other(error)) => {
                format!("the probe's request for `{state}` failed otherwise ({error})")
            }
            (_, _, Answer::Ok) => "the probe read it".into(),
        };
        return Gate::Inconclusive(why);
    }
    if observations.is_empty() {
        Gate::Inconclusive("there is no state to try it on".into())
    } else {
        Gate::Holds
    }
}

/// The policy of a probe's session: S3 reads on the states, and no word of KMS. A deny
/// would hide just the wide-open key policy that the probe should find.
///
/// STS takes 2,048 characters; where the keys do not fit, the whole bucket does.
pub fn session_policy(partition: &str, bucket: &str, states: &[String]) -> String {
    const LIMIT: usize = 2048;
    let arn = |key: &str| format!("arn:{partition}:s3:::{bucket}/{key}");
    let policy = |resources: Vec<String>| {
        serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{ "Effect": "Allow", "Action": "s3:GetObject", "Resource": resources }],
        })
        .to_string()
    };
    let exact = policy(states.iter().map(|key| arn(key)).collect());
    if exact.len() <= LIMIT { exact } else { policy(vec![arn("*")]) }
}

/// The way that the input names, or the best that is open to this principal.
///
/// # Errors
/// Why there is none, and what to set.
pub fn way(
    probe: Probe,
    probe_role: Option<&str>,
    environment: &Environment,
    caller: Option<&Caller>,
    long_term_keys: bool,
) -> Result<Way, String> {
    let oidc = environment.get("ACTIONS_ID_TOKEN_REQUEST_URL").is_some();
    let web_identity = || {
        if !oidc {
            return Err(
                "there is no OIDC token: the job needs `permissions: id-token: write`".to_owned()
            );
        }
        let own = caller.map(|caller| &caller.principal).filter(|own| own.session.is_some());
        // With roles in a chain, the token is for the first one. Beside a user's keys, the
        // variable is of another step.
        let role = environment.get("AWS_ROLE_ARN").filter(|_| own.is_some() || caller.is_none());
        match (role, own) {
            (Some(role), _) => Ok(Way::WebIdentity { role: role.to_owned(), guessed: false }),
            (None, Some(own)) => {
                Ok(Way::WebIdentity { role: own.arn.clone(), guessed: own.guessed })
            }
            (None, None) => {
                Err("the credentials are not a role's, so there is no role to assume again"
                    .to_owned())
            }
        }
    };
    let federation = || match (long_term_keys, caller) {
        (true, Some(caller)) if caller.arn.contains(":user/") => Ok(Way::Federation),
        _ => Err("GetFederationToken takes an IAM user's long-term keys only".to_owned()),
    };
    let role = || {
        probe_role
            .map(|arn| Way::Role(arn.to_owned()))
            .ok_or("`probe-role-arn` is not given".to_owned())
    };
    match probe {
        Probe::Role => role(),
        Probe::WebIdentity => web_identity(),
        Probe::Federation => federation(),
        Probe::Off => Err("`probe` is `off`".to_owned()),
        Probe::Auto => role().or_else(|_| web_identity()).or_else(|no_token| {
            federation()
                .map_err(|no_keys| format!("{no_token}; {no_keys}; `probe-role-arn` is not given"))
        }),
    }
}

/// Makes the probe's session.
///
/// # Errors
/// Why there is none, and what to set.
pub async fn session(
    aws: &Aws,
    way: &Way,
    policy: &str,
    token: impl AsyncFnOnce() -> Result<String, String>,
) -> Result<Session, String> {
    let result = match way {
        Way::Role(role) => aws.assume(role).await,
        Way::Federation => aws.federate(policy).await,
        Way::WebIdentity { role, .. } => aws.assume_with_token(role, &token().await?, policy).await,
    };
    result.map_err(|error| match way {
        Way::WebIdentity { role, guessed: true } => format!(
            "{role} could not be assumed again ({error}); the name was guessed from the session, which has lost \
             a role's path: set AWS_ROLE_ARN or `deploy-principals` to the role's full ARN"
        ),
        other => format!("the probe's session ({}) could not be made ({error})", other.name()),
    })
}

/// Tries every state.
pub async fn observe(probe: &Bucket, states: &[(String, bool)]) -> Vec<Observations> {
    stream::iter(states.to_vec())
        .map(|(state, full_get)| async move {
            let (head, get) = tokio::join!(probe.head(&state), probe.try_get(&state));
            let (probe_head, probe_get) = (Answer::of(head), Answer::with_code(get));
            Observations { state, full_get, probe_head, probe_get }
        })
        .buffered(PARALLEL)
        .collect()
        .await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(full_get: bool, probe_head: Answer, probe_get: Answer) -> Observations {
        Observations { state: "s".into(), full_get, probe_head, probe_get }
    }

    fn answer() -> impl Strategy<Value = Answer> {
        prop_oneof![Just(Answer::Ok), Just(Answer::Denied), "[a-z]{1,5}".prop_map(Answer::Other)]
    }

    proptest! {
        #[test]
        fn it_holds_only_with_all_three_observations_on_every_state(
            all in prop::collection::vec((any::<bool>(), answer(), answer()), 0..5)
        ) {
            let all: Vec<Observations> = all.into_iter().map(|(f, h, g)| seen(f, h, g)).collect();
            let complete = !all.is_empty()
                && all.iter().all(|o| o.full_get && o.probe_head == Answer::Ok && o.probe_get == Answer::Denied);
            prop_assert_eq!(verdict(&all) == Gate::Holds, complete);
            let read = all.iter().any(|o| o.probe_get == Answer::Ok);
            prop_assert_eq!(matches!(verdict(&all), Gate::Open(_)), read);
        }
    }

    #[test]
    fn the_policy_names_s3_alone_and_fits() {
        let states: Vec<String> = (0..100).map(|n| format!("state-{n}")).collect();
        for states in [&states[..2], &states[..]] {
            let policy = session_policy("aws", "b", states);
            assert!(policy.len() <= 2048);
            assert!(!policy.contains("kms") && !policy.contains("Deny"), "{policy}");
        }
    }

    #[test]
    fn the_way_is_the_best_that_there_is() {
        let caller = |arn: &str, known: &[&str]| {
            let known: Vec<String> = known.iter().map(|arn| (*arn).to_owned()).collect();
            let account = "222222222222";
            let principal = crate::principal::Principal::of_caller(arn, account, &known);
            Caller { arn: arn.into(), account: account.into(), principal }
        };
        let (cicd, pathed) =
            ("arn:aws:iam::222222222222:role/cicd", "arn:aws:iam::222222222222:role/ci/cicd");
        let session_arn = "arn:aws:sts::222222222222:assumed-role/cicd/run";
        let (session, told) = (caller(session_arn, &[]), caller(session_arn, &[pathed]));
        let user = caller("arn:aws:iam::222222222222:user/terraform", &[]);
        let oidc = Environment::from([("ACTIONS_ID_TOKEN_REQUEST_URL", "http://x")]);
        let none = Environment::default();
        let role = |arn: &str, guessed| Ok(Way::WebIdentity { role: arn.into(), guessed });
        let auto =
            |role, environment, who, keys| way(Probe::Auto, role, environment, Some(who), keys);
        assert_eq!(auto(Some("r"), &oidc, &session, false), Ok(Way::Role("r".into())));
        assert_eq!(auto(None, &oidc, &session, false), role(cicd, true));
        assert_eq!(auto(None, &oidc, &told, false), role(pathed, false));
        assert_eq!(auto(None, &none, &user, true), Ok(Way::Federation));
        // The role of the job's first step; a user's own keys are no session of it.
        let first = "arn:aws:iam::333333333333:role/first";
        let named = Environment::from([
            ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://x"),
            ("AWS_ROLE_ARN", first),
        ]);
        assert_eq!(auto(None, &named, &session, false), role(first, false));
        assert_eq!(auto(None, &named, &user, true), Ok(Way::Federation));
        assert!(auto(None, &none, &session, false).unwrap_err().contains("id-token: write"));
        for named in [Probe::Role, Probe::Federation] {
            assert!(way(named, None, &oidc, Some(&session), false).is_err());
        }
    }
}
