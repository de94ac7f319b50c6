"""The app needs two folders of this project and the charts; that it needs no framework, pyproject.toml says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from gui.registry import REPOSITORY
from tests.gui.conftest import RED, Register, image_file

ALLOWED = ("gui", "stages/common", "stages/inference")
LATER = ("altair", "matplotlib", "sklearn")  # each takes seconds, and the first page needs none of them
PREDICTS = """
import json, sys
from pathlib import Path

root, image = sys.argv[1:]
from streamlit.testing.v1 import AppTest

page = AppTest.from_file(f"{root}/gui/app.py", default_timeout=60).run()
page.file_uploader[0].set_value(("red.png", Path(image).read_bytes(), "image/png")).run()
assert not page.exception and not page.error, (page.exception, page.error)
modules = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps(["".join(element.proto.body for element in page.get("html")), modules]), flush=True)

import gui
from gui import classify

assert gui.__path__[0].startswith(root), gui

sys.argv = ["classify", image, "--top", "1"]
classify.main()
"""


def test_a_copy_beside_a_database_predicts_by_its_champion_from_any_folder(register: Register, tmp_path: Path) -> None:
    register()
    for folder in ALLOWED:  # tmp_path / "mlflow.db" is the database
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    (tmp_path / "stages" / "report").mkdir()
    for file in ("__init__.py", "report/__init__.py", "report/charts.py"):
        shutil.copy(REPOSITORY / "stages" / file, tmp_path / "stages" / file)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "red.png").write_bytes(image_file(RED))
    environment = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "PYTHONPATH")}
    command = [sys.executable, "-c", PREDICTS, tmp_path, tmp_path / "red.png"]
    ran = subprocess.run(command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (shown, modules), row = map(json.loads, ran.stdout.splitlines()[-2:])
    assert "red apple" in shown
    assert not set(LATER) & set(modules)
    assert row["class"] == "red apple"
    assert list((tmp_path / "elsewhere").iterdir()) == []
