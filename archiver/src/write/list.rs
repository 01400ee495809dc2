//! Sink for `--dry-run`: remembers what would go in.

use std::{cell::RefCell, mem, path::PathBuf, rc::Rc};

use super::{Blocks, Head, Sink};
use crate::error::PackError;

/// Writes nothing and reads nothing.
#[derive(Debug, Default)]
pub struct List {
    files: ListResult,
}

/// One file that would go in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What the sink was told.
    pub head: Head,
    /// Where it comes from.
    pub source: PathBuf,
}

/// The list, which outlives its sink.
#[derive(Debug, Clone, Default)]
pub struct ListResult(Rc<RefCell<Vec<Listed>>>);

impl List {
    /// Where the list will be.
    #[must_use]
    pub fn result(&self) -> ListResult {
        self.files.clone()
    }
}

impl ListResult {
    /// The files so far.
    #[must_use]
    pub fn take(&self) -> Vec<Listed> {
        mem::take(&mut self.0.borrow_mut())
    }
}

impl Sink for List {
    fn file(&mut self, head: &Head, content: &mut Blocks<'_>) -> Result<(), PackError> {
        self.files.0.borrow_mut().push(Listed { head: head.clone(), source: content.path().to_owned() });
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), PackError> {
        Ok(())
    }
}
