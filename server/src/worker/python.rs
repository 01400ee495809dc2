//! Which Python runs the workers, and in which environment.
//!
//! Takes the server's environment as a value, so that the rules can be read as tables. Doesn't start anything, and
//! doesn't ask the interpreter about itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::{env, fs};

use regex::Regex;

use super::launch::Environment;

const NAME: &str = "python3";

/// The server's environment variables.
pub type Variables = BTreeMap<OsString, OsString>;

/// An interpreter, and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// Where it is. Not resolved: a link in a virtual environment stands for that environment.
    pub path: PathBuf,
    /// Which rule chose it.
    pub origin: Origin,
}

/// The rules, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A setting, described by where it was made: `--python`, `python in config.properties`.
    Setting(String),
    /// `ZOO_PYTHON`.
    Variable,
    /// Beside the command that started the server, as in the `bin` of a virtual environment.
    BesideCommand,
    /// `VIRTUAL_ENV`.
    VirtualEnv,
    /// The first one on `PATH`.
    Path,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(place) => f.write_str(place),
            Self::Variable => f.write_str("ZOO_PYTHON"),
            Self::BesideCommand => f.write_str("beside the command that started the server"),
            Self::VirtualEnv => f.write_str("VIRTUAL_ENV"),
            Self::Path => f.write_str("PATH"),
        }
    }
}

/// Where an interpreter is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The setting `python` and where it was made.
    pub setting: Option<(&'a OsStr, &'a str)>,
    /// The server's `argv[0]`.
    pub command: Option<&'a OsStr>,
    /// The server's environment.
    pub variables: &'a Variables,
    /// The server's working directory.
    pub dir: &'a Path,
}

impl Search<'_> {
    /// The interpreter of the runtime `python`. What was named explicitly is taken or refused, never passed over.
    pub fn python(&self) -> Result<Python, NoPython> {
        let mut tried = Vec::new();
        let named = |name: &OsStr, origin: Origin| match self.resolve(name) {
            Some(path) => Ok(Python { path, origin }),
            None => Err(NoPython { tried: vec![(name.into(), origin)] }),
        };
        if let Some((name, place)) = self.setting {
            return named(name, Origin::Setting(place.to_owned()));
        }
        if let Some(name) = self.variable("ZOO_PYTHON") {
            return named(name, Origin::Variable);
        }
        let beside = self.command.and_then(|command| Some(self.locate(command)?.parent()?.join(NAME)));
        let in_environment =
            self.variable("VIRTUAL_ENV").map(|root| self.dir.join(root).join("bin").join(NAME));
        for (path, origin) in [(beside, Origin::BesideCommand), (in_environment, Origin::VirtualEnv)] {
            match path {
                Some(path) if is_executable(&path) => return Ok(Python { path, origin }),
                Some(path) => tried.push((path, origin)),
                None => {}
            }
        }
        self.python3().map_err(|on_path| {
            tried.extend(on_path.tried);
            NoPython { tried }
        })
    }

    /// The interpreter of the runtime `python3`: the first one on `PATH`.
    pub fn python3(&self) -> Result<Python, NoPython> {
        match self.on_path(OsStr::new(NAME)) {
            Some(path) => Ok(Python { path, origin: Origin::Path }),
            None => Err(NoPython { tried: vec![(NAME.into(), Origin::Path)] }),
        }
    }

    /// A path as it is, a bare name by `PATH`, in both cases only if it can be executed.
    fn resolve(&self, name: &OsStr) -> Option<PathBuf> {
        self.locate(name).filter(|path| is_executable(path))
    }

    /// As a shell finds a command.
    fn locate(&self, command: &OsStr) -> Option<PathBuf> {
        let bare = Path::new(command).components().eq([Component::Normal(command)]);
        if bare { self.on_path(command) } else { Some(self.dir.join(command)) }
    }

    fn on_path(&self, name: &OsStr) -> Option<PathBuf> {
        let directories = self.variable("PATH")?;
        env::split_paths(directories)
            .map(|dir| self.dir.join(dir).join(name))
            .find(|path| is_executable(path))
    }

    fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// No interpreter where one was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPython {
    tried: Vec<(PathBuf, Origin)>,
}

impl fmt::Display for NoPython {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no Python to run handlers with; tried ")?;
        for (index, (path, origin)) in self.tried.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{} ({origin})", path.display())?;
        }
        f.write_str("; install Python 3.8 or newer, or name one with --python")
    }
}

impl std::error::Error for NoPython {}

/// What decides about the environment of a Python worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerEnvironment<'a> {
    /// The server's environment.
    pub variables: &'a Variables,
    /// Which of it a worker doesn't see.
    pub hidden: &'a Hidden,
    /// The model's directory, which is also the worker's working directory.
    pub model_dir: &'a Path,
    /// The directory of a handler that is named with one (`src/handler.py:handle`), below the model's.
    pub handler_dir: Option<&'a Path>,
    /// CPU threads per worker.
    pub threads: Threads,
    /// `decode_input_request`.
    pub decode_input_request: bool,
    /// `ipex_enable` and `ipex_gpu_enable`.
    pub ipex: bool,
    /// See `ipex`.
    pub ipex_gpu: bool,
}

/// How many CPU threads the libraries of a worker may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The worker's share of the machine; what the environment says wins.
    Share(NonZeroUsize),
    /// What the model's configuration says; it wins.
    Configured(NonZeroUsize),
}

/// OpenMP's variable, which MKL, OpenBLAS, BLIS and numexpr follow as well when their own isn't set; and the one of
/// the libraries that are written in Rust, such as tokenizers.
const THREAD_VARIABLES: [&str; 2] = ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"];

/// A worker that gets and frees a large body with every request should keep the pages: handing them back to the kernel and
/// faulting them in again costs more than copying the body. These are glibc's variables; 32 MiB may stay, and what is larger
/// than 4 MiB goes back at once.
const ALLOCATOR_VARIABLES: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "4194304"), ("MALLOC_TRIM_THRESHOLD_", "33554432")];

impl WorkerEnvironment<'_> {
    /// How the worker's environment differs from the server's. The SDK isn't in it: the worker starts as a script in
    /// the SDK's directory, which is the first entry of its import path for that reason.
    pub fn build(&self) -> Environment {
        let mut env = Environment::default();
        env.removed.extend(self.variables.keys().filter(|name| self.hidden.hides(name)).cloned());
        if let Some(path) = self.import_path() {
            env.set("PYTHONPATH", path);
        }
        let (threads, wins) = match self.threads {
            Threads::Share(threads) => (threads, false),
            Threads::Configured(threads) => (threads, true),
        };
        for name in THREAD_VARIABLES {
            if wins || !self.passes(name) {
                env.set(name, threads.to_string());
            }
        }
        if !ALLOCATOR_VARIABLES.iter().any(|(name, _)| self.passes(name)) {
            ALLOCATOR_VARIABLES.iter().for_each(|(name, value)| env.set(name, *value));
        }
        for (name, value) in [
            ("TS_DECODE_INPUT_REQUEST", self.decode_input_request),
            ("TS_IPEX_ENABLE", self.ipex),
            ("TS_IPEX_GPU_ENABLE", self.ipex_gpu),
        ] {
            env.set(name, if value { "true" } else { "false" });
        }
        env
    }

    /// The model's directory, the handler's, then what the server was given. A directory with a colon in its name
    /// can't be part of it; the worker adds the model's directory itself once more when it loads the model.
    fn import_path(&self) -> Option<OsString> {
        let given = self.variables.get(OsStr::new("PYTHONPATH")).filter(|_| self.passes("PYTHONPATH"));
        let own = [Some(self.model_dir), self.handler_dir];
        let mut parts: Vec<PathBuf> = Vec::new();
        let given = given.filter(|given| !given.is_empty()).into_iter().flat_map(env::split_paths);
        for part in own.into_iter().flatten().map(Path::to_owned).chain(given) {
            if !parts.contains(&part) && !part.as_os_str().as_encoded_bytes().contains(&b':') {
                parts.push(part);
            }
        }
        env::join_paths(parts).ok()
    }

    /// Whether the worker inherits this variable.
    fn passes(&self, name: &str) -> bool {
        let name = OsStr::new(name);
        self.variables.contains_key(name) && !self.hidden.hides(name)
    }
}

/// The variables that workers don't see: the server's own secrets, and what `blacklist_env_vars` matches.
#[derive(Clone, Debug, Default)]
pub struct Hidden {
    blacklist: Option<Regex>,
}

/// Settings of the server that are secret or lead to secrets.
const SECRETS: [&str; 6] = [
    "TS_KEYSTORE_PASS",
    "TS_PRIVATE_KEY_FILE",
    "TS_KEYSTORE",
    "ZOO_INFERENCE_TOKEN",
    "ZOO_MANAGEMENT_TOKEN",
    "ZOO_KEY_FILE",
];

impl Hidden {
    /// `blacklist` is a regular expression that a whole name must match; empty means none.
    pub fn new(blacklist: &str) -> Result<Self, regex::Error> {
        if blacklist.is_empty() {
            return Ok(Self::default());
        }
        // Compiled alone first, so that an error shows what the user wrote.
        Regex::new(blacklist)?;
        Ok(Self { blacklist: Some(Regex::new(&format!("^(?:{blacklist})$"))?) })
    }

    fn hides(&self, name: &OsStr) -> bool {
        let name = name.to_string_lossy();
        SECRETS.contains(&&*name)
            || self.blacklist.as_ref().is_some_and(|blacklist| blacklist.is_match(&name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    /// A file tree with executables, and a plain file that only looks like one.
    fn tree(executables: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in executables {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        root
    }

    #[test]
    fn pythons_are_found_in_order() {
        let root =
            tree(&["a/python3", "venv/bin/python3", "venv/bin/torchserve", "usr/python3", "usr/zoo-server"]);
        fs::create_dir_all(root.path().join("empty")).unwrap();
        fs::write(root.path().join("empty/python3"), "").unwrap();
        let text = |path: &str| root.path().join(path).to_str().unwrap().to_owned();
        let path = format!("{}:{}", text("empty"), text("usr"));
        let venv = text("venv");
        let find = |setting: Option<&str>, command: Option<&str>, given: &[(&str, &str)]| {
            let mut given = variables(given);
            given.insert("PATH".into(), path.clone().into());
            let setting = setting.map(|name| (OsStr::new(name), "--python"));
            let search =
                Search { setting, command: command.map(OsStr::new), variables: &given, dir: root.path() };
            let found = search.python()?;
            let path = found.path.strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned();
            Ok::<_, NoPython>((path, found.origin))
        };
        let flag = || Origin::Setting("--python".to_owned());
        for (setting, command, given, expected, origin) in [
            (
                Some("a/python3"),
                Some("venv/bin/torchserve"),
                vec![("ZOO_PYTHON", "python3")],
                "a/python3",
                flag(),
            ),
            (Some("python3"), None, vec![], "usr/python3", flag()),
            (
                None,
                Some("venv/bin/torchserve"),
                vec![("ZOO_PYTHON", "a/python3")],
                "a/python3",
                Origin::Variable,
            ),
            (
                None,
                Some("venv/bin/torchserve"),
                vec![("ZOO_PYTHON", "")],
                "venv/bin/python3",
                Origin::BesideCommand,
            ),
            (None, Some("zoo-server"), vec![("VIRTUAL_ENV", &*venv)], "usr/python3", Origin::BesideCommand),
            (None, Some("empty/zoo"), vec![("VIRTUAL_ENV", &*venv)], "venv/bin/python3", Origin::VirtualEnv),
            (None, Some("nowhere"), vec![("VIRTUAL_ENV", "gone")], "usr/python3", Origin::Path),
            (None, None, vec![], "usr/python3", Origin::Path),
        ] {
            assert_eq!(
                find(setting, command, &given),
                Ok((expected.to_owned(), origin)),
                "{setting:?} {command:?}"
            );
        }
        let refused = find(Some("empty/python3"), None, &[]).unwrap_err().to_string();
        assert!(refused.contains("empty/python3 (--python)"), "{refused}");
        assert!(!refused.contains("PATH"), "what was named is not passed over: {refused}");
    }

    #[test]
    fn links_of_virtual_environments_are_not_resolved() {
        let root = tree(&["usr/python3"]);
        fs::create_dir_all(root.path().join("venv/bin")).unwrap();
        symlink(root.path().join("usr/python3"), root.path().join("venv/bin/python3")).unwrap();
        let given = variables(&[]);
        let command = Some(OsStr::new("venv/bin/torchserve"));
        let search = Search { setting: None, command, variables: &given, dir: root.path() };
        assert_eq!(search.python().unwrap().path, root.path().join("venv/bin/python3"));
    }

    #[test]
    fn a_missing_python_names_all_places() {
        let given = variables(&[("VIRTUAL_ENV", "/nowhere/venv"), ("PATH", "/nowhere/bin")]);
        let command = Some(OsStr::new("/nowhere/opt/zoo-server"));
        let search = Search { setting: None, command, variables: &given, dir: Path::new("/") };
        assert_eq!(
            search.python().unwrap_err().to_string(),
            "no Python to run handlers with; tried /nowhere/opt/python3 (beside the command that started the server), \
             /nowhere/venv/bin/python3 (VIRTUAL_ENV), python3 (PATH); install Python 3.8 or newer, or name one with \
             --python"
        );
    }

    fn build(given: &Variables, hidden: &Hidden, threads: Threads, handler_dir: Option<&str>) -> Variables {
        let environment = WorkerEnvironment {
            variables: given,
            hidden,
            model_dir: Path::new("/m"),
            handler_dir: handler_dir.map(Path::new),
            threads,
            decode_input_request: true,
            ipex: false,
            ipex_gpu: false,
        }
        .build();
        let mut result = given.clone();
        result.retain(|name, _| !environment.removed.contains(name));
        result.extend(environment.set);
        result
    }

    const TWO: Threads = Threads::Share(NonZeroUsize::new(2).unwrap());

    #[test]
    fn the_servers_environment_is_passed_on_with_additions() {
        let given = variables(&[("HOME", "/root"), ("PYTHONPATH", "/lib:/m::/x")]);
        let built = build(&given, &Hidden::default(), TWO, Some("/m/src"));
        let expected = variables(&[
            ("HOME", "/root"),
            ("MALLOC_MMAP_THRESHOLD_", "4194304"),
            ("MALLOC_TRIM_THRESHOLD_", "33554432"),
            ("OMP_NUM_THREADS", "2"),
            ("PYTHONPATH", "/m:/m/src:/lib::/x"),
            ("RAYON_NUM_THREADS", "2"),
            ("TS_DECODE_INPUT_REQUEST", "true"),
            ("TS_IPEX_ENABLE", "false"),
            ("TS_IPEX_GPU_ENABLE", "false"),
        ]);
        assert_eq!(built, expected);
    }

    #[test]
    fn a_user_who_tunes_the_allocator_is_left_alone() {
        let given = variables(&[("MALLOC_TRIM_THRESHOLD_", "1")]);
        let built = build(&given, &Hidden::default(), TWO, None);
        assert_eq!(built.get(OsStr::new("MALLOC_TRIM_THRESHOLD_")).unwrap(), "1");
        assert_eq!(built.get(OsStr::new("MALLOC_MMAP_THRESHOLD_")), None);
    }

    #[test]
    fn threads_follow_the_model_then_the_environment_then_the_share() {
        let given = variables(&[("OMP_NUM_THREADS", "7")]);
        let omp = |threads, hidden: &Hidden| {
            build(&given, hidden, threads, None).remove(OsStr::new("OMP_NUM_THREADS")).unwrap()
        };
        let none = Hidden::default();
        assert_eq!(omp(TWO, &none), "7");
        assert_eq!(omp(Threads::Configured(NonZeroUsize::new(3).unwrap()), &none), "3");
        assert_eq!(omp(TWO, &Hidden::new("OMP.*").unwrap()), "2", "a hidden variable says nothing");
    }

    #[test]
    fn secrets_and_blacklisted_variables_are_hidden() {
        let given = variables(&[
            ("AWS_SECRET", "1"),
            ("MY_AWS_SECRET", "2"),
            ("HOME", "/h"),
            ("PYTHONPATH", "/evil"),
            ("TS_KEYSTORE_PASS", "3"),
            ("ZOO_MANAGEMENT_TOKEN", "4"),
        ]);
        let built = build(&given, &Hidden::new("AWS.*|PYTHONPATH").unwrap(), TWO, None);
        let absent = |name: &str| !built.contains_key(OsStr::new(name));
        assert!(absent("AWS_SECRET") && absent("TS_KEYSTORE_PASS") && absent("ZOO_MANAGEMENT_TOKEN"));
        assert!(!absent("MY_AWS_SECRET") && !absent("HOME"), "only whole names match");
        assert_eq!(built[OsStr::new("PYTHONPATH")], "/m");
        assert!(Hidden::new("(").is_err());
    }
}
