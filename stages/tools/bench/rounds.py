"""Measurements in turn, each in a process of its own: frameworks, threads and peaks of memory never meet."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from stages.common.errors import UserError

Measurement = tuple[Any, ...]  # model, way, a module's function and its arguments


def in_fresh_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a module's function returns in a new process, which prints nothing; its errors are raised here."""
    with ProcessPoolExecutor(1, get_context("spawn"), _silence) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            what = f"{function.__module__}.{function.__name__}"
            raise UserError(f"{what} was killed: where memory does not suffice, lower batch_size") from None


def interleave(measurements: Sequence[Measurement], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Take the measurements one after the other, `rounds` times: what drifts weighs on all alike.

    For each model a list of rounds: for each way a list of what was measured, as often as it stands there.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(rounds):
        for model, way, function, *arguments in measurements:
            result = in_fresh_process(function, *arguments)
            shown = ", ".join(f"{key} {value:,.4g}" for key, value in result.items() if isinstance(value, float))
            print(f"round {number + 1}, {model}, {way}: {shown}", flush=True)
            found.setdefault(model, [{} for _ in range(rounds)])[number].setdefault(way, []).append(result)
    return found


def _silence() -> None:
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
