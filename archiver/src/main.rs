//! `zoo-archiver`, and under other names `torch-model-archiver` and `torch-workflow-archiver`.

use std::process::ExitCode;

fn main() -> ExitCode {
    zoo_archiver::cli::run(std::env::args_os().collect())
}
