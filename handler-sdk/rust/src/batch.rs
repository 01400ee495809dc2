//! The requests of one call, and the answers that belong to them.

use std::fmt;

use crate::context::Context;
use crate::error::HandlerError;
use crate::request::Request;
use crate::response::Response;

/// The requests that the handler gets in one call, at least one.
///
/// It is consumed by what makes the [`Answers`], so there is always one answer for each request.
pub struct Batch<'a> {
    pub(crate) requests: Vec<Request>,
    pub(crate) context: &'a Context,
}

/// One answer for each request of a batch, made by [`Batch::each`], [`Batch::together`] or [`Batch::fail`].
///
/// `'a` is what streams borrow, usually the handler.
pub struct Answers<'a> {
    /// The id of the first request: the answers of another batch are recognised by it.
    pub(crate) first: u64,
    pub(crate) responses: Vec<Response<'a>>,
}

impl Batch<'_> {
    /// The requests, in the order in which their clients came.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// How many requests there are.
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// The context that [`Handler::load`](crate::Handler::load) got.
    pub fn context(&self) -> &Context {
        self.context
    }

    /// Answers each request by itself.
    pub fn each<'a, R, F>(self, mut answer: F) -> Answers<'a>
    where
        R: Into<Response<'a>>,
        F: FnMut(Request) -> Result<R, HandlerError>,
    {
        let first = self.first();
        let responses = self.requests.into_iter().map(|request| answer(request).into()).collect();
        Answers { first, responses }
    }

    /// Answers all requests by one call of the model: `read` makes an input of each request, `run` an output of each input, in order.
    ///
    /// A request whose `read` fails is left out of the call and fails alone. An error of `run` fails the others together; the outputs
    /// may be results, so that they fail one by one. If no request could be read, `run` isn't called.
    ///
    /// ```
    /// # use zoo_handler::{Answers, Batch, HandlerError, Response};
    /// # fn forward(inputs: &[Vec<f32>]) -> Result<Vec<f32>, std::io::Error> { Ok(inputs.iter().map(|x| x.iter().sum()).collect()) }
    /// fn handle(batch: Batch<'_>) -> Answers<'_> {
    ///     batch.together(
    ///         |request| request.json::<Vec<f32>>(),
    ///         |inputs| Ok(forward(&inputs)?.iter().map(Response::json).collect()),
    ///     )
    /// }
    /// ```
    pub fn together<'a, T, R>(
        self,
        read: impl FnMut(&Request) -> Result<T, HandlerError>,
        run: impl FnOnce(Vec<T>) -> Result<Vec<R>, HandlerError>,
    ) -> Answers<'a>
    where
        R: Into<Response<'a>>,
    {
        let first = self.first();
        let mut inputs = Vec::with_capacity(self.requests.len());
        let mut refused = Vec::with_capacity(self.requests.len());
        for read in self.requests.iter().map(read) {
            refused.push(read.map(|input| inputs.push(input)).err());
        }
        let mut outputs = outputs(inputs, run).into_iter();
        let answer = |refused: Option<HandlerError>| refused.map(Response::from).or_else(|| outputs.next());
        let responses = refused.into_iter().filter_map(answer).collect();
        Answers { first, responses }
    }

    /// Fails all requests.
    pub fn fail<'a>(self, error: HandlerError) -> Answers<'a> {
        let first = self.first();
        Answers { first, responses: alike(error, self.requests.len()) }
    }

    fn first(&self) -> u64 {
        self.requests.first().map_or(0, Request::item_id)
    }
}

/// As many responses as inputs, whatever the call gives.
fn outputs<'a, T, R: Into<Response<'a>>>(
    inputs: Vec<T>,
    run: impl FnOnce(Vec<T>) -> Result<Vec<R>, HandlerError>,
) -> Vec<Response<'a>> {
    let expected = inputs.len();
    if expected == 0 {
        return Vec::new();
    }
    match run(inputs) {
        Ok(outputs) if outputs.len() == expected => outputs.into_iter().map(Into::into).collect(),
        Ok(outputs) => {
            log::warn!("number of batch response mismatched, expect: {expected}, got: {}.", outputs.len());
            alike(HandlerError::client(503, "number of batch response mismatched"), expected)
        }
        Err(error) => alike(error, expected),
    }
}

/// The same failure `count` times; only the first brings what the log should know.
fn alike<'a>(error: HandlerError, count: usize) -> Vec<Response<'a>> {
    let (status, message) = (error.status(), error.message().to_owned());
    let others = (1..count).map(|_| HandlerError::client(status, message.as_str()).into());
    std::iter::once(error.into()).chain(others).collect()
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.requests).finish()
    }
}

impl fmt::Debug for Answers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.responses).finish()
    }
}
