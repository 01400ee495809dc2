//! `torch-workflow-archiver`.

use std::{ffi::OsString, path::PathBuf};

use clap::{CommandFactory, Parser};

use super::{Failure, any_path, bar::Bar, created_on, last_wins, pack::export_path};
use crate::{
    spec::{Destination, Name, Noun},
    workflow::{WorkflowSpec, pack},
    write::WriteOptions,
};

/// Packs a TorchServe workflow into a .war archive.
#[derive(Parser)]
#[command(
    name = "torch-workflow-archiver",
    infer_long_args = true,
    after_help = "This is zoo-archiver under another name. Zoo packs workflows, but doesn't serve them."
)]
struct Cli {
    /// Name of the workflow, and of the archive without its suffix
    #[arg(long)]
    workflow_name: String,
    /// YAML file with the graph
    #[arg(long, value_name = "FILE")]
    spec_file: String,
    /// Python file with the functions among the nodes
    #[arg(long, value_name = "FILE")]
    handler: Option<String>,
    /// Folder of the archive [default: the current folder]
    #[arg(long, value_name = "FOLDER", value_parser = any_path())]
    export_path: Option<PathBuf>,
    /// Files, separated by commas
    #[arg(long, value_name = "LIST")]
    extra_files: Option<String>,
    /// Replace an archive that is there already
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let cli: Cli = last_wins(Cli::command(), args)?;
    let spec = WorkflowSpec {
        name: Name::new(&cli.workflow_name, Noun::Workflow)?,
        spec_file: cli.spec_file,
        handler: cli.handler.filter(|handler| !handler.is_empty()),
        extra_files: cli.extra_files,
        created_on: created_on()?,
    };
    let to = Destination { export_path: export_path(cli.export_path)?, force: cli.force };
    pack(&spec, &to, WriteOptions::default(), &Bar::with_notes(false))?;
    Ok(())
}
