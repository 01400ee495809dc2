//! Requests and their answers through a real handler.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use zoo_e2e::harness::Zoo;
use zoo_e2e::http::Client;

/// Does what a text body says; says what it got of anything else.
const CLERK: &str = r#"
import os
import time


class Refusal(Exception):
    pass


def handle(data, context):
    if data is None:
        return None
    return [answer(row, index, context) for index, row in enumerate(data)]


def answer(row, index, context):
    body = row.get("body")
    if not isinstance(body, str):
        return {name: describe(value) for name, value in row.items()}
    word, _, rest = body.partition(" ")
    if word == "hold":
        with open(rest + ".begun", "a") as begun:
            begun.write("x")
        while not os.path.exists(rest):
            time.sleep(0.002)
    elif word == "die":
        os._exit(3)
    elif word == "refuse":
        from ts.utils.util import PredictionException

        raise PredictionException("not today", 429)
    elif word == "raise":
        raise RuntimeError("a secret of the handler")
    elif word == "stream":
        return (str(number) for number in range(int(rest)))
    return body


def describe(value):
    if isinstance(value, bytearray):
        return ["bytearray", len(value), value[:40].decode("latin-1")]
    return [type(value).__name__, value]
"#;

const TEXT: &[&str] = &["content-type: text/plain"];

fn clerk(parameters: &str) -> Zoo {
    let zoo = Zoo::start();
    zoo.serve("clerk", CLERK, parameters);
    zoo
}

fn ask(zoo: &Zoo, text: &str) -> zoo_e2e::http::Reply {
    zoo.infer("POST /predictions/clerk", TEXT, text.as_bytes())
}

#[test]
fn bodies_of_each_kind() {
    let zoo = clerk("");
    let call = |headers: &[&str], body: &[u8]| zoo.infer("POST /predictions/clerk", headers, body).json();
    assert_eq!(call(&[], b"raw"), json!({"body": ["bytearray", 3, "raw"]}));
    let object = json!({"body": ["dict", {"a": [1, null]}]});
    assert_eq!(call(&["content-type: application/json; charset=utf-8"], br#"{"a": [1, null]}"#), object);
    let broken = json!({"body": ["bytearray", 4, "{\"a\""]});
    assert_eq!(call(&["content-type: application/json"], b"{\"a\""), broken);
    let form = json!({"a": ["bytearray", 3, "1 2"], "b": ["bytearray", 1, "&"]});
    assert_eq!(call(&["content-type: application/x-www-form-urlencoded"], b"a=1+2&b=%26"), form);
    let parts = "--xx\r\ncontent-disposition: form-data; name=\"word\"\r\n\r\nhello\r\n\
                 --xx\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\ncontent-type: application/json\r\n\r\n[7]\r\n\
                 --xx--\r\n";
    let expected = json!({"word": ["bytearray", 5, "hello"], "file": ["list", [7]]});
    assert_eq!(call(&["content-type: multipart/form-data; boundary=xx"], parts.as_bytes()), expected);
    // Larger than a frame of the worker protocol.
    let large = vec![b'z'; 5_000_000];
    assert_eq!(call(&[], &large), json!({"body": ["bytearray", 5_000_000, "z".repeat(40)]}));
    assert_eq!(zoo.infer("POST /predictions/clerk", TEXT, &large).body, large);
    assert_eq!(call(&[], b""), json!({"body": ["bytearray", 0, ""]}));
}

#[test]
fn failures_of_a_handler() {
    let zoo = clerk("");
    ask(&zoo, "refuse").fails(429, "InternalServerException", "not today");
    ask(&zoo, "raise").fails(503, "InternalServerException", "Prediction failed");
    zoo.until_logged("a secret of the handler", 1);
    let pid = zoo.workers("clerk")[0];
    ask(&zoo, "die").fails(500, "InternalServerException", "Worker died.");
    assert_eq!(ask(&zoo, "again").text(), "again");
    assert!(!zoo_e2e::runs(pid));
    assert_eq!(zoo.infer("GET /ping", &[], b"").status, 200);
    // Twice, because one death is forgiven.
    zoo.until_logged("Worker disconnected.", 2);
}

#[test]
fn connections_are_kept() {
    let zoo = clerk("");
    let mut client = zoo.client();
    for text in ["one", "two", "three"] {
        let reply = client.call("POST /predictions/clerk", TEXT, text.as_bytes()).unwrap();
        assert_eq!((reply.status, reply.text()), (200, text));
        assert_ne!(reply.header("connection"), Some("close"));
    }
    // Two before the first answer.
    client.send("POST /predictions/clerk", TEXT, b"four").unwrap();
    client.send("POST /predictions/clerk", TEXT, b"five").unwrap();
    assert_eq!(client.receive().unwrap().text(), "four");
    assert_eq!(client.receive().unwrap().text(), "five");
    let reply = client.call("GET /ping", &["connection: close"], b"").unwrap();
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(client.is_closed());
    // A failure is no reason to make a client connect again, unless its request wasn't read to its end.
    let mut client = zoo.client();
    let reply = client.call("GET /predictions/nobody", &[], b"").unwrap();
    assert_eq!((reply.status, reply.header("connection")), (404, None));
    assert_eq!(client.call("GET /ping", &[], b"").unwrap().status, 200);
    let long =
        ["POST /predictions/clerk HTTP/1.1", "host: x", "content-length: 99999999999", "", ""].join("\r\n");
    let mut stream = TcpStream::connect(zoo.inference()).unwrap();
    stream.write_all(long.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[test]
fn a_stream_arrives_in_chunks() {
    let zoo = clerk("");
    let reply = ask(&zoo, "stream 30");
    assert_eq!((reply.status, reply.header("transfer-encoding")), (200, Some("chunked")));
    assert_eq!(reply.text(), (0..30).map(|number| number.to_string()).collect::<String>());
}

#[test]
fn nobody_works_for_a_client_who_left() {
    let zoo = clerk("");
    let gate = zoo.home().join("gate");
    let hold = format!("hold {}", gate.display());
    let mut first = zoo.client();
    first.send("POST /predictions/clerk", TEXT, hold.as_bytes()).unwrap();
    let begun = || fs::read_to_string(zoo.home().join("gate.begun")).unwrap_or_default().len();
    zoo_e2e::wait_until("the worker is busy", || begun() == 1);

    let pending =
        || zoo.manage("GET /models/clerk").json()[0]["jobQueueStatus"]["pendingRequests"].as_u64().unwrap();
    let mut leaving: Vec<_> = (0..3).map(|_| zoo.client()).collect();
    for client in &mut leaving {
        client.send("POST /predictions/clerk", TEXT, hold.as_bytes()).unwrap();
    }
    zoo_e2e::wait_until("they wait", || pending() == 3);
    drop(leaving);
    let mut last = zoo.client();
    last.send("POST /predictions/clerk", TEXT, b"last").unwrap();
    // A connection that closes is noticed some time later; the answer to this one shows that the server was there since.
    for _ in 0..20 {
        assert_eq!(zoo.infer("GET /ping", &[], b"").status, 200);
    }
    fs::write(&gate, "").unwrap();
    assert_eq!(first.receive().unwrap().status, 200);
    assert_eq!(last.receive().unwrap().text(), "last");
    assert_eq!(begun(), 1);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let zoo = Zoo::with(&["--job-queue-size", "2"]);
    zoo.serve("clerk", CLERK, "");
    let gate = zoo.home().join("gate");
    let hold = format!("hold {}", gate.display());
    let mut clients: Vec<_> = (0..3).map(|_| zoo.client()).collect();
    clients[0].send("POST /predictions/clerk", TEXT, hold.as_bytes()).unwrap();
    zoo_e2e::wait_until("the worker is busy", || zoo.home().join("gate.begun").exists());
    for client in &mut clients[1..] {
        client.send("POST /predictions/clerk", TEXT, b"waits").unwrap();
    }
    let room = || zoo.manage("GET /models/clerk").json()[0]["jobQueueStatus"]["remainingCapacity"] == 0;
    zoo_e2e::wait_until("the queue is full", room);
    let refused = ask(&zoo, "one too many");
    assert_eq!((refused.status, refused.json()["type"].as_str()), (503, Some("ServiceUnavailableException")));
    assert!(refused.header("retry-after").is_some());
    fs::write(&gate, "").unwrap();
    for client in &mut clients {
        assert_eq!(client.receive().unwrap().status, 200);
    }
}

#[test]
fn what_is_no_http_gets_an_answer_and_harms_nobody() {
    let zoo = clerk("");
    for noise in [
        "\x16\x03\x01\x02\x00\x01",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /predictions/clerk HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(zoo.inference()).unwrap();
        stream.write_all(noise.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // The end may come as a reset: not everything that was sent has been read.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{noise:?}: {answer}");
    }
    let half = Client::connect(zoo.inference()).unwrap();
    drop(half);
    assert_eq!(ask(&zoo, "fine").text(), "fine");
}
