"""What this machine is, for the lines beside a measurement."""

import os
import platform
import re
import resource
import sys
from pathlib import Path


def describe() -> dict[str, str | int | float]:
    """Processor, cores, memory (GiB), system and Python version."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def peak_memory_mb() -> float:
    """Highest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux counts the process that started this one, too
        [peak] = re.findall(r"^VmHWM:\s+(\d+)", status.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        return round(int(peak) / 1024, 1)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    named = re.search(r"^model name\s*:(.*)", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()
