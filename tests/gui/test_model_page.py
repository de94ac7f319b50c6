"""The page Model, with a real registry, versions and runs."""

import json

import pytest
from mlflow import MlflowClient

from gui import registry
from gui.registry import ModelRegistry
from tests.gui.conftest import Register
from tests.gui.pages import draw, only_error

NAME = "cifar100-classifier"
PARAMS = {"epochs": "1", "lr": "0.0004"}
METRICS = {"test/top1": 0.7984, "test/top1_low": 0.7905, "test/top1_high": 0.8062, "test/superclass_top1": 0.8926}
TAGS = {"git_commit": "9f0c2e01ab7ba870ab2402590bb4c81ffd3bf9d9", "git_dirty": "true", "resolved_device": "cpu"}


def trained(client: MlflowClient, metrics: dict[str, float]) -> str:
    """The id of a training run."""
    run = client.create_run(client.create_experiment("cifar100", "file:///nowhere"), tags=TAGS)
    for name, value in PARAMS.items():
        client.log_param(run.info.run_id, name, value)
    for name, share in metrics.items():
        client.log_metric(run.info.run_id, name, share)
    client.set_terminated(run.info.run_id, end_time=run.info.start_time + 522_000)
    return run.info.run_id


def test_the_champion_its_decision_metrics_and_training(register: Register, client: MlflowClient) -> None:
    run_id = trained(client, METRICS)
    register(model="vit_transfer", run_id=run_id)
    gate = "vit_transfer is champion with 80.46% top-1 on val, before vit_scratch (37.16%)"
    hashes = {"data_sha256": "d" * 64, "weights_sha256": "e" * 64, "onnx_sha256": "f" * 64}
    for tag, value in {"decision": gate, "source": "cifar100", **hashes}.items():
        client.set_model_version_tag(NAME, "1", tag, value)
    client.update_model_version(NAME, "1", "An image classifier in **one** file.")
    page = draw("model")
    assert not page.error
    assert page.markdown[0].value == f"**{NAME}**, version 1: vit_transfer"
    assert "`champion`" in page.caption[0].value
    assert [info.value for info in page.info] == [gate]
    assert [(metric.value, metric.delta) for metric in page.metric] == [
        ("79.8\N{NARROW NO-BREAK SPACE}%", "79.0 to 80.6"),
        ("89.3\N{NARROW NO-BREAK SPACE}%", ""),
    ]
    facts = page.markdown[2].value
    assert "commit `9f0c2e01ab7b`, dirty" in facts
    assert "cifar100, sha256 `dddddddddddd`" in facts
    assert "sha256 `eeeeeeeeeeee`" in facts
    assert "8.7 minutes, cpu" in facts
    assert "sha256 `ffffffffffff`" in facts
    assert page.expander[0].markdown[0].value == "An image classifier in **one** file."
    assert page.table[0].value["value"].to_dict() == PARAMS
    assert run_id in page.caption[1].value


def test_a_database_is_shown_by_a_command_and_a_server_by_a_link(
    register: Register, client: MlflowClient, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = trained(client, {})
    register(run_id=run_id)
    assert draw("model").code[0].value == f"mlflow ui --backend-store-uri '{tracking_uri}'"
    assert ModelRegistry(f"sqlite:///{registry.REPOSITORY}/mlflow.db").ui_command == "mlflow ui"

    server = ModelRegistry("https://someone:secret@host/")
    server._asked = ModelRegistry(tracking_uri)._asked  # the answers of the database, the address of a server
    monkeypatch.setattr(registry, "connect", lambda: server)
    page = draw("model")
    assert not page.code
    assert not page.metric
    (link,) = page.get("link_button")
    assert link.url.startswith("https://host/#/experiments/")
    assert link.url.endswith(f"/runs/{run_id}")


def test_a_run_that_is_gone_is_one_line_and_the_rest_stays(register: Register) -> None:
    register(model="vit_transfer")
    page = draw("model")
    assert "run that trained version 1 of cifar100-classifier" in only_error(page)
    assert page.markdown[0].value.endswith("version 1: vit_transfer")
    assert len(page.dataframe[0].value) == 1


def test_every_champion_period_has_a_line_the_present_one_first(register: Register, client: MlflowClient) -> None:
    first, second, third = (f"2026-0{month}-01T12:00:00+00:00" for month in (1, 2, 3))
    register(model="vit_scratch")
    register(model="vit_transfer", champion=False)
    register(model="never", champion=False)
    client.set_model_version_tag(NAME, "1", "decision", "by hand")
    entries = [("1", first, "gate"), ("2", second, "gate"), ("9", second, "gate"), ("1", third, "hand")]
    history = [dict(zip(("version", "since", "by"), entry, strict=True)) for entry in entries]
    client.set_registered_model_tag(NAME, "champion_history", json.dumps(history))
    periods = draw("model").dataframe[0].value
    assert periods["version"].tolist() == ["1", "9", "2", "1"]  # the ninth was deleted
    assert periods["model"].fillna("").tolist() == ["vit_scratch", "", "vit_transfer", "vit_scratch"]
    assert periods["since"].tolist() == [f"2026-0{month}-01 12:00" for month in (3, 2, 2, 1)]
    assert periods["until"].fillna("").tolist() == ["", "2026-03-01 12:00", *["2026-02-01 12:00"] * 2]
    assert periods["rolled_back"].tolist() == [False, True, False, False]
    assert periods["decision"].fillna("").tolist() == ["by hand", "", "", ""]


def test_a_champion_that_takes_over_is_announced_a_chosen_one_is_not(register: Register) -> None:
    register(promoted_at="2026-01-01T00:00:00+00:00")
    page = draw("model")
    assert not page.toast
    register("demo-classifier", promoted_at="2026-02-01T00:00:00+00:00")
    page.button[0].click().run()
    assert "version 1 of demo-classifier" in page.toast[0].value
    assert "**demo-classifier**" in page.markdown[0].value
    for name in (NAME, "demo-classifier"):
        page.selectbox(key="model_name").set_value(name).run()
        assert not page.toast
    register(promoted_at="2026-03-01T00:00:00+00:00")
    page.selectbox(key="model_name").set_value(NAME).run()
    assert "version 2 of cifar100-classifier" in page.toast[0].value
    assert "version 2" in page.markdown[0].value
