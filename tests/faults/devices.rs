//! Which GPU a worker is told to use, on a bench that pretends to have three.

use std::collections::BTreeSet;

use zoo_e2e::within;
use zoo_server::model::{DeviceType, Devices, Parallel};
use zoo_server::worker::pool::Scaled;

use crate::bench;

const SEEN: &str = "\
gpu = context.system_properties['gpu_id']
return [f\"{gpu} {os.environ.get('CUDA_VISIBLE_DEVICES')}\"] * len(data)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_device_comes_first() {
    let bench = bench();
    let station = bench.python(SEEN, |_| {}).ready(1).await;
    assert_eq!(station.ask("").await.unwrap(), "1 None");
    assert_eq!(station.worker().gpu, Some(1));
    assert!(station.pool.uses_gpu());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_for_the_cpu_gets_none() {
    let bench = bench();
    let cpu = Devices { kind: Some(DeviceType::Cpu), ..Devices::default() };
    let station = bench.python(SEEN, |options| options.devices = cpu).ready(1).await;
    assert_eq!(station.ask("").await.unwrap(), "None None");
    assert!(!station.pool.uses_gpu());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_devices_are_shared_out_from_the_first() {
    let bench = bench();
    let named = Devices { ids: vec![2, 0], ..Devices::default() };
    let station = bench.python(SEEN, |options| options.devices = named).ready(2).await;
    let gpus: Vec<_> = station.pool.workers().iter().map(|worker| worker.gpu).collect();
    assert_eq!(gpus, [Some(2), Some(0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spread_model_has_as_many_workers_as_there_are_sets_of_devices() {
    let bench = bench();
    let spread = |per_worker| Devices { parallel: Some(Parallel::Custom), per_worker, ..Devices::default() };
    let station = bench.python(SEEN, |options| options.devices = spread(2));
    assert_eq!(within(station.pool.scale(2, 2)).await, Scaled::Done { ready: 1 });
    assert_eq!(station.ask("").await.unwrap(), "0 0,1");
    let station = bench.python(SEEN, |options| options.devices = spread(4));
    assert_eq!(within(station.pool.scale(1, 1)).await, Scaled::NoDevices);
    assert!(station.pool.workers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_torchrun_says_so() {
    let bench = bench();
    let mut words = BTreeSet::new();
    for parallel in [Parallel::Pipeline, Parallel::Tensor, Parallel::PipelineAndTensor] {
        let devices = Devices { parallel: Some(parallel), per_worker: 1, ..Devices::default() };
        let station = bench.python(SEEN, |options| options.devices = devices);
        let (memory, reason) = station.fails().await;
        assert!(!memory && reason.contains("started by torchrun"), "{reason}");
        words.insert(parallel.as_str());
        assert!(reason.contains(&format!("parallelType {} ", parallel.as_str())), "{reason}");
    }
    assert_eq!(words.len(), 3);
}
