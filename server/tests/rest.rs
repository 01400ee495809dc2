//! The REST API of a whole server with real workers: statuses, texts and headers as clients see them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zoo_server::config::{self, Args};
use zoo_server::server::{Listeners, Server, Surroundings};
use zoo_server::worker::launch::Shim;

/// Does what the request's body says.
const PROBE: &str = r#"
import json

class Refusal(Exception):
    pass

def handle(data, context):
    if data is None:
        return None
    answers = []
    for index, row in enumerate(data):
        todo = row.get("body")
        if isinstance(todo, (bytes, bytearray)):
            todo = todo.decode()
        if todo == "headers":
            wanted = ("url_path", "explain", "X-Custom")
            answers.append({name: context.get_request_header(index, name) for name in wanted})
        elif todo == "parts":
            answers.append({name: value.decode() if isinstance(value, bytearray) else value for name, value in row.items()})
        elif todo == "teapot":
            context.set_response_status(418, "Short And Stout", index)
            context.set_response_header(index, "X-Pot", "tea")
            context.set_response_header(index, "Cache-Control", "max-age=9")
            context.set_response_content_type(index, "text/tea")
            answers.append("tea")
        elif todo == "raise":
            raise ValueError("broken")
        elif todo == "sleep":
            import time
            time.sleep(1)
        else:
            answers.append(str(todo))
    return answers

def describe_handle():
    return {"kind": "probe"}
"#;

struct Fixture {
    dir: TempDir,
    server: Server,
}

impl Fixture {
    /// A server with an empty model store, its settings changed.
    async fn new(change: impl FnOnce(&mut Args, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(path("store")).unwrap();
        let mut args =
            Args { model_store: Some(path("store")), cache_dir: Some(path("cache")), ..Args::default() };
        change(&mut args, &dir.path().join("store"));
        let config = config::resolve(args, |_| None).unwrap();
        let port = || TcpListener::bind("127.0.0.1:0");
        let listeners = Listeners {
            inference: port().await.unwrap(),
            management: Some(port().await.unwrap()),
            metrics: None,
        };
        let shim = Shim { program: env!("CARGO_BIN_EXE_zoo-server").into() };
        let surroundings = Surroundings { shim, ..Surroundings::of_this_process().unwrap() };
        let server = Server::start(config, surroundings, listeners).unwrap();
        Self { dir, server }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    async fn manage(&self, request: &str) -> Reply {
        call(self.server.management_address(), request, &[], b"").await
    }

    async fn infer(&self, request: &str, headers: &[&str], body: &str) -> Reply {
        call(self.server.inference_address(), request, headers, body.as_bytes()).await
    }
}

/// A folder with a model in it.
fn model(store: &Path, name: &str, version: &str) {
    let dir = store.join(format!("{name}-{version}"));
    std::fs::create_dir_all(dir.join("MAR-INF")).unwrap();
    let manifest = json!({
        "runtime": "python",
        "model": {"modelName": name, "modelVersion": version, "handler": "probe.py:handle"},
    });
    std::fs::write(dir.join("MAR-INF/MANIFEST.json"), manifest.to_string()).unwrap();
    std::fs::write(dir.join("probe.py"), PROBE).unwrap();
}

#[derive(Debug)]
struct Reply {
    status: String,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|pair| pair.1)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Status and the `status` text.
    fn text(&self) -> (&str, String) {
        (&self.status, self.json()["status"].as_str().unwrap().to_owned())
    }

    /// Status, `type` and `message`.
    fn failure(&self) -> (&str, String, String) {
        let told = self.json();
        let text = |key: &str| told[key].as_str().unwrap().to_owned();
        assert_eq!(told["code"].as_u64().unwrap().to_string(), self.status[..3]);
        (&self.status, text("type"), text("message"))
    }
}

/// One request, `METHOD TARGET`, on a connection of its own.
async fn call(address: SocketAddr, request: &str, headers: &[&str], body: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    if !headers.iter().any(|header| header.starts_with("transfer-encoding")) {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").expect("a response has a head");
    let status = head.lines().next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    Reply { status: status.into(), head: head.into(), body: body.into() }
}

const NO_WORKER: &str = "has no worker to serve inference request. Please use scale workers API to add workers. \
    If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_model() {
    let it = Fixture::new(|_, store| {
        model(store, "m", "1.0");
        model(store, "m", "2.0");
    })
    .await;
    assert_eq!(it.manage("GET /models").await.body, "{\n  \"models\": []\n}\n");

    let reply = it.manage("POST /models?url=m-1.0").await;
    let text = "Model \"m\" Version: 1.0 registered with 0 initial workers. \
                Use scale workers API to add workers for the model.";
    assert_eq!(reply.text(), ("200 OK", text.into()));
    let listed = json!({"models": [{"modelName": "m", "modelUrl": "m-1.0"}]});
    assert_eq!(it.manage("GET /models/").await.json(), listed);

    for (path, named) in [("m", "Model \"m\" "), ("m/1.0", "Model \"m\" Version 1.0\" ")] {
        let reply = it.infer(&format!("POST /predictions/{path}"), &[], "x").await;
        let expected =
            ("503 Service Unavailable", "ServiceUnavailableException".into(), format!("{named}{NO_WORKER}"));
        assert_eq!(reply.failure(), expected);
        assert_eq!(reply.header("retry-after"), Some("5"));
    }

    assert_eq!(
        it.manage("PUT /models/m").await.text(),
        ("202 Accepted", "Processing worker updates...".into())
    );
    let reply = it.manage("PUT /models/m/1.0/?min_worker=1&max_worker=2&synchronous=true").await;
    assert_eq!(reply.text(), ("200 OK", "Workers scaled to 1 for model: m, version: 1.0".into()));
    let reply = it.manage("PUT /models/m?synchronous=true").await;
    assert_eq!(reply.text(), ("200 OK", "Workers scaled to 1 for model: m".into()));

    let described = it.manage("GET /models/m").await.json();
    let (first, worker) = (&described[0], &described[0]["workers"][0]);
    assert_eq!(described.as_array().unwrap().len(), 1);
    assert_eq!(
        (&first["modelVersion"], &first["minWorkers"], &first["state"]),
        (&json!("1.0"), &json!(1), &json!("READY"))
    );
    assert_eq!(first["jobQueueStatus"], json!({"remainingCapacity": 100, "pendingRequests": 0}));
    assert_eq!((&worker["status"], &worker["gpu"]), (&json!("READY"), &json!(false)));
    assert!(worker["pid"].as_u64().unwrap() > 0);
    let customized = it.manage("GET /models/m?customized=true").await;
    assert_eq!(customized.status, "200 OK", "{customized:?}");

    assert_eq!(it.infer("POST /predictions/m/1.0/", &[], "hello").await.body, "hello");
    let ready = json!({"name": "m", "ready": true});
    assert_eq!(it.manage("GET /v1/models/m").await.json(), ready);

    let reply = it.manage("POST /models?url=m-2.0&initial_workers=1").await;
    assert_eq!(reply.text(), ("200 OK", "Model \"m\" Version: 2.0 registered with 1 initial workers".into()));
    assert_eq!(it.manage("GET /models/m/all").await.json().as_array().unwrap().len(), 2);
    let reply = it.manage("DELETE /models/m").await;
    let text = "Cannot remove default version for model m".into();
    assert_eq!(reply.failure(), ("403 Forbidden", "InvalidModelVersionException".into(), text));
    let reply = it.manage("PUT /models/m/2.0/set-default").await;
    assert_eq!(reply.text().1, "Default version successfully updated for model \"m\" to \"2.0\"");
    for version in ["/1.0", ""] {
        let reply = it.manage(&format!("DELETE /models/m{version}")).await;
        assert_eq!(reply.text(), ("200 OK", "Model \"m\" unregistered".into()));
    }
    assert_eq!(it.manage("GET /models").await.json(), json!({"models": []}));
    it.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_gets_and_what_a_client_gets() {
    let it = Fixture::new(|args, store| {
        model(store, "m", "1.0");
        args.max_request_size = Some("2000".into());
    })
    .await;
    let reply = it.manage("POST /models?url=m-1.0&initial_workers=1").await;
    assert_eq!(reply.status, "200 OK", "{reply:?}");

    let seen = it.infer("GET /predictions/m/1.0/a%20b/c/", &["X-cUstom: yes"], "headers").await;
    assert_eq!(seen.json(), json!({"url_path": "a b/c", "explain": "False", "X-Custom": "yes"}));
    let seen = it.infer("PUT /explanations/m", &[], "headers").await;
    assert_eq!(seen.json()["explain"], "True");
    assert_eq!(seen.body, serde_json::to_string_pretty(&seen.json()).unwrap());

    let form = "--x\r\ncontent-disposition: form-data; name=\"body\"\r\n\r\nparts\r\n--x\r\ncontent-disposition: \
                form-data; name=\"data\"; filename=\"f\"\r\ncontent-type: application/json\r\n\r\n[1]\r\n--x--\r\n";
    let multipart = "content-type: multipart/form-data; boundary=x";
    let seen = it.infer("POST /predictions/m", &[multipart], form).await;
    assert_eq!(seen.json(), json!({"body": "parts", "data": [1]}));
    let urlencoded = "content-type: application/x-www-form-urlencoded";
    let seen = it.infer("POST /predictions/m", &[urlencoded], "body=parts&a=b+c").await;
    assert_eq!(seen.json(), json!({"body": "parts", "a": "b c"}));

    let plain = it.infer("POST /predictions/m", &["x-request-id: mine.1"], "x").await;
    assert_eq!((plain.status.as_str(), plain.header("x-request-id")), ("200 OK", Some("mine.1")));
    assert_eq!((plain.header("content-type"), plain.header("content-length")), (None, Some("1")));
    assert_eq!(plain.header("pragma"), Some("no-cache"));
    assert_eq!(plain.header("cache-control"), Some("no-cache; no-store, must-revalidate, private"));
    assert_eq!(plain.header("expires"), Some("Thu, 01 Jan 1970 00:00:00 UTC"));

    let tea = it.infer("POST /predictions/m", &[], "teapot").await;
    assert_eq!((tea.status.as_str(), tea.body.as_str()), ("418 Short And Stout", "tea"));
    assert_eq!((tea.header("x-pot"), tea.header("content-type")), (Some("tea"), Some("text/tea")));
    assert_eq!(tea.header("cache-control"), Some("max-age=9"));

    let raised = it.infer("POST /predictions/m", &[], "raise").await;
    let expected = ("503 Service Unavailable", "InternalServerException".into(), "Prediction failed".into());
    assert_eq!(raised.failure(), expected);

    let large = it.infer("POST /predictions/m", &[], &"x".repeat(1_000_000)).await;
    assert_eq!((large.status.as_str(), large.body.as_str()), ("413 Payload Too Large", ""));
    let chunked = format!("f4240\r\n{}\r\n0\r\n\r\n", "x".repeat(1_000_000));
    let headers = ["transfer-encoding: chunked"];
    let large = it.infer("POST /predictions/m", &headers, &chunked).await;
    assert_eq!((large.status.as_str(), large.body.as_str()), ("413 Payload Too Large", ""));
    let cut = it.infer("POST /predictions/m", &[multipart], &form[..form.len() - 9]).await;
    assert_eq!(cut.failure().0, "400 Bad Request");

    let late = it.infer("POST /predictions/m", &["x-request-timeout-ms: 50"], "sleep").await;
    let text = "The request's deadline passed before the model answered.".into();
    assert_eq!(late.failure(), ("504 Gateway Timeout", "RequestTimeoutException".into(), text));
    assert_eq!(it.infer("POST /predictions/m", &[], "still here").await.body, "still here");
    it.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_answers_what_waits_for_a_worker_that_never_came() {
    let it = Fixture::new(|_, store| {
        let folder = store.join("broken");
        std::fs::create_dir_all(folder.join("MAR-INF")).unwrap();
        let manifest = r#"{"runtime": "python", "model": {"modelName": "broken", "handler": "broken.py"}}"#;
        std::fs::write(folder.join("MAR-INF/MANIFEST.json"), manifest).unwrap();
        std::fs::write(
            folder.join("broken.py"),
            "def handle(data, context):\n    raise OSError('no weights')\n",
        )
        .unwrap();
    })
    .await;
    let registered = it.manage("POST /models?url=broken&initial_workers=1&synchronous=false").await;
    assert_eq!(registered.status, "202 Accepted", "{}", registered.body);
    let address = it.server.inference_address();
    let waiting = tokio::spawn(async move { call(address, "POST /predictions/broken", &[], b"x").await });
    let queued = async {
        while !it.manage("GET /models/broken").await.body.contains("\"pendingRequests\": 1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), queued).await.expect("the request is queued");
    tokio::time::timeout(Duration::from_secs(20), it.server.stop()).await.expect("nobody is waited for");
    let reply = waiting.await.unwrap();
    assert_eq!(reply.status, "503 Service Unavailable");
    assert!(reply.body.contains("The server is shutting down."), "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_manage_nothing() {
    let it = Fixture::new(|_, store| model(store, "m", "1.0")).await;
    let from = |origin: &'static str| async {
        let management = it.server.management_address();
        call(management, "POST /models?url=m-1.0", &[origin], b"").await
    };
    let refused = from("origin: https://evil.example").await;
    assert_eq!(refused.status, "403 Forbidden");
    assert!(
        refused.body.contains("Pages of https://evil.example may not manage models here."),
        "{}",
        refused.body
    );
    assert_eq!(it.manage("GET /models/m").await.status, "404 Not Found", "nothing was registered");
    assert_eq!(it.infer("GET /ping", &["origin: https://evil.example"], "").await.status, "200 OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_wrong() {
    let it = Fixture::new(|_, store| model(store, "m", "1.0")).await;
    assert_eq!(it.manage("POST /models?url=m-1.0").await.status, "200 OK");
    let found = "ResourceNotFoundException: Requested resource is not found, please refer to API document.";
    let method = "MethodNotAllowedException: Requested method is not allowed, please refer to API document.";
    for (request, status, told) in [
        ("GET /", "405 Method Not Allowed", method),
        ("PUT /models", "405 Method Not Allowed", method),
        ("POST /models/m", "405 Method Not Allowed", method),
        ("GET /nothing", "404 Not Found", found),
        ("GET /wfpredict/w", "404 Not Found", found),
        ("GET /workflows/w", "404 Not Found", found),
        ("POST /workflows", "400 Bad Request", "BadRequestException: Registering new workflows is disabled."),
        ("POST /models", "400 Bad Request", "BadRequestException: Parameter url is required."),
        ("POST /models?url=", "404 Not Found", "ModelNotFoundException: empty url"),
        (
            "POST /models?url=../m.mar",
            "404 Not Found",
            "ModelNotFoundException: Relative path is not allowed in url: ../m.mar",
        ),
        ("POST /models?url=x.mar", "404 Not Found", "ModelNotFoundException: Model not found at: x.mar"),
        (
            "POST /models?url=http://169.254.169.254/m.mar",
            "404 Not Found",
            "ModelNotFoundException: Given URL http://169.254.169.254/m.mar does not match any allowed URL(s)",
        ),
        (
            "POST /models?url=http://127.0.0.1:1/m-1.0",
            "500 Internal Server Error",
            "InternalServerException: Model file already exists m-1.0",
        ),
        (
            "POST /models?url=http://127.0.0.1:1/n.mar",
            "400 Bad Request",
            "DownloadArchiveException: Failed to download archive from: http://127.0.0.1:1/n.mar",
        ),
        (
            "POST /models?url=m-1.0&runtime=java",
            "400 Bad Request",
            "BadRequestException: Invalid RuntimeType value: java",
        ),
        (
            "POST /models?url=m-1.0",
            "409 Conflict",
            "ConflictStatusException: Model version 1.0 is already registered for model m",
        ),
        ("GET /models/x", "404 Not Found", "ModelNotFoundException: Model not found: x"),
        (
            "GET /models/m/2",
            "404 Not Found",
            "ModelVersionNotFoundException: Model version: 2 does not exist for model: m",
        ),
        (
            "PUT /models/m/2/set-default",
            "404 Not Found",
            "ModelVersionNotFoundException: Model version 2 does not exist for model m",
        ),
        (
            "PUT /models/m?model_version=2",
            "404 Not Found",
            "ModelVersionNotFoundException: Model version: 2 does not exist for model: m",
        ),
        (
            "PUT /models/m?min_worker=2&max_worker=1",
            "400 Bad Request",
            "BadRequestException: max_worker cannot be less than min_worker.",
        ),
        (
            "PUT /models/m?min_worker=-1",
            "500 Internal Server Error",
            "InternalServerException: min_worker must be 0 or more, not -1.",
        ),
        (
            "GET /models/m?customized=true",
            "503 Service Unavailable",
            "ServiceUnavailableException: Model \"m\" has no worker to serve describe request. \
             Please use scale workers API to add workers.",
        ),
        ("DELETE /models/x", "404 Not Found", "ModelNotFoundException: Model not found: x"),
    ] {
        let reply = it.manage(request).await;
        let (got, kind, message) = reply.failure();
        assert_eq!((got, format!("{kind}: {message}")), (status, told.to_owned()), "{request}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(reply.header("x-request-id").is_some());
    }
    for request in ["GET /models", "GET /predictions", "GET /predictions/"] {
        assert_eq!(it.infer(request, &[], "").await.failure().0, "404 Not Found", "{request}");
    }
    assert_eq!(it.infer("OPTIONS /predictions/m", &[], "").await.failure().0, "405 Method Not Allowed");
    let missing = it.infer("POST /predictions/x", &[], "body").await;
    assert_eq!(missing.failure().2, "Model not found: x");
    let bad = it.infer("POST /predictions/m", &["x-request-timeout-ms: soon"], "").await;
    assert_eq!(bad.failure().0, "400 Bad Request");
    it.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_named_at_start_is_waited_for_by_those_who_ask() {
    let it = Fixture::new(|args, store| {
        model(store, "m", "1.0");
        args.models = vec!["m-1.0".into(), "absent".into()];
        args.disable_model_api = true;
    })
    .await;
    it.server.load_models().await;
    assert_eq!(it.infer("GET /health/live", &[], "").await.text(), ("200 OK", "Live".into()));
    let ready = it.infer("GET /health/ready/", &[], "").await;
    assert_eq!(
        (ready.status.as_str(), &ready.json()["status"]),
        ("503 Service Unavailable", &json!("Not ready"))
    );
    assert!(ready.body.contains("absent"), "{ready:?}");
    assert_eq!(it.infer("GET /ping", &[], "").await.text(), ("200 OK", "Healthy".into()));
    assert_eq!(it.manage("PUT /models/m?min_worker=1&synchronous=true").await.status, "200 OK");
    assert_eq!(it.manage("GET /models/m").await.json()[0]["loadedAtStartup"], true);
    for request in ["POST /models?url=m-1.0", "DELETE /models/m"] {
        assert_eq!(it.manage(request).await.failure().0, "405 Method Not Allowed");
    }
    it.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_listener_serves_both_apis() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = Some(dir.path().join("cache").to_str().unwrap().to_owned());
    let config = config::resolve(Args { cache_dir, ..Args::default() }, |_| None).unwrap();
    let inference = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let surroundings = Surroundings::of_this_process().unwrap();
    let server =
        Server::start(config, surroundings, Listeners { inference, management: None, metrics: None })
            .unwrap();
    let address = server.management_address();
    assert_eq!(address, server.inference_address());
    assert_eq!(call(address, "GET /models", &[], b"").await.json(), json!({"models": []}));
    assert_eq!(call(address, "GET /ping", &[], b"").await.text().1, "Healthy");
    assert_eq!(call(address, "GET /workflows", &[], b"").await.json(), json!({"workflows": []}));
    server.stop().await;
}

/// Serves these bytes once; the port.
async fn site(bytes: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_fetched_from_a_url_and_its_file_goes_with_it() {
    let manifest = json!({"runtime": "python", "model": {"modelName": "far", "handler": "handler.py"}});
    let mut mar = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, text) in [("MAR-INF/MANIFEST.json", manifest.to_string().as_str()), ("handler.py", PROBE)] {
        mar.start_file(name, stored).unwrap();
        std::io::Write::write_all(&mut mar, text.as_bytes()).unwrap();
    }
    let port = site(mar.finish().unwrap().into_inner()).await;
    let it = Fixture::new(|_, _| ()).await;
    let url = format!("http://127.0.0.1:{port}/sub/far.mar");
    let reply = it.manage(&format!("POST /models?url={url}&initial_workers=1")).await;
    let told = "Model \"far\" Version: 1.0 registered with 1 initial workers";
    assert_eq!(reply.text(), ("200 OK", told.into()));
    assert_eq!(it.manage("GET /models/far").await.json()[0]["modelUrl"], url);
    assert!(it.store().join("far.mar").is_file());
    assert_eq!(it.infer("POST /predictions/far", &[], "teapot").await.status, "418 Short And Stout");
    assert_eq!(it.manage("DELETE /models/far").await.status, "200 OK");
    assert_eq!(std::fs::read_dir(it.store()).unwrap().count(), 0);
}
