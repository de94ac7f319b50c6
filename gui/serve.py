"""A registered model over HTTP: MLflow's scoring server, the one that `mlflow models serve` starts, in this process.

Some things come on top: what cannot be served is one line, requests have a limit, and those that MLflow would answer
with a stack trace, with a status of 500 or with all they hold are refused with a reason.
"""

import argparse
import json
import logging
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from gui import command_line

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

JSON = "application/json"
MAX_MEGABYTES = 32  # of a request: 2 million pixels as numbers; they take ten times as much for a moment
MAX_REASON = 300  # characters

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gui.serve", description=__doc__)
    command_line.add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=5001, help="(default: 5001)")
    arguments = parser.parse_args()
    with command_line.one_line_errors("serve"):
        model = command_line.load(arguments.model)
        print(f"{model.version} answers at http://{arguments.host}:{arguments.port}/invocations", flush=True)
        import uvicorn  # by now MLflow has brought it in

        uvicorn.run(app_of(model.packaged), host=arguments.host, port=arguments.port, log_level="warning")


def app_of(packaged: Any) -> "Starlette":
    """MLflow's scoring server for what `mlflow.pyfunc.load_model` returned, with requests and refusals as above."""
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(packaged)

    @app.middleware("http")
    async def only_json(request: "Request", call_next: Any) -> "Response":
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if request.method == "POST" and kind != JSON:
            return _refused(
                415, f"the request is {kind or 'of no type'}: send JSON, with the header Content-Type: {JSON}"
            )
        request.scope["headers"] = [  # MLflow knows the type in small letters only
            (name, value.lower() if name == b"content-type" else value) for name, value in request.scope["headers"]
        ]
        length = request.headers.get("content-length", "")
        if request.method == "POST" and not (length.isdecimal() and int(length) <= MAX_MEGABYTES * 2**20):
            return _refused(
                413, f"the request has {length or 'an unknown number of'} bytes: send at most {MAX_MEGABYTES} MB"
            )
        try:
            answer = await call_next(request)
        except RecursionError:
            return _refused(400, "the lists in this request are nested too deeply: send pictures as lists (N, H, W, 3)")
        except ValueError:  # of Python's JSON reader, which limits the digits of a number
            return _refused(400, "a number in this request has too many digits: send whole numbers from 0 to 255")
        except Exception:
            logger.exception("a request failed")
            return _refused(500, "this request failed: the reason stands in the server's log", "INTERNAL_ERROR")
        return await _without_the_request(answer) if answer.status_code >= 400 else answer

    return app


async def _without_the_request(answer: Any) -> "Response":
    """A refusal of MLflow's without the request that it repeats in some of them, before or behind the reason."""
    body = b"".join([part async for part in answer.body_iterator])
    try:
        told = json.loads(body)
        message = str(told["message"]).split("\nError: ")[-1].split("\nInput:")[0]
        code = str(told["error_code"])
    except (ValueError, KeyError, TypeError):
        message, code = body.decode(errors="replace"), "BAD_REQUEST"
    return _refused(answer.status_code, " ".join(message.split())[:MAX_REASON], code)


def _refused(status: int, reason: str, code: str = "BAD_REQUEST") -> JSONResponse:
    return JSONResponse({"error_code": code, "message": reason}, status)


if __name__ == "__main__":
    main()
