//! The cache on a real file system.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use zoo_archiver::progress::Quiet;

use super::*;
use crate::registry::fixture::archive;

fn open(root: &Path) -> Cache {
    Cache::open(root, 1 << 30, Limits::default()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Later than the times of files that were just written.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

#[test]
fn an_archive_is_unpacked_once_and_each_model_gets_a_folder_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let cache = open(&temp.path().join("cache"));
    let file = temp.path().join("m.mar");
    let weights = "w".repeat((1 << 20) + 1);
    archive(&file, &[("handler.py", "pass"), ("sub/weights.bin", &weights)]);

    let first = cache.materialise("m", &file, &Quiet).unwrap();
    let second = cache.materialise("m/../x", &file, &Quiet).unwrap();
    assert_eq!(names(&cache.archives).len(), 1);
    assert_eq!(names(&cache.run), ["1-m", "2-m_.._x"]);
    let tree = cache.archives.join(&names(&cache.archives)[0]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&tree.join("handler.py")) & 0o222, mode(&tree.join("sub")) & 0o222], [0, 0]);
    assert_eq!([mode(&cache.run), mode(first.path())], [0o700, 0o700]);

    // A small file is a copy, which a handler may change; a large one is the same file, which it may not.
    fs::write(first.path().join("handler.py"), "changed").unwrap();
    assert_eq!(fs::read_to_string(second.path().join("handler.py")).unwrap(), "pass");
    let inode = |dir: &Path| fs::metadata(dir.join("sub/weights.bin")).unwrap().ino();
    assert_eq!(inode(first.path()), inode(&tree));
    assert_eq!(mode(&first.path().join("sub/weights.bin")) & 0o222, 0);

    fs::write(first.path().join("sub/new"), "by a handler").unwrap();
    drop(first);
    assert_eq!(names(&cache.run), ["2-m_.._x"]);
}

#[test]
fn a_known_file_isnt_read_again_until_it_changes() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("cache");
    let cache = open(&root);
    let file = temp.path().join("m.mar");
    fs::write(&file, "one").unwrap();
    let identity = Identity::of(&file).unwrap();
    let known = |cache: &Cache| cache.index.lock().digest(&Identity::of(&file).unwrap());

    // Just written: a second write may leave the same times.
    let digest = cache.digest(&file, SystemTime::now(), &Quiet).unwrap().hex;
    assert_eq!(known(&cache), None);
    assert!(!identity.is_settled(SystemTime::now()) && identity.is_settled(later()));

    assert_eq!(cache.digest(&file, later(), &Quiet).unwrap().hex, digest);
    assert_eq!(known(&cache), Some(digest.clone()));
    // A digest that only memory can give.
    cache.index.lock().remember(identity, "remembered".to_owned());
    assert_eq!(cache.digest(&file, later(), &Quiet).unwrap().hex, "remembered");
    cache.change(|_| ());
    drop(cache);
    let cache = open(&root);
    assert_eq!(cache.digest(&file, later(), &Quiet).unwrap().hex, "remembered");

    fs::write(&file, "two!").unwrap();
    let changed = cache.digest(&file, later(), &Quiet).unwrap().hex;
    assert!(changed != digest && changed != "remembered");
}

#[test]
fn a_tree_that_was_written_to_through_a_link_is_made_anew() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("cache");
    let cache = open(&root);
    let file = temp.path().join("m.mar");
    let weights = "w".repeat((1 << 20) + 1);
    archive(&file, &[("sub/weights.bin", &weights)]);
    let linked = |dir: &PrivateDir| dir.path().join("sub/weights.bin");
    // As root, or as an owner who lifts the protection: in place, of the same length, or the protection only.
    let lift = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let overwrite = |path: &Path| {
        lift(path);
        fs::write(path, "x".repeat(weights.len())).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
    };
    let damages: [&dyn Fn(&Path); 2] = [&overwrite, &lift];
    for damage in damages {
        let first = cache.materialise("m", &file, &Quiet).unwrap();
        let untouched = cache.materialise("m", &file, &Quiet).unwrap();
        let inode = |dir: &PrivateDir| fs::metadata(linked(dir)).unwrap().ino();
        assert_eq!(inode(&first), inode(&untouched));
        damage(&linked(&first));
        let second = cache.materialise("m", &file, &Quiet).unwrap();
        assert_ne!(inode(&first), inode(&second));
        assert_eq!(fs::read_to_string(linked(&second)).unwrap(), weights);
        assert_eq!(fs::metadata(linked(&second)).unwrap().mode() & 0o222, 0);
    }

    // The next server looks too.
    let third = cache.materialise("m", &file, &Quiet).unwrap();
    overwrite(&linked(&third));
    drop((third, cache));
    let fourth = open(&root).materialise("m", &file, &Quiet).unwrap();
    assert_eq!(fs::read_to_string(linked(&fourth)).unwrap(), weights);
}

#[test]
fn two_servers_cant_share_a_cache() {
    let temp = tempfile::tempdir().unwrap();
    let first = open(temp.path());
    let error = Cache::open(temp.path(), 1, Limits::default()).unwrap_err();
    let expected = format!(
        "the cache {} is in use by the server with process id {}; stop that one, or give \
         this one a folder of its own with --cache-dir",
        temp.path().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), expected);
    drop(first);
    open(temp.path());
}

#[test]
fn leftovers_of_dead_servers_are_swept_and_whole_trees_kept() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("m.mar");
    archive(&file, &[("a", "a")]);
    let root = temp.path().join("cache");
    let cache = open(&root);
    drop(cache.materialise("m", &file, &Quiet).unwrap());
    let tree = names(&cache.archives);
    drop(cache);

    fs::create_dir_all(root.join("run/7-dead/sub")).unwrap();
    fs::create_dir_all(root.join("archives/.unpack.x.tmp")).unwrap();
    fs::create_dir_all(root.join("archives/0123/read-only")).unwrap();
    tree::make_read_only(&root.join("archives/0123")).unwrap();
    let cache = open(&root);
    assert_eq!((names(&cache.run), names(&cache.archives)), (vec![], tree.clone()));

    // A tree that somebody removed is made again.
    tree::remove(&cache.archives.join(&tree[0])).unwrap();
    let made = cache.materialise("m", &file, &Quiet).unwrap();
    assert!(made.path().join("a").is_file());
    drop((made, cache));

    // Nothing can be told of trees without an index.
    fs::write(root.join("index.json"), "{").unwrap();
    assert_eq!(names(&open(&root).archives), Vec::<String>::new());
}

#[test]
fn the_longest_unused_trees_go_first() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("cache");
    let cache = Cache::open(&root, 250, Limits::default()).unwrap();
    let text = "x".repeat(100);
    let add = |name: &str| {
        let file = temp.path().join(name);
        archive(&file, &[(name, &text)]);
        cache.materialise(name, &file, &Quiet).unwrap()
    };
    let held = |cache: &Cache| {
        let mut held: Vec<_> =
            names(&cache.archives).iter().flat_map(|tree| names(&cache.archives.join(tree))).collect();
        held.sort();
        held
    };
    let first = add("a");
    let _second = add("b");
    assert_eq!(held(&cache), ["a", "b"]);
    // Used again, so `b` is the oldest now.
    drop(cache.materialise("a", &temp.path().join("a"), &Quiet).unwrap());
    let _third = add("c");
    assert_eq!(held(&cache), ["a", "c"]);
    drop(cache);
    let cache = Cache::open(&root, 150, Limits::default()).unwrap();
    assert_eq!(held(&cache), ["c"]);
    drop(first);
}

#[test]
fn a_busy_tree_stays() {
    let mut index = Index::default();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    index.add("old", 10, vec![], at(1));
    index.add("new", 10, vec![], at(2));
    assert_eq!(index.surplus(20, |_| false), None);
    assert_eq!(index.surplus(19, |_| false).as_deref(), Some("old"));
    assert_eq!(index.surplus(19, |digest| digest == "old").as_deref(), Some("new"));
    assert_eq!(index.surplus(0, |_| true), None);
}

#[test]
fn only_the_latest_digests_are_remembered() {
    let mut index = Index::default();
    let this_file = Identity::of(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    for number in 0..4097 {
        index.remember(this_file.with_inode(number), number.to_string());
    }
    assert_eq!(index.digest(&this_file.with_inode(0)), None);
    assert_eq!(index.digest(&this_file.with_inode(4096)).as_deref(), Some("4096"));
}

#[test]
fn a_damaged_archive_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let cache = open(&temp.path().join("cache"));
    let file = temp.path().join("m.mar");
    archive(&file, &[("a", "a"), ("../escape", "b")]);
    assert!(matches!(
        cache.materialise("m", &file, &Quiet),
        Err(CacheError::Archive(ReadError::Name { .. }))
    ));
    assert_eq!((names(&cache.archives), names(&cache.run)), (vec![], vec![]));
    assert!(cache.busy.lock().is_empty());
}

#[test]
fn unpacking_can_be_called_off() {
    struct Off(AtomicBool);
    impl Progress for Off {
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let cache = open(&temp.path().join("cache"));
    let file = temp.path().join("m.mar");
    archive(&file, &[("a", "a")]);
    let off = Off(AtomicBool::new(true));
    assert!(matches!(
        cache.materialise("m", &file, &off),
        Err(CacheError::Archive(ReadError::Cancelled { .. }))
    ));
    assert_eq!((names(&cache.archives), names(&cache.run)), (vec![], vec![]));
    off.0.store(false, Ordering::Relaxed);
    assert!(cache.materialise("m", &file, &off).is_ok());
}
