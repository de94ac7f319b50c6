"""Many users at once on the app of this machine, through Streamlit's own protocol: times, errors, memory.

python -m tests.gui.load [--users 20] [--images 20] [--rest 5]    about 8 minutes; the champion of the store in use

Exit status 1 where an image got no answer, the 95th percentile reached 5 times that of one user, or memory did not come
back to within 10 % of where it was.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

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


class User:
    """A person with the app open in a browser."""

    def __init__(self, address: str) -> None:
        """Opens the page and waits until all of it is drawn."""
        self.address = address
        self.http = requests.Session()
        self.http.get(f"{address}/_stcore/health", timeout=PATIENCE).raise_for_status()
        cookies = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        stream = f"{address.replace('http', 'ws', 1)}/_stcore/stream"
        about = {"additional_headers": {"Cookie": cookies}, "origin": address, "max_size": None}
        self.socket = connect(stream, subprotocols=["streamlit"], **about)
        self.session_id = self.uploader_id = ""
        self._run(BackMsg())

    def __enter__(self) -> "User":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
        self.http.close()

    def classify(self, image: bytes) -> None:
        """Upload an image in place of the one before; AssertionError where no answer is drawn."""
        request = BackMsg()
        request.file_urls_request.request_id = "1"
        request.file_urls_request.session_id = self.session_id
        request.file_urls_request.file_names.append("image.jpg")
        self.socket.send(request.SerializeToString())
        urls = self._next("file_urls_response").file_urls_response.file_urls[0]
        headers = {"X-Xsrftoken": self.http.cookies.get("_streamlit_xsrf", "")}
        sent = {"file": ("image.jpg", image, "image/jpeg")}
        address = f"{self.address}{urls.upload_url}"
        self.http.put(address, files=sent, headers=headers, timeout=PATIENCE).raise_for_status()
        run = BackMsg()
        uploaded = run.rerun_script.widget_states.widgets.add(id=self.uploader_id).file_uploader_state_value
        uploaded.uploaded_file_info.add(file_id=urls.file_id, name="image.jpg", size=len(image), file_urls=urls)
        drawn = self._run(run)
        assert any('<ol class="answers">' in html for html in drawn), f"no answer, but {drawn}"

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
            message = ForwardMsg.FromString(self.socket.recv(timeout=PATIENCE))
            if kind in (None, message.WhichOneof("type")):
                return message


def visit(address: str, images: int, rest: float, seed: int = 0) -> list[float]:
    """One user classifies images of their own, resting after each; returns the seconds of each answer."""
    rng = np.random.default_rng(seed)
    seconds = []
    with User(address) as user:
        time.sleep(rest * rng.random())  # people do not come on the same second
        for _ in range(images):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            image = as_file(coarse.resize((1280, 960), Image.Resampling.BICUBIC), "JPEG")
            started = time.monotonic()
            user.classify(image)
            seconds.append(time.monotonic() - started)
            time.sleep(rest)
    return seconds


def crowd(address: str, users: int, images: int, rest: float) -> tuple[list[float], list[str]]:
    """Several users at once: the seconds of each answer, and the errors."""
    seconds, errors = [], []
    with ThreadPoolExecutor(users) as threads:
        for visitor in [threads.submit(visit, address, images, rest, 1000 + number) for number in range(users)]:
            if error := visitor.exception():
                errors.append(f"{type(error).__name__}: {error}"[:300])
            else:
                seconds += visitor.result()
    return seconds, errors


def settled(address: str, server: psutil.Process) -> float:
    """MB of the server once it has forgotten those who left, which it does when somebody comes."""
    time.sleep(FORGOTTEN)
    visit(address, 1, 0)
    time.sleep(2)
    return server.memory_info().rss / 2**20


def main() -> int:
    """Measure the first answer, one user, then many, then the memory once they left."""
    parser = argparse.ArgumentParser(prog="python -m tests.gui.load", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--images", type=int, default=20, help="of each user")
    parser.add_argument("--rest", type=float, default=5.0, help="seconds between two images of a user")
    arguments = parser.parse_args()
    with running_app() as address:
        server = psutil.Process().children()[0]
        started = time.monotonic()
        visit(address, 1, 0)
        print(f"first answer {time.monotonic() - started:.1f} s after the start of the server")
        _, errors = crowd(address, 3, 3, 0.1)  # every thread's own buffers are there
        alone = visit(address, arguments.images, min(arguments.rest, 0.5))
        before = settled(address, server)
        many, more_errors = crowd(address, arguments.users, arguments.images, arguments.rest)
        after = settled(address, server)
    errors += more_errors
    p95 = {}
    for who, seconds in (("one user", alone), (f"{arguments.users} users", many or [float("inf")])):
        p95[who] = np.percentile(seconds, 95)
        print(f"{who}: median {np.median(seconds):.2f} s, p95 {p95[who]:.2f} s, {len(seconds)} answers")
    print(f"memory: {before:.0f} MB before, {after:.0f} MB {FORGOTTEN:.0f} s after they left")
    print(f"{len(errors)} errors", *errors[:5], sep="\n")
    single, crowded = p95.values()
    failed = bool(errors) or crowded >= SLOWER * single or after > MEMORY * before
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
