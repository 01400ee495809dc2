//! What handlers see of requests and what clients see of answers, by trials without a server.
#![expect(clippy::expect_used, reason = "handlers and helpers of tests fail the test")]

use std::time::Duration;

use serde_json::{Value, json};
use zoo_handler::testing::{Setup, TestRequest, Trial};
use zoo_handler::{
    Answers, Batch, Context, Handler, HandlerError, LoadError, Metric, Part, Request, Response,
};

/// A handler made of one function.
macro_rules! handler {
    ($name:ident, $request:ident => $answer:expr) => {
        struct $name;

        impl Handler for $name {
            fn load(_: &Context) -> Result<Self, LoadError> {
                Ok(Self)
            }

            fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
                batch.each(|$request: Request| $answer)
            }
        }
    };
}

fn trial<H: Handler>() -> Trial<H> {
    Setup::new().load().expect("the handler loads")
}

#[test]
fn the_body_is_the_part_that_a_client_means() {
    handler!(Body, request => Ok(format!("{}|{}", request.text()?, request.content_type())));
    let mut trial = trial::<Body>();
    let mut answer = |request| trial.predict(request).text();
    assert_eq!(answer(TestRequest::text("a")), "a|text/plain");
    assert_eq!(answer(TestRequest::new()), "|");
    assert_eq!(answer(TestRequest::new().part("other", "x/y", "b")), "b|x/y");
    assert_eq!(answer(TestRequest::new().part("x", "", "b").part("data", "", "c")), "c|");
    assert_eq!(answer(TestRequest::new().part("x", "", "b").part("y", "", "c")), "|");
}

#[test]
fn what_a_client_got_wrong_is_told_to_the_client() {
    handler!(Sum, request => Ok(Response::json(request.json::<Vec<i64>>()?.iter().sum::<i64>())));
    let replies = trial::<Sum>().predict_batch([
        TestRequest::json([1, 2]),
        TestRequest::text("nonsense"),
        TestRequest::json("text"),
    ]);
    assert_eq!((replies[0].status, replies[0].text().as_str()), (200, "3"));
    assert_eq!(replies[0].header("Content-Type"), Some("application/json"));
    assert!(replies[1].failed && replies[1].status == 400);
    assert!(replies[1].text().starts_with("The body is not JSON: "), "{}", replies[1].text());
    assert!(replies[2].text().starts_with("The body is not the expected JSON: "), "{}", replies[2].text());

    handler!(Field, request => Ok(request.part("field").map_or(Ok(""), Part::text)?.to_owned()));
    let reply = trial::<Field>().predict(TestRequest::new().part("field", "", vec![0xff]));
    assert_eq!(reply.status, 400);
    assert!(reply.text().starts_with("Part field is not UTF-8: "), "{}", reply.text());
}

#[test]
fn requests_know_where_they_come_from() {
    handler!(Echo, request => Ok(Response::json(json!([
        request.header("X-ONE"), request.header("none"), request.url_path(), request.explain(), request.id(),
        request.deadline().is_some(), request.is_cancelled(), request.parts().len(),
    ]))));
    let mut trial = trial::<Echo>();
    let full = TestRequest::text("a")
        .header("x-One", "1")
        .header("X-one", "2")
        .url_path("a/b")
        .explain()
        .timeout(Duration::from_secs(9))
        .cancelled();
    assert_eq!(
        trial.predict(full).json::<Value>().unwrap(),
        json!(["2", null, "a/b", true, "request-1", true, true, 1])
    );
    assert_eq!(
        trial.predict(TestRequest::new()).json::<Value>().unwrap(),
        json!([null, null, "", false, "request-2", false, false, 0])
    );
}

/// Adds one to numbers, all at once, and counts its calls.
struct AddOne {
    calls: usize,
    outputs: fn(Vec<i64>) -> Result<Vec<Response<'static>>, HandlerError>,
}

impl Handler for AddOne {
    fn load(context: &Context) -> Result<Self, LoadError> {
        let outputs = match context.setting::<String>("outputs")?.as_deref() {
            Some("short") => |_| Ok(vec![Response::text("one")]),
            Some("error") => |_| Err(std::fmt::Error.into()),
            Some(other) => return Err(LoadError::invalid(format!("outputs: {other} is unknown"))),
            None => |inputs: Vec<i64>| Ok(inputs.iter().map(|x| Response::json(x + 1)).collect()),
        };
        Ok(Self { calls: 0, outputs })
    }

    fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
        let outputs = self.outputs;
        batch.together(Request::json::<i64>, |inputs| {
            self.calls += 1;
            outputs(inputs)
        })
    }

    fn describe(&mut self) -> Value {
        json!(self.calls)
    }
}

fn numbers() -> [TestRequest; 3] {
    [TestRequest::json(1), TestRequest::text("x"), TestRequest::json(3)]
}

#[test]
fn one_call_answers_all_that_could_be_read() {
    let mut trial = trial::<AddOne>();
    let replies = trial.predict_batch(numbers());
    let seen: Vec<_> = replies.iter().map(|reply| (reply.status, reply.text())).collect();
    assert_eq!((seen[0].clone(), seen[2].clone()), ((200, "2".into()), (200, "4".into())));
    assert_eq!(seen[1].0, 400);
    assert_eq!(trial.predict(TestRequest::text("x")).status, 400);
    assert_eq!(trial.describe().text(), "1", "nothing to run is no call");
}

#[test]
fn a_call_that_fails_spares_whom_it_had_refused() {
    for (outputs, status, message) in
        [("short", 503, "number of batch response mismatched"), ("error", 503, "Prediction failed")]
    {
        let mut trial = Setup::new().setting("outputs", outputs).load::<AddOne>().unwrap();
        let replies = trial.predict_batch(numbers());
        let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [status, 400, status], "{outputs}");
        assert_eq!((replies[0].text().as_str(), replies[2].text().as_str()), (message, message));
    }
}

#[test]
fn a_load_error_says_what_is_wrong() {
    let error = Setup::new().setting("outputs", "odd").load::<AddOne>().unwrap_err();
    assert_eq!(error.message(), "outputs: odd is unknown");
    let error = Setup::new().setting("outputs", 3).load::<AddOne>().unwrap_err();
    assert!(error.message().starts_with("model-config.yaml: outputs: invalid type"), "{error}");
}

#[test]
fn a_batch_may_fail_as_a_whole() {
    struct Fails;
    impl Handler for Fails {
        fn load(_: &Context) -> Result<Self, LoadError> {
            Ok(Self)
        }
        fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
            batch.fail(HandlerError::model("asleep").with_status(1000))
        }
    }
    for reply in trial::<Fails>().predict_batch(numbers()) {
        assert_eq!((reply.failed, reply.status, reply.text().as_str()), (true, 500, "asleep"));
    }
}

#[test]
fn answers_of_an_earlier_batch_are_refused() {
    struct Hoarder(Option<Answers<'static>>);
    impl Handler for Hoarder {
        fn load(_: &Context) -> Result<Self, LoadError> {
            Ok(Self(None))
        }
        fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
            let fresh = batch.each(|request| Ok(request.to_bytes()));
            self.0.replace(fresh).expect("the first batch has nothing to be swapped with")
        }
    }
    let mut trial = trial::<Hoarder>();
    assert_eq!(trial.predict(TestRequest::text("a")).text(), "Prediction failed");
    let reply = trial.predict(TestRequest::text("b"));
    assert_eq!((reply.status, reply.text().as_str()), (503, "Invalid model predict output"));
}

#[test]
fn streams_may_borrow_the_model() {
    struct Words(Vec<String>);
    impl Handler for Words {
        fn load(_: &Context) -> Result<Self, LoadError> {
            Ok(Self(["a", "b", "c"].map(String::from).into()))
        }
        fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
            let words = &self.0;
            batch.each(move |request| {
                Ok(match request.url_path() {
                    "write" => Response::write_with(move |writer| {
                        words.iter().try_for_each(|word| writer.write(word.clone()))?;
                        Ok(())
                    }),
                    _ => Response::stream(words.iter().map(|word| Ok(word.clone()))).status(206),
                })
            })
        }
    }
    let replies = trial::<Words>().predict_batch([TestRequest::new(), TestRequest::new().url_path("write")]);
    for (reply, status) in replies.iter().zip([206, 200]) {
        assert!(reply.streamed && reply.broken.is_none());
        assert_eq!((reply.status, reply.text().as_str(), reply.chunks.len()), (status, "abc", 3));
    }
}

#[test]
fn tensors_come_and_go_with_their_shapes() {
    handler!(Double, request => {
        let tensor = request.tensor::<f32>("x")?;
        let doubled: Vec<f32> = tensor.values.iter().map(|value| value * 2.0).collect();
        Ok(Response::tensor(&tensor.shape, &doubled))
    });
    let mut trial = trial::<Double>();
    let reply = trial.predict(TestRequest::new().tensor("x", &[1, 2], &[1.5_f32, 2.0]));
    assert_eq!(reply.header("content-type"), Some("application/x-zoo-tensor;dtype=FP32;shape=1x2"));
    assert_eq!(reply.body, [3.0_f32.to_le_bytes(), 4.0_f32.to_le_bytes()].concat());
    assert_eq!(trial.predict(TestRequest::new()).text(), "The request has no part named x");
    let wrong = trial.predict(TestRequest::new().tensor("x", &[1], &[1_i64]));
    assert_eq!((wrong.status, wrong.text().as_str()), (400, "Part x is a tensor of INT64, not of FP32"));

    handler!(Torn, _request => Ok(Response::tensor(&[3], &[1_u8])));
    assert_eq!(self::trial::<Torn>().predict(TestRequest::new()).status, 503);
}

#[test]
fn metrics_belong_to_their_batch() {
    struct Counts(Context);
    impl Handler for Counts {
        fn load(context: &Context) -> Result<Self, LoadError> {
            Ok(Self(context.clone()))
        }
        fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
            let metric = Metric::gauge("Size", "Count", batch.len() as f64).dimension("ModelName", "other");
            self.0.metrics().add(metric);
            batch.each(|_| {
                let metrics = self.0.metrics();
                Ok(Response::stream(std::iter::once_with(move || {
                    metrics.add(Metric::histogram("Late", "ms", 2.0));
                    Ok("x")
                })))
            })
        }
    }
    let mut trial = trial::<Counts>();
    trial.predict_batch([TestRequest::new(), TestRequest::new()]);
    let metrics = trial.take_metrics();
    let seen: Vec<_> =
        metrics.iter().map(|metric| (metric.name(), metric.value(), metric.request_ids())).collect();
    assert_eq!(
        seen,
        [
            ("Size", 2.0, "request-1,request-2"),
            ("Late", 2.0, "request-1,request-2"),
            ("Late", 2.0, "request-1,request-2")
        ]
    );
    let own = [("ModelName".to_owned(), "model".to_owned()), ("Level".to_owned(), "Model".to_owned())];
    assert_eq!(metrics[0].dimensions(), own);
    assert_eq!(trial.take_metrics(), []);
}

#[test]
fn more_metrics_than_a_frame_holds_go_out_in_several() {
    struct Many(Context);
    impl Handler for Many {
        fn load(context: &Context) -> Result<Self, LoadError> {
            Ok(Self(context.clone()))
        }
        fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
            for index in 0..1000 {
                let long = "x".repeat(5000);
                self.0.metrics().add(Metric::counter(&long, "Count", f64::from(index)));
            }
            batch.each(|_| Ok(""))
        }
    }
    let mut trial = trial::<Many>();
    trial.predict(TestRequest::new());
    let metrics = trial.take_metrics();
    assert_eq!(metrics.len(), 1000);
    assert!(metrics.iter().all(|metric| metric.name().len() == 4096));
}
