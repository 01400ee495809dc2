//! One suite for all archive sinks: what goes in comes out, byte for byte, and twice the same.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroUsize,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Project, noise, read_tree};
use zoo_archiver::{
    Archive, Limits, Runtime,
    digest::{Digest, Sums},
    progress::Quiet,
    read::Verified,
    spec::Format,
    write::{WriteOptions, pack, plan},
};

const FORMATS: [Format; 4] = [Format::Default, Format::ZipStore, Format::Tgz, Format::NoArchive];

/// A model with one of everything: text, noise, nothing, and blocks whose borders cut matches in two.
fn project() -> Project {
    let project = Project::new();
    project.write("handler.py", b"def handle(data, context):\n    return data\n");
    project.write("weights.pt", &noise(700_000));
    project.write("vocab.txt", &b"all work and no play ".repeat(40_000));
    project.write("extra/empty.bin", b"");
    project.write("extra/one", b"1");
    project.write("extra/sub/deep/é ü.txt", "unicode".as_bytes());
    project.write("extra/sub/__pycache__/x.pyc", b"cache");
    project.write("extra/.git/config", b"hidden");
    project.write("extra/.env", b"a hidden file goes in");
    project.write("tree/a/b.txt", b"b");
    project.write("model-config.yaml", b"minWorkers: 1\n");
    project.write("requirements.txt", b"numpy\n");
    project
}

fn spec(project: &Project) -> zoo_archiver::PackSpec {
    let path = |name: &str| Some(project.path(name));
    zoo_archiver::PackSpec {
        handler: Some(format!("{}:handle", project.path("handler").display())),
        serialized_file: path("weights.pt"),
        model_file: path("vocab.txt"),
        extra_files: project.extras(&["extra", "assets/=tree"]),
        requirements_file: path("requirements.txt"),
        config_file: path("model-config.yaml"),
        ..project.spec()
    }
}

fn expected(project: &Project) -> BTreeMap<String, Vec<u8>> {
    let files = [
        ("handler.py", "handler.py"),
        ("weights.pt", "weights.pt"),
        ("vocab.txt", "vocab.txt"),
        ("empty.bin", "extra/empty.bin"),
        ("one", "extra/one"),
        ("sub/deep/é ü.txt", "extra/sub/deep/é ü.txt"),
        (".env", "extra/.env"),
        ("assets/a/b.txt", "tree/a/b.txt"),
        ("model-config.yaml", "model-config.yaml"),
        ("requirements.txt", "requirements.txt"),
    ];
    files.into_iter().map(|(name, from)| (name.to_owned(), fs::read(project.path(from)).unwrap())).collect()
}

fn open(path: &Path) -> Archive {
    Archive::open(path, Limits::default()).unwrap()
}

#[test]
fn every_format_gives_back_what_went_in() {
    let project = project();
    for format in FORMATS {
        let packed = pack(&spec(&project), format, &project.to(), WriteOptions::default(), &Quiet).unwrap();
        let out = project.path("extracted");
        let extracted = open(&packed.path).extract(&out, &Quiet).unwrap();
        let mut tree = read_tree(&out);
        let manifest = tree.remove("MAR-INF/MANIFEST.json").unwrap();
        let sums = String::from_utf8(tree.remove("MAR-INF/SHA256SUMS").unwrap()).unwrap();
        assert!(tree == expected(&project), "{format:?}: {:?}", tree.keys());
        assert_eq!(sums, packed.sums.to_string(), "{format:?}");
        assert!(extracted.contents.has_sums && extracted.contents.unlisted.is_empty());
        assert_eq!(manifest, spec(&project).manifest().to_json().as_bytes());
        let manifest = extracted.contents.manifest.unwrap();
        assert_eq!(manifest.model.handler.as_deref(), Some("handler:handle"));
        let Verified { findings, .. } = open(&packed.path).verify(&Quiet);
        assert!(findings.is_empty(), "{format:?}: {findings:?}");
        assert_eq!(open(&packed.path).manifest().unwrap(), Some(manifest));
        fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn all_formats_have_the_same_content_digest() {
    let project = project();
    let digests: Vec<Digest> = FORMATS
        .into_iter()
        .map(|format| {
            let mut spec = spec(&project);
            spec.created_on = format!("{format:?}");
            let packed = pack(&spec, format, &project.to(), WriteOptions::default(), &Quiet).unwrap();
            open(&packed.path).contents(&Quiet).unwrap().digest
        })
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn the_bytes_depend_neither_on_threads_nor_on_the_day() {
    let project = project();
    for format in [Format::Default, Format::ZipStore, Format::Tgz] {
        let bytes: Vec<Vec<u8>> = [1, 2, 5]
            .into_iter()
            .map(|threads| {
                let options = WriteOptions { threads: NonZeroUsize::new(threads).unwrap() };
                let packed = pack(&spec(&project), format, &project.to(), options, &Quiet).unwrap();
                let bytes = fs::read(&packed.path).unwrap();
                fs::remove_file(packed.path).unwrap();
                // A copy made later has other times and the same content.
                project.touch("weights.pt");
                bytes
            })
            .collect();
        assert!(bytes[0] == bytes[1] && bytes[1] == bytes[2], "{format:?}");
    }
}

#[test]
fn deflate_shrinks_text_and_leaves_noise_alone() {
    let project = project();
    let size = |format| {
        let packed = pack(&spec(&project), format, &project.to(), WriteOptions::default(), &Quiet).unwrap();
        let size = fs::metadata(&packed.path).unwrap().len();
        fs::remove_file(packed.path).unwrap();
        size
    };
    assert!(size(Format::ZipStore) > 1_540_000);
    assert!(size(Format::Default) < 720_000);
    assert!(size(Format::Tgz) < 720_000);
}

#[test]
fn foreign_tools_read_our_archives() {
    let project = project();
    let mar = pack(&spec(&project), Format::Default, &project.to(), WriteOptions::default(), &Quiet).unwrap();
    let tgz = pack(&spec(&project), Format::Tgz, &project.to(), WriteOptions::default(), &Quiet).unwrap();
    let script = "import sys, zipfile, tarfile\n\
                  z = zipfile.ZipFile(sys.argv[1])\n\
                  assert z.testzip() is None\n\
                  assert z.namelist()[-1] == 'MAR-INF/MANIFEST.json', z.namelist()\n\
                  assert z.namelist()[:-2] == sorted(z.namelist()[:-2])\n\
                  z.extractall(sys.argv[3])\n\
                  t = tarfile.open(sys.argv[2])\n\
                  assert sorted(m.name for m in t) == sorted('model/' + n for n in z.namelist())\n";
    let out = project.path("python");
    let python =
        Command::new("python3").args(["-c", script]).args([&mar.path, &tgz.path, &out]).output().unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    run_if_there(Command::new("unzip").arg("-tqq").arg(&mar.path));
    run_if_there(
        Command::new("sha256sum").args(["-c", "--quiet", "--strict", "MAR-INF/SHA256SUMS"]).current_dir(&out),
    );
}

/// Some machines lack the tool; where it is, it has to be content.
fn run_if_there(command: &mut Command) {
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        output => {
            let output = output.unwrap();
            assert!(output.status.success(), "{command:?}: {output:?}");
        }
    }
}

#[test]
fn a_plan_lists_the_files_and_writes_nothing() {
    let project = project();
    let listed = plan(&spec(&project), Format::Default, &project.to(), &Quiet).unwrap();
    let mut names: Vec<_> = expected(&project).into_keys().collect();
    names.extend(["MAR-INF/SHA256SUMS".into(), "MAR-INF/MANIFEST.json".into()]);
    assert_eq!(listed.iter().map(|file| file.head.name.clone()).collect::<Vec<_>>(), names);
    let packed =
        pack(&spec(&project), Format::NoArchive, &project.to(), WriteOptions::default(), &Quiet).unwrap();
    for file in listed {
        assert_eq!(file.head.size, fs::metadata(packed.path.join(&file.head.name)).unwrap().len());
    }
    assert_eq!(fs::read_dir(project.path("out")).unwrap().count(), 1);
}

#[test]
fn a_failure_leaves_the_old_archive_and_nothing_else() {
    let project = project();
    for format in FORMATS {
        let packed = pack(&spec(&project), format, &project.to(), WriteOptions::default(), &Quiet).unwrap();
        let before = read_tree(&project.path("out"));
        let mut broken = spec(&project);
        // Vanishes between collecting and packing: a link that points nowhere once it has been looked at.
        struct Saboteur(PathBuf);
        impl zoo_archiver::progress::Progress for Saboteur {
            fn begin(&self, _total: u64) {
                fs::remove_file(&self.0).unwrap();
            }
        }
        project.write("zzz.txt", b"soon gone");
        broken.requirements_file = Some(project.path("zzz.txt"));
        let saboteur = Saboteur(project.path("zzz.txt"));
        let error = pack(&broken, format, &project.to(), WriteOptions::default(), &saboteur).unwrap_err();
        assert!(error.to_string().starts_with("[Errno 2] No such file or directory: '"), "{error}");
        assert!(read_tree(&project.path("out")) == before, "{format:?}");
        if format == Format::NoArchive {
            fs::remove_dir_all(packed.path).unwrap();
        } else {
            fs::remove_file(packed.path).unwrap();
        }
    }
}

#[test]
fn a_file_that_grows_while_it_is_packed_is_named_with_both_sizes() {
    struct Appender(PathBuf);
    impl zoo_archiver::progress::Progress for Appender {
        fn begin(&self, _total: u64) {
            let mut longer = fs::read(&self.0).unwrap();
            longer.push(b'x');
            fs::write(&self.0, longer).unwrap();
        }
    }
    let project = project();
    for format in FORMATS {
        let appender = Appender(project.path("weights.pt"));
        let size = fs::metadata(&appender.0).unwrap().len();
        let error =
            pack(&spec(&project), format, &project.to(), WriteOptions::default(), &appender).unwrap_err();
        let expected = format!("changed while it was packed: expected {size} bytes, read {}", size + 1);
        assert!(error.to_string().ends_with(&expected), "{error}");
        assert_eq!(fs::read_dir(project.path("out")).unwrap().count(), 0);
    }
}

#[test]
fn an_existing_folder_is_merged_into_as_torchserve_does() {
    let project = project();
    project.write("out/model/stale.txt", b"mine");
    project.write("out/model/handler.py", b"old");
    pack(&spec(&project), Format::NoArchive, &project.to(), WriteOptions::default(), &Quiet).unwrap();
    assert_eq!(fs::read(project.path("out/model/stale.txt")).unwrap(), b"mine");
    assert_eq!(fs::read(project.path("out/model/handler.py")).unwrap(), expected(&project)["handler.py"]);
    assert_eq!(fs::read_dir(project.path("out")).unwrap().count(), 1);
    let Verified { findings, .. } = open(&project.path("out/model")).verify(&Quiet);
    assert!(findings.is_empty(), "what stays is listed too: {findings:?}");
}

#[test]
fn a_native_handler_stays_executable_and_nothing_else_becomes_it() {
    let project = Project::new();
    project.write("serve", b"#!/bin/sh\n");
    project.write("tool", b"#!/bin/sh\n");
    project.write("data", b"x");
    let set =
        |name: &str, mode| fs::set_permissions(project.path(name), fs::Permissions::from_mode(mode)).unwrap();
    let mut spec = project.spec();
    spec.handler = Some(project.path("serve").display().to_string());
    spec.extra_files = project.extras(&["tool", "data"]);
    spec.runtime = Runtime::Native;
    let error = pack(&spec, Format::Default, &project.to(), WriteOptions::default(), &Quiet).unwrap_err();
    assert!(error.to_string().ends_with("serve isn't executable (mode 644); run chmod +x on it"), "{error}");
    set("serve", 0o6755);
    set("tool", 0o755);
    for format in FORMATS {
        let out = project.path("extracted");
        let packed = pack(&spec, format, &project.to(), WriteOptions::default(), &Quiet).unwrap();
        let extracted = open(&packed.path).extract(&out, &Quiet).unwrap();
        let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("serve"), mode("tool"), mode("data")), (0o755, 0o755, 0o644), "{format:?}");
        let target = extracted.contents.manifest.unwrap().target.unwrap();
        assert!(target.contains("linux"), "{target}");
        fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn a_native_handler_of_another_machine_is_refused() {
    let project = Project::new();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(18, 0);
    elf.extend_from_slice(&183_u16.to_le_bytes());
    project.write("serve", &elf);
    fs::set_permissions(project.path("serve"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = project.spec();
    spec.handler = Some(project.path("serve").display().to_string());
    spec.runtime = Runtime::Native;
    spec.target = Some("x86_64-unknown-linux-gnu".into());
    let error = pack(&spec, Format::Default, &project.to(), WriteOptions::default(), &Quiet).unwrap_err();
    let expected = "is built for aarch64, but the target is x86_64-unknown-linux-gnu; \
                    name its target triple with --target";
    assert!(error.to_string().ends_with(expected), "{error}");
    spec.target = Some("aarch64-unknown-linux-gnu".into());
    pack(&spec, Format::Default, &project.to(), WriteOptions::default(), &Quiet).unwrap();
}

#[test]
fn what_the_archiver_says_about_digests_is_what_it_wrote() {
    let project = project();
    let packed =
        pack(&spec(&project), Format::Default, &project.to(), WriteOptions::default(), &Quiet).unwrap();
    let mut expected = Sums::default();
    for (name, bytes) in self::expected(&project) {
        expected.0.insert(name, Digest::of(&bytes));
    }
    expected
        .0
        .insert("MAR-INF/MANIFEST.json".into(), Digest::of(spec(&project).manifest().to_json().as_bytes()));
    assert_eq!(packed.sums, expected);
}
