"""Reading archives, good and bad."""

import gzip
import re
import tarfile

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.data.sources import cifar_binary

from .conftest import COUNTS

TRAIN, TEST, FINE = (f"cifar-100-binary/{name}" for name in ("train.bin", "test.bin", "fine_label_names.txt"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_archives_are_read_whatever_their_compression_and_name(archive, members, pack, mode):
    others = {"README": b"x" * 100_000, "../evil": b"", "/etc/passwd": b""}
    read = cifar_binary.read(pack({**others, **members}, mode, name="anything"), COUNTS)
    for split in ("train", "test"):
        for found, expected in zip(getattr(read, split), getattr(archive, split), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert read[2:] == archive[2:]
    assert cifar_binary.superclass_of_class(read, "") == [0, 0, 1, 1]


def test_planes_become_images(archive):
    records = archive.train
    images = records.images()
    assert images.shape == (40, 32, 32, 3)
    assert images[7, 5, 9].tolist() == [records.pixels[7, plane * 1024 + 5 * 32 + 9] for plane in range(3)]
    assert records.labels().dtype == np.int64


def refused(file, message):
    with pytest.raises(UserError, match=rf"^{re.escape(str(file))}[^\n]*({message})[^\n]*$"):
        cifar_binary.read(file, COUNTS)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("share", [0, 0.3, 0.85])
def test_a_truncated_archive_is_refused(members, pack, mode, share):
    file = pack(members, mode)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    refused(file, "no complete tar archive|no member")


@pytest.mark.parametrize("content", [None, b"<html>404</html>", gzip.compress(b"not a tar", mtime=0)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    file = tmp_path / "x.tar.gz"
    if content is not None:
        file.write_bytes(content)
    refused(file, "no complete tar archive|is missing")


def device(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def with_byte(content, position, value):
    return content[:position] + bytes([value]) + content[position + 1 :]


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        (TRAIN, lambda content: None, f"no member {TRAIN}"),
        (FINE, lambda content: None, f"no member {FINE}"),
        (TRAIN, lambda content: content[:-1], r"122,959 bytes, expected 122,960 \(40 records of 3,074 bytes"),
        (TEST, lambda content: content[:-3074], "test.bin has .* bytes, expected"),
        (TRAIN, lambda content: with_byte(content, 5 * 3074, 2), "record 5 of .*has superclass 2, expected 0 to 1"),
        (TRAIN, lambda content: with_byte(content, 5 * 3074 + 1, 9), "record 5 of .*has class 9, expected 0 to 3"),
        (TRAIN, lambda content: device(TRAIN, tarfile.SYMTYPE), "link or device instead of a file"),
        (TRAIN, lambda content: device(TRAIN, tarfile.CHRTYPE), "link or device instead of a file"),
        (FINE, lambda content: device(FINE, tarfile.DIRTYPE), "link or device instead of a file"),
        (FINE, lambda content: b"x" * 200_000, "too many for a list of names"),
        (FINE, lambda content: b"", "0 names"),
        (FINE, lambda content: b"ape\nape\ncat\ndoe\n", "4 names, 3 of them different"),
        (FINE, lambda content: b"\xff\xfe\n", "no text"),
    ],
)
def test_a_bad_member_is_named(members, pack, member, change, message):
    changed = members | {member: change(members[member])}
    refused(pack({name: content for name, content in changed.items() if content is not None}), message)


def test_superclasses_that_disagree_and_classes_without_images_are_refused(archive):
    superclasses = archive.train.superclasses.copy()
    superclasses[0] = 1 - superclasses[0]
    spoilt = archive._replace(train=archive.train._replace(superclasses=superclasses))
    with pytest.raises(UserError, match="has two superclasses"):
        cifar_binary.superclass_of_class(spoilt, "")
    with pytest.raises(UserError, match="no image of class 'elk'"):
        cifar_binary.superclass_of_class(archive._replace(class_names=[*archive.class_names, "elk"]), "")
