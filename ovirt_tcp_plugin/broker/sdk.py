# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Calls through the oVirt SDK that end in time, and with only this package's errors. `engine` and `administration` use it.

What the SDK does not do, and this does: one connection per thread (a Connection serialises its threads), a new
connection after any error (time-outs and an engine that restarts raise a plain Error without a code, a document that is
no XML a plain Exception), a time limit for the log-in, and no log-out that would revoke a token on close.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, TypeVar

import ovirtsdk4

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import https
from ovirt_tcp_plugin.messages import json_fields as fields

log = logging.getLogger("broker.engine")

MAX_PASSWORD_SIZE = 1024
MAX_TOKEN_SIZE = 64 * 1024

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Access:
    """Who talks to which engine.

    Attributes:
        password: asked at each log-in; raises InvalidConfig when there is none.
        timeout_s: longest time for one call.
    """

    url: str
    username: str
    password: Callable[[], str]
    ca_file: Path
    timeout_s: float


class _Connection(ovirtsdk4.Connection):  # type: ignore[misc]
    """Logs in within a time limit: the SDK's own token request, made again after every 401, waits for ever."""

    def _get_access_token(self) -> str:
        root = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(self._url))
        form = {
            "grant_type": "password",
            "scope": "ovirt-app-api",
            "username": self._username,
            "password": self._password,
        }
        bounds = https.Bounds(self._timeout, self._timeout, MAX_TOKEN_SIZE)
        path = "/ovirt-engine/sso/oauth/token"
        reply = https.post_form("the engine's log-in", root + path, form, Path(self._ca_file), bounds)
        members = fields.members(fields.parse(reply.body, "log-in", MAX_TOKEN_SIZE), "log-in")
        if reply.status in (400, 401, 403):
            raise ovirtsdk4.AuthError(str(members.get("error_description") or members.get("error") or reply.status))
        return fields.text(members, "access_token", MAX_TOKEN_SIZE)


class Sdk:
    """The engine's REST API as one user. Thread-safe."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._local = threading.local()

    def call(self, what: str, action: Callable[[Any], T]) -> T:
        """Return what `action` returns, which gets the SDK's system service.

        Args:
            what: the action's name in errors.

        Raises:
            Unavailable: the engine does not answer, its answer makes no sense, or it refuses our user.
            Conflict: it refuses the request (HTTP 400, 409).
            NotFound: the request names something that is not there (404).
            InvalidConfig: there is no password.
        """
        try:
            return action(self._system())
        except ovirtsdk4.NotFoundError as e:
            raise errors.NotFound("object at the engine", f"({what})") from e
        except ovirtsdk4.AuthError as e:
            self._drop()
            denied = "our user lacks a permission" if e.code == 403 else "it refuses our user or password"
            raise errors.Unavailable("the engine", f"{denied} ({what}): {_line(e)}") from e
        except ovirtsdk4.Error as e:
            if e.code in (400, 409):
                raise errors.Conflict(f"the engine refuses ({what}): {_line(e)}") from e
            self._drop()
            raise errors.Unavailable("the engine", f"{what}: {_line(e)}") from e
        except (errors.InvalidConfig, errors.Unavailable):
            self._drop()
            raise
        except Exception as e:
            # The SDK's readers raise whatever comes to them on a document that is not what it should be.
            self._drop()
            raise errors.Unavailable("the engine", f"{what}: its answer makes no sense: {_line(e)}") from e

    def _system(self) -> Any:
        connection: Optional[ovirtsdk4.Connection] = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _Connection(
                url=self._access.url,
                username=self._access.username,
                password=self._access.password(),
                ca_file=str(self._access.ca_file),
                timeout=int(self._access.timeout_s) or 1,
            )
        return connection.system_service()

    def _drop(self) -> None:
        connection: Optional[ovirtsdk4.Connection] = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            try:
                connection.close(logout=False)
            except ovirtsdk4.Error as e:
                log.info("close error=%s", _line(e))


def password_of(path: Path) -> str:
    """Return the password in a file. Raises InvalidConfig."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_PASSWORD_SIZE).rstrip("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise errors.InvalidConfig(str(path), [f"the engine's password cannot be read: {e}"]) from e


def properties(given: Any) -> dict[str, str]:
    """Return the SDK's list of properties as a mapping."""
    return {one.name: one.value or "" for one in given or []}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
