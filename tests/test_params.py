"""params.yaml: what is accepted, and what a mistake is told."""

import re
from itertools import takewhile
from pathlib import Path

import pytest
import yaml

from stages.common.errors import UserError
from stages.models import params

SHIPPED = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture
def read(tmp_path):
    """Read the shipped params.yaml with some keys changed: read({"models.vit_scratch.depth": 2})."""

    def read(changes=None, removed=()):
        content = yaml.safe_load(SHIPPED.read_text())
        for path, value in (changes or {}).items():
            *sections, key = path.split(".")
            place = content
            for section in sections:
                place = place[section]
            place[key] = value
        for path in removed:
            *sections, key = path.split(".")
            place = content
            for section in sections:
                place = place[section]
            del place[key]
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return params.read(file)

    return read


def test_the_shipped_file_is_valid(read):
    shipped = read()
    assert {"vit_scratch", "vit_transfer", "mobilenet_transfer"} <= set(shipped.models)
    assert shipped.data.source == "cifar100"
    assert shipped.epochs("vit_scratch") == shipped.budget.epochs == 1


def test_dvc_yaml_runs_the_models_of_the_shipped_file_with_their_classifiers(read):
    pipeline = yaml.safe_load(SHIPPED.with_name("dvc.yaml").read_text())
    [variables] = pipeline["vars"]
    assert list(read().export.int8) == list(variables["pipeline"])
    classifiers = {name: entry["classifier"] for name, entry in variables["pipeline"].items()}
    assert classifiers == {name: settings.classifier for name, settings in read().models.items()}
    for plot in pipeline["plots"]:
        [figure] = plot.values()
        assert (SHIPPED.parent / ".dvc/plots" / f"{figure['template']}.json").is_file()


def test_a_model_may_override_the_budget(read):
    changed = read({"budget.epochs": 3, "models.vit_transfer.epochs": 5})
    assert changed.epochs("vit_transfer") == 5
    assert changed.epochs("vit_scratch") == 3


def test_a_number_that_yaml_takes_for_text_is_a_number(read):
    assert read({"models.vit_scratch.muon_lr": "2e-3"}).model("vit_scratch").muon_lr == 0.002


def test_a_model_that_export_does_not_name_gets_no_int8_copy(read):
    export = read({"export.int8": {"vit_transfer": "static"}, "export.serve": "int8"}).export
    assert export.int8.get("vit_transfer") == "static"
    assert export.int8.get("vit_scratch") is None


def test_a_second_model_may_use_the_same_classifier(read):
    section = yaml.safe_load(SHIPPED.read_text())["models"]["vit_scratch"]
    changed = read({"models.vit_wide": section | {"embed_dim": 384, "num_heads": 6}})
    assert changed.model("vit_wide").embed_dim == 384


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data.val_fracton": 0.2}, ["data.val_fracton is not a known key"]),
        ({"budget.train_fraction": 0}, ["budget.train_fraction = 0", "greater than 0"]),
        ({"budget.train_fraction": 1.5}, ["budget.train_fraction = 1.5", "less than or equal to 1"]),
        ({"export.serve": "fp16"}, ["export.serve = 'fp16'", "'auto', 'float32' or 'int8'"]),
        ({"export.int8.vit_scratch": "statik"}, ["export.int8.vit_scratch = 'statik'", "'dynamic' or 'static'"]),
        ({"export.int8.resnet": "static"}, ["export.int8 names resnet", "vit_scratch, vit_transfer"]),
        ({"export.int8": None}, ["export.int8 = None", "dictionary"]),
        ({"export.serve": "int8"}, ["export.serve = 'int8'", "set a model there to static"]),
        ({"robustness.images": 0}, ["robustness.images = 0", "greater than or equal to 1"]),
        ({"registry.gate": "best"}, ["registry.gate = 'best'", "'significant', 'better' or 'always'"]),
        ({"registry.alpha": 1}, ["registry.alpha = 1", "less than 1"]),
        ({"budget.epochs": 0}, ["budget.epochs = 0", "greater than or equal to 1"]),
        ({"budget.epochs": "many"}, ["budget.epochs = 'many'", "valid integer"]),
        ({"budget.epochs": True}, ["budget.epochs = True", "valid integer"]),
        ({"seed": -1}, ["seed = -1", "greater than or equal to 0"]),
        ({"seed": 2**32}, ["seed = 4294967296", "less than 4294967296"]),
        ({"models.vit_scratch.label_smoothing": True}, ["models.vit_scratch.label_smoothing = True", "number"]),
        ({"models.vit_scratch.dropout": 1}, ["models.vit_scratch.dropout = 1", "less than 1"]),
        ({"data.source": "cifar10"}, ["data.source = 'cifar10'", "'cifar100' or 'demo'"]),
        ({"data.val_fraction": 1.5}, ["data.val_fraction = 1.5", "less than 1"]),
        ({"data.sha256": "abc"}, ["data.sha256 = 'abc'", "should match"]),
        ({"data.limit_per_class": 1}, ["data.limit_per_class = 1", "greater than or equal to 2"]),
        ({"compute.precision": "fp8"}, ["compute.precision = 'fp8'", "'auto', 'float32' or 'bfloat16'"]),
        ({"models.vit_scratch.depth": 2.5}, ["models.vit_scratch.depth = 2.5", "valid integer"]),
        ({"models.vit_scratch.width": 64}, ["models.vit_scratch.width is not a known key"]),
        ({"models.vit_scratch.num_heads": 5}, ["embed_dim = 192 must be a multiple of num_heads = 5"]),
        ({"models.vit_scratch.muon_lr": float("nan")}, ["models.vit_scratch.muon_lr = nan"]),
        ({"models.vit_transfer.finetune": "tail"}, ["models.vit_transfer.finetune = 'tail'", "'full' or 'head'"]),
        ({"models.mobilenet_transfer.variant": "huge"}, ["models.mobilenet_transfer.variant = 'huge'"]),
        ({"models.mobilenet_transfer.dropout": 1}, ["models.mobilenet_transfer.dropout = 1", "less than 1"]),
        (
            {"models.vit_scratch.classifier": "resnet"},
            ["models.vit_scratch.classifier", "choose one of", "vit_scratch"],
        ),
        ({"models.vit_scratch": 3}, ["models.vit_scratch needs a key `classifier`"]),
        ({"models": {}}, ["models = {}"]),
        ({"models": 3}, ["models = 3", "one section per model"]),
    ],
)
def test_a_mistake_is_told_in_one_line_with_key_value_and_what_is_allowed(read, changes, parts):
    with pytest.raises(UserError) as caught:
        read(changes)
    message = str(caught.value)
    assert "\n" not in message
    for part in ["params.yaml", *parts]:
        assert part in message


def test_a_missing_key_is_named(read):
    with pytest.raises(UserError, match="models.vit_scratch.depth is missing"):
        read(removed=["models.vit_scratch.depth"])


def test_all_mistakes_are_told_at_once(read):
    with pytest.raises(UserError) as caught:
        read({"seed": -1, "models.vit_scratch.depth": 0, "models.vit_transfer.finetune": "tail"})
    for key in ("seed", "models.vit_scratch.depth", "models.vit_transfer.finetune"):
        assert key in str(caught.value)


@pytest.mark.parametrize("name", ["latest", "v1", "V12", "Champion", "challenger", "my model", "a/b", "é", "", 7.5])
def test_a_name_that_cannot_be_a_stage_a_folder_and_an_alias_is_refused(read, name):
    models = yaml.safe_load(SHIPPED.read_text())["models"]
    with pytest.raises(UserError, match="letters, digits, - and _"):
        read({"models": {name: models["vit_scratch"]}})


@pytest.mark.parametrize("content", ["a: [1", "", "- 1\n", "\xff"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    file = tmp_path / "params.yaml"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        params.read(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="params.yaml is missing: run from the repository root"):
        params.read(tmp_path / "params.yaml")


def test_an_unknown_model_is_refused_with_the_known_ones(read):
    with pytest.raises(UserError, match="no model 'vit'.*vit_scratch, vit_transfer, mobilenet_transfer"):
        read().model("vit")


def test_the_recipes_in_the_comments_are_settings_of_their_model(read):
    lines = SHIPPED.read_text().splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("    # Recipe for ")]
    assert len(starts) >= 2
    for start in starts:
        model = next(line for line in reversed(lines[:start]) if re.match(r"  \w+:", line)).split(":")[0].strip()
        keys = [
            line.removeprefix("    #   ") for line in takewhile(lambda line: line[:8] == "    #   ", lines[start + 1 :])
        ]
        recipe = yaml.safe_load("\n".join(keys))
        shipped = read().model(model).model_dump()
        assert recipe.items() - shipped.items(), "it changes something"
        changed = read({f"models.{model}.{key}": value for key, value in recipe.items()}).model(model)
        assert changed.model_dump() == shipped | recipe
        assert lines[start].startswith(f"    # Recipe for {recipe['epochs']} epochs")
