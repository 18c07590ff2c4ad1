//! The `datamesh` command: configuration, wiring, and what a user sees. Decisions live in the crates below.

mod access;
mod apply;
mod audit;
mod check;
mod cli;
mod commands;
mod diff;
mod domains;
mod explain;
mod export;
mod findings;
mod home;
mod import;
mod init;
mod lineage;
mod machine;
mod maintain;
mod new;
mod observer;
mod outbox;
mod output;
mod plan;
mod plan_text;
mod policy;
mod profile;
mod provision;
mod receipt;
mod registry;
mod retry;
mod rollback;
mod run;
mod secrets;
mod terraform;
mod test;

use std::process::ExitCode;

use clap::Parser;
use datamesh_core::{Error, ErrorCode};

/// The system's allocator costs a tenth of a publication's time and keeps what threads free.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of `plan --detailed-exitcode` where there are changes: that of `terraform plan`.
pub(crate) const EXIT_CHANGES: u8 = 2;
/// Exit code of a publication that the audit rejected, and of a change that its version does not allow.
pub(crate) const EXIT_REJECTED: u8 = 3;

fn main() -> ExitCode {
    // A file-size limit shall be an error that can be told, not a signal that kills.
    let ignored = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, ignored);
    let cli = cli::Cli::parse();
    let json = cli.wants_json();
    home::act(home::Acting { principal: cli.act_as.clone(), purpose: cli.act_for.clone() });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::new(ErrorCode::Internal, format!("cannot start: {error}"));
            output::print_error(&error, json);
            return ExitCode::from(error.code().exit_code());
        }
    };
    let code = match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error, json);
            error.code().exit_code()
        }
    };
    // Blocking readers of a stopped publish may still wait for input; the process does not wait for them.
    runtime.shutdown_background();
    ExitCode::from(code)
}
