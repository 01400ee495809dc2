//! From flags and environment to a [`Config`]: strongest source first, and all problems at once.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Args, Config, Origin, Origins, StartupModel, StartupModels, UrlPatterns};
use crate::metrics::Mode;

/// A setting that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The flag's name.
    pub name: &'static str,
    /// Where the value came from.
    pub origin: Origin,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Flag(name) => write!(f, "--{name}: {}", self.problem),
            origin => write!(f, "{} ({origin}): {}", self.name.replace('-', "_"), self.problem),
        }
    }
}

impl std::error::Error for SettingError {}

/// Settles each value.
///
/// # Errors
/// All values that can't be used, each with its origin.
pub fn resolve(args: Args, env: impl Fn(&str) -> Option<OsString>) -> Result<Config, Vec<SettingError>> {
    let mut from = Sources { env: &env, origins: Origins::default(), errors: Vec::new() };
    let model_store = from.folder("model-store", args.model_store);
    let (no_api, api) = (args.disable_model_api, args.enable_model_api);
    from.switch("disable-model-api", no_api);
    from.switch("enable-model-api", api);
    from.switch("disable-token-auth", args.disable_token_auth);
    from.switch("model-metrics-auto-detect", args.model_metrics_auto_detect);
    from.switch("disable-system-metrics", args.disable_system_metrics);
    let metrics_address = from.address("metrics-address", args.metrics_address, 8082);
    let interval = from.seconds("metric-time-interval", args.metric_time_interval, 60);
    let config = Config {
        inference_address: from.address("inference-address", args.inference_address, 8080),
        management_address: from.address("management-address", args.management_address, 8081),
        metrics_address: from.truth("enable-metrics-api", args.enable_metrics_api).then_some(metrics_address),
        metrics_mode: from.metrics_mode(args.metrics_mode),
        metrics_config: from.parsed("metrics-config", args.metrics_config, |text| absolute(Path::new(text))),
        model_metrics_auto_detect: args.model_metrics_auto_detect,
        metric_time_interval: (!args.disable_system_metrics).then_some(interval),
        models: from.models(args.models, model_store.as_deref()),
        model_store,
        cache_dir: from.cache_dir(args.cache_dir),
        cache_size: from.bytes("cache-size", args.cache_size, 20 << 30),
        python: from.python(args.python),
        job_queue_size: from.number("job-queue-size", args.job_queue_size, 1).unwrap_or(100),
        max_queue_bytes: from.size("max-queue-bytes", args.max_queue_bytes, 256 << 20),
        default_response_timeout: from.seconds(
            "default-response-timeout",
            args.default_response_timeout,
            120,
        ),
        default_startup_timeout: from.seconds("default-startup-timeout", args.default_startup_timeout, 120),
        unregister_timeout: from.seconds("unregister-model-timeout", args.unregister_model_timeout, 120),
        default_workers_per_model: from.number(
            "default-workers-per-model",
            args.default_workers_per_model,
            0,
        ),
        initial_worker_port: from.number("initial-worker-port", args.initial_worker_port, 1).unwrap_or(9000),
        frontend_threads: from
            .number("frontend-threads", args.frontend_threads, 1)
            .unwrap_or_else(half_the_cores),
        number_of_gpu: from.number("number-of-gpu", args.number_of_gpu, 0),
        max_request_size: from.size("max-request-size", args.max_request_size, 6_553_500),
        max_response_size: from.size("max-response-size", args.max_response_size, 6_553_500),
        enable_model_api: !no_api,
        allowed_urls: from.parsed("allowed-urls", args.allowed_urls, UrlPatterns::parse),
        max_download_size: from.bytes("max-download-size", args.max_download_size, 64 << 30),
        download_timeout: from.seconds("download-timeout", args.download_timeout, 3600),
        download_idle_timeout: from.seconds("download-idle-timeout", args.download_idle_timeout, 30),
        decode_input_request: from.truth("decode-input-request", args.decode_input_request),
        limit_max_image_pixels: from.truth("limit-max-image-pixels", args.limit_max_image_pixels),
        default_service_handler: from.text("default-service-handler", args.default_service_handler),
        service_envelope: from.envelope(args.service_envelope),
        blacklist_env_vars: from.text("blacklist-env-vars", args.blacklist_env_vars),
        allowed_hosts: from
            .text("allowed-hosts", args.allowed_hosts)
            .map(|names| names.split(',').map(|name| name.trim().to_owned()).collect())
            .unwrap_or_default(),
        drain_timeout: from.seconds("drain-timeout", args.drain_timeout, 30),
        origins: Origins::default(),
    };
    if !args.disable_token_auth {
        from.refuse_open_address("inference-address", config.inference_address);
        from.refuse_open_address("management-address", config.management_address);
    }
    if from.errors.is_empty() { Ok(Config { origins: from.origins, ..config }) } else { Err(from.errors) }
}

/// A request costs the frontend less than it costs its worker, and a thread fewer is a wake-up fewer on its way.
fn half_the_cores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (cores / 2).max(1)
}

/// What is read from, and what has been found so far.
struct Sources<'a> {
    env: &'a dyn Fn(&str) -> Option<OsString>,
    origins: Origins,
    errors: Vec<SettingError>,
}

impl Sources<'_> {
    fn wrong(&mut self, name: &'static str, problem: String) {
        let origin = self.origins.of(name);
        self.errors.push(SettingError { name, origin, problem });
    }

    /// A flag's value, its origin noted.
    fn text(&mut self, name: &'static str, flag: Option<String>) -> Option<String> {
        if flag.is_some() {
            self.origins.set(name, Origin::Flag(name));
        }
        flag
    }

    fn switch(&mut self, name: &'static str, on: bool) {
        if on {
            self.origins.set(name, Origin::Flag(name));
        }
    }

    /// A flag's value as `parse` understands it; `None` also if it doesn't.
    fn parsed<T>(
        &mut self,
        name: &'static str,
        flag: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name, flag)?;
        parse(text.trim()).map_err(|problem| self.wrong(name, problem)).ok()
    }

    fn number<T>(&mut self, name: &'static str, flag: Option<String>, least: T) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd + fmt::Display + Copy,
    {
        self.parsed(name, flag, |text| match text.parse::<T>() {
            Ok(number) if number >= least => Ok(number),
            _ => Err(format!("`{text}` must be a whole number, {least} or more")),
        })
    }

    fn seconds(&mut self, name: &'static str, flag: Option<String>, default: u64) -> Duration {
        Duration::from_secs(self.number(name, flag, 1).unwrap_or(default))
    }

    fn bytes(&mut self, name: &'static str, flag: Option<String>, default: u64) -> u64 {
        self.parsed(name, flag, parse_bytes).unwrap_or(default)
    }

    fn size(&mut self, name: &'static str, flag: Option<String>, default: usize) -> usize {
        let bytes = self.parsed(name, flag, |text| {
            let bytes = parse_bytes(text)?;
            usize::try_from(bytes).map_err(|_| format!("`{text}` is more than this machine can address"))
        });
        bytes.unwrap_or(default)
    }

    fn truth(&mut self, name: &'static str, flag: Option<String>) -> bool {
        let truth = self.parsed(name, flag, |text| match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("`{text}` must be true or false")),
        });
        truth.unwrap_or(true)
    }

    fn address(&mut self, name: &'static str, flag: Option<String>, port: u16) -> SocketAddr {
        let address = self.parsed(name, flag, |text| {
            let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
            let port_here = bare.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
            port_here
                .as_deref()
                .unwrap_or(bare)
                .parse()
                .map_err(|_| format!("`{text}` must be an IP address and a port, as 127.0.0.1:{port}"))
        });
        address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn folder(&mut self, name: &'static str, flag: Option<String>) -> Option<PathBuf> {
        self.parsed(name, flag, |text| {
            let path = absolute(Path::new(text))?;
            if path.is_dir() { Ok(path) } else { Err(format!("`{text}` is no folder")) }
        })
    }

    fn python(&mut self, flag: Option<String>) -> Option<PathBuf> {
        if let Some(path) = self.text("python", flag) {
            return Some(path.into());
        }
        let path = (self.env)("ZOO_PYTHON").filter(|path| !path.is_empty())?;
        self.origins.set("python", Origin::Env("ZOO_PYTHON"));
        Some(path.into())
    }

    fn cache_dir(&mut self, flag: Option<String>) -> PathBuf {
        if let Some(path) = self.parsed("cache-dir", flag, |text| absolute(Path::new(text))) {
            return path;
        }
        let found =
            [("XDG_CACHE_HOME", "zoo"), ("HOME", ".cache/zoo")].into_iter().find_map(|(name, below)| {
                // A relative one is to be ignored, says the base directory specification.
                let base = PathBuf::from((self.env)(name)?);
                base.is_absolute().then(|| (Origin::Env(name), base.join(below)))
            });
        let Some((origin, path)) = found else {
            if self.origins.of("cache-dir") == Origin::Default {
                let problem = "neither XDG_CACHE_HOME nor HOME is set; name a folder with --cache-dir";
                self.wrong("cache-dir", problem.to_owned());
            }
            return PathBuf::new();
        };
        if self.origins.of("cache-dir") == Origin::Default {
            self.origins.set("cache-dir", origin);
        }
        path
    }

    fn metrics_mode(&mut self, flag: Option<String>) -> Mode {
        let mode = self.parsed("metrics-mode", flag, |text| {
            Mode::of(text).ok_or_else(|| format!("`{text}` must be one of prometheus, log, legacy"))
        });
        mode.unwrap_or_default()
    }

    fn envelope(&mut self, flag: Option<String>) -> Option<String> {
        self.parsed("service-envelope", flag, |text| match text {
            "body" | "json" | "kserve" | "kservev2" => Ok(text.to_owned()),
            _ => Err(format!("`{text}` must be one of body, json, kserve, kservev2")),
        })
    }

    fn models(&mut self, flag: Vec<String>, store: Option<&Path>) -> StartupModels {
        self.switch("models", !flag.is_empty());
        if let [only] = flag.as_slice()
            && only.eq_ignore_ascii_case("all")
        {
            if store.is_none() {
                self.wrong(
                    "models",
                    "`all` means all of the model store: name it with --model-store".to_owned(),
                );
            }
            return StartupModels::All;
        }
        let mut listed = Vec::new();
        for item in flag {
            let (name, location) = match item.split_once('=') {
                // Part of a URL's query, not a name.
                Some((name, _)) if name.contains(['/', '?']) => (None, item.as_str()),
                Some((name, location)) => (Some(name.trim()), location),
                None => (None, item.as_str()),
            };
            if location.trim().is_empty() || name == Some("") {
                self.wrong("models", format!("`{item}` must be LOCATION or NAME=LOCATION"));
                continue;
            }
            let name = name.map(str::to_owned);
            listed.push(StartupModel { name, location: location.trim().to_owned() });
        }
        StartupModels::Listed(listed)
    }

    /// Who can reach the management port can run code here.
    fn refuse_open_address(&mut self, name: &'static str, address: SocketAddr) {
        if !address.ip().is_loopback() {
            let problem = format!(
                "`{address}` can be reached from other machines, and this build has no tokens to ask for; \
                 use a loopback address, or accept it with --disable-token-auth"
            );
            self.wrong(name, problem);
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path)
        .map_err(|error| format!("`{}` can't be used as a path: {error}", path.display()))
}

/// Bytes, or a number with a unit: `64KiB`, `10MB`, `20GiB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("b", 1),
        ("kb", 1_000),
        ("kib", 1 << 10),
        ("mb", 1_000_000),
        ("mib", 1 << 20),
        ("gb", 1_000_000_000),
        ("gib", 1 << 30),
    ];
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let bytes = number.parse::<u64>().ok().zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
    match bytes {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(format!("`{text}` must be a number of bytes above 0, as 6553500 or 64MiB")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn home(name: &str) -> Option<OsString> {
        (name == "HOME").then(|| "/home/u".into())
    }

    fn parse(flags: &[&str]) -> Result<Config, Vec<SettingError>> {
        let all = std::iter::once("zoo-server").chain(flags.iter().copied());
        resolve(Args::try_parse_from(all).unwrap(), home)
    }

    #[test]
    fn without_flags_everything_is_local_and_the_model_api_is_on() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.inference_address.to_string(), "127.0.0.1:8080");
        assert_eq!(config.management_address.to_string(), "127.0.0.1:8081");
        assert_eq!(config.models, StartupModels::Listed(vec![]));
        assert_eq!(config.cache_dir, Path::new("/home/u/.cache/zoo"));
        assert_eq!(config.origins.of("cache-dir"), Origin::Env("HOME"));
        assert_eq!((config.default_workers_per_model, config.job_queue_size), (None, 100));
        assert!(config.enable_model_api && config.decode_input_request);
        assert_eq!(config.origins.of("job-queue-size"), Origin::Default);
    }

    #[test]
    fn flags_are_typed_and_keep_their_origin() {
        let config = parse(&[
            "--job-queue-size=7",
            "--max-queue-bytes",
            "2MiB",
            "--default-response-timeout=5",
            "--management-address=http://localhost:0/",
            "--disable-model-api",
            "--decode-input-request=False",
            "--allowed-urls=https://models/.*",
            "--download-idle-timeout=7",
        ])
        .unwrap();
        assert!(config.allowed_urls.unwrap().matches("https://models/m.mar"));
        assert_eq!(config.download_idle_timeout, Duration::from_secs(7));
        assert_eq!((config.job_queue_size, config.max_queue_bytes), (7, 2 << 20));
        assert_eq!(config.default_response_timeout, Duration::from_secs(5));
        assert_eq!(config.management_address.to_string(), "127.0.0.1:0");
        assert!(!config.enable_model_api && !config.decode_input_request);
        assert_eq!(config.origins.of("job-queue-size"), Origin::Flag("job-queue-size"));
    }

    #[test]
    fn metrics_are_served_unless_switched_off() {
        let usual = parse(&[]).unwrap();
        assert_eq!(usual.metrics_address.unwrap().to_string(), "127.0.0.1:8082");
        assert_eq!(
            (usual.metrics_mode, usual.metric_time_interval),
            (Mode::Prometheus, Some(Duration::from_secs(60)))
        );
        let other = parse(&[
            "--enable-metrics-api=false",
            "--metrics-mode=log",
            "--disable-system-metrics",
            "--model-metrics-auto-detect",
            "--metrics-config=/m.yaml",
        ])
        .unwrap();
        assert_eq!(
            (other.metrics_address, other.metrics_mode, other.metric_time_interval),
            (None, Mode::Log, None)
        );
        assert!(other.model_metrics_auto_detect && !usual.model_metrics_auto_detect);
        assert_eq!(other.metrics_config.as_deref(), Some(Path::new("/m.yaml")));
    }

    #[test]
    fn models_are_all_or_a_list_of_names_and_locations() {
        let config = parse(&["--models", "a=one.mar", "two.mar", "http://h/m.mar?x=1"]).unwrap();
        let listed = |name: Option<&str>, location: &str| StartupModel {
            name: name.map(str::to_owned),
            location: location.to_owned(),
        };
        let expected =
            vec![listed(Some("a"), "one.mar"), listed(None, "two.mar"), listed(None, "http://h/m.mar?x=1")];
        assert_eq!(config.models, StartupModels::Listed(expected));

        let store = tempfile::tempdir().unwrap();
        let all = parse(&["--models", "ALL", "--model-store", store.path().to_str().unwrap()]).unwrap();
        assert_eq!(all.models, StartupModels::All);
    }

    #[test]
    fn all_problems_are_reported_at_once_each_with_its_origin() {
        let errors = parse(&[
            "--job-queue-size=0",
            "--model-store=/nonexistent",
            "--management-address=0.0.0.0:8081",
            "--max-request-size=lots",
            "--models",
            "all",
            "--service-envelope=soap",
            "--allowed-urls=https://ok/.*,http://(",
            "--decode-input-request=maybe",
            "--inference-address=here",
            "--metrics-mode=loud",
        ])
        .unwrap_err();
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let expected = [
            "--model-store: `/nonexistent` is no folder",
            "--inference-address: `here` must be an IP address and a port, as 127.0.0.1:8080",
            "--metrics-mode: `loud` must be one of prometheus, log, legacy",
            "--models: `all` means all of the model store: name it with --model-store",
            "--job-queue-size: `0` must be a whole number, 1 or more",
            "--max-request-size: `lots` must be a number of bytes above 0, as 6553500 or 64MiB",
            "--allowed-urls: `http://(` must be a regular expression: unclosed group",
            "--decode-input-request: `maybe` must be true or false",
            "--service-envelope: `soap` must be one of body, json, kserve, kservev2",
            "--management-address: `0.0.0.0:8081` can be reached from other machines, and this build has no tokens \
             to ask for; use a loopback address, or accept it with --disable-token-auth",
        ];
        assert_eq!(lines, expected);
        assert!(parse(&["--management-address=0.0.0.0:8081", "--disable-token-auth"]).is_ok());
    }

    #[test]
    fn the_cache_folder_comes_from_the_flag_then_the_environment() {
        let env = |name: &str| match name {
            "XDG_CACHE_HOME" => Some("/xdg".into()),
            "ZOO_PYTHON" => Some("/venv/bin/python".into()),
            _ => home(name),
        };
        let config = resolve(Args::default(), env).unwrap();
        assert_eq!(config.cache_dir, Path::new("/xdg/zoo"));
        assert_eq!(config.python.as_deref(), Some(Path::new("/venv/bin/python")));
        assert_eq!(config.origins.of("python"), Origin::Env("ZOO_PYTHON"));

        let flag = Args { cache_dir: Some("/flag".into()), ..Args::default() };
        assert_eq!(resolve(flag, env).unwrap().cache_dir, Path::new("/flag"));

        let relative = |name: &str| (name == "XDG_CACHE_HOME").then(|| "relative".into());
        let errors = resolve(Args::default(), relative).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "cache_dir (default): neither XDG_CACHE_HOME nor HOME is set; name a folder with --cache-dir"
        );
    }

    #[test]
    fn bytes_have_units_and_dont_overflow() {
        let cases =
            [("1", Some(1)), ("3 KB", Some(3000)), ("20GiB", Some(20 << 30)), ("0", None), ("-1", None)];
        for (text, expected) in cases {
            assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        }
        assert_eq!(parse_bytes("99999999999999GiB").ok(), None);
        assert_eq!(parse_bytes("MiB").ok(), None);
    }
}
