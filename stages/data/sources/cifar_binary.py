"""The binary layout of CIFAR-100 (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html): reading and writing.

A tar archive with four members under cifar-100-binary/: train.bin and test.bin, whose records are one byte of
superclass, one byte of class and 3,072 bytes of pixels (32 x 32, the R, G and B planes one after the other), and
fine_label_names.txt and coarse_label_names.txt, a name per line.

An archive is untrusted: these four members are read into memory, up to the size they may have; nothing is extracted.
"""

import io
import lzma
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.common.errors import UserError

CIFAR100 = {"train": 50_000, "test": 10_000}  # how many records each file has
IMAGE_SIZE = 32
PIXELS = 3 * IMAGE_SIZE * IMAGE_SIZE
RECORD = 2 + PIXELS
FOLDER = "cifar-100-binary"
RECORDS = {"train": f"{FOLDER}/train.bin", "test": f"{FOLDER}/test.bin"}
CLASS_NAMES, SUPERCLASS_NAMES = f"{FOLDER}/fine_label_names.txt", f"{FOLDER}/coarse_label_names.txt"
MAX_NAMES_BYTES = 1 << 16


class Records(NamedTuple):
    """Labelled images as they stand in a file.

    superclasses, classes: (N,) uint8. pixels: (N, 3072) uint8, the R, G and B planes.
    """

    superclasses: np.ndarray
    classes: np.ndarray
    pixels: np.ndarray

    def select(self, rows: np.ndarray) -> "Records":
        """The records at `rows`, in that order."""
        return Records(self.superclasses[rows], self.classes[rows], self.pixels[rows])

    def images(self) -> np.ndarray:
        """The images, (N, 32, 32, 3) uint8."""
        planes = self.pixels.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))

    def labels(self) -> np.ndarray:
        """The classes, (N,) int64."""
        return self.classes.astype(np.int64)


class Archive(NamedTuple):
    """All that an archive holds."""

    train: Records
    test: Records
    class_names: list[str]
    superclass_names: list[str]


def read(file: Path, counts: Mapping[str, int]) -> Archive:
    """Read an archive, compressed by gzip, xz, bzip2 or not at all, whatever its name.

    counts: how many records train and test must have. Raises UserError with one line that names what is wrong.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(file) as tar:
            for member in tar:
                _check(file, member, counts)
                if member.name in (*RECORDS.values(), CLASS_NAMES, SUPERCLASS_NAMES):
                    contents[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr] # a file: checked
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing: run `dvc repro download`") from error
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} is no complete tar archive ({reason}): download it again") from error
    for name in (*RECORDS.values(), CLASS_NAMES, SUPERCLASS_NAMES):
        if name not in contents:
            raise UserError(f"{file} has no member {name}: it is not the binary version of CIFAR-100")
    class_names, superclass_names = (_names(file, name, contents[name]) for name in (CLASS_NAMES, SUPERCLASS_NAMES))
    train, test = (
        _records(file, name, contents.pop(name), len(class_names), len(superclass_names)) for name in RECORDS.values()
    )
    return Archive(train, test, class_names, superclass_names)


def superclass_of_class(archive: Archive, file: Path) -> list[int]:
    """For each class the index of its superclass; UserError where the records disagree or a class is missing."""
    table = np.full(len(archive.class_names), -1)
    for records in (archive.train, archive.test):
        for fine, coarse in np.unique(np.stack([records.classes, records.superclasses], axis=1), axis=0):
            if table[fine] not in (-1, coarse):
                raise UserError(
                    f"{file}: class {archive.class_names[fine]!r} has two superclasses, "
                    f"{archive.superclass_names[table[fine]]!r} and {archive.superclass_names[coarse]!r}"
                )
            table[fine] = coarse
    if (table < 0).any():
        raise UserError(f"{file} has no image of class {archive.class_names[int(table.argmin())]!r}")
    return table.tolist()


def write(file: Path, archive: Archive) -> None:
    """Write an archive in the same layout, plain tar; the same content gives the same bytes."""
    contents = {
        CLASS_NAMES: "".join(f"{name}\n" for name in archive.class_names).encode(),
        SUPERCLASS_NAMES: "".join(f"{name}\n" for name in archive.superclass_names).encode(),
    }
    for split, member in RECORDS.items():
        records: Records = getattr(archive, split)
        table = np.concatenate([records.superclasses[:, None], records.classes[:, None], records.pixels], axis=1)
        contents[member] = table.astype(np.uint8).tobytes()
    with tarfile.open(file, "w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)  # dated 1970, owned by nobody
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _check(file: Path, member: tarfile.TarInfo, counts: Mapping[str, int]) -> None:
    """UserError where a member that is to be read is no file, or of a size it cannot have."""
    sizes = {name: counts[split] * RECORD for split, name in RECORDS.items()}
    if member.name in (*sizes, CLASS_NAMES, SUPERCLASS_NAMES) and not member.isreg():
        raise UserError(f"{file}: {member.name} is a link or device instead of a file: do not trust this archive")
    if member.name in (CLASS_NAMES, SUPERCLASS_NAMES) and member.size > MAX_NAMES_BYTES:
        raise UserError(f"{file}: {member.name} has {member.size:,} bytes, too many for a list of names")
    if member.size != (expected := sizes.get(member.name, member.size)):
        raise UserError(
            f"{file}: {member.name} has {member.size:,} bytes, expected {expected:,} "
            f"({expected // RECORD:,} records of {RECORD:,} bytes)"
        )


def _names(file: Path, member: str, content: bytes) -> list[str]:
    try:
        names = [name.strip() for name in content.decode("utf-8").split("\n") if name.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: {member} is no text ({error})") from error
    if not names or len(set(names)) != len(names) or len(names) > 256:
        raise UserError(f"{file}: {member} has {len(names)} names, {len(set(names))} of them different")
    return names


def _records(file: Path, member: str, content: bytes, classes: int, superclasses: int) -> Records:
    table = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    for column, limit, what in ((0, superclasses, "superclass"), (1, classes, "class")):
        row = int(table[:, column].argmax())
        if table[row, column] >= limit:
            raise UserError(
                f"{file}: record {row} of {member} has {what} {table[row, column]}, expected 0 to {limit - 1}"
            )
    return Records(table[:, 0], table[:, 1], table[:, 2:])
