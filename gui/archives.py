"""Pictures out of an uploaded ZIP file, in memory and within bounds, whatever the file claims of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from gui.pictures import MAX_MEGABYTES, PictureError

MAX_ARCHIVE_MEGABYTES = 128
MAX_ENTRIES = 2000
MAX_UNPACKED_MEGABYTES = 1024
ENTRY = b"PK\x01\x02"  # what each entry of the directory starts with
SYSTEM_FILES = ("thumbs.db", "desktop.ini")


class ArchiveError(Exception):
    """A ZIP file that is not opened. The message is one line: what is wrong with it and what to do."""


@dataclass(frozen=True)
class File:
    """A file by name, of an upload or of a ZIP file. read: its bytes, PictureError if it is not read."""

    name: str
    read: Callable[[], bytes]


def is_archive(content: bytes) -> bool:
    """Whether a file is a ZIP file by its first bytes, whatever its name says."""
    return content.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def files(content: bytes) -> list[File]:
    """The files of a ZIP file in its order, without folders and what systems leave; none is unpacked before it is read.

    ArchiveError where it is damaged, or holds more than MAX_ENTRIES or MAX_UNPACKED_MEGABYTES.
    """
    if len(content) > MAX_ARCHIVE_MEGABYTES * 2**20:
        raise ArchiveError(
            f"This ZIP file has {len(content) / 2**20:,.0f} MB, more than the {MAX_ARCHIVE_MEGABYTES} MB taken here: "
            "split it."
        )
    # Before the directory is read: each of its entries takes much more memory than it has bytes.
    if content.count(ENTRY) > MAX_ENTRIES:
        raise ArchiveError(f"This ZIP file holds more than the {MAX_ENTRIES:,} files taken here: split it.")
    try:
        archive = ZipFile(BytesIO(content))
        entries = [entry for entry in archive.infolist() if not _is_left_by_a_system(entry)]
    except Exception as error:  # zipfile meets hostile bytes here: BadZipFile, NotImplementedError, struct.error ...
        raise ArchiveError(f"This ZIP file is damaged ({_reason(error)}): pack it again.") from error
    unpacked = sum(entry.file_size for entry in entries) / 2**20
    if unpacked > MAX_UNPACKED_MEGABYTES:
        raise ArchiveError(
            f"This ZIP file unpacks to {unpacked:,.0f} MB, more than the {MAX_UNPACKED_MEGABYTES:,} MB taken here: "
            "split it."
        )
    return [File(entry.filename, partial(_read, archive, entry)) for entry in entries]


def _read(archive: ZipFile, entry: ZipInfo) -> bytes:
    if entry.file_size > MAX_MEGABYTES * 2**20:
        raise PictureError(
            f"This file has {entry.file_size / 2**20:,.0f} MB, more than the {MAX_MEGABYTES} MB taken here: "
            "save it smaller."
        )
    if entry.flag_bits & 0x1:
        raise PictureError("This file is locked with a password: pack it without one.")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise PictureError("This file is packed in an unusual way: pack it as plain ZIP (deflate).")
    try:
        with archive.open(entry) as packed:
            return packed.read(entry.file_size)  # what it claims; where it holds more, its checksum is wrong
    except Exception as error:
        raise PictureError(f"This file is damaged in the ZIP file ({_reason(error)}): pack it again.") from error


def _is_left_by_a_system(entry: ZipInfo) -> bool:
    path = PurePosixPath(entry.filename)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return entry.is_dir() or hidden or path.name.lower() in SYSTEM_FILES


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
