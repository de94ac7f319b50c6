"""Where figures come from: of what is measured now, and of trainings."""

import re
import subprocess
from datetime import datetime, timedelta
from types import SimpleNamespace

from stages.tools import provenance
from tests.gui import screenshots


def test_what_is_measured_now_names_the_commit_and_whether_it_says_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert provenance.here("p", "d")["commit"] is None

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    for name in ("code.py", "params.yaml", "dvc.lock"):
        (tmp_path / name).write_text("1")
    git("add", "-A")
    git("commit", "-qm", "all")
    for recorded in ("params.yaml", "dvc.lock"):
        (tmp_path / recorded).write_text("2")
    found = provenance.here("p", "d")
    assert (found["commit"], found["uncommitted_changes"]) == (git("rev-parse", "HEAD").strip(), False)
    assert (found["params_sha256"], found["data_sha256"]) == ("p", "d")
    assert datetime.now().astimezone() - datetime.fromisoformat(found["date"]) < timedelta(minutes=5)
    assert set(provenance.LIBRARIES) == found["versions"].keys()
    (tmp_path / "code.py").write_text("2")
    assert provenance.here("p", "d")["uncommitted_changes"]


def of_run(commit: str, dirty: str, seed: int) -> dict:
    return {
        "tags": {"git_commit": commit, "git_dirty": dirty, "params_sha256": f"of seed {seed}"},
        "data_sha256": "d",
        "hardware": {"cpu": "Some CPU"},
        "versions": {"torch": "2.0"},
        "started": "2026-11-25T12:00:00+00:00",
    }


def test_of_trainings_what_they_share_stands_once_and_what_differs_as_a_list():
    found = provenance.of_runs([of_run("c", "false", 0), of_run("c", "true", 1), of_run("c", "true", 1)])
    assert found == {
        "commit": "c",
        "uncommitted_changes": [False, True],
        "params_sha256": ["of seed 0", "of seed 1"],
        "data_sha256": "d",
        "hardware": {"cpu": "Some CPU"},
        "versions": {"torch": "2.0"},
        "date": "2026-11-25T12:00:00+00:00",
    }


def test_screenshots_are_of_the_champions_data_and_parameters(monkeypatch):
    class Champion(SimpleNamespace):
        def __str__(self) -> str:
            return "version 3 of net"

    champion = Champion(tags={"weights_sha256": "w"})
    trained = SimpleNamespace(data=SimpleNamespace(tags={"params_sha256": "p", "data_sha256": "d"}))
    store = SimpleNamespace(champions=lambda: [champion])
    store.training = lambda version: {"version 3 of net": trained}[str(version)]
    monkeypatch.setattr(screenshots.registry, "connect", lambda: store)
    found = screenshots._origin()
    assert [found[key] for key in ("params_sha256", "data_sha256", "weights_sha256")] == ["p", "d", "w"]
    assert found["champion"] == "version 3 of net"
    assert re.fullmatch("[0-9a-f]{40}", found["commit"])
