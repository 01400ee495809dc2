//! What describing a model version shows: TorchServe's fields, in its order, and a few of ours.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::model::{ModelSpec, Parallel};
use crate::registry::{ModelVersion, Registering};
use crate::request::{Answer, AnswerBody};
use crate::worker::state::WorkerState;
use crate::worker::status::WorkerStatus;

/// What TorchServe shows if no delay was set.
const USUAL_BATCH_DELAY: Duration = Duration::from_millis(100);

/// A model version, described.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Description {
    /// One that is there.
    Registered(Box<Registered>),
    /// One that was accepted and isn't there yet.
    Registering(OnTheWay),
}

/// What is known before an archive has been looked into.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OnTheWay {
    model_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<String>,
    model_url: String,
    state: &'static str,
    /// How much of the archive is here, of how much; for what comes from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registered {
    model_name: String,
    model_version: String,
    model_url: String,
    runtime: &'static str,
    min_workers: u32,
    max_workers: u32,
    #[serde(flatten)]
    options: Options,
    loaded_at_startup: bool,
    /// Ours: how far the version has come.
    state: &'static str,
    workers: Vec<Worker>,
    job_queue_status: Queue,
    #[serde(skip_serializing_if = "Option::is_none")]
    customized_metadata: Option<Value>,
}

/// How the version wants to be served. What this server doesn't have is shown as TorchServe shows it where it is off.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    batch_size: u32,
    max_batch_delay: u64,
    response_timeout: u64,
    startup_timeout: u64,
    max_retry_timeout_in_sec: u64,
    client_timeout_in_mills: u64,
    parallel_type: &'static str,
    parallel_level: u32,
    device_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    device_ids: Vec<u32>,
    continuous_batching: bool,
    use_job_ticket: bool,
    use_venv: bool,
    stateful: bool,
    sequence_max_idle_m_sec: u64,
    sequence_timeout_m_sec: u64,
    max_num_sequence: u32,
    max_sequence_job_queue_size: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    remaining_capacity: usize,
    pending_requests: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    id: String,
    start_time: String,
    /// `READY` or `UNLOADING`: all that TorchServe's clients know.
    status: &'static str,
    /// Ours: what the worker is really doing.
    state: String,
    memory_usage: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    gpu: bool,
    gpu_usage: String,
    /// Ours: why it, or the one that it replaced, ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
}

impl Description {
    /// What is known without asking the handler.
    pub(super) fn of(version: &ModelVersion) -> Self {
        Self::Registered(Box::new(Registered::of(version)))
    }

    /// And what the handler says of itself.
    pub(super) async fn customized(version: &ModelVersion, request_id: String) -> Result<Self, Failure> {
        let answer = version.pool.describe_handler(request_id)?.await.map_err(|failure| match failure {
            Failure::DeadlineExceeded => Failure::DescribeFailed,
            other => other,
        })?;
        let customized_metadata = Some(metadata(answer).await?);
        Ok(Self::Registered(Box::new(Registered { customized_metadata, ..Registered::of(version) })))
    }

    /// What is known of a version that isn't there yet.
    pub(super) fn of_registering(registering: &Registering) -> Self {
        let fetched = registering.fetched();
        Self::Registering(OnTheWay {
            model_name: registering.model().to_string(),
            model_version: registering.version().map(ToString::to_string),
            model_url: registering.url.clone(),
            state: registering.state().as_str(),
            fetched_bytes: fetched.map(|fetched| fetched.bytes),
            archive_bytes: fetched.and_then(|fetched| fetched.total),
        })
    }
}

impl Registered {
    fn of(version: &ModelVersion) -> Self {
        let (min_workers, max_workers) = version.pool.bounds();
        let workers = version.pool.workers();
        let queue = version.pool.queue();
        let gpu = version.pool.uses_gpu();
        Self {
            model_name: version.name.to_string(),
            model_version: version.version.to_string(),
            model_url: version.url.clone(),
            runtime: version.spec.runtime.as_str(),
            min_workers,
            max_workers,
            options: Options::of(&version.spec, gpu),
            loaded_at_startup: version.loaded_at_startup,
            state: version.state().as_str(),
            workers: workers.into_iter().map(Worker::from).collect(),
            job_queue_status: Queue {
                remaining_capacity: queue.capacity.saturating_sub(queue.pending),
                pending_requests: queue.pending,
            },
            customized_metadata: None,
        }
    }
}

/// The handler's words: as JSON if they are, else as text.
async fn metadata(answer: Answer) -> Result<Value, Failure> {
    let bytes = match answer.body {
        AnswerBody::Whole(bytes) => bytes.to_vec(),
        AnswerBody::Stream(mut chunks) => {
            let mut all = Vec::new();
            while let Some(chunk) = chunks.next().await {
                all.extend_from_slice(&chunk?);
            }
            all
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    Ok(serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned())))
}

impl Options {
    fn of(spec: &ModelSpec, gpu: bool) -> Self {
        let options = &spec.options;
        Self {
            batch_size: options.batch_size,
            max_batch_delay: millis(options.max_batch_delay.unwrap_or(USUAL_BATCH_DELAY)),
            response_timeout: options.response_timeout.as_secs(),
            startup_timeout: options.startup_timeout.as_secs(),
            max_retry_timeout_in_sec: options.max_retry_timeout.as_secs(),
            client_timeout_in_mills: options.client_timeout.map_or(0, millis),
            parallel_type: options.devices.parallel.map_or("", Parallel::as_str),
            parallel_level: options.devices.per_worker,
            device_type: if gpu { "gpu" } else { "cpu" },
            device_ids: options.devices.ids.clone(),
            continuous_batching: false,
            use_job_ticket: options.use_job_ticket,
            use_venv: false,
            stateful: false,
            sequence_max_idle_m_sec: 0,
            sequence_timeout_m_sec: 0,
            max_num_sequence: 1,
            max_sequence_job_queue_size: 1,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<WorkerStatus> for Worker {
    fn from(worker: WorkerStatus) -> Self {
        Self {
            id: worker.id.to_string(),
            start_time: time(worker.started),
            status: if worker.state == WorkerState::Ready { "READY" } else { "UNLOADING" },
            state: worker.state.to_string(),
            memory_usage: worker.memory_bytes,
            pid: worker.pid,
            gpu: worker.gpu.is_some(),
            gpu_usage: worker.gpu.map_or_else(|| "N/A".to_owned(), |gpu| format!("gpuId::{gpu}")),
            last_failure: worker.last_failure,
        }
    }
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn times_are_written_as_torchserve_writes_them() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_042);
        assert_eq!(time(then), "2023-11-14T22:13:20.042Z");
    }

    #[tokio::test]
    async fn a_handlers_description_is_json_if_it_can_be_read_as_such() {
        for (given, expected) in [
            ("{\"a\": [1]}", serde_json::json!({"a": [1]})),
            ("plain words", Value::from("plain words")),
            ("", Value::from("")),
        ] {
            let body = AnswerBody::Whole(Bytes::from_static(given.as_bytes()));
            let answer = Answer { status: 200, headers: Default::default(), body };
            assert_eq!(metadata(answer).await.unwrap(), expected);
        }
    }

    #[test]
    fn only_a_ready_worker_is_ready() {
        use WorkerState as W;
        let status = |state| WorkerStatus {
            id: 9000,
            state,
            started: SystemTime::UNIX_EPOCH,
            pid: Some(42),
            gpu: None,
            healthy: true,
            last_failure: None,
            memory_bytes: 7,
        };
        for state in [W::Starting, W::Loading, W::Draining, W::BackingOff, W::Failed, W::Stopped] {
            assert_eq!(Worker::from(status(state)).status, "UNLOADING");
        }
        let shown = serde_json::to_value(Worker::from(status(W::Ready))).unwrap();
        let expected = serde_json::json!({
            "id": "9000", "startTime": "1970-01-01T00:00:00.000Z", "status": "READY", "state": "READY",
            "memoryUsage": 7, "pid": 42, "gpu": false, "gpuUsage": "N/A",
        });
        assert_eq!(shown, expected);
    }
}
