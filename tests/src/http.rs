//! A small blocking HTTP/1.1 client that hides nothing: what was on the wire is what tests see.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::LONG;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Of the status line.
    pub status: u16,
    /// Of the status line.
    pub reason: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LONG))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request, `METHOD TARGET`, with further header lines.
    pub fn send(&mut self, request: &str, headers: &[&str], body: &[u8]) -> Result<()> {
        let (method, target) = request.split_once(' ').unwrap_or(("GET", request));
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
        for header in headers {
            head += header;
            head += "\r\n";
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        self.stream.get_mut().write_all(&message)
    }

    /// Receives an answer.
    pub fn receive(&mut self) -> Result<Reply> {
        let mut status = self.line()?;
        while status.starts_with("HTTP/1.1 1") {
            while !self.line()?.is_empty() {}
            status = self.line()?;
        }
        let mut words = status.splitn(3, ' ').skip(1);
        let code = words.next().and_then(|code| code.parse().ok()).ok_or_else(|| broken(&status))?;
        let reason = words.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply { status: code, reason, headers, body: Vec::new() };
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk()? {
                reply.body.extend(chunk);
            }
        } else {
            let length = reply.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            reply.body = vec![0; length];
            self.stream.read_exact(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// Sends a request and receives its answer.
    pub fn call(&mut self, request: &str, headers: &[&str], body: &[u8]) -> Result<Reply> {
        self.send(request, headers, body)?;
        self.receive()
    }

    /// Whether the server has closed the connection, which it has to have done or to do.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }

    /// One chunk of a chunked body; `None` is its end.
    fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length = usize::from_str_radix(&line, 16).map_err(|_| broken(&line))?;
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk)?;
        self.line()?;
        Ok((length > 0).then_some(chunk))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn broken(line: &str) -> std::io::Error {
    std::io::Error::other(format!("this is no HTTP: {line:?}"))
}

impl Reply {
    /// The first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts a status and the text of the answer's `status`.
    #[track_caller]
    pub fn says(&self, status: u16, text: &str) {
        assert_eq!(self.text(), format!("{{\n  \"status\": {}\n}}\n", Value::from(text)));
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/json")));
    }

    /// Asserts a failure, its whole body included.
    #[track_caller]
    pub fn fails(&self, status: u16, kind: &str, message: &str) {
        let message = Value::from(message);
        let expected =
            format!("{{\n  \"code\": {status},\n  \"type\": \"{kind}\",\n  \"message\": {message}\n}}\n");
        assert_eq!(self.text(), expected);
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/json")));
    }
}
