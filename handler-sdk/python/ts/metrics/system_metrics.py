"""Metrics of this machine. Each function appends to `system_metrics`; `collect_all` calls all and logs what
they found.

Read from the kernel where there is `/proc`, from psutil elsewhere; GPUs through pynvml, if it is installed.
"""

import logging
import os
import shutil
import time
import types
from typing import Dict, List, Tuple

from zoo_handler.metrics import Dimension

from .metric import Metric

logger = logging.getLogger(__name__)

system_metrics: List[Metric] = []
dimension = [Dimension("Level", "Host")]

_MEGABYTE = 1024 * 1024
_GIGABYTE = 1024 * _MEGABYTE


def _report(name: str, value: float, unit: str, labels: List[Dimension]) -> None:
    system_metrics.append(Metric(name, value, unit, labels))


def _cpu_times() -> Tuple[int, int]:
    with open("/proc/stat", encoding="ascii") as stat:
        times = [int(field) for field in stat.readline().split()[1:9]]
    return sum(times) - times[3] - times[4], sum(times)  # all but idle and waiting for a disk; all


def _memory() -> Dict[str, int]:
    if not os.path.exists("/proc/meminfo"):
        import psutil

        memory = psutil.virtual_memory()
        return {"MemTotal": memory.total, "MemAvailable": memory.available}
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        fields = (line.split() for line in meminfo)
        return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}


def cpu_utilization() -> None:
    """How busy the processors are, over a tenth of a second."""
    if not os.path.exists("/proc/stat"):
        import psutil

        _report("CPUUtilization", psutil.cpu_percent(interval=0.1), "percent", dimension)
        return
    busy_before, all_before = _cpu_times()
    time.sleep(0.1)
    busy_after, all_after = _cpu_times()
    passed = max(1, all_after - all_before)
    _report("CPUUtilization", round(100 * (busy_after - busy_before) / passed, 1), "percent", dimension)


def memory_used() -> None:
    """Memory that programs can't get, in megabytes."""
    memory = _memory()
    _report("MemoryUsed", (memory["MemTotal"] - memory["MemAvailable"]) / _MEGABYTE, "MB", dimension)


def memory_available() -> None:
    """Memory that programs can get, in megabytes."""
    _report("MemoryAvailable", _memory()["MemAvailable"] / _MEGABYTE, "MB", dimension)


def memory_utilization() -> None:
    """The share of memory that programs can't get."""
    memory = _memory()
    used = 100 * (memory["MemTotal"] - memory["MemAvailable"]) / memory["MemTotal"]
    _report("MemoryUtilization", round(used, 1), "percent", dimension)


def disk_used() -> None:
    """What is used on the root file system, in gigabytes."""
    _report("DiskUsage", shutil.disk_usage("/").used / _GIGABYTE, "GB", dimension)


def disk_utilization() -> None:
    """The share of the root file system that is used."""
    usage = shutil.disk_usage("/")
    _report(
        "DiskUtilization", round(100 * usage.used / max(1, usage.used + usage.free), 1), "percent", dimension
    )


def disk_available() -> None:
    """What is free on the root file system, in gigabytes."""
    _report("DiskAvailable", shutil.disk_usage("/").free / _GIGABYTE, "GB", dimension)


def collect_gpu_metrics(num_of_gpus: int) -> None:
    """Memory and load of the first GPUs."""
    if num_of_gpus <= 0:
        return
    try:
        import pynvml
    except ImportError:
        logger.warning("metrics of %d GPUs: the Python package pynvml isn't installed", num_of_gpus)
        return
    pynvml.nvmlInit()
    try:
        for gpu in range(num_of_gpus):
            handle = pynvml.nvmlDeviceGetHandleByIndex(gpu)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            labels = dimension + [Dimension("DeviceId", str(gpu))]
            _report("GPUMemoryUtilization", 100 * memory.used / memory.total, "percent", labels)
            _report("GPUMemoryUsed", memory.used // _MEGABYTE, "MB", labels)
            _report("GPUUtilization", pynvml.nvmlDeviceGetUtilizationRates(handle).gpu, "percent", labels)
    finally:
        pynvml.nvmlShutdown()


def log_msg(level: str, msg: str) -> None:
    """Logs a line at a level given by name."""
    logging.log(getattr(logging, level.upper(), logging.INFO), msg)


_COLLECTORS = (
    "cpu_utilization",
    "memory_used",
    "memory_available",
    "memory_utilization",
    "disk_used",
    "disk_utilization",
    "disk_available",
)


def collect_all(mod: types.ModuleType, num_of_gpus: int) -> None:
    """Calls the collectors of `mod` (this module, or one with functions of the same names) and logs their
    metrics.
    """
    for name in _COLLECTORS:
        collector = getattr(mod, name, None)
        if callable(collector):
            collector()
    collect_gpu_metrics(num_of_gpus)
    for metric in system_metrics:
        log_msg("info", str(metric))
    system_metrics.clear()
