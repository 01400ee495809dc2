//! The life of a worker as a pure state machine: events in, the next thing to do out. It owns no clock, no process and no task.
//!
//! `Starting → Loading → Ready → Draining → Stopped`, and from any of the first three by way of a loss to `BackingOff → Starting`.
//! `Failed` is for archives that can't be loaded by nature: trying again is of no use.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// TorchServe's table, in seconds. The index is raised before it is used, so the first wait is 1 s; the last entry is for good.
const BACK_OFF: [u64; 11] = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55];

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkerState {
    /// Its process is being made, or hasn't said hello yet.
    Starting,
    /// It loads its model.
    Loading,
    /// It serves.
    Ready,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It was lost and is started again after a while.
    BackingOff,
    /// Its archive can't be loaded.
    Failed,
    /// It is gone.
    Stopped,
}

impl WorkerState {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Loading,
        Self::Ready,
        Self::Draining,
        Self::BackingOff,
        Self::Failed,
        Self::Stopped,
    ];

    /// As logs and metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Loading => "LOADING",
            Self::Ready => "READY",
            Self::Draining => "DRAINING",
            Self::BackingOff => "BACKING_OFF",
            Self::Failed => "FAILED",
            Self::Stopped => "STOPPED",
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The process is there and said hello.
    Launched,
    /// The model is loaded.
    Loaded,
    /// The process died, hung, broke the protocol, couldn't be started or couldn't load.
    Lost {
        /// The archive can't be loaded by nature.
        by_nature: bool,
    },
    /// The wait is over.
    BackedOff,
    /// The worker is no longer wanted.
    Dismissed,
    /// Everything is finished and the process is gone.
    Drained,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Make a process.
    Launch,
    /// Tell it what to load.
    Load,
    /// Give it work.
    Serve,
    /// Wait, then report [`Event::BackedOff`].
    Wait(Duration),
    /// Let it finish, then report [`Event::Drained`].
    Drain,
    /// Do nothing until dismissed.
    Rest,
    /// The end.
    Finish,
}

/// A worker's life so far.
#[derive(Debug)]
pub struct Life {
    state: WorkerState,
    attempt: usize,
    failing_since: Option<Instant>,
    /// Spreads the waits of workers that were lost together: 0 to 1.
    jitter: f64,
}

impl Life {
    /// A worker that is about to be launched.
    pub fn new(jitter: f64) -> Self {
        Self { state: WorkerState::Starting, attempt: 0, failing_since: None, jitter }
    }

    /// Where it is.
    pub fn state(&self) -> WorkerState {
        self.state
    }

    /// When the present run of failures began.
    pub fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// Whether it counts as healthy: not failing, or not for long.
    pub fn is_healthy(&self, now: Instant, patience: Duration) -> bool {
        self.state != WorkerState::Failed && self.failing_since.is_none_or(|since| now < since + patience)
    }

    /// Moves on. An event that makes no sense in the present state changes nothing and repeats what is to be done.
    pub fn on(&mut self, event: Event, now: Instant) -> Next {
        use WorkerState as S;
        self.state = match (self.state, event) {
            (S::Starting, Event::Launched) => S::Loading,
            (S::Loading, Event::Loaded) => {
                self.attempt = 0;
                self.failing_since = None;
                S::Ready
            }
            (S::Starting | S::Loading | S::Ready, Event::Lost { by_nature }) => {
                self.failing_since.get_or_insert(now);
                self.attempt = (self.attempt + 1).min(BACK_OFF.len() - 1);
                if by_nature { S::Failed } else { S::BackingOff }
            }
            (S::BackingOff, Event::BackedOff) => S::Starting,
            (S::Ready, Event::Dismissed) => S::Draining,
            (S::Starting | S::Loading | S::BackingOff | S::Failed, Event::Dismissed) => S::Stopped,
            (S::Draining, Event::Drained | Event::Lost { .. }) => S::Stopped,
            (state, _) => state,
        };
        self.next()
    }

    /// What the present state asks for.
    pub fn next(&self) -> Next {
        match self.state {
            WorkerState::Starting => Next::Launch,
            WorkerState::Loading => Next::Load,
            WorkerState::Ready => Next::Serve,
            WorkerState::Draining => Next::Drain,
            WorkerState::BackingOff => Next::Wait(self.back_off()),
            WorkerState::Failed => Next::Rest,
            WorkerState::Stopped => Next::Finish,
        }
    }

    /// The wait before the next start: the table's, up to a fifth longer.
    fn back_off(&self) -> Duration {
        let table = Duration::from_secs(BACK_OFF[self.attempt]);
        table + table.mul_f64(self.jitter.clamp(0.0, 1.0) / 5.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Event = Event::Lost { by_nature: false };

    fn seconds(next: Next) -> u64 {
        match next {
            Next::Wait(wait) => wait.as_secs(),
            other => panic!("expected a wait, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_table_of_transitions() {
        use WorkerState as S;
        let now = Instant::now();
        // (state, event, state after)
        let cases = [
            (S::Starting, Event::Launched, S::Loading),
            (S::Starting, LOST, S::BackingOff),
            (S::Starting, Event::Dismissed, S::Stopped),
            (S::Starting, Event::Loaded, S::Starting),
            (S::Loading, Event::Loaded, S::Ready),
            (S::Loading, LOST, S::BackingOff),
            (S::Loading, Event::Lost { by_nature: true }, S::Failed),
            (S::Loading, Event::Dismissed, S::Stopped),
            (S::Ready, LOST, S::BackingOff),
            (S::Ready, Event::Dismissed, S::Draining),
            (S::Ready, Event::Launched, S::Ready),
            (S::Draining, Event::Drained, S::Stopped),
            (S::Draining, LOST, S::Stopped),
            (S::Draining, Event::Dismissed, S::Draining),
            (S::BackingOff, Event::BackedOff, S::Starting),
            (S::BackingOff, Event::Dismissed, S::Stopped),
            (S::Failed, Event::BackedOff, S::Failed),
            (S::Failed, Event::Dismissed, S::Stopped),
            (S::Stopped, LOST, S::Stopped),
            (S::Stopped, Event::Launched, S::Stopped),
        ];
        for (before, event, after) in cases {
            let mut life = Life { state: before, attempt: 0, failing_since: None, jitter: 0.0 };
            life.on(event, now);
            assert_eq!(life.state(), after, "{before:?} on {event:?}");
        }
    }

    #[tokio::test]
    async fn waits_grow_as_in_torchserve_and_a_load_resets_them() {
        let now = Instant::now();
        let mut life = Life::new(0.0);
        let mut waits = Vec::new();
        for _ in 0..12 {
            waits.push(seconds(life.on(LOST, now)));
            life.on(Event::BackedOff, now);
        }
        assert_eq!(waits, [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 55, 55]);
        life.on(Event::Launched, now);
        life.on(Event::Loaded, now);
        assert_eq!(seconds(life.on(LOST, now)), 1);
    }

    #[tokio::test]
    async fn a_worker_is_unhealthy_only_after_failing_for_long() {
        let now = Instant::now();
        let patience = Duration::from_secs(300);
        let mut life = Life::new(0.5);
        life.on(LOST, now);
        life.on(Event::BackedOff, now);
        life.on(LOST, now + Duration::from_secs(100));
        assert!(life.is_healthy(now + Duration::from_secs(299), patience));
        assert!(!life.is_healthy(now + Duration::from_secs(300), patience));
        assert!(matches!(life.next(), Next::Wait(_)), "an unhealthy worker is tried on");
    }

    /// Whatever happens in whatever order, a dismissed worker ends and a stopped one stays so.
    #[tokio::test]
    async fn a_seeded_walk() {
        let now = Instant::now();
        let events = [
            Event::Launched,
            Event::Loaded,
            LOST,
            Event::Lost { by_nature: true },
            Event::BackedOff,
            Event::Dismissed,
            Event::Drained,
        ];
        for seed in 0..200_u64 {
            let mut random =
                seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut life = Life::new(0.3);
            let mut dismissed = false;
            for _ in 0..60 {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let event = events[(random >> 33) as usize % events.len()];
                let before = life.state();
                life.on(event, now);
                dismissed |= event == Event::Dismissed;
                if before == WorkerState::Stopped {
                    assert_eq!(life.state(), WorkerState::Stopped, "seed {seed}");
                }
                if dismissed {
                    let gone = matches!(life.state(), WorkerState::Draining | WorkerState::Stopped);
                    assert!(gone, "seed {seed}: {:?} after a dismissal", life.state());
                }
                assert_eq!(life.state() == WorkerState::Ready, life.next() == Next::Serve, "seed {seed}");
            }
        }
    }
}
