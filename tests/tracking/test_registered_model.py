"""The champion and those who would replace it: the gate at work in a real registry, racing processes, the way back."""

import errno
import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc import load_model, save_model

from stages.common.errors import UserError
from stages.inference import onnx_model
from stages.tracking import registered_model, registry
from stages.tracking.gate import Gate
from stages.tracking.registered_model import HISTORY_LENGTH, Decision, Promotion, RegisteredModel, Validation
from stages.tracking.registry import Entry
from stages.tracking.store import Store

from .conftest import CLASSES, REFERENCE_SEED, answers, random_images, validation, with_about, with_metrics

NAME = "demo-classifier"
BETTER = Gate()
NO_IMAGES = random_images(0)
MakeEntry = Callable[..., Entry]


def _register(
    store: Store,
    *entries: Entry,
    gate: Gate = BETTER,
    val: Validation | None = None,
    train_images: np.ndarray = NO_IMAGES,
) -> Decision:
    files = {Path(__file__).name: Path(__file__)}
    val = val or validation()
    return registry.register(store, "demo", NAME, entries, files, train_images=train_images, val=val, gate=gate)


def _roll_back(store: Store, to: str | None = None) -> str:
    with store.exclusive() as client:
        return RegisteredModel(client, NAME).roll_back(to)


def _aliases(client: MlflowClient) -> dict[str, str]:
    return RegisteredModel(client, NAME).aliases


def _history(client: MlflowClient) -> list[tuple[str, str]]:
    """The tag, as the app reads it: versions, and who made them champion."""
    history = json.loads(client.get_registered_model(NAME).tags["champion_history"])
    assert [entry["since"] for entry in history] == sorted(entry["since"] for entry in history)
    return [(entry["version"], entry["by"]) for entry in history]


@pytest.fixture
def reference(make_entry: MakeEntry) -> Entry:
    """Right on four of five of the validation images, also when it is loaded from the registry and run."""
    return replace(make_entry("old", val=0.8, seed=REFERENCE_SEED), right=answers(REFERENCE_SEED))


def test_a_better_model_takes_over(
    store: Store, client: MlflowClient, reference: Entry, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _register(store, reference)
    new, third = make_entry("new", val=0.9), make_entry("third", val=0.3, seed=3)
    second = _register(store, new, third)
    assert _aliases(client) == {"old": "1", "new": "2", "third": "3", "champion": "2", "challenger": "1"}
    reason = second.reason
    assert reason.startswith(
        "new is champion with 90.00% top-1 on val, before third (30.00%); it took over from old (version 1): 90.00% "
        "against 80.00% on the same 1,000 validation images, a difference of +10.00 points ("
    )
    assert reason.endswith("(gate: better)")
    decisions = [client.get_model_version(NAME, number).tags["decision"] for number in "123"]
    assert decisions == [first.reason, reason, reason]
    assert _history(client) == [("1", "gate"), ("2", "gate")]
    assert _register(store, new, third) == second
    # The champion stands among the models registered: nothing is loaded to compare it.
    monkeypatch.setattr(registered_model, "load_model", None)
    better = _register(store, new, make_entry("fourth", val=0.95, seed=4))
    assert better.model == "fourth"


def test_a_worse_candidate_is_challenger(
    store: Store, client: MlflowClient, reference: Entry, make_entry: MakeEntry
) -> None:
    _register(store, reference)
    decision = _register(store, make_entry("new", val=0.7))
    assert _aliases(client) == {"old": "1", "new": "2", "champion": "1", "challenger": "2"}
    assert (decision.model, decision.weights_sha256) == ("old", reference.package.metadata["weights_sha256"])
    assert decision.reason.startswith(
        "old (version 1) stays champion; new (version 2), the best of new (70.00%), is challenger: 70.00% against "
        "80.00% on the same 1,000 validation images, a difference of -10.00 points ("
    )
    assert client.get_model_version(NAME, "2").tags["decision"] == decision.reason
    assert client.get_model_version(NAME, "1").tags["decision"] == "old is champion with 80.00% top-1 on val"
    assert _history(client) == [("1", "gate")]


def test_the_gate_significant_asks_for_a_small_p_value(store: Store, reference: Entry, make_entry: MakeEntry) -> None:
    _register(store, reference)
    right = reference.right.copy()
    right[:10] = True  # 2 of them were wrong
    candidate = replace(make_entry("new", val=0.802), right=right)
    refused = _register(store, candidate, gate=Gate("significant"))
    assert refused.champion == "1"
    assert "McNemar's exact p = 0.5 (gate: significant at 0.05)" in refused.reason
    assert _register(store, candidate, gate=Gate("better")).model == "new"


def test_the_same_weights_packaged_anew_take_over_unless_their_predictions_are_worse(
    store: Store, reference: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(store, reference)
    second = _register(store, with_about(reference, temperature=1.5))
    assert second.champion == "2"
    assert "old (version 1): the same weights packaged anew, 80.00% against 80.00%" in second.reason
    worse = replace(with_about(reference, temperature=2.5), right=reference.right & (np.arange(1000) > 100))
    assert _register(store, worse).champion == "2"
    monkeypatch.setattr(onnx_model, "FORMAT", 3)
    assert _register(store, reference).champion == "4"


@pytest.mark.parametrize(("known", "images_left"), [(300, 700), (501, 499)])
def test_where_the_data_differ_only_images_new_to_the_champion_count(
    store: Store, client: MlflowClient, reference: Entry, make_entry: MakeEntry, known: int, images_left: int
) -> None:
    present = replace(validation(), data_sha256="e" * 64)
    _register(store, reference, train_images=present.images[:known])
    candidate = with_about(make_entry("new", val=0.95), data_sha256="e" * 64)
    decision = _register(store, candidate, val=present)
    if images_left == 700:
        assert decision.model == "new"
        assert "92.86% against 80.00% on the same 700 validation images" in decision.reason
    else:
        assert decision.model == "old"
        assert "499 of the 1,000 validation images are new to it, at least 500 are needed" in decision.reason
        assert _aliases(client)["challenger"] == "2"
        assert _register(store, candidate, val=present, gate=Gate("always")).model == "new"


def test_other_classes_do_not_replace_the_champion(store: Store, reference: Entry, make_entry: MakeEntry) -> None:
    _register(store, reference)
    val = replace(validation(), class_names=[*CLASSES[:2], "dog"])
    decision = _register(store, make_entry("new", val=0.9), val=val)
    assert decision.model == "old"
    assert "the champion has other classes" in decision.reason


@pytest.mark.parametrize("damage", ["model.onnx", "training_pictures.npy", "all", "logged model"])
def test_a_champion_that_does_not_work_is_replaced_by_a_worse_model_that_does(
    store: Store, root: Path, client: MlflowClient, reference: Entry, make_entry: MakeEntry, damage: str
) -> None:
    _register(store, reference)
    if damage == "logged model":
        client.delete_logged_model(client.get_model_version(NAME, "1").source.removeprefix("models:/"))
    elif damage == "all":
        shutil.rmtree(root / "mlartifacts")
    else:
        [file] = (root / "mlartifacts").rglob(f"artifacts/**/{damage}")
        file.write_bytes(b"\xff" * 100)
    decision = _register(store, make_entry("new", val=0.1))
    assert decision.model == "new"
    assert "it took over from old (version 1): it does not work, its artifacts" in decision.reason
    assert "challenger" not in _aliases(client)
    with pytest.raises(UserError, match="no version of demo-classifier was champion before"):
        _roll_back(store)
    with pytest.raises(UserError, match=r"old \(version 1\) cannot be champion, its artifacts .* \(version 1\)$"):
        _roll_back(store, to="1")
    assert _aliases(client)["champion"] == "2"


def test_a_champion_of_an_earlier_format_is_replaced_and_none_of_its_code_runs(
    store: Store, client: MlflowClient, make_entry: MakeEntry, tmp_path: Path
) -> None:
    package, code = tmp_path / "package", "from mlflow.models import set_model\nset_model(lambda model_input: 1)\n"
    (tmp_path / "code.py").write_text(code)
    metadata = {"class_names": CLASSES, "data_sha256": "d" * 64, "code_sha256": "c" * 64}
    save_model(package, python_model=str(tmp_path / "code.py"), pip_requirements=["mlflow"], metadata=metadata)
    (package / "code.py").write_text("raise SystemExit('this code must not run')\n")
    client.create_registered_model(NAME)
    client.create_model_version(NAME, package.as_uri(), tags={"model": "old", "package_sha256": "p" * 64})
    client.set_registered_model_alias(NAME, "champion", "1")
    decision = _register(store, make_entry("new", val=0.3))
    assert "from old (version 1): it does not work, it was registered by another release" in decision.reason
    assert _aliases(client)["champion"] == decision.champion == "2"
    assert _history(client) == [("1", "gate"), ("2", "gate")]


@pytest.mark.parametrize("was_chosen", [False, True])
def test_a_store_of_the_release_before_keeps_its_champion_and_a_persons_choice(
    store: Store, client: MlflowClient, reference: Entry, make_entry: MakeEntry, was_chosen: bool
) -> None:
    new = make_entry("new", val=0.9)
    _register(store, reference)
    _register(store, new)
    chosen = client.get_model_version(NAME, "2").creation_timestamp + 1
    client.delete_registered_model_tag(NAME, "champion_history")
    for version in ("1", "2"):
        client.delete_model_version_tag(NAME, version, "decision")
        client.set_model_version_tag(NAME, version, "promoted_at", "2026-01-02T00:00:00.000+00:00")
    if was_chosen:
        client.set_registered_model_alias(NAME, "champion", "1")
        client.set_registered_model_tag(NAME, "champion_chosen_at", registered_model.to_iso(chosen))
        client.set_registered_model_tag(NAME, "champion_chosen_among", "2")
    decision = _register(store, new)
    assert decision.champion == ("1" if was_chosen else "2")
    assert _history(client) == ([("1", "hand")] if was_chosen else [("2", "gate")])
    assert _register(store, make_entry("newer", val=0.95, seed=5)).champion == "3"
    assert _roll_back(store).startswith(f"{'old' if was_chosen else 'new'} (version {decision.champion}) is champion")


def _fail_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("download_artifacts", MlflowException("503 Service Unavailable", TEMPORARILY_UNAVAILABLE)),
        ("download_artifacts", OSError(errno.ENOSPC, "No space left on device")),
        ("load_model", MemoryError()),
        ("load_model", ValueError("model.onnx is no ONNX model (failed to map segment from shared object)")),
    ],
)
def test_a_champion_that_cannot_be_loaded_now_stays_champion(
    store: Store,
    client: MlflowClient,
    reference: Entry,
    make_entry: MakeEntry,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: Exception,
) -> None:
    _register(store, reference)
    with monkeypatch.context() as blip:
        blip.setattr(registered_model, call, _fail_with(error))
        with pytest.raises(UserError, match=r"old \(version 1\) could not be loaded .*: fix the cause and rerun"):
            _register(store, make_entry("new", val=0.1))
    assert (_aliases(client)["champion"], _history(client)) == ("1", [("1", "gate")])
    assert _register(store, make_entry("new", val=0.1)).model == "old"


def test_a_store_that_is_busy_is_no_reason_to_log_a_model_again_or_to_pass_over_it(
    store: Store, client: MlflowClient, reference: Entry, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(store, reference)
    new = make_entry("new", val=0.9)
    _register(store, new)
    busy = _fail_with(MlflowException("503 Service Unavailable", TEMPORARILY_UNAVAILABLE))
    with monkeypatch.context() as blip:
        blip.setattr(registered_model, "download_artifacts", busy)
        with pytest.raises(UserError, match=r"new \(version 2\) could not be loaded \(MlflowException: 503"):
            _register(store, new)
        with pytest.raises(UserError, match=r"old \(version 1\) could not be loaded"):
            _roll_back(store)
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 2
    assert _aliases(client)["champion"] == "2"


@pytest.mark.parametrize("call", ["set_model_version_tag", "set_registered_model_tag", "set_registered_model_alias"])
@pytest.mark.parametrize("is_done", [False, True])
def test_a_promotion_that_is_killed_at_any_step_is_completed_by_the_next_registration(
    store: Store,
    client: MlflowClient,
    reference: Entry,
    make_entry: MakeEntry,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    is_done: bool,
) -> None:
    _register(store, reference)
    new = make_entry("new", val=0.9)
    function = getattr(MlflowClient, call)

    def killed(client: MlflowClient, name: str, key: str, *values: str) -> None:
        is_promotion = {"decision", "champion_history", "champion"} & {key, *values}
        if is_done or not is_promotion:
            function(client, name, key, *values)
        if is_promotion:
            raise KeyboardInterrupt

    with monkeypatch.context() as power_cut:
        power_cut.setattr(MlflowClient, call, killed)
        with pytest.raises(KeyboardInterrupt):
            _register(store, new)
    is_promoted = is_done and call == "set_registered_model_alias"
    versions = [promotion.version for promotion in RegisteredModel(client, NAME).history()]
    assert versions == (["1", "2"] if is_promoted else ["1"]), "as the alias says"
    assert _register(store, new).reason.startswith("new is champion with 90.00% top-1 on val; it took over")
    assert _aliases(client) == {"old": "1", "new": "2", "champion": "2", "challenger": "1"}
    assert _history(client) == [("1", "gate"), ("2", "gate")]
    assert _roll_back(store) == "old (version 1) is champion in place of new (version 2)"


def test_a_roll_back_stands_until_something_newer_is_registered(
    store: Store, client: MlflowClient, reference: Entry, make_entry: MakeEntry
) -> None:
    _register(store, reference)
    new, newer = make_entry("new", val=0.9), make_entry("newer", val=0.85, seed=9)
    _register(store, new)
    before = client.get_model_version(NAME, "2").tags["decision"]
    assert _roll_back(store) == "old (version 1) is champion in place of new (version 2)"
    assert _aliases(client) == {"old": "1", "new": "2", "champion": "1"}
    assert _history(client) == [("1", "gate"), ("2", "gate"), ("1", "hand")]
    assert client.get_model_version(NAME, "1").tags["decision"].startswith("old (version 1) was made champion by hand")

    again = _register(store, new)
    assert (again.champion, _aliases(client)["champion"]) == ("1", "1")
    assert again.reason.startswith("old (version 1) stays champion, made so by hand on 2")
    assert again.reason.endswith("registered by then: new (90.00%)")
    assert _register(store, new, gate=Gate("always")).champion == "1"
    assert client.get_model_version(NAME, "2").tags["decision"] == before, "how it came to be champion"

    passed = _register(store, new, newer)
    assert (passed.model, passed.champion) == ("newer", "3"), "better than the champion, and nobody has judged it yet"
    assert "held back since a person chose: new" in passed.reason
    assert _register(store, new, newer) == passed


def test_a_roll_back_can_be_taken_back_and_repeated(
    store: Store, client: MlflowClient, reference: Entry, make_entry: MakeEntry
) -> None:
    _register(store, reference)
    c = make_entry("c", val=0.95, seed=3)
    _register(store, make_entry("b", val=0.9, seed=2))
    _register(store, c, gate=Gate("always"))
    assert _roll_back(store).startswith("b (version 2)")
    assert _roll_back(store, to="3").startswith("c (version 3)")
    assert "made champion by hand" in _register(store, c).reason
    _roll_back(store, to="2")
    assert _roll_back(store) == "old (version 1) is champion in place of b (version 2)"
    by_hand = [("2", "hand"), ("3", "hand"), ("2", "hand"), ("1", "hand")]
    assert _history(client) == [("1", "gate"), ("2", "gate"), ("3", "gate"), *by_hand]
    with pytest.raises(UserError, match="no version of demo-classifier was champion before: choose with --to one of c"):
        _roll_back(store)


def test_a_package_that_was_rolled_back_stays_out_and_a_newer_one_comes_in(store: Store, reference: Entry) -> None:
    _register(store, reference)
    assert _register(store, with_about(reference, temperature=9.0)).champion == "2"
    _roll_back(store)
    assert _register(store, with_about(reference, temperature=9.0)).champion == "1"
    assert _register(store, with_about(reference, temperature=1.5)).champion == "3"


def test_rolling_back_names_what_is_wrong(store: Store, reference: Entry) -> None:
    with pytest.raises(
        UserError, match="no version of a registered model demo-classifier: the tracking store has none"
    ):
        _roll_back(store)
    _register(store, reference)
    with pytest.raises(UserError, match=r"there is no version 7: choose with --to one of old \(version 1\)"):
        _roll_back(store, to="7")
    with pytest.raises(UserError, match=r"old \(version 1\) is champion already"):
        _roll_back(store, to="1")


def test_the_history_keeps_the_newest_and_fits_into_a_tag(store: Store, client: MlflowClient, reference: Entry) -> None:
    _register(store, reference)
    registered = RegisteredModel(client, NAME)
    registered._promote(Promotion("1", "2026-11-25T16:26:48.123+00:00", "hand"))
    for second in range(2 * HISTORY_LENGTH):
        registered._promote(Promotion("1", f"2026-11-25T16:{second // 60 + 30}:{second % 60:02}.123+00:00", "hand"))
    assert len(_history(client)) == HISTORY_LENGTH
    assert registered.history()[-1].since == "2026-11-25T16:31:39.123+00:00"
    assert len(client.get_registered_model(NAME).tags["champion_history"]) + 5 * HISTORY_LENGTH < 5000


@pytest.mark.slow
def test_two_processes_that_register_at_once_leave_one_champion_that_won(
    store: Store, root: Path, client: MlflowClient, reference: Entry, make_entry: MakeEntry
) -> None:
    weak, rival = (replace(make_entry(model, seed=seed), right=answers(seed)) for model, seed in (("a", 3), ("b", 4)))
    _register(store, with_metrics(weak, val={"top1": float(weak.right.mean())}))
    rival = with_metrics(rival, val={"top1": float(rival.right.mean())})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        done = pool.starmap(_register_in_process, [(root, rival), (root, reference)], chunksize=1)
    assert set(done) == {"2", "3"}
    aliases = _aliases(client)
    assert aliases["champion"] == aliases["old"], "whoever came first"
    assert "80.00%" in client.get_model_version(NAME, aliases["champion"]).tags["decision"]
    assert _history(client)[0] == ("1", "gate")
    assert _history(client)[-1] == (aliases["champion"], "gate")


@pytest.mark.slow
def test_a_deleted_database_is_filled_again_beside_the_old_artifacts(root: Path, reference: Entry) -> None:
    # In a process of its own: MLflow keeps a database open.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.starmap(_register_in_process, [(root, reference)])
    for file in root.glob("mlflow.db*"):
        file.unlink()
    store = Store.of_repository(root)
    assert _register(store, reference).champion == "1"
    with store.exclusive() as client:
        assert load_model(f"models:/{NAME}@champion").predict(random_images(1)).shape == (1, 3)
        [run] = client.search_runs([store.experiment(client, "demo")], "tags.replayed = 'true'")
    assert run.data.metrics["val/top1"] == 0.8


def _register_in_process(root: Path, entry: Entry) -> str:
    _register(Store.of_repository(root), entry)
    return _aliases(Store.of_repository(root).client())[entry.package.exported.model]
