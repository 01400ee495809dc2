//! The life of a model, from an empty store to an empty store.

use serde_json::json;
use zoo_e2e::harness::{Home, Zoo};

/// Visits points in the order of their expected time, beginning at `start`.
const GREEDY_TIME: &str = r#"
import json


def visit(data, context):
    if data is None:
        return None
    return [order(row.get("data") or row.get("body")) for row in data]


def order(request):
    if isinstance(request, (bytes, bytearray)):
        request = json.loads(request)
    expected = [sum(times) / len(times) for times in request["feature"]]
    start = request["start"]
    others = sorted((point for point in range(len(expected)) if point != start), key=expected.__getitem__)
    return [start] + others
"#;

const REQUEST: &[u8] = br#"{"feature": [[463.1, 512.0], [380.5, 410.2]], "start": 1}"#;
const JSON: &[&str] = &["content-type: application/json"];

const NO_WORKER: &str = "has no worker to serve inference request. Please use scale workers API to add workers. \
                         If this is a sequence inference, please check if it is closed, or expired; \
                         or exceeds maxSequenceJobQueueSize";

#[test]
fn greedy_time() {
    let zoo = Zoo::start();
    for version in ["1.0", "2.0"] {
        zoo.pack("greedy_time", version, "greedy_time.py:visit", GREEDY_TIME);
        std::fs::rename(
            zoo.store().join("greedy_time.mar"),
            zoo.store().join(format!("greedy_time_{version}.mar")),
        )
        .unwrap();
    }
    assert_eq!(zoo.infer("GET /ping", &[], b"").text(), "{\n  \"status\": \"Healthy\"\n}\n");
    assert_eq!(zoo.manage("GET /models").json(), json!({"models": []}));

    zoo.manage("POST /models?url=greedy_time_1.0.mar").says(
        200,
        "Model \"greedy_time\" Version: 1.0 registered with 0 initial workers. \
         Use scale workers API to add workers for the model.",
    );
    let listed = json!({"models": [{"modelName": "greedy_time", "modelUrl": "greedy_time_1.0.mar"}]});
    assert_eq!(zoo.manage("GET /models").json(), listed);
    let described = zoo.manage("GET /models/greedy_time").json();
    assert_eq!(described[0]["workers"], json!([]));

    let refused = zoo.infer("POST /predictions/greedy_time", JSON, REQUEST);
    refused.fails(503, "ServiceUnavailableException", &format!("Model \"greedy_time\" {NO_WORKER}"));
    assert!(refused.header("retry-after").is_some());
    let refused = zoo.infer("POST /predictions/greedy_time/1.0", JSON, REQUEST);
    let text = format!("Model \"greedy_time\" Version 1.0\" {NO_WORKER}");
    refused.fails(503, "ServiceUnavailableException", &text);

    let scaled = zoo.manage("PUT /models/greedy_time?min_worker=1&max_worker=2");
    scaled.says(202, "Processing worker updates...");
    let ready = || zoo.manage("GET /models/greedy_time").json()[0]["workers"][0]["status"] == "READY";
    zoo_e2e::wait_until("a ready worker", ready);
    describe_shows_the_worker(&zoo);

    let answer = zoo.infer("POST /predictions/greedy_time/1.0", JSON, REQUEST);
    assert_eq!((answer.status, answer.json()), (200, json!([1, 0])));
    second_version(&zoo);
    unregister(&zoo);
}

fn describe_shows_the_worker(zoo: &Zoo) {
    let described = zoo.manage("GET /models/greedy_time/1.0").json();
    assert_eq!(described.as_array().unwrap().len(), 1);
    let model = &described[0];
    for (field, value) in [
        ("modelName", json!("greedy_time")),
        ("modelVersion", json!("1.0")),
        ("modelUrl", json!("greedy_time_1.0.mar")),
        ("runtime", json!("python")),
        ("minWorkers", json!(1)),
        ("maxWorkers", json!(2)),
        ("batchSize", json!(1)),
        ("maxBatchDelay", json!(100)),
        ("responseTimeout", json!(120)),
        ("loadedAtStartup", json!(false)),
        ("jobQueueStatus", json!({"remainingCapacity": 100, "pendingRequests": 0})),
    ] {
        assert_eq!(model[field], value, "{field}");
    }
    assert_eq!(model["workers"].as_array().unwrap().len(), 1);
    let worker = &model["workers"][0];
    assert_eq!((&worker["id"], &worker["state"]), (&json!("9000"), &json!("READY")));
    assert!(zoo_e2e::runs(worker["pid"].as_u64().unwrap() as u32));
}

fn second_version(zoo: &Zoo) {
    let registered = zoo.manage("POST /models?url=greedy_time_2.0.mar&initial_workers=1&synchronous=true");
    registered.says(200, "Model \"greedy_time\" Version: 2.0 registered with 1 initial workers");
    let again = zoo.manage("POST /models?url=greedy_time_2.0.mar");
    let text = "Model version 2.0 is already registered for model greedy_time";
    again.fails(409, "ConflictStatusException", text);
    let answer = zoo.infer("POST /predictions/greedy_time/2.0", JSON, REQUEST);
    assert_eq!((answer.status, answer.json()), (200, json!([1, 0])));

    let version = || zoo.manage("GET /models/greedy_time").json()[0]["modelVersion"].clone();
    assert_eq!(version(), "1.0", "the first version stays the default");
    let default = zoo.manage("PUT /models/greedy_time/2.0/set-default");
    default.says(200, "Default version successfully updated for model \"greedy_time\" to \"2.0\"");
    assert_eq!(version(), "2.0");
    let unknown = zoo.manage("PUT /models/greedy_time/3.0/set-default");
    let text = "Model version 3.0 does not exist for model greedy_time";
    unknown.fails(404, "ModelVersionNotFoundException", text);
    assert_eq!(zoo.manage("GET /models/greedy_time/all").json().as_array().unwrap().len(), 2);
}

fn unregister(zoo: &Zoo) {
    let pids = zoo.workers("greedy_time/1.0");
    let refused = zoo.manage("DELETE /models/greedy_time");
    refused.fails(403, "InvalidModelVersionException", "Cannot remove default version for model greedy_time");
    zoo.manage("DELETE /models/greedy_time/1.0").says(200, "Model \"greedy_time\" unregistered");
    assert!(!pids.into_iter().any(zoo_e2e::runs), "its worker is gone before the answer");
    let gone = zoo.infer("POST /predictions/greedy_time/1.0", JSON, REQUEST);
    let text = "Model version: 1.0 does not exist for model: greedy_time";
    gone.fails(404, "ModelVersionNotFoundException", text);
    zoo.manage("DELETE /models/greedy_time").says(200, "Model \"greedy_time\" unregistered");
    let gone = zoo.infer("POST /predictions/greedy_time", JSON, REQUEST);
    gone.fails(404, "ModelNotFoundException", "Model not found: greedy_time");
    assert_eq!(zoo.manage("GET /models").json(), json!({"models": []}));
}

#[test]
fn a_model_named_at_start_is_ready_when_the_health_says_so() {
    let home = Home::new();
    home.pack("m", "1.0", "handler.py", "def handle(data, context):\n    return ['x'] * len(data or [])\n");
    let zoo = Zoo::at(home, &["--models", "named=m.mar"]);
    zoo_e2e::wait_until("ready", || zoo.infer("GET /health/ready", &[], b"").status == 200);
    assert_eq!(zoo.infer("POST /predictions/named", &[], b"").text(), "x");
    assert_eq!(zoo.infer("GET /health/live", &[], b"").status, 200);
    assert_eq!(zoo.manage("GET /models/named").json()[0]["loadedAtStartup"], true);
}
