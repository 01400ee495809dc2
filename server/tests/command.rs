//! The `zoo-server` command: what it prints, and how it ends.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

struct Running {
    _cache: TempDir,
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// Not left behind by a test that fails.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(args: &[&str]) -> (TempDir, Command) {
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoo-server"));
    command.args(args).arg("--cache-dir").arg(cache.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    (cache, command)
}

fn start() -> Running {
    let free = "127.0.0.1:0";
    let addresses = ["--inference-address", free, "--management-address", free, "--metrics-address", free];
    let (cache, mut command) = command(&addresses);
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    Running { _cache: cache, child, lines }
}

impl Running {
    /// The address in the line that announces this API, which is the next one that isn't logging.
    fn address(&mut self, api: &str) -> SocketAddr {
        let line = self.line_with("bind to");
        let address = line.strip_prefix(&format!("{api} API bind to: http://"));
        address.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    }

    fn line_with(&mut self, part: &str) -> String {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "ended without saying {part:?}");
        }
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// What a command that can't start says, line by line.
fn refused(args: &[&str]) -> Vec<String> {
    let (_cache, mut command) = command(args);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn it_says_where_it_listens_and_ends_well_when_asked_to() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = start();
        for api in ["Inference", "Management"] {
            let address = server.address(api);
            assert!(TcpStream::connect(address).is_ok());
        }
        assert_eq!(server.line_with("started"), "Model server started.");
        server.signal(signal);
        assert_eq!(server.code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = start();
    let address = server.address("Inference");
    server.line_with("Model server started.");
    // A request whose body never comes keeps the first signal waiting.
    let mut client = TcpStream::connect(address).unwrap();
    let half = "POST /predictions/m HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
    std::io::Write::write_all(&mut client, half.as_bytes()).unwrap();
    let mut invited = [0; 12];
    client.read_exact(&mut invited).unwrap();
    assert_eq!(&invited, b"HTTP/1.1 100");
    server.signal(Signal::TERM);
    server.line_with("a second signal ends at once");
    server.signal(Signal::TERM);
    assert_eq!(server.code(), Some(1));
}

#[test]
fn an_address_in_use_is_said_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = ["--inference-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"];
    let told = refused(&[&free[..], &["--management-address", &address]].concat());
    let expected = format!(
        "zoo-server: {address} is in use, by another server perhaps; stop that one or choose with --management-address"
    );
    assert_eq!(told, [expected]);
}

#[test]
fn all_wrong_settings_are_said_at_once() {
    let told = refused(&["--job-queue-size", "none", "--drain-timeout", "soon"]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("zoo-server: --job-queue-size: "), "{told:?}");
    assert!(told[1].starts_with("zoo-server: --drain-timeout: "), "{told:?}");
}

#[test]
fn help_shows_how_to_begin() {
    let output = Command::new(env!("CARGO_BIN_EXE_zoo-server")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(help.contains("zoo-server --model-store ./models --models all"), "{help}");
}
