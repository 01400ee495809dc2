//! Everything that can go wrong for a client, and the one table that says what each case looks like from outside.
//!
//! A new failure is one variant, one row in [`Failure::row`] and one line in [`Failure`]'s `Display`. Statuses, types and texts
//! are those of TorchServe where it has the case; clients match on them. This module knows no protocol: the API layer turns a
//! row into HTTP or gRPC.

use std::fmt;

use http::StatusCode;

use crate::name::{ModelName, ModelRef, Version};

/// What a client may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No such route.
    RouteNotFound,
    /// The route exists, but not for this method, or it is switched off.
    MethodNotAllowed,
    /// The request can't be understood as HTTP.
    InvalidMessage {
        /// For the log: what was wrong.
        why: String,
    },
    /// A required parameter is missing.
    ParameterRequired {
        /// Its name.
        name: &'static str,
    },
    /// A page of another site wants to manage models.
    ForeignOrigin {
        /// The site.
        origin: String,
    },
    /// A name that isn't this server's.
    ForeignHost {
        /// The name.
        host: String,
    },
    /// A parameter that can't be used.
    BadRequest {
        /// What, and what would be right.
        message: String,
    },
    /// The body is larger than `max_request_size`.
    BodyTooLarge {
        /// The limit in force.
        limit: usize,
    },
    /// No model of this name.
    ModelNotFound {
        /// The name.
        model: String,
    },
    /// The model has no such version.
    VersionNotFound {
        /// The model.
        model: ModelName,
        /// The version.
        version: String,
    },
    /// The model has no such version to make the default.
    DefaultNotFound {
        /// The model.
        model: ModelName,
        /// The version.
        version: String,
    },
    /// `url=` is empty.
    EmptyUrl,
    /// The url contains `..`.
    RelativeUrl {
        /// The url.
        url: String,
    },
    /// Nothing is at the url.
    NothingAtUrl {
        /// The url.
        url: String,
    },
    /// A name in the model store was given, but there is no model store.
    NoModelStore,
    /// The url matches no allowed pattern.
    UrlNotAllowed {
        /// The url.
        url: String,
    },
    /// The archive couldn't be downloaded.
    DownloadFailed {
        /// The url.
        url: String,
        /// For the log: what happened.
        why: String,
    },
    /// The download's file name is taken in the model store.
    FileExists {
        /// The file.
        file: String,
    },
    /// The archive couldn't be written or unpacked here.
    SaveFailed {
        /// The url.
        url: String,
        /// For the log: what happened.
        why: String,
    },
    /// A runtime that doesn't exist.
    InvalidRuntime {
        /// What was given.
        value: String,
    },
    /// An archive that can't be used.
    InvalidArchive {
        /// What is wrong with it.
        message: String,
    },
    /// The version exists already.
    VersionExists {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
    },
    /// The registration was called off by a DELETE.
    RegistrationCancelled {
        /// The model, as far as its name was known.
        model: String,
    },
    /// `max_worker` below `min_worker`.
    WorkerBounds,
    /// Workers that were waited for didn't come up.
    WorkersFailed {
        /// The model.
        model: ModelName,
        /// The version, if the client named one.
        version: Option<Version>,
        /// Because memory ran out.
        memory: bool,
    },
    /// The machine has fewer GPUs than one worker of the model needs.
    NoDevices {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
    },
    /// The default version can't be removed while others exist.
    DefaultInUse {
        /// The model.
        model: ModelName,
    },
    /// Workers didn't stop in time.
    CleanupTimeout {
        /// The model.
        model: ModelName,
    },
    /// The model can't take the request now.
    Unavailable {
        /// The model as the client named it.
        model: ModelRef,
        /// Why, for the log and for `Retry-After`.
        why: Unavailable,
    },
    /// The model has no worker to describe itself.
    NoWorkerToDescribe {
        /// The model.
        model: ModelName,
    },
    /// The handler's own description didn't come.
    DescribeFailed,
    /// The worker died while it had the request.
    WorkerDied {
        /// It was killed for memory.
        memory: bool,
    },
    /// The handler failed or refused.
    Handler {
        /// The status it chose.
        status: u16,
        /// Its message.
        message: String,
    },
    /// The client's deadline passed.
    DeadlineExceeded,
    /// The server is stopping.
    ShuttingDown,
    /// A defect of the server.
    Internal {
        /// For the log and the client: which.
        message: String,
    },
}

/// Why a model can't take a request now. TorchServe has one text for all of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// It has no workers, or none that came up for a long time.
    NoWorker,
    /// Its queue holds as many requests as allowed.
    QueueFull,
    /// Its queue holds as many bytes as allowed.
    QueueBytes,
    /// Its version is being removed.
    Stopping,
}

/// Who has to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The client.
    Client,
    /// The handler.
    Handler,
    /// The server or its operator.
    Server,
}

/// Whether the same request may succeed later without any change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It won't.
    No,
    /// It may, at once or soon.
    Later,
}

/// gRPC's status codes, by number, so that the table needs no gRPC library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names and numbers are gRPC's")]
pub enum GrpcCode {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// One row of the failure table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// HTTP status.
    pub status: StatusCode,
    /// gRPC status.
    pub grpc: GrpcCode,
    /// TorchServe's name of the exception.
    pub kind: &'static str,
    /// Whose fault it is.
    pub blame: Blame,
    /// Whether trying again may help.
    pub retry: Retry,
}

impl Failure {
    /// The failure's row in the table.
    pub fn row(&self) -> Row {
        use GrpcCode as G;
        use StatusCode as S;
        let (status, grpc, kind, blame) = match self {
            Self::RouteNotFound => {
                (S::NOT_FOUND, G::Unimplemented, "ResourceNotFoundException", Blame::Client)
            }
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, G::PermissionDenied, "MethodNotAllowedException", Blame::Client)
            }
            Self::InvalidMessage { .. } | Self::ParameterRequired { .. } | Self::BadRequest { .. } => {
                (S::BAD_REQUEST, G::InvalidArgument, "BadRequestException", Blame::Client)
            }
            Self::ForeignOrigin { .. } | Self::ForeignHost { .. } => {
                (S::FORBIDDEN, G::PermissionDenied, "ForbiddenException", Blame::Client)
            }
            Self::BodyTooLarge { .. } => {
                (S::PAYLOAD_TOO_LARGE, G::ResourceExhausted, "BadRequestException", Blame::Client)
            }
            Self::ModelNotFound { .. }
            | Self::EmptyUrl
            | Self::RelativeUrl { .. }
            | Self::NothingAtUrl { .. } => {
                (S::NOT_FOUND, G::NotFound, "ModelNotFoundException", Blame::Client)
            }
            Self::NoModelStore => (S::NOT_FOUND, G::NotFound, "ModelNotFoundException", Blame::Server),
            Self::UrlNotAllowed { .. } => {
                (S::NOT_FOUND, G::NotFound, "ModelNotFoundException", Blame::Client)
            }
            Self::VersionNotFound { .. } | Self::DefaultNotFound { .. } => {
                (S::NOT_FOUND, G::NotFound, "ModelVersionNotFoundException", Blame::Client)
            }
            Self::DownloadFailed { .. } => {
                (S::BAD_REQUEST, G::InvalidArgument, "DownloadArchiveException", Blame::Client)
            }
            Self::FileExists { .. } | Self::SaveFailed { .. } => {
                (S::INTERNAL_SERVER_ERROR, G::Internal, "InternalServerException", Blame::Server)
            }
            Self::InvalidRuntime { .. } | Self::WorkerBounds => {
                (S::BAD_REQUEST, G::InvalidArgument, "BadRequestException", Blame::Client)
            }
            Self::InvalidArchive { .. } => {
                (S::BAD_REQUEST, G::InvalidArgument, "InvalidModelException", Blame::Client)
            }
            Self::VersionExists { .. } => {
                (S::CONFLICT, G::AlreadyExists, "ConflictStatusException", Blame::Client)
            }
            Self::RegistrationCancelled { .. } => {
                (S::CONFLICT, G::Aborted, "ConflictStatusException", Blame::Client)
            }
            Self::NoDevices { .. } => {
                (S::INTERNAL_SERVER_ERROR, G::Internal, "WorkerInitializationException", Blame::Client)
            }
            Self::WorkersFailed { memory, .. } => (
                memory_or(*memory, S::INTERNAL_SERVER_ERROR),
                G::Internal,
                "InternalServerException",
                Blame::Handler,
            ),
            Self::DefaultInUse { .. } => {
                (S::FORBIDDEN, G::FailedPrecondition, "InvalidModelVersionException", Blame::Client)
            }
            Self::CleanupTimeout { .. } => {
                (S::REQUEST_TIMEOUT, G::DeadlineExceeded, "RequestTimeoutException", Blame::Server)
            }
            Self::Unavailable { .. } | Self::NoWorkerToDescribe { .. } | Self::ShuttingDown => {
                (S::SERVICE_UNAVAILABLE, G::Unavailable, "ServiceUnavailableException", Blame::Server)
            }
            Self::DescribeFailed | Self::Internal { .. } => {
                (S::INTERNAL_SERVER_ERROR, G::Internal, "InternalServerException", Blame::Server)
            }
            Self::WorkerDied { memory } => (
                memory_or(*memory, S::INTERNAL_SERVER_ERROR),
                G::Internal,
                "InternalServerException",
                Blame::Handler,
            ),
            Self::Handler { status, .. } => {
                let code = StatusCode::from_u16(*status).unwrap_or(S::INTERNAL_SERVER_ERROR);
                (code, grpc_of_status(code), "InternalServerException", Blame::Handler)
            }
            Self::DeadlineExceeded => {
                (S::GATEWAY_TIMEOUT, G::DeadlineExceeded, "RequestTimeoutException", Blame::Server)
            }
        };
        Row { status, grpc, kind, blame, retry: self.retry() }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. }
            | Self::NoWorkerToDescribe { .. }
            | Self::WorkerDied { .. }
            | Self::DeadlineExceeded
            | Self::CleanupTimeout { .. }
            | Self::ShuttingDown => Retry::Later,
            _ => Retry::No,
        }
    }
}

fn memory_or(memory: bool, otherwise: StatusCode) -> StatusCode {
    if memory { StatusCode::INSUFFICIENT_STORAGE } else { otherwise }
}

/// How a status that a handler chose looks in gRPC.
#[expect(clippy::match_overlapping_arm, reason = "the ranges are what is left of their hundreds")]
fn grpc_of_status(status: StatusCode) -> GrpcCode {
    match status.as_u16() {
        400 => GrpcCode::InvalidArgument,
        401 => GrpcCode::Unauthenticated,
        403 => GrpcCode::PermissionDenied,
        404 => GrpcCode::NotFound,
        409 => GrpcCode::Aborted,
        413 | 429 => GrpcCode::ResourceExhausted,
        416 => GrpcCode::OutOfRange,
        499 => GrpcCode::Cancelled,
        501 => GrpcCode::Unimplemented,
        503 => GrpcCode::Unavailable,
        504 => GrpcCode::DeadlineExceeded,
        200..=299 => GrpcCode::Ok,
        400..=499 => GrpcCode::FailedPrecondition,
        500..=599 => GrpcCode::Internal,
        _ => GrpcCode::Unknown,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RouteNotFound => {
                f.write_str("Requested resource is not found, please refer to API document.")
            }
            Self::MethodNotAllowed => {
                f.write_str("Requested method is not allowed, please refer to API document.")
            }
            Self::InvalidMessage { .. } => f.write_str("Invalid HTTP message."),
            Self::ForeignOrigin { origin } => write!(f, "Pages of {origin} may not manage models here."),
            Self::ForeignHost { host } => write!(
                f,
                "{host} is not known as a name of this server; use an IP address or localhost, or allow it with allowed_hosts."
            ),
            Self::ParameterRequired { name } => write!(f, "Parameter {name} is required."),
            Self::BadRequest { message } | Self::InvalidArchive { message } => f.write_str(message),
            Self::BodyTooLarge { limit } => {
                write!(f, "Request body is larger than {limit} bytes (max_request_size).")
            }
            Self::ModelNotFound { model } => write!(f, "Model not found: {model}"),
            Self::VersionNotFound { model, version } => {
                write!(f, "Model version: {version} does not exist for model: {model}")
            }
            Self::DefaultNotFound { model, version } => {
                write!(f, "Model version {version} does not exist for model {model}")
            }
            Self::EmptyUrl => f.write_str("empty url"),
            Self::RelativeUrl { url } => write!(f, "Relative path is not allowed in url: {url}"),
            Self::NothingAtUrl { url } => write!(f, "Model not found at: {url}"),
            Self::NoModelStore => f.write_str("Model store has not been configured."),
            Self::UrlNotAllowed { url } => write!(f, "Given URL {url} does not match any allowed URL(s)"),
            Self::DownloadFailed { url, .. } => write!(f, "Failed to download archive from: {url}"),
            Self::FileExists { file } => write!(f, "Model file already exists {file}"),
            Self::SaveFailed { url, .. } => write!(f, "Failed to save model: {url}"),
            Self::InvalidRuntime { value } => write!(f, "Invalid RuntimeType value: {value}"),
            Self::VersionExists { model, version } => {
                write!(f, "Model version {version} is already registered for model {model}")
            }
            Self::RegistrationCancelled { model } => write!(f, "Registration of model {model} was cancelled"),
            Self::WorkerBounds => f.write_str("max_worker cannot be less than min_worker."),
            Self::NoDevices { model, version } => {
                write!(f, "No enough gpu devices for model:{model} version:{version}")
            }
            Self::WorkersFailed { model, version, .. } => {
                let version = version.as_ref().map_or("null", Version::as_str);
                write!(f, "Failed to start workers for model {model} version: {version}")
            }
            Self::DefaultInUse { model } => write!(f, "Cannot remove default version for model {model}"),
            Self::CleanupTimeout { model } => write!(f, "Timed out while cleaning resources: {model}"),
            Self::Unavailable { model, .. } => {
                write!(f, "Model \"{}\" ", model.model)?;
                if let Some(version) = &model.version {
                    write!(f, "Version {version}\" ")?;
                }
                f.write_str(
                    "has no worker to serve inference request. Please use scale workers API to add workers. \
                     If this is a sequence inference, please check if it is closed, or expired; \
                     or exceeds maxSequenceJobQueueSize",
                )
            }
            Self::NoWorkerToDescribe { model } => write!(
                f,
                "Model \"{model}\" has no worker to serve describe request. \
                 Please use scale workers API to add workers."
            ),
            // TorchServe's spelling.
            Self::DescribeFailed => f.write_str("Failed to get customized model matadata."),
            Self::WorkerDied { .. } => f.write_str("Worker died."),
            Self::Handler { message, .. } | Self::Internal { message } => f.write_str(message),
            Self::DeadlineExceeded => f.write_str("The request's deadline passed before the model answered."),
            Self::ShuttingDown => f.write_str("The server is shutting down."),
        }
    }
}

impl std::error::Error for Failure {}
