//! Names that come from outside, checked before anything is done with them.
//!
//! Each type can only be made by its `parse`, so a value of the type is known
//! to be well formed. No I/O here.

use std::fmt;

use serde::Serialize;

/// The full ARN of a KMS key: `arn:<partition>:kms:<region>:<account>:key/<id>`.
///
/// Only this form is accepted for the key that states are put under. A bare id
/// or an alias resolves in the caller's account, which need not be the key's,
/// and Terraform's S3 backend has changed its mind about aliases between
/// releases (hashicorp/terraform#33979).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyArn {
    text: String,
    partition_end: usize,
    region_end: usize,
    account_end: usize,
}

/// Why a text is not a [`KeyArn`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyArnError {
    /// `alias/…`, bare or as an ARN.
    #[error(
        "`{0}` is an alias. An alias can be pointed at another key, and a bare one resolves in the \
         caller's account; give the key's full ARN (arn:aws:kms:REGION:ACCOUNT:key/ID)"
    )]
    Alias(String),
    /// A key id without region and account.
    #[error(
        "`{0}` is a bare key id, which resolves in the caller's account and region; give the key's \
         full ARN (arn:aws:kms:REGION:ACCOUNT:key/ID)"
    )]
    BareId(String),
    /// The value was masked by the runner before it was copied.
    #[error(
        "the value contains `***`: it was copied from a log in which GitHub had masked a part; \
         give the key's full ARN, from a variable and not from a secret"
    )]
    Masked,
    /// Anything else.
    #[error("`{value}` is not a KMS key ARN: {reason}; expected arn:aws:kms:REGION:ACCOUNT:key/ID")]
    Malformed {
        /// What was given, shortened and made printable.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl KeyArn {
    /// Reads a key ARN of any partition, with a UUID or a multi-Region (`mrk-`) id.
    ///
    /// # Errors
    /// [`KeyArnError`], which says what the text is instead and what to give.
    pub fn parse(text: &str) -> Result<Self, KeyArnError> {
        if text.contains("***") {
            return Err(KeyArnError::Masked);
        }
        if text.starts_with("alias/") {
            return Err(KeyArnError::Alias(printable(text)));
        }
        if is_key_id(text) {
            return Err(KeyArnError::BareId(printable(text)));
        }
        let malformed = |reason| Err(KeyArnError::Malformed { value: printable(text), reason });
        let parts: Vec<&str> = text.split(':').collect();
        let &[arn, partition, service, region, account, resource] = parts.as_slice() else {
            return malformed("an ARN has six parts, separated by colons");
        };
        if arn != "arn" {
            return malformed("it does not begin with `arn:`");
        }
        if !is_partition(partition) {
            return malformed("its partition is not one of AWS's (aws, aws-cn, aws-us-gov, …)");
        }
        if service != "kms" {
            return malformed("its service is not kms");
        }
        if !is_region(region) {
            return malformed("its region is not a region's name");
        }
        if partition_of(region).is_some_and(|expected| expected != partition) {
            return malformed("its region does not belong to its partition");
        }
        if !is_account(account) {
            return malformed("its account is not twelve digits");
        }
        if resource.starts_with("alias/") {
            return Err(KeyArnError::Alias(printable(text)));
        }
        let Some(id) = resource.strip_prefix("key/") else {
            return malformed("its resource does not begin with `key/`");
        };
        if !is_key_id(id) {
            return malformed("its key id is neither a UUID nor `mrk-` and 32 hexadecimal digits");
        }
        let partition_end = "arn:".len() + partition.len();
        let region_end = partition_end + ":kms:".len() + region.len();
        let account_end = region_end + 1 + account.len();
        Ok(Self { text: text.to_owned(), partition_end, region_end, account_end })
    }

    /// The whole ARN.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `aws`, `aws-cn`, …
    pub fn partition(&self) -> &str {
        &self.text["arn:".len()..self.partition_end]
    }

    /// The region that the key lives in; SSE-KMS needs it to be the bucket's.
    pub fn region(&self) -> &str {
        &self.text[self.partition_end + ":kms:".len()..self.region_end]
    }

    /// The twelve digits of the account that owns the key.
    pub fn account(&self) -> &str {
        &self.text[self.region_end + 1..self.account_end]
    }

    /// The bare key id, which holds neither region nor account.
    pub fn id(&self) -> &str {
        &self.text[self.account_end + ":key/".len()..]
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for KeyArn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// A UUID, or a multi-Region key's `mrk-` and 32 hexadecimal digits (KMS: key identifiers).
fn is_key_id(text: &str) -> bool {
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if let Some(rest) = text.strip_prefix("mrk-") {
        return rest.len() == 32 && hex(rest);
    }
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == 5
        && groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|g| hex(g))
}

fn is_partition(text: &str) -> bool {
    text == "aws"
        || text.strip_prefix("aws-").is_some_and(|rest| {
            rest.len() <= 20
                && rest
                    .split('-')
                    .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase()))
        })
}

/// The partition that a region belongs to, where its prefix tells.
pub fn partition_of(region: &str) -> Option<&'static str> {
    let known = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    if let Some((_, partition)) = known.iter().find(|(prefix, _)| region.starts_with(prefix)) {
        return Some(partition);
    }
    let commercial = ["us-", "eu-", "ap-", "ca-", "sa-", "me-", "af-", "il-", "mx-"];
    commercial.iter().any(|p| region.starts_with(p)).then_some("aws")
}

/// Whether the text has the shape of a region's name, such as `us-east-1`.
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lower = |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase());
    text.len() <= 32
        && parts.len() >= 3
        && parts[..parts.len() - 1].iter().all(lower)
        && parts
            .last()
            .is_some_and(|n| (1..=2).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether the text is an AWS account id: twelve digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether the text is the ARN of an IAM role or user, path included.
pub fn is_principal_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let &[arn, partition, service, region, account, resource] = parts.as_slice() else {
        return false;
    };
    let name = resource.strip_prefix("role/").or_else(|| resource.strip_prefix("user/"));
    arn == "arn"
        && is_partition(partition)
        && service == "iam"
        && region.is_empty()
        && is_account(account)
        && name.is_some_and(|name| {
            !name.is_empty()
                && name.len() <= 576
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-/".contains(&b))
        })
}

/// Says what is wrong with a bucket's name (S3: general purpose bucket naming rules).
pub fn bucket_name_problem(name: &str) -> Option<&'static str> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    if !(3..=63).contains(&bytes.len()) {
        return Some("a bucket's name has 3 to 63 characters");
    }
    if !bytes.iter().all(|&b| ok(b) || b == b'-' || b == b'.') {
        return Some("a bucket's name has lower-case letters, digits, dots and hyphens only");
    }
    if !ok(bytes[0]) || !ok(bytes[bytes.len() - 1]) {
        return Some("a bucket's name begins and ends with a letter or a digit");
    }
    if name.contains("..") {
        return Some("a bucket's name has no two dots in a row");
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some("a bucket's name is not an IP address");
    }
    if name.ends_with("--x-s3") {
        return Some(
            "directory buckets (S3 Express One Zone) keep no versions and are not supported",
        );
    }
    None
}

/// Says what is wrong with the name of a module or an environment.
///
/// Such a name becomes a folder and a part of an object key, so it is one path
/// component that can neither climb nor hide.
pub fn component_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 128 {
        return Some("it must have 1 to 128 characters");
    }
    if name.contains('/') || name.contains('\\') || name.contains("..") {
        return Some("it must not contain `/`, `\\` or `..`");
    }
    if name.starts_with(['.', '-']) {
        return Some("it must not begin with `.` or `-`");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Some("it may contain letters, digits, `.`, `_` and `-` only");
    }
    None
}

/// A module's folder below the working directory, its parts joined by single slashes; `.` is
/// the working directory itself.
///
/// # Errors
/// What is wrong with it: a folder is never above or beside the working directory.
pub fn module_path(text: &str) -> Result<String, &'static str> {
    if text.starts_with('/') {
        return Err("it must be a folder below `working-directory`, not an absolute path");
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    match parts.iter().find_map(|part| component_problem(part)) {
        Some(problem) => Err(problem),
        None if text.is_empty() => Err("it must not be empty"),
        None if parts.is_empty() => Ok(".".to_owned()),
        None => Ok(parts.join("/")),
    }
}

/// Says what is wrong with an object key for a state (S3: object key names;
/// Terraform's S3 backend refuses a leading or trailing `/`).
pub fn object_key_problem(key: &str) -> Option<&'static str> {
    if key.is_empty() || key.len() > 1024 {
        return Some("an object key has 1 to 1,024 bytes");
    }
    // Terraform normalises strings (NFC), so another spelling would end up at another key.
    if !key.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Some("it has a character that is not printable ASCII");
    }
    if key.contains("://") || key.starts_with("arn:") {
        return Some("it is an address; give the object's key alone, without the bucket");
    }
    if key.contains('$') {
        return Some("it has a `$`, so a variable was not expanded; give the value itself");
    }
    if key.starts_with(['[', '"', '\'']) || key.starts_with("- ") {
        return Some("it is written as a list; give one key a line, without quotes or brackets");
    }
    if key.starts_with('/') || key.ends_with('/') {
        return Some("it must not begin or end with `/`");
    }
    // Terraform's S3 backend, from 1.6 on.
    if key.contains("//") {
        return Some("it has `//`, which Terraform refuses in a key");
    }
    if key.split('/').any(|part| part == "." || part == "..") {
        return Some("it must not contain `.` or `..` as a part");
    }
    if key.ends_with(LOCK_SUFFIX) {
        return Some("it names a lock object (`.tflock`), not a state");
    }
    None
}

/// What Terraform appends to a state's key for its lock object (`use_lockfile`).
pub const LOCK_SUFFIX: &str = ".tflock";

/// Whether a listed object may be a state: it is no lock, and no folder made in the console, which
/// is an object too.
pub fn may_be_state(key: &str) -> bool {
    !key.ends_with(LOCK_SUFFIX) && !key.ends_with('/')
}

/// A character that does not show as itself: controls, line and paragraph separators, and
/// those that turn the direction of writing (Unicode UAX #9), by which a text can look like
/// another.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// Whether a value from outside can stand in a command to be pasted: it holds nothing that a shell
/// or an address would take for more.
pub fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(&b))
}

/// Makes a value from outside fit for a one-line message: no control
/// characters, at most 120 characters.
pub fn printable(text: &str) -> String {
    const LIMIT: usize = 120;
    let mut out: String =
        text.chars().take(LIMIT).map(|c| if is_deceptive(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LIMIT).is_some() {
        out.push('…');
    }
    out
}

/// RFC 3986 percent-encoding of everything but the unreserved characters and `keep`.
pub fn percent_encoded(text: &str, keep: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ if keep.as_bytes().contains(&byte) => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The first of many texts, and how many more there are.
pub fn some_of(all: impl IntoIterator<Item = String>, shown: usize, separator: &str) -> String {
    let mut all = all.into_iter();
    let mut list: Vec<String> = all.by_ref().take(shown).collect();
    let more = all.count();
    if more > 0 {
        list.push(format!("and {more} more"));
    }
    list.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_cut_short_and_counted() {
        let texts = |n: usize| (0..n).map(|n| n.to_string());
        assert_eq!(some_of(texts(0), 2, ", "), "");
        assert_eq!(some_of(texts(2), 2, ", "), "0, 1");
        assert_eq!(some_of(texts(5), 2, "; "), "0; 1; and 3 more");
    }

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn key_arns_of_every_partition_are_taken_apart() {
        for (partition, region) in [
            ("aws", "us-east-1"),
            ("aws-cn", "cn-north-1"),
            ("aws-us-gov", "us-gov-west-1"),
            ("aws-iso", "us-iso-east-1"),
            ("aws-iso-b", "us-isob-east-1"),
            ("aws-eusc", "eusc-de-east-1"),
        ] {
            for id in [ID, "mrk-1234abcd12ab34cd56ef1234567890ab"] {
                let text = format!("arn:{partition}:kms:{region}:111122223333:key/{id}");
                let arn = KeyArn::parse(&text).unwrap();
                assert_eq!(arn.as_str(), text);
                assert_eq!(
                    (arn.partition(), arn.region(), arn.account(), arn.id()),
                    (partition, region, "111122223333", id)
                );
            }
        }
    }

    #[test]
    fn other_forms_are_refused_with_their_reason() {
        for (text, part) in [
            ("alias/state", "is an alias"),
            ("arn:aws:kms:us-east-1:111122223333:alias/state", "is an alias"),
            (ID, "is a bare key id"),
            ("mrk-1234abcd12ab34cd56ef1234567890ab", "is a bare key id"),
            ("arn:aws:kms:***:111122223333:key/x", "masked"),
            ("arn:aws:s3:us-east-1:111122223333:key/x", "service is not kms"),
            ("arn:aws:kms:us-east-1:1111:key/x", "twelve digits"),
            ("arn:aws:kms:us-east-1:111122223333:key/NOT", "neither a UUID"),
            ("arn:aws:kms:cn-north-1:111122223333:key/x", "does not belong to its partition"),
            ("arn:aws:kms:nowhere:111122223333:key/x", "not a region"),
            ("arn:AWS:kms:us-east-1:111122223333:key/x", "partition"),
            ("key", "six parts"),
            ("", "six parts"),
            ("arn:aws:kms:us-east-1:111122223333:key/x\n::error::", "six parts"),
        ] {
            let message = KeyArn::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains('\n'), "{message:?}");
        }
    }

    #[test]
    fn principals_are_roles_and_users() {
        assert!(is_principal_arn("arn:aws:iam::222222222222:role/ci/cicd"));
        assert!(is_principal_arn("arn:aws-cn:iam::222222222222:user/terraform"));
        for bad in [
            "",
            "cicd",
            "arn:aws:iam::222222222222:root",
            "arn:aws:sts::222222222222:assumed-role/cicd/run",
            "arn:aws:iam::222222222222:role/",
            "arn:aws:iam::222222222222:role/a b",
        ] {
            assert!(!is_principal_arn(bad), "{bad}");
        }
    }

    #[test]
    fn names_that_climb_or_hide_are_refused() {
        for bad in ["", "..", "a..b", "a/b", "a\\b", ".git", "-rf", "a b", "ä", "a\nb"] {
            assert!(component_problem(bad).is_some(), "{bad:?}");
        }
        for good in ["infra", "dns", "production", "my_env-2", "v1.2"] {
            assert_eq!(component_problem(good), None, "{good}");
        }
    }

    #[test]
    fn a_module_is_a_folder_below_the_working_directory() {
        for (text, path) in [
            ("infra", "infra"),
            ("network/vpc", "network/vpc"),
            ("./network//vpc/", "network/vpc"),
            (".", "."),
            ("./", "."),
        ] {
            assert_eq!(module_path(text).as_deref(), Ok(path), "{text}");
        }
        for bad in
            ["", "/", "/infra", "..", "a/../b", "a/..", "./..", "a/.git", "a\\b", "a/*", "a b"]
        {
            module_path(bad).unwrap_err();
        }
    }

    #[test]
    fn bucket_and_key_names_follow_s3() {
        for bad in ["ab", "Bucket", "a..b", "-ab", "ab-", "192.168.1.1", "x--use1-az4--x-s3"] {
            assert!(bucket_name_problem(bad).is_some(), "{bad}");
        }
        assert_eq!(bucket_name_problem("cabal-tf-backend"), None);
        for bad in ["", "/a", "a/", "a/../b", "a\nb", "a.tflock"] {
            assert!(object_key_problem(bad).is_some(), "{bad:?}");
        }
        assert_eq!(object_key_problem("env:/blue/team a/terraform.tfstate"), None);
    }

    #[test]
    fn printable_is_one_short_line() {
        assert_eq!(printable("a\nb"), "a\u{fffd}b");
        assert_eq!(printable(&"x".repeat(500)).chars().count(), 121);
    }
}
