//! The runner's side: the log with its workflow commands, and the files for outputs
//! and the summary. Nothing that comes from outside is printed as it is.

mod log;
mod oidc;
mod outputs;

pub use log::{Annotation, Log};
pub use oidc::oidc_token;
pub use outputs::{append_summary, write_outputs};
