//! What handlers fail with.

use std::error::Error;
use std::fmt;

use zoo_proto::wire::start::LoadFailure;

/// What a client reads whose request met an error that the handler has no words for.
const PREDICTION_FAILED: &str = "Prediction failed";

/// Why one request fails. The other requests of its batch aren't touched.
///
/// [`HandlerError::client`] and [`HandlerError::model`] say what the client reads. Any other error becomes a `HandlerError` by `?`:
/// the client then gets status 503 and `Prediction failed`, and the error with its sources goes to the model's log only, because
/// texts of libraries may hold what is no client's business.
pub struct HandlerError {
    status: u16,
    message: String,
    detail: Option<String>,
}

impl HandlerError {
    /// The request is at fault; `status` is 4xx.
    pub fn client(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), detail: None }
    }

    /// The model can't answer; status 500.
    pub fn model(message: impl Into<String>) -> Self {
        Self { status: 500, message: message.into(), detail: None }
    }

    /// The same failure under another status; one that isn't in 100..=999 counts as 500.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The status that the client gets.
    pub fn status(&self) -> u16 {
        if (100..=999).contains(&self.status) { self.status } else { 500 }
    }

    /// What the client reads.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What went wrong inside, for the log.
    pub(crate) fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// A failure that the log has the words for, and the client hasn't.
    pub(crate) fn unexpected(detail: String) -> Self {
        Self { status: 503, message: PREDICTION_FAILED.to_owned(), detail: Some(detail) }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} : {}", self.message, self.status())
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.detail.iter().try_for_each(|detail| write!(f, " ({detail})"))
    }
}

// No `impl Error for HandlerError`: this conversion of every error would overlap with the one of a type into itself.
impl<E: Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::unexpected(with_sources(&error))
    }
}

/// Why a model can't be loaded. Any error becomes one by `?`.
pub struct LoadError {
    pub(crate) kind: LoadFailure,
    pub(crate) message: String,
}

impl LoadError {
    /// Trying again may help; the server does, with growing pauses.
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: LoadFailure::Error, message: message.into() }
    }

    /// The archive can't be loaded by nature, e.g. a file is missing. The server doesn't try again.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { kind: LoadFailure::Invalid, message: message.into() }
    }

    /// The host or the device has too little memory.
    pub fn memory(message: impl Into<String>) -> Self {
        Self { kind: LoadFailure::Memory, message: message.into() }
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl<E: Error> From<E> for LoadError {
    fn from(error: E) -> Self {
        Self::new(with_sources(&error))
    }
}

/// `what: why: why that`.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
