"""The champion and those who would replace it: the gate at work in a real registry, racing processes, the way back."""

import errno
import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc import load_model, save_model

from stages.common.errors import UserError
from stages.inference import onnx_model
from stages.tracking import champion, registry
from stages.tracking.champion import Validation, roll_back
from stages.tracking.gate import Gate
from stages.tracking.registry import Comparison, Entry, Registration
from stages.tracking.store import Store

from .conftest import CLASSES, REFERENCE_SEED, answers, pictures, validation, with_about, with_metrics

NAME = "demo-classifier"
BETTER = Gate()
NO_IMAGES = pictures(0)


def _register(
    store: Store,
    *entries: Entry,
    gate: Gate = BETTER,
    val: Validation | None = None,
    train_images: np.ndarray = NO_IMAGES,
) -> Registration:
    return registry.register(
        store,
        "demo",
        NAME,
        entries,
        Comparison({Path(__file__).name: Path(__file__)}),
        train_images=train_images,
        val=val or validation(),
        gate=gate,
    )


def _aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(NAME).aliases.items()}


@pytest.fixture
def reference(make_entry: Callable[..., Entry]) -> Entry:
    """Right on four of five of the validation images, also when it is loaded from the registry and run."""
    entry = make_entry("old", val=0.8, seed=REFERENCE_SEED)
    return replace(entry, right=answers(REFERENCE_SEED))


def test_a_better_model_takes_over_and_the_numbers_are_told_everywhere(
    store: Store, client: MlflowClient, reference: Entry, make_entry: Callable[..., Entry]
) -> None:
    first = _register(store, reference)
    second = _register(store, make_entry("new", val=0.9), make_entry("third", val=0.3, seed=3))
    old, new = first.versions["old"], second.versions["new"]
    assert _aliases(client) == {
        "old": old,
        "new": new,
        "third": second.versions["third"],
        "champion": new,
        "challenger": old,
    }
    reason = second.decision.reason
    assert reason.startswith(
        f"new is champion with 90.00% top-1 on val, before third (30.00%); it took over from old (version {old}): "
        "90.00% against 80.00% on the same 1,000 validation images, a difference of +10.00 points ("
    )
    assert reason.endswith("(gate: better)")
    version, former = client.get_model_version(NAME, new), client.get_model_version(NAME, old)
    assert version.tags["gate"] == reason
    for told in (version, former):
        assert told.description.endswith(f"**Gate:** {reason}")
        assert told.description.startswith(f"Image classifier `{told.tags['model']}`")
    assert former.tags["gate"] == "old is champion with 80.00% top-1 on val", "how it came to be champion"
    assert former.tags["demoted_at"] == version.tags["promoted_at"] > former.tags["promoted_at"]
    assert _register(store, make_entry("new", val=0.9), make_entry("third", val=0.3, seed=3)) == second


def test_a_worse_candidate_is_challenger_and_told_why(
    store: Store, client: MlflowClient, reference: Entry, make_entry: Callable[..., Entry]
) -> None:
    old = _register(store, reference).versions["old"]
    second = _register(store, make_entry("new", val=0.7))
    new = second.versions["new"]
    assert _aliases(client) == {"old": old, "new": new, "champion": old, "challenger": new}
    assert second.decision.model == "old"
    assert second.decision.weights_sha256 == reference.package.metadata["weights_sha256"]
    assert second.decision.reason.startswith(
        f"old (version {old}) stays champion; new (version {new}), the best of new (70.00%), is challenger: 70.00% "
        "against 80.00% on the same 1,000 validation images, a difference of -10.00 points ("
    )
    assert client.get_model_version(NAME, new).tags["gate"] == second.decision.reason
    assert "promoted_at" not in client.get_model_version(NAME, new).tags


def test_the_gate_significant_asks_for_a_small_p_value(
    store: Store, client: MlflowClient, reference: Entry, make_entry: Callable[..., Entry]
) -> None:
    old = _register(store, reference).versions["old"]
    right = reference.right.copy()
    right[:10] = True  # 2 of them were wrong
    candidate = replace(make_entry("new", val=0.802), right=right)
    refused = _register(store, candidate, gate=Gate("significant"))
    assert refused.decision.champion == old
    assert "McNemar's exact p = 0.5 (gate: significant at 0.05)" in refused.decision.reason
    assert _register(store, candidate, gate=Gate("better")).decision.model == "new"


def test_a_comparison_that_was_made_needs_no_second_look_at_the_champion(
    store: Store, reference: Entry, make_entry: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(store, reference)
    first = _register(store, make_entry("new", val=0.7))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was loaded again")

    monkeypatch.setattr(champion, "load_model", refuse)
    assert _register(store, make_entry("new", val=0.7)) == first


def test_a_champion_among_the_registered_models_is_not_loaded(
    store: Store, reference: Entry, make_entry: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champion, "load_model", None)
    _register(store, reference)
    assert _register(store, reference, make_entry("new", val=0.9)).decision.model == "new"


def test_the_same_weights_packaged_anew_take_over_unless_they_answer_worse(
    store: Store, reference: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(store, reference)
    second = _register(store, with_about(reference, temperature=1.5))
    assert second.decision.champion == second.versions["old"] == "2"
    assert "old (version 1): the same weights packaged anew, 80.00% against 80.00%" in second.decision.reason
    monkeypatch.setattr(onnx_model, "FORMAT", 3)
    assert _register(store, reference).decision.champion == "3"
    worse = replace(with_about(reference, temperature=2.5), right=reference.right & (np.arange(1000) > 100))
    assert _register(store, worse).decision.champion == "3"


@pytest.mark.parametrize(("known", "images_left"), [(300, 700), (501, 499)])
def test_where_the_splits_differ_only_images_new_to_the_champion_count(
    store: Store,
    client: MlflowClient,
    reference: Entry,
    make_entry: Callable[..., Entry],
    known: int,
    images_left: int,
) -> None:
    present = replace(validation(), data_sha256="e" * 64)
    former = replace(present, data_sha256="d" * 64)
    _register(store, reference, val=former, train_images=present.images[:known])
    candidate = with_about(make_entry("new", val=0.95), data_sha256="e" * 64)
    decision = _register(store, candidate, val=present).decision
    if images_left == 700:
        assert decision.model == "new"
        assert "92.86% against 80.00% on the same 700 validation images" in decision.reason
    else:
        assert decision.model == "old"
        assert "499 of the 1,000 validation images are new to it, at least 500 are needed" in decision.reason
        assert _aliases(client)["challenger"] == "2"
        assert _register(store, candidate, val=present, gate=Gate("always")).decision.model == "new"


@pytest.mark.parametrize("lost", ["training_pictures.npy", "classes"])
def test_what_cannot_be_compared_does_not_replace_the_champion(
    store: Store, root: Path, reference: Entry, make_entry: Callable[..., Entry], lost: str
) -> None:
    _register(store, reference)
    candidate, present = make_entry("new", val=0.9), validation()
    if lost == "classes":
        present = replace(present, class_names=[*CLASSES[:2], "dog"])
        expected = "it has other classes"
    else:
        candidate, present = with_about(candidate, data_sha256="e" * 64), replace(present, data_sha256="e" * 64)
        [file] = (root / "mlartifacts").rglob(lost)
        file.unlink()
        expected = "its data were others, and it does not say which"
    decision = _register(store, candidate, val=present).decision
    assert decision.model == "old"
    assert expected in decision.reason


@pytest.mark.parametrize("damage", ["weights", "all"])
def test_a_champion_that_does_not_work_is_replaced_by_a_worse_model_that_does(
    store: Store, root: Path, client: MlflowClient, reference: Entry, make_entry: Callable[..., Entry], damage: str
) -> None:
    _register(store, reference)
    if damage == "all":
        shutil.rmtree(root / "mlartifacts")
    else:
        [file] = (root / "mlartifacts").rglob("model.onnx")
        file.write_bytes(b"\xff" * 100)
    decision = _register(store, make_entry("new", val=0.1)).decision
    assert decision.model == "new"
    assert "it took over from old (version 1), which does not work: " in decision.reason
    assert "challenger" not in _aliases(client)


def test_a_champion_of_an_earlier_release_is_replaced_and_none_of_its_code_runs(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    (tmp_path / "code.py").write_text(
        "from mlflow.models import set_model\nset_model(lambda model_input: model_input)\n"
    )
    save_model(
        tmp_path / "package",
        python_model=str(tmp_path / "code.py"),
        pip_requirements=["mlflow"],
        metadata={"class_names": CLASSES, "data_sha256": "d" * 64, "code_sha256": "c" * 64},
    )
    (tmp_path / "package" / "code.py").write_text("raise SystemExit('this code must not run')\n")
    client.create_registered_model(NAME)
    tags = {"model": "old", "weights_sha256": "w" * 64, "code_sha256": "c" * 64, "package_sha256": "p" * 64}
    client.create_model_version(NAME, (tmp_path / "package").as_uri(), tags=tags, description="old is champion")
    client.set_registered_model_alias(NAME, "champion", "1")
    decision = _register(store, make_entry("new", val=0.3)).decision
    assert "it took over from old (version 1), which does not work" in decision.reason
    assert "registered by another release of this project" in decision.reason
    assert _aliases(client)["champion"] == decision.champion != "1"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("list_logged_model_artifacts", MlflowException("503 Service Unavailable", TEMPORARILY_UNAVAILABLE)),
        ("download_artifacts", ConnectionError("connection reset by peer")),
        ("download_artifacts", OSError(errno.ENOSPC, "No space left on device")),
        ("load_model", ImportError("No module named 'torch'")),
        ("load_model", MemoryError()),
        ("load_model", ValueError("model.onnx is no ONNX model (failed to map segment from shared object)")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_champion_that_cannot_be_loaded_now_stays_champion(
    store: Store,
    client: MlflowClient,
    reference: Entry,
    make_entry: Callable[..., Entry],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: Exception,
) -> None:
    _register(store, reference)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as blip:
        blip.setattr(champion if hasattr(champion, call) else MlflowClient, call, fail)
        with pytest.raises(UserError, match=r"old \(version 1\) could not be loaded .*: fix the cause and rerun"):
            _register(store, make_entry("new", val=0.1))
    assert _aliases(client)["champion"] == "1"
    assert "demoted_at" not in client.get_model_version(NAME, "1").tags
    assert _register(store, make_entry("new", val=0.1)).decision.model == "old"


def test_a_store_that_is_busy_is_no_reason_to_log_a_model_again_or_to_pass_over_it(
    store: Store,
    client: MlflowClient,
    reference: Entry,
    make_entry: Callable[..., Entry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _register(store, reference)
    _register(store, make_entry("b", val=0.9, seed=2))
    _register(store, make_entry("c", val=0.95, seed=3), gate=Gate("always"))

    def busy(*_: object) -> None:
        raise MlflowException("503 Service Unavailable", TEMPORARILY_UNAVAILABLE)

    with monkeypatch.context() as blip:
        blip.setattr(MlflowClient, "list_logged_model_artifacts", busy)
        with pytest.raises(UserError, match=r"c \(version 3\) could not be loaded \(MlflowException: 503"):
            _register(store, make_entry("c", val=0.95, seed=3))
        with pytest.raises(UserError, match=r"b \(version 2\) could not be loaded"):
            roll_back(store, NAME)
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 3
    assert _aliases(client)["champion"] == "3"


def test_a_promotion_that_is_interrupted_keeps_the_way_back(
    store: Store,
    client: MlflowClient,
    reference: Entry,
    make_entry: Callable[..., Entry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _register(store, reference)
    set_alias = MlflowClient.set_registered_model_alias

    def interrupted(client: MlflowClient, name: str, alias: str, version: str) -> None:
        set_alias(client, name, alias, version)
        if alias == "champion":
            raise KeyboardInterrupt

    with monkeypatch.context() as power_cut:
        power_cut.setattr(MlflowClient, "set_registered_model_alias", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _register(store, make_entry("new", val=0.9))
    assert _aliases(client)["champion"] == "2"
    assert roll_back(store, NAME) == "old (version 1) is champion in place of new (version 2)"


def test_rolling_back_lasts_until_something_newer_is_registered(
    store: Store, client: MlflowClient, reference: Entry, make_entry: Callable[..., Entry]
) -> None:
    _register(store, reference)
    new = make_entry("new", val=0.9)
    _register(store, new)
    assert roll_back(store, NAME) == "old (version 1) is champion in place of new (version 2)"
    assert _aliases(client) == {"old": "1", "new": "2", "champion": "1"}
    former, present = client.get_model_version(NAME, "2"), client.get_model_version(NAME, "1")
    assert former.tags["rolled_back_at"] <= former.tags["demoted_at"] == present.tags["promoted_at"]
    assert present.tags["gate"].startswith("old (version 1) was made champion by hand on 2")
    for told in (present, former):
        assert told.description.endswith(f"**Gate:** {present.tags['gate']}")
    assert former.tags["gate"].startswith("new is champion with 90.00% top-1 on val; it took over from old (version 1)")

    again = _register(store, new)
    judged = client.get_model_version(NAME, "2")
    assert (judged.tags["gate"], judged.description) == (former.tags["gate"], former.description)
    assert (again.decision.champion, _aliases(client)["champion"]) == ("1", "1")
    assert "old (version 1) stays champion, made so by hand on 2" in again.decision.reason
    assert again.decision.reason.endswith("registered by then: new (90.00%)")
    assert _register(store, new, gate=Gate("always")).decision.champion == "1"

    newer = _register(store, new, make_entry("newer", val=0.85, seed=9)).decision
    assert (newer.model, newer.champion) == ("newer", "3"), "better than the champion, and nobody has judged it yet"
    assert "held back since a person chose: new" in newer.reason
    assert _register(store, new, make_entry("newer", val=0.85, seed=9)).decision == newer


def test_a_roll_back_can_be_taken_back_and_repeated(
    store: Store, client: MlflowClient, reference: Entry, make_entry: Callable[..., Entry]
) -> None:
    _register(store, reference)
    _register(store, make_entry("b", val=0.9, seed=2))
    _register(store, make_entry("c", val=0.95, seed=3), gate=Gate("always"))
    roll_back(store, NAME)
    assert _aliases(client)["champion"] == "2"
    roll_back(store, NAME, to="3")
    assert _aliases(client)["champion"] == "3"
    tags = client.get_model_version(NAME, "3").tags
    assert "rolled_back_at" not in tags
    [(since, until, rolled_back)] = json.loads(tags["earlier_reigns"])
    assert since < until < tags["promoted_at"]
    assert rolled_back
    assert "made champion by hand" in _register(store, make_entry("c", val=0.95, seed=3)).decision.reason
    roll_back(store, NAME, to="2")
    assert roll_back(store, NAME) == "old (version 1) is champion in place of b (version 2)"
    with pytest.raises(UserError, match="no version of demo-classifier was champion before: choose with --to one of c"):
        roll_back(store, NAME)


def test_a_package_that_was_rolled_back_stays_out_and_a_newer_one_comes_in(store: Store, reference: Entry) -> None:
    _register(store, reference)
    assert _register(store, with_about(reference, temperature=9.0)).decision.champion == "2"
    roll_back(store, NAME)
    assert _register(store, with_about(reference, temperature=9.0)).decision.champion == "1"
    assert _register(store, with_about(reference, temperature=1.5)).decision.champion == "3"


def test_rolling_back_names_what_is_wrong(store: Store, root: Path, reference: Entry) -> None:
    with pytest.raises(UserError, match="has no registered model demo-classifier: it has none"):
        roll_back(store, NAME)
    _register(store, reference)
    with pytest.raises(UserError, match=r"there is no version 7: choose one of old \(version 1\)"):
        roll_back(store, NAME, to="7")
    with pytest.raises(UserError, match=r"old \(version 1\) is champion already"):
        roll_back(store, NAME, to="1")


def test_rolling_back_takes_no_version_whose_artifacts_are_gone(
    store: Store, root: Path, client: MlflowClient, reference: Entry, make_entry: Callable[..., Entry]
) -> None:
    _register(store, reference)
    lost = dict.fromkeys((root / "mlartifacts").rglob("models/*"))
    _register(store, make_entry("new", val=0.9))
    for path in lost:
        shutil.rmtree(path)
    with pytest.raises(UserError, match="no version of demo-classifier was champion before"):
        roll_back(store, NAME)
    with pytest.raises(UserError, match=r"old \(version 1\) cannot be champion, its artifacts are"):
        roll_back(store, NAME, to="1")
    assert _aliases(client)["champion"] == "2"


@pytest.mark.slow
def test_two_processes_that_register_at_once_leave_one_champion_that_won(
    store: Store, root: Path, client: MlflowClient, reference: Entry, make_entry: Callable[..., Entry]
) -> None:
    weak, rival = (replace(make_entry(model, seed=seed), right=answers(seed)) for model, seed in (("a", 3), ("b", 4)))
    _register(store, with_metrics(weak, val={"top1": float(weak.right.mean())}))
    rival = with_metrics(rival, val={"top1": float(rival.right.mean())})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        done = pool.starmap(_register_in_process, [(root, rival), (root, reference)], chunksize=1)
    assert set(done) == {"2", "3"}
    aliases = _aliases(client)
    assert aliases["champion"] == aliases["old"], "whoever came first"
    winner = client.get_model_version(NAME, aliases["champion"])
    beaten = client.get_model_version(NAME, aliases["challenger"])
    assert "80.00%" in winner.tags["gate"]
    assert winner.description.endswith(f"**Gate:** {winner.tags['gate']}")
    assert f"{beaten.tags['model']} (version {beaten.version})" in beaten.description
    versions = client.search_model_versions(f"name = '{NAME}'")
    champions = [v for v in versions if "promoted_at" in v.tags and "demoted_at" not in v.tags]
    assert [v.version for v in champions] == [winner.version]


@pytest.mark.slow
def test_a_deleted_database_is_filled_again_beside_the_old_artifacts(root: Path, reference: Entry) -> None:
    # In a process of its own: MLflow keeps a database open.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.starmap(_register_in_process, [(root, reference)])
    for file in root.glob("mlflow.db*"):
        file.unlink()
    store = Store.of_repository(root)
    assert _register(store, reference).decision.champion == "1"
    with store.as_default():
        assert load_model(f"models:/{NAME}@champion").predict(pictures(1)).shape == (1, 3)
    [run] = store.client().search_runs([store.experiment(store.client(), "demo")], "tags.replayed = 'true'")
    assert run.data.metrics["val/top1"] == 0.8


def _register_in_process(root: Path, entry: Entry) -> str:
    return _register(Store.of_repository(root), entry).versions[entry.model]
