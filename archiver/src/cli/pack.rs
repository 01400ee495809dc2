//! Packing: the flags of `torch-model-archiver`, and ours beside them.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory, Parser, ValueEnum, error::ErrorKind};

use super::{CalledAs, Failure, any_path, bar::Bar, created_on, last_wins, log};
use crate::{
    PackSpec, Runtime,
    spec::{self, Destination, Extra, Format, Noun},
    write::{WriteOptions, pack, plan},
};

const EXAMPLES: &str = "\
Other commands:
  zoo-archiver inspect ARCHIVE           Show what is inside
  zoo-archiver verify ARCHIVE            Check digests, manifest and files
  zoo-archiver extract ARCHIVE FOLDER    Unpack
  zoo-archiver init FOLDER               Start a project

Examples:
  zoo-archiver --model-name mnist --version 1.0 --model-file mnist.py \\
      --serialized-file mnist.pt --handler mnist_handler.py --export-path model-store
  zoo-archiver --model-name yolo --version 2 --runtime onnx --serialized-file yolo.onnx
  zoo-archiver --model-name bert --version 1 --handler handler.py:handle \\
      --extra-files vocab.txt,assets/=./my/assets --dry-run

With SOURCE_DATE_EPOCH set, the same input gives the same bytes on any machine.
Exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.";

const TORCH_EXAMPLES: &str =
    "This is zoo-archiver under another name; zoo-archiver --help shows what it adds.";

/// Packs a model into an archive that Zoo and TorchServe serve.
#[derive(Parser)]
#[command(
    name = "zoo-archiver",
    version,
    disable_version_flag = true,
    infer_long_args = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    how: How,
    /// Show the version of this program
    #[arg(short = 'V', action = clap::ArgAction::Version)]
    program_version: (),
}

#[derive(Args)]
#[command(next_help_heading = "What to pack")]
struct What {
    /// Name of the model, and of the archive without its suffix
    #[arg(long)]
    model_name: String,
    /// Version of the model: any text
    #[arg(short, long, allow_negative_numbers = true)]
    version: String,
    /// Built-in handler, or path of a handler file, optionally with the function: dir/handler.py:function
    ///
    /// For runtime native the executable. Not needed for torchscript and onnx.
    #[arg(long)]
    handler: Option<String>,
    /// Weights: .pt, .pth, .onnx, ...
    #[arg(long, value_name = "FILE", value_parser = any_path())]
    serialized_file: Option<PathBuf>,
    /// Python file with the one model class of an eager model
    #[arg(long, value_name = "FILE", value_parser = any_path())]
    model_file: Option<PathBuf>,
    /// Files, folders (their contents) and patterns, separated by commas; all go to the root
    ///
    /// DEST/=PATH puts a file or a whole tree under a folder of the archive. May be given several times.
    #[arg(long, value_name = "LIST", action = clap::ArgAction::Append)]
    extra_files: Vec<String>,
    /// What runs the model
    #[arg(long, default_value = "python", value_parser = runtimes())]
    runtime: Runtime,
    /// Python packages that the model needs
    #[arg(short, long, value_name = "FILE", value_parser = any_path())]
    requirements_file: Option<PathBuf>,
    /// Configuration of the model in YAML, such as the batch size
    #[arg(short, long, value_name = "FILE", value_parser = any_path())]
    config_file: Option<PathBuf>,
    /// Target triple of a native handler [default: that of this program]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// A JSON file that becomes the manifest as it stands
    #[arg(long, value_name = "FILE", value_parser = any_path(), hide = true)]
    manifest: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "How to write it")]
struct How {
    /// Folder of the archive; made if it is missing [default: the current folder]
    #[arg(long, value_name = "FOLDER", value_parser = any_path())]
    export_path: Option<PathBuf>,
    /// Shape of the archive
    #[arg(long, value_name = "FORMAT", default_value = "default")]
    archive_format: FormatArg,
    /// Replace an archive that is there already
    #[arg(short, long)]
    force: bool,
    /// List what would go in and write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArg {
    /// NAME.mar: a zip with deflate
    Default,
    /// NAME.mar: a zip without compression
    ZipStore,
    /// NAME.tar.gz
    Tgz,
    /// A plain folder
    NoArchive,
}

impl From<FormatArg> for Format {
    fn from(arg: FormatArg) -> Self {
        match arg {
            FormatArg::Default => Self::Default,
            FormatArg::ZipStore => Self::ZipStore,
            FormatArg::Tgz => Self::Tgz,
            FormatArg::NoArchive => Self::NoArchive,
        }
    }
}

fn runtimes() -> impl clap::builder::TypedValueParser<Value = Runtime> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(Runtime::ALL.map(Runtime::as_str))
        .try_map(|name| name.parse::<Runtime>())
}

pub(super) fn run(args: Vec<OsString>, name: CalledAs) -> Result<(), Failure> {
    let cli: Cli = last_wins(command(name), args)?;
    if let Some(flag) = missing_flag(&cli.what) {
        let missing = format!("{flag} is required for runtime {}", cli.what.runtime);
        return Err(command(name).error(ErrorKind::MissingRequiredArgument, missing).into());
    }
    let format = cli.how.archive_format.into();
    let to = Destination { export_path: export_path(cli.how.export_path)?, force: cli.how.force };
    let spec = spec(cli.what, name)?;
    let bar = Bar::with_notes(name == CalledAs::Zoo);
    if cli.how.dry_run {
        for file in plan(&spec, format, &to, &bar)? {
            anstream::println!("{:>12}  {}", file.head.size, file.head.name);
        }
        return Ok(());
    }
    pack(&spec, format, &to, WriteOptions::default(), &bar)?;
    drop(bar);
    // torch-model-archiver logs this below the level that it shows.
    if name == CalledAs::Zoo {
        let folder = to.export_path.display();
        log::info(&format!("Successfully exported model {} to file {folder}", spec.name));
    }
    Ok(())
}

/// The flag that the runtime can't do without.
fn missing_flag(what: &What) -> Option<&'static str> {
    match what.runtime.needs_handler() {
        true => what.handler.is_none().then_some("--handler"),
        false => what.serialized_file.is_none().then_some("--serialized-file"),
    }
}

/// The peer's name shows the peer's flags only; ours work there too.
fn command(name: CalledAs) -> clap::Command {
    let command = Cli::command();
    if name != CalledAs::TorchModel {
        return command;
    }
    command
        .name("torch-model-archiver")
        .about("Packs a model into an archive that TorchServe and Zoo serve.")
        .after_help(TORCH_EXAMPLES)
        .mut_arg("handler", |arg| arg.required(true))
        .mut_args(
            |arg| if matches!(arg.get_id().as_str(), "target" | "dry_run") { arg.hide(true) } else { arg },
        )
}

fn spec(what: What, name: CalledAs) -> Result<PackSpec, Failure> {
    // To the peer the last of several lists counts; we take them all.
    let forgotten = if name == CalledAs::TorchModel { what.extra_files.len().saturating_sub(1) } else { 0 };
    let given = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
    Ok(PackSpec {
        name: spec::Name::new(&what.model_name, Noun::Model)?,
        version: what.version,
        runtime: what.runtime,
        handler: what.handler,
        serialized_file: given(what.serialized_file),
        model_file: given(what.model_file),
        extra_files: what.extra_files[forgotten..].iter().flat_map(|list| Extra::parse_list(list)).collect(),
        requirements_file: given(what.requirements_file),
        config_file: given(what.config_file),
        target: what.target,
        created_on: created_on()?,
        manifest: what.manifest.as_deref().map(manifest).transpose()?,
    })
}

/// For the Python API, whose callers may bring a manifest of their own.
fn manifest(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path).map_err(|e| Failure::Message(format!("{}: {e}", path.display())))?;
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(_) => Ok(text),
        Err(e) => Err(Failure::Message(format!("{} must be a JSON object: {e}", path.display()))),
    }
}

/// The current folder by its full path, as messages show it.
pub(super) fn export_path(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => Ok(path),
        None => std::env::current_dir().map_err(|e| Failure::Message(format!("current folder: {e}"))),
    }
}
