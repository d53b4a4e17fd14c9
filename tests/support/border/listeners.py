"""Small servers that stand for what may listen where somebody expects the head of a Ray cluster."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # HTTP/2's, empty, with which a gRPC server begins
HEAD = SETTINGS + b"\0\0\1\1\4\0\0\0\1\x88" + b"\0\0\5\0\0\0\0\0\1\0\0\0\0\0"  # then `:status: 200`, and a message
# What gRPC servers of Ray 2.60 reply, recorded: one that does not know the question, and a head that wants a token.
OTHER_GRPC = SETTINGS + b"\0\0\x30\1\5\0\0\0\1\x88@\x0ccontent-type\x10application/grpc@\x0bgrpc-status\x0212"
SECURED_HEAD = SETTINGS + b"\0\0\x30\1\5\0\0\0\1\x88@\x0ccontent-type\x10application/grpc\0\x0bgrpc-status\x0216"
DASHBOARD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
SILENT, HANGING_UP = b"", None


class Listener:
    """Listens on a port of loopback while it is entered, and says `reply` to whoever speaks; None ends at once."""

    def __init__(self, reply: bytes | None) -> None:
        self._reply = reply
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._held: list[socket.socket] = []

    def __enter__(self) -> Listener:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for one in (self._server, *self._held):
            one.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                if self._reply is None:
                    connection.close()
                    continue
                self._held.append(connection)
                connection.recv(64)
                connection.sendall(self._reply)


def free_port() -> int:
    """A port of loopback on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
