"""Asks an agent's health endpoint, as curl does; reads metrics with the library's own parser."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Got:
    """One answer."""

    status: int
    type: str
    text: str


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def get(address: str | tuple[str, int], target: str, method: str = "GET", accept: str = "") -> Got:
    """Ask once; the address is a path, or host and port."""
    connection = (
        UnixConnection(address)
        if isinstance(address, str)
        else http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
    )
    try:
        connection.request(method, target, headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        kind = answer.headers.get("Content-Type", "")
        return Got(answer.status, kind, answer.read().decode())
    finally:
        connection.close()


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Samples:
    """Every sample of a scrape, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass(frozen=True)
class Scrape:
    """One scrape."""

    samples: Samples

    def value(self, name: str, **labels: str) -> float:
        """The sample with exactly these labels; 0 when there is none."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


def scrape(address: str | tuple[str, int]) -> Scrape:
    """All metrics now."""
    got = get(address, "/metrics")
    assert got.status == 200, got
    return Scrape(parse(got.text))
