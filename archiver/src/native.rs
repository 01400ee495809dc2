//! Checks the executable of a native archive: that it may run, and on which machine.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::{
    error::PackError,
    manifest::Runtime,
    spec::{HandlerFile, PackSpec},
};

/// The target triple that this program was built for.
pub(crate) const HOST: &str = env!("ZOO_TARGET");

/// Refuses a native handler that couldn't be started where the manifest says.
pub(crate) fn check(spec: &PackSpec) -> Result<(), PackError> {
    let (Runtime::Native, HandlerFile::File(path)) = (spec.runtime, spec.handler_file()) else {
        return Ok(());
    };
    let mode = fs::metadata(&path).map_err(|e| PackError::os(&path, e))?.permissions().mode() & 0o7777;
    if mode & 0o111 == 0 {
        return Err(PackError::NotExecutable { path, mode });
    }
    let target = spec.target().unwrap_or_default();
    let machine = elf_machine(&path).map_err(|e| PackError::os(&path, e))?;
    match machine.map(architecture) {
        Some(Some(found)) if target.split('-').next() != Some(found) => {
            Err(PackError::Target { path, found: found.to_owned(), target })
        }
        // A script, another format, or a machine without a name here: nothing to compare.
        _ => Ok(()),
    }
}

/// The machine number of an ELF file.
fn elf_machine(path: &Path) -> std::io::Result<Option<u16>> {
    let mut start = Vec::new();
    File::open(path)?.take(20).read_to_end(&mut start)?;
    Ok(match start.as_slice() {
        [0x7f, b'E', b'L', b'F', _, 1, .., low, high] if start.len() == 20 => {
            Some(u16::from_le_bytes([*low, *high]))
        }
        [0x7f, b'E', b'L', b'F', _, 2, .., high, low] if start.len() == 20 => {
            Some(u16::from_le_bytes([*low, *high]))
        }
        _ => None,
    })
}

/// The first part of the target triples of a machine.
fn architecture(machine: u16) -> Option<&'static str> {
    match machine {
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        3 => Some("i686"),
        243 => Some("riscv64gc"),
        21 => Some("powerpc64le"),
        22 => Some("s390x"),
        _ => None,
    }
}
