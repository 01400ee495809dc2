//! The Python SDK, carried in the executable and unpacked where Python can import it.
//!
//! It lies under the digest of its content, so that servers of several versions share a cache, and read-only but for
//! the folders where Python keeps what it compiled. A tree is used only if it is exactly what is carried, whoever
//! unpacked it; otherwise it is replaced, in one step that another server at the same moment can't see halfway.
//!
//! Doesn't know what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::{getegid, geteuid};
use sha2::{Digest, Sha256};

/// Names, relative to the root of the SDK and with slashes, and contents.
type Files = [(&'static str, &'static [u8])];

const FILES: &Files = include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));

/// Where Python keeps what it compiled; the only folders in the tree that may change.
const COMPILED: &str = "__pycache__";

/// What is being made or thrown away has a name of its own beside the trees in use.
const TEMPORARY: &str = ".unpack-";
/// Nobody takes that long; what is older was left by a server that was killed.
const LEFT_OVER: Duration = Duration::from_secs(60 * 60);

/// Makes sure that the SDK lies below `cache_dir`, or else below `runtime_dir`, and says where: the folder that has
/// `zoo_worker.py` in it. `runtime_dir` must be ours alone.
pub fn unpack(cache_dir: &Path, runtime_dir: &Path) -> Result<PathBuf, SdkError> {
    let sdk = Sdk { files: FILES };
    let cached = sdk.unpack_below(&cache_dir.join("sdk"), Place::Shared);
    let Err(in_cache) = cached else { return cached.map_err(SdkError::one) };
    match sdk.unpack_below(&runtime_dir.join("sdk"), Place::Ours) {
        Ok(dir) => {
            tracing::debug!("the Python SDK is unpacked in the runtime directory: {in_cache}");
            Ok(dir)
        }
        Err(in_runtime) => Err(SdkError { tried: vec![in_cache, in_runtime] }),
    }
}

/// Whether others may have prepared the way to a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Shared,
    Ours,
}

struct Sdk<'a> {
    files: &'a Files,
}

impl Sdk<'_> {
    fn unpack_below(&self, parent: &Path, place: Place) -> Result<PathBuf, Refused> {
        let refuse = |why: String| Refused { parent: parent.to_owned(), why };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(|error| refuse(error.to_string()))?;
        if place == Place::Shared {
            check_way(parent).map_err(refuse)?;
        }
        let dir = parent.join(self.digest());
        if self.check(&dir).is_err() {
            self.replace(parent, &dir).map_err(|error| refuse(error.to_string()))?;
            self.check(&dir).map_err(refuse)?;
        }
        Ok(dir)
    }

    /// Name of the tree: what is in it decides.
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (name, content) in self.files {
            for part in [name.as_bytes(), content] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a tree is what it should be; if not, what is different.
    fn check(&self, dir: &Path) -> Result<(), String> {
        let mut missing: BTreeMap<PathBuf, &[u8]> =
            self.files.iter().map(|(name, content)| (PathBuf::from(name), *content)).collect();
        let mut folders = vec![dir.to_owned()];
        while let Some(path) = folders.pop() {
            let at = |error: io::Error| format!("{}: {error}", path.display());
            let found = path.symlink_metadata().map_err(at)?;
            if !found.is_dir() || !only_owner_writes(&found) {
                return Err(format!("{} is not a folder that only its owner can change", path.display()));
            }
            for entry in fs::read_dir(&path).map_err(at)? {
                let entry = entry.map_err(at)?;
                let inside = entry.path();
                let name = inside.strip_prefix(dir).unwrap_or(&inside);
                if entry.file_type().map_err(at)?.is_dir() {
                    folders.push(inside);
                } else if !entry.file_type().map_err(at)?.is_file() {
                    return Err(format!("{} is neither file nor folder", name.display()));
                } else if path.file_name().is_none_or(|folder| folder != COMPILED) {
                    let expected =
                        missing.remove(name).ok_or_else(|| format!("{} is foreign", name.display()))?;
                    if fs::read(&inside).map_err(at)? != expected {
                        return Err(format!("{} has been changed", name.display()));
                    }
                }
            }
        }
        missing.first_key_value().map_or(Ok(()), |(name, _)| Err(format!("{} is missing", name.display())))
    }

    /// Puts a fresh tree in the place of a bad one, unless another server has done so meanwhile.
    fn replace(&self, parent: &Path, dir: &Path) -> io::Result<()> {
        // A good tree must not be moved away again while others import from it. Where there are no locks, on some
        // network file systems, this is left to chance.
        let lock = File::open(parent)?;
        let _ = lock.lock();
        let Err(why) = self.check(dir) else { return Ok(()) };
        if dir.symlink_metadata().is_ok() {
            tracing::warn!("the unpacked Python SDK in {} is replaced: {why}", dir.display());
        }
        sweep(parent);
        let fresh = temporary(parent)?;
        let moved = self.write(fresh.path()).and_then(|()| {
            clear_way(parent, dir)?;
            fs::rename(fresh.path(), dir)
        });
        match moved {
            Ok(()) => drop(fresh.keep()),
            Err(_) => remove(fresh.path()),
        }
        moved
    }

    fn write(&self, root: &Path) -> io::Result<()> {
        let mut folders = BTreeSet::from([root.to_owned()]);
        for (name, content) in self.files {
            let path = root.join(name);
            let above = path.ancestors().skip(1).take_while(|folder| *folder != root);
            folders.extend(above.map(Path::to_owned));
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&path, content)?;
            fs::set_permissions(&path, Permissions::from_mode(0o444))?;
        }
        // The deepest first, while those above can still be changed.
        for folder in folders.iter().rev() {
            DirBuilder::new().mode(0o755).create(folder.join(COMPILED))?;
            fs::set_permissions(folder, Permissions::from_mode(0o555))?;
        }
        Ok(())
    }
}

/// A name for a new folder that can take another folder's place.
fn temporary(parent: &Path) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(parent)
}

/// Moves away what is in the place of a tree.
fn clear_way(parent: &Path, dir: &Path) -> io::Result<()> {
    match dir.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            let away = temporary(parent)?;
            let moved = fs::rename(dir, away.path());
            remove(away.path());
            moved.or_else(already_gone)
        }
        Ok(_) => fs::remove_file(dir).or_else(already_gone),
        Err(error) => already_gone(error),
    }
}

fn already_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Removes what servers that were killed have left behind.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let temporary = entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes());
        let changed = entry.metadata().and_then(|found| found.modified()).ok();
        let age = changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
        if temporary && age.is_some_and(|age| age > LEFT_OVER) {
            remove(&entry.path());
        }
    }
}

/// Removes a tree with read-only folders, as far as it can.
fn remove(tree: &Path) {
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        // Not through a link: the folder it leads to isn't ours.
        if folder.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            let _ = fs::set_permissions(&folder, Permissions::from_mode(0o700));
            folders.extend(fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    let _ = fs::remove_dir_all(tree);
}

/// Nobody else may be able to put something in the place of what has been checked, at any level.
fn check_way(parent: &Path) -> Result<(), String> {
    let real = parent.canonicalize().map_err(|error| error.to_string())?;
    for folder in real.ancestors() {
        let found = folder.metadata().map_err(|error| format!("{}: {error}", folder.display()))?;
        // In a folder like /tmp others can add something, but not replace what is ours.
        let sticky = found.mode() & 0o1000 != 0;
        if !is_trusted(&found) || !(sticky || only_owner_writes(&found)) {
            return Err(format!("others can change {}", folder.display()));
        }
    }
    Ok(())
}

fn is_trusted(found: &Metadata) -> bool {
    found.uid() == 0 || found.uid() == geteuid().as_raw()
}

/// Many systems give each user a group of the same name, and let it write.
fn only_owner_writes(found: &Metadata) -> bool {
    let mode = found.mode();
    is_trusted(found) && mode & 0o002 == 0 && (mode & 0o020 == 0 || found.gid() == getegid().as_raw())
}

/// Why the SDK could be unpacked nowhere.
#[derive(Debug)]
pub struct SdkError {
    tried: Vec<Refused>,
}

impl SdkError {
    fn one(refused: Refused) -> Self {
        Self { tried: vec![refused] }
    }
}

#[derive(Debug)]
struct Refused {
    parent: PathBuf,
    why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} can't be used: {}", self.parent.display(), self.why)
    }
}

impl fmt::Display for SdkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the Python SDK can't be unpacked")?;
        for (index, refused) in self.tried.iter().enumerate() {
            write!(f, "{} {refused}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for SdkError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::thread;

    use super::*;

    const SMALL: Sdk<'static> =
        Sdk { files: &[("main.py", b"import p\n"), ("p/__init__.py", b""), ("p/q/d.txt", b"data")] };

    fn temp() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// Folders that only root may write to can't be removed by the one who made them otherwise.
    struct Cleaned(tempfile::TempDir);

    impl Drop for Cleaned {
        fn drop(&mut self) {
            remove(self.0.path());
        }
    }

    fn unpacked() -> (Cleaned, PathBuf) {
        let parent = Cleaned(temp());
        let dir = SMALL.unpack_below(parent.0.path(), Place::Shared).unwrap();
        (parent, dir)
    }

    fn entries(parent: &Path) -> Vec<PathBuf> {
        fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn the_carried_sdk_is_whole_and_nothing_else() {
        let names: Vec<_> = FILES.iter().map(|(name, _)| *name).collect();
        for expected in ["zoo_worker.py", "zoo_handler/__init__.py", "ts/__init__.py", "ts/version.txt"] {
            assert!(names.contains(&expected), "{expected} is missing in {names:?}");
        }
        for name in names {
            assert!(
                !name.starts_with("tests/") && !name.contains(COMPILED) && !name.starts_with('/'),
                "{name}"
            );
        }
        let (cache, runtime) = (Cleaned(temp()), temp());
        let dir = unpack(cache.0.path(), runtime.path()).unwrap();
        assert!(dir.starts_with(cache.0.path().join("sdk")));
        assert!(dir.join("zoo_worker.py").is_file());
        assert_eq!(unpack(cache.0.path(), runtime.path()).unwrap(), dir);
        assert!(entries(runtime.path()).is_empty());
    }

    #[test]
    fn a_tree_is_read_only_but_for_compiled_files() {
        let (_parent, dir) = unpacked();
        assert_eq!(fs::read(dir.join("p/q/d.txt")).unwrap(), b"data");
        let mode = |name: &str| dir.join(name).metadata().unwrap().mode() & 0o7777;
        assert_eq!([mode(""), mode("p"), mode("p/q"), mode("main.py")], [0o555, 0o555, 0o555, 0o444]);
        assert_eq!([mode("__pycache__"), mode("p/__pycache__")], [0o755, 0o755]);
        fs::write(dir.join("p/__pycache__/__init__.cpython-311.pyc"), "compiled").unwrap();
        assert_eq!(SMALL.check(&dir), Ok(()));
    }

    #[test]
    fn a_good_tree_is_used_as_it_is() {
        let (parent, dir) = unpacked();
        let before = dir.metadata().unwrap().ino();
        assert_eq!(SMALL.unpack_below(parent.0.path(), Place::Shared).unwrap(), dir);
        assert_eq!(dir.metadata().unwrap().ino(), before);
        let other = Sdk { files: &SMALL.files[..2] };
        assert_ne!(other.unpack_below(parent.0.path(), Place::Shared).unwrap(), dir);
    }

    #[test]
    fn a_bad_tree_is_replaced() {
        type Spoil = fn(&Path);
        let ways: [(&str, Spoil); 9] = [
            ("main.py has been changed", |dir| {
                fs::set_permissions(dir.join("main.py"), Permissions::from_mode(0o644)).unwrap();
                fs::write(dir.join("main.py"), "import evil\n").unwrap();
            }),
            ("p/q/d.txt is missing", |dir| fs::remove_file(dir.join("p/q/d.txt")).unwrap()),
            ("p/evil.py is foreign", |dir| fs::write(dir.join("p/evil.py"), "").unwrap()),
            ("main.py is neither file nor folder", |dir| {
                fs::remove_file(dir.join("main.py")).unwrap();
                symlink("/etc/passwd", dir.join("main.py")).unwrap();
            }),
            ("not a folder that only its owner can change", |dir| {
                fs::set_permissions(dir.join("p"), Permissions::from_mode(0o777)).unwrap();
            }),
            ("No such file", remove),
            ("main.py is missing", |dir| {
                remove(dir);
                fs::create_dir(dir).unwrap();
            }),
            ("not a folder", |dir| {
                remove(dir);
                fs::write(dir, "a file").unwrap();
            }),
            ("not a folder", |dir| {
                remove(dir);
                symlink("/", dir).unwrap();
            }),
        ];
        for (why, spoil) in ways {
            let (parent, dir) = unpacked();
            for folder in [&dir, &dir.join("p"), &dir.join("p/q")] {
                fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
            }
            spoil(&dir);
            let different = SMALL.check(&dir).unwrap_err();
            assert!(different.contains(why), "{different:?} should say {why:?}");
            assert_eq!(SMALL.unpack_below(parent.0.path(), Place::Shared).unwrap(), dir, "{why}");
            assert_eq!(SMALL.check(&dir), Ok(()), "{why}");
            assert_eq!(entries(parent.0.path()), [dir], "{why}: nothing else is left");
        }
    }

    #[test]
    fn servers_that_start_at_once_agree() {
        for spoiled in [false, true] {
            let (parent, dir) = unpacked();
            remove(&dir);
            if spoiled {
                fs::create_dir(&dir).unwrap();
                fs::write(dir.join("main.py"), "half").unwrap();
            }
            thread::scope(|scope| {
                let servers: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| SMALL.unpack_below(parent.0.path(), Place::Shared)))
                    .collect();
                for server in servers {
                    assert_eq!(server.join().unwrap().unwrap(), dir);
                }
            });
            assert_eq!(SMALL.check(&dir), Ok(()));
            assert_eq!(entries(parent.0.path()), [dir], "nothing else is left");
        }
    }

    #[test]
    fn the_runtime_directory_takes_the_place_of_a_cache_that_cant_be_used() {
        let (root, runtime) = (temp(), Cleaned(temp()));
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        for cache in [file.join("cache"), open.join("cache")] {
            let dir = unpack(&cache, runtime.0.path()).unwrap();
            assert!(dir.starts_with(runtime.0.path()), "{} for {}", dir.display(), cache.display());
        }
        let error = unpack(&file, &file).unwrap_err().to_string();
        assert!(
            error.starts_with("the Python SDK can't be unpacked: ")
                && error.matches("/file/sdk").count() == 2
        );
    }

    #[test]
    fn leftovers_of_killed_servers_are_swept() {
        let (parent, dir) = unpacked();
        let [old, new] = [".unpack-old", ".unpack-new"].map(|name| parent.0.path().join(name));
        for folder in [&old, &new] {
            fs::create_dir_all(folder.join("p")).unwrap();
            fs::set_permissions(folder.join("p"), Permissions::from_mode(0o555)).unwrap();
        }
        let long_ago = SystemTime::now() - 2 * LEFT_OVER;
        File::open(&old).unwrap().set_modified(long_ago).unwrap();
        remove(&dir);
        SMALL.unpack_below(parent.0.path(), Place::Shared).unwrap();
        assert!(!old.exists() && new.exists() && dir.exists());
    }
}
