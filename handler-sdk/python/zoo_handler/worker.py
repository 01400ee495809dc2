"""The worker process of one model: takes the link, loads the handler, runs batch after batch, leaves.

A synchronous handler has the main thread to itself: there is no reader thread. The loop reads all that is
readable before each batch, and flushes answers when nothing else is on hand or when they have waited for a
millisecond of work.
"""

import json
import logging
import os
import signal
import sys
import traceback
from time import perf_counter

from zoo_handler import __version__, log, wire
from zoo_handler.errors import InvalidArchive, LinkClosed, LinkError, ProtocolError
from zoo_handler.inbox import Inbox
from zoo_handler.link import Link, take_standard_input
from zoo_handler.loader import find_handler, make_context
from zoo_handler.outbox import Outbox
from zoo_handler.replies import Replies
from zoo_handler.service import Service

_HOLD = 0.001  # seconds of work for which answers may wait to be sent together
_HOLD_BYTES = 64 * 1024
_MAX_TRACE = 64 * 1024
_MAX_LINE = 1024


class Worker:
    """One end of a link and the model that is served on it."""

    def __init__(self, end):
        self._inbox = Inbox()
        self._link = Link(end, self._inbox)
        self._inbox.attach(self._link)
        self._outbox = Outbox(self._link)

    def run(self):
        """Serves until the server says Drain. Returns the exit status."""
        load = self._start()
        if load is None:
            return self._bye()
        context = make_context(load)
        handler = self._load(load, context)
        if handler is None:
            return 1
        replies = Replies(self._outbox, load.get("max_response_bytes"))
        decode = handler.decode and load.get("decode_input", True) and _decodes_input()
        coalesce = load.get("coalesce", True)
        if not handler.asynchronous:
            self._loaded(handler, 1)
            self._serve(Service(handler, context, self._inbox, self._outbox, replies, decode), coalesce)
        else:
            from zoo_handler.aio import Loop

            concurrency = min(load.get("concurrency", 1), handler.concurrency or load.get("concurrency", 1))
            self._loaded(handler, concurrency)
            Loop(handler, context, self._inbox, self._outbox, replies, decode, concurrency, coalesce).run(
                self._link
            )
        return self._bye()

    def _bye(self):
        self._outbox.frame(wire.BYE, b"")
        self._outbox.flush()
        return 0

    def _start(self):
        """Exchanges Hello and waits for Load. None if the server wants the worker to stop instead."""
        python = "zoo_handler {} (Python {})".format(__version__, sys.version.split()[0])
        hello = {"role": "worker", "name": python, "pid": os.getpid()}
        self._outbox.add([wire.encode_hello(json.dumps(hello))])
        self._outbox.flush()
        inbox = self._inbox
        while inbox.load is None:
            inbox.receive(True)
            self._check_version()
            self._answer_pings()
            if inbox.draining and inbox.load is None:
                return None
        if inbox.hello is None:
            raise ProtocolError("Load came before Hello")
        load = json.loads(inbox.load)
        inbox.load = None
        inbox.max_body = load.get("max_request_bytes") or inbox.max_body
        return load

    def _check_version(self):
        if self._inbox.hello is not None:
            (major, minor), _ = self._inbox.hello
            if major != wire.VERSION[0]:
                text = "the server speaks worker protocol {}.{}, this worker {}.{}"
                raise ProtocolError(text.format(major, minor, *wire.VERSION))

    def _load(self, load, context):
        """The handler, initialised; None after LoadFailed."""
        model = load["model"]
        logging.info("model_name: %s, batchSize: %d", model["name"], load.get("batch_size", 1))
        try:
            handler = find_handler(load, context)
            if handler.asynchronous:
                from zoo_handler.aio import initialize

                initialize(handler)
            else:
                handler.initialize()
            handler.bind()
            return handler
        except LinkError:
            raise
        except (Exception, SystemExit) as cause:
            self._load_failed(cause)
            return None

    def _load_failed(self, cause):
        """Says why the model can't be served."""
        if self._link.forked:
            raise cause
        trace = "".join(traceback.format_exception(type(cause), cause, cause.__traceback__))
        logging.error("Failed to load the model: %s\n%s", cause, trace.rstrip())
        failed = {"kind": _load_kind(cause), "message": _one_line(cause), "trace": trace[-_MAX_TRACE:]}
        self._outbox.frame(wire.LOAD_FAILED, json.dumps(failed).encode())
        self._outbox.flush()

    def _loaded(self, handler, concurrency):
        loaded = {"concurrency": concurrency, "signature": handler.signature, "describes": True}
        self._outbox.frame(wire.LOADED, json.dumps(loaded).encode())
        self._outbox.flush()

    def _answer_pings(self):
        pings = self._inbox.pings
        if pings:
            for token in pings:
                self._outbox.frame(wire.PONG, token)
            pings.clear()
            self._outbox.flush()

    def _serve(self, service, coalesce):
        """The loop. Every name that it uses for each batch is local."""
        inbox = self._inbox
        outbox = self._outbox
        batches = inbox.batches
        receive = inbox.receive
        run = service.run
        flush = outbox.flush
        held_since = 0.0  # when the oldest answer in the outbox was made, 0 = there is none
        usual = 0.0  # what a batch takes, rather too long than too short
        try:
            while True:
                if batches:
                    receive(False)
                while not batches or batches[0].missing or batches[0].more:
                    flush()
                    held_since = 0.0
                    if inbox.draining and not batches:
                        return
                    receive(True)
                    if inbox.pings:
                        self._answer_pings()
                if inbox.pings:
                    self._answer_pings()
                batch = batches.popleft()
                last = batch.items[-1].id if batch.items else 0
                began = perf_counter()
                run(batch)
                if last:
                    inbox.finish(last)
                batch = None  # the bodies of a batch live no longer than it
                now = perf_counter()
                usual = max(now - began, usual * 0.9)
                held_since = held_since or now
                if (
                    not coalesce
                    or not batches
                    or outbox.size > _HOLD_BYTES
                    or now + usual - held_since > _HOLD
                ):
                    flush()
                    held_since = 0.0
        except SystemExit:
            flush()  # what was answered before a handler called sys.exit
            raise


def _decodes_input():
    return os.environ.get("TS_DECODE_INPUT_REQUEST", "true") == "true"


def _one_line(cause):
    text = str(cause).strip()
    first = text.splitlines()[0][:_MAX_LINE] if text else ""
    if isinstance(cause, InvalidArchive):
        return first
    return "{}: {}".format(type(cause).__name__, first) if first else type(cause).__name__


def _load_kind(cause):
    if isinstance(cause, InvalidArchive):
        return "invalid"
    if isinstance(cause, MemoryError) or (isinstance(cause, RuntimeError) and "CUDA" in str(cause)):
        return "memory"
    return "error"


def leave(status):
    """Ends the process at once: threads that a handler has left running don't keep it."""
    log.flush()
    os._exit(status)


def main(argv):
    """Runs the worker that ``zoo_worker.py`` was started as."""
    # A Ctrl-C in the server's terminal is the server's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.set_up()
    pid = os.getpid()
    print("[PID]{}\nTorch worker started.\nPython runtime: {}".format(pid, sys.version.split()[0]))
    try:
        status = Worker(take_standard_input()).run()
    except LinkClosed:
        leave(0)
    except SystemExit as cause:
        status = _exit_status(cause)
        if os.getpid() == pid:
            logging.error("The handler has called sys.exit(%r)", cause.code)
    except BaseException:
        if os.getpid() == pid:
            logging.error("Backend worker process died.", exc_info=True)
        status = 1
    _run_exit_functions()
    leave(status)


def _exit_status(cause):
    if cause.code is None:
        return 0
    return cause.code & 0xFF if isinstance(cause.code, int) else 1


def _run_exit_functions():
    """Profilers and process pools of handlers rely on atexit; os._exit would pass them over."""
    import atexit

    run = getattr(atexit, "_run_exitfuncs", None)
    if run is not None:
        try:
            run()
        except BaseException:
            logging.error("An exit function failed", exc_info=True)
