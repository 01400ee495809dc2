//! A running `zoo-server`, and archives packed with `zoo-archiver`: the programs themselves, as users start them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::LONG;
use crate::http::{Client, Reply};

/// A program of the workspace, which lies beside the test's own folder.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// A folder with a model store, a cache, and whatever a test puts there.
#[derive(Debug)]
pub struct Home(TempDir);

impl Home {
    /// One with an empty store.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        Self(dir)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Packs a handler file with this source into the model store, as `NAME.mar`; `handler` may add a function.
    pub fn pack(&self, name: &str, version: &str, handler: &str, source: &str) {
        let file = handler.split(':').next().unwrap();
        fs::write(self.path().join(file), source).unwrap();
        let mut archiver = Command::new(program("zoo-archiver"));
        archiver.args(["--model-name", name, "--version", version, "--handler", handler, "--force"]);
        let packed = archiver.args(["--export-path", "store"]).current_dir(self.path()).output().unwrap();
        assert!(packed.status.success(), "{packed:?}");
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// A server with a home of its own. Dropped, it is killed.
#[derive(Debug)]
pub struct Zoo {
    child: Child,
    inference: SocketAddr,
    management: SocketAddr,
    metrics: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    home: Home,
}

impl Zoo {
    /// Starts one with an empty model store.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with further arguments.
    pub fn with(arguments: &[&str]) -> Self {
        Self::at(Home::new(), arguments)
    }

    /// Starts one where there are archives already.
    pub fn at(home: Home, arguments: &[&str]) -> Self {
        let mut command = Command::new(program("zoo-server"));
        for api in ["inference", "management", "metrics"] {
            command.args([&format!("--{api}-address"), "127.0.0.1:0"]);
        }
        command.arg("--model-store").arg(home.path().join("store"));
        command.arg("--cache-dir").arg(home.path().join("cache"));
        command.args(arguments).current_dir(home.path()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, said) = channel();
        follow(child.stdout.take().unwrap(), log.clone(), Some(lines));
        follow(child.stderr.take().unwrap(), log.clone(), None);
        let address = |api: &str| loop {
            let line: String =
                said.recv_timeout(LONG).unwrap_or_else(|_| panic!("no address: {:#?}", log.lock()));
            if let Some(address) = line.strip_prefix(&format!("{api} API bind to: http://")) {
                return address.parse().unwrap();
            }
        };
        let (inference, management) = (address("Inference"), address("Management"));
        let metrics = address("Metrics");
        Self { child, inference, management, metrics, log, home }
    }

    /// A folder of the test's own, which goes with the server.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The model store.
    pub fn store(&self) -> PathBuf {
        self.home().join("store")
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Packs a handler as [`Home::pack`] does.
    pub fn pack(&self, name: &str, version: &str, handler: &str, source: &str) {
        self.home.pack(name, version, handler, source);
    }

    /// Packs a handler, and registers it with so many workers.
    pub fn serve(&self, name: &str, source: &str, parameters: &str) {
        self.pack(name, "1.0", "handler.py", source);
        let reply = self.manage(&format!("POST /models?url={name}.mar&initial_workers=1{parameters}"));
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// A connection to the inference API.
    pub fn client(&self) -> Client {
        Client::connect(self.inference).unwrap()
    }

    /// The address of the inference API.
    pub fn inference(&self) -> SocketAddr {
        self.inference
    }

    /// Asks the management API, on a connection of its own.
    pub fn manage(&self, request: &str) -> Reply {
        Client::connect(self.management).unwrap().call(request, &[], b"").unwrap()
    }

    /// Asks for metrics, on a connection of its own.
    pub fn measure(&self, request: &str) -> Reply {
        Client::connect(self.metrics).unwrap().call(request, &[], b"").unwrap()
    }

    /// Asks the inference API, on a connection of its own.
    pub fn infer(&self, request: &str, headers: &[&str], body: &[u8]) -> Reply {
        self.client().call(request, headers, body).unwrap()
    }

    /// The pids of a model's workers.
    pub fn workers(&self, model: &str) -> Vec<u32> {
        let described = self.manage(&format!("GET /models/{model}")).json();
        let workers = described[0]["workers"].as_array().unwrap();
        workers.iter().filter_map(|worker| worker["pid"].as_u64()).map(|pid| pid as u32).collect()
    }

    /// Whether it has written a line that contains `text` so far.
    pub fn has_logged(&self, text: &str) -> bool {
        self.log.lock().iter().any(|line| line.contains(text))
    }

    /// Waits until it has written so many lines that contain `text`. Answers overtake what is written about them.
    pub fn until_logged(&self, text: &str, times: usize) {
        let written = || self.log.lock().iter().filter(|line| line.contains(text)).count() >= times;
        crate::wait_until(&format!("{times} lines with {text:?}"), written);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; gives the exit status, if it wasn't killed.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Zoo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log.lock();
            let last = &log[log.len().saturating_sub(100)..];
            eprintln!("the server said at last:\n{}", last.join("\n"));
        }
    }
}

/// Keeps lines, and passes them on as long as somebody wants them.
fn follow(
    stream: impl std::io::Read + Send + 'static,
    log: Arc<Mutex<Vec<String>>>,
    lines: Option<Sender<String>>,
) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(lines) = &lines {
                let _ = lines.send(line.clone());
            }
            log.lock().push(line);
        }
    });
}
