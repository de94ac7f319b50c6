"""Image files out of an uploaded ZIP file, in memory and within bounds, whatever the file claims of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from gui.images import MAX_MEGABYTES, TOO_LARGE, ImageError, summary
from stages.common.errors import UserError

MAX_ARCHIVE_MEGABYTES = 128
MAX_ENTRIES = 2000
MAX_UNPACKED_MEGABYTES = 1024
ENTRY = b"PK\x01\x02"  # what each entry of the directory starts with
SYSTEM_FILES = ("thumbs.db", "desktop.ini")


class ArchiveError(UserError):
    """A ZIP file that is not opened. The message is one line: what is wrong with it and what to do."""


@dataclass(frozen=True)
class File:
    """A file of an upload, a ZIP file or a request; name: its number where it has none.

    read: gives its bytes; ImageError or OSError where that fails.
    """

    name: str | int
    read: Callable[[], bytes]


def is_archive(content: bytes) -> bool:
    """Whether a file is a ZIP file by its first bytes, whatever its name says."""
    return content.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def files(content: bytes) -> list[File]:
    """The files of a ZIP file in its order, without folders and what systems leave; none is unpacked before it is read.

    ArchiveError where it is damaged, or holds more than MAX_ENTRIES or MAX_UNPACKED_MEGABYTES.
    """
    if len(content) > MAX_ARCHIVE_MEGABYTES * 2**20:
        raise _too_large(f"has {len(content) / 2**20:,.0f} MB", f"{MAX_ARCHIVE_MEGABYTES} MB")
    # Before the directory is read: each of its entries takes much more memory than it has bytes.
    if (count := content.count(ENTRY)) > MAX_ENTRIES:
        raise _too_large(f"holds {count:,} files", f"{MAX_ENTRIES:,}")
    try:
        archive = ZipFile(BytesIO(content))
        entries = [entry for entry in archive.infolist() if not _is_left_by_a_system(entry)]
    except Exception as error:  # zipfile meets hostile bytes here: BadZipFile, NotImplementedError, struct.error ...
        raise ArchiveError(f"This ZIP file is damaged ({summary(error)}): pack it again.") from error
    unpacked = sum(entry.file_size for entry in entries) / 2**20
    if unpacked > MAX_UNPACKED_MEGABYTES:
        raise _too_large(f"unpacks to {unpacked:,.0f} MB", f"{MAX_UNPACKED_MEGABYTES:,} MB")
    return [File(entry.filename, partial(_read, archive, entry)) for entry in entries]


def _read(archive: ZipFile, entry: ZipInfo) -> bytes:
    if entry.file_size > MAX_MEGABYTES * 2**20:
        raise ImageError(TOO_LARGE)
    if entry.flag_bits & 0x1:
        raise ImageError("This file is locked with a password: pack it without one.")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ImageError("This file is packed in an unusual way: pack it as plain ZIP (deflate).")
    try:
        with archive.open(entry) as packed:
            return packed.read(entry.file_size)  # what it claims; where it holds more, its checksum is wrong
    except Exception as error:
        raise ImageError(f"This file is damaged in the ZIP file ({summary(error)}): pack it again.") from error


def _too_large(what: str, limit: str) -> ArchiveError:
    return ArchiveError(f"This ZIP file {what}, more than the {limit} taken here: split it.")


def _is_left_by_a_system(entry: ZipInfo) -> bool:
    path = PurePosixPath(entry.filename)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return entry.is_dir() or hidden or path.name.lower() in SYSTEM_FILES
