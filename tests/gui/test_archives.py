"""ZIP files, honest and hostile ones."""

import io
import random
import struct
import time
import tracemalloc
import zipfile

import pytest

from gui import archives, pictures
from gui.archives import ArchiveError
from gui.pictures import PictureError
from tests.gui.conftest import BLUE, RED, picture_file


def zip_of(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP file of the given names and contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_files_come_in_order_without_folders_and_what_systems_leave() -> None:
    red = picture_file(RED)
    content = zip_of(
        {
            "b/": b"",
            "b/red.png": red,
            "a.png": picture_file(BLUE),
            "__MACOSX/b/._red.png": b"x",
            "b/.DS_Store": b"x",
            "Thumbs.db": b"x",
        }
    )
    assert archives.is_archive(content)
    assert not archives.is_archive(red)
    files = archives.files(content)
    assert [file.name for file in files] == ["b/red.png", "a.png"]
    assert files[0].read() == red
    assert archives.files(zip_of({})) == []


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_is_unpacked() -> None:
    content = zip_of({"bomb.png": bytes(200 * 2**20), "red.png": picture_file(RED)})
    assert len(content) < 2**20
    tracemalloc.start()
    bomb, red = archives.files(content)
    with pytest.raises(PictureError, match="has 200 MB, more than the 32 MB"):
        bomb.read()
    assert pictures.load(red.read()).shape == (40, 60, 3)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_file_that_lies_about_its_size_is_cut_off_within_bounds() -> None:
    content = bytearray(zip_of({"bomb.png": bytes(200 * 2**20)}))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # where the unpacked size stands
        at = content.index(signature) + place
        assert struct.unpack("<I", content[at : at + 4]) == (200 * 2**20,)
        content[at : at + 4] = struct.pack("<I", 1000)
    tracemalloc.start()
    (bomb,) = archives.files(bytes(content))
    with pytest.raises(PictureError, match="damaged in the ZIP file"):
        bomb.read()
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_an_archive_that_unpacks_to_too_much_in_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED_MEGABYTES", 3)
    content = zip_of({f"{number}.png": bytes(2**20) for number in range(4)})
    with pytest.raises(ArchiveError, match="unpacks to 4 MB, more than the 3 MB"):
        archives.files(content)


def test_an_archive_of_very_many_files_is_refused_before_its_directory_is_read() -> None:
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    number = 300_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, number & 0xFFFF, number & 0xFFFF, len(entry) * number, 0, 0)
    started = time.process_time()
    with pytest.raises(ArchiveError, match="more than the 2,000 files"):
        archives.files(entry * number + end)
    assert time.process_time() - started < 1


def test_an_archive_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ARCHIVE_MEGABYTES", 1)
    with pytest.raises(ArchiveError, match="has 2 MB, more than the 1 MB"):
        archives.files(bytes(2 * 2**20))


def test_locked_and_unusually_packed_files_are_refused_one_by_one() -> None:
    locked = bytearray(zip_of({"red.png": picture_file(RED)}))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(PictureError, match="password"):
        archives.files(bytes(locked))[0].read()
    with pytest.raises(PictureError, match="plain ZIP"):
        archives.files(zip_of({"red.png": picture_file(RED)}, zipfile.ZIP_BZIP2))[0].read()


def test_damaged_archives_are_refused_in_one_line() -> None:
    """200 archives with flipped bytes or a missing end, always the same ones."""
    rng = random.Random(0)
    whole = zip_of({f"folder/{number}.png": picture_file(RED) for number in range(5)})
    outcomes = {"read": 0, "refused": 0}
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 5, 40))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        try:
            for file in archives.files(bytes(content)):
                file.read()
                outcomes["read"] += 1
        except (ArchiveError, PictureError) as refusal:
            assert "\n" not in str(refusal)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20
