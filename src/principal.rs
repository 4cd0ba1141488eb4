//! Who a policy means. Pure.

/// A principal as policies name it.
///
/// A role's session ARN has lost the role's path (`assumed-role/NAME/SESSION`), so where
/// nobody has said it, the role's ARN is a guess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The ARN of the user or role.
    pub arn: String,
    /// Its account.
    pub account: String,
    /// The session's ARN.
    pub session: Option<String>,
    /// `arn` may lack the role's path.
    pub guessed: bool,
}

/// Whether a policy's `Principal` means someone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// It does.
    Yes,
    /// It does if the role has the path that is named.
    Perhaps,
    /// It does not.
    No,
}

impl Principal {
    /// The principal behind a caller's ARN. `known` are full ARNs of roles, one of which may
    /// be the session's.
    pub fn of_caller(caller: &str, account: &str, known: &[String]) -> Self {
        let account = account.to_owned();
        let Some((head, session)) = caller.split_once(":assumed-role/") else {
            return Self { arn: caller.to_owned(), account, session: None, guessed: false };
        };
        let name = session.split('/').next().unwrap_or(session);
        let head = head.replacen(":sts:", ":iam:", 1);
        let full = known.iter().find(|arn| {
            let role = arn.strip_prefix(&head).and_then(|rest| rest.strip_prefix(":role/"));
            role.is_some_and(|role| role.rsplit('/').next() == Some(name))
        });
        Self {
            arn: full.cloned().unwrap_or_else(|| format!("{head}:role/{name}")),
            account,
            session: Some(caller.to_owned()),
            guessed: full.is_none(),
        }
    }

    /// A user or role of this full ARN.
    pub fn of_arn(arn: &str) -> Self {
        Self {
            arn: arn.to_owned(),
            account: arn.split(':').nth(4).unwrap_or_default().to_owned(),
            session: None,
            guessed: false,
        }
    }

    /// Whether an entry of a policy's `Principal` means this one.
    pub fn named_by(&self, entry: &str) -> Named {
        if entry == "*"
            || entry == self.arn
            || self.session.as_deref() == Some(entry)
            || account_of(entry) == Some(&self.account)
        {
            return Named::Yes;
        }
        let name = |arn: &str| arn.rsplit('/').next().map(str::to_owned);
        let own_role = entry.contains(&format!(":iam::{}:role/", self.account));
        if self.guessed && own_role && name(entry) == name(&self.arn) {
            return Named::Perhaps;
        }
        Named::No
    }
}

/// The account of an entry that stands for a whole account.
pub fn account_of(entry: &str) -> Option<&str> {
    if crate::names::is_account(entry) {
        return Some(entry);
    }
    entry.strip_suffix(":root")?.rsplit(':').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "222222222222";

    fn cicd(known: &[&str]) -> Principal {
        let known: Vec<String> = known.iter().map(|arn| (*arn).to_owned()).collect();
        let session = "arn:aws:sts::222222222222:assumed-role/cicd/run-1";
        Principal::of_caller(session, ACCOUNT, &known)
    }

    #[test]
    fn sessions_become_their_role() {
        let guess =
            cicd(&["arn:aws:iam::333333333333:role/ci/cicd", "arn:aws:iam::222222222222:role/x"]);
        assert_eq!(
            (guess.arn.as_str(), guess.guessed),
            ("arn:aws:iam::222222222222:role/cicd", true)
        );
        let full = "arn:aws:iam::222222222222:role/ci/cicd";
        let told = cicd(&[full]);
        assert_eq!((told.arn.as_str(), told.guessed), (full, false));
        let user = "arn:aws:iam::222222222222:user/ci/terraform";
        let of_user = Principal::of_caller(user, ACCOUNT, &[]);
        assert_eq!((of_user.arn.as_str(), of_user.guessed), (user, false));
    }

    #[test]
    fn a_path_that_is_not_known_makes_it_perhaps() {
        let full = "arn:aws:iam::222222222222:role/ci/cicd";
        assert_eq!(cicd(&[]).named_by(full), Named::Perhaps);
        assert_eq!(cicd(&[full]).named_by(full), Named::Yes);
        assert_eq!(cicd(&[full]).named_by("arn:aws:iam::222222222222:role/cicd"), Named::No);
        for entry in ["*", ACCOUNT, "arn:aws:iam::222222222222:root"] {
            assert_eq!(cicd(&[]).named_by(entry), Named::Yes, "{entry}");
        }
        for entry in ["333333333333", "arn:aws:iam::333333333333:role/cicd", "AIDAEXAMPLE"] {
            assert_eq!(cicd(&[]).named_by(entry), Named::No, "{entry}");
        }
        let session = "arn:aws:sts::222222222222:assumed-role/cicd/run-1";
        assert_eq!(cicd(&[]).named_by(session), Named::Yes);
    }
}
