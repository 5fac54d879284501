"""Why a connection by TLS does not come about, out of gRPC's words for it.

gRPC hands down what its TLS library says and what became of the socket. Which of our files, or
which of etcd's, has to be another one is left to the reader; here it is said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from podwire.drivers.store.etcd.certificates import CA_FILE, CERT_FILE, KEY_FILE
from podwire.drivers.store.etcd.silence import FIX

if TYPE_CHECKING:
    from podwire.model.config import EtcdConfig

_UNVERIFIED = re.compile(r"CERTIFICATE_VERIFY_FAILED(?:: ([^:]+))?")
_OF_OURS = re.compile(
    # An alert of the server; one that comes when we take the handshake for done, as it may in
    # TLS 1.3, reaches us as data that gRPC cannot read.
    r"ALERT_(BAD_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED)"
    r"|CERTIFICATE_REQUIRED|TSI_DATA_CORRUPTED"
)
_CLOSED = re.compile(r"Socket closed|Connection reset")
_NO_TLS = re.compile(r"WRONG_VERSION_NUMBER|Handshake read failed|HTTP_REQUEST")


def handshake_fault(details: str, config: EtcdConfig) -> tuple[str, str] | None:
    """What is wrong and the fix; None when the words are of something else."""
    secure = [url for url in config.endpoints if url.startswith("https://")]
    if not secure:
        # The end of a connection that was there has the same words, and means something else.
        if details.startswith("failed to connect") and _CLOSED.search(details):
            return "it closes each connection", f"if it wants TLS, write https://; else {FIX}"
        return None
    if found := _UNVERIFIED.search(details):
        return _unverified(found[1] or "no reason given", config)
    if "Hostname Verification Check failed" in details:
        hosts = " or ".join(dict.fromkeys(urlsplit(url).hostname or url for url in secure))
        return (
            f"its certificate is not for {hosts}",
            "write a name or address that etcd's certificate has, or have one made for this one",
        )
    if _OF_OURS.search(details):
        return _refused_ours(config)
    if "security handshaker" in details:
        return (
            "TLS cannot begin with the files it was given",
            f"look at {CA_FILE}, {CERT_FILE} and {KEY_FILE}",
        )
    if _NO_TLS.search(details):
        return "it does not speak TLS", f"if it shall not, write http://; else {FIX}"
    return None


def _unverified(reason: str, config: EtcdConfig) -> tuple[str, str]:
    if "expired" in reason or "not yet valid" in reason:
        words = f"its certificate cannot be trusted: {reason}"
        return words, "renew etcd's certificate, or its authority's; see that the clock is right"
    trusted = f"{CA_FILE} {config.ca_file}" if config.ca_file else "the system's authorities"
    return (
        f"its certificate is of nobody in {trusted}: {reason}",
        f"let {CA_FILE} hold the authority that signed etcd's certificate",
    )


def _refused_ours(config: EtcdConfig) -> tuple[str, str]:
    if config.cert_file is None:
        return (
            "it wants to see a client certificate, and none was given",
            f"name one that etcd's --trusted-ca-file signed, as {CERT_FILE} and {KEY_FILE}",
        )
    return (
        f"it does not accept the client certificate {config.cert_file}",
        f"let {CERT_FILE} be one that etcd's --trusted-ca-file signed and that has not expired",
    )
