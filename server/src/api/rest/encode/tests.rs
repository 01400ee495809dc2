//! Answers of handlers as HTTP, the ordinary ones and those that HTTP can't carry.

use http_body_util::BodyExt;

use super::*;
use crate::request::mailbox::Mailbox;
use crate::request::stream::{ChunkSender, chunks};

fn whole(status: u16, headers: &[(&str, &[u8])]) -> Response {
    let headers = HeaderBlock::from_pairs(headers.iter().copied());
    answer(Answer { status, headers, body: AnswerBody::Whole(Bytes::from_static(b"[1, 0]")) })
}

fn streamed(headers: &[(&str, &[u8])]) -> (ChunkSender, Response) {
    let (sender, chunks) = chunks(Mailbox::default(), 1);
    let headers = HeaderBlock::from_pairs(headers.iter().copied());
    (sender, answer(Answer { status: 200, headers, body: AnswerBody::Stream(chunks) }))
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_plain_answer_has_its_body_and_no_content_type() {
    let response = whole(200, &[]);
    assert_eq!(response.status(), 200);
    assert!(response.headers().is_empty(), "{:?}", response.headers());
    assert_eq!(text(response).await, "[1, 0]");
}

#[test]
fn the_handlers_status_phrase_and_headers_are_passed_on() {
    let response = whole(
        299,
        &[
            (":reason", b"Almost Fine"),
            ("Content-Type", b"text/x"),
            ("X-Mine", b"\xe9"),
            ("set-cookie", b"a"),
            ("set-cookie", b"b"),
        ],
    );
    assert_eq!(response.status(), 299);
    assert_eq!(response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), b"Almost Fine");
    assert_eq!(response.headers()["content-type"], "text/x");
    assert_eq!(response.headers()["x-mine"].as_bytes(), b"\xe9");
    assert_eq!(response.headers().get_all("set-cookie").iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn what_http_does_not_allow_is_left_out() {
    let response = whole(
        200,
        &[
            (":reason", b"two\nlines"),
            ("bad name", b"x"),
            ("", b"x"),
            ("x-injected", b"a\r\nset-cookie: b"),
            ("Content-Length", b"1"),
            ("transfer-encoding", b"chunked"),
            ("Connection", b"close"),
            ("x-good", b"kept"),
        ],
    );
    assert!(response.extensions().get::<ReasonPhrase>().is_none());
    assert_eq!(response.headers().keys().collect::<Vec<_>>(), ["x-good"]);
}

#[test]
fn a_broken_header_block_costs_its_rest_only() {
    let mut bytes = HeaderBlock::from_pairs([("x-good", &b"kept"[..])]).as_bytes().to_vec();
    bytes.extend_from_slice(&[9, 0, b'x']);
    let headers = HeaderBlock::from_bytes(bytes.into());
    let response = answer(Answer { status: 200, headers, body: AnswerBody::Whole(Bytes::new()) });
    assert_eq!(response.headers()["x-good"], "kept");
}

#[tokio::test]
async fn a_status_that_no_response_can_have_is_a_defect_of_the_handler() {
    for status in [0, 42, 100, 199, 1000] {
        let response = whole(status, &[]);
        assert_eq!(response.status(), 500, "{status}");
        let text = text(response).await;
        assert!(text.contains(&format!("The handler chose status {status}, ")), "{text}");
    }
    let refused = Failure::Handler { status: 100, message: "x".into() }.into_response();
    assert_eq!(refused.status(), 500);
}

#[tokio::test]
async fn chunks_come_as_they_are_made_and_are_marked_as_torchserve_marks_them() {
    let (sender, response) = streamed(&[("content-type", b"text/event-stream"), ("ts_stream_next", b"true")]);
    assert_eq!(response.headers().get_all("ts_stream_next").iter().collect::<Vec<_>>(), ["true"]);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    assert_eq!(http_body::Body::size_hint(&body).exact(), None);
    for piece in ["data: a\n\n", "data: b\n\n"] {
        assert!(sender.push(Bytes::from_static(piece.as_bytes())));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
    }
    sender.end(Ok(()));
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error_of_the_body() {
    let (sender, response) = streamed(&[]);
    assert!(sender.push(Bytes::from_static(b"a")));
    drop(sender);
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test]
async fn a_status_text_is_pretty_json() {
    let response = status(StatusCode::ACCEPTED, "Processing worker updates...");
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(text(response).await, "{\n  \"status\": \"Processing worker updates...\"\n}\n");
}
