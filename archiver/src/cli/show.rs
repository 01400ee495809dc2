//! `inspect`, `verify` and `extract`.

use std::{ffi::OsString, path::PathBuf};

use clap::Parser;
use serde_json::json;

use super::{Failure, bar::Bar, log, parse};
use crate::{
    Archive, Limits, Manifest,
    read::{Contents, Form},
};

/// Shows what is inside an archive: manifest, files, digests.
#[derive(Parser)]
#[command(name = "zoo-archiver inspect", after_help = "Example: zoo-archiver inspect model-store/mnist.mar")]
struct Inspect {
    /// A .mar, .tar.gz or model folder
    archive: PathBuf,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Checks an archive: bytes, digests, manifest, and that the files are there which the manifest names.
#[derive(Parser)]
#[command(
    name = "zoo-archiver verify",
    after_help = "Exit code: 0 sound, 1 with each finding.\n\nExample: zoo-archiver verify model-store/mnist.mar"
)]
struct Verify {
    /// A .mar, .tar.gz or model folder
    archive: PathBuf,
}

/// Unpacks an archive into a new folder.
#[derive(Parser)]
#[command(name = "zoo-archiver extract", after_help = "Example: zoo-archiver extract mnist.mar mnist")]
struct Extract {
    /// A .mar or .tar.gz
    archive: PathBuf,
    /// Where to; must not exist yet
    folder: PathBuf,
}

pub(super) fn inspect(args: Vec<OsString>) -> Result<(), Failure> {
    let Inspect { archive, json } = parse(args)?;
    let archive = Archive::open(archive, Limits::default())?;
    let bar = Bar::new();
    let contents = archive.contents(&bar)?;
    drop(bar);
    if json {
        anstream::println!("{:#}", as_json(&archive, &contents));
    } else {
        anstream::print!("{}", as_text(&archive, &contents));
    }
    Ok(())
}

pub(super) fn verify(args: Vec<OsString>) -> Result<(), Failure> {
    let Verify { archive } = parse(args)?;
    let archive = Archive::open(archive, Limits::default())?;
    let bar = Bar::new();
    let verified = archive.verify(&bar);
    drop(bar);
    let path = archive.path().display();
    if let Some((last, others)) = verified.findings.split_last() {
        others.iter().for_each(|finding| log::error(&finding.to_string()));
        return Err(Failure::Message(last.to_string()));
    }
    if let Some(Contents { files, digest, has_sums, .. }) = verified.contents {
        let digests = if has_sums { "digests match" } else { "it brings no digests" };
        anstream::println!("{path}: sound; {} files, {digests}, content sha256:{digest}", files.len());
    }
    Ok(())
}

pub(super) fn extract(args: Vec<OsString>) -> Result<(), Failure> {
    let Extract { archive, folder } = parse(args)?;
    let bar = Bar::new();
    let extracted = Archive::open(archive, Limits::default())?.extract(&folder, &bar)?;
    drop(bar);
    let files = extracted.contents.files.len();
    log::info(&format!("Extracted {files} files to {}", folder.display()));
    Ok(())
}

fn as_json(archive: &Archive, contents: &Contents) -> serde_json::Value {
    let file = |file: &crate::read::FileInfo| json!({"name": file.name, "size": file.size, "sha256": file.sha256.to_string(), "executable": file.executable});
    json!({
        "path": archive.path().display().to_string(),
        "form": form_name(archive.form()),
        "digest": format!("sha256:{}", contents.digest),
        "manifest": contents.manifest,
        "digestsIncluded": contents.has_sums,
        "unlisted": contents.unlisted,
        "files": contents.files.iter().map(file).collect::<Vec<_>>(),
    })
}

fn as_text(archive: &Archive, contents: &Contents) -> String {
    let mut text = String::new();
    let mut row = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            text.push_str(&format!("{key:<14}{}\n", printable(value)));
        }
    };
    let manifest: Option<&Manifest> = contents.manifest.as_ref();
    let model = manifest.map(|manifest| &manifest.model);
    row("archive", Some(&format!("{} ({})", archive.path().display(), form_name(archive.form()))));
    row("model", model.and_then(|model| model.model_name.as_deref()));
    row("version", model.map(crate::Model::version));
    row("runtime", manifest.map(|manifest| manifest.runtime.as_str()));
    row("target", manifest.and_then(|manifest| manifest.target.as_deref()));
    row("handler", model.and_then(|model| model.handler.as_deref()));
    row("weights", model.and_then(|model| model.serialized_file.as_deref()));
    row("model file", model.and_then(|model| model.model_file.as_deref()));
    row("requirements", model.and_then(|model| model.requirements_file.as_deref()));
    row("config", model.and_then(|model| model.config_file.as_deref()));
    row("created on", manifest.and_then(|manifest| manifest.created_on.as_deref()));
    row("archiver", manifest.and_then(|manifest| manifest.archiver_version.as_deref()));
    row("manifest", manifest.is_none().then_some("none; the defaults stand"));
    row("content", Some(&format!("sha256:{}", contents.digest)));
    row("digests", Some(if contents.has_sums { "included, and right" } else { "not included" }));
    text.push_str(&format!("\n{:>14}  {:<16}  name\n", "bytes", "sha256"));
    for file in &contents.files {
        let sha256 = file.sha256.to_string();
        text.push_str(&format!("{:>14}  {}  {}\n", file.size, &sha256[..16], printable(&file.name)));
    }
    let total: u64 = contents.files.iter().map(|file| file.size).sum();
    text.push_str(&format!("{total:>14}  in {} files\n", contents.files.len()));
    text
}

fn form_name(form: Form) -> &'static str {
    match form {
        Form::Zip => "zip",
        Form::TarGz => "tar.gz",
        Form::Folder => "folder",
    }
}

/// Names come from the archive: what could steer a terminal is left out.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
