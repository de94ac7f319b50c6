"""The app needs MLflow, Streamlit and the runtime of its models; nothing else of this project."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gui.conftest import RED, Register, picture_file

GUI = Path(__file__).resolve().parents[2] / "gui"
CLASSIFY_ONE_PICTURE = """
import json, sys
from streamlit.testing.v1 import AppTest
page = AppTest.from_file(sys.argv[1], default_timeout=60).run()
page.file_uploader[0].set_value(("picture.png", open(sys.argv[2], "rb").read(), "image/png")).run()
assert not page.exception, page.exception
shown = [element.proto.body for element in page.get("html")] + [error.value for error in page.error]
print(json.dumps({"shown": shown, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def test_no_module_of_the_app_imports_the_pipeline() -> None:
    imported = set()
    for file in GUI.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0  # the app's modules call one another by their full names
                imported.add((node.module or "").split(".")[0])
    libraries = {"altair", "mlflow", "numpy", "pandas", "PIL", "requests", "starlette", "streamlit", "tqdm", "uvicorn"}
    libraries |= {"fastapi", "fastapi_offline", "pydantic"}  # of gui.server
    assert imported - set(sys.stdlib_module_names) == {"gui"} | libraries


def test_a_copy_of_the_app_beside_a_database_serves_its_champion_from_any_folder(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    shutil.copytree(GUI, tmp_path / "gui")  # tmp_path / "mlflow.db" is the database
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "picture.png").write_bytes(picture_file(RED))
    environment = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "PYTHONPATH")}
    command = [sys.executable, "-c", CLASSIFY_ONE_PICTURE, tmp_path / "gui" / "app.py", tmp_path / "picture.png"]
    run = subprocess.run(command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert "red apple" in result["shown"][0]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    # Each of these takes seconds, and nothing on the page needs it.
    assert not {"stages", "torch", "tensorflow", "keras", "altair", "matplotlib", "sklearn"} & set(result["modules"])
