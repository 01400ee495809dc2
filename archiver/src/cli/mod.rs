//! The command line: arguments in, exit code out. Decides nothing about archives.
//!
//! The name under which the program is called says what it is: `torch-model-archiver` and
//! `torch-workflow-archiver` are drop-in, everything else is `zoo-archiver`. Flags are flat, as users know
//! them, so a sub-command is told by the first argument. Exit code 2 means wrong usage, 130 an
//! interrupt, 1 any other failure.

mod bar;
mod init;
mod interrupt;
mod log;
mod pack;
mod show;
mod workflow;

use std::{ffi::OsString, path::Path, process::ExitCode};

/// Whose command line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CalledAs {
    Zoo,
    TorchModel,
    TorchWorkflow,
}

/// A command that has failed.
enum Failure {
    /// Wrong usage, or a request for help: clap says which.
    Usage(clap::Error),
    /// Each line has been or will be one message.
    Message(String),
    /// The user has had enough.
    Interrupted,
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<crate::PackError> for Failure {
    fn from(error: crate::PackError) -> Self {
        match error {
            crate::PackError::Cancelled { .. } => Self::Interrupted,
            error => Self::Message(error.to_string()),
        }
    }
}

impl From<crate::ReadError> for Failure {
    fn from(error: crate::ReadError) -> Self {
        match error {
            crate::ReadError::Cancelled { .. } => Self::Interrupted,
            error => Self::Message(error.to_string()),
        }
    }
}

/// Runs the command that the arguments, program name included, ask for.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    interrupt::watch();
    match dispatch(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            // If not even that can be written, the exit code has to do.
            drop(error.print());
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
        Err(Failure::Message(message)) => {
            log::error(&message);
            ExitCode::FAILURE
        }
        Err(Failure::Interrupted) => {
            log::error("interrupted; nothing was written");
            ExitCode::from(interrupt::EXIT_CODE)
        }
    }
}

fn dispatch(args: Vec<OsString>) -> Result<(), Failure> {
    let name = called_as(args.first());
    let first = args.get(1).and_then(|arg| arg.to_str());
    match (name, first) {
        (CalledAs::TorchWorkflow, _) => workflow::run(args),
        (CalledAs::Zoo, Some("inspect")) => show::inspect(args),
        (CalledAs::Zoo, Some("verify")) => show::verify(args),
        (CalledAs::Zoo, Some("extract")) => show::extract(args),
        (CalledAs::Zoo, Some("init")) => init::run(args),
        (CalledAs::Zoo | CalledAs::TorchModel, _) => pack::run(args, name),
    }
}

fn called_as(program: Option<&OsString>) -> CalledAs {
    let name = program.and_then(|program| Path::new(program).file_name()).and_then(|name| name.to_str());
    match name {
        Some("torch-model-archiver") => CalledAs::TorchModel,
        Some("torch-workflow-archiver") => CalledAs::TorchWorkflow,
        _ => CalledAs::Zoo,
    }
}

/// Parses a sub-command, whose name stands in the place of the program's.
fn parse<T: clap::Parser>(args: Vec<OsString>) -> Result<T, clap::Error> {
    T::try_parse_from(args.into_iter().skip(1))
}

/// Parses flags of which, if one is repeated, the last counts. Lists grow instead.
fn last_wins<T: clap::FromArgMatches>(command: clap::Command, args: Vec<OsString>) -> Result<T, clap::Error> {
    let mut command = command.mut_args(|arg| match arg.get_action() {
        clap::ArgAction::Set | clap::ArgAction::SetTrue => {
            let itself = arg.get_id().clone();
            arg.overrides_with(itself)
        }
        _ => arg,
    });
    T::from_arg_matches(&command.try_get_matches_from_mut(args)?)
}

/// A path that may be empty, which stands for "not given" as it does in Python.
fn any_path() -> impl clap::builder::TypedValueParser<Value = std::path::PathBuf> {
    use clap::builder::TypedValueParser;
    clap::builder::OsStringValueParser::new().map(std::path::PathBuf::from)
}

/// `createdOn` for a manifest written now.
fn created_on() -> Result<String, Failure> {
    let fixed = std::env::var_os("SOURCE_DATE_EPOCH");
    Ok(crate::created_on(fixed.as_deref().map(|text| text.to_string_lossy()).as_deref())?)
}
