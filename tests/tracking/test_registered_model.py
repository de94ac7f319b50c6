"""The champion and those who would replace it: the gate at work in a real registry, racing processes, the way back."""

import errno
import multiprocessing
import shutil
from dataclasses import replace

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc import save_model

from stages.common.errors import UserError
from stages.inference import onnx_model
from stages.tracking import registered_model
from stages.tracking.gate import Gate
from stages.tracking.package import image_hashes
from stages.tracking.registered_model import HISTORY_LENGTH, Promotion, RegisteredModel
from stages.tracking.store import Store

from .conftest import CLASSES, DemoModel, gate_split, with_about

NAME = DemoModel.name


def test_a_better_model_takes_over(demo, monkeypatch):
    first = demo.register(demo.reference)
    new, third = demo.entry("new", val=0.9), demo.entry("third", val=0.3, seed=3)
    loaded = []
    with monkeypatch.context() as counted:
        counted.setattr(registered_model, "download_artifacts", _noting(loaded, registered_model.download_artifacts))
        second = demo.register(new, third)
    assert loaded == [f"models:/{NAME}/1"], "the champion, once"
    assert demo.aliases == {"old": "1", "new": "2", "third": "3", "champion": "2", "challenger": "1"}
    reason = second.reason
    assert reason.startswith(
        "new is champion with 90.00% top-1 on val, before third (30.00%); it took over from old (version 1): 90.00% "
        "against 80.00% on the same 1,000 gate images, a difference of +10.00 points ("
    )
    assert reason.endswith("(gate: significant at 0.05)")
    decisions = [demo.version(number).tags["decision"] for number in "123"]
    assert decisions == [first.reason, reason, reason]
    assert demo.history == [("1", "gate"), ("2", "gate")]
    assert demo.register(new, third) == second
    # The champion stands among the models registered: nothing is loaded to compare it.
    monkeypatch.setattr(registered_model, "load_model", None)
    assert demo.register(new, demo.entry("fourth", val=0.95, seed=4)).model == "fourth"


def test_a_worse_candidate_is_challenger(demo):
    demo.register(demo.reference)
    decision = demo.register(demo.entry("new", val=0.7))
    assert demo.aliases == {"old": "1", "new": "2", "champion": "1", "challenger": "2"}
    assert (decision.model, decision.weights_sha256) == ("old", demo.reference.package.metadata["weights_sha256"])
    assert decision.reason.startswith(
        "old (version 1) stays champion; new (version 2), the best of new (70.00%), is challenger: 70.00% against "
        "80.00% on the same 1,000 gate images, a difference of -10.00 points ("
    )
    assert demo.version("2").tags["decision"] == decision.reason
    assert demo.version("1").tags["decision"] == "old is champion with 80.00% top-1 on val"
    assert demo.history == [("1", "gate")]


def test_val_selects_the_candidate_and_gate_alone_compares_it_with_the_champion(demo):
    demo.register(demo.reference)
    lucky, able = demo.entry("lucky", val=0.95, gate=0.75), demo.entry("able", val=0.9, gate=0.99, seed=3)
    decision = demo.register(lucky, able)
    assert demo.aliases["champion"] == "1"
    assert decision.reason.startswith(
        "old (version 1) stays champion; lucky (version 2), the best of lucky (95.00%), able (90.00%), is challenger: "
        "75.00% against 80.00% on the same 1,000 gate images"
    )
    assert demo.register(able).model == "able"


def test_the_gate_significant_asks_for_a_small_p_value(demo):
    demo.register(demo.reference)
    right = demo.reference.right.copy()
    right[:10] = True  # 2 of them were wrong
    candidate = replace(demo.entry("new", val=0.802), right=right)
    refused = demo.register(candidate, gate=Gate("significant"))
    assert refused.champion == "1"
    assert "McNemar's exact p = 0.5 (gate: significant at 0.05)" in refused.reason
    assert demo.register(candidate, gate=Gate("better")).model == "new"


def test_the_same_weights_packaged_anew_take_over_unless_their_predictions_are_worse(demo, monkeypatch):
    demo.register(demo.reference)
    second = demo.register(with_about(demo.reference, temperature=1.5))
    assert second.champion == "2"
    assert "old (version 1): the same weights packaged anew, 80.00% against 80.00%" in second.reason
    worse = replace(with_about(demo.reference, temperature=2.5), right=demo.reference.right & (np.arange(1000) > 100))
    assert demo.register(worse).champion == "2"
    monkeypatch.setattr(onnx_model, "FORMAT", 4)
    assert demo.register(demo.reference).champion == "4"


@pytest.mark.parametrize("name", ["seen_images.npy", "training_images.npy"])
def test_where_the_data_differ_only_images_new_to_the_champion_count(demo, root, name):
    present = replace(gate_split(), data_sha256="e" * 64)
    demo.register(demo.reference, seen=image_hashes(present.images[:300]))
    [file] = (root / "mlartifacts").rglob("artifacts/**/seen_images.npy")
    file.rename(file.with_name(name))  # as in packages of the release before gate
    demo.client.delete_model_version_tag(NAME, "1", "files_sha256")
    new = with_about(demo.entry("new", val=0.95), data_sha256="e" * 64)
    decision = demo.register(new, split=present)
    assert decision.model == "new"
    assert "92.86% against 80.00% on the same 700 gate images" in decision.reason


@pytest.mark.parametrize(
    ("known", "class_names", "reason"),
    [
        (501, CLASSES, "499 of the 1,000 gate images are new to it, at least 500 are needed"),
        (300, [*CLASSES[:2], "dog"], "the champion has other classes"),
    ],
)
def test_what_cannot_be_compared_does_not_replace_the_champion(demo, known, class_names, reason):
    present = replace(gate_split(), data_sha256="e" * 64, class_names=class_names)
    demo.register(demo.reference, seen=image_hashes(present.images[:known]))
    candidate = demo.entry("new", val=0.95)
    decision = demo.register(candidate, split=present)
    assert (decision.model, demo.aliases["challenger"]) == ("old", "2")
    assert reason in decision.reason
    assert demo.register(candidate, split=present, gate=Gate("always")).model == "new"


@pytest.mark.parametrize("damage", ["model.onnx", "seen_images.npy", "all", "download"])
def test_a_champion_that_does_not_work_is_replaced_by_a_worse_model_that_does(demo, root, monkeypatch, damage):
    demo.register(demo.reference)
    if damage == "download":
        monkeypatch.setattr(registered_model, "download_artifacts", _fail_with(FileNotFoundError("no such file")))
    elif damage == "all":
        shutil.rmtree(root / "mlartifacts")
    else:
        [file] = (root / "mlartifacts").rglob(f"artifacts/**/{damage}")
        file.write_bytes(b"\xff" * 100)
    decision = demo.register(demo.entry("new", val=0.1))
    assert decision.model == "new"
    assert "it took over from old (version 1): it does not work, its artifacts" in decision.reason
    assert "challenger" not in demo.aliases
    with pytest.raises(UserError, match="no version of demo-classifier was champion before"):
        demo.roll_back()
    with pytest.raises(UserError, match=r"old \(version 1\) cannot be champion, its artifacts .* \(version 1\)$"):
        demo.roll_back(to="1")
    assert demo.aliases["champion"] == "2"


def test_a_champion_of_an_earlier_format_is_replaced_and_none_of_its_code_runs(demo, tmp_path):
    package, code = tmp_path / "package", "from mlflow.models import set_model\nset_model(lambda model_input: 1)\n"
    (tmp_path / "code.py").write_text(code)
    metadata = {"class_names": CLASSES, "data_sha256": "d" * 64, "code_sha256": "c" * 64}
    save_model(package, python_model=str(tmp_path / "code.py"), pip_requirements=["mlflow"], metadata=metadata)
    (package / "code.py").write_text("raise SystemExit('this code must not run')\n")
    demo.client.create_registered_model(NAME)
    demo.client.create_model_version(NAME, package.as_uri(), tags={"model": "old", "package_sha256": "p" * 64})
    demo.client.set_registered_model_alias(NAME, "champion", "1")
    decision = demo.register(demo.entry("new", val=0.3))
    assert "from old (version 1): it does not work, it was registered by another release" in decision.reason
    assert demo.aliases["champion"] == decision.champion == "2"
    assert demo.history == [("1", "gate"), ("2", "gate")]


@pytest.mark.parametrize("was_chosen", [False, True])
def test_a_store_of_the_release_before_keeps_its_champion_and_a_persons_choice(demo, was_chosen):
    new = demo.entry("new", val=0.9)
    demo.register(demo.reference)
    demo.register(new)
    chosen = demo.version("2").creation_timestamp + 1
    demo.client.delete_registered_model_tag(NAME, "champion_history")
    for version in ("1", "2"):
        demo.client.delete_model_version_tag(NAME, version, "decision")
    if was_chosen:
        demo.client.set_registered_model_alias(NAME, "champion", "1")
        demo.client.set_registered_model_tag(NAME, "champion_chosen_at", registered_model.to_iso(chosen))
    decision = demo.register(new)
    assert decision.champion == ("1" if was_chosen else "2")
    assert demo.history == ([("1", "hand")] if was_chosen else [("2", "gate")])
    assert demo.register(demo.entry("newer", val=0.95, seed=5)).champion == "3"
    assert demo.roll_back().startswith(f"{'old' if was_chosen else 'new'} (version {decision.champion}) is champion")


def _noting(calls, function):
    def noted(uri, **options):
        calls.append(uri)
        return function(uri, **options)

    return noted


def _fail_with(error):
    def fail(*_, **__):
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
def test_what_cannot_be_loaded_now_changes_nothing(demo, monkeypatch, call, error):
    demo.register(demo.reference)
    second, worse = demo.measured("second", 2), demo.entry("worse", val=0.1)
    demo.register(second, gate=Gate("always"))
    with monkeypatch.context() as blip:
        blip.setattr(registered_model, call, _fail_with(error))
        with pytest.raises(UserError, match=r"second \(version 2\) could not be loaded .*: fix the cause and rerun"):
            demo.register(worse)
        if call == "download_artifacts":
            with pytest.raises(UserError, match=r"second \(version 2\) could not be loaded"):
                demo.register(second)
            with pytest.raises(UserError, match=r"old \(version 1\) could not be loaded"):
                demo.roll_back()
    assert (demo.aliases["champion"], demo.history) == ("2", [("1", "gate"), ("2", "gate")])
    assert demo.register(worse).model == "second"
    assert len(demo.client.search_model_versions(f"name = '{NAME}'")) == 3, "none was logged again"


@pytest.mark.parametrize("call", ["set_model_version_tag", "set_registered_model_tag", "set_registered_model_alias"])
@pytest.mark.parametrize("is_done", [False, True])
def test_a_promotion_that_is_killed_at_any_step_is_completed_by_the_next_registration(demo, monkeypatch, call, is_done):
    demo.register(demo.reference)
    new = demo.entry("new", val=0.9)
    function = getattr(MlflowClient, call)

    def killed(client, name, key, *values):
        is_promotion = {"decision", "champion_history", "champion"} & {key, *values}
        if is_done or not is_promotion:
            function(client, name, key, *values)
        if is_promotion:
            raise KeyboardInterrupt

    with monkeypatch.context() as power_cut:
        power_cut.setattr(MlflowClient, call, killed)
        with pytest.raises(KeyboardInterrupt):
            demo.register(new)
    is_promoted = is_done and call == "set_registered_model_alias"
    versions = [promotion.version for promotion in RegisteredModel(demo.client, NAME).history()]
    assert versions == (["1", "2"] if is_promoted else ["1"]), "as the alias says"
    assert demo.register(new).reason.startswith("new is champion with 90.00% top-1 on val; it took over")
    assert demo.aliases == {"old": "1", "new": "2", "champion": "2", "challenger": "1"}
    assert demo.history == [("1", "gate"), ("2", "gate")]
    assert demo.roll_back() == "old (version 1) is champion in place of new (version 2)"


def test_a_roll_back_stands_until_something_newer_is_registered(demo):
    demo.register(demo.reference)
    new, newer = demo.entry("new", val=0.9), demo.entry("newer", val=0.85, seed=9)
    demo.register(new)
    before = demo.version("2").tags["decision"]
    assert demo.roll_back() == "old (version 1) is champion in place of new (version 2)"
    assert demo.aliases == {"old": "1", "new": "2", "champion": "1"}
    assert demo.history == [("1", "gate"), ("2", "gate"), ("1", "hand")]
    assert demo.version("1").tags["decision"].startswith("old (version 1) was made champion by hand")

    again = demo.register(new)
    assert (again.champion, demo.aliases["champion"]) == ("1", "1")
    assert again.reason.startswith("old (version 1) stays champion, made so by hand on 2")
    assert again.reason.endswith("registered by then: new (90.00%)")
    assert demo.register(new, gate=Gate("always")).champion == "1"
    assert demo.version("2").tags["decision"] == before, "how it came to be champion"

    passed = demo.register(new, newer)
    assert (passed.model, passed.champion) == ("newer", "3"), "better than the champion, and nobody has judged it yet"
    assert "held back since a person chose: new" in passed.reason
    assert demo.register(new, newer) == passed


def test_a_roll_back_can_be_taken_back_and_repeated(demo):
    with pytest.raises(UserError, match="no version of a registered model demo-classifier: .* has none"):
        demo.roll_back()
    demo.register(demo.reference)
    c = demo.entry("c", val=0.95, seed=3)
    demo.register(demo.entry("b", val=0.9, seed=2))
    demo.register(c, gate=Gate("always"))
    assert demo.roll_back().startswith("b (version 2)")
    assert demo.roll_back(to="3").startswith("c (version 3)")
    assert "made champion by hand" in demo.register(c).reason
    demo.roll_back(to="2")
    assert demo.roll_back() == "old (version 1) is champion in place of b (version 2)"
    by_hand = [("2", "hand"), ("3", "hand"), ("2", "hand"), ("1", "hand")]
    assert demo.history == [("1", "gate"), ("2", "gate"), ("3", "gate"), *by_hand]
    for to, mistake in (
        (None, "no version of demo-classifier was champion before: choose with --to, or TO= for make, one of c"),
        ("7", r"there is no version 7: choose with --to, or TO= for make, one of c \(version 3\)"),
        ("1", r"old \(version 1\) is champion already"),
    ):
        with pytest.raises(UserError, match=mistake):
            demo.roll_back(to)


def test_a_package_that_was_rolled_back_stays_out_and_a_newer_one_comes_in(demo):
    demo.register(demo.reference)
    assert demo.register(with_about(demo.reference, temperature=9.0)).champion == "2"
    demo.roll_back()
    assert demo.register(with_about(demo.reference, temperature=9.0)).champion == "1"
    assert demo.register(with_about(demo.reference, temperature=1.5)).champion == "3"


def test_the_history_keeps_the_newest_and_fits_into_a_tag(demo):
    demo.register(demo.reference)
    registered = RegisteredModel(demo.client, NAME)
    for second in range(2 * HISTORY_LENGTH):
        registered._promote(Promotion("1", f"2026-11-25T16:{second // 60 + 30}:{second % 60:02}.123+00:00", "hand"))
    assert len(demo.history) == HISTORY_LENGTH
    assert registered.history()[-1].since == "2026-11-25T16:31:39.123+00:00"
    assert len(demo.client.get_registered_model(NAME).tags["champion_history"]) + 5 * HISTORY_LENGTH < 5000


@pytest.mark.slow
def test_two_processes_that_register_at_once_leave_one_champion_that_won(demo, root):
    demo.register(demo.measured("a", 3))
    rivals = demo.measured("b", 4), demo.reference
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert set(pool.starmap(_register_in_process, [(root, each) for each in rivals], chunksize=1)) == {"2", "3"}
    aliases = demo.aliases
    assert aliases["champion"] == aliases["old"], "whoever came first"
    assert "80.00%" in demo.version(aliases["champion"]).tags["decision"]
    assert demo.history[0] == ("1", "gate")
    assert demo.history[-1] == (aliases["champion"], "gate")


def _register_in_process(root, entry):
    model = entry.package.exported.model
    demo = DemoModel(Store.of_repository(root), root.parent / model)
    demo.register(entry)
    return demo.aliases[model]
