//! Parameters of management calls: from the query, a form, or a JSON object, read as leniently as TorchServe reads them.
//!
//! Text that isn't the number it should be counts as unset, with a warning in the log; JSON of the wrong kind is refused.

use axum::body::Body;
use http::request::Parts;
use serde_json::{Map, Value};
use tracing::warn;

use super::{decode, path};
use crate::failure::Failure;

/// Named values.
#[derive(Debug, Default)]
pub(super) struct Params(Map<String, Value>);

impl Params {
    /// Those of the query.
    pub(super) fn of_query(head: &Parts) -> Self {
        let mut params = Self::default();
        params.add(path::query(&head.uri));
        params
    }

    /// Those of the body, and those of the query that the body doesn't have.
    pub(super) async fn of_request(head: &Parts, body: Body, limit: usize) -> Result<Self, Failure> {
        let bytes = decode::whole(&head.headers, body, limit).await?;
        let mime = decode::mime(&head.headers);
        let mut params = if mime.eq_ignore_ascii_case("application/json") {
            Self::of_json(&bytes)?
        } else {
            Self::default()
        };
        if mime.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            params.add(form_urlencoded::parse(&bytes));
        }
        params.add(path::query(&head.uri));
        Ok(params)
    }

    /// JSON as people write it: single quotes, bare keys and trailing commas are fine.
    fn of_json(bytes: &[u8]) -> Result<Self, Failure> {
        let refused = |why: String| Failure::BadRequest {
            message: format!("The request body is not a JSON object of parameters: {why}."),
        };
        let text = std::str::from_utf8(bytes).map_err(|error| refused(error.to_string()))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        match json5::from_str(text) {
            Ok(Value::Object(values)) => Ok(Self(values)),
            Ok(other) => Err(refused(format!("it is {}", kind(&other)))),
            Err(error) => Err(refused(error.to_string().trim_end_matches('.').replace('\n', " "))),
        }
    }

    /// Adds what isn't there yet.
    fn add(&mut self, pairs: form_urlencoded::Parse<'_>) {
        for (name, value) in pairs {
            self.0.entry(name.into_owned()).or_insert_with(|| Value::String(value.into_owned()));
        }
    }

    /// A text; numbers and truth values are taken as they are written.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(other) => Err(unfit(name, "a text", other)),
        }
    }

    /// A whole number.
    pub(super) fn int(&self, name: &str) -> Result<Option<i32>, Failure> {
        let value = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        if let Value::String(text) = value {
            let number = text.trim().parse().ok();
            if number.is_none() && !text.is_empty() {
                warn!("{name}={text:?} is not a whole number; the default is used");
            }
            return Ok(number);
        }
        match value.as_i64().and_then(|number| i32::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(unfit(name, "a whole number", value)),
        }
    }

    /// A whole number that means something from 0 up; below it counts as unset.
    pub(super) fn count(&self, name: &str) -> Result<Option<u32>, Failure> {
        Ok(self.int(name)?.and_then(|number| u32::try_from(number).ok()))
    }

    /// True or false; any text but `true` is false.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) => Ok(Some(text.eq_ignore_ascii_case("true"))),
            Some(other) => Err(unfit(name, "true or false", other)),
        }
    }
}

fn unfit(name: &str, wanted: &str, got: &Value) -> Failure {
    Failure::BadRequest { message: format!("Parameter {name} must be {wanted}, not {}.", kind(got)) }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    async fn read(content_type: &str, query: &str, body: &str) -> Result<Params, Failure> {
        let request = Request::post(format!("/models?{query}")).header("content-type", content_type);
        let (head, ()) = request.body(()).unwrap().into_parts();
        Params::of_request(&head, Body::from(body.to_owned()), 1000).await
    }

    #[tokio::test]
    async fn the_same_parameters_come_from_query_form_and_json() {
        let json = "{'url':'noop.mar', model_name: \"noop\", 'initial_workers':'1', 'batch_size': 4, \
                    'synchronous':'true',}";
        let form = "url=noop.mar&model_name=noop&initial_workers=1&batch_size=4&synchronous=true";
        for (content_type, query, body) in [
            ("", form, ""),
            ("text/plain", form, "ignored"),
            ("application/x-www-form-urlencoded", "", form),
            ("application/json; charset=utf-8", "", json),
            ("application/json", "url=other.mar&synchronous=false", json),
        ] {
            let params = read(content_type, query, body).await.unwrap();
            assert_eq!(params.text("url").unwrap().unwrap(), "noop.mar", "{content_type}");
            assert_eq!(params.text("model_name").unwrap().unwrap(), "noop");
            assert_eq!(params.int("initial_workers").unwrap(), Some(1));
            assert_eq!(params.count("batch_size").unwrap(), Some(4));
            assert_eq!(params.flag("synchronous").unwrap(), Some(true));
            assert_eq!(params.text("handler").unwrap(), None);
        }
    }

    #[tokio::test]
    async fn text_that_is_no_number_counts_as_unset() {
        for (text, expected) in [
            ("", None),
            ("two", None),
            ("1.5", None),
            ("99999999999", None),
            ("-1", Some(-1)),
            ("+7+", Some(7)),
        ] {
            let params = read("", &format!("n={text}"), "").await.unwrap();
            assert_eq!(params.int("n").unwrap(), expected, "{text:?}");
        }
        let params = read("", "n=-1", "").await.unwrap();
        assert_eq!(params.count("n").unwrap(), None);
    }

    #[tokio::test]
    async fn any_text_but_true_is_false() {
        for (text, expected) in [("true", true), ("True", true), ("yes", false), ("1", false), ("", false)] {
            let params = read("", &format!("flag={text}"), "").await.unwrap();
            assert_eq!(params.flag("flag").unwrap(), Some(expected), "{text:?}");
        }
    }

    #[tokio::test]
    async fn json_of_the_wrong_kind_is_refused() {
        let params =
            read("application/json", "", "{url: [], n: 1.5, m: {}, flag: 3, t: 7, z: null}").await.unwrap();
        let message = |failure: Failure| failure.to_string();
        assert_eq!(message(params.text("url").unwrap_err()), "Parameter url must be a text, not a list.");
        assert_eq!(message(params.int("n").unwrap_err()), "Parameter n must be a whole number, not 1.5.");
        assert_eq!(
            message(params.int("m").unwrap_err()),
            "Parameter m must be a whole number, not an object."
        );
        assert_eq!(message(params.flag("flag").unwrap_err()), "Parameter flag must be true or false, not 3.");
        assert_eq!(params.text("t").unwrap().unwrap(), "7");
        assert_eq!(params.int("z").unwrap(), None);
    }

    #[tokio::test]
    async fn a_body_that_is_no_object_is_refused_in_one_line() {
        for body in ["[1]", "{'url'", "url=noop.mar", "\u{0}"] {
            let message = read("application/json", "", body).await.unwrap_err().to_string();
            assert!(
                message.starts_with("The request body is not a JSON object of parameters: "),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
        assert_eq!(read("application/json", "url=a", " ").await.unwrap().text("url").unwrap().unwrap(), "a");
    }
}
