//! How many workers a version shall have.

use std::sync::Arc;

use tracing::warn;

use super::Registry;
use super::register::lost;
use crate::failure::Failure;
use crate::worker::pool::Scaled;

/// What a client wants, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scaling {
    /// The least workers; 1 if nothing is said.
    pub min: Option<i64>,
    /// The most workers; as many as the least if nothing is said.
    pub max: Option<i64>,
    /// Wait for the workers.
    pub synchronous: bool,
}

/// How a scaling went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleReport {
    /// Nobody waited.
    Processing,
    /// The workers are there.
    Done {
        /// The least workers that were wanted.
        workers: u32,
    },
    /// Another scaling came in between.
    InProgress,
}

impl Scaling {
    /// The bounds, if they make sense.
    fn bounds(self) -> Result<(u32, u32), Failure> {
        let min = self.min.unwrap_or(1);
        let max = self.max.unwrap_or(min);
        if max < min {
            return Err(Failure::WorkerBounds);
        }
        if min < 0 {
            // TorchServe answers 500 here; its text is about a list's capacity.
            return Err(Failure::Internal { message: format!("min_worker must be 0 or more, not {min}.") });
        }
        let bound = |name, count: i64| {
            let too_many =
                || Failure::BadRequest { message: format!("{name} can't be as large as {count}.") };
            u32::try_from(count).map_err(|_| too_many())
        };
        Ok((bound("min_worker", min)?, bound("max_worker", max)?))
    }
}

impl Registry {
    /// Changes how many workers a version has; the default version if none is named.
    ///
    /// # Errors
    /// If there is no such version, the numbers make no sense, or workers were waited for and failed.
    pub async fn scale(
        &self,
        model: &str,
        version: Option<&str>,
        scaling: Scaling,
    ) -> Result<ScaleReport, Failure> {
        let found = self.resolve(model, version)?;
        let (min, max) = scaling.bounds()?;
        if !scaling.synchronous {
            found.pool.start_scaling(min, max);
            return Ok(ScaleReport::Processing);
        }
        let pool = Arc::clone(&found.pool);
        // Goes on if the client leaves.
        let scaled = tokio::spawn(async move { pool.scale(min, max).await }).await;
        match scaled.map_err(|error| lost(&error))? {
            Scaled::Done { .. } => Ok(ScaleReport::Done { workers: min }),
            Scaled::NoDevices => {
                Err(Failure::NoDevices { model: found.name.clone(), version: found.version.clone() })
            }
            Scaled::Superseded => Ok(ScaleReport::InProgress),
            Scaled::Failed { memory, reason } => {
                warn!(model, version = %found.version, "failed to start workers: {reason}");
                let version = version.map(|_| found.version.clone());
                Err(Failure::WorkersFailed { model: found.name.clone(), version, memory })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_torchserves_table() {
        let internal = Failure::Internal { message: "min_worker must be 0 or more, not -1.".into() };
        let large = Failure::BadRequest { message: "max_worker can't be as large as 4294967296.".into() };
        let cases = [
            (None, None, Ok((1, 1))),
            (Some(3), None, Ok((3, 3))),
            (Some(0), None, Ok((0, 0))),
            (None, Some(2), Ok((1, 2))),
            (Some(1), Some(2), Ok((1, 2))),
            (Some(2), Some(1), Err(Failure::WorkerBounds)),
            (None, Some(0), Err(Failure::WorkerBounds)),
            (None, Some(-1), Err(Failure::WorkerBounds)),
            (Some(-1), None, Err(internal.clone())),
            (Some(-1), Some(1), Err(internal)),
            (Some(1), Some(1 << 32), Err(large)),
        ];
        for (min, max, expected) in cases {
            assert_eq!(Scaling { min, max, synchronous: false }.bounds(), expected, "{min:?} {max:?}");
        }
    }
}
