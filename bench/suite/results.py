"""Turns single measurements into medians, a Markdown table and JSON. Knows no server."""

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

# Above this, other programs had enough of the machine to shift the result.
BUSY_CORES = 0.1
SAMPLE_S = 0.5


class Scenario(NamedTuple):
    """One column of the table."""

    name: str
    clients: int
    body_bytes: int
    batch_size: int


SCENARIOS = (
    Scenario("1 client, no batching", 1, 1, 1),
    Scenario("32 clients, no batching", 32, 1, 1),
    Scenario("32 clients, batch 16", 32, 1, 16),
    Scenario("1 MB bodies, 8 clients", 8, 1_000_000, 1),
)


class Cell:
    """All measurements of one contender in one scenario."""

    def __init__(self) -> None:
        self.reports: List[Dict[str, Any]] = []

    def counted(self) -> List[Dict[str, Any]]:
        """The runs that other programs didn't disturb; all of them when there is none."""
        return [report for report in self.reports if report["others_cores"] <= BUSY_CORES] or self.reports

    def median(self, value: Callable[[Dict[str, Any]], Optional[float]]) -> Optional[float]:
        """Over the runs that count; none when no run has the value."""
        values = [v for v in map(value, self.counted()) if v is not None]
        return statistics.median(values) if values else None

    def failure(self) -> Optional[str]:
        """The first failure of any round."""
        return next(
            (
                report["first_failure"] or "no request was answered"
                for report in self.reports
                if report["failed"] or not report["requests"]
            ),
            None,
        )

    def summary(self) -> Dict[str, Any]:
        """Medians over the runs that count, with all single runs."""
        return {
            "requests_per_s": self.median(lambda r: r["requests_per_s"]),
            "requests_per_s_lowest": min(r["requests_per_s"] for r in self.counted()),
            "requests_per_s_highest": max(r["requests_per_s"] for r in self.counted()),
            "runs_counted": len(self.counted()),
            "latency_us": {
                name: self.median(lambda r, name=name: (r["latency_us"] or {}).get(name))
                for name in ("mean", "p50", "p90", "p99", "p999", "max")
            },
            "server_cpu_s_per_1000": self.median(lambda r: r["server"]["cpu_s_per_1000"]),
            "server_rss_bytes": self.median(lambda r: r["server"]["rss_bytes"]),
            "server_pss_bytes": self.median(lambda r: r["server"]["pss_bytes"]),
            "generator_core_share": self.median(lambda r: r["generator"]["core_share"]),
            "others_cores": self.median(lambda r: r["others_cores"]),
            "failure": self.failure(),
            "runs": self.reports,
        }


def machine() -> Dict[str, Any]:
    """What the numbers were measured on."""
    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.machine(),
        "kernel": f"{platform.system()} {platform.release()}",
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def wait_until_quiet(patience_s: float) -> None:
    """Returns when no program uses the cores, or when patience ends; an unloaded server is quiet."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = busy_s()
        time.sleep(SAMPLE_S)
        if busy_s() - before <= BUSY_CORES * SAMPLE_S:
            return


def busy_s() -> float:
    """CPU seconds that programs have used and that the host gave to others: user, nice, system and steal."""
    times = Path("/proc/stat").read_text().split()
    return sum(int(times[field]) for field in (1, 2, 3, 8)) / os.sysconf("SC_CLK_TCK")


def markdown(result: Dict[str, Any]) -> str:
    """The tables for people: speed, then what it cost."""
    computer, settings = result["machine"], result["settings"]
    cells = [cell for row in result["contenders"] for cell in row["scenarios"].values()]
    runs = [run for cell in cells for run in cell["runs"]]
    disturbed = sum(run["others_cores"] > BUSY_CORES for run in runs)
    lines = [
        f"{computer['cores']} cores ({computer['cpu']}), {computer['memory_bytes'] / 2**30:.0f} GiB, "
        f"{computer['kernel']}, Python {computer['python']}, {result['started']}.",
        f"Medians of {settings['rounds']} alternating rounds of {settings['duration_s']:g} s after "
        f"{settings['burn_in_s']:g} s of load per start and {settings['warm_up_s']:g} s before each run, "
        f"{disturbed} of {len(runs)} runs disturbed by other programs, counted only where marked (busy!); "
        "load generator on the same cores; one worker; no access log.",
        "",
        "Requests per second (median latency):",
        "",
    ]
    lines += table(result, speed)
    lines += [
        "",
        "Server's CPU milliseconds per request / memory (PSS, MiB) / generator's share of one core / "
        "cores that other programs took:",
        "",
    ]
    lines += table(result, cost)
    lines += [
        "",
        "Versions: " + "; ".join(f"{row['name']}: {row['version']}" for row in result["contenders"]) + ".",
    ]
    lines += [
        f"FAILED: {row['name']}, {name}: {cell['failure']}"
        for row in result["contenders"]
        for name, cell in row["scenarios"].items()
        if cell["failure"]
    ]
    return "\n".join(lines)


def table(result: Dict[str, Any], show: Callable[[Dict[str, Any]], str]) -> List[str]:
    """One row per contender, one column per scenario."""
    names = [scenario.name for scenario in SCENARIOS]
    rows = [["", *names]] + [
        [row["name"]] + [show(row["scenarios"][name]) if name in row["scenarios"] else "" for name in names]
        for row in result["contenders"]
    ]
    rows.insert(1, ["---"] * len(rows[0]))
    return ["| " + " | ".join(row) + " |" for row in rows]


def speed(cell: Dict[str, Any]) -> str:
    """A cell of the first table."""
    if cell["failure"]:
        return "FAILED"
    requests = f"{cell['requests_per_s']:,.0f}".replace(",", " ")
    return f"{requests} ({cell['latency_us']['p50'] / 1000:.2f} ms){mark(cell)}"


def mark(cell: Dict[str, Any]) -> str:
    """What a cell says when all its runs were disturbed."""
    return " (busy!)" if cell["others_cores"] > BUSY_CORES else ""


def cost(cell: Dict[str, Any]) -> str:
    """A cell of the second table."""
    if cell["failure"]:
        return "FAILED"
    return (
        f"{cell['server_cpu_s_per_1000']:.3f} / {cell['server_pss_bytes'] / 2**20:.0f} / "
        f"{cell['generator_core_share']:.0%} / {cell['others_cores']:.2f}{mark(cell)}"
    )
