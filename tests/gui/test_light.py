"""App, command line and stages.inference answer where no framework that trains is installed."""

import json
import subprocess
import sys
from pathlib import Path

from tests.gui.conftest import RED, Register, picture_file

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("torch", "torchvision", "timm", "lightning", "tensorflow", "keras")
ANSWERS = """
import importlib, json, pkgutil, sys
from pathlib import Path

picture, *frameworks = sys.argv[1:]
for name in frameworks:
    sys.modules[name] = None  # as if it were not installed
import gui, stages.inference
from gui import classify, pictures, registry
from streamlit.testing.v1 import AppTest

for package in (gui, stages.inference):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name != "gui.app":  # a script, which is run below
            importlib.import_module(module.name)
model = registry.load(registry.connect().champions()[0])
seen = model.prepare(pictures.load(Path(picture).read_bytes()))
answer = model.classified(model.probabilities(seen[None]), 1)[0].answers[0].class_name
page = AppTest.from_file("gui/app.py", default_timeout=60).run()
page.file_uploader[0].set_value([("red.png", Path(picture).read_bytes(), "image/png")]).run()
assert not page.exception and not page.error, (page.exception, page.error)
shown = "".join(element.proto.body for element in page.get("html"))
print(json.dumps({"model": answer, "app": shown}), flush=True)
sys.argv = ["classify", picture, "--top", "1"]
classify.main()
"""


def test_every_module_is_imported_and_an_image_classified_without_any_framework(
    register: Register, tmp_path: Path
) -> None:
    register()
    (tmp_path / "red.png").write_bytes(picture_file(RED))
    command = [sys.executable, "-c", ANSWERS, str(tmp_path / "red.png"), *FRAMEWORKS]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    first, second = map(json.loads, ran.stdout.splitlines()[-2:])
    assert first["model"] == "red apple"
    assert "red apple" in first["app"]
    assert second["answers"][0]["class"] == "red apple"
