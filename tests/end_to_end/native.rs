//! A handler in Rust, from `init` to the answer: the project of the template, by the commands of its own README.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use zoo_e2e::harness::{Home, Zoo, program};

/// The indented lines of a README, continuations joined.
fn commands(readme: &str) -> Vec<String> {
    let indented = readme.lines().filter_map(|line| line.strip_prefix("    "));
    indented.collect::<Vec<_>>().join("\n").replace("\\\n", " ").lines().map(str::to_owned).collect()
}

#[test]
fn the_rust_template_builds_packs_registers_and_predicts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let home = Home::new();
    let mut init = Command::new(program("zoo-archiver"));
    init.args(["init", "linear", "--template", "rust", "--sdk"]).arg(root.join("handler-sdk/rust"));
    let made = init.current_dir(home.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let project = home.path().join("linear");
    // What the workspace was built with is there already: no network, and no second build the next time.
    fs::copy(root.join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rust-template");
    fs::create_dir_all(&target).unwrap();
    symlink(target, project.join("target")).unwrap();

    let readme = fs::read_to_string(project.join("README.md")).unwrap();
    for command in commands(&readme).iter().filter(|command| !command.starts_with("curl ")) {
        let mut words = command.split_whitespace();
        let name = match words.next() {
            Some("cargo") => env!("CARGO").into(),
            Some("zoo-archiver") => program("zoo-archiver"),
            _ => continue,
        };
        let mut run = Command::new(name);
        run.args(words).current_dir(&project).env("CARGO_NET_OFFLINE", "true").env_remove("CARGO_TARGET_DIR");
        let output = run.output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
    fs::rename(project.join("model-store/linear.mar"), home.path().join("store/linear.mar")).unwrap();

    let zoo = Zoo::at(home, &[]);
    let registered = zoo.manage("POST /models?url=linear.mar&initial_workers=1&synchronous=true");
    assert_eq!(registered.status, 200, "{registered:?}");
    let question = fs::read(project.join("request.json")).unwrap();
    let json = ["content-type: application/json"];
    let reply = zoo.infer("POST /predictions/linear", &json, &question);
    assert_eq!((reply.status, reply.json()), (200, json!({"y": 19.0})));
    let refused = zoo.infer("POST /predictions/linear", &json, b"{\"x\": [1]}");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("x has 1 numbers, the model takes 2"), "{refused:?}");
}

#[test]
fn a_native_archive_without_a_program_is_refused() {
    let home = Home::new();
    let model = home.path().join("store/folder");
    fs::create_dir_all(model.join("MAR-INF")).unwrap();
    fs::write(model.join("run"), "no program").unwrap();
    let manifest =
        json!({"runtime": "native", "model": {"modelName": "m", "modelVersion": "1.0", "handler": "run"}});
    fs::write(model.join("MAR-INF/MANIFEST.json"), manifest.to_string()).unwrap();
    let zoo = Zoo::at(home, &[]);
    let message = "Handler run of runtime native is not executable: set its exec bit, then pack it again.";
    zoo.manage("POST /models?url=folder").fails(400, "InvalidModelException", message);
}
