//! The handshake: Hello from both ends, Load from the server, Loaded or LoadFailed from the worker.
//!
//! These frames are rare and grow with every version, so their payload is JSON; unknown keys are ignored.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::frame::{Frame, Kind, WireError};
use super::outbox::Outbox;
use super::{MAJOR, MINOR};

/// Who is speaking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `server` or `worker`.
    pub role: String,
    /// Name and version of the program, for people.
    #[serde(default)]
    pub name: String,
    /// Its process id.
    #[serde(default)]
    pub pid: u32,
}

/// The model that a worker is to serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadModel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The folder with its files, private to this registration.
    pub dir: String,
    /// The handler as the manifest or the registration names it.
    pub handler: Option<String>,
    /// `MAR-INF/MANIFEST.json`.
    pub manifest: Value,
    /// `model-config.yaml`.
    pub config: Map<String, Value>,
}

/// Everything that a worker needs to know before it can serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The model.
    pub model: LoadModel,
    /// The worker's name, as it appears in logs.
    pub worker: String,
    /// The most items that one batch holds.
    pub batch_size: u32,
    /// The device to use, if any.
    pub gpu: Option<u32>,
    /// The request envelope to wrap the handler in.
    pub envelope: Option<String>,
    /// The most batches that may be open at a time if the handler declares concurrency.
    pub concurrency: u32,
    /// The handler's entry point is a coroutine.
    pub asynchronous: bool,
    /// Answers may be held back for a moment to share a write.
    pub coalesce: bool,
    /// JSON and text are decoded before the handler sees them.
    pub decode_input: bool,
    /// Pillow's limit on image sizes stays on.
    pub limit_max_image_pixels: bool,
    /// The largest answer that will be accepted.
    pub max_response_bytes: u64,
    /// The largest request: what the parts of an item may declare together. `None`: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<u64>,
    /// Names of the sequence headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Metrics that are declared for handlers: the section `model_metrics` of the metrics configuration.
    #[serde(default)]
    pub metrics: Option<Value>,
}

/// The model is ready.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// Batches that the handler takes at a time; 1 unless it says more.
    #[serde(default = "one")]
    pub concurrency: u32,
    /// Names, types and shapes of inputs and outputs, if the handler knows them.
    #[serde(default)]
    pub signature: Option<Value>,
    /// The handler can describe itself.
    #[serde(default)]
    pub describes: bool,
}

fn one() -> u32 {
    1
}

/// Why a load failed, as far as the server must tell cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadFailure {
    /// Trying again may help.
    Error,
    /// Out of memory on the host or the device.
    Memory,
    /// The archive can't be loaded by nature.
    Invalid,
}

/// The model isn't ready and won't be in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadFailed {
    /// The case.
    pub kind: LoadFailure,
    /// One line.
    pub message: String,
    /// The traceback, or nothing.
    #[serde(default)]
    pub trace: String,
}

impl Hello {
    /// Sends it.
    pub fn encode(&self, out: &mut Outbox) {
        out.frame(Kind::Hello, 0, |payload| {
            payload.put_u16_le(MAJOR);
            payload.put_u16_le(MINOR);
            put_json(payload, self);
        });
    }

    /// Reads it, refusing another major version.
    pub fn decode(frame: &Frame) -> Result<Self, WireError> {
        let mut payload = frame.payload.clone();
        if payload.len() < 4 {
            return Err(WireError::Short { kind: frame.kind, wanted: 4, left: payload.len() });
        }
        let theirs = payload.get_u16_le();
        payload.advance(2);
        if theirs != MAJOR {
            return Err(WireError::Version { theirs });
        }
        from_json(frame.kind, &payload)
    }
}

macro_rules! json_message {
    ($type:ident) => {
        impl $type {
            /// Sends it.
            pub fn encode(&self, out: &mut Outbox) {
                out.frame(Kind::$type, 0, |payload| put_json(payload, self));
            }

            /// Reads it.
            pub fn decode(frame: &Frame) -> Result<Self, WireError> {
                from_json(frame.kind, &frame.payload)
            }
        }
    };
}

json_message!(Load);
json_message!(Loaded);
json_message!(LoadFailed);

fn put_json(payload: &mut bytes::BytesMut, value: &impl Serialize) {
    #[expect(
        clippy::expect_used,
        reason = "plain structs with string keys into memory: serialising can't fail"
    )]
    serde_json::to_writer(payload.writer(), value).expect("serialise a start frame");
}

fn from_json<T: DeserializeOwned>(kind: Kind, payload: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(payload).map_err(|error| WireError::Json { kind, message: error.to_string() })
}
