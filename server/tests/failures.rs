//! The whole failure table as clients see it, compared with `failures.txt` beside this file. `UPDATE_EXPECT=1` rewrites it.

#![expect(clippy::expect_used, reason = "a failed expectation fails the test")]

use std::fmt::Write;
use std::path::Path;

use axum::response::IntoResponse;
use http_body_util::BodyExt;
use zoo_server::failure::{Failure, Unavailable};
use zoo_server::name::ModelRef;

/// Each failure, with and without what changes its row or text.
fn every() -> Vec<Failure> {
    use Failure as F;
    let text = |text: &str| text.to_owned();
    let bare = ModelRef { model: "m".into(), version: None };
    let full = ModelRef { version: Some("1.0".into()), ..bare.clone() };
    vec![
        F::RouteNotFound,
        F::MethodNotAllowed,
        F::InvalidMessage { why: text("for the log") },
        F::ParameterRequired { name: "url" },
        F::BadRequest { message: text("What is wrong.") },
        F::BodyTooLarge { limit: 6_553_500 },
        F::ModelNotFound { model: text("m") },
        F::VersionNotFound { model: "m".into(), version: text("2") },
        F::DefaultNotFound { model: "m".into(), version: text("2") },
        F::EmptyUrl,
        F::RelativeUrl { url: text("../m.mar") },
        F::NothingAtUrl { url: text("m.mar") },
        F::NoModelStore,
        F::UrlNotAllowed { url: text("ftp://h/m.mar") },
        F::DownloadFailed { url: text("http://h/m.mar"), why: text("for the log") },
        F::FileExists { file: text("m.mar") },
        F::SaveFailed { url: text("http://h/m.mar"), why: text("for the log") },
        F::InvalidRuntime { value: text("java") },
        F::InvalidArchive { message: text("Model name is not defined.") },
        F::VersionExists { model: "m".into(), version: "1.0".into() },
        F::RegistrationCancelled { model: text("m") },
        F::ForeignOrigin { origin: text("https://evil.example") },
        F::ForeignHost { host: text("rebound.example:8081") },
        F::WorkerBounds,
        F::WorkersFailed { model: "m".into(), version: None, memory: false },
        F::WorkersFailed { model: "m".into(), version: Some("1.0".into()), memory: true },
        F::NoDevices { model: "m".into(), version: "1.0".into() },
        F::DefaultInUse { model: "m".into() },
        F::CleanupTimeout { model: "m".into() },
        F::Unavailable { model: bare.clone(), why: Unavailable::NoWorker },
        F::Unavailable { model: full.clone(), why: Unavailable::NoWorker },
        F::Unavailable { model: bare.clone(), why: Unavailable::QueueFull },
        F::Unavailable { model: bare.clone(), why: Unavailable::QueueBytes },
        F::Unavailable { model: bare, why: Unavailable::Stopping },
        F::NoWorkerToDescribe { model: "m".into() },
        F::DescribeFailed,
        F::WorkerDied { memory: false },
        F::WorkerDied { memory: true },
        F::Handler { status: 503, message: text("Prediction failed") },
        F::Handler { status: 507, message: text("Out of resources") },
        F::Handler { status: 418, message: text("Refused by \"the\" handler\nin two lines") },
        F::Handler { status: 42, message: text("A status that doesn't exist") },
        F::DeadlineExceeded,
        F::ShuttingDown,
        F::Internal { message: text("What broke.") },
    ]
}

/// A failure that isn't named here doesn't compile; one that is named here and missing in [`every`] fails the test.
fn name(failure: &Failure) -> (usize, &'static str) {
    macro_rules! names {
        ($($name:ident),* $(,)?) => {{
            let names = [$(stringify!($name)),*];
            let name = match failure { $(Failure::$name { .. } => stringify!($name)),* };
            (names.len(), name)
        }};
    }
    names!(
        RouteNotFound,
        MethodNotAllowed,
        InvalidMessage,
        ParameterRequired,
        BadRequest,
        BodyTooLarge,
        ModelNotFound,
        VersionNotFound,
        DefaultNotFound,
        EmptyUrl,
        RelativeUrl,
        NothingAtUrl,
        NoModelStore,
        UrlNotAllowed,
        DownloadFailed,
        FileExists,
        SaveFailed,
        InvalidRuntime,
        InvalidArchive,
        VersionExists,
        RegistrationCancelled,
        ForeignOrigin,
        ForeignHost,
        WorkerBounds,
        WorkersFailed,
        NoDevices,
        DefaultInUse,
        CleanupTimeout,
        Unavailable,
        NoWorkerToDescribe,
        DescribeFailed,
        WorkerDied,
        Handler,
        DeadlineExceeded,
        ShuttingDown,
        Internal,
    )
}

async fn block(failure: Failure) -> String {
    let row = failure.row();
    let mut block = format!("{}\n", name(&failure).1);
    let _ = writeln!(block, "gRPC {:?}, fault of {:?}, retry {:?}", row.grpc, row.blame, row.retry);
    let response = failure.into_response();
    let _ = writeln!(block, "HTTP {}", response.status());
    for (name, value) in response.headers() {
        let _ = writeln!(block, "{name}: {}", value.to_str().expect("headers are text"));
    }
    let body = response.into_body().collect().await.expect("the body is at hand").to_bytes();
    block + &String::from_utf8_lossy(&body)
}

#[tokio::test]
async fn the_failure_table_is_as_committed() {
    let failures = every();
    let mut named: Vec<_> = failures.iter().map(|failure| name(failure).1).collect();
    named.dedup();
    assert_eq!(named.len(), name(&Failure::RouteNotFound).0, "each failure has its place: {named:?}");

    let mut table = String::new();
    for failure in failures {
        table += &block(failure).await;
        table.push('\n');
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/failures.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &table).expect("failures.txt is writable");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(table == committed, "the table changed; UPDATE_EXPECT=1 accepts it:\n{table}");
}
