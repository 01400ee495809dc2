//! Requests that wait, and when a worker takes how many of them.
