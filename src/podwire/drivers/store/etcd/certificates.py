"""The certificates we show to etcd and trust of it: looked through before gRPC gets them.

gRPC ends the whole process when a certificate comes without its key, and says nothing of use about
the rest. A file that is just being written, or was cut off by a full disk, is ordinary.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from podwire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.model.config import EtcdConfig

PAUSE_S = 1.0
"""How often renewed files that cannot be used are looked through again."""
CA_FILE = "caFile (or ETCD_CA_CERT_FILE)"
CERT_FILE = "certFile (or ETCD_CERT_FILE)"
KEY_FILE = "keyFile (or ETCD_KEY_FILE)"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_MARK = b"-----"
_APART = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the files held, all of it fit for use."""

    authorities: bytes | None
    chain: bytes | None
    key: bytes | None


class Identity:
    """Who we are to etcd and whom we trust; not thread-safe.

    When the files change they are read again. What they held before stays in use for as long as
    they cannot be used: a running agent must not fall over a renewal that is half done.
    """

    def __init__(self, config: EtcdConfig, now: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._now = now
        self._used: tuple[object, ...] | None = None
        self._again_at = 0.0
        self._complained = False
        self.credentials: grpc.ChannelCredentials | None = None

    def look(self) -> bool:
        """Look at the files; whether others than before are to be used from now on.

        Raises:
            BadInput: they cannot be used, nor could they ever before; names file and fault.
        """
        config = self._config
        files = (config.ca_file, config.cert_file, config.key_file)
        # Before they are read: what is changed meanwhile is then seen the next time.
        stamps = tuple(_stamp(name) for name in files if name is not None)
        if stamps == self._used or self._now() < self._again_at:
            return False
        try:
            found = read_certificates(config)
        except BadInput as error:
            if self.credentials is None:
                raise
            self._again_at = self._now() + PAUSE_S
            self._complain(error)
            return False
        self._used, self._again_at, self._complained = stamps, 0.0, False
        self.credentials = grpc.ssl_channel_credentials(
            root_certificates=found.authorities,
            private_key=found.key,
            certificate_chain=found.chain,
        )
        return True

    def _complain(self, error: BadInput) -> None:
        if self._complained:
            return
        self._complained = True
        import structlog  # only an agent lives long enough to need it

        # A command's standard output is its answer.
        log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
        log.warning("renewed certificates not used yet", reason=str(error))


def read_certificates(config: EtcdConfig) -> Certificates:
    """Read the files and see that TLS can use them.

    Raises:
        BadInput: names the file and what is wrong.
    """
    authorities = _read(config.ca_file, CA_FILE, b"CERTIFICATE")
    chain = _read(config.cert_file, CERT_FILE, b"CERTIFICATE")
    key = _read(config.key_file, KEY_FILE, b"PRIVATE KEY")
    if (chain is None) != (key is None):
        there, missing = (CERT_FILE, KEY_FILE) if key is None else (KEY_FILE, CERT_FILE)
        raise BadInput(f"datastore etcd: {there} needs {missing} beside it", fix="name both")
    for content, name, role in (
        (authorities, config.ca_file, CA_FILE),
        (chain, config.cert_file, CERT_FILE),
    ):
        if content is not None:
            _parse_certificates(content, f"{role} {name}")
    if chain is not None and key is not None:
        _fit(chain, key, config)
    return Certificates(authorities, chain, key)


def _read(name: str | None, role: str, wanted: bytes) -> bytes | None:
    """The content of a file that has at least one such block, and no half one."""
    if name is None:
        return None
    where = f"{role} {name}"
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        raise _unusable(where, f"cannot be read: {error.strerror}") from None
    kinds = [found[1] for found in _BLOCK.finditer(content)]
    if not content.strip():
        raise _unusable(where, "is empty")
    if _MARK in _BLOCK.sub(b"", content):
        raise _unusable(where, "is cut off: it has a block without its END line")
    if not any(kind.endswith(wanted) for kind in kinds):
        raise _unusable(where, f"has no {wanted.decode().lower()} in it")
    if b"ENCRYPTED PRIVATE KEY" in kinds or b"Proc-Type: 4,ENCRYPTED" in content:
        raise _unusable(where, "is locked with a passphrase")
    return content


def _parse_certificates(content: bytes, where: str) -> None:
    try:
        with _Shown(content) as place:
            _context().load_verify_locations(cafile=place)
    except ssl.SSLError as error:
        raise _unusable(where, f"has a certificate that cannot be read: {_reason(error)}") from None


def _fit(chain: bytes, key: bytes, config: EtcdConfig) -> None:
    try:
        with _Shown(chain) as certificate, _Shown(key) as secret:
            # A question for a passphrase on the terminal would be waited for.
            _context().load_cert_chain(certificate, secret, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason in _APART:
            raise BadInput(
                f"datastore etcd: {CERT_FILE} {config.cert_file} and {KEY_FILE}"
                f" {config.key_file} do not belong together",
                fix="put a certificate and the key it was made for there",
            ) from None
        where = f"{KEY_FILE} {config.key_file}"
        raise _unusable(where, f"has a key that cannot be read: {_reason(error)}") from None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # How strong a key must be is not ours to say here: gRPC and etcd decide.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


class _Shown:
    """Bytes as a file in memory, for calls that read files: what is checked is what is used."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._descriptor = -1

    def __enter__(self) -> str:
        self._descriptor = os.memfd_create("podwire-tls")
        with open(self._descriptor, "wb", closefd=False) as file:
            file.write(self._content)
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _unusable(where: str, fault: str) -> BadInput:
    return BadInput(f"datastore etcd: {where} {fault}", fix="put a whole, unlocked PEM file there")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _stamp(name: str) -> tuple[int, ...]:
    try:
        status = Path(name).stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino
