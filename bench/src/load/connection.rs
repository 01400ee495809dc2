//! One keep-alive HTTP/1.1 connection: sends bytes that are ready and reads as much of the answer as counting
//! needs.
//!
//! Knows statuses, lengths and chunks, and nothing of redirects, cookies, compression or pipelining.

use std::fmt;
use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::request::Request;

/// Room for one read. Small answers fit whole; large ones take several reads.
const READ_BYTES: usize = 16 * 1024;
/// No server under test sends more header lines.
const MAX_HEADERS: usize = 64;

/// One answer, valid until the next exchange on the same connection.
#[derive(Debug, PartialEq)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Failure {
    Connect(io::Error),
    Transfer(io::Error),
    ClosedEarly,
    Malformed(&'static str),
}

impl Failure {
    /// The name under which failures of this kind are counted.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "no connection",
            Self::Transfer(_) => "transfer failed",
            Self::ClosedEarly => "closed early",
            Self::Malformed(_) => "malformed answer",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) | Self::Transfer(error) => error.fmt(f),
            Self::ClosedEarly => {
                f.write_str("the server closed the connection before its answer was complete")
            }
            Self::Malformed(what) => f.write_str(what),
        }
    }
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// What the generator needs from an answer's head.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Head {
    status: u16,
    bytes: usize,
    framing: Framing,
    keep_alive: bool,
}

/// A connection that is opened when first needed and again whenever the server has closed it.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    address: &'a str,
    stream: Option<TcpStream>,
    received: Vec<u8>,
    unchunked: Vec<u8>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(address: &'a str) -> Self {
        Self { address, stream: None, received: Vec::with_capacity(READ_BYTES), unchunked: Vec::new() }
    }

    /// Sends `request`, reads the whole answer. After a failure the next exchange starts on a new connection.
    pub(super) async fn exchange(&mut self, request: &Request) -> Result<Answer<'_>, Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address).await.map_err(Failure::Connect)?,
        };
        self.received.clear();
        if let Err(error) = request.send(&mut stream).await {
            // A server may refuse a body before it has read it all; then its answer says more than the broken
            // pipe.
            let refusal = self.read_head(&mut stream).await.map_err(|_| Failure::Transfer(error))?;
            return Ok(Answer { status: refusal.status, body: &self.received[refusal.bytes..] });
        }
        let head = self.read_head(&mut stream).await?;
        self.read_body(&mut stream, head).await?;
        if head.keep_alive {
            self.stream = Some(stream);
        }
        let body = match head.framing {
            Framing::Length(length) => &self.received[head.bytes..head.bytes + length],
            Framing::Chunked => &self.unchunked,
            Framing::UntilClose => &self.received[head.bytes..],
        };
        Ok(Answer { status: head.status, body })
    }

    /// Reads up to the end of the first head that isn't an interim one.
    async fn read_head(&mut self, stream: &mut TcpStream) -> Result<Head, Failure> {
        loop {
            match parse_head(&self.received)? {
                Some(interim) if interim.status < 200 => drop(self.received.drain(..interim.bytes)),
                Some(head) => return Ok(head),
                None => self.read_more(stream).await?,
            }
        }
    }

    async fn read_body(&mut self, stream: &mut TcpStream, head: Head) -> Result<(), Failure> {
        match head.framing {
            Framing::Length(length) => self.read_to(stream, head.bytes + length).await,
            Framing::Chunked => self.read_chunks(stream, head.bytes).await,
            Framing::UntilClose => {
                stream.read_to_end(&mut self.received).await.map_err(Failure::Transfer)?;
                Ok(())
            }
        }
    }

    async fn read_chunks(&mut self, stream: &mut TcpStream, mut at: usize) -> Result<(), Failure> {
        self.unchunked.clear();
        loop {
            let parsed = httparse::parse_chunk_size(&self.received[at..]);
            match parsed.map_err(|_| Failure::Malformed("a chunk's size isn't a number"))? {
                httparse::Status::Partial => self.read_more(stream).await?,
                // Trailers are announced by the request (`TE: trailers`), so only the empty line can follow.
                httparse::Status::Complete((line, 0)) => return self.read_to(stream, at + line + 2).await,
                httparse::Status::Complete((line, length)) => {
                    let length =
                        usize::try_from(length).map_err(|_| Failure::Malformed("a chunk is too large"))?;
                    let data = at + line;
                    self.read_to(stream, data + length + 2).await?;
                    self.unchunked.extend_from_slice(&self.received[data..data + length]);
                    at = data + length + 2;
                }
            }
        }
    }

    async fn read_to(&mut self, stream: &mut TcpStream, length: usize) -> Result<(), Failure> {
        while self.received.len() < length {
            self.read_more(stream).await?;
        }
        Ok(())
    }

    async fn read_more(&mut self, stream: &mut TcpStream) -> Result<(), Failure> {
        self.received.reserve(READ_BYTES);
        match stream.read_buf(&mut self.received).await {
            Ok(0) => Err(Failure::ClosedEarly),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Transfer(error)),
        }
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The head that `received` begins with, or nothing when it isn't complete yet.
fn parse_head(received: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(received).map_err(|_| Failure::Malformed("the answer isn't HTTP/1.1"))?;
    let (httparse::Status::Complete(bytes), Some(status)) = (parsed, response.code) else { return Ok(None) };
    let bodiless = status < 200 || status == 204 || status == 304;
    let mut framing = if bodiless { Framing::Length(0) } else { Framing::UntilClose };
    let mut keep_alive = response.version == Some(1);
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            if framing == Framing::UntilClose {
                framing = Framing::Length(length_of(header.value)?);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = header.value.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep_alive &= framing != Framing::UntilClose;
    Ok(Some(Head { status, bytes, framing, keep_alive }))
}

fn length_of(value: &[u8]) -> Result<usize, Failure> {
    let text = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
    text.ok_or(Failure::Malformed("the content-length isn't a number"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers of one connection, each written in the given pieces after something was read.
    async fn exchanges(answers: Vec<Vec<&'static str>>) -> Vec<Result<(u16, String), String>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let count = answers.len();
        let serve = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for pieces in answers {
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                for piece in pieces {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        };
        let ask = async {
            let mut connection = Connection::new(&address);
            let request = Request::new(&format!("http://{address}/").parse().unwrap(), 1).unwrap();
            let mut seen = Vec::new();
            for _ in 0..count {
                let outcome = connection.exchange(&request).await;
                seen.push(match outcome {
                    Ok(answer) => Ok((answer.status, String::from_utf8(answer.body.to_vec()).unwrap())),
                    Err(failure) => Err(failure.kind().to_owned()),
                });
            }
            seen
        };
        let server = tokio::spawn(serve);
        let seen = ask.await;
        server.await.unwrap();
        seen
    }

    fn ok(status: u16, body: &str) -> Result<(u16, String), String> {
        Ok((status, body.to_owned()))
    }

    #[tokio::test]
    async fn lengths_and_chunks_follow_each_other_on_one_connection() {
        let seen = exchanges(vec![
            vec!["HTTP/1.1 200 OK\r\nContent-Le", "ngth: 2\r\n\r\no", "k"],
            vec![
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
                "c\r",
                "\n2\r\nde\r\n0\r\n",
                "\r\n",
            ],
            vec!["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"],
            vec!["HTTP/1.1 503 Busy\r\nconnection: close\r\n\r\nno worker"],
        ])
        .await;
        assert_eq!(seen, [ok(200, "ok"), ok(200, "abcde"), ok(204, ""), ok(503, "no worker")]);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_no_answer() {
        let seen = exchanges(vec![vec!["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"]]).await;
        assert_eq!(seen, [Err("closed early".to_owned())]);
    }

    #[tokio::test]
    async fn what_is_not_http_is_malformed() {
        assert_eq!(exchanges(vec![vec!["220 mail ready\r\n"]]).await, [Err("malformed answer".to_owned())]);
        let seen = exchanges(vec![vec!["HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"]]).await;
        assert_eq!(seen, [Err("malformed answer".to_owned())]);
    }

    #[test]
    fn the_head_tells_whether_the_connection_stays() {
        let stays = |text: &str| parse_head(text.as_bytes()).unwrap().unwrap().keep_alive;
        assert!(stays("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(!stays("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: close\r\n\r\n"));
        assert!(!stays("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(!stays("HTTP/1.1 200 OK\r\n\r\n"));
    }
}
