"""params.yaml: what is accepted, and what a mistake is told."""

import re
from itertools import takewhile

import pytest
import yaml

from stages.common.errors import UserError
from stages.models import params

from .changed_params import REMOVED, SHIPPED, changed_params


@pytest.fixture
def read(tmp_path):
    """Read the shipped params.yaml with some keys changed: read({"models.vit_scratch.depth": 2})."""

    def read(changes=None):
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(changed_params(changes or {})))
        return params.read(file)

    return read


def test_what_may_be_changed(read):
    shipped = read()
    assert shipped.data.origin == shipped.data.url
    assert shipped.length("vit_scratch") == {"epochs": shipped.budget.epochs} == {"epochs": 1}
    wide = shipped.model("vit_scratch").model_dump() | {"embed_dim": 384, "num_heads": 6, "muon_lr": "2e-3"}
    changed = read(
        {
            "data.source": "demo",
            "budget.epochs": None,
            "budget.minutes": 4,
            "budget.seeds": 3,
            "seed": 5,
            "models.mobilenet_transfer.finetune": "head",
            "models.mobilenet_transfer.epochs": 7,
            "models.vit_transfer.epochs": 5,
            "models.vit_wide": wide,  # of the same classifier
            "export.int8": {"vit_transfer": "static"},
            "export.serve": "int8",
        }
    )
    assert changed.data.origin.endswith("demo.py")
    assert (SHIPPED.parent / changed.data.origin).is_file()
    assert changed.length("vit_transfer") == {"epochs": 5}
    assert changed.length("vit_scratch") == {"minutes": 4.0}
    assert changed.length("mobilenet_transfer") == {"epochs": 1}, "a head is fitted in one pass"
    assert list(changed.seeds) == [5, 6, 7]
    assert changed.model("vit_wide").embed_dim == 384
    assert changed.model("vit_wide").muon_lr == 0.002  # for YAML 1.1 a text
    assert changed.export.int8.get("vit_scratch") is None


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data.val_fracton": 0.2}, ["data.val_fracton is not a known key"]),
        ({"models.vit_scratch.depth": REMOVED}, ["models.vit_scratch.depth is missing"]),
        ({"budget.train_fraction": 0}, ["budget.train_fraction = 0", "greater than 0"]),
        ({"budget.epochs": "many"}, ["budget.epochs = 'many'", "valid integer"]),
        ({"budget.epochs": True}, ["budget.epochs = True", "valid integer"]),
        (
            {"budget.minutes": 4},
            ["budget: one of epochs, images and minutes", "epochs = 1, images = None, minutes = 4"],
        ),
        ({"budget.epochs": None}, ["budget: one of", "not epochs = None, images = None, minutes = None"]),
        ({"budget.epochs": None, "budget.minutes": 0}, ["budget.minutes = 0", "greater than 0"]),
        ({"seed": 2**32 - 2, "budget.seeds": 3}, ["seed = 4294967294 and budget.seeds = 3"]),
        ({"seed": 2**32}, ["seed = 4294967296", "less than 4294967296"]),
        ({"data.sha256": "abc"}, ["data.sha256 = 'abc'", "should match"]),
        ({"export.int8.resnet": "static"}, ["export.int8 names resnet", "vit_scratch, vit_transfer"]),
        ({"export.int8": None}, ["export.int8 = None", "dictionary"]),
        ({"export.serve": "int8"}, ["export.serve = 'int8'", "set a model there to static"]),
        ({"models.vit_scratch.label_smoothing": True}, ["models.vit_scratch.label_smoothing = True", "number"]),
        ({"models.vit_scratch.muon_lr": float("nan")}, ["models.vit_scratch.muon_lr = nan"]),
        ({"models.vit_scratch.num_heads": 5}, ["embed_dim = 192 must be a multiple of num_heads = 5"]),
        ({"models.vit_scratch.classifier": "resnet"}, ["models.vit_scratch: ", "one of", "not 'resnet'"]),
        ({"models.vit_scratch": 3}, ["models.vit_scratch = 3", "a key `classifier`, one of mobilenet_transfer"]),
        ({"models": {}}, ["models: ", "at least 1"]),
        ({"models": 3}, ["models = 3", "dictionary"]),
        # All mistakes at once.
        (
            {"seed": -1, "models.vit_scratch.depth": 0, "models.vit_transfer.finetune": "tail"},
            ["seed = -1", "models.vit_scratch.depth = 0", "models.vit_transfer.finetune = 'tail'"],
        ),
    ],
)
def test_a_mistake_is_one_line_with_key_value_and_what_is_allowed(read, changes, parts):
    with pytest.raises(UserError) as caught:
        read(changes)
    message = str(caught.value)
    assert "\n" not in message
    for part in ["params.yaml", *parts]:
        assert part in message


@pytest.mark.parametrize("name", ["latest", "v1", "V12", "Champion", "challenger", "my model", "a/b", "é", "", 7.5])
def test_a_name_that_cannot_be_a_stage_a_folder_and_an_alias_is_refused(read, name):
    models = yaml.safe_load(SHIPPED.read_text())["models"]
    with pytest.raises(UserError, match=re.escape(f"models.{name} = {name!r}: ")):
        read({"models": models | {name: models["vit_scratch"]}})


@pytest.mark.parametrize("content", [None, "a: [1", "", "- 1\n", "\xff"])
def test_a_file_that_is_missing_or_no_mapping_is_refused(tmp_path, content):
    file = tmp_path / "params.yaml"
    if content is not None:
        file.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"^[^\n]*params\.yaml[^\n]*$"):
        params.read(file)


def test_a_stage_for_one_model_refuses_another_name(monkeypatch):
    monkeypatch.chdir(SHIPPED.parent)
    monkeypatch.setattr("sys.argv", ["predict", "vit_scratch"])
    assert params.read_for_model("")[0] == "vit_scratch"
    monkeypatch.setattr("sys.argv", ["predict", "vit"])
    with pytest.raises(UserError, match="no model 'vit'.*vit_scratch, vit_transfer, mobilenet_transfer"):
        params.read_for_model("")


def test_the_recipes_in_the_comments_are_settings_of_their_model(read):
    lines = SHIPPED.read_text().splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("    # Recipe for ")]
    assert len(starts) >= 2
    for start in starts:
        model = next(line for line in reversed(lines[:start]) if re.match(r"  \w+:", line)).split(":")[0].strip()
        keys = takewhile(lambda line: line.startswith("    #   "), lines[start + 1 :])
        recipe = yaml.safe_load("\n".join(line.removeprefix("    #   ") for line in keys))
        shipped = read().model(model).model_dump()
        assert recipe.items() - shipped.items(), "it changes something"
        changed = read({f"models.{model}.{key}": value for key, value in recipe.items()}).model(model)
        assert changed.model_dump() == shipped | recipe
        assert lines[start].startswith(f"    # Recipe for {recipe['epochs']} epochs")
