"""ZIP files, honest and hostile ones."""

import io
import random
import struct
import time
import tracemalloc
import zipfile

import pytest

from gui import archives, images
from gui.archives import ArchiveError
from gui.images import ImageError
from tests.gui.conftest import BLUE, RED, image_file


def zip_of(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP file of the given names and contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def claiming(content: bytes, size: int) -> bytes:
    """The same with another unpacked size of its one file, in both places where that stands."""
    changed = bytearray(content)
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", changed, changed.index(signature) + place, size)
    return bytes(changed)


def locked(content: bytes) -> bytes:
    """The same with the flag of a password."""
    changed = bytearray(content)
    changed[changed.index(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def of_entries(number: int) -> bytes:
    """A directory of many entries, without their files."""
    entry = struct.pack("<4s4B4HL2L5H2L", archives.ENTRY, 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, number & 0xFFFF, number & 0xFFFF, len(entry) * number, 0, 0)
    return entry * number + end


def test_files_come_in_order_without_folders_and_what_systems_leave() -> None:
    left = {"b/": b"", "__MACOSX/b/._red.png": b"x", "b/.DS_Store": b"x", "Thumbs.db": b"x"}
    content = zip_of({"b/red.png": image_file(RED), **left, "a.png": image_file(BLUE)})
    assert archives.is_archive(content)
    assert not archives.is_archive(image_file(RED))
    files = archives.files(content)
    assert [file.name for file in files] == ["b/red.png", "a.png"]
    assert files[0].read() == image_file(RED)
    assert archives.files(zip_of({})) == []


BOMB = zip_of({"bomb.png": bytes(40 * 2**20)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "more than the 32 MB"),
        (claiming(BOMB, 1000), "damaged in the ZIP file"),  # cut off where its claim ends
        (locked(zip_of({"red.png": image_file(RED)})), "password"),
        (zip_of({"red.png": image_file(RED)}, zipfile.ZIP_BZIP2), "plain ZIP"),
    ],
)
def test_a_hostile_file_is_refused_by_itself_within_little_memory(content: bytes, reason: str) -> None:
    tracemalloc.start()
    (file,) = archives.files(content)
    with pytest.raises(ImageError, match=reason):
        file.read()
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (zip_of({f"{number}.png": bytes(2**20) for number in range(4)}), "unpacks to 4 MB, more than the 3 MB"),
        (of_entries(300_000), "holds 300,000 files, more than the 2,000"),  # before its directory is read
        (bytes(20 * 2**20), "has 20 MB, more than the 15 MB"),
    ],
)
def test_an_archive_of_too_much_is_refused_soon(monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED_MEGABYTES", 3)
    monkeypatch.setattr(archives, "MAX_ARCHIVE_MEGABYTES", 15)
    started = time.process_time()
    with pytest.raises(ArchiveError, match=reason):
        archives.files(content)
    assert time.process_time() - started < 1


def test_damaged_archives_are_refused_in_one_line() -> None:
    """200 archives with flipped bytes or a missing end, always the same ones."""
    rng = random.Random(0)
    whole = zip_of({f"folder/{number}.png": image_file(RED) for number in range(5)})
    outcomes = {"read": 0, "refused": 0}
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 5, 40))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        try:
            for file in archives.files(bytes(content)):
                assert images.load(file.read()).shape == (40, 60, 3)
                outcomes["read"] += 1
        except (ArchiveError, ImageError) as refusal:
            assert "\n" not in str(refusal)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20
