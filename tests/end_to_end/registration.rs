//! Registrations that fail leave nothing: no model, no worker, no files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use zoo_e2e::harness::Zoo;

const FINE: &str = "def handle(data, context):\n    return ['fine'] * len(data or [])\n";
const BROKEN: &str = "class Model:\n    def initialize(self, context):\n        raise RuntimeError('no weights here')\n\n\
                      \x20   def handle(self, data, context):\n        return data\n";

/// Folders and files, without those of the SDK, which is unpacked once and stays.
fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() && path.file_name().unwrap() != "sdk" {
            found.extend(tree(&path));
        }
        found.insert(path);
    }
    found
}

#[test]
fn failures_leave_nothing() {
    let zoo = Zoo::start();
    // One that succeeds and goes, so that the folders which stay are there.
    zoo.serve("first", FINE, "");
    assert_eq!(zoo.manage("DELETE /models/first").status, 200);
    zoo.pack("broken", "1.0", "handler.py", BROKEN);
    fs::write(zoo.store().join("noise.mar"), "this is no archive").unwrap();
    fs::write(zoo.store().join("empty.mar"), "").unwrap();
    let half = fs::read(zoo.store().join("broken.mar")).unwrap();
    fs::write(zoo.store().join("half.mar"), &half[..half.len() / 2]).unwrap();
    fs::create_dir(zoo.store().join("folder")).unwrap();
    let before = tree(zoo.home());

    let not_found = |text: &str| (404, "ModelNotFoundException", text.to_owned());
    for (url, (status, kind, text)) in [
        ("nothing.mar", not_found("Model not found at: nothing.mar")),
        ("../nothing.mar", not_found("Relative path is not allowed in url: ../nothing.mar")),
        ("", not_found("empty url")),
        (
            "broken.mar&initial_workers=1",
            (500, "InternalServerException", "Failed to start workers for model broken version: 1.0".into()),
        ),
        ("broken.mar&runtime=java", (400, "BadRequestException", "Invalid RuntimeType value: java".into())),
    ] {
        zoo.manage(&format!("POST /models?url={url}")).fails(status, kind, &text);
    }
    zoo.manage("POST /models").fails(400, "BadRequestException", "Parameter url is required.");
    for url in ["noise.mar", "empty.mar", "half.mar", "folder"] {
        let reply = zoo.manage(&format!("POST /models?url={url}"));
        assert_eq!(reply.status, 400, "{url}: {reply:?}");
        let told = reply.json();
        assert_eq!(told["type"], "InvalidModelException", "{url}: {reply:?}");
    }
    assert_eq!(zoo.manage("GET /models").json(), json!({"models": []}));
    let models = || tree(zoo.home()).symmetric_difference(&before).cloned().collect::<Vec<_>>();
    zoo_e2e::wait_until("nothing is left", || models().iter().all(|path| !is_model(path)));
    // And the name is free.
    zoo.pack("broken", "1.0", "handler.py", FINE);
    let reply = zoo.manage("POST /models?url=broken.mar&initial_workers=1");
    reply.says(200, "Model \"broken\" Version: 1.0 registered with 1 initial workers");
    assert_eq!(zoo.infer("POST /predictions/broken", &[], b"").text(), "fine");
}

/// Unpacked archives may be kept for the next time; private folders of models may not.
fn is_model(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "models")
}

#[test]
fn the_reason_of_a_failed_start_is_shown() {
    let zoo = Zoo::start();
    zoo.pack("broken", "1.0", "handler.py", BROKEN);
    assert_eq!(zoo.manage("POST /models?url=broken.mar").status, 200);
    let scaled = zoo.manage("PUT /models/broken?min_worker=1&synchronous=true");
    scaled.fails(500, "InternalServerException", "Failed to start workers for model broken version: null");
    let described = zoo.manage("GET /models/broken").json();
    let worker = &described[0]["workers"][0];
    assert_eq!(worker["status"], "UNLOADING");
    let reason = worker["lastFailure"].as_str().unwrap();
    assert!(reason.contains("no weights here") && reason.contains("Traceback"), "{reason}");
    zoo.until_logged("no weights here", 1);
}
