//! How a worker process comes into being: the one narrow seam, and the only place that starts processes.
//!
//! A worker gets one end of a socket pair as its standard input (nobody else can connect, there is no path), pipes as
//! standard output and error, and starts through the shim (`zoo-server exec-worker`), which ties its life to ours.
//! The kernel ties it to the *thread* that made the process. So all are made by one thread, which never ends.
//!
//! Knows nothing of models: which program runs, where, and with which environment is the runtime's decision.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Pid, getpid};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::process::{Handle, Process};
pub use super::shim::{Limit, Limited, User};
use super::{oom, process, reaper, shim};

/// Requests that may wait for the launcher thread; more wait in their own tasks.
const WAITING: usize = 16;

/// What a link holds on its way: a body of a megabyte crosses it in one go rather than in ten.
const LINK_BUFFER: usize = 1 << 20;

/// What to start.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    /// The worker's name, for messages: `W-9000-mnist_1.0`.
    pub name: String,
    /// A path, or a name that is looked up in the worker's `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working directory.
    pub dir: PathBuf,
    /// How its environment differs from ours.
    pub env: Environment,
    /// Its resource limits, where they differ from ours.
    pub limits: Vec<Limit>,
    /// Whom it runs as, if not as ourselves.
    pub user: Option<User>,
}

impl LaunchSpec {
    /// A worker with our environment, limits and user.
    pub fn new(name: impl Into<String>, program: impl Into<OsString>, dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            dir: dir.into(),
            env: Environment::default(),
            limits: Vec::new(),
            user: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }
}

/// How the environment of a worker differs from the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Variables that it doesn't get.
    pub removed: Vec<OsString>,
    /// Variables that it gets; these win over `removed`.
    pub set: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Sets a variable.
    pub fn set(&mut self, name: impl AsRef<OsStr>, value: impl Into<OsString>) {
        self.set.push((name.as_ref().to_owned(), value.into()));
    }
}

/// A worker that has come into being.
#[derive(Debug)]
pub struct Launched {
    /// The process. It is owned: dropped, it kills.
    pub process: Process,
    /// Our end of the link; doesn't block.
    pub link: UnixStream,
    /// What it writes to standard output.
    pub stdout: pipe::Receiver,
    /// What it writes to standard error.
    pub stderr: pipe::Receiver,
}

/// The program that prepares the new process, then becomes the worker.
#[derive(Clone, Debug)]
pub struct Shim {
    /// An executable whose `main` calls [`shim::run`](super::shim::run).
    pub program: PathBuf,
}

impl Default for Shim {
    /// The running executable itself, even if it was replaced on disk in the meantime.
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe") }
    }
}

/// Starts workers, from any task.
#[derive(Clone, Debug)]
pub struct Launcher {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    spec: LaunchSpec,
    answer: oneshot::Sender<Result<Parts, LaunchError>>,
}

/// What the launcher thread can make without a runtime.
#[derive(Debug)]
struct Parts {
    handle: Handle,
    link: UnixStream,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Launcher {
    /// Makes this process the reaper of its descendants and starts the launcher thread. Within a runtime, once.
    pub fn start(shim: Shim) -> Result<Self, StartError> {
        if !process::supported() {
            return Err(StartError::NoPidfd);
        }
        oom::watch();
        reaper::start().map_err(StartError::Reaper)?;
        let (requests, mut waiting) = mpsc::channel::<Request>(WAITING);
        let kept = requests.clone();
        let serve = move || {
            // As long as the thread keeps a sender, the channel stays open and the thread alive: its end would be the
            // end of each worker that it started.
            let _kept = kept;
            while let Some(Request { spec, answer }) = waiting.blocking_recv() {
                if !answer.is_closed() {
                    // A worker whose owner has left meanwhile dies with the answer.
                    let _ = answer.send(spawn(&shim, &spec));
                }
            }
        };
        thread::Builder::new().name("zoo-launcher".to_owned()).spawn(serve).map_err(StartError::Thread)?;
        Ok(Self { requests })
    }

    /// Starts a worker. Cancelled, it leaves none. That the program itself could be executed is not known yet: if it
    /// couldn't, the worker ends with status 127 or 126 and the reason as the last line of its standard error.
    pub async fn launch(&self, spec: LaunchSpec) -> Result<Launched, LaunchError> {
        let name = spec.name.clone();
        let (answer, answered) = oneshot::channel();
        // Neither can fail: the thread doesn't end, and it answers each request.
        let gone = || LaunchError { name: name.clone(), kind: LaunchErrorKind::LauncherGone };
        self.requests.send(Request { spec, answer }).await.map_err(|_| gone())?;
        let parts = answered.await.map_err(|_| gone())??;
        parts.register().map_err(|error| LaunchError { name, kind: LaunchErrorKind::Register(error) })
    }
}

impl Parts {
    fn register(self) -> io::Result<Launched> {
        Ok(Launched {
            process: Process::new(self.handle)?,
            link: self.link,
            stdout: pipe::Receiver::from_owned_fd(self.stdout)?,
            stderr: pipe::Receiver::from_owned_fd(self.stderr)?,
        })
    }
}

/// Makes one process. All descriptors are close-on-exec, and our copies of the child's ends are gone on return, so
/// that each end sees the other one's end.
fn spawn(shim: &Shim, spec: &LaunchSpec) -> Result<Parts, LaunchError> {
    let failed = |kind| LaunchError { name: spec.name.clone(), kind };
    if !spec.dir.is_dir() {
        return Err(failed(LaunchErrorKind::Dir(spec.dir.clone())));
    }
    let socket = || {
        let (link, worker_end) = UnixStream::pair()?;
        link.set_nonblocking(true)?;
        for end in [&link, &worker_end] {
            // Only speed depends on it: the kernel gives what its limits allow.
            let _ = set_socket_send_buffer_size(end, LINK_BUFFER);
        }
        Ok((link, worker_end))
    };
    let (link, worker_end) = socket().map_err(|error| failed(LaunchErrorKind::Link(error)))?;
    let mut command = command(shim, spec);
    command.stdin(OwnedFd::from(worker_end)).stdout(Stdio::piped()).stderr(Stdio::piped());

    let spawning = reaper::Spawning::begin();
    let mut child =
        command.spawn().map_err(|error| failed(LaunchErrorKind::Spawn(shim.program.clone(), error)))?;
    let claim = spawning.claim(Pid::from_child(&child));
    let handle = Handle::new(claim).map_err(|error| failed(LaunchErrorKind::Watch(error)))?;
    // Both are there: they were asked for above.
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed(LaunchErrorKind::Watch(io::ErrorKind::BrokenPipe.into())));
    };
    Ok(Parts { handle, link, stdout: stdout.into(), stderr: stderr.into() })
}

fn command(shim: &Shim, spec: &LaunchSpec) -> Command {
    let settings = shim::Settings {
        name: spec.name.clone(),
        parent: getpid().as_raw_pid(),
        limits: spec.limits.clone(),
        user: spec.user.clone(),
    };
    let mut command = Command::new(&shim.program);
    command.arg(shim::COMMAND).args(settings.to_args()).arg(&spec.program).args(&spec.args);
    for name in &spec.env.removed {
        command.env_remove(name);
    }
    command.envs(spec.env.set.iter().map(|(name, value)| (name, value))).current_dir(&spec.dir);
    command
}

/// Why no worker can be started at all.
#[derive(Debug)]
pub enum StartError {
    /// The kernel, or a sandbox, has no pidfds.
    NoPidfd,
    /// We can't become the parent of orphans, or not hear of them.
    Reaper(io::Error),
    /// The launcher thread can't be started.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPidfd => f.write_str(
                "workers are watched through pidfds, which are missing here: needed are Linux 5.4 or newer and, in a \
                 sandbox, permission for pidfd_open, pidfd_send_signal and waitid",
            ),
            Self::Reaper(error) => write!(f, "failed to become the reaper of worker processes: {error}"),
            Self::Thread(error) => write!(f, "failed to start the thread that launches workers: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoPidfd => None,
            Self::Reaper(error) | Self::Thread(error) => Some(error),
        }
    }
}

/// Why one worker couldn't be started.
#[derive(Debug)]
pub struct LaunchError {
    /// The worker's name.
    pub name: String,
    kind: LaunchErrorKind,
}

#[derive(Debug)]
enum LaunchErrorKind {
    Dir(PathBuf),
    Link(io::Error),
    Spawn(PathBuf, io::Error),
    Watch(io::Error),
    Register(io::Error),
    LauncherGone,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use LaunchErrorKind as Kind;
        write!(f, "failed to start worker {}: ", self.name)?;
        let path = |path: &Path| path.display().to_string();
        match &self.kind {
            Kind::Dir(dir) => write!(f, "its directory {} doesn't exist", path(dir)),
            Kind::Link(error) => write!(f, "no socket pair for its link: {error}"),
            Kind::Spawn(shim, error) => write!(f, "{} can't be executed: {error}", path(shim)),
            Kind::Watch(error) => write!(f, "the new process can't be watched: {error}"),
            Kind::Register(error) => write!(f, "its descriptors can't be polled: {error}"),
            Kind::LauncherGone => f.write_str("the launcher thread is gone"),
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            LaunchErrorKind::Link(error)
            | LaunchErrorKind::Spawn(_, error)
            | LaunchErrorKind::Watch(error)
            | LaunchErrorKind::Register(error) => Some(error),
            LaunchErrorKind::Dir(_) | LaunchErrorKind::LauncherGone => None,
        }
    }
}
