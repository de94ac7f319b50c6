"""What the commands share: which model, one line on stderr for what goes wrong, an exit status."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from gui import registry
from gui.registry import Model
from stages.common.errors import UserError

TROUBLE = 2  # the exit status where the command or the registry is wrong; argparse's own
INTERRUPTED = 130


class Wanted(NamedTuple):
    """What --model names. name: of a registered model, None for the one that the app shows; alias: or a number."""

    name: str | None = None
    alias: str = registry.CHAMPION


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options --model and --threads, to be given to `load`."""
    parser.add_argument(
        "--model",
        type=_wanted,
        default=Wanted(),
        metavar="NAME@ALIAS",
        help="a registered model: its champion, or NAME@ALIAS, or NAME@NUMBER; by default the one that the app shows",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU for the model (default: all cores)")


def load(wanted: Wanted, threads: int | None = None) -> Model:
    """Load the version that --model names; RegistryError where there is none."""
    if threads is not None and threads < 1:
        raise UserError(f"--threads {threads}: give 1 or more")
    connected = registry.connect()
    version = connected.version(wanted.name, wanted.alias) if wanted.name else connected.champions()[0]
    if sys.stderr.isatty():
        print(f"Loading {version} ...", file=sys.stderr)
    return registry.load(version, threads)


@contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """Turn what a user can fix into ``<command>: <message>`` and exit status 2; let bugs show their trace."""
    logging.disable(logging.WARNING)  # what the libraries log of each attempt, stack traces and all
    try:
        yield
    except UserError as error:
        print(f"{command}: {error}", file=sys.stderr)
        sys.exit(TROUBLE)
    except KeyboardInterrupt:
        print(f"\n{command}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it ends
        sys.exit(TROUBLE)


def _wanted(text: str) -> Wanted:
    name, _, alias = text.removeprefix("models:/").replace("/", "@").partition("@")
    return Wanted(name or None, alias or registry.CHAMPION)
