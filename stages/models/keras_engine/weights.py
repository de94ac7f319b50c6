"""Weights in HDF5 files, which hold numbers and no code: reading them into a network, and downloading them."""

import os
import warnings
from pathlib import Path

import h5py
import keras
import pooch

from stages.common.errors import UserError

TIMEOUT = (5.0, 30.0)  # seconds until an address counts as out of reach, and that a download may stand still


def read_weights(network: keras.Model, file: Path, expected: str) -> None:
    """Read a .weights.h5 file, or one in Keras' older .h5 layout, into a network built from code.

    expected: what the file should hold, for the error's text.
    UserError where the file is missing, is no HDF5 file, or holds another network's weights.
    """
    try:
        # Keras would choose the reader by the name alone; a pickle or a .keras file must not get that far.
        if file.suffix != ".h5" or not h5py.is_hdf5(file):
            raise ValueError("it is missing, or no HDF5 file with a name ending in .h5")
        with warnings.catch_warnings(action="ignore"):  # about missing groups: the error says what matters
            network.load_weights(file)
    except Exception as error:
        # h5py and Keras raise whatever they meet: OSError, KeyError, ValueError, AttributeError ...
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read {expected} from {file}: {reason}") from error


def download_weights(url: str, md5: str, expected: str) -> Path:
    """The file at `url`, downloaded once into Keras' cache. UserError where that fails.

    md5: Keras' own checksum of the file; it is verified, also of a file in the cache.
    """
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=2**20)
    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", url.rsplit("/", 1)[1], cache, downloader=downloader))
    except (OSError, ValueError) as error:  # of requests; of another checksum
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"cannot download {expected} from {url} ({reason}): give the path of a file that holds them as the "
            "model's `weights`, or set it to random"
        ) from error
