//! The action's entry point: environment in, exit code out.

use std::io::Write as _;
use std::process::ExitCode;

use tfstate_kms::cancel::{Cancelled, Why};
use tfstate_kms::cli::{self, Invocation};
use tfstate_kms::github::Log;
use tfstate_kms::inputs::Environment;
use tokio::signal::unix::{SignalKind, signal};

/// An overflow would end the process in the middle of whatever it does; the usual 2 MiB are
/// little for futures as large as those of an AWS client in an unoptimised build.
const STACK: usize = 16 << 20;

/// The exit code of a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // A panic's text could quote a state; its place is enough.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        Log::stdout().line(&format!("internal error at {place}"));
    }));
    let environment = Environment::of_process();
    match cli::parse(std::env::args_os(), &environment) {
        Invocation::Run => {}
        Invocation::Print(message) => return print(&message),
        Invocation::Help(text) => {
            let _ = std::io::stderr().write_all(text.as_bytes());
            return ExitCode::from(USAGE);
        }
    }
    let its = environment.clone();
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || run(its));
    let ended = match thread {
        Ok(thread) => thread.join(),
        Err(error) => {
            Log::stdout().line(&format!("no thread could be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    ended.unwrap_or_else(|_| {
        tfstate_kms::report_panic(&environment, &Log::stdout());
        ExitCode::FAILURE
    })
}

/// Prints help and version on standard output, an error on standard error.
fn print(message: &clap::Error) -> ExitCode {
    // A closed pipe is no reason to fail.
    let _ = message.print();
    if message.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

fn run(environment: Environment) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            Log::stdout().line(&format!("no threads could be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let cancelled = Cancelled::default();
    let listener = cancelled.clone();
    runtime.spawn(async move {
        if interrupted().await.is_ok() {
            Log::stdout().line("cancelled: finishing the state in hand, beginning no other");
            listener.set(Why::Signal);
        }
    });
    let code = runtime.block_on(tfstate_kms::run(environment, Log::stdout(), cancelled));
    // A name that is still being looked up must not hold the process.
    runtime.shutdown_background();
    code
}

/// As PID 1 of a container this process has no default signal handlers.
async fn interrupted() -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
