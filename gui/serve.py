"""A registered model over HTTP: MLflow's scoring server, the one that `mlflow models serve` starts, in this process.

Two things come on top: what cannot be served is one line, and a request that is no JSON, which MLflow would answer with
a stack trace or a status of 500, is refused with a reason.
"""

import argparse
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from gui import command_line

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

JSON = "application/json"


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
    """MLflow's scoring server for what `mlflow.pyfunc.load_model` returned, refusing what is no JSON."""
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(packaged)

    @app.middleware("http")
    async def only_json(request: "Request", call_next: Any) -> "Response":
        kind = request.headers.get("content-type", "").split(";")[0].strip()
        if request.method == "POST" and kind != JSON:
            return _refused(
                415, f"the request is {kind or 'of no type'}: send JSON, with the header Content-Type: {JSON}"
            )
        try:
            return await call_next(request)
        except RecursionError:
            return _refused(400, "the lists in this request are nested too deeply: send pictures as lists (N, H, W, 3)")

    return app


def _refused(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error_code": "BAD_REQUEST", "message": reason}, status)


if __name__ == "__main__":
    main()
