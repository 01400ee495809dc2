//! What the tests with real workers share: a place for models, and pools on top of it.
#![allow(dead_code, missing_docs, reason = "each test uses a part")]

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tempfile::TempDir;
use zoo_proto::wire::HeaderBlock;
use zoo_server::failure::Failure;
use zoo_server::model::{ModelOptions, ModelSpec, Runtime};
use zoo_server::request::{Answer, AnswerBody, Part, Request};
use zoo_server::worker::context::{WorkerContext, WorkerSettings};
use zoo_server::worker::launch::Shim;
use zoo_server::worker::log::ModelLog;
use zoo_server::worker::pool::Pool;

pub struct Bench {
    pub dir: TempDir,
    pub context: Arc<WorkerContext>,
}

impl Bench {
    pub fn new() -> Self {
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
            max_response_bytes: 6_553_500,
            decode_input: true,
            limit_max_image_pixels: true,
            blacklist: None,
            lines: Arc::new(ModelLog),
            sink: Arc::new(ModelLog),
        })
        .unwrap();
        Self { dir, context }
    }

    /// A pool for a Python handler whose `handle(data, context)` does this.
    pub fn python(&self, handle: &str, change: impl FnOnce(&mut ModelOptions)) -> Arc<Pool> {
        let handle = handle.replace('\n', "\n    ");
        let source = format!(
            "import os, sys, time\n\ndef handle(data, context):\n    if data is None:\n        return\n    {handle}\n"
        );
        self.python_source(&source, change)
    }

    /// A pool for a Python handler with this source.
    pub fn python_source(&self, source: &str, change: impl FnOnce(&mut ModelOptions)) -> Arc<Pool> {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        std::fs::write(dir.join("handler.py"), source).unwrap();
        let mut options = ModelOptions::default();
        change(&mut options);
        let spec = ModelSpec {
            name: "m".into(),
            version: "1.0".into(),
            dir,
            runtime: Runtime::Python,
            handler: Some("handler.py".into()),
            envelope: None,
            manifest: json!({"model": {"modelName": "m", "handler": "handler.py"}}),
            config: Default::default(),
            options,
        };
        Pool::new(Arc::new(spec), self.context.clone())
    }
}

pub fn request(text: &str) -> Request {
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

pub async fn predict(pool: &Pool, text: &str) -> Result<Answer, Failure> {
    pool.submit(request(text), false)?.await
}

pub async fn body(answer: Answer) -> String {
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
