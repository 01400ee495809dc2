//! The request of a run: built once, sent unchanged each time, at the least cost for the generator.

use std::fs::File;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;

/// From this size on a body is sent from a file in memory. The kernel then refers to its pages instead of
/// copying them, which would otherwise cost the generator as much CPU as a fast server uses to read the body.
const SENT_BY_REFERENCE: usize = 64 * 1024;

/// What every client of a run sends.
#[derive(Debug)]
pub(super) struct Request {
    /// The head, and the body when it is small.
    bytes: Vec<u8>,
    large_body: Option<LargeBody>,
}

#[derive(Debug)]
struct LargeBody {
    file: File,
    length: usize,
}

impl Request {
    /// A POST to `target` with a body of `body_bytes` zeros.
    pub(super) fn new(target: &http::Uri, body_bytes: usize) -> Result<Self> {
        let path = target.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let host = target.authority().map_or("", http::uri::Authority::as_str);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {body_bytes}\r\n\r\n"
        );
        let mut bytes = head.into_bytes();
        let body = vec![b'0'; body_bytes];
        let large_body = if body_bytes < SENT_BY_REFERENCE {
            bytes.extend(body);
            None
        } else {
            Some(LargeBody::new(&body).context("cannot keep the body in memory")?)
        };
        Ok(Self { bytes, large_body })
    }

    /// Sends the whole request.
    pub(super) async fn send(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&self.bytes).await?;
        match &self.large_body {
            Some(body) => body.send(stream).await,
            None => Ok(()),
        }
    }
}

impl LargeBody {
    fn new(body: &[u8]) -> io::Result<Self> {
        let mut file = File::from(memfd_create("body", MemfdFlags::CLOEXEC)?);
        file.write_all(body)?;
        Ok(Self { file, length: body.len() })
    }

    async fn send(&self, stream: &TcpStream) -> io::Result<()> {
        let mut offset = 0;
        while (offset as usize) < self.length {
            let rest = self.length - offset as usize;
            let send = || Ok(sendfile(stream, &self.file, Some(&mut offset), rest)?);
            if stream.async_io(Interest::WRITABLE, send).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn received(body_bytes: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = "http://127.0.0.1:8080/predictions/a?b=c".parse().unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let sender =
            tokio::spawn(async move { Request::new(&target, body_bytes).unwrap().send(&mut stream).await });
        let mut text = String::new();
        listener.accept().await.unwrap().0.read_to_string(&mut text).await.unwrap();
        sender.await.unwrap().unwrap();
        text
    }

    #[tokio::test]
    async fn small_and_large_bodies_arrive_whole_behind_the_same_head() {
        for body_bytes in [0, 3, SENT_BY_REFERENCE - 1, SENT_BY_REFERENCE, 5_000_000] {
            let text = received(body_bytes).await;
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with("POST /predictions/a?b=c HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"),
                "{head}"
            );
            assert!(head.ends_with(&format!("\r\nContent-Length: {body_bytes}")), "{head}");
            assert!(body.len() == body_bytes && body.bytes().all(|byte| byte == b'0'), "{}", body.len());
        }
    }
}
