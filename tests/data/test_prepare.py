"""The stages `download` and `prepare` as DVC runs them, and the arrays they leave."""

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages import download, prepare
from stages.common.errors import UserError
from stages.data.dataset import Prepared
from stages.data.sources import cifar_binary
from tests.changed_params import changed_params

FOLDER, RAW = Path("data/prepared"), Path("data/raw")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(seed=1): download and prepare a small demo set with these keys of `data`, in an empty repository root."""
    small = {"source": "demo", "demo": {"train_per_class": 5, "test_per_class": 2}, "val_fraction": 0.4}
    monkeypatch.chdir(tmp_path)

    def run(**data) -> Prepared:
        changes = {f"data.{key}": value for key, value in (small | data).items()}
        Path("params.yaml").write_text(yaml.safe_dump(changed_params(changes)))
        download.main()
        prepare.main()
        return Prepared.open(FOLDER)

    return run


def hashes(folder=FOLDER):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_the_demo_gives_the_same_bytes_everywhere(run):
    prepared = run()
    assert prepared.data_sha256 == "d3edcae02c5f39fd63edbacf78a2768f1ad07219d487cd9dea3f374045869e82"
    assert hashes()["dataset.json"] == "4dc742a90b93df9effd2af7c7694b6fff115086175eb82afb1fb93f3684e9c69"
    assert isinstance(prepared.split("train")[0], np.memmap)
    assert hashes(RAW) == {"demo.tar": "52dc89041929ac33554ddad348652411fe58e7c4d603dcc4ed472c46317b1efe"}
    assert not list(Path("data/scratch").iterdir())


def test_order_and_packing_of_the_archive_change_no_byte(run):
    run()
    first, [file] = hashes(), RAW.iterdir()
    archive, rng = cifar_binary.read(file, {"train": 500, "test": 200}), np.random.default_rng(1)
    parts = {
        part: getattr(archive, part).select(rng.permutation(count)) for part, count in (("train", 500), ("test", 200))
    }
    cifar_binary.write(Path("plain.tar"), archive._replace(**parts))
    file.unlink()
    with tarfile.open(RAW / "other-name", "w:xz") as tar, tarfile.open("plain.tar") as source:
        for member in source:
            tar.addfile(member, source.extractfile(member))
    prepare.main()
    assert hashes() == first


def test_the_content_hash_follows_the_content(run):
    assert len({run(**changes).data_sha256 for changes in ({}, {"seed": 1}, {"limit_per_class": 2})}) == 3


def test_an_archive_of_the_users_is_fetched_and_a_bad_one_leaves_the_prepared_data_as_they_were(run):
    run()
    before = hashes()
    bad = Path("mine.tar")
    bad.write_bytes((RAW / "demo.tar").read_bytes()[:100_000])
    with pytest.raises(UserError, match="raw/mine.tar: cifar-100-binary/train.bin has .* bytes, expected 153,700,000"):
        run(source="cifar100", url="mine.tar", sha256=hashlib.sha256(bad.read_bytes()).hexdigest())
    assert hashes() == before
    (RAW / "another.tar").touch()
    with pytest.raises(UserError, match="holds 2 files"):
        prepare.main()


@pytest.mark.parametrize(
    "damage",
    [
        lambda: (FOLDER / "val_images.npy").unlink(),
        lambda: np.save(FOLDER / "val_images.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True),
        lambda: np.save(FOLDER / "val_labels.npy", np.zeros(3, np.int64)),
        lambda: (FOLDER / "dataset.json").write_text(json.dumps({"source": "demo"})),
    ],
    ids=["missing", "pickle", "shape", "json"],
)
def test_damaged_arrays_are_refused(run, damage):
    run()
    damage()
    with pytest.raises(UserError, match="dvc repro"):
        Prepared.open(FOLDER).split("val")


def test_a_share_of_the_training_images_is_drawn_from_every_class(run):
    prepared = run()
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
