"""Probes an address for a Ray cluster's head, within seconds; Ray itself would wait for minutes."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Mapping
from typing import Any

RESOLVE_SECONDS = 5.0
CONNECT_SECONDS = 2.0
REPLY_SECONDS = 5.0  # a head that is busy takes its time
# gRPC speaks HTTP/2 (RFC 9113): frames of a length, a kind, flags and a stream, then what they hold.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES, MOST_FRAME_BYTES = 9, 2**14  # larger ones need both sides' consent
DATA, HEADERS, RESET, SETTINGS, GO_AWAY, NO_FRAME = 0, 1, 3, 4, 7, -1
END_OF_STREAM, END_OF_HEADERS = 1, 4
METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # the first that Ray's own client asks of a head
UNKNOWN_METHOD = b"\x0bgrpc-status\x0212"  # as gRPC's C++ writes this header
NO_HEAD = "what listens there is no head of a Ray cluster"
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]@]+):(?P<port>[0-9]{1,5})")


def host_and_port(address: str) -> tuple[str, int] | None:
    """Returns the parts of HOST:PORT (an IPv6 host in brackets); None where it is none, or the port is no port."""
    found = _ADDRESS.fullmatch(address)
    if not found or not 1 <= int(found["port"]) <= 65535:
        return None
    return found["host"].strip("[]"), int(found["port"])


def why_no_cluster(address: str, environment: Mapping[str, str] = os.environ) -> str:
    """Returns why no Ray cluster can be joined at HOST:PORT, as a clause; an empty text where its head responds.

    With TLS (`RAY_USE_TLS`) it is enough that something listens.
    """
    place = host_and_port(address)
    if place is None:
        return "it is no HOST:PORT"
    found = _resolved(*place)
    if isinstance(found, str):
        return found
    try:
        with socket.create_connection(found, timeout=CONNECT_SECONDS) as connection:
            return "" if environment.get("RAY_USE_TLS", "0") not in ("", "0") else _why_no_head(connection)
    except OSError as error:
        return f"nothing listens there ({' '.join((error.strerror or str(error)).split()).lower()})"


def _resolved(host: str, port: int) -> tuple[str, int] | str:
    """The address of a name, else why it has none; a resolver may hang for longer than anybody waits."""
    found: list[Any] = []

    def resolve() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][:2])
        except (OSError, UnicodeError) as error:
            found.append(f"the name {host} cannot be resolved ({getattr(error, 'strerror', None) or error})")

    thread = threading.Thread(target=resolve, name="name of the Ray cluster", daemon=True)
    thread.start()
    thread.join(RESOLVE_SECONDS)
    if not found:
        return f"the name {host} was not resolved within {RESOLVE_SECONDS:g} s"
    return found[0]  # type: ignore[no-any-return]


def _why_no_head(connection: socket.socket) -> str:
    """Asks for the cluster's id: a head returns one, or wants a token; other gRPC servers do not know the question."""
    connection.settimeout(REPLY_SECONDS)
    try:
        connection.sendall(PREFACE + _frame(SETTINGS, 0, 0, b"") + _question())
        kind, _ = _next_frame(connection)
        if kind != SETTINGS:
            return NO_HEAD
        while kind not in (DATA, HEADERS):
            kind, content = _next_frame(connection)
            if kind in (NO_FRAME, RESET, GO_AWAY) or UNKNOWN_METHOD in content:
                return NO_HEAD
        return ""
    except TimeoutError:
        return f"what listens there said nothing within {REPLY_SECONDS:g} s"
    except ConnectionError:
        return "what listens there ended the connection"


def _question() -> bytes:
    names = {
        ":method": "POST", ":scheme": "http", ":path": METHOD, ":authority": "ray", "content-type": "application/grpc",
        "te": "trailers",
    }  # fmt: skip
    headers = b"".join(b"\0" + _text(name) + _text(value) for name, value in names.items())
    message = b"\0\0\0\0\0"  # not compressed, of no bytes
    return _frame(HEADERS, END_OF_HEADERS, 1, headers) + _frame(DATA, END_OF_STREAM, 1, message)


def _text(text: str) -> bytes:
    """A text of fewer than 127 letters as a header's name or value (RFC 7541, 5.2)."""
    return bytes([len(text)]) + text.encode("ascii")


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def _next_frame(connection: socket.socket) -> tuple[int, bytes]:
    """The kind of the next frame, and what it holds. Raises ConnectionError where there is none."""
    head = _received(connection, FRAME_BYTES)
    length = int.from_bytes(head[:3], "big")
    return (NO_FRAME, b"") if length > MOST_FRAME_BYTES else (head[3], _received(connection, length))


def _received(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = connection.recv(size - len(content))
        if not more:
            raise ConnectionError
        content += more
    return content
