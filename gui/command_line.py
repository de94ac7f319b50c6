"""What the commands of the app share: which model, one line on stderr for what goes wrong, an exit status."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gui import registry
from gui.registry import Model, RegistryError

TROUBLE = 2  # the exit status where the command or the registry is wrong; argparse's own
INTERRUPTED = 130


class UsageError(Exception):
    """A command that cannot be carried out. The message is one line: what, which value, what to do."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """The option --model, to be given to `load`."""
    parser.add_argument(
        "--model",
        metavar="NAME@ALIAS",
        help="a registered model: its champion, or NAME@ALIAS, or NAME@NUMBER; by default the one that the app shows",
    )


def load(model: str | None) -> Model:
    """Load the version that --model names, else the one that answers in the app; RegistryError where there is none."""
    gc.set_threshold(100_000, 50, 50)  # as in gui/app.py: MLflow is imported now
    connected = registry.connect()
    if model is None:
        version = registry.wanted(connected.champions())[0]
    else:
        name, _, which = model.removeprefix("models:/").replace("/", "@").partition("@")
        version = connected.version(name, which or registry.CHAMPION)
    if sys.stderr.isatty():
        print(f"Loading {version} ...", file=sys.stderr)
    return registry.load(version)


@contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """Turn what a user can mend into ``<command>: <message>`` and exit status 2; let bugs show their trace."""
    logging.disable(logging.WARNING)  # what the libraries tell of each attempt, stack traces and all
    try:
        yield
    except (RegistryError, UsageError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        sys.exit(TROUBLE)
    except KeyboardInterrupt:
        print(f"\n{command}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it ends
        sys.exit(TROUBLE)
