"""The whole pipeline through real DVC, once, on a tiny demo set; each test that changes something has its own copy."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.changed_params import changed_params

ROOT = Path(__file__).parents[2]
MODELS = tuple(yaml.safe_load((ROOT / "params.yaml").read_text())["models"])
PATIENCE = 1200  # seconds
TINY = {
    "data.source": "demo",
    "data.demo": {"train_per_class": 4, "test_per_class": 2},
    "data.val_fraction": 0.5,
    "robustness.images": 40,
    "compute.threads": 1,
    "export.int8": dict.fromkeys(MODELS, "static"),
    "models.vit_scratch.patch_size": 8,
    "models.vit_scratch.embed_dim": 24,
    "models.vit_scratch.depth": 1,
    "models.vit_transfer.weights": "random",
    "models.vit_transfer.image_size": 32,
    "models.mobilenet_transfer.weights": "random",
    "models.mobilenet_transfer.variant": "small",
    "models.mobilenet_transfer.image_size": 32,
}
# Python runs this in every process of the first run: it notes which of the repository's files the process imported.
SITECUSTOMIZE = """
import atexit, os, sys

def note():
    stage, root = os.environ.get("DVC_STAGE"), os.environ["RECORDED_ROOT"]
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    inside = sorted(os.path.relpath(file, root) for file in files if file and file.startswith(root + "/stages"))
    if stage and inside:
        with open(os.path.join(os.environ["RECORDS"], f"{stage}.{os.getpid()}"), "w") as stream:
            stream.write("\\n".join(inside))

atexit.register(note)
"""


class Clone:
    """A repository to run the pipeline in, as its user does: without what tests/conftest.py sets for this process."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.root = root
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        self.environment = kept | {"PATH": path, "DVC_NO_ANALYTICS": "1"} | environment

    def copy(self, root: Path) -> "Clone":
        """All of it, with what git ignores: cache, models, tracking store.

        Only the folder of MLflow's artifacts is shared: those of a copy lie there under ids of their own.
        """

        def copy(source: str, target: str) -> None:
            # DVC never changes a file of its cache in place.
            (os.link if "/.dvc/cache/" in source else shutil.copy2)(source, target)

        shutil.copytree(self.root, root, symlinks=True, copy_function=copy)
        return Clone(root)

    def run(self, *command: str, status: int = 0) -> str:
        """Run a command that is to end with `status`; what it says, on stderr alone where that is not 0."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE if status else subprocess.STDOUT}
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, text=True, timeout=PATIENCE, check=False, **streams
        )
        assert done.returncode == status, f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-5000:]}"
        return done.stderr if status else done.stdout

    def repro(self, *arguments: str) -> set[str]:
        """`dvc repro`; the names of the stages that ran."""
        lines = self.run("dvc", "repro", *arguments).splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage '")}

    def set_params(self, changes: dict[str, object]) -> None:
        """Write params.yaml as shipped but for TINY and these changes, given as dotted paths."""
        (self.root / "params.yaml").write_text(yaml.safe_dump(changed_params(TINY | changes), sort_keys=False))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Clone:
    """A committed clone of the working tree after a first `dvc repro`. To be read only: `clone` is for changes."""
    folder = tmp_path_factory.mktemp("pipeline")
    root, records = folder / "clone", folder / "records"
    records.mkdir()
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(SITECUSTOMIZE)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"):
        if name and name != "dvc.lock" and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    clone = Clone(root, PYTHONPATH=str(folder / "site"), RECORDED_ROOT=str(root), RECORDS=str(records))
    clone.set_params({})
    for command in (
        "git init -q",
        "git add -A",
        "git commit -qm start",
        "dvc repro",
        "git add -A",
        "git commit -qm run",
    ):
        clone.run(*command.split())
    return clone


@pytest.fixture
def clone(finished: Clone, tmp_path: Path) -> Iterator[Clone]:
    """A copy of it for one test, to do with as it likes."""
    copy = finished.copy(tmp_path / "clone")
    yield copy
    shutil.rmtree(copy.root)
