"""Real `mlflow` servers on loopback: of runs and models, artifacts proxied over HTTP, and of one packaged model."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import requests

PATIENCE = 180.0  # seconds: it imports a good deal, and the machine may be busy


class MlflowServer:
    """Runs an `mlflow` command in a folder until `kill`; may be started again there, on the same port."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "mlflow", *command, "--port", str(self.port)]
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of_store(cls, folder: Path) -> Self:
        # No --host and no --allowed-hosts: its own defaults are loopback and host checking.
        stores = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", str(folder / "served")]
        return cls(folder, "server", "--workers", "1", *stores)

    @classmethod
    def of_model(cls, folder: Path, package: Path) -> Self:
        return cls(folder, "models", "serve", "--model-uri", str(package), "--env-manager", "local")

    def __enter__(self) -> Self:
        """Return once it answers."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "server.log"
        with file.open("ab") as log:  # a pipe that nobody reads would stop it once it is full
            output = {"stdout": log, "stderr": subprocess.STDOUT}
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=environment, start_new_session=True, **output
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, f"it ended:\n{file.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"no answer:\n{file.read_text()[-3000:]}"
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        """End it and its workers at once, as a power cut does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=2).ok
        except requests.RequestException:
            return False
