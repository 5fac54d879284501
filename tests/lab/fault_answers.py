"""Sessions of all networks at the same time, and their answers as they come."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.conftest import wait_until
from tests.lab.fault_matrix import BY_TITLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.fault_matrix import Network

    Ask = Callable[[str, str], tuple[Network, dict[str, Any]]]

ROOT = Path(__file__).parents[2]
LACKING = ("is not installed", "Could not process rule: Operation not supported")
"""What a fault says that needs a program, or nftables, which are not here."""


class Session:
    """One lab's process, and its answers as they come."""

    def __init__(self, title: str, requests: list[str], folder: Path, patience_s: float) -> None:
        self.title, self.patience_s = title, patience_s
        self._answers, self._errors = folder / f"{title}.answers", folder / f"{title}.errors"
        self._known: dict[str, dict[str, Any]] = {}
        with self._answers.open("w") as answers, self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.lab.fault_session", title, *requests],
                stdin=subprocess.DEVNULL,
                stdout=answers,
                stderr=errors,
                cwd=ROOT,
            )

    def answer(self, request: str) -> dict[str, Any]:
        wait_until(lambda: self._has(request), f"{self.title}: {request}", self.patience_s)
        return self._known[request]

    def _has(self, request: str) -> bool:
        if request in self._known:
            return True
        ended = self._process.poll() is not None
        # An answer is there when its line has ended.
        lines = self._answers.read_text().split("\n")[:-1]
        self._known |= {said["request"]: said for said in map(json.loads, lines)}
        assert request in self._known or not ended, self._errors.read_text()
        return request in self._known

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=60)


@contextmanager
def sessions(request: pytest.FixtureRequest, folder: Path, patience_s: float) -> Iterator[Ask]:
    """What is told of a network after a request: of those that this module tests here and now."""
    wanted: dict[str, dict[str, None]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path == request.path:
            params = item.callspec.params if hasattr(item, "callspec") else {}
            if "title" in params:
                wanted.setdefault(str(params["title"]), {})[str(params["wish"])] = None
    running = {
        title: Session(title, list(wishes), folder, patience_s) for title, wishes in wanted.items()
    }

    def ask(title: str, wish: str) -> tuple[Network, dict[str, Any]]:
        said = running[title].answer(wish)
        if any(words in (said["refused"] or "") for words in LACKING):
            pytest.skip(said["refused"])
        assert said["refused"] is None, said["refused"]
        return BY_TITLE[title], said

    try:
        yield ask
    finally:
        for session in running.values():
            session.end()
