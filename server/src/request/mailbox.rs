//! What connection tasks tell the owner of a worker about requests that are with it.

use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// One piece of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Nobody waits for this item any more.
    Abandoned(u64),
    /// The client took so many bytes of this item's stream.
    Taken {
        /// The item.
        item: u64,
        /// Bytes since the last notice.
        bytes: u32,
    },
}

/// A worker owner's mailbox. News are few: at most one abandonment for each item, and one notice for each 64 KiB streamed.
#[derive(Debug, Clone, Default)]
pub struct Mailbox(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    notices: Vec<Notice>,
    owner: Option<Waker>,
}

impl Mailbox {
    /// Leaves a notice and wakes the owner.
    pub fn leave(&self, notice: Notice) {
        let owner = {
            let mut inner = self.0.lock();
            inner.notices.push(notice);
            inner.owner.take()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    /// Takes what was left, and asks to be woken for more.
    pub fn collect(&self, cx: &Context<'_>) -> Vec<Notice> {
        let mut inner = self.0.lock();
        match &inner.owner {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => inner.owner = Some(cx.waker().clone()),
        }
        std::mem::take(&mut inner.notices)
    }
}
