//! The command line. The action itself takes none: its inputs are environment variables.

use clap::Command;

use crate::inputs::Environment;

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run the action with the inputs of the environment.
    Run,
    /// Print this and end; nothing else is to be done.
    Print(clap::Error),
    /// Print this help on standard error and end with exit code 2: nothing says what to do.
    Help(String),
}

const ABOUT: &str =
    "Keeps Terraform state in S3 under a customer-managed KMS key, from GitHub Actions";

const MORE: &str = "\
This is a GitHub Action. It reads its inputs from environment variables, as the runner sets them:
INPUT_MODE=plan, INPUT_BUCKET=…, INPUT_KMS-KEY-ID=… and so on (docs/reference.md lists all).
Outside GitHub Actions it runs only when INPUT_MODE is set.

Exit codes:
  0  all that was asked for holds
  1  it does not; the log and the report say why
  2  the command line is wrong; nothing was done";

/// Reads the arguments, the program's name first. Does no I/O.
pub fn parse(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    environment: &Environment,
) -> Invocation {
    let mut command = command();
    if let Err(error) = command.try_get_matches_from_mut(arguments) {
        return Invocation::Print(error);
    }
    let on_a_runner = environment.get("GITHUB_ACTIONS") == Some("true");
    if on_a_runner || environment.get("INPUT_MODE").is_some() {
        return Invocation::Run;
    }
    Invocation::Help(command.render_help().to_string())
}

fn command() -> Command {
    Command::new("tfstate-kms").version(env!("CARGO_PKG_VERSION")).about(ABOUT).after_help(MORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str], variables: &[(&str, &str)]) -> Invocation {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let all = ["tfstate-kms"].iter().chain(arguments).map(Into::into);
        parse(all, &Environment::from_os(variables))
    }

    #[test]
    fn only_a_runner_or_a_mode_makes_it_run() {
        assert!(matches!(parsed(&[], &[("GITHUB_ACTIONS", "true")]), Invocation::Run));
        assert!(matches!(parsed(&[], &[("INPUT_MODE", "plan")]), Invocation::Run));
        for variables in [&[][..], &[("INPUT_MODE", "")], &[("STATE_KMS_KEY_ID", "x")]] {
            let Invocation::Help(text) = parsed(&[], variables) else { panic!("{variables:?}") };
            assert!(text.contains("Usage: tfstate-kms") && text.contains("INPUT_MODE"), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_an_error_also_on_a_runner() {
        for argument in ["plan", "--mode=plan", "-x", "", "--", "apply"] {
            let more = ["--", "apply"];
            let arguments = if argument == "--" { &more[..] } else { &[argument] };
            match parsed(arguments, &[("GITHUB_ACTIONS", "true")]) {
                Invocation::Print(error) => assert_eq!(error.exit_code(), 2, "{argument}"),
                other => panic!("{argument}: {other:?}"),
            }
        }
        for argument in ["--help", "-h", "--version", "-V"] {
            match parsed(&[argument], &[("GITHUB_ACTIONS", "true")]) {
                Invocation::Print(error) => assert_eq!(error.exit_code(), 0, "{argument}"),
                other => panic!("{argument}: {other:?}"),
            }
        }
    }
}
