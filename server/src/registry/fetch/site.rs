//! An HTTP server on this machine that does what a test says: one answer for each connection.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What is sent on one connection.
pub(in crate::registry) struct Answer {
    begin: Vec<u8>,
    /// Sent after the gate was opened.
    end: Option<(Arc<Notify>, Vec<u8>)>,
}

impl Answer {
    /// Just these bytes.
    pub(in crate::registry) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { begin: bytes.into(), end: None }
    }

    /// A status and headers, the length among them, and a body.
    pub(in crate::registry) fn with(head: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
        Self::raw([head.as_bytes(), body].concat())
    }

    pub(in crate::registry) fn ok(body: &[u8]) -> Self {
        Self::with("200 OK", body)
    }

    pub(in crate::registry) fn status(status: &str) -> Self {
        Self::with(status, b"no")
    }

    pub(in crate::registry) fn redirect(to: &str) -> Self {
        Self::with(&format!("302 Found\r\nLocation: {to}"), b"")
    }

    /// Ends so many bytes too early.
    pub(in crate::registry) fn cut(mut self, bytes: usize) -> Self {
        self.begin.truncate(self.begin.len() - bytes);
        self
    }

    /// Holds the last bytes back until the gate is opened.
    pub(in crate::registry) fn gated(mut self, bytes: usize, gate: &Arc<Notify>) -> Self {
        let end = self.begin.split_off(self.begin.len() - bytes);
        self.end = Some((gate.clone(), end));
        self
    }
}

/// Exists as long as the value does.
pub(in crate::registry) struct Site {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Site {
    pub(in crate::registry) async fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::at(|_| answers).await
    }

    /// For answers that name the server itself.
    pub(in crate::registry) async fn at<A>(answers: impl FnOnce(SocketAddr) -> A) -> Self
    where
        A: IntoIterator<Item = Answer>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Vec<_> = answers(address).into_iter().collect();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, answers, requests.clone()));
        Self { address, requests, task }
    }

    pub(in crate::registry) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(in crate::registry) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The heads of the requests so far.
    pub(in crate::registry) fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// After the last answer nobody listens any more.
async fn serve(listener: TcpListener, answers: Vec<Answer>, requests: Arc<Mutex<Vec<String>>>) {
    let mut open = Vec::new();
    for answer in answers {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await;
        requests.lock().push(head);
        open.push(tokio::spawn(async move {
            // The other end may leave whenever it likes.
            let _ = stream.write_all(&answer.begin).await;
            if let Some((gate, end)) = answer.end {
                gate.notified().await;
                let _ = stream.write_all(&end).await;
            }
        }));
    }
    drop(listener);
    for connection in open {
        connection.await.unwrap();
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    // TLS begins with a 22, and waits for an answer then.
    while !head.ends_with(b"\r\n\r\n") && head.first() != Some(&22) {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).to_lowercase()
}
