"""How a stage tells its user about a mistake: one line on stderr and exit status 1, no stack trace."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake the user can mend. The message is one line: what, which value, what to do."""


@contextmanager
def one_line_errors(stage: str) -> Iterator[None]:
    """Turn the errors a user can mend into ``<stage>: <message>`` and exit status 1; let bugs show their trace."""
    try:
        yield
    except UserError as error:
        sys.exit(f"{stage}: {error}")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(f"{stage}: the disk is full ({error.filename or 'no file named'}): free some space, run again")
        raise
    except KeyboardInterrupt:
        print(f"\n{stage}: interrupted; run the same command again", file=sys.stderr)
        sys.exit(130)
