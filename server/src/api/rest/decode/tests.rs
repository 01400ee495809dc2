//! Each kind of body, and each way in which one can be wrong.

use std::convert::Infallible;

use super::*;

const LIMIT: usize = 1000;

fn with_type(content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers
}

/// A body that comes in pieces of `size` bytes.
fn pieces(text: &str, size: usize) -> Body {
    let pieces: Vec<_> = text
        .as_bytes()
        .chunks(size)
        .map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)))
        .collect();
    Body::from_stream(stream::iter(pieces))
}

async fn read(content_type: &'static str, text: &str) -> Result<Vec<(String, String, String)>, Failure> {
    let mut seen = None;
    // However a body is cut, it is the same body.
    for size in [1, 7, text.len().max(1)] {
        let parts = parts(&with_type(content_type), pieces(text, size), LIMIT).await?;
        let parts: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let body = String::from_utf8(part.body.into_bytes().to_vec()).unwrap();
                (part.name.into_owned(), part.content_type, body)
            })
            .collect();
        assert_eq!(*seen.get_or_insert_with(|| parts.clone()), parts, "in pieces of {size}");
    }
    Ok(seen.unwrap())
}

fn expected(parts: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    parts.iter().map(|(name, kind, body)| ((*name).into(), (*kind).into(), (*body).into())).collect()
}

#[tokio::test]
async fn a_body_is_one_part_with_its_media_type() {
    for (content_type, mime) in [
        ("application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("text/plain;x=y", "text/plain"),
        ("Application/JSON", "Application/JSON"),
        ("", ""),
    ] {
        assert_eq!(read(content_type, "[1, 2]").await.unwrap(), expected(&[("body", mime, "[1, 2]")]));
    }
    assert_eq!(read("", "").await.unwrap(), expected(&[("body", "", "")]));
}

#[tokio::test]
async fn a_body_stays_in_its_pieces() {
    let parts = parts(&HeaderMap::new(), pieces("abcdef", 2), LIMIT).await.unwrap();
    assert_eq!(parts[0].body.pieces(), ["ab", "cd", "ef"]);
}

#[tokio::test]
async fn form_fields_are_parts_without_type() {
    let parts = read("application/x-www-form-urlencoded; charset=utf-8", "a=1&b=x+y%21&a=2&c").await.unwrap();
    assert_eq!(parts, expected(&[("a", "", "1"), ("b", "", "x y!"), ("a", "", "2"), ("c", "", "")]));
}

const FORM: &str = "--xx\r\ncontent-disposition: form-data; name=\"text\"\r\n\r\nhello\r\n\
    --xx\r\nContent-Disposition: form-data; name=\"typed\"\r\ncontent-type: application/json\r\n\r\n{}\r\n\
    --xx\r\ncontent-disposition: form-data; name=\"data\"; filename=\"cat.jpg\"\r\n\
    content-type: image/jpeg; q=1\r\n\r\n\u{1}\r\n\u{2}\r\n\
    --xx\r\ncontent-disposition: form-data; name=\"raw\"; filename=\"x\"\r\n\r\n\r\n--xx--\r\n";

#[tokio::test]
async fn files_in_forms_have_a_type_and_text_has_none() {
    let parts = read("multipart/form-data; boundary=xx", FORM).await.unwrap();
    assert_eq!(
        parts,
        expected(&[
            ("text", "", "hello"),
            ("typed", "", "{}"),
            ("data", "image/jpeg", "\u{1}\r\n\u{2}"),
            ("raw", "application/octet-stream", ""),
        ])
    );
}

#[tokio::test]
async fn a_form_that_ends_anywhere_but_at_its_end_is_refused() {
    let whole = FORM.len() - "--\r\n".len();
    for length in 0..whole {
        match read("multipart/form-data; boundary=xx", &FORM[..length]).await {
            Err(Failure::BadRequest { message }) => {
                assert!(message.starts_with("The form can't be read: "), "{message}");
                assert!(!message.contains('\n'), "{message}");
            }
            other => panic!("cut at {length}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn forms_that_make_no_sense_are_refused() {
    let unnamed = "--xx\r\ncontent-disposition: form-data\r\n\r\nx\r\n--xx--\r\n";
    for (content_type, body) in [
        ("multipart/form-data", FORM),
        ("multipart/form-data; boundary=", FORM),
        ("multipart/form-data; boundary=xx", unnamed),
        ("multipart/form-data; boundary=xx", "no form at all"),
    ] {
        let failure = read(content_type, body).await.unwrap_err();
        assert!(matches!(failure, Failure::BadRequest { .. }), "{failure:?}");
    }
    let many = "a&".repeat(MAX_PARTS + 1);
    let headers = with_type("application/x-www-form-urlencoded");
    let failure = parts(&headers, Body::from(many), usize::MAX).await.unwrap_err();
    assert_eq!(failure.to_string(), "The form has more than 4096 fields.");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_declared_or_its_real_length() {
    let too_large = Failure::BodyTooLarge { limit: LIMIT };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(LIMIT + 1));
    // An endless body: only the declared length can end this.
    let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    assert_eq!(parts(&headers, endless, LIMIT).await.unwrap_err(), too_large);
    for content_type in ["", "multipart/form-data; boundary=xx", "application/x-www-form-urlencoded"] {
        let body = pieces(&FORM.replace("hello", &"x".repeat(LIMIT)), 64);
        assert_eq!(
            parts(&with_type(content_type), body, LIMIT).await.unwrap_err(),
            too_large,
            "{content_type}"
        );
    }
    assert!(parts(&HeaderMap::new(), pieces(&"x".repeat(LIMIT), 64), LIMIT).await.is_ok());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    for content_type in ["", "multipart/form-data; boundary=xx"] {
        let broken = [Ok(Bytes::from_static(b"--xx\r\n")), Err(std::io::Error::other("reset"))];
        let body = Body::from_stream(stream::iter(broken));
        let failure = parts(&with_type(content_type), body, LIMIT).await.unwrap_err();
        assert_eq!(failure.to_string(), "The request body broke off before its end: reset.");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_refused() {
    let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let failure = parts(&HeaderMap::new(), body, LIMIT).await.unwrap_err();
    assert_eq!(failure.to_string(), "The request body stopped coming: nothing for 60 s.");
}

#[test]
fn headers_travel_in_lower_case_and_the_last_one_counts() {
    let mut map = HeaderMap::new();
    map.append("X-Custom", HeaderValue::from_static("first"));
    map.append("x-custom", HeaderValue::from_static("last"));
    map.append("accept", HeaderValue::from_bytes(b"\xe9").unwrap());
    let block = headers(&map);
    assert_eq!(block.get("x-custom").unwrap(), "last");
    assert_eq!(block.get("accept").unwrap(), &b"\xe9"[..]);
}

#[test]
fn a_client_may_choose_a_harmless_request_id() {
    let longest = "x".repeat(MAX_ID);
    for good in ["a", "trace.1_2-3", &longest] {
        assert_eq!(request_id(Some(&HeaderValue::from_str(good).unwrap())), good);
    }
    let too_long = "x".repeat(MAX_ID + 1);
    for bad in ["", "a b", "<x>", "a\u{e9}", "a\"b", &too_long] {
        let id = request_id(Some(&HeaderValue::from_bytes(bad.as_bytes()).unwrap()));
        assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 4, "{bad:?} gave {id}");
    }
    assert_ne!(request_id(None), request_id(None));
}

#[test]
fn the_clients_deadline_comes_before_the_models() {
    let now = Instant::now();
    let usual = Some(Duration::from_secs(5));
    let mut map = HeaderMap::new();
    assert_eq!(deadline(&map, now, None), Ok(None));
    assert_eq!(deadline(&map, now, usual), Ok(Some(now + Duration::from_secs(5))));
    map.insert(TIMEOUT, HeaderValue::from_static("250"));
    assert_eq!(deadline(&map, now, usual), Ok(Some(now + Duration::from_millis(250))));
    for bad in ["0", "-1", "1.5", "soon", ""] {
        map.insert(TIMEOUT, HeaderValue::from_static(bad));
        let message = deadline(&map, now, usual).unwrap_err().to_string();
        assert!(message.starts_with("x-request-timeout-ms: "), "{message}");
    }
}
