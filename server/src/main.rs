//! The `zoo-server` command.

fn main() {}
