//! Pools of real workers in the test's own process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use zoo_proto::wire::HeaderBlock;
use zoo_server::failure::Failure;
use zoo_server::model::{ModelOptions, ModelSpec, Runtime};
use zoo_server::request::ticket::Pending;
use zoo_server::request::{Answer, AnswerBody, Part, Request};
use zoo_server::worker::context::{WorkerContext, WorkerSettings};
use zoo_server::worker::launch::Shim;
use zoo_server::worker::log::ModelLog;
use zoo_server::worker::pool::{Pool, Scaled};
use zoo_server::worker::state::WorkerState;
use zoo_server::worker::status::WorkerStatus;

use crate::unruly::{LEFT, ORPHAN, Plan, RAN, RELEASE, STARTED};
use crate::{eventually, within};

/// A place for models, and what their workers have in common.
#[derive(Debug)]
pub struct Bench {
    dir: TempDir,
    context: Arc<WorkerContext>,
    unruly: PathBuf,
}

/// A pool and the folder of its model.
#[derive(Debug)]
pub struct Station {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Its model's folder.
    pub dir: PathBuf,
}

impl Bench {
    /// `unruly`: the path of the unruly worker.
    pub fn new(unruly: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let context = WorkerContext::start(WorkerSettings {
            shim: Shim { program: unruly.into() },
            python: None,
            command: None,
            variables: std::env::vars_os().collect(),
            dir: root.to_owned(),
            sdk: root.join("../handler-sdk/python"),
            first_id: 9000,
            // As if the machine had three: handlers are told which one is theirs, and these use none.
            gpus: 3,
            max_response_bytes: 6_553_500,
            decode_input: true,
            limit_max_image_pixels: true,
            blacklist: None,
            lines: Arc::new(ModelLog::default()),
            sink: Arc::new(ModelLog::default()),
            metrics: Arc::default(),
        });
        Self { dir: tempfile::tempdir().unwrap(), context: context.unwrap(), unruly: unruly.into() }
    }

    /// A pool of unruly workers.
    pub fn unruly(&self, plan: Plan, change: impl FnOnce(&mut ModelOptions)) -> Station {
        let program = self.unruly.to_str().unwrap();
        self.station(Runtime::Native, program, change, |dir| plan.write(dir))
    }

    /// A pool of programs that don't exist.
    pub fn missing(&self) -> Station {
        self.station(Runtime::Native, "no-such-program", |_| {}, |_| {})
    }

    /// A pool for a Python handler whose `handle(data, context)` does this with each call's data.
    pub fn python(&self, handle: &str, change: impl FnOnce(&mut ModelOptions)) -> Station {
        let handle = handle.replace('\n', "\n    ");
        let source = format!(
            "import os, sys, time\n\n\ndef handle(data, context):\n    if data is None:\n        return\n    {handle}\n"
        );
        self.python_source(&source, change)
    }

    /// A pool for a Python handler with this source.
    pub fn python_source(&self, source: &str, change: impl FnOnce(&mut ModelOptions)) -> Station {
        self.station(Runtime::Python, "handler.py", change, |dir| {
            fs::write(dir.join("handler.py"), source).unwrap();
        })
    }

    fn station(
        &self,
        runtime: Runtime,
        handler: &str,
        change: impl FnOnce(&mut ModelOptions),
        fill: impl FnOnce(&Path),
    ) -> Station {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        fill(&dir);
        let mut options = ModelOptions::default();
        change(&mut options);
        let spec = ModelSpec {
            name: "m".into(),
            version: "1.0".into(),
            dir: dir.clone(),
            runtime,
            handler: Some(handler.into()),
            envelope: None,
            manifest: json!({"model": {"modelName": "m", "handler": handler}}),
            config: Default::default(),
            options,
        };
        Station { pool: Pool::new(Arc::new(spec), self.context.clone()), dir }
    }
}

impl Station {
    /// With so many workers, all of them ready.
    pub async fn ready(self, workers: u32) -> Self {
        assert_eq!(within(self.pool.scale(workers, workers)).await, Scaled::Done { ready: workers });
        self
    }

    /// Asks for one worker, which has to fail, and gives the reason.
    pub async fn fails(&self) -> (bool, String) {
        match within(self.pool.scale(1, 1)).await {
            Scaled::Failed { memory, reason } => (memory, reason),
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    /// Submits a request.
    pub fn submit(&self, text: &str) -> Pending {
        self.pool.submit(request(text), false).unwrap()
    }

    /// Submits a request that is waited for by a task of its own.
    pub fn spawn(&self, text: &str) -> JoinHandle<Result<Answer, Failure>> {
        tokio::spawn(self.submit(text))
    }

    /// Submits a request and waits for its answer.
    pub async fn ask(&self, text: &str) -> Result<String, Failure> {
        match within(self.pool.submit(request(text), false)?).await {
            Ok(answer) => Ok(text_of(answer).await),
            Err(failure) => Err(failure),
        }
    }

    /// The one worker.
    pub fn worker(&self) -> WorkerStatus {
        let mut workers = self.pool.workers();
        assert_eq!(workers.len(), 1);
        workers.remove(0)
    }

    /// The pid of the one worker.
    pub fn pid(&self) -> u32 {
        self.worker().pid.unwrap()
    }

    /// Waits until the one worker is in this state.
    pub async fn until(&self, state: WorkerState) {
        eventually(&format!("a worker that is {state}"), || self.worker().state == state).await;
    }

    /// The items that were begun, in order.
    pub fn ran(&self) -> Vec<String> {
        self.runs().into_iter().map(|(_, text)| text).collect()
    }

    /// The process that began an item last.
    pub fn who(&self, text: &str) -> u32 {
        self.runs().into_iter().rfind(|(_, ran)| ran == text).unwrap().0
    }

    fn runs(&self) -> Vec<(u32, String)> {
        let parse = |line: String| {
            let (pid, text) = line.split_once(' ').unwrap();
            (pid.parse().unwrap(), text.to_owned())
        };
        self.lines(RAN).into_iter().map(parse).collect()
    }

    /// How often an item was begun.
    pub fn times(&self, text: &str) -> usize {
        self.ran().iter().filter(|ran| *ran == text).count()
    }

    /// Waits until an item has been begun.
    pub async fn begun(&self, text: &str) {
        eventually(&format!("{text:?} was begun"), || self.times(text) > 0).await;
    }

    /// How many processes were started.
    pub fn started(&self) -> usize {
        self.lines(STARTED).len()
    }

    /// How many processes left when they were told to.
    pub fn left(&self) -> usize {
        self.lines(LEFT).len()
    }

    /// Lets items that hold go.
    pub fn release(&self) {
        fs::write(self.dir.join(RELEASE), "").unwrap();
    }

    /// The process that an unruly worker left behind.
    pub fn orphan(&self) -> u32 {
        fs::read_to_string(self.dir.join(ORPHAN)).unwrap().trim().parse().unwrap()
    }

    /// The lines of a file in the model's folder.
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// A request whose one body is this text.
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

/// All of an answer's body, which has to come to its end.
pub async fn text_of(answer: Answer) -> String {
    let bytes = match answer.body {
        AnswerBody::Whole(bytes) => bytes,
        AnswerBody::Stream(mut chunks) => {
            let mut all = BytesMut::new();
            while let Some(chunk) = within(chunks.next()).await {
                all.extend_from_slice(&chunk.unwrap());
            }
            all.freeze()
        }
    };
    String::from_utf8(bytes.to_vec()).unwrap()
}
