//! `required_version`: whether it leaves only versions that do not know `use_lockfile`.

/// Terraform and OpenTofu know `use_lockfile` from this version on
/// (<https://developer.hashicorp.com/terraform/language/backend/s3#state-locking>,
/// <https://opentofu.org/docs/language/settings/backends/s3/>).
const LOCKS_IN_S3: (u64, u64) = (1, 10);

/// Whether no version that knows `use_lockfile` satisfies the constraint. A constraint that is not
/// understood says nothing
/// (<https://developer.hashicorp.com/terraform/language/expressions/version-constraints>).
pub(super) fn is_too_old_for_locks(constraint: &str) -> bool {
    constraint.split(',').any(|clause| {
        let clause = clause.trim();
        let at = clause.find(|c: char| c.is_ascii_digit()).unwrap_or(clause.len());
        let (operator, version) = (clause[..at].trim(), &clause[at..]);
        let release = version.split('-').next().unwrap_or_default();
        let Some(parts) =
            release.split('.').map(|part| part.trim().parse().ok()).collect::<Option<Vec<u64>>>()
        else {
            return false;
        };
        let of = |parts: &[u64]| (parts[0], parts.get(1).copied().unwrap_or(0));
        match (operator, parts.as_slice()) {
            ("" | "=" | "<=", parts) => of(parts) < LOCKS_IN_S3,
            ("<", parts) => {
                let patch = parts.get(2).copied().unwrap_or(0);
                (of(parts), patch) <= (LOCKS_IN_S3, 0)
            }
            // The last part that is given may grow.
            ("~>", [major, minor, _, ..]) => (*major, *minor) < LOCKS_IN_S3,
            ("~>", [major, _]) => *major < LOCKS_IN_S3.0,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_excludes_every_newer_version_is_too_old() {
        for old in [
            "1.9.8",
            "= 1.5.0",
            "~> 1.5.0",
            "< 1.10",
            "< 1.10.0",
            "<= 1.9",
            ">= 1.3, < 1.6",
            "~> 0.14",
            "~>1.9.0",
        ] {
            assert!(is_too_old_for_locks(old), "{old}");
        }
        for new in [
            "",
            "1.10.0",
            "~> 1.5",
            ">= 1.5",
            "~> 1.10.0",
            "< 2.0",
            "<= 1.10",
            "!= 1.9.0",
            "~> 1",
            "< 1.10.1",
            "what",
            "1.x",
        ] {
            assert!(!is_too_old_for_locks(new), "{new}");
        }
    }
}
