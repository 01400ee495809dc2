//! How long work reports to whoever asked for it, and hears that it isn't wanted any more.

use crate::collect::Warning;

/// Told about long work. All methods have a default that does nothing.
pub trait Progress: Sync {
    /// `total` bytes lie ahead; 0 if unknown.
    fn begin(&self, total: u64) {
        let _ = total;
    }
    /// `bytes` more are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }
    /// Something the user should know, though the work goes on.
    fn warn(&self, warning: &Warning) {
        let _ = warning;
    }
    /// Asked between two blocks; true ends the work with an error, and leaves nothing behind.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Reports to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {}
