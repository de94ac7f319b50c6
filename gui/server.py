"""A registered model over HTTP: image files in, labelled rows out; and MLflow's own protocol at /invocations.

Wrong requests get a status of 4xx and one line that says why. /docs describes all of it.
"""

import argparse
import asyncio
import json
import logging
import math
import socket
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import numpy as np
import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from gui import command_line, pictures, registry
from gui.command_line import UsageError
from gui.pictures import PictureError

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

    from gui.registry import Model

MAX_MEGABYTES = 32  # of a request: 2 million pixels as numbers; they take ten times as much for a moment
MAX_BYTES = MAX_MEGABYTES * 2**20
MAX_REASON = 300  # characters
TOP_K = 5
JSON = "application/json"
ANY_FILE = "application/octet-stream"
MULTIPART = "multipart/form-data"
IMAGE_TYPES = [f"image/{name.lower()}" for name in pictures.FORMATS]

logger = logging.getLogger(__name__)

DESCRIPTION = """
Image files in, classes with their probabilities out:

    curl -s --data-binary @photo.jpg -H 'Content-Type: image/jpeg' 'http://127.0.0.1:5001/classify?top_k=3'
    curl -s -F files=@photo.jpg -F files=@scan.png http://127.0.0.1:5001/classify

What cannot be answered gets a status of 4xx and `{"error_code": ..., "message": ...}`, the message one line.
"""
FILE = {"type": "string", "format": "binary"}
FILES = {"type": "object", "properties": {"files": {"type": "array", "items": FILE}}}
CLASSIFY_BODY = {kind: {"schema": FILE} for kind in (*IMAGE_TYPES, ANY_FILE)} | {MULTIPART: {"schema": FILES}}
INVOCATION = {"inputs": [[[[200, 30, 30], [200, 30, 30]], [[30, 30, 200], [30, 30, 200]]]], "params": {"top_k": 3}}

router = APIRouter()


class Options(BaseModel):
    """Of /classify."""

    model_config = ConfigDict(extra="forbid")
    top_k: int | None = Field(None, description=f"rows for each image (default: {TOP_K}, or all classes if fewer)")
    square: Literal["crop", "pad"] | None = Field(
        None, description="keep the centre of an image that is not square, or add white borders (default: the model's)"
    )


class Row(BaseModel):
    """As described in /docs; what is sent comes from the model."""

    image: str | int = Field(examples=["photo.jpg"])
    rank: int = Field(examples=[1])
    class_name: str = Field(alias="class", examples=["sunflower"])
    superclass: str = Field(examples=["flowers"])
    probability: float = Field(examples=[0.93])
    prediction_set: list[str] = Field(examples=[["sunflower"]])
    out_of_distribution: bool | None = Field(examples=[False])


class Unreadable(BaseModel):
    """A file among several that is no image."""

    image: str | int = Field(examples=["notes.txt"])
    error: str = Field(examples=["This file is no picture that can be read here: choose a JPEG, PNG ..."])


class Failure(BaseModel):
    error_code: str = Field(examples=["BAD_REQUEST"])
    message: str = Field(examples=["top_k = 1000: ask for 1 to 100 classes"])


class Served:
    """The version that answers. Another one may take its place while requests that hold the old one end with it."""

    def __init__(self, model: "Model") -> None:
        self.model = model

    def follow(self, alias: str, seconds: float, stop: threading.Event) -> None:
        """Every so often load the version that the alias points to by then; the old one answers meanwhile.

        Where that fails, the old one stays, one line in the log says why, and the next turn tries again.
        """
        told = ""
        while not stop.wait(seconds):
            reason = ""
            try:
                version = registry.connect().version(self.model.version.name, alias)
                if version != self.model.version:
                    self.model = registry.load(version)
                    print(f"{version} answers now", flush=True)
            except Exception as error:  # whatever it is, the version that is loaded can answer
                reason = " ".join(str(error).split()) or type(error).__name__
            if reason and reason != told:
                logger.error("%s goes on answering: %s", self.model.version, reason)
            told = reason


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gui.server", description=__doc__)
    command_line.add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=5001, help="0: any free one (default: 5001)")
    parser.add_argument(
        "--reload", type=float, metavar="SECONDS", help="look so often whether the alias moved (default: never)"
    )
    arguments = parser.parse_args()
    with command_line.one_line_errors("server"):
        alias = _alias(arguments.model)
        if arguments.reload is not None and not (arguments.reload > 0 and math.isfinite(arguments.reload)):
            raise UsageError(f"--reload {arguments.reload:g}: give a number of seconds above 0")
        if arguments.reload is not None and alias.isdecimal():
            raise UsageError(f"--reload: {arguments.model} never moves, follow an alias instead (--model NAME@ALIAS)")
        with _listening(arguments.host, arguments.port) as listening:
            # OpenVINO gives the thread that loads a model a stack for its signals, which goes with the model: after a
            # reload, Ctrl-C would crash a main thread that had loaded the first one.
            with ThreadPoolExecutor(1) as thread:
                served = Served(thread.submit(command_line.load, arguments.model).result())
            app = app_of(served)
            if arguments.reload is not None:
                following = (alias, arguments.reload, threading.Event())
                threading.Thread(target=served.follow, args=following, daemon=True).start()
            host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
            address = f"http://{host}:{listening.getsockname()[1]}"
            print(f"{served.model.version} answers at {address}/classify, described at {address}/docs", flush=True)
            # Requests under way are answered before it ends, but one that is stuck is not waited for.
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
            with suppress(KeyboardInterrupt):  # how it is stopped
                uvicorn.Server(config).run(sockets=[listening])


def _alias(model: str | None) -> str:
    """Of what --model says; a version's number where it names that."""
    return (model or "").removeprefix("models:/").replace("/", "@").partition("@")[2] or registry.CHAMPION


def _listening(host: str, port: int) -> socket.socket:
    """A socket on which requests queue from now on; UsageError where there can be none."""
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: choose one from 1 to 65535")
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).split(" (while")[0]
        raise UsageError(f"cannot listen at {host}, port {port} ({reason}): choose another --port or --host") from error
    # asyncio does so for sockets of its own; otherwise the body of an answer waits 40 ms for its headers to arrive.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def app_of(served: Served) -> FastAPI:
    """The web application that answers with what `served` holds when a request arrives."""
    from mlflow.exceptions import MlflowException

    app: FastAPI = FastAPIOffline(  # scripts of /docs come from here, not from the internet
        redoc_url=None,
        title="Image classifier",
        description=DESCRIPTION,
        version="1",
        responses={"4XX": {"model": Failure, "description": "What is wrong, in one line"}},
    )
    app.state.served = served
    app.include_router(router)
    app.exception_handler(StarletteHTTPException)(_on_http_exception)
    app.exception_handler(RequestValidationError)(_on_wrong_options)
    app.exception_handler(MlflowException)(_on_mlflow_exception)
    app.exception_handler(Exception)(_on_bug)
    return app


@router.post(
    "/classify",
    response_model=list[Row | Unreadable],
    openapi_extra={"requestBody": {"required": True, "content": CLASSIFY_BODY}},
)
async def classify(request: Request, options: Annotated[Options, Query()]) -> Response:
    """Classify image files: one as the body, or several as multipart/form-data.

    `image`: the file's name, or its number from 0 where it has none. `prediction_set`: the classes that hold the right
    one for 90 of 100 images. `out_of_distribution`: whether the image is unlike those of the training; null where the
    model cannot tell. A file among several that is no image gets one row with `error` instead.
    """
    kind = _kind(request)
    if kind == MULTIPART:
        files = await _files(request)
    elif kind == ANY_FILE or kind.startswith("image/"):
        files = [(0, await _body(request))]
    else:
        _refuse(415, f"the request is {kind or 'of no type'}: send an image, with the header Content-Type: image/jpeg")
    model = request.app.state.served.model
    rows = await asyncio.to_thread(_classify, model, files, options)
    if kind != MULTIPART and "error" in rows[0]:
        _refuse(400, rows[0]["error"])
    return JSONResponse(rows, headers={"Model-Version": str(model.version.number)})


@router.post(
    "/invocations",
    response_model=dict[str, list[Row] | list[list[float]]],
    openapi_extra={"requestBody": {"required": True, "content": {JSON: {"example": INVOCATION}}}},
)
async def invocations(request: Request) -> Response:
    """MLflow's protocol: images of one size as lists (N, H, W, 3) of whole numbers from 0 to 255.

    `params` may hold `top_k` and `square`; without `top_k` all probabilities come, in the order of /classes.
    """
    kind = _kind(request)
    if kind != JSON:
        _refuse(415, f"the request is {kind or 'of no type'}: send JSON, with the header Content-Type: {JSON}")
    if request.query_params:
        _refuse(400, f'the address ends in ?{request.query_params}: send options as "params" beside "inputs"')
    body = await _body(request)
    content_type = request.headers["content-type"].lower()  # MLflow knows small letters only
    return await asyncio.to_thread(_invoke, request.app.state.served.model, body, content_type)


@router.get("/ping", include_in_schema=False)  # MLflow's name for it
@router.get("/health")
async def health() -> dict[str, str]:
    """Whether a model is loaded: before, nothing answers."""
    return {"status": "ok"}


@router.get("/version")
async def version(request: Request) -> dict[str, Any]:
    """The registered version that answers, with the aliases that it had when it was loaded."""
    from mlflow.version import VERSION

    model = request.app.state.served.model
    metadata = model.packaged.metadata.metadata
    return {
        "name": model.version.name,
        "version": model.version.number,
        "aliases": model.version.aliases,
        **{key: metadata[key] for key in ("onnx_sha256", "precision", "format")},
        "mlflow": VERSION,
    }


@router.get("/classes")
async def classes(request: Request) -> list[dict[str, str]]:
    """The classes and their superclasses, in the order of the probabilities that /invocations gives."""
    classifier = _classifier(request.app.state.served.model)
    pairs = zip(classifier.class_names.tolist(), classifier.superclass_of.tolist(), strict=True)
    return [{"class": name, "superclass": superclass} for name, superclass in pairs]


def _classify(model: "Model", files: Sequence[tuple[int | str, bytes]], options: Options) -> list[dict[str, Any]]:
    """Rows for each file, or one with the key `error`, in the order of the files."""
    classifier = _classifier(model)
    known = len(classifier.class_names)
    top_k = min(TOP_K, known) if options.top_k is None else options.top_k
    if not 1 <= top_k <= known:
        _refuse(400, f"top_k = {top_k}: ask for 1 to {known} classes")
    answers: list[list[dict[str, Any]]] = []
    images, owners = [], []  # what the network sees, and which file it comes from
    for index, (name, content) in enumerate(files):
        answers.append([])
        try:
            images.append(classifier.prepare(pictures.load(content)[np.newaxis], options.square)[0])
            owners.append(index)
        except PictureError as error:
            answers[index] = [{"image": name, "error": str(error)}]
    if images:
        for row in classifier.rows(classifier.probabilities(np.stack(images)), top_k).to_dict("records"):
            index = owners[row["image"]]
            answers[index].append(row | {"image": files[index][0]})
    return [row for rows in answers for row in rows]


def _invoke(model: "Model", body: bytes, content_type: str) -> Response:
    """What MLflow's scoring server answers, but whatever it would ignore is refused."""
    from mlflow.pyfunc import scoring_server

    try:
        asked = json.loads(body)
    except RecursionError:
        _refuse(400, "the lists in this request are nested too deeply: send images as lists (N, H, W, 3)")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        _refuse(400, f"the request is no valid JSON ({error})")
    except ValueError:  # Python limits the digits of a number
        _refuse(400, "a number in this request has too many digits: send whole numbers from 0 to 255")
    if not isinstance(asked, dict) or asked.keys() - {"params"} != {"inputs"}:
        found = f"has the keys {', '.join(asked) or 'none'}" if isinstance(asked, dict) else "is no JSON object"
        _refuse(400, f'the request {found}: send {{"inputs": images as lists (N, H, W, 3)}}, and "params" if need be')
    about, params = model.packaged.metadata, {} if asked.get("params") is None else asked["params"]
    known = [param.name for param in about.get_params_schema().params]
    if not isinstance(params, dict) or set(params) - set(known):
        found = ", ".join(params) if isinstance(params, dict) else type(params).__name__
        _refuse(400, f"params are {found}: an object is expected, with {' or '.join(known)}")
    asked["params"] = {name: _whole(value) for name, value in params.items()}
    result = scoring_server.invocations(asked, content_type, model.packaged, about.get_input_schema())
    if result.status != 200:
        _refuse(result.status, result.response)
    return Response(result.response, media_type=result.mimetype)


def _whole(value: Any) -> Any:
    """Many a client writes 3.0 for 3, which MLflow does not take for a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _classifier(model: "Model") -> Any:
    """The ImageClassifier of the copy of stages/inference/onnx_model.py that the version brought along."""
    return model.packaged.unwrap_python_model().classifier


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def _files(request: Request) -> list[tuple[int | str, bytes]]:
    """The files of a multipart request: name, or number from 0 where they have none, and content."""
    parser = MultiPartParser(request.headers, _chunks(request))
    parser.spool_max_size = MAX_BYTES  # nothing is written to disk
    try:
        parts = (await parser.parse()).multi_items()
    except MultiPartException as error:
        _refuse(400, f"the request cannot be read as {MULTIPART} ({error.message})")
    files: list[tuple[int | str, bytes]] = []
    for field, file in parts:
        if isinstance(file, str):
            _refuse(400, f"the field {field} is no file: send files, and options in the address, as in ?top_k=3")
        files.append((file.filename or len(files), await file.read()))
    if not files:
        _refuse(400, "there is no file in this request: send some, as curl -F files=@photo.jpg does")
    return files


async def _body(request: Request) -> bytes:
    return b"".join([chunk async for chunk in _chunks(request)])


async def _chunks(request: Request) -> AsyncGenerator[bytes, None]:
    """The body as it comes, up to the limit, whether its length was told before or not."""
    too_large = f"the request has more than {MAX_MEGABYTES} MB: send fewer or smaller images at once"
    if int(request.headers.get("content-length", 0)) > MAX_BYTES:
        _refuse(413, too_large)
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BYTES:
                _refuse(413, too_large)
            yield chunk
    except ClientDisconnect:
        _refuse(400, "the request ended before its body did")


def _refuse(status: int, reason: str) -> NoReturn:
    raise HTTPException(status, reason)


async def _on_http_exception(request: Request, error: StarletteHTTPException) -> Response:
    reason = {
        404: f"there is nothing at {request.url.path}: see /docs",
        405: f"{request.method} does not work at {request.url.path}: see /docs",
    }.get(error.status_code, error.detail)
    code = "ENDPOINT_NOT_FOUND" if error.status_code == 404 else "BAD_REQUEST"
    return _failure(error.status_code, code, reason, error.headers)


async def _on_wrong_options(request: Request, error: RequestValidationError) -> Response:
    wrong = error.errors()[0]
    is_unknown = wrong["type"] == "extra_forbidden"
    reason = f"the options are {', '.join(Options.model_fields)}" if is_unknown else wrong["msg"]
    return _failure(400, "BAD_REQUEST", f"{wrong['loc'][-1]} = {wrong['input']}: {reason}")


async def _on_mlflow_exception(request: Request, error: "MlflowException") -> Response:
    reason = str(error)  # error.message repeats the request before it
    return _failure(error.get_http_status_code(), error.error_code, reason)


async def _on_bug(request: Request, error: Exception) -> Response:
    """Told by uvicorn in the log, stack trace and all."""
    return _failure(500, "INTERNAL_ERROR", "this request failed: the reason stands in the server's log")


def _failure(status: int, code: str, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    line = " ".join(reason.encode(errors="replace").decode().split())  # JSON may bring what UTF-8 cannot write
    line = line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"
    return JSONResponse({"error_code": code, "message": line}, status, headers)


if __name__ == "__main__":
    main()
