"""Many users at once on the app of this machine, through Streamlit's own protocol: times, errors, memory.

python -m tests.gui.load [--users 20] [--pictures 20] [--rest 5]    about 8 minutes; the champion of the store in use

Exit status 1 where a picture got no answer, the 95th percentile reached 5 times that of one user, or memory did not
come back to within 10 % of where it was.
"""

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import psutil
import requests
from PIL import Image
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from tests.gui.browser import running_app
from tests.gui.conftest import as_file

PATIENCE = 60.0  # seconds for one answer
SLOWER = 5.0  # times the single user's, allowed at most
MEMORY = 1.1  # of what it was
FORGOTTEN = 150.0  # seconds: Streamlit keeps the sessions of users who left for two minutes


@dataclass
class Seen:
    """What the users saw. seconds: from the start of each upload to the end of what was drawn then."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def p95(self) -> float:
        return float(np.percentile(self.seconds, 95)) if self.seconds else float("inf")


class User:
    """A person with the app open in a browser."""

    def __init__(self, address: str) -> None:
        """Opens the page and waits until all of it is drawn."""
        self.address = address
        self.http = requests.Session()
        self.http.get(f"{address}/_stcore/health", timeout=PATIENCE).raise_for_status()
        cookies = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        self.opened = ExitStack()
        stream = connect(
            f"{address.replace('http', 'ws', 1)}/_stcore/stream",
            subprotocols=["streamlit"],  # type: ignore[list-item]
            additional_headers={"Cookie": cookies},
            origin=address,  # type: ignore[arg-type]
            max_size=None,
        )
        self.socket = self.opened.enter_context(stream)
        self.session_id = self.uploader_id = ""
        self._run(BackMsg())

    def classify(self, picture: bytes) -> None:
        """Upload a picture in place of the one before; AssertionError where no answer is drawn."""
        request = BackMsg()
        request.file_urls_request.request_id = "1"
        request.file_urls_request.session_id = self.session_id
        request.file_urls_request.file_names.append("picture.jpg")
        self.socket.send(request.SerializeToString())
        urls = self._next("file_urls_response").file_urls_response.file_urls[0]
        headers = {"X-Xsrftoken": self.http.cookies.get("_streamlit_xsrf", "")}
        sent = {"file": ("picture.jpg", picture, "image/jpeg")}
        self.http.put(
            f"{self.address}{urls.upload_url}", files=sent, headers=headers, timeout=PATIENCE
        ).raise_for_status()
        run = BackMsg()
        state = run.rerun_script.widget_states.widgets.add(id=self.uploader_id)
        state.file_uploader_state_value.uploaded_file_info.add(
            file_id=urls.file_id, name="picture.jpg", size=len(picture), file_urls=urls
        )
        drawn = self._run(run)
        assert any('<ol class="answers">' in html for html in drawn), f"no answer, but {drawn}"

    def leave(self) -> None:
        """Close the page."""
        self.opened.close()
        self.http.close()

    def _run(self, message: BackMsg) -> list[str]:
        """Have the page drawn anew; the HTML and alerts in it."""
        message.rerun_script.query_string = ""
        self.socket.send(message.SerializeToString())
        drawn = []
        while True:
            found = self._next()
            kind = found.WhichOneof("type")
            if kind == "new_session":
                self.session_id = found.new_session.initialize.session_id
            elif kind == "delta":
                element = found.delta.new_element
                drawn += [element.html.body or element.alert.body]
                self.uploader_id = element.file_uploader.id or self.uploader_id
                assert not element.HasField("exception"), element.exception.message
            elif kind == "script_finished" and found.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                return [text for text in drawn if text]

    def _next(self, kind: str | None = None) -> ForwardMsg:
        while True:
            message = ForwardMsg.FromString(self.socket.recv(timeout=PATIENCE))  # type: ignore[arg-type]
            if kind in (None, message.WhichOneof("type")):
                return message


def visit(address: str, pictures: int, rest: float, seed: int, seen: Seen) -> None:
    """One user classifies pictures of their own, resting after each."""
    rng = np.random.default_rng(seed)
    try:
        user = User(address)
        try:
            time.sleep(rest * rng.random())  # people do not come on the same second
            for _ in range(pictures):
                coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
                picture = as_file(coarse.resize((1280, 960), Image.Resampling.BICUBIC), "JPEG")
                started = time.monotonic()
                user.classify(picture)
                seen.seconds.append(time.monotonic() - started)
                time.sleep(rest)
        finally:
            user.leave()
    except Exception as error:
        seen.errors.append(f"user {seed}: {type(error).__name__}: {error}"[:300])


def crowd(address: str, users: int, pictures: int, rest: float) -> Seen:
    """Several users at once."""
    seen = Seen()
    threads = [
        threading.Thread(target=visit, args=(address, pictures, rest, 1000 + number, seen)) for number in range(users)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


@contextmanager
def highest(server: psutil.Process) -> Iterator[list[int]]:
    """The memory of the server in bytes, asked for every half second while the block runs."""
    found = [server.memory_info().rss]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            found.append(server.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        ended.set()
        watching.join()


def settled(address: str, server: psutil.Process) -> int:
    """The memory of the server in bytes once it has forgotten those who left, which it does when somebody comes."""
    time.sleep(FORGOTTEN)
    visit(address, 1, 0, 0, Seen())
    time.sleep(2)
    return server.memory_info().rss


def main() -> int:
    """Measure the first answer, one user, then many, then the memory once they left."""
    parser = argparse.ArgumentParser(prog="python -m tests.gui.load", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=20, help="of each user")
    parser.add_argument("--rest", type=float, default=5.0, help="seconds between two pictures of a user")
    arguments = parser.parse_args()
    with running_app() as address:
        server = psutil.Process().children()[0]
        started = time.monotonic()
        first = Seen()
        visit(address, 1, 0, 0, first)
        print(f"first:     {time.monotonic() - started:.1f} s from the running server to the first answer")
        warm = crowd(address, 3, 3, 0.1)  # every thread's own buffers are there
        alone = Seen()
        visit(address, arguments.pictures, min(arguments.rest, 0.5), 0, alone)
        before = settled(address, server)
        print(f"one user:  median {np.median(alone.seconds or [0]):.2f} s, p95 {alone.p95():.2f} s")
        with highest(server) as at_most:
            many = crowd(address, arguments.users, arguments.pictures, arguments.rest)
        print(
            f"{arguments.users} users:  median {np.median(many.seconds or [0]):.2f} s, p95 {many.p95():.2f} s, ", end=""
        )
        print(f"{len(many.seconds)} answers, {len(many.errors)} errors")
        after = settled(address, server)
    print(f"memory:    {before / 2**20:.0f} MB before, up to {max(at_most) / 2**20:.0f} MB with the users, ", end="")
    print(f"{after / 2**20:.0f} MB {FORGOTTEN:.0f} s after they left")
    errors = first.errors + warm.errors + alone.errors + many.errors
    for error in errors[:5]:
        print(error)
    failed = bool(errors) or many.p95() >= SLOWER * alone.p95() or after > MEMORY * before
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
