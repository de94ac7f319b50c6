"""How much memory a piece of work takes, of which Python's own tracemalloc sees nothing: decoders allocate in C."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Growth:
    """MB by which the process grew: at its peak, and what it kept; not a number where the system is not Linux."""

    peak: float = float("nan")
    kept: float = float("nan")


@contextmanager
def growth() -> Iterator[Growth]:
    """Measures the block; the result is there when it has ended."""
    found = Growth()
    if not RESET.exists():
        yield found
        return
    RESET.write_text("5")  # the peak counts from now, see proc(5)
    before = _megabytes("VmRSS")
    yield found
    found.peak = _megabytes("VmHWM") - before
    found.kept = _megabytes("VmRSS") - before


def _megabytes(name: str) -> float:
    line = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert line is not None, f"{STATUS} has no {name}"
    return int(line[1]) / 1024
