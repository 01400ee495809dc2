//! Pools with real worker processes.

mod common;

use std::time::Duration;

use common::{Bench, body, predict};
use zoo_server::worker::pool::Scaled;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_handler_answers() {
    let bench = Bench::new();
    let pool = bench.python("return [row['body'].decode()[::-1] for row in data]", |_| {});
    assert_eq!(pool.scale(1, 1).await, Scaled::Done { ready: 1 });
    assert_eq!(body(predict(&pool, "abc").await.unwrap()).await, "cba");
    let workers = pool.workers();
    assert_eq!(workers.len(), 1);
    assert!(workers[0].pid.is_some() && workers[0].memory_bytes > 0);
    let gone = zoo_server::failure::Failure::ShuttingDown;
    pool.stop(gone, Duration::from_secs(10)).await.unwrap();
    assert!(pool.workers().is_empty());
}
