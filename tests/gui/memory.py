"""How much memory a piece of work takes, of which Python's own tracemalloc sees nothing: decoders allocate in C."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def growth() -> Iterator[SimpleNamespace]:
    """MB by which the block makes the process grow: `peak`, and what it `kept`; NaN where the system is not Linux."""
    found = SimpleNamespace(peak=float("nan"), kept=float("nan"))
    if not RESET.exists():
        yield found
        return
    RESET.write_text("5")  # the peak counts from now, see proc(5)
    before = _megabytes("VmRSS")
    yield found
    found.peak, found.kept = _megabytes("VmHWM") - before, _megabytes("VmRSS") - before


def _megabytes(name: str) -> float:
    line = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert line is not None, f"{STATUS} has no {name}"
    return int(line[1]) / 1024
