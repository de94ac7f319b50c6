"""A real `mlflow server` process on loopback: SQLite store, artifacts proxied over HTTP."""

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
    """Runs in its folder until `kill`; may be started again there, on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Return once it answers."""
        # No --host and no --allowed-hosts: its own defaults are loopback and host checking.
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        stores = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", str(self.folder / "served")]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *stores],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, f"it ended:\n{(self.folder / 'server.log').read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"no answer:\n{(self.folder / 'server.log').read_text()[-3000:]}"
            time.sleep(0.2)
        return self

    def kill(self) -> None:
        """End it and its workers at once, as a power cut does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=2).ok
        except requests.RequestException:
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
