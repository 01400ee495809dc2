"""Memory of worker processes."""

import logging
from typing import List, TextIO

logger = logging.getLogger(__name__)


def get_cpu_usage(pid: str) -> int:
    """The resident memory of a process in bytes; the name is TorchServe's. 0 if there is no such process."""
    try:
        with open("/proc/{}/status".format(int(pid)), encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError) as cause:
        logger.error("memory of process %s: %s", pid, cause)
    return 0


def check_process_mem_usage(stdin: TextIO) -> List[str]:
    """Reads a line of process ids with commas between, and logs and returns `pid:bytes` for each."""
    usage = []
    for pid in stdin.readline().strip().split(","):
        if pid:
            usage.append("{}:{}".format(pid, get_cpu_usage(pid)))
    for line in usage:
        logging.info(line)
    return usage
