//! Whether an archive's own program can be started: it must be a file of the archive, executable, and made for this machine.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

/// Refuses a native model that no worker could be made of, in words for who registers it.
pub(super) fn check(dir: &Path, handler: Option<&str>, target: Option<&str>) -> Result<(), String> {
    let handler = handler.ok_or("Runtime native needs a handler: the name of a program in the archive.")?;
    let inside =
        Path::new(handler).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    // A link is none: it could lead out of the archive.
    let file = fs::symlink_metadata(dir.join(handler)).ok().filter(|file| inside && file.is_file());
    let file =
        file.ok_or_else(|| format!("Handler {handler} of runtime native must be a file of the archive."))?;
    if file.permissions().mode() & 0o111 == 0 {
        return Err(format!(
            "Handler {handler} of runtime native is not executable: set its exec bit, then pack it again."
        ));
    }
    match target.filter(|target| !runs_here(target)) {
        Some(target) => {
            Err(format!("The archive's handler is built for {target}, this server runs on {ARCH} {OS}."))
        }
        None => Ok(()),
    }
}

/// Whether programs for this target triple run on this machine, as far as their names tell: a C library may still be missing.
fn runs_here(target: &str) -> bool {
    let mut parts = target.split('-');
    let arch = parts.next().unwrap_or_default();
    // `powerpc64le` and `riscv64gc` say more than the plain name; 32-bit x86 is counted by generations.
    let same = match ARCH {
        "x86" => matches!(arch, "i386" | "i486" | "i586" | "i686"),
        plain => arch.starts_with(plain),
    };
    same && parts.any(|part| part == OS)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_program_of_the_archive_for_this_machine_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = dir.path().join(name);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir(dir.path().join("bin")).unwrap();
        file("bin/run", 0o755);
        file("run", 0o555);
        file("plain", 0o644);
        symlink("/bin/sh", dir.path().join("link")).unwrap();
        let here = format!("{ARCH}-unknown-{OS}-gnu");
        for (handler, target) in [("run", None), ("./run", Some(here.as_str())), ("bin/run", None)] {
            check(dir.path(), Some(handler), target).unwrap();
        }
        let refused = |handler, target| check(dir.path(), handler, target).unwrap_err();
        assert_eq!(
            refused(None, None),
            "Runtime native needs a handler: the name of a program in the archive."
        );
        for absent in ["missing", "bin", "link", "/bin/sh", "bin/../run", "../run", ""] {
            let expected = format!("Handler {absent} of runtime native must be a file of the archive.");
            assert_eq!(refused(Some(absent), None), expected);
        }
        assert!(
            refused(Some("plain"), None).starts_with("Handler plain of runtime native is not executable")
        );
        for target in ["mips-unknown-none", "x86_64-apple-darwin", "aarch64-unknown-freebsd", ""] {
            let expected = format!("built for {target}, this server runs on {ARCH} {OS}.");
            assert!(check(dir.path(), Some("run"), Some(target)).unwrap_err().ends_with(&expected));
        }
    }
}
