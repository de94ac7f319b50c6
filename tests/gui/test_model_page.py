"""The page Model, with a real registry, versions and runs."""

import pytest
from mlflow import MlflowClient

from gui import registry
from gui.registry import Registry, RegistryError
from tests.gui.conftest import Register
from tests.gui.pages import draw, only_error

NAME = "cifar100-classifier"
PARAMS = {"epochs": "1", "lr": "0.0004"}
METRICS = {"test/top1": 0.7984, "test/top1_low": 0.7905, "test/top1_high": 0.8062, "test/superclass_top1": 0.8926}
TAGS = {"git_commit": "9f0c2e01ab7ba870ab2402590bb4c81ffd3bf9d9", "git_dirty": "false", "resolved_device": "cpu"}


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_uri)


def give_run(client: MlflowClient, number: int, **tags: str) -> str:
    """Make a training run the one of a version, as registering a model with its run does; returns its id."""
    run = client.create_run(client.create_experiment(f"experiment {number}", "file:///nowhere"), tags=TAGS | tags)
    for name, value in PARAMS.items():
        client.log_param(run.info.run_id, name, value)
    for name, share in METRICS.items():
        client.log_metric(run.info.run_id, name, share)
    client.set_terminated(run.info.run_id, end_time=run.info.start_time + 522_000)
    found = client.get_model_version(NAME, str(number))
    client.delete_model_version(NAME, str(number))
    again = client.create_model_version(NAME, found.source, run.info.run_id, tags=found.tags)
    client.set_registered_model_alias(NAME, "champion", again.version)
    return run.info.run_id


def test_it_says_what_is_deployed_how_it_won_and_where_it_comes_from(register: Register, client: MlflowClient) -> None:
    run_id = give_run(client, register(model="vit_transfer"))
    gate = "vit_transfer is champion with 80.46% top-1 on val, before vit_scratch (37.16%)"
    hashes = {"data_sha256": "d" * 64, "weights_sha256": "e" * 64, "onnx_sha256": "f" * 64}
    for tag, value in {"gate": gate, "source": "cifar100", **hashes}.items():
        client.set_model_version_tag(NAME, "2", tag, value)
    client.update_model_version(NAME, "2", "An image classifier in **one** file.")
    page = draw("model")
    assert page.markdown[0].value == f"**{NAME}**, version 2: vit_transfer"
    assert "`champion`" in page.caption[0].value
    assert [info.value for info in page.info] == [gate]
    assert page.metric[0].label == "top-1"
    assert page.metric[0].value == "79.8\N{NARROW NO-BREAK SPACE}%"
    assert page.metric[0].delta == "79.0 to 80.6"
    assert [metric.label for metric in page.metric] == ["top-1", "superclass"]
    origin = page.markdown[2].value
    assert "Code: commit `9f0c2e01ab7b`\n" in origin
    assert "Data: cifar100, sha256 `dddddddddddd`" in origin
    assert "Weights: sha256 `eeeeeeeeeeee`" in origin
    assert "8.7 minutes, cpu" in origin
    assert "Model file: sha256 `ffffffffffff`" in origin
    assert page.expander[0].markdown[0].value == "An image classifier in **one** file."
    assert page.expander[1].label == "Its 2 parameters"
    assert page.table[0].value["value"].tolist() == ["1", "0.0004"]
    assert run_id in page.caption[1].value
    assert not page.error


def test_changes_that_were_not_committed_are_named(register: Register, client: MlflowClient) -> None:
    give_run(client, register(), git_dirty="true")
    assert "`9f0c2e01ab7b` and changes that were not committed" in draw("model").markdown[1].value


def test_a_database_is_shown_by_a_command_and_a_server_by_a_link(
    register: Register, client: MlflowClient, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = give_run(client, register())
    page = draw("model")
    assert page.code[0].value == f"mlflow ui --backend-store-uri '{tracking_uri}'"
    assert Registry(f"sqlite:///{registry.REPOSITORY}/mlflow.db").ui_command == "mlflow ui"

    version = Registry(tracking_uri).champions()[0]
    server = Registry(tracking_uri)
    monkeypatch.setattr(server, "_asked", Registry(tracking_uri)._asked)  # its answers, the address of a server
    server.tracking_uri, server._shown_uri = "https://someone:secret@host/", "https://host/"
    place = server.training(version).place
    assert run_id in place
    assert server.training(version).page == f"https://host/#/{place}"


def test_a_run_that_is_gone_is_one_sentence_and_the_rest_stays(register: Register) -> None:
    register(model="vit_transfer")
    page = draw("model")
    assert "The run that trained version 1 of cifar100-classifier is gone: `make register`" in only_error(page)
    assert page.markdown[0].value.endswith("version 1: vit_transfer")
    assert len(page.dataframe[0].value) == 1


def test_the_history_of_champions_is_there_the_present_one_first(register: Register, client: MlflowClient) -> None:
    register(model="vit_scratch", promoted_at="2026-01-01T00:00:00+00:00")
    client.set_model_version_tag(NAME, "1", "demoted_at", "2026-02-01T13:00:00+01:00")
    client.set_model_version_tag(NAME, "1", "rolled_back_at", "2026-02-01T13:00:00+01:00")
    register(model="never", champion=False)
    client.delete_model_version_tag(NAME, "2", "promoted_at")
    register(model="vit_transfer", promoted_at="2026-02-01T12:00:00+00:00")
    client.set_model_version_tag(NAME, "3", "gate", "better by 3 points")
    history = draw("model").dataframe[0].value
    assert history["version"].tolist() == [3, 1]
    assert history["model"].tolist() == ["vit_transfer", "vit_scratch"]
    assert history["from"].tolist() == ["2026-02-01 12:00 UTC", "2026-01-01 00:00 UTC"]
    assert history["until"].tolist() == ["now", "2026-02-01 12:00 UTC, rolled back"]
    assert history["decision"].tolist() == ["better by 3 points", ""]


def test_a_version_that_is_champion_again_has_a_line_for_each_time(register: Register, client: MlflowClient) -> None:
    register(promoted_at="2026-03-01T00:00:00+00:00")
    for tag, value in {
        "demoted_at": "2026-02-01T00:00:00+00:00",  # of the time before
        "earlier_reigns": '[["2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00", false]]',
        "gate": "made champion by hand",
    }.items():
        client.set_model_version_tag(NAME, "1", tag, value)
    register(promoted_at="2026-02-01T00:00:00+00:00", champion=False)
    for tag in ("demoted_at", "rolled_back_at"):
        client.set_model_version_tag(NAME, "2", tag, "2026-03-01T00:00:00+00:00")
    history = draw("model").dataframe[0].value
    assert history["version"].tolist() == [1, 2, 1]
    assert history["until"].tolist() == ["now", "2026-03-01 00:00 UTC, rolled back", "2026-02-01 00:00 UTC"]
    assert history["from"].tolist()[2] == "2026-01-01 00:00 UTC"
    assert history["decision"].tolist() == ["made champion by hand", "", ""]


def test_a_history_longer_than_a_page_is_whole(
    register: Register, client: MlflowClient, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (1, 2, 3):
        register(promoted_at=f"2026-01-0{day}T00:00:00+00:00")
    search = MlflowClient.search_model_versions
    monkeypatch.setattr(
        MlflowClient,
        "search_model_versions",
        lambda client, wanted, page_token=None: search(client, wanted, max_results=1, page_token=page_token),
    )
    assert [reign.version.number for reign in Registry(tracking_uri).history(NAME)] == [3, 2, 1]
    with pytest.raises(RegistryError, match="No model `moon`"):
        Registry(tracking_uri).history("moon")


def test_a_new_champion_is_shown_and_announced_at_the_next_interaction(
    register: Register, client: MlflowClient
) -> None:
    register()
    page = draw("model")
    assert not page.toast
    register()
    page.button[0].click().run()
    assert "version 2 of cifar100-classifier" in page.toast[0].value
    assert "version 2" in page.markdown[0].value


def test_a_champion_of_another_registered_model_that_takes_over_is_announced_a_chosen_one_is_not(
    register: Register,
) -> None:
    register(promoted_at="2026-01-01T00:00:00+00:00")
    page = draw("model")
    register("demo-classifier", promoted_at="2026-02-01T00:00:00+00:00")
    page.button[0].click().run()
    assert "version 1 of demo-classifier" in page.toast[0].value
    assert "**demo-classifier**" in page.markdown[0].value
    page.selectbox(key="model_name").set_value(NAME).run()
    assert not page.toast
    page.selectbox(key="model_name").set_value("demo-classifier").run()
    assert not page.toast
    register(promoted_at="2026-03-01T00:00:00+00:00")
    page.selectbox(key="model_name").set_value(NAME).run()
    assert "version 2 of cifar100-classifier" in page.toast[0].value
