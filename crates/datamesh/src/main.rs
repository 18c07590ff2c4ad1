//! The `datamesh` program: arguments in, exit code out.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use datamesh::caller::{self, Caller};
use datamesh::{Cli, print_error};
use datamesh_core::{Error, ErrorCode};

/// The system's allocator costs a tenth of a publication's time and keeps what threads free.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A file-size limit shall be an error that can be told, not a signal that kills.
    let ignored = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, ignored);
    let cli = Cli::parse();
    let json = cli.wants_json();
    let caller = Arc::new(Caller::at_command_line(cli.act_as.clone(), cli.act_for.clone()));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::new(ErrorCode::Internal, format!("cannot start: {error}"));
            print_error(&error, json);
            return ExitCode::from(error.code().exit_code());
        }
    };
    let code = match runtime.block_on(caller::scope(caller, datamesh::dispatch(cli))) {
        Ok(code) => code,
        Err(error) => {
            print_error(&error, json);
            error.code().exit_code()
        }
    };
    // Blocking readers of a stopped publish may still wait for input; the process does not wait for them.
    runtime.shutdown_background();
    ExitCode::from(code)
}
