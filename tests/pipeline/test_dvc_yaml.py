"""dvc.yaml and dvc.lock against the code; nothing runs, no data are needed. `make lint` runs this file, too."""

import re
from collections.abc import Iterable, Iterator

import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage

from stages.models import params

from .conftest import MODELS, ROOT


@pytest.fixture(scope="module")
def stages() -> Iterator[list[PipelineStage]]:
    with Repo(ROOT) as repo:
        yield list(repo.index.stages)


def test_dvc_lock_agrees_with_the_code(stages):
    behind = []
    for stage in stages:
        behind += [stage.addressing] * stage.cmd_changed
        for dep in stage.deps:
            if not isinstance(dep, ParamsDependency) and not dep.def_path.startswith("data/") and dep.status():
                behind.append(f"{stage.addressing}: {dep.def_path}")
    remedy = "run `dvc repro`, or `dvc commit` if you know that no output changes"
    assert not behind, "dvc.lock is behind the code, " + "\n".join([f"{remedy}:", *behind])


def test_the_demo_keeps_the_reports_that_the_pipeline_writes(stages):
    outs = [out.def_path.split("/") for stage in stages for out in stage.outs]
    written = {path[1] for path in outs if path[0] == "reports"}
    [made] = re.findall(r"^MADE := (.*)$", (ROOT / "Makefile").read_text().replace("\\\n", ""), re.MULTILINE)
    assert set(made.split()) == written


def each(*names: str, models: Iterable[str] = MODELS) -> set[str]:
    return {f"{name}@{model}" for name in names for model in models}


PER_MODEL = ("train", "export", "predict", "robustness", "evaluate", "profile")
TORCH = ("vit_scratch", "vit_transfer")


@pytest.mark.parametrize(
    ("what", "readers"),
    [
        ("stages/common/paths.py", {"download", "prepare", "duplicates", "compare", "register"} | each(*PER_MODEL)),
        (
            "stages/data/sources/demo.py",
            {"download", "prepare", "compare", "register"} | each("robustness", "evaluate"),
        ),
        ("stages/data/split.py", {"prepare", "compare", "register"} | each("robustness", "evaluate")),
        ("stages/models/mobilenet_transfer/model.py", each("train", "export", models=["mobilenet_transfer"])),
        ("stages/models/keras_engine/model.py", each("train", "export", models=["mobilenet_transfer"])),
        ("stages/models/vit_scratch/vit.py", each("train", "export", models=["vit_scratch"])),
        ("stages/models/torch_engine/model.py", each("train", "export", models=TORCH)),
        ("stages/training/torch_engine/loop.py", each("train", models=TORCH)),
        ("stages/evaluation/summary.py", {"compare", "register"} | each("evaluate")),
        ("stages/report/__init__.py", {"compare"}),
        ("stages/tracking/registry.py", {"register"}),
        ("stages/tools/study.py", set()),
        ("gui/app.py", set()),
        ("params.yaml:data.url", {"download"}),
        ("params.yaml:models.vit_scratch.adamw_lr", {"train@vit_scratch", "compare", "register"}),
        ("params.yaml:registry.gate", {"register"}),
    ],
)
def test_an_edit_concerns_the_stages_that_read_it(stages, what, readers):
    file, _, key = what.partition(":")

    def reads(stage: PipelineStage) -> bool:
        if key:
            names = [name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params]
            return any(key == name or key.startswith(f"{name}.") for name in names)
        paths = [dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        return any(file == path or file.startswith(f"{path}/") for path in paths)

    assert {stage.addressing for stage in stages if reads(stage)} == readers


def test_dvc_yaml_runs_the_models_of_params_yaml_with_their_classifiers():
    [variables] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["vars"]
    settings = params.read(ROOT / "params.yaml")
    classifiers = {name: entry["classifier"] for name, entry in variables["pipeline"].items()}
    assert classifiers == {name: section.classifier for name, section in settings.models.items()}
    assert list(settings.export.int8) == list(classifiers)
