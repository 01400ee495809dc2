//! `zoo-server`.

use std::process::ExitCode;

use zoo_server::worker::shim;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == shim::COMMAND) {
        return shim::run(args);
    }
    ExitCode::FAILURE
}
