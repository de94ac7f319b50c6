"""A small archive in the layout of CIFAR-100, and ways to spoil it."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stages.data.sources import cifar_binary
from stages.data.sources.cifar_binary import Archive, Records

CLASSES, PER_CLASS, TEST_PER_CLASS = 4, 10, 3
COUNTS = {"train": CLASSES * PER_CLASS, "test": CLASSES * TEST_PER_CLASS}


@pytest.fixture
def archive() -> Archive:
    """4 classes in 2 superclasses, 10 training and 3 test images each, all different."""
    rng = np.random.default_rng(0)

    def records(per_class: int) -> Records:
        labels = rng.permutation(np.repeat(np.arange(CLASSES, dtype=np.uint8), per_class))
        return Records(labels // 2, labels, rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8))

    return Archive(records(PER_CLASS), records(TEST_PER_CLASS), ["ape", "bee", "cat", "doe"], ["wild", "tame"])


@pytest.fixture
def members(archive: Archive, tmp_path: Path) -> dict[str, bytes]:
    """The content of each member of that archive, to be spoilt."""
    cifar_binary.write(tmp_path / "good.tar", archive)
    with tarfile.open(tmp_path / "good.tar") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Pack members into an archive: pack({name: content or TarInfo}, mode="w:gz")."""

    def pack(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w", name: str = "packed.tar") -> Path:
        with tarfile.open(tmp_path / name, mode) as tar:
            for member, content in members.items():
                info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(member)
                if isinstance(content, bytes):
                    info.size = len(content)
                tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
        return tmp_path / name

    return pack
