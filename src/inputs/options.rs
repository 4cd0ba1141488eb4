//! The inputs that take one word of a few.

use std::str::FromStr;

use crate::names::printable;

/// Gives an enum its spellings: one table for parsing, printing and messages.
macro_rules! spelled {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every spelling, in the order of the documentation.
            pub const ALL: &[&str] = &[$($text),+];

            /// As users write it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("is `{}`; it takes {}", printable(text), list(Self::ALL))),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

spelled! {
    /// What the run is to do.
    Mode {
        /// Write the backend configuration; no network.
        Backend = "backend",
        /// Say what `apply` would do; write nothing.
        Plan = "plan",
        /// Write the configuration and put the states under the key.
        Apply = "apply",
        /// Check everything; write nothing.
        Verify = "verify",
        /// Put the states back under SSE-S3.
        Rollback = "rollback",
        /// Make the key, with policy, rotation and alias.
        CreateKey = "create-key",
        /// Schedule the deletion of a key that nothing needs.
        RetireKey = "retire-key",
        /// Take a scheduled deletion back.
        RecoverKey = "recover-key",
        /// Take a principal out of a key's policy.
        Revoke = "revoke",
    }
}

impl Mode {
    /// It acts on a key, and on no state.
    pub fn is_about_a_key(self) -> bool {
        matches!(self, Self::CreateKey | Self::RetireKey | Self::RecoverKey | Self::Revoke)
    }

    /// It ends with a verdict on the states.
    pub fn judges_states(self) -> bool {
        matches!(self, Self::Apply | Self::Verify | Self::Rollback)
    }
}

spelled! {
    /// Which kind of file holds the backend's settings.
    FileFormat {
        /// `backend.tf`, with a terraform block.
        Tf = "tf",
        /// `backend.tfbackend`, for `terraform init -backend-config=FILE`.
        TfBackend = "tfbackend",
        /// No file.
        None = "none",
    }
}

spelled! {
    /// What to do with an existing backend block that means something else.
    OnExisting {
        /// Set what is about encryption where the block stands.
        Edit = "edit",
        /// Replace the file.
        Overwrite = "overwrite",
        /// Leave it, and fail.
        Keep = "keep",
        /// Leave it, and warn.
        Ignore = "ignore",
    }
}

spelled! {
    /// How Terraform locks the states.
    Lock {
        /// Terraform's S3 lock object, where the backend block declares it.
        Auto = "auto",
        /// No lock.
        None = "none",
        /// Terraform's S3 lock object (`use_lockfile`).
        S3 = "s3",
    }
}

spelled! {
    /// How an object gets under the key.
    Strategy {
        /// The best that the endpoint allows.
        Auto = "auto",
        /// A conditional copy of the object onto itself.
        Copy = "copy",
        /// S3's UpdateObjectEncryption, also on servers that are not AWS's.
        InPlace = "in-place",
    }
}

impl Strategy {
    /// Whether S3's in-place operation is tried. A server that does not know it would
    /// overwrite the state with the request, so `auto` takes it to AWS's own endpoint only.
    pub fn is_in_place(self, custom_endpoint: bool) -> bool {
        match self {
            Self::InPlace => true,
            Self::Copy => false,
            Self::Auto => !custom_endpoint,
        }
    }
}

spelled! {
    /// How it is tried whether S3 access alone still reads the states.
    Probe {
        /// The best way that there is; without one, a warning.
        Auto = "auto",
        /// The deploy role again, by the runner's OIDC token, with S3 rights only.
        WebIdentity = "web-identity",
        /// A federated session of an IAM user, with S3 rights only.
        Federation = "federation",
        /// The role of `probe-role-arn`.
        Role = "role",
        /// Not at all.
        Off = "off",
    }
}

spelled! {
    /// What to do about old versions that stay readable without the key.
    History {
        /// Count them.
        Report = "report",
        /// Re-key them in place, where AWS allows it.
        Rekey = "rekey",
        /// Fail where one is left, or was not looked at.
        Require = "require",
        /// Nothing.
        Off = "off",
    }
}

/// `a, b or c`, in backquotes.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}
