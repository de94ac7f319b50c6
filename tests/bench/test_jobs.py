"""Which settings and pictures are measured, and what becomes of a measurement that fails."""

import re
import sys

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.tools.bench.job import Job
from stages.tools.bench.speed import _first


def test_a_model_is_trained_whole_from_random_weights_on_as_many_threads_as_params_say(tiny_params, tmp_path):
    job = Job.of(tiny_params, "mobilenet_transfer", None, str(tmp_path))
    assert job.settings["weights"] == "random"
    assert job.settings["finetune"] == "full"
    assert job.settings["image_size"] == 32
    assert job.compute["threads"] == 1
    assert "weights" not in Job.of(tiny_params, "vit_scratch", None, str(tmp_path)).settings


def test_prepared_pictures_are_taken_where_there_are_any(job_of, tiny_data):
    images, labels = job_of("vit_scratch").examples("val")
    assert np.array_equal(images, tiny_data.split("val")[0])
    assert job_of("vit_scratch").num_classes == len(tiny_data.class_names) != 100
    assert len(labels) == 20


def test_random_pictures_are_shaped_like_those_of_cifar100(tiny_params, tmp_path):
    job = Job.of(tiny_params, "vit_scratch", None, str(tmp_path))
    images, labels = job.examples("train")
    assert images.shape[1:] == (32, 32, 3)
    assert images.dtype == np.uint8
    assert set(labels) == set(range(job.num_classes)) == set(range(100))
    assert np.array_equal(images, job.examples("train").images)


def test_few_pictures_are_shown_again_and_again(job_of):
    some = _first(job_of("vit_scratch").examples("train"), 300)
    assert len(some.images) == len(some.labels) == 300
    assert np.array_equal(some.labels[:60], some.labels[240:])


def test_settings_that_do_not_fit_are_one_line(job_of):
    with pytest.raises(UserError, match=r"^vit_scratch: patch_size = 5 does not divide[^\n]*$"):
        job_of("vit_scratch", patch_size=5).run("speed.notebook", 0.0)


def test_a_measurement_that_takes_too_long_is_ended(job_of):
    with pytest.raises(UserError, match=re.escape("vit_scratch, speed.notebook took more than 0 minutes")):
        job_of("vit_scratch").run("speed.notebook", 0.0, patience=0.1)


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", UserError, "was killed by signal 9"),
        ("raise KeyError('a bug')", RuntimeError, "Traceback"),
    ],
)
def test_a_process_that_dies_is_told_of(job_of, monkeypatch, tmp_path, script, error, said):
    (tmp_path / "dying").write_text(f"#!{sys.executable}\n{script}\n")
    (tmp_path / "dying").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "dying"))
    with pytest.raises(error, match=said):
        job_of("vit_scratch").run("speed.notebook", 0.0)
