//! Counters that all threads write and scrapes read: each thread has a shard of its own, so that none waits for a
//! cache line that another one writes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;

/// More threads than this share shards: memory has a limit too.
const MOST: usize = 16;

/// A value for each thread, or nearly.
#[derive(Debug)]
pub(super) struct Sharded<T>(Box<[Padded<T>]>);

/// Two cache lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        static COUNT: OnceLock<usize> = OnceLock::new();
        let count = *COUNT.get_or_init(|| available_parallelism().map_or(MOST, usize::from).min(MOST));
        Self((0..count).map(|_| Padded::default()).collect())
    }
}

impl<T> Sharded<T> {
    /// This thread's.
    pub(super) fn mine(&self) -> &T {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        &self.0[MINE.with(|mine| *mine) % self.0.len()].0
    }

    /// The sum over all threads.
    pub(super) fn sum(&self, of: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.0.iter().map(|shard| of(&shard.0).load(Ordering::Relaxed)).sum()
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

/// How many values were at most so large, for each of `N` bounds, and how many were larger.
#[derive(Debug)]
pub(super) struct Buckets<const N: usize> {
    counts: [AtomicU64; N],
    over: AtomicU64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), over: AtomicU64::new(0) }
    }
}

impl<const N: usize> Buckets<N> {
    /// Counts a value.
    pub(super) fn count(&self, bounds: &[u64; N], value: u64) {
        let at = bounds.partition_point(|&bound| bound < value);
        add(self.counts.get(at).unwrap_or(&self.over), 1);
    }

    /// The counter of a bucket; that of larger values after the last.
    pub(super) fn at(&self, at: usize) -> &AtomicU64 {
        self.counts.get(at).unwrap_or(&self.over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let sharded = Sharded::<AtomicU64>::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * MOST {
                scope.spawn(|| (0..1000).for_each(|_| add(sharded.mine(), 1)));
            }
        });
        assert_eq!(sharded.sum(|count| count), 2 * MOST as u64 * 1000);
    }

    #[test]
    fn values_fall_into_the_first_bucket_that_holds_them() {
        let buckets = Buckets::<2>::default();
        for value in [0, 10, 11, 20, 21, u64::MAX] {
            buckets.count(&[10, 20], value);
        }
        assert_eq!([0, 1, 2].map(|at| buckets.at(at).load(Ordering::Relaxed)), [2, 2, 2]);
    }
}
