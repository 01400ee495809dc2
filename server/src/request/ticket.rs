//! The two ends of a request's answer: a [`Promise`] that travels with the request and a [`Pending`] that waits for it.
//!
//! A promise that is dropped answers `Internal` by itself, so no request can hang. A pending that is dropped tells whoever holds
//! the promise, so no work is done for a client who left.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Outcome;
use super::mailbox::{Mailbox, Notice};
use crate::failure::Failure;

/// The answering end.
#[derive(Debug)]
pub struct Promise(Option<Arc<Mutex<State>>>);

/// The waiting end. It resolves at the request's deadline at the latest.
#[derive(Debug)]
pub struct Pending {
    state: Arc<Mutex<State>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum State {
    Waiting { waiter: Option<Waker>, place: Option<(Mailbox, u64)> },
    Answered(Outcome),
    Over,
}

/// Makes the two ends.
pub fn ticket(deadline: Option<Instant>) -> (Promise, Pending) {
    let state = Arc::new(Mutex::new(State::Waiting { waiter: None, place: None }));
    let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
    (Promise(Some(state.clone())), Pending { state, deadline })
}

impl Promise {
    /// Answers. If nobody waits any more, the answer is dropped.
    pub fn answer(mut self, outcome: Outcome) {
        if let Some(state) = self.0.take() {
            settle(&state, outcome);
        }
    }

    /// Whether nobody waits any more.
    pub fn is_abandoned(&self) -> bool {
        self.0.as_ref().is_none_or(|state| matches!(*state.lock(), State::Over))
    }

    /// Says where the request is now, so that leaving it is noticed there; `None` takes that back.
    /// Returns `false` if nobody waits any more.
    pub fn place(&self, at: Option<(Mailbox, u64)>) -> bool {
        let Some(state) = &self.0 else { return false };
        match &mut *state.lock() {
            State::Waiting { place, .. } => {
                *place = at;
                true
            }
            State::Answered(_) | State::Over => false,
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            settle(&state, Err(Failure::Internal { message: "The request was dropped unanswered.".into() }));
        }
    }
}

fn settle(state: &Mutex<State>, outcome: Outcome) {
    let waiter = {
        let mut state = state.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Waiting { waiter, .. } => {
                *state = State::Answered(outcome);
                waiter
            }
            State::Answered(_) | State::Over => None,
        }
    };
    if let Some(waiter) = waiter {
        waiter.wake();
    }
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.answered(cx) {
            return Poll::Ready(outcome);
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| Err(Failure::DeadlineExceeded)),
            None => Poll::Pending,
        }
    }
}

impl Pending {
    fn answered(&self, cx: &Context<'_>) -> Option<Outcome> {
        let mut state = self.state.lock();
        if let State::Waiting { waiter, .. } = &mut *state {
            *waiter = Some(cx.waker().clone());
            return None;
        }
        match std::mem::replace(&mut *state, State::Over) {
            State::Answered(outcome) => Some(outcome),
            // Polled again after the answer was taken; a caller's defect that must not hang.
            _ => Some(Err(Failure::Internal { message: "The answer was taken before.".into() })),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let left = std::mem::replace(&mut *self.state.lock(), State::Over);
        if let State::Waiting { place: Some((mailbox, item)), .. } = left {
            mailbox.leave(Notice::Abandoned(item));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Answer, AnswerBody};
    use bytes::Bytes;

    fn answer() -> Outcome {
        Ok(Answer {
            status: 200,
            headers: Default::default(),
            body: AnswerBody::Whole(Bytes::from_static(b"x")),
        })
    }

    #[tokio::test]
    async fn an_answer_arrives() {
        let (promise, pending) = ticket(None);
        let waiter = tokio::spawn(pending);
        tokio::task::yield_now().await;
        promise.answer(answer());
        assert_eq!(waiter.await.unwrap().unwrap().status, 200);
    }

    #[tokio::test]
    async fn a_dropped_promise_answers_for_itself() {
        let (promise, pending) = ticket(None);
        drop(promise);
        assert!(matches!(pending.await, Err(Failure::Internal { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_answers_and_then_nobody_waits() {
        let (promise, pending) = ticket(Some(Instant::now() + std::time::Duration::from_millis(5)));
        assert!(matches!(pending.await, Err(Failure::DeadlineExceeded)));
        assert!(promise.is_abandoned());
    }

    #[tokio::test]
    async fn leaving_is_noticed_where_the_request_is() {
        let (promise, pending) = ticket(None);
        let mailbox = Mailbox::default();
        assert!(promise.place(Some((mailbox.clone(), 7))));
        assert!(!promise.is_abandoned());
        drop(pending);
        assert!(promise.is_abandoned());
        assert!(!promise.place(None));
        let seen = std::future::poll_fn(|cx| Poll::Ready(mailbox.collect(cx))).await;
        assert_eq!(seen, [Notice::Abandoned(7)]);
    }

    #[tokio::test]
    async fn an_answered_request_is_not_abandoned_by_its_waiter_going_away() {
        let (promise, pending) = ticket(None);
        let mailbox = Mailbox::default();
        promise.place(Some((mailbox.clone(), 7)));
        promise.answer(answer());
        drop(pending);
        let seen = std::future::poll_fn(|cx| Poll::Ready(mailbox.collect(cx))).await;
        assert_eq!(seen, []);
    }
}
