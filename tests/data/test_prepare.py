"""The stage `prepare` as DVC runs it, and the arrays it leaves."""

import hashlib
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages import download, prepare
from stages.common.errors import UserError
from stages.data import cifar_binary
from stages.data.dataset import Prepared

SHIPPED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty repository root whose params.yaml asks for a small demo set."""
    shipped = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    shipped["data"] |= {"source": "demo", "demo": {"train_per_class": 4, "test_per_class": 2}, "val_fraction": 0.25}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage"])

    def write(**data):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(shipped | {"data": shipped["data"] | data}))

    write()
    return write, tmp_path


def hashes(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_arrays_are_memory_mapped_and_described(workspace):
    _, root = workspace
    download.main()
    prepare.main()
    prepared = Prepared.open(root / "data/prepared")
    for split, count in (("train", 300), ("val", 100), ("test", 200)):
        images, labels = prepared.split(split)
        assert isinstance(images, np.memmap)
        assert images.shape == (count, 32, 32, 3)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert set(np.bincount(labels)) == {count // 100}
        assert prepared.description["counts"][split] == count
    assert len(prepared.class_names) == len(prepared.superclass_of_class) == 100
    assert len(prepared.superclass_names) == 20
    assert not (root / "data/scratch/prepared").exists()


def repack(root, mode, order_seed):
    """The same records in another order and packing."""
    [file] = (root / "data/raw").iterdir()
    counts = {"train": 400, "test": 200}
    archive = cifar_binary.read(file, counts)
    rng = np.random.default_rng(order_seed)
    archive = archive._replace(
        train=archive.train.select(rng.permutation(400)), test=archive.test.select(rng.permutation(200))
    )
    file.unlink()
    plain = root / "plain.tar"
    cifar_binary.write(plain, archive)
    with tarfile.open(root / "data/raw/other-name", mode) as tar, tarfile.open(plain) as source:
        for member in source:
            tar.addfile(member, source.extractfile(member))


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_order_and_packing_of_the_archive_change_no_byte(workspace, mode):
    _, root = workspace
    download.main()
    prepare.main()
    first = hashes(root / "data/prepared")
    repack(root, mode, order_seed=1)
    prepare.main()
    assert hashes(root / "data/prepared") == first


def test_the_content_hash_follows_the_content(workspace):
    write, root = workspace
    found = []
    for changes in ({}, {"seed": 1}, {"limit_per_class": 2}):
        write(**changes)
        download.main()
        prepare.main()
        found.append(Prepared.open(root / "data/prepared").data_sha256)
    assert len(set(found)) == 3


def test_a_bad_archive_leaves_the_prepared_data_as_they_were(workspace):
    _, root = workspace
    download.main()
    prepare.main()
    before = hashes(root / "data/prepared")
    [file] = (root / "data/raw").iterdir()
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(UserError, match="demo.tar"):
        prepare.main()
    assert hashes(root / "data/prepared") == before


@pytest.mark.parametrize("count", [0, 2])
def test_anything_but_one_archive_is_refused(workspace, count):
    _, root = workspace
    (root / "data/raw").mkdir(parents=True)
    for index in range(count):
        (root / f"data/raw/{index}.tar").touch()
    with pytest.raises(UserError, match=f"holds {count} files"):
        prepare.main()


@pytest.mark.parametrize("damage", ["missing", "pickle", "shape", "json"])
def test_damaged_arrays_are_refused(workspace, damage):
    _, root = workspace
    download.main()
    prepare.main()
    folder = root / "data/prepared"
    if damage == "missing":
        (folder / "val_images.npy").unlink()
    elif damage == "pickle":
        np.save(folder / "val_images.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif damage == "shape":
        np.save(folder / "val_labels.npy", np.zeros(3, np.int64))
    else:
        (folder / "dataset.json").write_text(json.dumps({"source": "demo"}))
    with pytest.raises(UserError, match="dvc repro"):
        Prepared.open(folder).split("val")


def test_a_share_of_the_training_pictures_is_drawn_from_every_class(workspace):
    _, root = workspace
    download.main()
    prepare.main()
    prepared = Prepared.open(root / "data/prepared")
    images, labels = prepared.split("train")
    row_of = {image.tobytes(): row for row, image in enumerate(images)}
    rows = {}
    for fraction, per_class in ((0.01, 1), (0.7, 2), (1.0, 3)):
        some_images, some_labels = prepared.training(fraction, seed=0)
        assert (np.bincount(some_labels) == per_class).all()
        rows[fraction] = [row_of[image.tobytes()] for image in some_images]
        assert (labels[rows[fraction]] == some_labels).all()
    assert set(rows[0.01]) < set(rows[0.7]) < set(rows[1.0])
    assert len(set(rows[1.0])) == len(labels)
    assert not np.array_equal(prepared.training(0.01, seed=1)[0], prepared.training(0.01, seed=0)[0])
