"""Reading archives, good and bad."""

import gzip
import tarfile

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.data import cifar_binary

from .conftest import COUNTS

TRAIN = "cifar-100-binary/train.bin"
TEST = "cifar-100-binary/test.bin"
FINE = "cifar-100-binary/fine_label_names.txt"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_archives_are_read_whatever_their_compression_and_name(archive, members, pack, mode):
    read = cifar_binary.read(pack(members, mode, name="anything"), COUNTS)
    for found, expected in zip(read.train, archive.train, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert read.class_names == archive.class_names
    assert read.superclass_names == archive.superclass_names


def test_planes_become_pictures(archive):
    records = archive.train
    images = records.images()
    assert images.shape == (40, 32, 32, 3)
    assert images[7, 5, 9].tolist() == [records.pixels[7, plane * 1024 + 5 * 32 + 9] for plane in range(3)]
    assert records.labels().dtype == np.int64


def test_other_members_are_passed_over(members, pack):
    assert cifar_binary.read(pack({"README": b"x" * 100_000, **members}), COUNTS).train.classes.size == 40


def refused(file, message):
    with pytest.raises(UserError, match=message) as caught:
        cifar_binary.read(file, COUNTS)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_truncated_archive_is_refused(members, pack, mode, share):
    file = pack(members, mode)
    content = file.read_bytes()
    if mode == "w":
        share *= 0.9  # a plain tar ends in padding that may be missing
    file.write_bytes(content[: int(len(content) * share)])
    refused(file, "no complete tar archive|ends in the middle|no member")


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_a_single_wrong_bit_in_a_compressed_archive_is_noticed(members, pack, mode):
    file = pack(members, mode)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refused(file, "no complete tar archive")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", gzip.compress(b"not a tar", mtime=0)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    file = tmp_path / "x.tar.gz"
    file.write_bytes(content)
    refused(file, "no complete tar archive|no member")


@pytest.mark.parametrize("missing", [TRAIN, TEST, FINE])
def test_a_missing_member_is_named(members, pack, missing):
    del members[missing]
    refused(pack(members), f"no member {missing}")


def test_records_of_another_length_are_refused(members, pack):
    refused(pack(members | {TRAIN: members[TRAIN][:-1]}), "122,959 bytes, expected 122,960 .40 records of 3,074 bytes")


def test_too_few_records_are_refused(members, pack):
    refused(pack(members | {TEST: members[TEST][:-3074]}), "test.bin has .* bytes, expected")


@pytest.mark.parametrize(("column", "what"), [(0, "superclass 2, expected 0 to 1"), (1, "class 9, expected 0 to 3")])
def test_labels_out_of_range_are_refused(members, pack, column, what):
    content = bytearray(members[TRAIN])
    content[5 * 3074 + column] = 2 if column == 0 else 9
    refused(pack(members | {TRAIN: bytes(content)}), f"record 5 of train.bin has {what}")


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "cifar-100-binary/../../evil"])
def test_members_that_point_outside_are_refused(members, pack, name):
    refused(pack(members, extra=[(tarfile.TarInfo(name), b"")]), "points outside")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_links_and_devices_in_place_of_a_member_are_refused(members, pack, kind):
    info = tarfile.TarInfo(TRAIN)
    info.type, info.linkname = kind, "/etc/passwd"
    del members[TRAIN]
    refused(pack(members, extra=[(info, b"")]), "link or device instead of a file")


def test_a_member_that_stands_twice_is_refused(members, pack):
    info = tarfile.TarInfo(FINE)
    info.size = 4
    refused(pack(members, extra=[(info, b"abcd")]), "stands in it twice")


def test_a_list_of_names_of_absurd_size_is_refused_unread(members, pack):
    refused(pack(members | {FINE: b"x" * 200_000}), "too many for a list of names")


@pytest.mark.parametrize("names", [b"", b"ape\nape\ncat\ndoe\n", b"\xff\xfe\n"])
def test_bad_names_are_refused(members, pack, names):
    refused(pack(members | {FINE: names}), "names|no text")


def test_a_class_with_two_superclasses_is_refused(archive, tmp_path):
    superclasses = archive.train.superclasses.copy()
    superclasses[0] = 1 - superclasses[0]
    spoilt = archive._replace(train=archive.train._replace(superclasses=superclasses))
    with pytest.raises(UserError, match="has two superclasses"):
        cifar_binary.superclass_of_class(spoilt, tmp_path)


def test_the_superclass_of_each_class_is_found(archive, tmp_path):
    assert cifar_binary.superclass_of_class(archive, tmp_path) == [0, 0, 1, 1]


def test_writing_is_deterministic(archive, tmp_path):
    for name in ("a.tar", "b.tar"):
        cifar_binary.write(tmp_path / name, archive)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
