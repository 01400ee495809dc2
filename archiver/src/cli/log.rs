//! Messages to the user, in the form of Python's logging: `LEVEL - message` on stderr.

use anstyle::{AnsiColor, Style};

pub(super) fn info(message: &str) {
    line("INFO", Style::new(), message);
}

pub(super) fn warning(message: &str) {
    line("WARNING", AnsiColor::Yellow.on_default(), message);
}

pub(super) fn error(message: &str) {
    line("ERROR", AnsiColor::Red.on_default().bold(), message);
}

fn line(level: &str, style: Style, message: &str) {
    anstream::eprintln!("{style}{level}{style:#} - {message}");
}
