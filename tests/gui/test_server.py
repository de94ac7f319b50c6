"""The HTTP server: image files and MLflow's protocol, asked over real connections."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
import uvicorn
from PIL import Image

from gui import server as http_server
from gui.registry import REPOSITORY, Model, Version
from stages.inference import onnx_model
from tests.gui.conftest import METADATA, RED, Register, as_file, champions_model, image_file, package
from tests.gui.small_comparison import COLOURS

PATIENCE = 180.0  # seconds: a process imports a good deal, and the machine may be busy
CLASSES = [name.replace("_", " ") for name in METADATA["class_names"]]
LIMIT = http_server.MAX_BYTES
GREY = [[[[100, 100, 100]] * 4] * 4]  # one image
JPEG = {"Content-Type": "image/jpeg"}
FORM = "multipart/form-data; boundary=xx"
RED_FILE = image_file(RED, kind="JPEG")


def image_of(name: str, size: tuple[int, int] = (60, 60), kind: str = "JPEG") -> bytes:
    """An image of the colour of a class."""
    return image_file(tuple(map(int, COLOURS[CLASSES.index(name)])), size, kind)


def part(content: bytes, name: bytes = b"", field: bytes = b"a") -> bytes:
    return b'--xx\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n' % (field, name, content)


class Running:
    """A server in a thread of this process."""

    def __init__(self, folder: Path) -> None:
        version = Version("sqlite:///a.db", "cifar100-classifier", 7, 0, aliases=("champion", "vit_scratch"))
        self.model = Model(version, mlflow.pyfunc.load_model(str(folder)))
        self.served = http_server.Served(self.model)
        self._socket = http_server._listening("127.0.0.1", 0)
        self.uri = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        # log_config: lets caplog see what goes to the log
        self._server = uvicorn.Server(uvicorn.Config(http_server.app_of(self.served), log_config=None))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def ask(self, method: str, path: str, **how: Any) -> requests.Response:
        return requests.request(method, self.uri + path, timeout=60, **how)

    def classify(self, body: Any = None, options: str = "", **how: Any) -> requests.Response:
        headers = how.pop("headers", JPEG if body is not None else {})
        return self.ask("POST", f"/classify{options}", data=body, headers=headers, **how)

    def invoke(self, body: Any, kind: str | None = http_server.JSON, path: str = "/invocations") -> requests.Response:
        data = body if isinstance(body, (str, bytes)) or hasattr(body, "__next__") else json.dumps(body)
        return self.ask("POST", path, data=data, headers={"Content-Type": kind} if kind else {})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, onnx_file: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served") / "package"
    package(folder, onnx_file)
    running = Running(folder)
    yield running
    running.stop()


def refusal(answer: requests.Response, status: int) -> str:
    """The message of a refusal, which is one level of JSON and one line."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error_code", "message"}, answer.text
    message = answer.json()["message"]
    assert "\n" not in message and 0 < len(message) <= http_server.MAX_REASON
    return message


def best(answer: requests.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()[0]["class"]


def test_one_image_gets_labelled_rows_the_likeliest_first(server):
    answer = server.classify(image_of("red apple", kind="PNG"), headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    rows = answer.json()
    expected = server.model.probabilities(np.full((1, 8, 8, 3), COLOURS[0], np.uint8))[0]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["probability"] for row in rows] == pytest.approx(sorted(expected.tolist(), reverse=True)[:5])
    assert tuple(rows[0]) == onnx_model.COLUMNS
    assert list(rows[0].values()) == [0, 1, "red apple", "plants", rows[0]["probability"], ["red apple"], False]
    assert answer.headers["Model-Version"] == "7"


@pytest.mark.parametrize(
    ("kind", "header"), [("PNG", "Image/PNG; name=a"), ("PNG", "image/jpeg"), ("WEBP", "application/octet-stream")]
)
def test_the_bytes_of_an_image_tell_its_format(server, kind, header):
    assert best(server.classify(image_of("blue sea", kind=kind), headers={"Content-Type": header})) == "blue sea"


def test_several_files_are_answered_in_their_order_and_one_that_is_no_image_says_so(server):
    body = part(image_of("blue sea"), b"sea.jpg") + part(b"no image", b"notes.txt")
    body += part(image_of("yellow lemon", (30, 50), "PNG"), field=b"other")  # without a name: numbered
    body += part(image_of("red apple", (2000, 40)), b"sea.jpg")  # the name again
    answer = server.classify(body + b"--xx--", "?top_k=2", headers={"Content-Type": FORM})
    assert answer.status_code == 200
    rows = answer.json()
    assert [(row["image"], row.get("rank"), row.get("class")) for row in rows if row.get("rank") != 2] == [
        ("sea.jpg", 1, "blue sea"),
        ("notes.txt", None, None),
        (2, 1, "yellow lemon"),
        ("sea.jpg", 1, "red apple"),
    ]
    assert len(rows) == 7
    assert set(rows[2]) == {"image", "error"} and "no image" in rows[2]["error"]


def test_files_larger_than_what_is_kept_in_memory_by_default_are_not_written_to_disk(server, monkeypatch):
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", lambda self: pytest.fail("to disk"))
    pixels = np.random.default_rng(0).integers(0, 40, (1000, 1000, 3), dtype=np.uint8)
    content = as_file(Image.fromarray(pixels))
    assert len(content) > 2**21
    assert best(server.classify(files=[("files", ("a.png", content))])) == "black cat"


@pytest.mark.parametrize(
    ("options", "name"), [("", "red apple"), ("?square=crop", "red apple"), ("?square=pad", "white rabbit")]
)
def test_an_image_that_is_not_square_is_cropped_or_padded(server, options, name):
    assert best(server.classify(image_of("red apple", (16, 160), "PNG"), options)) == name


@pytest.mark.parametrize(
    ("options", "header", "body", "status", "reason"),
    [
        ("", "image/jpeg", b"no image", 400, "This file is no image"),
        ("", "image/jpeg", b"", 400, "empty"),
        ("?topk=3", "image/jpeg", RED_FILE, 400, "topk = '3': .*see /docs"),
        ("?top_k=7", "image/jpeg", RED_FILE, 400, "top_k = 7: ask for 1 to 6 classes"),
        ("?square=squeeze", "image/jpeg", RED_FILE, 400, "square = 'squeeze': .*'crop' or 'pad'"),
        ("", "application/x-www-form-urlencoded", RED_FILE, 415, "Content-Type: image/jpeg"),
        ("", None, RED_FILE, 415, "of no type"),
        ("", "multipart/form-data", b"", 400, "boundary"),
        ("", FORM, b"nothing of the kind", 400, "multipart|boundary|no file"),
        ("", FORM, b"--xx--", 400, "no file"),
        ("", FORM, part(b"3", field=b"top_k").replace(b'; filename=""', b"") + b"--xx--", 400, "top_k is no file"),
    ],
)
def test_what_cannot_be_classified_is_refused_with_one_line(server, options, header, body, status, reason):
    answer = server.classify(body, options, headers={"Content-Type": header} if header else {})
    assert re.search(reason, refusal(answer, status))


def test_a_whole_number_may_be_written_as_a_float(server):
    assert len(server.classify(RED_FILE, "?top_k=2.0").json()) == 2
    asked = {"inputs": np.full((1, 4, 4, 3), 200.0).tolist(), "params": {"top_k": 2.0}}
    assert len(server.invoke(asked).json()["predictions"]) == 2


def test_what_is_not_there_or_not_for_this_method_is_plain_json(server):
    missing = server.ask("GET", "/predict")
    assert "/predict" in refusal(missing, 404) and missing.json()["error_code"] == "ENDPOINT_NOT_FOUND"
    for method, path in (("GET", "/classify"), ("GET", "/invocations"), ("POST", "/health"), ("DELETE", "/version")):
        answer = server.ask(method, path)
        assert method in refusal(answer, 405)
        assert answer.headers["Allow"]


def test_the_server_says_how_it_is_which_version_it_serves_and_what_it_knows(server):
    health, ping, version, classes = (
        server.ask("GET", f"/{path}") for path in ("health", "ping", "version", "classes")
    )
    assert (health.status_code, health.json(), ping.status_code) == (200, {"status": "ok"}, 200)
    known = {key: server.model.metadata[key] for key in ("onnx_sha256", "precision", "format", "ood")}
    served = {"name": "cifar100-classifier", "version": 7, "alias": "champion", "mlflow": mlflow.__version__}
    assert version.json() == served | known
    assert classes.json()[2] == {"class": "blue sea", "superclass": "things & waters"}


def test_the_api_describes_what_it_takes_and_its_example_works(server):
    api = server.ask("GET", "/openapi.json").json()
    assert api["info"]["title"] == "Image classifier"
    assert set(api["paths"]) == {"/classify", "/invocations", "/health", "/version", "/classes"}
    classify = api["paths"]["/classify"]["post"]
    assert {"image/jpeg", "image/png", "multipart/form-data"} < set(classify["requestBody"]["content"])
    assert [parameter["name"] for parameter in classify["parameters"]] == ["top_k", "square"]
    assert set(classify["responses"]) == {"200", "4XX"}
    schemas = api["components"]["schemas"]
    assert tuple(schemas["Row"]["properties"]) == onnx_model.COLUMNS
    body = api["paths"]["/invocations"]["post"]["requestBody"]["content"][http_server.JSON]["schema"]
    assert body["$ref"] == "#/components/schemas/Invocation"
    example = {name: described["examples"][0] for name, described in schemas["Invocation"]["properties"].items()}
    assert len(server.invoke(example).json()["predictions"]) == example["params"]["top_k"]
    page = server.ask("GET", "/docs").text
    assert "<title>Image classifier" in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(links) == 3
    assert all(link.startswith("/") and server.ask("GET", link).ok for link in links)  # nothing comes from elsewhere


def test_mlflows_protocol_gives_probabilities_or_rows(server):
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    answer = server.invoke({"inputs": images.tolist()}, "Application/JSON; charset=UTF-8")
    assert answer.headers["Content-Type"] == http_server.JSON
    np.testing.assert_allclose(answer.json()["predictions"], server.model.probabilities(images), atol=1e-6)
    rows = server.invoke({"inputs": images.tolist(), "params": {"top_k": 1, "square": "pad"}}).json()["predictions"]
    expected = server.model.packaged.predict(images, params={"top_k": 1, "square": "pad"})
    assert rows == expected.to_dict("records")
    assert len(server.invoke({"inputs": GREY, "params": None}).json()["predictions"][0]) == 6


BAD_JSON: dict[str, tuple[Any, str]] = {
    "not a number": ('{"inputs": [[[[NaN, 0, 0]]]]}', "whole numbers"),
    "columns": ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "inputs.*required"),
    "another key": ({"inputs": GREY, "top_k": 3}, "^top_k = 3: .*not permitted"),
    "an unknown parameter": ({"inputs": GREY, "params": {"topk": 3}}, "^params.topk = 3: .*not permitted"),
    "top_k of 1000": ({"inputs": GREY, "params": {"top_k": 1000}}, "ask for 1 to 6 classes"),
    "params in a list": ({"inputs": GREY, "params": [3]}, r"^params = \[3\]"),
    "broken": ('{"inputs": [[[', "JSON"),
    "empty": ("", "required"),
    "a list": ([1, 2], "the body = .*dictionary"),
    "bytes": (b"\x89PNG\r\n\x1a\n\xff", "body.*utf-8"),
    "deep": ("[" * 100_000, "body.*recursion"),
    "digits": (f'{{"inputs": [[[[{"1" * 5_000}]]]]}}', "body.*digits"),
    "a long key": ({"a" * 100_000: 1, "inputs": GREY}, "^aaa"),
    "half a character": (r'{"inputs": [], "\ud800": 1}', r"the body = .*unicode"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_mlflows_protocol_refuses_what_it_would_ignore_or_fail_on(server, name):
    body, reason = BAD_JSON[name]
    assert re.search(reason, refusal(server.invoke(body), 400))


@pytest.mark.parametrize("kind", ["text/csv", None])
def test_mlflows_protocol_takes_json_only(server, kind):
    assert "send JSON" in refusal(server.invoke({"inputs": GREY}, kind), 415)
    assert "?top_k=3" in refusal(server.invoke({"inputs": GREY}, path="/invocations?top_k=3"), 400)


def in_chunks(start: bytes, length: int) -> Iterable[bytes]:
    yield start
    left = length - len(start)
    while left > 0:
        yield b" " * min(left, 2**20)
        left -= 2**20


def test_a_request_is_read_up_to_the_limit_whether_it_says_its_length_or_not(server):
    start = json.dumps({"inputs": GREY}).encode()
    padded = start + b" " * (LIMIT - len(start))
    assert server.invoke(padded).status_code == 200
    assert "32 MB" in refusal(server.invoke(padded + b" "), 413)
    assert best(server.classify(in_chunks(RED_FILE, 0))) == "red apple"
    assert "32 MB" in refusal(server.classify(in_chunks(RED_FILE, LIMIT + 1)), 413)
    assert "32 MB" in refusal(server.classify(in_chunks(part(b""), LIMIT + 1), headers={"Content-Type": FORM}), 413)
    # Before it is sent.
    with closing(HTTPConnection(server.uri.removeprefix("http://"), timeout=20)) as connection:
        connection.putrequest("POST", "/classify")
        connection.putheader("Content-Type", "image/jpeg")
        connection.putheader("Content-Length", str(LIMIT + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_the_body_of_an_answer_does_not_wait_until_its_headers_are_acknowledged():
    with http_server._listening("127.0.0.1", 0) as listening:
        address = listening.getsockname()
        with socket.create_connection(address), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_several_at_once_get_their_own_answers(server):
    def ask(number: int) -> None:
        name = CLASSES[number % len(CLASSES)]
        assert best(server.classify(image_of(name, (40 + number, 40)))) == name
        images = np.full((1, 9, 9, 3), COLOURS[CLASSES.index(name)], np.uint8).tolist()
        rows = server.invoke({"inputs": images, "params": {"top_k": 1}}).json()["predictions"]
        assert rows[0]["class"] == name

    with ThreadPoolExecutor(16) as threads:
        assert len(list(threads.map(ask, range(120)))) == 120


def test_a_failing_model_is_one_line_for_the_client_and_a_trace_for_the_log(server, monkeypatch, caplog):
    monkeypatch.setattr(server.model.classifier.network, "logits", lambda images: 1 / 0)
    for answer in (server.classify(RED_FILE), server.invoke({"inputs": GREY})):
        assert "ZeroDivisionError" in refusal(answer, 500)
        assert answer.json()["error_code"] == "INTERNAL_ERROR"
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.setattr(http_server, "_kind", lambda request: 1 / 0)  # a bug
    assert "log" in refusal(server.classify(RED_FILE), 500)
    eventually(lambda: "Exception in ASGI application" in caplog.text)  # which follows the answer


def test_a_client_that_hangs_up_leaves_no_trace(server, caplog):
    with socket.create_connection(("127.0.0.1", int(server.uri.rpartition(":")[2]))) as client:
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: 99\r\n\r\nx")
    time.sleep(0.2)
    assert best(server.classify(RED_FILE)) == "red apple"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_request_under_way_is_answered_by_the_version_it_began_with(server, tmp_path, onnx_file, monkeypatch):
    package(tmp_path / "package", onnx_file, class_names=["tomato"] * 6)
    new = Model(Version("sqlite:///a.db", "a", 8, 0), mlflow.pyfunc.load_model(str(tmp_path / "package")))
    network = server.model.classifier.network
    logits = network.logits
    # Which is when another version takes over.
    monkeypatch.setattr(
        network, "logits", lambda pixels: monkeypatch.setattr(server.served, "model", new) or logits(pixels)
    )
    early, late = server.classify(RED_FILE), server.classify(RED_FILE)
    assert (best(early), early.headers["Model-Version"]) == ("red apple", "7")
    assert (best(late), late.headers["Model-Version"]) == ("tomato", "8")


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_champion_is_followed_and_one_that_does_not_load_leaves_the_old_one(register: Register, caplog, capsys):
    register()
    served = http_server.Served(champions_model())
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(served.follow, 0.05, stop)
        try:
            register(without=["format"])
            eventually(lambda: "registered by an earlier release" in caplog.text)
            time.sleep(0.5)  # several turns
            lines = [record.getMessage() for record in caplog.records if record.name == "gui.server"]
            assert len(lines) == 1 and "\n" not in lines[0]
            assert lines[0].startswith("version 1 of cifar100-classifier is still served: ")
            assert served.model.version.number == 1
            register(class_names=["tomato"] * 6)
            eventually(lambda: served.model.version.number == 3)
        finally:
            stop.set()
    assert served.model.class_names == ["tomato"] * 6
    assert capsys.readouterr().out == "version 3 of cifar100-classifier is served now\n"


def test_the_command_serves_the_champion(register: Register, tmp_path):
    register()
    (tmp_path / "photo.jpg").write_bytes(image_of("yellow lemon"))
    command = [sys.executable, "-m", "gui.server", "--port", "0", "--reload", "0.2", "--threads", "1"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        uri = re.search(r"http://[^/]*", process.stdout.readline())[0]
        readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
        line = next(line for line in readme.splitlines() if line.startswith("curl") and "/classify" in line)
        line = line.split("  #")[0].replace("http://127.0.0.1:5001", uri)
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, text=True)
        assert json.loads(done.stdout)[0]["class"] == "yellow lemon"
        with pytest.raises(OSError):  # this machine, another address
            socket.create_connection(("127.0.0.2", int(uri.rpartition(":")[2])), timeout=5)
        register()  # the one that the main thread would crash with at its end, had it loaded the first
        eventually(lambda: requests.get(f"{uri}/version", timeout=60).json()["version"] == 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_a_wrong_command_is_one_line_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'missing.db'}")

    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["server", "--port", "0", *arguments])
        with pytest.raises(SystemExit) as ended:
            http_server.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
        return err

    assert said().startswith("server: No model is registered yet")  # what is said last
    assert "port 80000 (" in said("--port", "80000")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} (Address already in use): choose another" in said("--port", port)
    assert "cannot listen at no.such.host.invalid" in said("--host", "no.such.host.invalid")
    assert "--reload 0: give a number of seconds above 0" in said("--reload", "0")
    assert "version 3 never moves" in said("--reload", "9", "--model", "cifar100-classifier@3")
