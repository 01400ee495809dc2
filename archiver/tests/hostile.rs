//! Archives that lie, climb, explode or have lost bytes: each is refused in one line, and nothing is left.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::{fs, io::Write, os::unix::fs::symlink, path::Path};

use common::{
    Project,
    raw::{RawZip, Tar},
};
use zoo_archiver::{
    Archive, Limits, ReadError,
    digest::Digest,
    progress::{Progress, Quiet},
    write::{WriteOptions, pack},
};

const MANIFEST: &str = r#"{"runtime": "python", "model": {"modelName": "m"}}"#;

fn limits() -> Limits {
    Limits { entries: 100, bytes: 4 << 20, ratio: 200, ratio_from: 1 << 20 }
}

/// Extracts what must be refused; returns the reason without the path, after checking that nothing is left.
fn refusal(name: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join(name);
    fs::write(&archive, bytes).unwrap();
    refusal_of(&archive, limits(), &Quiet)
}

fn refusal_of(archive: &Path, limits: Limits, progress: &dyn Progress) -> String {
    let parent = tempfile::tempdir().unwrap();
    let extract = || Archive::open(archive, limits)?.extract(&parent.path().join("model"), progress);
    let error: ReadError = extract().map(|_| ()).unwrap_err();
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "something is left after {error}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message.replace(&archive.display().to_string(), "A").replace(&parent.path().display().to_string(), "DIR")
}

/// The same entry in a zip and in a tar.
fn both(name: &[u8], content: &[u8], expected: &str) {
    let zip = RawZip::new().file(b"MAR-INF/MANIFEST.json", MANIFEST.as_bytes()).file(name, content).done();
    assert_eq!(refusal("a.mar", &zip), expected);
    let tar = Tar::new().file(b"MAR-INF/MANIFEST.json", MANIFEST.as_bytes()).file(name, content).gz();
    assert_eq!(refusal("a.tar.gz", &tar), expected);
}

#[test]
fn a_name_that_leaves_the_root() {
    both(b"../evil", b"x", r#"A: entry "../evil" is refused: the path leaves the archive with .."#);
    both(b"a/../../evil", b"x", r#"A: entry "a/../../evil" is refused: the path leaves the archive with .."#);
    both(b"/etc/passwd", b"x", r#"A: entry "/etc/passwd" is refused: the path is absolute"#);
    both(b"C:evil", b"x", r#"A: entry "C:evil" is refused: the path has a drive letter"#);
    both(b"..\\evil", b"x", r#"A: entry "..\\evil" is refused: the name has a backslash"#);
    both(b"a\nb", b"x", r#"A: entry "a\nb" is refused: the name has a NUL or a line break"#);
    both(b"\xff", b"x", "A: entry \"\u{fffd}\" is refused: the name isn't UTF-8");
}

#[test]
fn a_name_that_is_there_twice() {
    both(b"MAR-INF/MANIFEST.json", b"{}", r#"A: entry "MAR-INF/MANIFEST.json" appears twice"#);
    both(b"./MAR-INF//MANIFEST.json", b"{}", r#"A: entry "MAR-INF/MANIFEST.json" appears twice"#);
}

#[test]
fn a_name_that_is_a_file_and_a_folder() {
    both(b"MAR-INF", b"x", r#"A: "MAR-INF" is both a file and a folder"#);
    both(b"MAR-INF/MANIFEST.json/x", b"x", r#"A: "MAR-INF/MANIFEST.json" is both a file and a folder"#);
}

#[test]
fn links_and_devices() {
    let only = "only plain files and folders are allowed";
    let zip = RawZip::new().mode(0o120_777).file(b"link", b"/etc/passwd").done();
    assert_eq!(refusal("a.mar", &zip), format!(r#"A: entry "link" is a link; {only}"#));
    let zip = RawZip::new().mode(0o020_666).file(b"tty", b"").done();
    assert_eq!(refusal("a.mar", &zip), format!(r#"A: entry "tty" is a device or socket; {only}"#));
    for (kind, what) in [
        (tar::EntryType::Symlink, "a link"),
        (tar::EntryType::Link, "a link"),
        (tar::EntryType::Char, "a device or pipe"),
        (tar::EntryType::Fifo, "a device or pipe"),
        (tar::EntryType::new(b'Z'), "of an unknown kind"),
    ] {
        let tar = Tar::new().special(b"entry", kind, "../../etc/passwd").gz();
        assert_eq!(refusal("a.tar.gz", &tar), format!(r#"A: entry "entry" is {what}; {only}"#));
    }
}

#[test]
fn a_folder_obeys_the_same_rules() {
    let project = Project::new();
    project.write("model/handler.py", b"x");
    symlink("/etc/passwd", project.path("model/passwd")).unwrap();
    let refused = refusal_of(&project.path("model"), limits(), &Quiet);
    assert_eq!(refused, r#"A: entry "passwd" is a link; only plain files and folders are allowed"#);
    fs::remove_file(project.path("model/passwd")).unwrap();
    project.write("model/back\\slash", b"x");
    let refused = refusal_of(&project.path("model"), limits(), &Quiet);
    assert_eq!(refused, r#"A: entry "back\\slash" is refused: the name has a backslash"#);
}

#[test]
fn too_many_entries() {
    let (mut zip, mut tar) = (RawZip::new(), Tar::new());
    for i in 0..101 {
        zip = zip.file(format!("f{i}").as_bytes(), b"");
        tar = tar.file(format!("f{i}").as_bytes(), b"");
    }
    assert_eq!(refusal("a.mar", &zip.done()), "A: has 101 entries; the limit is 100");
    assert_eq!(refusal("a.tar.gz", &tar.gz()), "A: has 101 entries; the limit is 100");
}

#[test]
fn more_bytes_than_allowed() {
    let any_ratio = |name: &str, bytes: &[u8]| {
        let project = Project::new();
        project.write(name, bytes);
        refusal_of(&project.path(name), Limits { ratio: u64::MAX, ..limits() }, &Quiet)
    };
    let zeros = vec![0; (4 << 20) + 1];
    let expected = "A: unpacks to 4194305 bytes or more; the limit is 4194304";
    assert_eq!(any_ratio("a.mar", &RawZip::new().deflated(b"zeros", &zeros).done()), expected);
    assert_eq!(any_ratio("a.tar.gz", &Tar::new().file(b"zeros", &zeros).gz()), expected);
    // Zeros behind the end of the tar count too.
    let mut trailing = Tar::new().file(b"a", b"").tar();
    trailing.resize(5 << 20, 0);
    let refused = any_ratio("a.tar.gz", &common::raw::gzip(&trailing));
    assert!(refused.ends_with("; the limit is 4194304"), "{refused}");
}

#[test]
fn a_bomb_within_the_size_limit() {
    let zeros = vec![0; 3 << 20];
    let zip = RawZip::new().deflated(b"zeros", &zeros).done();
    let expected = format!(
        "A: unpacks from {} to 3145728 bytes or more, above the limit of 200:1 (a zip bomb?)",
        zip.len()
    );
    assert_eq!(refusal("a.mar", &zip), expected);
    let tar = Tar::new().file(b"zeros", &zeros).gz();
    let refused = refusal("a.tar.gz", &tar);
    assert!(refused.starts_with(&format!("A: unpacks from {} to ", tar.len())), "{refused}");
    assert!(refused.ends_with(" bytes or more, above the limit of 200:1 (a zip bomb?)"), "{refused}");
}

#[test]
fn more_than_the_disk_has() {
    let unlimited = Limits { bytes: u64::MAX, ratio: u64::MAX, ..limits() };
    let zip = RawZip::new().lie_about_size(1 << 60).file(b"huge", b"x").done();
    let project = Project::new();
    project.write("a.mar", &zip);
    let refused = refusal_of(&project.path("a.mar"), unlimited, &Quiet);
    assert!(refused.starts_with("A: unpacks to 1152921504606846976 bytes or more; DIR has "), "{refused}");
    assert!(refused.ends_with(" free"), "{refused}");
}

#[test]
fn entries_that_share_their_bytes() {
    let zip = RawZip::new().deflated(b"a", &[0; 1000]).again(b"b").done();
    assert_eq!(refusal("a.mar", &zip), "A: entries share bytes of the archive (a zip bomb, or damage)");
}

#[test]
fn sizes_that_lie() {
    let zip = RawZip::new().lie_about_size(2).file(b"longer", b"four").done();
    let refused = refusal("a.mar", &zip);
    assert_eq!(refused, r#"A: entry "longer" has 3 bytes or more, but its header says 2"#);
    let zip = RawZip::new().lie_about_size(9).file(b"shorter", b"four").done();
    assert_eq!(refusal("a.mar", &zip), r#"A: entry "shorter" is cut off: expected 9 bytes, found 4"#);
}

#[test]
fn a_manifest_that_would_fill_memory() {
    let big = vec![b' '; (1 << 20) + 1];
    both_metadata(b"MAR-INF/MANIFEST.json", &big, "MAR-INF/MANIFEST.json", 1 << 20);
}

fn both_metadata(name: &[u8], content: &[u8], shown: &str, limit: u64) {
    let expected = format!("A: {shown:?} has {} bytes; the limit is {limit}", content.len());
    assert_eq!(refusal("a.mar", &RawZip::new().file(name, content).done()), expected);
    let tar = Tar::new().file(name, content).gz();
    assert_eq!(refusal("a.tar.gz", &tar), expected);
    // Reading the manifest alone is no way around.
    let project = Project::new();
    project.write("a.tar.gz", &tar);
    let error = Archive::open(project.path("a.tar.gz"), limits()).unwrap().manifest().unwrap_err();
    assert!(error.to_string().ends_with(&expected[1..]), "{error}");
}

#[test]
fn a_tar_whose_long_name_would_fill_memory() {
    let tar = Tar::new().long_name(3 << 20).file(b"x", b"x").gz();
    let refused = refusal("a.tar.gz", &tar);
    assert_eq!(
        refused,
        "A: damaged header after its start: the headers of one entry take more than 1048576 bytes"
    );
}

#[test]
fn methods_that_nobody_asked_for() {
    let zip = RawZip::new().method(12).file(b"x", b"x").done();
    let refused = refusal("a.mar", &zip);
    assert!(refused.starts_with(r#"A: entry "x" is packed by "#), "{refused}");
    assert!(refused.ends_with("; only store and deflate are known"), "{refused}");
    let zip = RawZip::new().flags(1).file(b"x", b"x").done();
    assert_eq!(
        refusal("a.mar", &zip),
        r#"A: entry "x" is encrypted; only plain files and folders are allowed"#
    );
}

#[test]
fn damaged_bytes() {
    let mut zip = RawZip::new().file(b"x", b"content").done();
    let at = zip.windows(7).position(|window| window == b"content").unwrap();
    zip[at] = b'C';
    let (found, expected) = (crc32fast::hash(b"Content"), crc32fast::hash(b"content"));
    let message = format!(r#"A: entry "x" is damaged: CRC-32 is {found:08x}, expected {expected:08x}"#);
    assert_eq!(refusal("a.mar", &zip), message);

    let mut zip = RawZip::new().deflated(b"x", &b"all work and no play ".repeat(100)).done();
    zip[33] = 0xFF;
    let refused = refusal("a.mar", &zip);
    assert!(refused.starts_with(r#"A: damaged entry "x" after 0 of 2100 bytes: "#), "{refused}");

    let mut tar = Tar::new().file(b"x", b"content").gz();
    let crc = tar.len() - 8;
    tar[crc] ^= 1;
    let refused = refusal("a.tar.gz", &tar);
    assert!(refused.starts_with("A: damaged end: "), "{refused}");
}

#[test]
fn files_that_are_cut_off() {
    let content = common::noise(10_000);
    let zip = RawZip::new().file(b"x", &content).done();
    let refused = refusal("a.mar", &zip[..5000]);
    assert!(
        refused.starts_with("A is no archive: its 5000 bytes have no sound zip directory at their end"),
        "{refused}"
    );
    assert!(refused.ends_with("is it cut off?"), "{refused}");
    let tar = Tar::new().file(b"x", &content).gz();
    let refused = refusal("a.tar.gz", &tar[..5000]);
    assert!(refused.starts_with(r#"A: entry "x" is cut off: expected 10000 bytes, found "#), "{refused}");
    let refused = refusal("a.tar.gz", &tar[..tar.len() - 4]);
    assert_eq!(refused, "A: damaged end: the file ends too early");
    // The middle is gone, the directory is there.
    let mut zip = zip;
    zip.drain(2000..3000);
    let refused = refusal("a.mar", &zip);
    assert!(refused.starts_with("A"), "{refused}");
}

#[test]
fn what_is_no_archive_at_all() {
    assert_eq!(refusal("a.mar", b""), "A is no archive: it is empty");
    let expected =
        r#"A is no archive: it begins with "hell"; a .mar begins with "PK", a .tar.gz with "\x1f\x8b""#;
    assert_eq!(refusal("a.mar", b"hello"), expected);
    let refused = refusal_of(Path::new("/nonexistent/a.mar"), limits(), &Quiet);
    assert_eq!(refused, "A: No such file or directory (os error 2)");
    let refused = refusal_of(Path::new("/dev/null"), limits(), &Quiet);
    assert_eq!(refused, "A is no archive: it is neither a file nor a folder");
}

#[test]
fn digests_that_do_not_match() {
    let (right, wrong) = (Digest::of(b"x"), Digest::of(b"y"));
    let sums =
        |text: String| RawZip::new().file(b"x", b"x").file(b"MAR-INF/SHA256SUMS", text.as_bytes()).done();
    let refused = refusal("a.mar", &sums(format!("{wrong}  x\n")));
    assert_eq!(
        refused,
        format!(r#"A: "x" isn't what MAR-INF/SHA256SUMS says: sha256 is {right}, expected {wrong}"#)
    );
    let refused = refusal("a.mar", &sums(format!("{right}  x\n{right}  y\n")));
    assert_eq!(refused, r#"A: "y" is listed in MAR-INF/SHA256SUMS but missing"#);
    let refused = refusal("a.mar", &sums("nonsense\n".to_owned()));
    let expected = "A: MAR-INF/SHA256SUMS: line 1 is \"nonsense\"; expected 64 hexadecimal digits, two spaces and a path";
    assert_eq!(refused, expected);
}

#[test]
fn a_manifest_that_cannot_be_served() {
    let manifest = |text: &str| RawZip::new().file(b"MAR-INF/MANIFEST.json", text.as_bytes()).done();
    let refused = refusal("a.mar", &manifest(r#"{"runtime": "python"}"#));
    assert_eq!(refused, r#"A: MAR-INF/MANIFEST.json: no "model" object"#);
}

#[test]
fn a_cancelled_extraction() {
    struct Cancelled;
    impl Progress for Cancelled {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let project = Project::new();
    project.write("a.mar", &RawZip::new().file(b"x", b"x").done());
    assert_eq!(refusal_of(&project.path("a.mar"), limits(), &Cancelled), "A: cancelled");
}

#[test]
fn a_destination_that_exists_is_left_alone() {
    let project = Project::new();
    project.write("a.mar", &RawZip::new().file(b"x", b"x").done());
    project.write("taken/mine", b"mine");
    symlink("/nonexistent", project.path("dangling")).unwrap();
    for name in ["taken", "dangling"] {
        let to = project.path(name);
        let archive = Archive::open(project.path("a.mar"), limits()).unwrap();
        let error = archive.extract(&to, &Quiet).unwrap_err();
        assert_eq!(error.to_string(), format!("{} already exists; name a folder that doesn't", to.display()));
    }
    assert_eq!(fs::read(project.path("taken/mine")).unwrap(), b"mine");
}

#[test]
fn a_staged_archive_vanishes_if_nobody_wants_it() {
    let project = Project::new();
    project.write("a.mar", &RawZip::new().file(b"x", b"x").done());
    let staged =
        Archive::open(project.path("a.mar"), limits()).unwrap().stage(&project.path("out"), &Quiet).unwrap();
    assert_eq!(fs::read(staged.path().join("x")).unwrap(), b"x");
    drop(staged);
    assert_eq!(fs::read_dir(project.path("out")).unwrap().count(), 0);
}

#[test]
fn set_user_id_is_never_taken_over() {
    use std::os::unix::fs::PermissionsExt;
    let manifest = r#"{"runtime": "native", "model": {"modelName": "m", "handler": "run"}}"#;
    let zip =
        RawZip::new().file(b"MAR-INF/MANIFEST.json", manifest.as_bytes()).mode(0o106_777).file(b"run", b"x");
    let project = Project::new();
    project.write("a.mar", &zip.done());
    let to = project.path("out/m");
    Archive::open(project.path("a.mar"), limits()).unwrap().extract(&to, &Quiet).unwrap();
    assert_eq!(fs::metadata(to.join("run")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn archives_of_sagemaker_and_of_old_are_read() {
    let project = Project::new();
    // `tar czf model.tar.gz .` and one with a top folder, both without our digests.
    let flat =
        Tar::new().folder(b"./").file(b"./MAR-INF/MANIFEST.json", MANIFEST.as_bytes()).file(b"./h.py", b"x");
    let wrapped =
        Tar::new().folder(b"m").file(b"m/MAR-INF/MANIFEST.json", MANIFEST.as_bytes()).file(b"m/h.py", b"x");
    let none = Tar::new().file(b"code/h.py", b"x").file(b"model.pth", b"x");
    for (name, tar, files) in [
        ("flat", flat, vec!["MAR-INF/MANIFEST.json", "h.py"]),
        ("wrapped", wrapped, vec!["MAR-INF/MANIFEST.json", "h.py"]),
        ("none", none, vec!["code/h.py", "model.pth"]),
    ] {
        project.write(name, &tar.gz());
        let to = project.path("out").join(name);
        let archive = Archive::open(project.path(name), limits()).unwrap();
        let extracted = archive.extract(&to, &Quiet).unwrap();
        let names: Vec<_> = extracted.contents.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, files);
        assert!(files.iter().all(|file| to.join(file).is_file()));
        assert_eq!(extracted.contents.manifest.is_some(), name != "none");
        assert_eq!(archive.manifest().unwrap().is_some(), name != "none");
        assert!(!extracted.contents.has_sums);
    }
}

#[test]
fn our_archive_edited_by_hand_is_noticed() {
    let project = Project::new();
    project.write("handler.py", b"x");
    let mut spec = project.spec();
    spec.handler = Some(project.path("handler.py").display().to_string());
    let to = project.to();
    let format = zoo_archiver::spec::Format::NoArchive;
    let packed = pack(&spec, format, &to, WriteOptions::default(), &Quiet).unwrap();
    let file = fs::File::options().append(true).open(packed.path.join("handler.py"));
    file.unwrap().write_all(b"y").unwrap();
    fs::write(packed.path.join("new"), "").unwrap();
    let findings = Archive::open(&packed.path, limits()).unwrap().verify(&Quiet).findings;
    let messages: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains(r#""handler.py" isn't what MAR-INF/SHA256SUMS says"#), "{messages:?}");
    assert!(messages[1].ends_with(r#""new" isn't listed in MAR-INF/SHA256SUMS"#), "{messages:?}");
}
