"""A registered model over HTTP: image files in, labelled rows out; and MLflow's own protocol at /invocations.

Wrong requests get a status of 4xx and one line that says why. /docs describes all of it.
"""

import argparse
import asyncio
import logging
import math
import reprlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gui import batch, command_line, images, process, registry
from gui.archives import File
from gui.registry import Model, RegistryError, Square
from stages.common.errors import UserError

MAX_MEGABYTES = 32  # of a request: 2 million pixels as numbers; they take ten times as much for a moment
MAX_BYTES = MAX_MEGABYTES * 2**20
MAX_REASON = 300  # characters
JSON = "application/json"
ANY_FILE = "application/octet-stream"
MULTIPART = "multipart/form-data"
IMAGE_TYPES = [f"image/{name.lower()}" for name in images.FORMATS]

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
TINY_IMAGES = [[[[200, 30, 30], [200, 30, 30]], [[30, 30, 200], [30, 30, 200]]]]

router = APIRouter()


class Options(BaseModel):
    """Of a request."""

    model_config = ConfigDict(extra="forbid")
    top_k: int | None = Field(None, description="rows for each image")
    square: Square | None = Field(
        None, description="keep the centre of an image that is not square, or add white borders (default: the model's)"
    )


class Invocation(BaseModel):
    """MLflow's protocol. inputs: images of one size, (N, H, W, 3), whole numbers from 0 to 255."""

    model_config = ConfigDict(extra="forbid")
    inputs: Any = Field(examples=[TINY_IMAGES])
    params: Options | None = Field(None, examples=[{"top_k": 3}])


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
    error: str = Field(examples=["This file is no image that can be read here: choose a JPEG, PNG ..."])


class Failure(BaseModel):
    error_code: str = Field(examples=["BAD_REQUEST"])
    message: str = Field(examples=["top_k = 1000: ask for 1 to 100 classes"])


class Served:
    """The model that is served. Another one may take its place; requests that hold the old one end with it."""

    def __init__(self, model: Model, alias: str = registry.CHAMPION) -> None:
        self.model, self.alias = model, alias

    def follow(self, seconds: float, stop: threading.Event, threads: int | None = None) -> None:
        """Every so often load the version that the alias points to by then; the old one is served meanwhile.

        Where that fails, the old one stays, one line in the log says why, and the next turn tries again.
        """
        logged = ""
        while not stop.wait(seconds):
            reason = ""
            try:
                version = registry.connect().version(self.model.version.name, self.alias)
                if version != self.model.version:
                    self.model = registry.load(version, threads)
                    print(f"{version} is served now", flush=True)
            except Exception as error:  # whatever it is, the version that is loaded works
                reason = images.summary(error)
            if reason and reason != logged:
                logger.error("%s is still served: %s", self.model.version, reason)
            logged = reason


class BodyLimit:
    """Middleware: refuses a body of more than MAX_BYTES, by its announced length or as it comes.

    FastAPI's own max_body_size answers in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = int(dict(scope.get("headers", ())).get(b"content-length", 0))
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive() if size <= MAX_BYTES else {}
            received += len(message.get("body", b""))
            if max(size, received) > MAX_BYTES:
                reason = f"the request has more than {MAX_MEGABYTES} MB: send fewer or smaller images at once"
                raise HTTPException(413, reason)
            return message

        await self.app(scope, limited, send)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gui.server", description=__doc__)
    command_line.add_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=5001, help="0: any free one (default: 5001)")
    parser.add_argument(
        "--reload", type=float, metavar="SECONDS", help="look so often whether the alias moved (default: never)"
    )
    arguments = parser.parse_args()
    process.set_up()
    with command_line.one_line_errors("server"):
        _serve(arguments)


def _serve(arguments: argparse.Namespace) -> None:
    wanted, seconds = arguments.model, arguments.reload
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise UserError(f"--reload {seconds:g}: give a number of seconds above 0")
    if seconds is not None and wanted.alias.isdecimal():
        raise UserError(f"--reload: version {wanted.alias} never moves, follow an alias (--model NAME@ALIAS)")
    with _listening(arguments.host, arguments.port) as listening:
        # OpenVINO gives the thread that loads a model a stack for its signals, which goes with the model: after a
        # reload, Ctrl-C would crash a main thread that had loaded the first one.
        with ThreadPoolExecutor(1) as thread:
            model = thread.submit(command_line.load, wanted, arguments.threads).result()
        served = Served(model, wanted.alias)
        if seconds is not None:
            following = (seconds, threading.Event(), arguments.threads)
            threading.Thread(target=served.follow, args=following, daemon=True).start()
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        address = f"http://{host}:{listening.getsockname()[1]}"
        print(f"{model.version} is served at {address}/classify, described at {address}/docs", flush=True)
        # Requests under way are answered before it ends, but one that is stuck is not waited for.
        config = uvicorn.Config(app_of(served), log_level="warning", timeout_graceful_shutdown=5)
        with suppress(KeyboardInterrupt):  # how it is stopped
            uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket on which requests queue from now on; UserError where there can be none."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).split(" (while")[0]
        raise UserError(f"cannot listen at {host}, port {port} ({reason}): choose another --port or --host") from error
    # asyncio does so for sockets of its own; otherwise the body of an answer waits 40 ms for its headers to arrive.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def app_of(served: Served) -> FastAPI:
    """The web application that answers with what `served` holds when a request arrives."""
    from mlflow.exceptions import MlflowException

    MultiPartParser.spool_max_size = MAX_BYTES  # no upload is written to disk
    app: FastAPI = FastAPIOffline(  # scripts of /docs come from here, not from the internet
        redoc_url=None,
        title="Image classifier",
        description=DESCRIPTION,
        version="1",
        responses={"4XX": {"model": Failure, "description": "What is wrong, in one line"}},
        exception_handlers={
            StarletteHTTPException: _on_http_exception,
            RequestValidationError: _on_wrong_request,
            ClientDisconnect: lambda request, error: _failure(400, "the request ended before its body did"),
            UserError: lambda request, error: _failure(400, str(error)),
            RegistryError: _on_failing_model,
            MlflowException: lambda request, error: _failure(error.get_http_status_code(), str(error)),
            # Logged by uvicorn, stack trace and all.
            Exception: lambda request, error: _failure(500, "this request failed: the server's log says why"),
        },
    )
    app.add_middleware(BodyLimit)
    app.state.served = served
    app.include_router(router)
    return app


def _model(request: Request) -> Model:
    return request.app.state.served.model


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def _json_alone(request: Request) -> None:
    if (kind := _kind(request)) != JSON:
        raise HTTPException(415, f"the request is {kind or 'of no type'}: send JSON as Content-Type: {JSON}")
    if request.query_params:
        raise UserError(f'the address ends in ?{request.query_params}: send options as "params" beside "inputs"')


Loaded = Annotated[Model, Depends(_model)]


@router.post(
    "/classify",
    response_model=list[Row | Unreadable],
    openapi_extra={"requestBody": {"required": True, "content": CLASSIFY_BODY}},
)
async def classify(request: Request, model: Loaded, options: Annotated[Options, Query()]) -> Response:
    """Classify image files: one as the body, or several as multipart/form-data.

    `image`: the file's name, or its number from 0 where it has none. `prediction_set`: 90 % prediction set; over many
    images it holds the right class 9 times in 10. `out_of_distribution`: whether the image is unlike those of the
    training; null where the model cannot tell (why: `ood` in /version). A file among several that is no image gets one
    row with `error` instead.
    """
    kind = _kind(request)
    if kind == MULTIPART:
        files = await _files(request)
    elif kind == ANY_FILE or kind.startswith("image/"):
        content = await request.body()
        files = [File(0, lambda: content)]
    else:
        raise HTTPException(415, f"the request is {kind or 'of no type'}: send an image as Content-Type: image/jpeg")
    results = await asyncio.to_thread(lambda: list(batch.classify(model, files, options.square, options.top_k)))
    if kind != MULTIPART and results[0].error:
        raise UserError(results[0].error)
    rows = [row for result in results for row in result.rows or [{"image": result.image, "error": result.error}]]
    return JSONResponse(rows, headers={"Model-Version": str(model.version.number)})


async def _files(request: Request) -> list[File]:
    """The files of a multipart request: name, or number from 0 where they have none, and content."""
    files: list[File] = []
    for field, file in (await request.form()).multi_items():
        if isinstance(file, str):
            raise UserError(f"the field {field} is no file: send files, and options in the address, as in ?top_k=3")
        files.append(File(file.filename or len(files), file.file.read))
    if not files:
        raise UserError("there is no file in this request: send some, as curl -F files=@photo.jpg does")
    return files


@router.post(
    "/invocations", response_model=dict[str, list[Row] | list[list[float]]], dependencies=[Depends(_json_alone)]
)
def invocations(model: Loaded, asked: Invocation) -> Response:
    """MLflow's protocol: without `top_k` all probabilities come, in the order of /classes."""
    params = asked.params.model_dump(exclude_none=True) if asked.params else {}
    found: Any = model.packaged.predict(asked.inputs, params=params)
    return JSONResponse({"predictions": found.tolist() if isinstance(found, np.ndarray) else found.to_dict("records")})


@router.get("/ping", include_in_schema=False)  # MLflow's name for it
@router.get("/health")
async def health() -> dict[str, str]:
    """Whether a model is loaded: before, nothing answers."""
    return {"status": "ok"}


@router.get("/version")
async def version(request: Request, model: Loaded) -> dict[str, Any]:
    """The registered version that is served, and the alias (or number) by which it was found."""
    from mlflow.version import VERSION

    about = {"name": model.version.name, "version": model.version.number, "alias": request.app.state.served.alias}
    return (
        about
        | {key: model.metadata[key] for key in ("onnx_sha256", "precision", "format", "ood")}
        | {"mlflow": VERSION}
    )


@router.get("/classes")
async def classes(model: Loaded) -> list[dict[str, str]]:
    """The classes and their superclasses, in the order of the probabilities that /invocations gives."""
    pairs = zip(model.class_names, model.classifier.superclass_of.tolist(), strict=True)
    return [{"class": name, "superclass": superclass} for name, superclass in pairs]


async def _on_http_exception(request: Request, error: StarletteHTTPException) -> Response:
    reason = {
        404: f"there is nothing at {request.url.path}: see /docs",
        405: f"{request.method} does not work at {request.url.path}: see /docs",
    }.get(error.status_code, error.detail)
    if error.__cause__:  # of what FastAPI says of a body that is no JSON
        reason += f" ({type(error.__cause__).__name__}: {error.__cause__})"
    response = _failure(error.status_code, reason)
    response.headers.update(error.headers or {})
    return response


async def _on_wrong_request(request: Request, error: RequestValidationError) -> Response:
    wrong = error.errors()[0]
    name = ".".join(map(str, wrong["loc"][1:])) or "the body"
    context = wrong.get("ctx", {}).get("error", "")
    return _failure(400, f"{name} = {reprlib.repr(wrong['input'])}: {wrong['msg']} {context} (see /docs)")


async def _on_failing_model(request: Request, error: RegistryError) -> Response:
    logger.error("a request failed", exc_info=error)
    return _failure(500, str(error))


def _failure(status: int, reason: str) -> JSONResponse:
    line = " ".join(reason.encode(errors="replace").decode().split())  # JSON may bring what UTF-8 cannot write
    line = line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"
    codes = {404: "ENDPOINT_NOT_FOUND", 500: "INTERNAL_ERROR"}
    return JSONResponse({"error_code": codes.get(status, "BAD_REQUEST"), "message": line}, status)


if __name__ == "__main__":
    main()
