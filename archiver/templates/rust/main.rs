//! The handler of MODEL: a linear model with the weights in `weights.json`. Replace the two marked places by your own model.

use std::fs;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use zoo_handler::{Answers, Batch, Context, Handler, HandlerError, LoadError, Request, Response};

/// One value of it lives in each worker.
#[derive(Deserialize)]
struct Linear {
    weights: Vec<f64>,
    bias: f64,
}

#[derive(Deserialize)]
struct Question {
    x: Vec<f64>,
}

#[derive(Serialize)]
struct Answer {
    y: f64,
}

impl Handler for Linear {
    /// Load the model here. Its files lie in `model_dir`.
    fn load(context: &Context) -> Result<Self, LoadError> {
        let file = fs::read(context.model_dir().join("weights.json"))?;
        Ok(serde_json::from_slice(&file)?) // your weights
    }

    /// One answer for each request of the batch.
    fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
        batch.each(|request| self.predict(&request))
    }
}

impl Linear {
    fn predict(&self, request: &Request) -> Result<Response<'static>, HandlerError> {
        let Question { x } = request.json()?;
        let wanted = self.weights.len();
        if x.len() != wanted {
            let message = format!("x has {} numbers, the model takes {wanted}", x.len());
            return Err(HandlerError::client(400, message));
        }
        let products = self.weights.iter().zip(&x).map(|(weight, x)| weight * x);
        let y = self.bias + products.sum::<f64>(); // your model
        Ok(Response::json(Answer { y }))
    }
}

fn main() -> ExitCode {
    zoo_handler::serve::<Linear>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zoo_handler::testing::{Setup, TestRequest};

    #[test]
    fn the_test_request_is_answered() {
        let setup = Setup::new().model_dir(env!("CARGO_MANIFEST_DIR"));
        let mut model = setup.load::<Linear>().unwrap();
        let question = TestRequest::bytes(&include_bytes!("../request.json")[..]);
        assert_eq!(model.predict(question).text(), r#"{"y":19.0}"#);
        let short = model.predict(TestRequest::text(r#"{"x": [1]}"#));
        assert_eq!(short.status, 400);
        assert_eq!(short.text(), "x has 1 numbers, the model takes 2");
    }
}
