"""Tests of the parts that `compare` is made of, on processes and results of their own; no peer is needed."""

import signal
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any, Dict, Optional

from suite import BenchError
from suite.processes import Server, birth, free_port
from suite.results import SCENARIOS, Cell, markdown

# Starts a child in a session of its own, says its id, and ignores the polite signal.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


class Processes(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def server(self, script: str) -> Server:
        return Server("the server", [sys.executable, "-c", script], self.folder)

    def test_a_server_that_ignores_the_signal_ends_with_its_far_child(self) -> None:
        import suite.processes as processes

        patience, processes.STOPPED_WITHIN_S = processes.STOPPED_WITHIN_S, 0
        self.addCleanup(setattr, processes, "STOPPED_WITHIN_S", patience)
        with self.server(STUBBORN) as server:
            deadline = time.monotonic() + 30
            while not server.log.read_text().endswith("\n") and time.monotonic() < deadline:
                time.sleep(0.01)
            child = int(server.log.read_text())
            self.assertIsNotNone(birth(child))
        self.assertEqual(server.process.returncode, -signal.SIGKILL)
        deadline = time.monotonic() + 30
        while birth(child) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertIsNone(birth(child))

    def test_a_server_that_ends_at_once_is_quoted(self) -> None:
        with self.server("print('no such port'); raise SystemExit(3)") as server:
            with self.assertRaises(BenchError) as raised:
                server.wait_until_answers(f"http://127.0.0.1:{free_port()}/")
        self.assertEqual(
            str(raised.exception),
            "the server ended with status 3 instead of starting; it wrote last: no such port",
        )


def report(requests_per_s: float, failure: Optional[str] = None, others_cores: float = 0.0) -> Dict[str, Any]:
    """A run as the load generator reports it, as far as the tables read it."""
    return {
        "requests": int(requests_per_s),
        "requests_per_s": requests_per_s,
        "failed": 1 if failure else 0,
        "first_failure": failure,
        "latency_us": {"p50": 1e6 / requests_per_s},
        "server": {"cpu_s_per_1000": 0.25, "rss_bytes": 2**21, "pss_bytes": 2**20},
        "generator": {"core_share": 0.125},
        "others_cores": others_cores,
    }


def result(*reports: Dict[str, Any]) -> Dict[str, Any]:
    """A comparison of one contender in the first scenario."""
    cell = Cell()
    cell.reports.extend(reports)
    return {
        "started": "today",
        "machine": {"cores": 2, "cpu": "a CPU", "memory_bytes": 2**34, "kernel": "a kernel", "python": "3"},
        "settings": {"rounds": len(reports), "duration_s": 4.0, "warm_up_s": 1.0, "burn_in_s": 5.0},
        "contenders": [{"name": "one", "version": "1", "scenarios": {SCENARIOS[0].name: cell.summary()}}],
    }


class Results(unittest.TestCase):
    def test_a_cell_is_the_median_of_the_rounds(self) -> None:
        text = markdown(result(report(1000), report(500_000), report(2000)))
        self.assertIn("| one | 2 000 (0.50 ms) |  |  |  |", text)
        self.assertIn("| one | 0.250 / 1 / 12% / 0.00 |  |  |  |", text)
        self.assertNotIn("FAILED", text)

    def test_disturbed_runs_are_set_aside_while_there_are_others(self) -> None:
        text = markdown(
            result(report(1000, others_cores=0.9), report(500_000, others_cores=0.5), report(2000))
        )
        self.assertIn("| one | 2 000 (0.50 ms) |", text)
        self.assertIn("2 of 3 runs disturbed", text)
        text = markdown(result(report(1000, others_cores=0.9)))
        self.assertIn("| one | 1 000 (1.00 ms) (busy!) |", text)
        self.assertIn("| one | 0.250 / 1 / 12% / 0.90 (busy!) |", text)
        self.assertIn("1 of 1 runs disturbed", text)

    def test_one_failed_run_fails_the_cell_and_says_why(self) -> None:
        text = markdown(result(report(1000), report(1000, "status 503: no worker"), report(1000)))
        self.assertIn("| one | FAILED |", text)
        self.assertIn(f"FAILED: one, {SCENARIOS[0].name}: status 503: no worker", text)


if __name__ == "__main__":
    unittest.main()
