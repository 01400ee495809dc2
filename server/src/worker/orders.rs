//! What the pool wants of a worker, as its owner sees it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Serve.
    Serve,
    /// Finish what was begun by then, and leave.
    LeaveBy(Instant),
}

/// The latest order. Orders only get stricter.
#[derive(Debug, Clone)]
pub struct Orders(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    order: Order,
    owner: Option<Waker>,
}

impl Default for Orders {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner { order: Order::Serve, owner: None })))
    }
}

impl Orders {
    /// Tells the worker to leave by `deadline`, or by the earlier one it was told before.
    pub fn leave_by(&self, deadline: Instant) {
        let owner = {
            let mut inner = self.0.lock();
            inner.order = match inner.order {
                Order::LeaveBy(before) => Order::LeaveBy(before.min(deadline)),
                Order::Serve => Order::LeaveBy(deadline),
            };
            inner.owner.take()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    /// The order in force.
    pub fn now(&self) -> Order {
        self.0.lock().order
    }

    /// The order in force; the caller is woken when it changes.
    pub fn poll(&self, cx: &Context<'_>) -> Order {
        let mut inner = self.0.lock();
        match &inner.owner {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => inner.owner = Some(cx.waker().clone()),
        }
        inner.order
    }

    /// Waits until the worker is told to leave.
    pub async fn dismissed(&self) {
        poll_fn(|cx| match self.poll(cx) {
            Order::Serve => Poll::Pending,
            Order::LeaveBy(_) => Poll::Ready(()),
        })
        .await;
    }
}
