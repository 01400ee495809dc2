//! How a model version wants to be served: of each value the strongest source, and where it came from.
//!
//! Registration > `model-config.yaml` > the server's settings > TorchServe's defaults. In the file, a value
//! of the wrong type or out of range is as if it weren't there, but is warned about; keys that mean nothing
//! here are the handler's.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::register::Registration;
use crate::config::{Config, Origin};
use crate::model::{DeviceType, Devices, ModelOptions, Parallel};

/// The settled values of a model version.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) options: ModelOptions,
    /// Least and most workers, if the archive says.
    pub(super) workers: Option<(u32, u32)>,
    /// `batchSize=4 (registration)`, for each value that isn't a default.
    pub(super) origins: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Settles all values.
pub(super) fn settle(keys: &Map<String, Value>, given: &Registration, config: &Config) -> Settled {
    let mut from = Sources { keys, origins: Vec::new(), warnings: Vec::new() };
    let server = |name| config.origins.of(name);
    let defaults = ModelOptions::default();
    let options = ModelOptions {
        batch_size: from.pick(
            "batchSize",
            given.batch_size.map(|size| size.max(1)),
            |k, name| k.count(name, 1),
            (defaults.batch_size, Origin::Default),
        ),
        max_batch_delay: from.maybe("maxBatchDelay", given.max_batch_delay, |k, name| k.millis(name, 0)),
        response_timeout: from.pick(
            "responseTimeout",
            given.response_timeout,
            Sources::seconds,
            (config.default_response_timeout, server("default-response-timeout")),
        ),
        startup_timeout: from.pick(
            "startupTimeout",
            given.startup_timeout,
            Sources::seconds,
            (config.default_startup_timeout, server("default-startup-timeout")),
        ),
        client_timeout: from
            .maybe("clientTimeoutInMills", None, |k, name| k.millis(name, 0))
            .filter(|timeout| !timeout.is_zero()),
        max_retry_timeout: from.own("maxRetryTimeoutInSec", defaults.max_retry_timeout, Sources::seconds),
        job_queue_size: from.pick(
            "jobQueueSize",
            None,
            |k, name| k.count(name, 1).map(|size| size as usize),
            (config.job_queue_size, server("job-queue-size")),
        ),
        max_queue_bytes: config.max_queue_bytes,
        use_job_ticket: from.own("useJobTicket", defaults.use_job_ticket, Sources::truth),
        retry_on_worker_death: from.own("retryOnWorkerDeath", defaults.retry_on_worker_death, Sources::truth),
        asynchronous: from.own("asyncCommunication", defaults.asynchronous, Sources::truth),
        devices: from.devices(),
        threads: from.maybe("threads", None, |k, name| k.count(name, 1)),
    };
    let workers = from.workers();
    Settled { options, workers, origins: from.origins, warnings: from.warnings }
}

/// The archive's keys, and what has been found in them.
struct Sources<'a> {
    keys: &'a Map<String, Value>,
    origins: Vec<String>,
    warnings: Vec<String>,
}

impl Sources<'_> {
    /// A value that the registration or the archive may set, else the server's.
    fn pick<T: fmt::Debug>(
        &mut self,
        name: &str,
        given: Option<T>,
        read: impl FnOnce(&mut Self, &str) -> Option<T>,
        (otherwise, origin): (T, Origin),
    ) -> T {
        match self.maybe(name, given, read) {
            Some(value) => value,
            None => {
                if origin != Origin::Default {
                    self.origins.push(format!("{name}={otherwise:?} ({origin})"));
                }
                otherwise
            }
        }
    }

    /// A value that the registration or the archive may set.
    fn maybe<T: fmt::Debug>(
        &mut self,
        name: &str,
        given: Option<T>,
        read: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) -> Option<T> {
        // Read even if the registration wins: a wrong value in the archive deserves its warning.
        let own = read(self, name).map(|value| (value, Origin::ModelConfig));
        let (value, origin) = given.map(|value| (value, Origin::Api)).or(own)?;
        self.origins.push(format!("{name}={value:?} ({origin})"));
        Some(value)
    }

    /// A value that only the archive may set.
    fn own<T: fmt::Debug>(
        &mut self,
        name: &str,
        default: T,
        read: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) -> T {
        self.pick(name, None, read, (default, Origin::Default))
    }

    fn warn(&mut self, name: &str, value: &Value, right: &str) {
        self.warnings.push(format!("{name}: {value} is ignored; it must be {right}"));
    }

    fn whole(&mut self, name: &str, least: u64, most: u64, what: &str) -> Option<u64> {
        let value = self.keys.get(name).filter(|value| !value.is_null())?;
        match value.as_u64() {
            Some(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.warn(name, value, &format!("{what} from {least} to {most}"));
                None
            }
        }
    }

    fn count(&mut self, name: &str, least: u32) -> Option<u32> {
        let number = self.whole(name, least.into(), i32::MAX as u64, "a whole number")?;
        u32::try_from(number).ok()
    }

    fn seconds(&mut self, name: &str) -> Option<Duration> {
        self.whole(name, 1, i32::MAX as u64, "whole seconds").map(Duration::from_secs)
    }

    fn millis(&mut self, name: &str, least: u64) -> Option<Duration> {
        self.whole(name, least, i32::MAX as u64, "whole milliseconds").map(Duration::from_millis)
    }

    fn truth(&mut self, name: &str) -> Option<bool> {
        let value = self.keys.get(name).filter(|value| !value.is_null())?;
        if value.as_bool().is_none() {
            self.warn(name, value, "true or false");
        }
        value.as_bool()
    }

    fn devices(&mut self) -> Devices {
        let kind = self.word("deviceType", &[("cpu", DeviceType::Cpu), ("gpu", DeviceType::Gpu)]);
        let parallel = self.word(
            "parallelType",
            &[Parallel::Pipeline, Parallel::Tensor, Parallel::PipelineAndTensor, Parallel::Custom]
                .map(|parallel| (parallel.as_str(), parallel)),
        );
        let ids = self.device_ids();
        // A block for torchrun says how many processes, and so GPUs, a worker has; the key of its own counts without one.
        let torchrun = self.keys.get("torchrun").and_then(Value::as_object);
        let level = match torchrun.and_then(|torchrun| torchrun.get("nproc-per-node")).and_then(Value::as_u64)
        {
            Some(processes) => u32::try_from(processes).ok(),
            None => self.count("parallelLevel", 0),
        };
        let per_worker = if parallel.is_some() { level.unwrap_or(1).max(1) } else { 0 };
        Devices { kind, ids, parallel, per_worker }
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.keys.get(name).filter(|value| !value.is_null())?;
        let found =
            words.iter().find(|(word, _)| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(word)));
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.warn(name, value, &format!("one of {}", known.join(", ")));
        }
        found.map(|(_, meaning)| *meaning)
    }

    fn device_ids(&mut self) -> Vec<u32> {
        let Some(value) = self.keys.get("deviceIds").filter(|value| !value.is_null()) else {
            return Vec::new();
        };
        let number = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids: Option<Vec<u32>> = value.as_array().and_then(|ids| ids.iter().map(number).collect());
        if ids.is_none() {
            self.warn("deviceIds", value, "a list of whole numbers from 0");
        }
        ids.unwrap_or_default()
    }

    /// `minWorkers` and `maxWorkers`, each of which stands for the other as in a scale request.
    fn workers(&mut self) -> Option<(u32, u32)> {
        let least = self.worker_count("minWorkers").map(|count| count.max(1));
        let most = self.worker_count("maxWorkers");
        let (min, max) = match (least, most) {
            (None, None) => return None,
            (min, max) => (min.unwrap_or(1), max.or(min).unwrap_or(1)),
        };
        if max < min {
            let problem =
                format!("minWorkers, maxWorkers: {min} and {max} are ignored; the first must not be larger");
            self.warnings.push(problem);
            return None;
        }
        self.origins.push(format!("minWorkers={min}, maxWorkers={max} ({})", Origin::ModelConfig));
        Some((min, max))
    }

    /// As TorchServe, a negative count is none.
    fn worker_count(&mut self, name: &str) -> Option<u32> {
        match self.keys.get(name).and_then(Value::as_i64) {
            Some(negative) if negative < 0 => Some(0),
            _ => self.count(name, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::fixture::config;

    fn settle_keys(keys: &Value, given: &Registration) -> Settled {
        settle(keys.as_object().unwrap(), given, &config())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_strongest_source_wins() {
        let given = Registration {
            batch_size: Some(8),
            max_batch_delay: Some(ms(7)),
            response_timeout: Some(ms(3000)),
            startup_timeout: Some(Duration::ZERO),
            ..Registration::of("x")
        };
        let keys = json!({"batchSize": 4, "maxBatchDelay": 20, "responseTimeout": 9, "startupTimeout": 9});

        let both = settle_keys(&keys, &given).options;
        assert_eq!((both.batch_size, both.max_batch_delay), (8, Some(ms(7))));
        assert_eq!((both.response_timeout, both.startup_timeout), (ms(3000), Duration::ZERO));

        let archive = settle_keys(&keys, &Registration::of("x")).options;
        assert_eq!((archive.batch_size, archive.max_batch_delay), (4, Some(ms(20))));
        assert_eq!((archive.response_timeout, archive.startup_timeout), (ms(9000), ms(9000)));

        let neither = settle_keys(&json!({}), &Registration::of("x")).options;
        assert_eq!((neither.batch_size, neither.max_batch_delay), (1, None));
        assert_eq!(neither.response_timeout, config().default_response_timeout);
    }

    #[test]
    fn each_key_of_the_archive_has_its_range() {
        let d =
            ModelOptions { response_timeout: config().default_response_timeout, ..ModelOptions::default() };
        let devices = |devices| ModelOptions { devices, ..d.clone() };
        let cases: Vec<(Value, ModelOptions)> = vec![
            (
                json!({"maxBatchDelay": 0}),
                ModelOptions { max_batch_delay: Some(Duration::ZERO), ..d.clone() },
            ),
            (json!({"clientTimeoutInMills": 5}), ModelOptions { client_timeout: Some(ms(5)), ..d.clone() }),
            (json!({"clientTimeoutInMills": 0}), d.clone()),
            (json!({"maxRetryTimeoutInSec": 9}), ModelOptions { max_retry_timeout: ms(9000), ..d.clone() }),
            (json!({"jobQueueSize": 3}), ModelOptions { job_queue_size: 3, ..d.clone() }),
            (json!({"useJobTicket": true}), ModelOptions { use_job_ticket: true, ..d.clone() }),
            (
                json!({"retryOnWorkerDeath": false}),
                ModelOptions { retry_on_worker_death: false, ..d.clone() },
            ),
            (json!({"asyncCommunication": true}), ModelOptions { asynchronous: true, ..d.clone() }),
            (json!({"threads": 2}), ModelOptions { threads: Some(2), ..d.clone() }),
            (
                json!({"deviceType": "cpu", "deviceIds": [1, 3]}),
                devices(Devices { kind: Some(DeviceType::Cpu), ids: vec![1, 3], ..Devices::default() }),
            ),
            (json!({"parallelLevel": 4}), d.clone()),
            (
                json!({"parallelType": "custom", "parallelLevel": 4}),
                devices(Devices { parallel: Some(Parallel::Custom), per_worker: 4, ..Devices::default() }),
            ),
            (
                json!({"parallelType": "tp", "parallelLevel": 4, "torchrun": {"nproc-per-node": 2}}),
                devices(Devices { parallel: Some(Parallel::Tensor), per_worker: 2, ..Devices::default() }),
            ),
            (json!({"batchSize": null}), d.clone()),
            (json!({"handler": {"profile": true}, "batchsize": 3}), d.clone()),
        ];
        for (keys, expected) in cases {
            let settled = settle_keys(&keys, &Registration::of("x"));
            assert_eq!(settled.options, expected, "{keys}");
            assert_eq!(settled.warnings, Vec::<String>::new(), "{keys}");
        }
    }

    #[test]
    fn a_wrong_value_is_warned_about_and_ignored() {
        let cases = [
            (
                json!({"batchSize": "4"}),
                r#"batchSize: "4" is ignored; it must be a whole number from 1 to 2147483647"#,
            ),
            (
                json!({"batchSize": 0}),
                "batchSize: 0 is ignored; it must be a whole number from 1 to 2147483647",
            ),
            (
                json!({"maxBatchDelay": -1}),
                "maxBatchDelay: -1 is ignored; it must be whole milliseconds from 0 to",
            ),
            (
                json!({"responseTimeout": 1.5}),
                "responseTimeout: 1.5 is ignored; it must be whole seconds from 1 to",
            ),
            (
                json!({"startupTimeout": 0}),
                "startupTimeout: 0 is ignored; it must be whole seconds from 1 to",
            ),
            (
                json!({"jobQueueSize": [1]}),
                "jobQueueSize: [1] is ignored; it must be a whole number from 1 to",
            ),
            (json!({"deviceType": "tpu"}), r#"deviceType: "tpu" is ignored; it must be one of cpu, gpu"#),
            (
                json!({"deviceIds": [0, "x"]}),
                r#"deviceIds: [0,"x"] is ignored; it must be a list of whole numbers from 0"#,
            ),
            (json!({"useJobTicket": "yes"}), r#"useJobTicket: "yes" is ignored; it must be true or false"#),
            (
                json!({"minWorkers": "2"}),
                r#"minWorkers: "2" is ignored; it must be a whole number from 0 to"#,
            ),
            (
                json!({"minWorkers": 3, "maxWorkers": 2}),
                "minWorkers, maxWorkers: 3 and 2 are ignored; the first must not be larger",
            ),
        ];
        for (keys, expected) in cases {
            let settled = settle_keys(&keys, &Registration::of("x"));
            assert_eq!(settled.warnings.len(), 1, "{keys}: {:?}", settled.warnings);
            assert!(settled.warnings[0].starts_with(expected), "{keys}: {:?}", settled.warnings);
            assert_eq!(settled.workers, None, "{keys}");
            assert_eq!((settled.options.batch_size, settled.options.job_queue_size), (1, 100));
        }
    }

    #[test]
    fn workers_of_the_archive() {
        let cases = [
            (json!({}), None),
            (json!({"minWorkers": 2, "maxWorkers": 4}), Some((2, 4))),
            (json!({"minWorkers": 2}), Some((2, 2))),
            (json!({"maxWorkers": 4}), Some((1, 4))),
            (json!({"minWorkers": 0, "maxWorkers": 3}), Some((1, 3))),
            (json!({"minWorkers": -5, "maxWorkers": 3}), Some((1, 3))),
            (json!({"minWorkers": 1, "maxWorkers": 0}), None),
            (json!({"minWorkers": 1, "maxWorkers": -1}), None),
        ];
        for (keys, expected) in cases {
            assert_eq!(settle_keys(&keys, &Registration::of("x")).workers, expected, "{keys}");
        }
    }

    #[test]
    fn values_that_arent_defaults_are_told_with_their_origin() {
        let given = Registration { batch_size: Some(8), ..Registration::of("x") };
        let settled = settle_keys(&json!({"batchSize": 4, "responseTimeout": 9, "minWorkers": 2}), &given);
        let expected = [
            "batchSize=8 (registration)",
            "responseTimeout=9s (model config)",
            "minWorkers=2, maxWorkers=2 (model config)",
        ];
        assert_eq!(settled.origins, expected);
    }
}
