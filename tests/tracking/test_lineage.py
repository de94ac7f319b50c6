import subprocess

import pytest

from stages.tracking.lineage import dvc_tags, git_tags

IGNORED = ("params.yaml", "dvc.lock", "reports")


@pytest.fixture
def repository(tmp_path):
    for name in ("params.yaml", "code.py"):
        (tmp_path / name).write_text("1")
    for command in ("init", "add .", "commit -m first"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock", "reports/comparison.md", "notes.txt"])
def test_what_is_recorded_elsewhere_does_not_make_a_tree_dirty(repository, name):
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("2")
    tags = git_tags(repository, IGNORED)
    assert len(tags["git_commit"]) == 40
    assert tags["git_dirty"] == "false"


@pytest.mark.parametrize("name", ["code.py", "new.py", "folder/with space.py"])
def test_changed_or_new_code_makes_it_dirty(repository, name):
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("2")
    assert git_tags(repository, IGNORED)["git_dirty"] == "true"


def test_without_git_there_are_no_tags(tmp_path, monkeypatch):
    assert git_tags(tmp_path) == {}
    monkeypatch.setenv("PATH", "")
    assert git_tags(tmp_path) == {}


def test_dvc_says_which_stage_and_experiment_run(monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train@vit_scratch")
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert dvc_tags() == {"dvc_stage": "train@vit_scratch"}
    monkeypatch.setenv("DVC_EXP_NAME", "widths-1")
    assert dvc_tags() == {"dvc_stage": "train@vit_scratch", "dvc_experiment": "widths-1"}
