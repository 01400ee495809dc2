//! When a batch is complete. Pure: the caller owns the clock and the queue.

use std::time::Duration;

use tokio::time::Instant;

/// How requests are gathered into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPolicy {
    /// The most requests in a batch.
    pub size: usize,
    /// How long a worker waits for more, counted from its first look at a request. `None`: never set, so it doesn't wait.
    pub delay: Option<Duration>,
}

/// What a hungry worker should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Take so many from the front.
    Take(usize),
    /// Look again then, or when more has come.
    Until(Instant),
    /// Look again when something has come.
    Nothing,
}

impl BatchPolicy {
    /// Decides for a worker that has been gathering `since`, with `waiting` requests in the queue.
    pub fn decide(&self, now: Instant, waiting: usize, since: Instant) -> Decision {
        if waiting == 0 {
            return Decision::Nothing;
        }
        if waiting >= self.size {
            return Decision::Take(self.size);
        }
        match self.delay {
            None => Decision::Take(waiting),
            Some(delay) if since + delay <= now => Decision::Take(waiting),
            Some(delay) => Decision::Until(since + delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_table() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let policy = |size, delay| BatchPolicy { size, delay };
        // (policy, waiting, gathering for, decision)
        let cases = [
            (policy(1, None), 0, ms(0), Decision::Nothing),
            (policy(1, None), 3, ms(0), Decision::Take(1)),
            (policy(1, Some(ms(100))), 1, ms(0), Decision::Take(1)),
            (policy(4, None), 3, ms(0), Decision::Take(3)),
            (policy(4, None), 9, ms(0), Decision::Take(4)),
            (policy(4, Some(ms(100))), 0, ms(500), Decision::Nothing),
            (policy(4, Some(ms(100))), 1, ms(30), Decision::Until(now + ms(70))),
            (policy(4, Some(ms(100))), 3, ms(100), Decision::Take(3)),
            (policy(4, Some(ms(100))), 4, ms(1), Decision::Take(4)),
            (policy(4, Some(ms(0))), 1, ms(0), Decision::Take(1)),
        ];
        for (policy, waiting, gathering, expected) in cases {
            assert_eq!(
                policy.decide(now, waiting, now - gathering),
                expected,
                "{policy:?} {waiting} {gathering:?}"
            );
        }
    }
}
