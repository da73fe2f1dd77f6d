# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A TPM that answers as the test says."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class ScriptedTpm:
    """Listens on a unix socket; gives one of its answers to each command, then is silent."""

    def __init__(self, path: Path, answers: list[bytes]) -> None:
        self.commands: list[bytes] = []
        self.connections = 0
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection:
                    while command := connection.recv(4096):
                        self.commands.append(command)
                        if not self._answers:
                            continue
                        given = self._answers.pop(0)
                        if not given:
                            break
                        connection.sendall(given)
