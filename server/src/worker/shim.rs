//! `zoo-server exec-worker`: the few steps between the birth of a worker process and its program.
//!
//! What must happen inside the new process happens here, in a program of our own rather than between fork and exec of
//! a threaded server, where next to nothing is allowed. It leaves standard input, output, directory and environment
//! as the launcher made them. Runs before anything else in `main`: no runtime, no other thread.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{
    Gid, Pid, Resource, Rlimit, Signal, Uid, getppid, set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

/// The first argument that means this program.
pub const COMMAND: &str = "exec-worker";

const CANT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What the shim does before it becomes the worker's program; travels as its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// For its messages.
    pub(super) name: String,
    /// Who must be our parent still when the parent-death signal is set.
    pub(super) parent: i32,
    pub(super) limits: Vec<Limit>,
    pub(super) user: Option<User>,
}

/// Whom the worker runs as; the server must be root for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its further groups, such as the one that may open GPUs.
    pub groups: Vec<u32>,
}

/// One resource limit of a worker; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is limited.
    pub resource: Limited,
    /// What holds.
    pub soft: Option<u64>,
    /// What the worker may raise it to.
    pub hard: Option<u64>,
}

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Bytes of address space.
    AddressSpace,
    /// Bytes of a core file.
    Core,
    /// Number of open files.
    OpenFiles,
    /// Number of processes and threads of the user.
    Processes,
}

impl Limited {
    const ALL: [(Self, &str, Resource); 4] = [
        (Self::AddressSpace, "as", Resource::As),
        (Self::Core, "core", Resource::Core),
        (Self::OpenFiles, "nofile", Resource::Nofile),
        (Self::Processes, "nproc", Resource::Nproc),
    ];
}

/// Does what the arguments after [`COMMAND`] say and becomes the program they name. Returns only if that failed; the
/// reason is on standard error then.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (settings, program, args) = match Settings::parse(args) {
        Ok(parsed) => parsed,
        Err(problem) => {
            eprintln!("zoo-server {COMMAND}: {problem}");
            return ExitCode::from(CANT_EXECUTE);
        }
    };
    if let Err(failed) = settings.apply() {
        eprintln!("{}: {failed}", settings.name);
        return ExitCode::from(CANT_EXECUTE);
    }
    // Gives SIGPIPE and the signal mask, which the start of a Rust program changes, their default again.
    let error = Command::new(&program).args(args).exec();
    eprintln!("{}: failed to start {}: {error}", settings.name, program.display());
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANT_EXECUTE })
}

impl Settings {
    /// The arguments that [`Settings::parse`] reads.
    pub(super) fn to_args(&self) -> Vec<OsString> {
        let mut args = vec![format!("--name={}", self.name), format!("--parent={}", self.parent)];
        for limit in &self.limits {
            let name =
                Limited::ALL.iter().find(|(one, ..)| *one == limit.resource).map_or("", |(_, name, _)| name);
            let value =
                |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
            args.push(format!("--limit={name}:{}:{}", value(limit.soft), value(limit.hard)));
        }
        if let Some(user) = &self.user {
            let groups: Vec<_> = user.groups.iter().map(u32::to_string).collect();
            args.push(format!("--user={}:{}:{}", user.uid, user.gid, groups.join(",")));
        }
        args.push("--".to_owned());
        args.into_iter().map(OsString::from).collect()
    }

    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Self, OsString, Vec<OsString>), String> {
        let mut args = args.into_iter();
        let mut settings = Self { name: String::new(), parent: 0, limits: Vec::new(), user: None };
        for arg in args.by_ref() {
            if arg == "--" {
                break;
            }
            let wrong = || format!("unknown argument {}", arg.display());
            let (option, value) = arg.to_str().and_then(|arg| arg.split_once('=')).ok_or_else(wrong)?;
            match option {
                "--name" => value.clone_into(&mut settings.name),
                "--parent" => settings.parent = value.parse().map_err(|_| wrong())?,
                "--limit" => settings.limits.push(parse_limit(value).ok_or_else(wrong)?),
                "--user" => settings.user = Some(parse_user(value).ok_or_else(wrong)?),
                _ => return Err(wrong()),
            }
        }
        let program = args.next().ok_or("no program is named; zoo-server itself uses this command")?;
        Ok((settings, program, args.collect()))
    }

    fn apply(&self) -> Result<(), Failed> {
        // A group of its own, which can be killed whole and which the terminal's Ctrl-C doesn't reach.
        setsid().map_err(Failed::at("start a session"))?;
        for limit in &self.limits {
            limit.apply().map_err(Failed::at("set a resource limit"))?;
        }
        if let Some(user) = &self.user {
            user.become_it().map_err(Failed::at("change to the worker's user"))?;
        }
        // After the change of user, which would clear it.
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(Failed::at("tie its life to the server's"))?;
        // A parent that died before that moment sends no signal any more.
        if getppid().map(Pid::as_raw_pid) != Some(self.parent) {
            return Err(Failed { step: "start", error: io::Error::other("the server is gone") });
        }
        Ok(())
    }
}

impl Limit {
    fn apply(&self) -> rustix::io::Result<()> {
        Limited::ALL.iter().filter(|(one, ..)| *one == self.resource).try_for_each(|&(_, _, resource)| {
            setrlimit(resource, Rlimit { current: self.soft, maximum: self.hard })
        })
    }
}

impl User {
    /// Groups first: without root's rights they can't be changed any more.
    fn become_it(&self) -> rustix::io::Result<()> {
        let groups: Vec<_> = self.groups.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&groups)?;
        set_thread_gid(Gid::from_raw(self.gid))?;
        set_thread_uid(Uid::from_raw(self.uid))
    }
}

fn parse_limit(text: &str) -> Option<Limit> {
    let mut fields = text.split(':');
    let name = fields.next()?;
    let (resource, ..) = Limited::ALL.into_iter().find(|(_, known, _)| *known == name)?;
    let mut value = || match fields.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    Some(Limit { resource, soft: value()?, hard: value()? })
}

fn parse_user(text: &str) -> Option<User> {
    let mut fields = text.split(':');
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let groups = fields.next()?.split(',').filter(|group| !group.is_empty()).map(|group| group.parse().ok());
    Some(User { uid, gid, groups: groups.collect::<Option<_>>()? })
}

struct Failed {
    step: &'static str,
    error: io::Error,
}

impl Failed {
    fn at(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |error| Self { step, error: error.into() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.step, self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_command_line() {
        let settings = Settings {
            name: "W-9000-a=b_1.0".to_owned(),
            parent: 4711,
            limits: vec![
                Limit { resource: Limited::OpenFiles, soft: Some(1024), hard: None },
                Limit { resource: Limited::Core, soft: Some(0), hard: Some(0) },
            ],
            user: Some(User { uid: 1000, gid: 1001, groups: vec![44, 109] }),
        };
        let plain = Settings { limits: Vec::new(), user: None, ..settings.clone() };
        for settings in [settings, plain] {
            let mut args = settings.to_args();
            args.extend(["python3", "--", "x.py"].map(OsString::from));
            let (parsed, program, rest) = Settings::parse(args).unwrap();
            assert_eq!((parsed, program), (settings, OsString::from("python3")));
            assert_eq!(rest, ["--", "x.py"]);
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        for wrong in
            ["--limit=disk:1:2", "--limit=core:1", "--user=1:2:x", "--parent=me", "--verbose", "-x=1"]
        {
            let problem = Settings::parse([wrong, "--", "true"].map(OsString::from)).unwrap_err();
            assert!(problem.contains(wrong), "{problem}");
        }
        assert!(Settings::parse(["--name=x", "--"].map(OsString::from)).unwrap_err().contains("no program"));
    }
}
