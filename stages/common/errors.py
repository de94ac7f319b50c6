"""How a stage tells its user about a mistake: one line on stderr and exit status 1, no stack trace."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake that the user can correct. The message is one line: what, which value, what to do."""


@contextmanager
def one_line_errors(stage: str) -> Iterator[None]:
    """Turn what a user can correct into ``<stage>: <message>`` and exit status 1; bugs keep their trace."""
    try:
        yield
    except UserError as error:
        sys.exit(f"{stage}: {error}")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f"{stage}: the disk is full ({error.filename or error.strerror}): free some space and run again")
        raise
    except KeyboardInterrupt:
        print(f"\n{stage}: interrupted; run the same command again", file=sys.stderr)
        sys.exit(130)
