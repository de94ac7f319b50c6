"""Settings of a process that decodes images and runs models."""

import ctypes
import gc
from contextlib import suppress

from PIL import Image

M_MMAP_THRESHOLD = -3  # of mallopt(3)


def set_up() -> None:
    """Called first thing by whatever runs as a process: the app, the command line, the server."""
    # Looking for garbage while MLflow is imported, which leaves none, takes half a second of the first prediction.
    gc.set_threshold(100_000, 50, 50)
    # Blocks of more than 32 MB go back to the system when they are freed; of Pillow's 16 MB many are kept.
    Image.core.set_block_size(64 * 2**20)
    # So does what is larger than this. Left alone, glibc raises the limit with every larger piece, and the heap of each
    # thread keeps some megabytes.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)
