//! Which program a worker of a model is, and what it is told to load.

use std::path::{Component, Path, PathBuf};

use zoo_proto::wire::start::{Load, LoadModel};

use super::context::WorkerContext;
use super::gpu::Assigned;
use super::launch::LaunchSpec;
use super::python::WorkerEnvironment;
use crate::model::{ModelSpec, Parallel, Runtime};
use crate::name::WorkerName;

/// Batches that a concurrent handler may have open at a time if the model's batch size doesn't say.
fn concurrency(spec: &ModelSpec) -> u32 {
    if spec.options.batch_size > 1 {
        spec.options.batch_size
    } else {
        u32::try_from(spec.options.job_queue_size).unwrap_or(u32::MAX)
    }
}

/// How the process of a worker is made, or why it can't be.
pub(super) fn launch_spec(
    context: &WorkerContext,
    spec: &ModelSpec,
    name: &WorkerName,
    assigned: &Assigned,
) -> Result<LaunchSpec, String> {
    if let Some(parallel @ (Parallel::Pipeline | Parallel::Tensor | Parallel::PipelineAndTensor)) =
        spec.options.devices.parallel
    {
        let parallel = parallel.as_str();
        return Err(format!(
            "parallelType {parallel} needs one process for each GPU, started by torchrun, which this server doesn't do; \
             with parallelType custom the handler gets all its GPUs in one process"
        ));
    }
    let handler = spec.handler.as_deref().unwrap_or_default();
    let name = name.to_string();
    let mut launch = match spec.runtime {
        Runtime::Python | Runtime::Python3 => {
            let python = if spec.runtime == Runtime::Python { context.python() } else { context.python3() };
            let python = python.map_err(ToString::to_string)?;
            LaunchSpec::new(&name, &python.path, &spec.dir).arg(context.sdk().join("zoo_worker.py"))
        }
        Runtime::Native => LaunchSpec::new(&name, spec.dir.join(handler), &spec.dir),
    };
    launch.args.push(name.into());
    launch.env = WorkerEnvironment {
        variables: &context.settings.variables,
        hidden: &context.hidden,
        model_dir: &spec.dir,
        handler_dir: handler_dir(&spec.dir, handler).as_deref(),
        threads: context.threads(&spec.options),
        decode_input_request: context.settings.decode_input,
        ipex: false,
        ipex_gpu: false,
    }
    .build();
    if let Some(visible) = &assigned.visible {
        let visible: Vec<_> = visible.iter().map(ToString::to_string).collect();
        launch.env.set("CUDA_VISIBLE_DEVICES", visible.join(","));
    }
    Ok(launch)
}

/// The folder of a handler that is named with one: `src/handler.py:handle`.
fn handler_dir(model_dir: &Path, handler: &str) -> Option<PathBuf> {
    let file = Path::new(handler.split(':').next()?);
    let folder = file.parent().filter(|folder| folder.components().next().is_some())?;
    let inside = folder.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    inside.then(|| model_dir.join(folder))
}

/// What a worker is told to load.
pub(super) fn load(
    context: &WorkerContext,
    spec: &ModelSpec,
    name: &WorkerName,
    assigned: &Assigned,
) -> Load {
    let options = &spec.options;
    Load {
        model: LoadModel {
            name: spec.name.to_string(),
            version: spec.version.to_string(),
            dir: spec.dir.to_string_lossy().into_owned(),
            handler: spec.handler.clone(),
            manifest: spec.manifest.clone(),
            config: spec.config.clone(),
        },
        worker: name.to_string(),
        batch_size: options.batch_size,
        gpu: assigned.gpu,
        envelope: spec.envelope.clone(),
        concurrency: concurrency(spec),
        asynchronous: options.asynchronous,
        coalesce: options.retry_on_worker_death,
        decode_input: context.settings.decode_input,
        limit_max_image_pixels: context.settings.limit_max_image_pixels,
        max_response_bytes: context.settings.max_response_bytes,
        // The front has bounded what it read; what it makes of it, such as tensors out of JSON, may be larger.
        max_request_bytes: None,
        headers: [
            ("sequence_id", "ts_request_sequence_id"),
            ("sequence_start", "ts_request_sequence_start"),
            ("sequence_end", "ts_request_sequence_end"),
        ]
        .map(|(key, name)| (key.to_owned(), name.to_owned()))
        .into(),
        metrics: Some(context.settings.metrics.model_section()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_in_a_folder_brings_its_folder() {
        let model = Path::new("/m");
        let cases = [
            ("handler.py", None),
            ("handler:handle", None),
            ("", None),
            ("src/handler.py:handle", Some("/m/src")),
            ("a/b/handler", Some("/m/a/b")),
            ("../x/handler.py", None),
            ("/etc/handler.py", None),
        ];
        for (handler, expected) in cases {
            assert_eq!(handler_dir(model, handler).as_deref(), expected.map(Path::new), "{handler}");
        }
    }
}
