"""The whole pipeline through real DVC, once, in a clone of its own, on a tiny demo set."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# Run by every Python process of the clone's stages as it starts: notes which of the clone's files it had imported.
SITECUSTOMIZE = """
import atexit, os, sys

def note():
    stage, root = os.environ.get("DVC_STAGE"), os.environ["RECORDED_ROOT"]
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    main = getattr(sys.modules["__main__"], "__file__", None)
    ours = {file for file in files | {main} if file and file.startswith(root + "/stages")}
    inside = sorted(os.path.relpath(file, root) for file in ours)
    if stage and inside:
        with open(os.path.join(os.environ["RECORDS"], f"{stage}.{os.getpid()}"), "w") as stream:
            stream.write("\\n".join(inside))

atexit.register(note)
"""


PATIENCE = 1200  # seconds


class Clone:
    """A clone of the working tree with settings small enough to run it all in a minute or two."""

    def __init__(self, root: Path, records: Path) -> None:
        self.root = root
        self.records = records
        # As its user has it: without what tests/conftest.py sets for tests within this process.
        foreign = ("DVC_", "MLFLOW_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        self.environment = kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "PYTHONPATH": str(records.parent / "site"),
            "RECORDED_ROOT": str(root),
            "RECORDS": str(records),
            "DVC_NO_ANALYTICS": "1",
        }

    def copy(self, root: Path) -> "Clone":
        """All of it once more, with what git ignores: cache, trained models, tracking store."""
        shutil.copytree(self.root, root, symlinks=True)
        return Clone(root, self.records)

    def run(self, *command: str) -> str:
        """Run a command in the clone; its output, which is shown where it fails."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-5000:]}"
        return done.stdout

    def refusal(self, *command: str) -> str:
        """Run a command that is to end with status 1; what it says on stderr."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, text=True, capture_output=True, timeout=PATIENCE
        )
        assert done.returncode == 1, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-5000:]}"
        return done.stderr

    def repro(self) -> list[str]:
        """`dvc repro`; the names of the stages that ran."""
        lines = self.run("dvc", "repro").splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage '")]

    def set_params(self, changes: dict[str, object]) -> None:
        """Change keys of params.yaml, given as dotted paths."""
        file = self.root / "params.yaml"
        content = yaml.safe_load(file.read_text())
        for path, value in changes.items():
            *sections, key = path.split(".")
            place = content
            for section in sections:
                place = place[section]
            assert key in place, path
            place[key] = value
        file.write_text(yaml.safe_dump(content, sort_keys=False))


TINY = {
    "data.source": "demo",
    "data.demo": {"train_per_class": 4, "test_per_class": 2},
    "data.val_fraction": 0.25,
    "robustness.images": 40,
    "compute.threads": 1,
    "export.int8": {"vit_scratch": "static", "vit_transfer": "static", "mobilenet_transfer": "static"},
    "models.vit_scratch.patch_size": 8,
    "models.vit_scratch.embed_dim": 24,
    "models.vit_scratch.depth": 1,
    "models.vit_transfer.weights": "random",
    "models.vit_transfer.image_size": 32,
    "models.mobilenet_transfer.weights": "random",
    "models.mobilenet_transfer.variant": "small",
    "models.mobilenet_transfer.image_size": 32,
}


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Clone:
    """A committed clone after a first `dvc repro`."""
    folder = tmp_path_factory.mktemp("pipeline")
    root, records = folder / "clone", folder / "records"
    records.mkdir()
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(SITECUSTOMIZE)
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in tracked.split("\0"):
        if name and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    (root / "dvc.lock").unlink(missing_ok=True)
    clone = Clone(root, records)
    clone.set_params(TINY)
    clone.run("git", "init", "-q")
    clone.run("git", "add", "-A")
    clone.run("git", "commit", "-qm", "start")
    clone.run("dvc", "repro")
    clone.run("git", "add", "-A")
    clone.run("git", "commit", "-qm", "first run")
    return clone
