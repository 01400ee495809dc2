//! The floor: an HTTP server that reads the body, answers two bytes and does nothing else. No server with a
//! model behind it can be faster with the same HTTP stack, so every other result is read against this one.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

/// The answer of the floor and of every no-op handler.
pub const ANSWER: &str = "ok";

/// Serves on `address` until the process is stopped; says where on stdout, as a port of 0 takes a free one.
///
/// # Errors
/// When the address can't be bound or the listener breaks.
pub fn run(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the floor's runtime")?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        println!("listening on {}", listener.local_addr().context("the listener has no address")?);
        serve(listener).await
    })
}

async fn serve(listener: TcpListener) -> Result<()> {
    let app = Router::new().fallback(answer).layer(DefaultBodyLimit::disable());
    let listener = listener.tap_io(|stream| {
        // Without it a delayed acknowledgement could hold an answer; the connection works all the same.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await.context("the listener broke")
}

async fn answer(_body: Bytes) -> &'static str {
    ANSWER
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::{self, Plan};

    #[test]
    fn the_floor_answers_bodies_of_every_size() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let target =
            format!("http://{}/any/path", listener.local_addr().unwrap()).parse::<http::Uri>().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(async { serve(TcpListener::from_std(listener).unwrap()).await.unwrap() });
        for body_bytes in [0, 1, 4 * 1024 * 1024] {
            let report = load::run(&Plan {
                target: target.clone(),
                body_bytes,
                expect: Some(ANSWER.to_owned()),
                clients: 2,
                warm_up: Duration::ZERO,
                duration: Duration::from_millis(200),
                grace: Duration::from_secs(10),
                server: None,
            })
            .unwrap();
            assert!(report.is_clean(), "{report}");
        }
    }
}
