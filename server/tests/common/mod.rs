//! What tests with real workers start from.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use zoo_proto::wire::HeaderBlock;
use zoo_server::request::{Answer, AnswerBody, Part, Request};
use zoo_server::worker::context::{WorkerContext, WorkerSettings};
use zoo_server::worker::launch::Shim;
use zoo_server::worker::log::ModelLog;

pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) context: Arc<WorkerContext>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let context = WorkerContext::start(WorkerSettings {
            shim: Shim { program: env!("CARGO_BIN_EXE_zoo-server").into() },
            python: None,
            command: None,
            variables: std::env::vars_os().collect(),
            dir: root.clone(),
            sdk: root.join("../handler-sdk/python"),
            first_id: 9000,
            gpus: 0,
            max_response_bytes: 6_553_500,
            decode_input: true,
            limit_max_image_pixels: true,
            blacklist: None,
            lines: Arc::new(ModelLog::default()),
            sink: Arc::new(ModelLog::default()),
            metrics: Arc::default(),
        })
        .unwrap();
        Self { dir, context }
    }
}

pub(crate) fn request(text: &str) -> Request {
    Request {
        id: "test".into(),
        headers: HeaderBlock::default(),
        url_path: String::new(),
        explain: false,
        parts: vec![Part {
            name: "body".into(),
            content_type: String::new(),
            body: Bytes::copy_from_slice(text.as_bytes()).into(),
        }],
        deadline: None,
    }
}

pub(crate) async fn body(answer: Answer) -> String {
    let bytes = match answer.body {
        AnswerBody::Whole(bytes) => bytes,
        AnswerBody::Stream(mut chunks) => {
            let mut all = BytesMut::new();
            while let Some(chunk) = chunks.next().await {
                all.extend_from_slice(&chunk.unwrap());
            }
            all.freeze()
        }
    };
    String::from_utf8(bytes.to_vec()).unwrap()
}
