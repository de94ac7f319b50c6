"""Weights in HDF5 files, which hold numbers and no code: reading them into a network, and downloading them."""

import hashlib
import os
import socket
import threading
import urllib.request
import warnings
from pathlib import Path

import h5py
import keras

from stages.common.errors import UserError

PROBE_TIMEOUT = 20.0  # seconds until a server counts as out of reach
READ_TIMEOUT = 30.0  # seconds a download may stand still


def read_weights(network: keras.Model, file: Path, expected: str) -> None:
    """Read a .weights.h5 file, or one in Keras' older .h5 layout, into a network built from code.

    expected: what the file should hold, for the error's text.
    UserError where the file is missing, is no HDF5 file, or holds another network's weights.
    """
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"cannot read the weights {file} ({error.strerror}): expected {expected}") from error
    if file.suffix != ".h5" or not h5py.is_hdf5(file):
        # Keras would choose the reader by the name alone; a pickle or a .keras file must not get that far.
        raise UserError(f"{file} is no HDF5 file with a name ending in .h5: expected {expected}")
    try:
        with warnings.catch_warnings(action="ignore"):  # about missing groups: the error says what matters
            network.load_weights(file)
    except Exception as error:
        # h5py and Keras raise whatever they meet: OSError, KeyError, ValueError, AttributeError ...
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the weights {file} do not fit: expected {expected} ({reason})") from error


def download_weights(url: str, md5: str, expected: str) -> Path:
    """The file at `url`, downloaded once into Keras' cache. UserError where the server cannot be reached.

    md5: Keras' own checksum of the file; it is verified, also of a file in the cache.
    """
    name = url.rsplit("/", 1)[1]
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    try:
        if not _is_intact(cache / "models" / name, md5):
            _probe(url)  # get_file would try every address of the server, one after the other
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(READ_TIMEOUT)  # get_file has no timeout of its own
        try:
            return Path(keras.utils.get_file(name, url, cache_dir=cache, cache_subdir="models", file_hash=md5))
        finally:
            socket.setdefaulttimeout(before)
    except Exception as error:
        # get_file raises a bare Exception for what its HTTP library tells it.
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"cannot download {expected} from {url} ({reason}): give the path of a file that holds them as the "
            "model's `weights`, or set it to random"
        ) from error


def _is_intact(file: Path, md5: str) -> bool:
    return file.is_file() and hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() == md5


def _probe(url: str) -> None:
    """Raise OSError if no answer comes within PROBE_TIMEOUT.

    In a thread, because a socket's timeout covers neither the look-up of the name nor the number of addresses tried.
    """
    problems: list[OSError] = [TimeoutError(f"no answer within {PROBE_TIMEOUT:.0f} s")]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_TIMEOUT):
                problems.clear()
        except OSError as error:
            problems[:] = [error]

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_TIMEOUT)
    if problems:
        raise problems[0]
