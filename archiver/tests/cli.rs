//! The command as users call it: flags, texts, exit codes, and what lies on disk afterwards.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt},
    process::{Command, Output, Stdio},
};

use common::{Project, read_tree};
use zoo_archiver::digest::Digest;

const BINARY: &str = env!("CARGO_BIN_EXE_zoo-archiver");

/// Runs the program under a name, in the project's folder.
fn run_as(name: &str, project: &Project, args: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.arg0(name).args(args.split_whitespace()).current_dir(project.path(""));
    command.env_remove("SOURCE_DATE_EPOCH").output().unwrap()
}

fn zoo(project: &Project, args: &str) -> Output {
    run_as("zoo-archiver", project, args)
}

/// Exit code and stderr.
fn outcome(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn stdout(output: &Output) -> String {
    assert_eq!(outcome(output), (0, String::new()));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn project() -> Project {
    let project = Project::new();
    project.write("handler.py", b"def handle(data, context):\n    return data\n");
    project.write("model.onnx", b"onnx");
    project.write("a/x.txt", b"from a");
    project.write("b/x.txt", b"from b");
    project.write("b/sub/y.txt", b"y");
    project
}

const PACK: &str = "--model-name m --version 1.0 --handler handler.py --export-path out";

#[test]
fn packs_and_says_so() {
    let project = project();
    let packed = zoo(&project, PACK);
    assert_eq!(outcome(&packed), (0, "INFO - Successfully exported model m to file out\n".to_owned()));
    assert!(packed.stdout.is_empty());
    assert!(project.path("out/m.mar").is_file());
}

#[test]
fn the_drop_in_names_are_silent_like_their_models() {
    let project = project();
    let extras = format!("{PACK} --extra-files a --extra-files b/sub");
    assert_eq!(outcome(&run_as("/opt/bin/torch-model-archiver", &project, &extras)), (0, String::new()));
    let json = stdout(&zoo(&project, "inspect out/m.mar --json"));
    assert!(!json.contains("x.txt") && json.contains("y.txt"), "the last of several lists counts: {json}");
    let pack = "--workflow-name w --spec-file handler.py --handler a/x.txt --export-path out";
    assert_eq!(outcome(&run_as("torch-workflow-archiver", &project, pack)), (0, String::new()));
    let (code, error) = outcome(&run_as("torch-workflow-archiver", &project, pack));
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "ERROR - out/w.war already exists.\nPlease specify --force/-f option to overwrite the workflow archive output \
         file.\nSee -h/--help for more details.\n"
    );
    // An archive is an argument to pack for the drop-in name, where there are no sub-commands.
    assert_eq!(outcome(&run_as("torch-model-archiver", &project, "inspect out/m.mar")).0, 2);
}

#[test]
fn wrong_usage_is_2_and_names_the_flag() {
    let project = project();
    let cases = [
        ("", "--model-name"),
        ("--model-name m --handler handler.py", "--version"),
        ("--model-name m --version 1", "--handler is required for runtime python"),
        ("--model-name m --version 1 --runtime onnx", "--serialized-file is required for runtime onnx"),
        ("--model-name m --version 1 --handler h --runtime java", "[possible values: python, python3, LSP"),
        ("--model-name m --version 1 --handler h --archive-format rar", "possible values"),
        ("--model-name m --version 1 --handler h --bogus", "--bogus"),
        ("extract out", "<FOLDER>"),
        ("init x --template cobol", "[possible values: python, torchscript, onnx, rust]"),
    ];
    for (args, expected) in cases {
        let (code, error) = outcome(&zoo(&project, args));
        assert_eq!(code, 2, "{args}");
        assert!(error.contains(expected), "{args}: {error}");
    }
}

#[test]
fn failures_are_1_with_the_texts_of_the_peer() {
    let project = project();
    project.write("file", b"");
    let cases = [
        (
            "--model-name m/x --version 1 --handler handler.py",
            "Model name contains special characters.\nThe allowed regular expression filter for model name is: \
             ^[A-Za-z0-9][A-Za-z0-9_\\-.]*$",
        ),
        (
            "--model-name m --version 1 --handler handler.py --export-path file",
            "Given export-path file is not a directory. Point to a valid export-path directory.",
        ),
        ("--model-name m --version 1 --handler nope", "[Errno 2] No such file or directory: 'nope.py'"),
        ("--model-name m --version 1 --handler nope.py:f", "[Errno 2] No such file or directory: 'nope.py'"),
        (
            "--model-name m --version 1 --handler handler.py --serialized-file a",
            "[Errno 21] Is a directory: 'a'",
        ),
        ("--model-name m --version 1 --handler handler.py --extra-files no", "File does not exist: no"),
        (
            "--model-name m --version 1 --handler handler.py --extra-files b/,b",
            "--extra-files: b/sub and b/sub both bring a folder \"sub\"; put one elsewhere with DEST/=PATH",
        ),
        (
            "--model-name m --version 1 --handler handler.py --extra-files ../up/=a",
            "--extra-files ../up/=…: the path leaves the archive with ..; give a relative folder such as assets",
        ),
        ("inspect nope.mar", "nope.mar: No such file or directory (os error 2)"),
        (
            "extract handler.py x",
            "handler.py is no archive: it begins with \"def \"; a .mar begins with \"PK\", a \
          .tar.gz with \"\\x1f\\x8b\"",
        ),
        ("init a", "a already exists; name a folder that doesn't"),
        ("init n --sdk a", "--sdk is for --template rust"),
        (
            "init n --template rust --sdk a",
            "--sdk a is not the folder of zoo-handler; name handler-sdk/rust of a checkout",
        ),
    ];
    for (args, expected) in cases {
        assert_eq!(outcome(&zoo(&project, args)), (1, format!("ERROR - {expected}\n")), "{args}");
    }
    assert_eq!(fs::read_dir(project.path("out")).unwrap().count(), 0);
}

#[test]
fn warnings_come_before_what_follows() {
    let project = project();
    zoo(&project, PACK);
    let (code, error) = outcome(&zoo(&project, PACK));
    assert_eq!((code, error.lines().next().unwrap()), (1, "ERROR - out/m.mar already exists."));
    let (code, error) = outcome(&zoo(&project, &format!("{PACK} -f --extra-files *.none,a,b")));
    assert_eq!(code, 0);
    let expected = "WARNING - Overwriting out/m.mar ...\n\
                    WARNING - Given wildcard pattern did not match any file: *.none\n\
                    WARNING - x.txt: b/x.txt takes the place of a/x.txt\n\
                    INFO - Successfully exported model m to file out\n";
    assert_eq!(error, expected);
    let (code, error) = outcome(&zoo(&project, &PACK.replace("out", "new/deep")));
    assert_eq!(code, 0);
    assert!(
        error.starts_with("WARNING - Export directory (new/deep) does not exist. Creating...\n"),
        "{error}"
    );
}

#[test]
fn an_archive_never_holds_its_former_self() {
    let project = project();
    let args = "--model-name m --version 1 --handler handler.py --extra-files . --export-path . --force";
    assert_eq!(outcome(&zoo(&project, args)).0, 0);
    let (_, error) = outcome(&zoo(&project, args));
    assert!(
        error.contains("INFO - ./m.mar stays out: it is the archive that is being replaced\n"),
        "{error}"
    );
    let json = stdout(&zoo(&project, "inspect m.mar --json"));
    assert!(!json.contains(r#""name": "m.mar""#), "{json}");
}

#[test]
fn repeated_extra_files_add_up() {
    let project = project();
    assert_eq!(outcome(&zoo(&project, &format!("{PACK} --extra-files a --extra-files b/sub"))).0, 0);
    let json = stdout(&zoo(&project, "inspect out/m.mar --json"));
    assert!(json.contains("x.txt") && json.contains("y.txt"), "{json}");
}

#[test]
fn a_loop_of_links_is_named() {
    let project = project();
    symlink(project.path("b"), project.path("b/sub/loop")).unwrap();
    let (code, error) = outcome(&zoo(&project, &format!("{PACK} --extra-files b")));
    assert_eq!(code, 1);
    assert!(error.starts_with("ERROR - b/sub/loop"), "{error}");
}

#[test]
fn a_dry_run_lists_and_writes_nothing() {
    let project = project();
    let listed = stdout(&zoo(&project, &format!("{PACK} --dry-run --extra-files assets/=b")));
    let names: Vec<_> = listed.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
    let expected =
        ["assets/sub/y.txt", "assets/x.txt", "handler.py", "MAR-INF/SHA256SUMS", "MAR-INF/MANIFEST.json"];
    assert_eq!(names, expected);
    assert_eq!(fs::read_dir(project.path("out")).unwrap().count(), 0);
}

#[test]
fn a_fixed_date_gives_the_same_bytes_every_time() {
    let project = project();
    let pack = |format: &str, name: &str, zone: &str| {
        let mut command = Command::new(BINARY);
        command.args(PACK.split_whitespace()).args(["-f", "--archive-format", format]);
        command.env("SOURCE_DATE_EPOCH", "1735689599").env("TZ", zone).current_dir(project.path(""));
        assert!(command.output().unwrap().status.success());
        Digest::of(&fs::read(project.path("out").join(name)).unwrap())
    };
    for (format, name) in [("default", "m.mar"), ("zip-store", "m.mar"), ("tgz", "m.tar.gz")] {
        let first = pack(format, name, "UTC");
        project.touch("handler.py");
        assert_eq!(first, pack(format, name, "Asia/Tokyo"), "{format}");
        let json = stdout(&zoo(&project, &format!("inspect out/{name} --json")));
        assert!(json.contains(r#""createdOn": "31/12/2024 23:59:59""#), "{json}");
    }
    let mut command = Command::new(BINARY);
    command.args(PACK.split_whitespace()).env("SOURCE_DATE_EPOCH", "today").current_dir(project.path(""));
    let expected = "ERROR - SOURCE_DATE_EPOCH is \"today\"; it must be a number of seconds since 1970\n";
    assert_eq!(outcome(&command.output().unwrap()), (1, expected.to_owned()));
}

#[test]
fn inspect_shows_and_verify_checks() {
    let project = project();
    zoo(&project, &format!("{PACK} --extra-files b"));
    let shown = stdout(&zoo(&project, "inspect out/m.mar"));
    for expected in
        ["model         m\n", "runtime       python\n", "handler       handler.py\n", "  sub/y.txt\n"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&zoo(&project, "inspect --json out/m.mar"))).unwrap();
    assert_eq!(json["manifest"]["model"]["modelName"], "m");
    assert_eq!(json["files"].as_array().unwrap().len(), 5);
    assert!(shown.contains(json["digest"].as_str().unwrap()));
    let sound = stdout(&zoo(&project, "verify out/m.mar"));
    assert!(sound.starts_with("out/m.mar: sound; 5 files, digests match, content sha256:"), "{sound}");
}

#[test]
fn verify_tells_every_finding() {
    let project = project();
    let manifest =
        r#"{"runtime": "python", "model": {"handler": "h:f", "serializedFile": "w.pt", "configFile": "c"}}"#;
    let zip =
        common::raw::RawZip::new().file(b"MAR-INF/MANIFEST.json", manifest.as_bytes()).file(b"w.pt", b"w");
    project.write("m.mar", &zip.done());
    let (code, error) = outcome(&zoo(&project, "verify m.mar"));
    assert_eq!(code, 1);
    let expected = "ERROR - m.mar: MAR-INF/MANIFEST.json: no \"modelName\" in \"model\"\n\
                    ERROR - m.mar: MAR-INF/MANIFEST.json names the handler \"h.py\", which isn't there\n\
                    ERROR - m.mar: MAR-INF/MANIFEST.json names the configFile \"c\", which isn't there\n";
    assert_eq!(error, expected);
    project.write("none.mar", &common::raw::RawZip::new().file(b"x", b"x").done());
    let (code, error) = outcome(&zoo(&project, "verify none.mar"));
    assert_eq!((code, error.as_str()), (1, "ERROR - none.mar: there is no MAR-INF/MANIFEST.json\n"));
}

#[test]
fn names_in_an_archive_cannot_steer_the_terminal() {
    let project = project();
    let evil = "\u{1b}]0;owned\u{7}x";
    project.write("m.mar", &common::raw::RawZip::new().file(evil.as_bytes(), b"x").done());
    let shown = stdout(&zoo(&project, "inspect m.mar"));
    assert!(shown.contains("]0;ownedx") && !shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
    let sums = format!("{}  {evil}\n", Digest::of(b"y"));
    let zip =
        common::raw::RawZip::new().file(evil.as_bytes(), b"x").file(b"MAR-INF/SHA256SUMS", sums.as_bytes());
    project.write("m.mar", &zip.done());
    let (_, error) = outcome(&zoo(&project, "verify m.mar"));
    assert!(error.contains("owned") && !error.contains(['\u{1b}', '\u{7}']), "{error:?}");
}

#[test]
fn extract_gives_back_the_files() {
    let project = project();
    zoo(&project, &format!("{PACK} --archive-format tgz --extra-files b"));
    let (code, error) = outcome(&zoo(&project, "extract out/m.tar.gz unpacked"));
    assert_eq!((code, error.as_str()), (0, "INFO - Extracted 5 files to unpacked\n"));
    let tree = read_tree(&project.path("unpacked"));
    assert_eq!(tree["sub/y.txt"], b"y");
    assert_eq!(tree["handler.py"], fs::read(project.path("handler.py")).unwrap());
}

#[test]
fn every_template_packs_by_its_own_readme() {
    for template in ["python", "torchscript", "onnx"] {
        let project = Project::new();
        let (code, error) = outcome(&zoo(&project, &format!("init my-model --template {template}")));
        assert_eq!(
            (code, error.as_str()),
            (0, "INFO - Made my-model; its README.md says how to pack, serve and ask\n")
        );
        let folder = project.path("my-model");
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        for command in commands(&readme).iter().filter(|command| command.starts_with("zoo-archiver ")) {
            let args = command.split_whitespace().skip(1);
            let output = Command::new(BINARY).args(args).current_dir(&folder).output().unwrap();
            assert!(output.status.success(), "{template}: {command}: {output:?}");
        }
        assert!(folder.join("model-store/my-model.mar").is_file());
        let verified = zoo(&project, "verify my-model/model-store/my-model.mar");
        assert!(stdout(&verified).contains("sound"), "{template}");
        serde_json::from_slice::<serde_json::Value>(&fs::read(folder.join("request.json")).unwrap()).unwrap();
    }
}

#[test]
fn the_rust_template_names_its_sdk() {
    let project = Project::new();
    assert_eq!(outcome(&zoo(&project, "init linear --template rust")).0, 0);
    let sdk =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../handler-sdk/rust").canonicalize().unwrap();
    assert_eq!(outcome(&zoo(&project, &format!("init near --template rust --sdk {}", sdk.display()))).0, 0);
    let line = |name: &str| {
        let text = fs::read_to_string(project.path(name).join("Cargo.toml")).unwrap();
        text.lines().find(|line| line.starts_with("zoo-handler")).unwrap().to_owned()
    };
    assert_eq!(line("linear"), format!("zoo-handler = \"{}\"", env!("CARGO_PKG_VERSION")));
    assert_eq!(line("near"), format!("zoo-handler = {{ path = \"{}\" }}", sdk.display()));
    let main = fs::read_to_string(project.path("near").join("src/main.rs")).unwrap();
    assert!(main.starts_with("//! The handler of near: "), "{main}");
}

/// The indented lines of a README, continuations joined.
fn commands(readme: &str) -> Vec<String> {
    let indented = readme.lines().filter_map(|line| line.strip_prefix("    "));
    indented.collect::<Vec<_>>().join("\n").replace("\\\n", " ").lines().map(str::to_owned).collect()
}

#[test]
fn the_python_template_answers_its_request() {
    let project = Project::new();
    assert_eq!(outcome(&zoo(&project, "init mean")).0, 0);
    let script = "import sys; sys.path.insert(0, sys.argv[1])\n\
                  import handler\n\
                  h = handler.Handler()\n\
                  h.initialize(type('C', (), {'system_properties': {'model_dir': sys.argv[1]}})())\n\
                  body = bytearray(open(sys.argv[1] + '/request.json', 'rb').read())\n\
                  print(h.handle([{'body': body}, {'data': {'numbers': [4]}}], None))\n";
    let output =
        Command::new("python3").args(["-B", "-c", script]).arg(project.path("mean")).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "[{'mean': 3.0}, {'mean': 4.0}]\n");
}

#[test]
fn runtimes_without_a_handler_need_weights_only() {
    let project = project();
    for runtime in ["onnx", "torchscript"] {
        let args =
            format!("--model-name {runtime} --version 1 --runtime {runtime} --serialized-file model.onnx");
        assert_eq!(outcome(&zoo(&project, &args)).0, 0);
        let json = stdout(&zoo(&project, &format!("inspect {runtime}.mar --json")));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["manifest"]["runtime"], runtime);
        assert!(json["manifest"]["model"].get("handler").is_none());
        assert!(stdout(&zoo(&project, &format!("verify {runtime}.mar"))).contains("sound"));
    }
}

#[test]
fn a_given_manifest_is_written_as_it_stands() {
    let project = project();
    let text = "{\"runtime\":\"python\",   \"model\": {\"modelName\": \"other\"}}\n";
    project.write("mine.json", text.as_bytes());
    assert_eq!(
        outcome(&zoo(&project, &format!("{PACK} --archive-format no-archive --manifest mine.json"))).0,
        0
    );
    assert_eq!(fs::read(project.path("out/m/MAR-INF/MANIFEST.json")).unwrap(), text.as_bytes());
    project.write("mine.json", b"[]");
    let (code, error) = outcome(&zoo(&project, &format!("{PACK} -f --manifest mine.json")));
    assert_eq!(code, 1);
    assert!(error.starts_with("ERROR - mine.json must be a JSON object: "), "{error}");
}

#[test]
fn help_fits_the_name() {
    let project = project();
    let help = stdout(&zoo(&project, "--help"));
    assert!(
        help.contains("Examples:") && help.contains("--dry-run") && help.contains("zoo-archiver inspect")
    );
    let help = stdout(&run_as("torch-model-archiver", &project, "-h"));
    assert!(help.contains("Usage: torch-model-archiver") && !help.contains("--dry-run"), "{help}");
    assert_eq!(stdout(&zoo(&project, "-V")), concat!("zoo-archiver ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn an_interrupt_leaves_nothing() {
    let project = project();
    // Zeros that take no room, and more of them than anybody packs before the signal comes.
    fs::File::create(project.path("huge.bin")).unwrap().set_len(1 << 40).unwrap();
    let out = project.path("out");
    for format in ["default", "tgz", "no-archive"] {
        let mut command = Command::new(BINARY);
        command.args(PACK.split_whitespace()).args([
            "--serialized-file",
            "huge.bin",
            "--archive-format",
            format,
        ]);
        let mut child = command.current_dir(project.path("")).stderr(Stdio::piped()).spawn().unwrap();
        while fs::read_dir(&out).unwrap().count() == 0 {
            assert!(child.try_wait().unwrap().is_none(), "{format}: it has ended by itself");
            std::thread::yield_now();
        }
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let (code, error) = outcome(&child.wait_with_output().unwrap());
        assert_eq!((code, error.as_str()), (130, "ERROR - interrupted; nothing was written\n"), "{format}");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "{format}");
    }
}
