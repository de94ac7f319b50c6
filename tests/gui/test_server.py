"""The HTTP server: image files and MLflow's protocol, asked over real connections."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from hashlib import sha256
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
import uvicorn
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from PIL import Image

from gui import registry
from gui import server as http_server
from gui.registry import Version
from stages.inference import onnx_model
from tests import linear_onnx

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 180.0  # seconds: a process imports a good deal, and the machine may be busy
COLOURS = {
    "red": (225, 25, 35),
    "green": (40, 190, 60),
    "blue": (30, 60, 220),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "yellow": (250, 240, 40),
}
CLASSES = list(COLOURS)
FRAMEWORKS = ("torch", "timm", "lightning", "tensorflow", "keras")
LIMIT = http_server.MAX_MEGABYTES * 2**20
GREY = [[[[100, 100, 100]] * 4] * 4]  # one image
JPEG = {"Content-Type": "image/jpeg"}


def image_file(colour: str = "red", size: tuple[int, int] = (60, 60), kind: str = "JPEG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(buffer, kind)
    return buffer.getvalue()


def package(folder: Path, classes: list[str] = CLASSES, **metadata: Any) -> Path:
    """Save a model that names the colour of an image, as a registered version holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    colours = np.array([COLOURS[name] for name in classes])
    file = linear_onnx.of_colours(folder.parent / "model.onnx", colours)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))]),
        ParamSchema([ParamSpec("top_k", DataType.long, 0), ParamSpec("square", DataType.string, "")]),
    )
    signature._is_signature_from_type_hint = True  # as in stages/tracking/package.py
    mlflow.pyfunc.save_model(
        folder,
        python_model=onnx_model.__file__,
        artifacts={"model": str(file)},
        signature=signature,
        pip_requirements=["mlflow"],
        metadata={
            "format": onnx_model.FORMAT,
            "model": "colours",
            "class_names": classes,
            "superclass_names": ["coloured", "grey"],
            "superclass_of_class": [int(name in ("white", "black")) for name in classes],
            "image_size": 8,
            "square": "crop",
            "temperature": 1.0,
            "conformal": {"90": 0.9, "95": 0.95},
            "ood_threshold": 0.5,
            "precision": "float32",
            "onnx_sha256": sha256(file.read_bytes()).hexdigest(),
            **metadata,
        },
    )
    return folder


class Running:
    """A server in a thread of this process."""

    def __init__(self, folder: Path) -> None:
        self.packaged = mlflow.pyfunc.load_model(str(folder))
        self.classifier = self.packaged.unwrap_python_model().classifier
        version = Version("sqlite:///a.db", "colours-classifier", 7, 0, aliases=("champion", "colours"))
        self.served = http_server.Served(SimpleNamespace(packaged=self.packaged, version=version))
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

    def classify(self, body: Any = None, options: str = "", **how: Any) -> requests.Response:
        headers = how.pop("headers", JPEG if body is not None else {})
        return requests.post(f"{self.uri}/classify{options}", data=body, headers=headers, timeout=60, **how)

    def invoke(self, body: Any, kind: str | None = http_server.JSON) -> requests.Response:
        data = body if isinstance(body, (str, bytes)) or hasattr(body, "__next__") else json.dumps(body)
        headers = {"Content-Type": kind} if kind else {}
        return requests.post(f"{self.uri}/invocations", data=data, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(package(tmp_path_factory.mktemp("colours") / "package"))
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
    answer = server.classify(image_file("red", kind="PNG"), headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    rows = answer.json()
    expected = server.classifier.probabilities(np.full((1, 8, 8, 3), COLOURS["red"], np.uint8))[0]
    order = np.argsort(-expected, kind="stable")[:5]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["class"] for row in rows] == [CLASSES[index] for index in order]
    assert [row["probability"] for row in rows] == pytest.approx(expected[order].tolist())
    assert rows[0] == {
        "image": 0,
        "rank": 1,
        "class": "red",
        "superclass": "coloured",
        "probability": rows[0]["probability"],
        "prediction_set": ["red"],
        "out_of_distribution": False,
    }
    assert answer.headers["Model-Version"] == "7"


def test_a_model_of_few_classes_gives_all_of_them_by_default(tmp_path):
    running = Running(package(tmp_path / "package", ["red", "blue"], ood_threshold=None))
    try:
        rows = running.classify(image_file("blue")).json()
    finally:
        running.stop()
    assert [(row["class"], row["out_of_distribution"]) for row in rows] == [("blue", None), ("red", None)]


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("PNG", "Image/PNG; name=a"),
        ("WEBP", "image/webp"),
        ("BMP", "image/bmp"),
        ("GIF", "image/gif"),
        ("TIFF", "image/tiff"),
        ("PNG", "image/jpeg"),  # the bytes tell
        ("JPEG", "application/octet-stream"),
    ],
)
def test_an_image_may_come_in_any_format_that_the_app_takes(server, kind, header):
    answer = server.classify(image_file("blue", kind=kind), headers={"Content-Type": header})
    assert best(answer) == "blue"


def test_several_files_are_answered_in_their_order_and_one_that_is_no_image_says_so(server):
    files = [
        ("files", ("sea.jpg", image_file("blue"), "image/jpeg")),
        ("files", ("notes.txt", b"no image", "text/plain")),
        ("other", ("lemon.png", image_file("yellow", (30, 50), "PNG"), None)),
        ("files", ("sea.jpg", image_file("red", (2000, 40)), "image/jpeg")),  # the name again
    ]
    answer = server.classify(files=files, options="?top_k=2")
    assert answer.status_code == 200
    rows = answer.json()
    assert [(row["image"], row.get("rank"), row.get("class")) for row in rows if row.get("rank") != 2] == [
        ("sea.jpg", 1, "blue"),
        ("notes.txt", None, None),
        ("lemon.png", 1, "yellow"),
        ("sea.jpg", 1, "red"),
    ]
    assert len(rows) == 7
    assert set(rows[2]) == {"image", "error"} and "no picture" in rows[2]["error"]


def test_a_file_without_a_name_is_numbered(server):
    body = b"".join(
        b'--xx\r\nContent-Disposition: form-data; name="a"; filename="%s"\r\n\r\n%s\r\n' % (name, image_file(colour))
        for name, colour in ((b"a.jpg", "red"), (b"", "white"))
    )
    answer = server.classify(body + b"--xx--", headers={"Content-Type": "multipart/form-data; boundary=xx"})
    assert [(row["image"], row["class"]) for row in answer.json() if row["rank"] == 1] == [
        ("a.jpg", "red"),
        (1, "white"),
    ]


def test_files_larger_than_what_is_kept_in_memory_by_default_are_not_written_to_disk(server, monkeypatch):
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", lambda self: pytest.fail("to disk"))
    image = np.random.default_rng(0).integers(0, 40, (1000, 1000, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 2**21
    assert best(server.classify(files=[("files", ("a.png", buffer.getvalue()))])) == "black"


def test_an_image_that_is_not_square_is_cropped_or_padded(server):
    stripe = image_file("red", (16, 160), "PNG")
    assert best(server.classify(stripe)) == "red"  # the model's own rule
    assert best(server.classify(stripe, "?square=crop")) == "red"
    assert best(server.classify(stripe, "?square=pad")) == "white"


@pytest.mark.parametrize(
    ("options", "header", "body", "status", "reason"),
    [
        ("", "image/jpeg", b"no image", 400, "This file is no picture"),
        ("", "image/jpeg", b"", 400, "empty"),
        ("", "image/jpeg", image_file()[:400], 400, "damaged"),
        ("?topk=3", "image/jpeg", image_file(), 400, "topk = 3: the options are top_k, square"),
        ("?top_k=7", "image/jpeg", image_file(), 400, "top_k = 7: ask for 1 to 6 classes"),
        ("?top_k=0", "image/jpeg", image_file(), 400, "top_k = 0: ask for 1 to 6 classes"),
        ("?top_k=many", "image/jpeg", image_file(), 400, "top_k = many: .*integer"),
        ("?top_k=2.5", "image/jpeg", image_file(), 400, "top_k = 2.5: .*integer"),
        ("?square=squeeze", "image/jpeg", image_file(), 400, "square = squeeze: .*'crop' or 'pad'"),
        ("", "application/x-www-form-urlencoded", image_file(), 415, "Content-Type: image/jpeg"),
        ("", "text/plain", image_file(), 415, "text/plain"),
        ("", None, image_file(), 415, "of no type"),
        ("", "multipart/form-data", b"", 400, "boundary"),
        ("", "multipart/form-data; boundary=xx", b"nothing of the kind", 400, "multipart"),
        ("", "multipart/form-data; boundary=xx", b"--xx--", 400, "no file"),
        (
            "",
            "multipart/form-data; boundary=xx",
            b'--xx\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n--xx--',
            400,
            "top_k is no file",
        ),
    ],
)
def test_what_cannot_be_classified_is_refused_with_one_line(server, options, header, body, status, reason):
    answer = server.classify(body, options, headers={"Content-Type": header} if header else {})
    assert re.search(reason, refusal(answer, status))


def test_a_whole_number_may_be_written_as_a_float(server):
    assert len(server.classify(image_file(), "?top_k=2.0").json()) == 2
    asked = {"inputs": np.full((1, 4, 4, 3), 200.0).tolist(), "params": {"top_k": 2.0}}
    assert len(server.invoke(asked).json()["predictions"]) == 2


def test_what_is_not_there_or_not_for_this_method_is_plain_json(server):
    missing = requests.get(f"{server.uri}/predict", timeout=60)
    assert "/predict" in refusal(missing, 404) and missing.json()["error_code"] == "ENDPOINT_NOT_FOUND"
    for method, path in (("GET", "/classify"), ("GET", "/invocations"), ("POST", "/health"), ("DELETE", "/version")):
        answer = requests.request(method, server.uri + path, timeout=60)
        assert method in refusal(answer, 405)
        assert answer.headers["Allow"]


def test_the_server_says_how_it_is_which_version_answers_and_what_it_knows(server):
    health, ping, version, classes = (
        requests.get(server.uri + path, timeout=60) for path in ("/health", "/ping", "/version", "/classes")
    )
    assert (health.status_code, health.json(), ping.status_code) == (200, {"status": "ok"}, 200)
    assert version.json() == {
        "name": "colours-classifier",
        "version": 7,
        "aliases": ["champion", "colours"],
        "onnx_sha256": server.packaged.metadata.metadata["onnx_sha256"],
        "precision": "float32",
        "format": onnx_model.FORMAT,
        "mlflow": mlflow.__version__,
    }
    assert classes.json()[:4:3] == [
        {"class": "red", "superclass": "coloured"},
        {"class": "white", "superclass": "grey"},
    ]


def test_the_api_describes_what_it_takes_and_its_example_works(server):
    api = requests.get(f"{server.uri}/openapi.json", timeout=60).json()
    assert api["info"]["title"] == "Image classifier"
    assert set(api["paths"]) == {"/classify", "/invocations", "/health", "/version", "/classes"}
    classify = api["paths"]["/classify"]["post"]
    assert {"image/jpeg", "image/png", "multipart/form-data"} < set(classify["requestBody"]["content"])
    assert [parameter["name"] for parameter in classify["parameters"]] == ["top_k", "square"]
    assert set(classify["responses"]) == {"200", "4XX"}
    row = api["components"]["schemas"]["Row"]["properties"]
    assert set(row) == set(server.classify(image_file()).json()[0])
    example = api["paths"]["/invocations"]["post"]["requestBody"]["content"][http_server.JSON]["example"]
    assert len(server.invoke(example).json()["predictions"]) == example["params"]["top_k"]


def test_the_page_of_the_api_needs_nothing_from_elsewhere(server):
    page = requests.get(f"{server.uri}/docs", timeout=60).text
    assert "<title>Image classifier" in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(links) == 3
    for link in links:
        assert link.startswith("/")
        assert requests.get(server.uri + link, timeout=60).status_code == 200


def test_mlflows_protocol_gives_probabilities_or_rows(server):
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    expected = server.classifier.probabilities(images)
    answer = server.invoke({"inputs": images.tolist()}, "Application/JSON; charset=UTF-8")
    assert answer.headers["Content-Type"] == http_server.JSON
    np.testing.assert_allclose(answer.json()["predictions"], expected, atol=1e-6)
    rows = server.invoke({"inputs": images.tolist(), "params": {"top_k": 1, "square": "pad"}}).json()["predictions"]
    padded = server.classifier.probabilities(images, "pad")
    assert [row["class"] for row in rows] == [CLASSES[index] for index in padded.argmax(1)]
    assert set(rows[0]) == set(server.classify(image_file()).json()[0])


BAD_JSON: dict[str, tuple[Any, str]] = {
    "fractions": ({"inputs": [[[[0.5, 0.1, 0.2]]]]}, "whole numbers from 0 to 255"),
    "out of range": ({"inputs": [[[[0, 0, 256]]]]}, "whole numbers from 0 to 255"),
    "below zero": ({"inputs": [[[[0, 0, -1]]]]}, "whole numbers from 0 to 255"),
    "text": ({"inputs": [[[["a", "b", "c"]]]]}, "whole numbers"),
    "a file's name": ({"inputs": "image.png"}, "not str"),
    "not a number": ('{"inputs": [[[[NaN, 0, 0]]]]}', "whole numbers"),
    "infinity": ('{"inputs": [[[[1e999, 0, 0]]]]}', "whole numbers"),
    "null": ({"inputs": None}, "not NoneType"),
    "no batch": ({"inputs": GREY[0]}, r"not \(4, 4, 3\)"),
    "two colours": ({"inputs": [[[[1, 2]]]]}, r"not \(1, 1, 1, 2\)"),
    "two sizes": ({"inputs": [GREY[0], GREY[0] * 2]}, "of one size"),
    "no image": ({"inputs": []}, "with pixels"),
    "no pixels": ({"inputs": [[[]]]}, "with pixels"),
    "columns": ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "dataframe_split"),
    "a chat": ({"messages": [{"role": "user", "content": "hi"}]}, "messages"),
    "no inputs": ({"images": GREY}, "has the keys images: send"),
    "another key": ({"inputs": GREY, "top_k": 3}, "has the keys inputs, top_k: send"),
    "an unknown parameter": ({"inputs": GREY, "params": {"topk": 3}}, "params are topk: .*top_k or square"),
    "top_k of 1000": ({"inputs": GREY, "params": {"top_k": 1000}}, "ask for 1 to 6 classes"),
    "top_k below zero": ({"inputs": GREY, "params": {"top_k": -1}}, "ask for 1 to 6 classes"),
    "top_k in words": ({"inputs": GREY, "params": {"top_k": "three"}}, "top_k"),
    "top_k and a half": ({"inputs": GREY, "params": {"top_k": 2.5}}, "top_k"),
    "squeezed": ({"inputs": GREY, "params": {"square": "squeeze"}}, "crop, pad"),
    "params in a list": ({"inputs": GREY, "params": [3]}, "params are list: an object"),
    "no params in a list": ({"inputs": GREY, "params": []}, "params are list: an object"),
    "broken": ('{"inputs": [[[', "no valid JSON"),
    "empty": ("", "no valid JSON"),
    "a list": ([1, 2], "no JSON object"),
    "bytes": (b"\x89PNG\r\n\x1a\n\xff", "no valid JSON"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "digits": (f'{{"inputs": [[[[{"1" * 5_000}]]]]}}', "too many digits"),
    "a long key": ({"a" * 100_000: 1}, "has the keys aaa"),
    "half a character": (r'{"\ud800": 1}', r"has the keys \?"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_mlflows_protocol_refuses_what_it_would_ignore_or_fail_on(server, name):
    body, reason = BAD_JSON[name]
    assert re.search(reason, refusal(server.invoke(body), 400))


@pytest.mark.parametrize("kind", ["text/csv", "application/vnd.apache.parquet", "image/jpeg", None])
def test_mlflows_protocol_takes_json_only(server, kind):
    assert "send JSON" in refusal(server.invoke({"inputs": GREY}, kind), 415)


def test_options_in_the_address_of_mlflows_protocol_are_refused(server):
    answer = requests.post(f"{server.uri}/invocations?top_k=3", json={"inputs": GREY}, timeout=60)
    assert "?top_k=3" in refusal(answer, 400)


def test_json_in_another_encoding_is_refused(server):
    assert "UTF-8" in refusal(server.invoke({"inputs": GREY}, "application/json; charset=latin-1"), 415)


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
    assert server.invoke(in_chunks(start, LIMIT)).status_code == 200
    assert "32 MB" in refusal(server.invoke(in_chunks(start, LIMIT + 1)), 413)
    assert best(server.classify(in_chunks(image_file("green"), 0))) == "green"
    assert "32 MB" in refusal(server.classify(in_chunks(image_file(), LIMIT + 1)), 413)
    multipart = {"Content-Type": "multipart/form-data; boundary=xx"}
    part = b'--xx\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    assert "32 MB" in refusal(server.classify(in_chunks(part, LIMIT + 1), headers=multipart), 413)


def test_a_request_that_is_too_large_is_refused_before_it_is_sent(server):
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
        colour = CLASSES[number % len(CLASSES)]
        assert best(server.classify(image_file(colour, (40 + number, 40)))) == colour
        images = np.full((1, 9, 9, 3), COLOURS[colour], np.uint8).tolist()
        rows = server.invoke({"inputs": images, "params": {"top_k": 1}}).json()["predictions"]
        assert rows[0]["class"] == colour

    with ThreadPoolExecutor(16) as threads:
        assert len(list(threads.map(ask, range(120)))) == 120


def test_a_failing_model_is_one_line_for_the_client_and_a_trace_for_the_log(server, monkeypatch, caplog):
    monkeypatch.setattr(server.classifier.network, "logits", lambda images: 1 / 0)
    for answer in (server.classify(image_file()), server.invoke({"inputs": GREY})):
        refusal(answer, 500)
        assert answer.json()["error_code"] == "INTERNAL_ERROR"
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_hangs_up_leaves_no_trace(server, caplog):
    with socket.create_connection(("127.0.0.1", int(server.uri.rpartition(":")[2]))) as client:
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: 99\r\n\r\nx")
    time.sleep(0.2)
    assert best(server.classify(image_file())) == "red"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_request_under_way_is_answered_by_the_version_it_began_with(tmp_path, monkeypatch):
    running = Running(package(tmp_path / "old" / "package", ["red", "blue"]))
    new = mlflow.pyfunc.load_model(str(package(tmp_path / "new" / "package", ["yellow", "black"])))
    begun, goes_on = threading.Event(), threading.Event()
    logits = running.classifier.network.logits

    def slow(images: np.ndarray) -> np.ndarray:
        begun.set()
        assert goes_on.wait(60)
        return logits(images)

    monkeypatch.setattr(running.classifier.network, "logits", slow)
    try:
        with ThreadPoolExecutor(1) as thread:
            early = thread.submit(running.classify, image_file("blue"))
            assert begun.wait(60)
            version = Version("sqlite:///a.db", "colours-classifier", 8, 0)
            running.served.model = SimpleNamespace(packaged=new, version=version)
            late = running.classify(image_file("black"))
            goes_on.set()
        assert (best(early.result()), early.result().headers["Model-Version"]) == ("blue", "7")
        assert (best(late), late.headers["Model-Version"]) == ("black", "8")
    finally:
        running.stop()


def add_version(tracking_uri: str, folder: Path, **tags: str) -> str:
    """Register a package and make it the champion; returns its number."""
    client = MlflowClient(tracking_uri=tracking_uri)
    if not client.search_registered_models():
        client.create_registered_model("colours-classifier")
    number = client.create_model_version("colours-classifier", folder.as_uri(), tags=tags).version
    client.set_registered_model_alias("colours-classifier", "champion", number)
    return number


def damaged(folder: Path) -> Path:
    (folder / "artifacts" / "model.onnx").write_bytes(b"changed")
    return folder


def eventually(holds: Any) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@contextmanager
def following(served: http_server.Served) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=served.follow, args=("champion", 0.05, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_champion_is_followed_and_one_that_does_not_load_leaves_the_old_one(tracking_uri, tmp_path, caplog, capsys):
    add_version(tracking_uri, package(tmp_path / "1" / "package", ["red", "blue"]))
    served = http_server.Served(registry.load(registry.connect().version("colours-classifier", "champion")))
    with following(served):
        add_version(tracking_uri, damaged(package(tmp_path / "2" / "package")))
        eventually(lambda: "is not what was registered" in caplog.text)
        time.sleep(0.5)  # several turns
        lines = [record.getMessage() for record in caplog.records if record.name == "gui.server"]
        assert len(lines) == 1 and "\n" not in lines[0]
        assert lines[0].startswith("version 1 of colours-classifier goes on answering: ")
        assert served.model.version.number == 1
        add_version(tracking_uri, package(tmp_path / "3" / "package", ["white", "black"]))
        eventually(lambda: served.model.version.number == 3)
    assert served.model.packaged.metadata.metadata["class_names"] == ["white", "black"]
    assert capsys.readouterr().out == "version 3 of colours-classifier answers now\n"


@contextmanager
def command(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real process in which no framework can be imported, and its address, once it says that it answers."""
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({FRAMEWORKS})); "
        "runpy.run_module('gui.server', run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = process.stdout.readline()
        if not said:
            pytest.fail(process.stderr.read())
        yield process, re.search(r"http://[^/]*", said).group()
    finally:
        process.terminate()
        process.communicate()


def run(*arguments: str, **environment: str) -> str:
    """What the command says before it ends with status 2: one line on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "gui.server", *arguments],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("server: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_the_command_serves_the_champion_without_a_framework_and_follows_it(tracking_uri, tmp_path):
    add_version(tracking_uri, package(tmp_path / "1" / "package"))
    (tmp_path / "photo.jpg").write_bytes(image_file("yellow"))
    with command("--port", "0", "--reload", "0.2") as (process, uri):
        readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
        line = next(line for line in readme.splitlines() if line.startswith("curl") and "/classify" in line)
        assert line.split("  #")[0].rstrip() == (
            "curl -s --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:5001/classify"
        )
        line = line.replace("http://127.0.0.1:5001", uri)
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, text=True)
        assert json.loads(done.stdout)[0]["class"] == "yellow"

        with pytest.raises(OSError):  # this machine, another door
            socket.create_connection(("127.0.0.2", int(uri.rpartition(":")[2])), timeout=5)

        assert requests.get(f"{uri}/version", timeout=60).json()["version"] == 1
        add_version(tracking_uri, damaged(package(tmp_path / "2" / "package")))
        assert "version 1 of colours-classifier goes on answering" in process.stderr.readline()
        add_version(tracking_uri, package(tmp_path / "3" / "package"))
        eventually(lambda: requests.get(f"{uri}/version", timeout=60).json()["version"] == 3)

        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""


def test_a_wrong_command_is_one_line_before_anything_is_loaded(tmp_path):
    nowhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'missing.db'}"}
    assert "No model is registered yet" in run("--port", "0", **nowhere)  # what is said last
    assert "--port 80000: choose one from 1 to 65535" in run("--port", "80000", **nowhere)
    assert "--port -1" in run("--port", "-1", **nowhere)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} (Address already in use): choose another" in run("--port", port, **nowhere)
    assert "cannot listen at no.such.host.invalid" in run("--host", "no.such.host.invalid", "--port", "0", **nowhere)
    assert "--reload 0: give a number of seconds above 0" in run("--reload", "0", **nowhere)
    assert "colours-classifier@3 never moves" in run("--reload", "9", "--model", "colours-classifier@3", **nowhere)
