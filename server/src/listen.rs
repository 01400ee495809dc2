//! Accepts connections and serves HTTP/1 on them, one task for each.
//!
//! This module knows no paths and no models: what answers is given to it, made anew for each connection. It owns what concerns
//! connections: how many there may be, how long a request's head may take, and how they end when the server stops.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// What a listener allows its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time; more wait to be accepted.
    pub connections: usize,
    /// The longest that a request's head may take, and that a connection may wait for its next request.
    pub head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, head: Duration::from_secs(75) }
    }
}

/// What answers the requests of one connection.
pub trait Answering<B>:
    Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + 'static
{
}

impl<S, B> Answering<B> for S where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + 'static
{
}

/// A listener at work. Dropping it stops accepting and lets go of the connections without waiting for them.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<GracefulShutdown>,
}

impl Listening {
    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, closes idle connections, and waits for the answers under way. Returns how many connections were still
    /// busy after `limit`.
    pub async fn drain(self, limit: Duration) -> usize {
        let _ = self.stop.send(());
        let Ok(connections) = self.accepting.await else { return 0 };
        let before = connections.count();
        debug!(address = %self.address, connections = before, "no longer listening");
        match timeout(limit, connections.shutdown()).await {
            Ok(()) => 0,
            Err(_) => before,
        }
    }
}

/// Serves the connections that come to `listener`; `answering` makes what answers each of them.
pub fn serve<S, B>(
    listener: TcpListener,
    limits: Limits,
    answering: impl Fn(SocketAddr) -> S + Send + 'static,
) -> io::Result<Listening>
where
    S: Answering<B>,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let accepting = tokio::spawn(accept(listener, limits, answering, stopped));
    Ok(Listening { address, stop, accepting })
}

async fn accept<S, B>(
    listener: TcpListener,
    limits: Limits,
    answering: impl Fn(SocketAddr) -> S + Send + 'static,
    mut stopped: oneshot::Receiver<()>,
) -> GracefulShutdown
where
    S: Answering<B>,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let connections = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head);
    loop {
        let (stream, peer, slot) = tokio::select! {
            next = next(&listener, &slots) => next,
            _ = &mut stopped => return connections,
        };
        let (http, watcher, service) = (http.clone(), connections.watcher(), answering(peer));
        tokio::spawn(connection(http, stream, peer, service, watcher, slot));
    }
}

/// The next connection that there is room for.
async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    if slots.available_permits() == 0 {
        warn!("as many connections as allowed are open; new ones wait");
    }
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, slot),
            // The client left between connecting and being accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Out of descriptors or memory: accepting again at once would only spin.
            Err(error) => {
                warn!(%error, "can't accept a connection; trying again in a second");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection<S, B>(
    http: http1::Builder,
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    watcher: Watcher,
    slot: OwnedSemaphorePermit,
) where
    S: Answering<B>,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    // Without it a small answer may wait for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "no TCP_NODELAY");
    }
    if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await {
        debug!(%peer, %error, "connection ended early");
    }
    drop(slot);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    async fn listening(limits: Limits, gate: Arc<Notify>, seen: Arc<Mutex<Vec<String>>>) -> Listening {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        serve(listener, limits, move |_| {
            let (gate, seen) = (gate.clone(), seen.clone());
            service_fn(move |request: Request<Incoming>| {
                let (gate, seen) = (gate.clone(), seen.clone());
                async move {
                    seen.lock().unwrap().push(request.uri().path().to_owned());
                    if request.uri().path() == "/wait" {
                        gate.notified().await;
                    }
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"here"))))
                }
            })
        })
        .unwrap()
    }

    async fn plain(limits: Limits) -> Listening {
        listening(limits, Arc::default(), Arc::default()).await
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"here") {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).await.unwrap();
            assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&piece[..length]);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn a_connection_serves_requests_of_both_versions_one_after_the_other() {
        let server = plain(Limits::default()).await;
        let mut client = TcpStream::connect(server.address()).await.unwrap();
        for request in
            ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"]
        {
            client.write_all(request.as_bytes()).await.unwrap();
            assert!(answer(&mut client).await.contains(" 200 OK\r\n"));
        }
    }

    #[tokio::test]
    async fn draining_closes_idle_connections_and_waits_for_answers_under_way() {
        let (gate, seen) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
        let server = listening(Limits::default(), gate.clone(), seen.clone()).await;
        let address = server.address();
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        answer(&mut idle).await;
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        while seen.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        let draining = tokio::spawn(server.drain(Duration::from_secs(60)));
        assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(TcpStream::connect(address).await.is_err());
        gate.notify_one();
        answer(&mut busy).await;
        assert_eq!(busy.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(draining.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn draining_ends_even_if_a_request_does_not() {
        let (gate, seen) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
        let server = listening(Limits::default(), gate, seen.clone()).await;
        let mut busy = TcpStream::connect(server.address()).await.unwrap();
        busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        while seen.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.drain(Duration::from_millis(10)).await, 1);
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_not_waited_for() {
        let server = plain(Limits { head: Duration::from_millis(20), ..Limits::default() }).await;
        let mut client = TcpStream::connect(server.address()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nx-slow: ").await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&rest));
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_for_room() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let limits = Limits { connections: 1, ..Limits::default() };
        let server = listening(limits, Arc::default(), seen.clone()).await;
        let mut first = TcpStream::connect(server.address()).await.unwrap();
        first.write_all(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        answer(&mut first).await;
        let mut second = TcpStream::connect(server.address()).await.unwrap();
        second.write_all(b"GET /3 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        first.write_all(b"GET /2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        answer(&mut first).await;
        answer(&mut second).await;
        assert_eq!(*seen.lock().unwrap(), ["/1", "/2", "/3"]);
    }
}
