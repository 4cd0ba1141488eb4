//! The runner's side: the log with its workflow commands, the files for outputs and the
//! summary, and GitHub's REST API. Nothing that comes from outside is printed as it is.

mod api;
mod check_run;
mod log;
mod oidc;
mod outputs;
mod runs;

pub use api::{Api, ApiError, meaning};
pub use check_run::{CheckRun, run_url};
pub use log::{Annotation, Log};
pub use oidc::oidc_token;
pub use outputs::{append_summary, write_outputs};
pub use runs::{Job, WorkflowRun, entries, file_name, understood};
