//! Ctrl-C and SIGTERM: the first asks the work to stop and tidy up, the second ends the program at once.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicBool, Ordering},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// What a shell reports of a program that Ctrl-C has ended.
pub(super) const EXIT_CODE: u8 = 130;

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Starts to listen.
pub(super) fn watch() {
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset. Without a handler it just ends the program.
        drop(flag::register_conditional_shutdown(signal, EXIT_CODE.into(), Arc::clone(&ASKED)));
        drop(flag::register(signal, Arc::clone(&ASKED)));
    }
}

/// Whether the user wants the work to end.
pub(super) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
