# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Calls through the oVirt SDK that end in time, and with only this package's errors.

`client`, `admin_client` and `inspection` use it. What the SDK does not do, and this does: one
connection per thread (a Connection serialises its threads), a new connection after any error
(time-outs and an engine that restarts raise a plain Error without a code, a document that is no XML
a plain Exception), a time limit for the log-in, and no log-out that would revoke a token on close.

Three things that the SDK mixes up are distinguished here: an engine that refuses the password, one
that lets our user do too little, and one that does not answer (`errors.AccessRefused` with its
code, and a plain `errors.Unavailable`).
"""

from __future__ import annotations

import dataclasses
import html
import logging
import re
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, TypeVar

import ovirtsdk4
import pycurl

from ovirt_tcp_plugin import errors, https
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.messages import json_fields

log = logging.getLogger("broker.engine")

MAX_PASSWORD_SIZE = 1024
MAX_TOKEN_SIZE = 64 * 1024
# So much of an answer that is no document of the API is shown.
MAX_PAGE_TEXT = 300

LOGIN_REFUSED = "login_refused"
LOGIN_PERMIT_MISSING = "login_permit_missing"
PERMIT_MISSING = "permit_missing"

# What the engine's SSO says of a password that it does not take
# (`SsoConstants.ERR_CODE_ACCESS_DENIED`); a provider of OpenID Connect behind it says the other.
_PASSWORD_REFUSALS = frozenset({"access_denied", "invalid_grant"})
# `USER_FAILED_TO_AUTHENTICATE_TIMED_OUT` comes with the same code, but says nothing about the
# password.
_DIRECTORY_AWAY = "servers cannot be reached"
# `SsoUtils.createUserSession`, for a user without a role that has the permit.
_NO_LOGIN_PERMIT = "is not authorized to perform login"
_SETUP = "for the broker's user `ovirt-tcp setup` does that in its phase 2"
_PEER = "the engine"
# A refused password is tried again so long after each refusal, and then no more: four refusals
# lock no account. The engine's SSO says the same of a wrong password and of a directory that
# failed (`AuthnMessageMapper`), and an account that others locked is free after an hour: both pass
# by themselves.
LOGIN_PAUSES_MS = (300_000, 1_800_000, 7_200_000)

T = TypeVar("T")


class LogInGate:
    """Lets one log-in through at a time, and few with a password that the engine refused before.

    aaa-jdbc locks an account for an hour after five refusals in a row (MAX_FAILURES_SINCE_SUCCESS),
    and every thread of ours would try by itself, again and again. Thread-safe.

    Args:
        now_ms: returns CLOCK_BOOTTIME.
    """

    def __init__(self, now_ms: Callable[[], int] = boottime_ms) -> None:
        self._lock = threading.Lock()
        self._now_ms = now_ms
        self._refusal: Optional[errors.AccessRefused] = None
        self._refused_state: object = None
        self._refusals = 0
        # None when it is not tried again.
        self._next_try_ms: Optional[int] = None

    def log_in(self, password_state: object, within_s: float, action: Callable[[], str]) -> str:
        """Return the token that `action` gets.

        Args:
            password_state: a value that changes when the password may have changed.
            within_s: longest time to wait for the log-in of another thread.

        Raises:
            AccessRefused: the engine refuses this password, or did before.
            Unavailable: there is no answer, or another thread waits for one.
        """
        if not self._lock.acquire(timeout=within_s):
            waited = f"another log-in has waited for its answer for {within_s:.0f} s"
            raise errors.Unavailable(_PEER, waited)
        try:
            if password_state != self._refused_state:
                self._refusal = None
                self._refusals = 0
            last = self._refusal
            if last is not None and not self._is_due():
                raise errors.AccessRefused(last.peer, last.code, last.reason, last.next_step)
            try:
                token = action()
            except errors.AccessRefused as e:
                self._take_refusal(e, password_state)
                raise
            self._refusal = None
            self._refusals = 0
            return token
        finally:
            self._lock.release()

    def _is_due(self) -> bool:
        return self._next_try_ms is not None and self._now_ms() >= self._next_try_ms

    def _take_refusal(self, refusal: errors.AccessRefused, password_state: object) -> None:
        self._refusal = refusal
        self._refused_state = password_state
        self._refusals += 1
        if self._refusals > len(LOGIN_PAUSES_MS):
            self._next_try_ms = None
            log.error("log-in refused, and not tried again until the password changes: %s", refusal)
            return
        pause_ms = LOGIN_PAUSES_MS[self._refusals - 1]
        self._next_try_ms = self._now_ms() + pause_ms
        log.error("log-in refused, and tried again in %d s: %s", pause_ms // 1000, refusal)


@dataclasses.dataclass(frozen=True)
class Access:
    """Who talks to which engine.

    Attributes:
        password: asked at each log-in; raises InvalidConfig when there is none.
        timeout_s: longest time for one call.
        password_file: where `password` finds it; None for one that a person typed.
        gate: of all log-ins with this password; whoever uses the same password shares it.
    """

    url: str
    username: str
    password: Callable[[], str]
    ca_file: Path
    timeout_s: float
    password_file: Optional[Path] = None
    gate: LogInGate = dataclasses.field(default_factory=LogInGate, compare=False)

    @property
    def password_state(self) -> object:
        """What changes when somebody writes or touches the password file."""
        if self.password_file is None:
            return None
        try:
            status = self.password_file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def login_refused(self, reason: str) -> errors.AccessRefused:
        """Return the error of a log-in that the engine refuses."""
        name = self.username.rpartition("@")[0]
        unlock = f"ovirt-aaa-jdbc-tool user unlock {name}"
        if self.password_file is None:
            step = f"try again with the right password; five refusals lock the account: {unlock}"
        else:
            step = (
                f"write the right password into {self.password_file}; until that file changes "
                "the log-in is tried three times more within three hours, since five refusals lock "
                "the account. One that is locked: "
                f"{unlock}, then touch the file"
            )
        text = f"the engine refuses the log-in of {self.username}: {reason.rstrip('.')}"
        return errors.AccessRefused(_PEER, LOGIN_REFUSED, text, step)

    def session_refused(self, what: str, reason: str) -> errors.AccessRefused:
        """Return the error of a token that the engine gave and does not take.

        Such as for too many sessions.
        """
        who = f"the engine does not take the session of {self.username}"
        text = f"{who} ({what}): {reason.rstrip('.')}"
        step = "see why in /var/log/ovirt-engine/engine.log at the engine"
        return errors.AccessRefused(_PEER, LOGIN_REFUSED, text, step)

    def login_permit_missing(self) -> errors.AccessRefused:
        """Return the error of a user that may not log in."""
        who = f"the engine does not let {self.username} log in"
        reason = f"{who}: no role of this user has the permit login"
        step = f"give it one on System; {_SETUP}"
        return errors.AccessRefused(_PEER, LOGIN_PERMIT_MISSING, reason, step)

    def permit_missing(self, what: str, reason: str) -> errors.AccessRefused:
        """Return the error of a user that is logged in and may not do this."""
        text = f"the engine does not let {self.username} do this ({what}): {reason.rstrip('.')}"
        step = f"give its role the permit; {_SETUP}"
        return errors.AccessRefused(_PEER, PERMIT_MISSING, text, step)


class _DirectTransfers:
    """The SDK's transfers (`pycurl.CurlMulti`), none of which the environment steers.

    The SDK makes a handle for each request and hands it over here; libcurl by itself takes a proxy
    from http_proxy, https_proxy and all_proxy, and may read ~/.netrc. Not a subclass: pycurl of
    EL9 (7.43.0.6) has none.
    """

    def __init__(self, transfers: Any) -> None:
        self._transfers = transfers

    def add_handle(self, handle: Any) -> None:
        """Begin a transfer."""
        handle.setopt(pycurl.PROXY, "")
        handle.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        self._transfers.add_handle(handle)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transfers, name)


class _Connection(ovirtsdk4.Connection):  # type: ignore[misc]
    """Logs in within a time limit, and follows nothing of the environment.

    The SDK's own token request, made again after every 401, waits for ever.
    """

    # Of the SDK; it makes it in its constructor.
    _multi: Any

    def __init__(self, access: Access) -> None:
        self._access = access
        # Before the password: one that is replaced in between is tried once more, not once less.
        self._password_state = access.password_state
        super().__init__(
            url=access.url,
            username=access.username,
            password=access.password(),
            ca_file=str(access.ca_file),
            timeout=int(access.timeout_s) or 1,
        )
        self._multi = _DirectTransfers(self._multi)

    def check_xml_content_type(self, response: Any) -> None:
        """Raise what a page means that came instead of a document.

        The SDK tells neither its status nor its text.
        """
        content_type = self._get_header_value(response.headers, "content-type") or ""
        if "xml" in content_type.lower():
            return
        page = f"HTTP {response.code}: {_text(response.body) or 'no text'}"
        if response.code in (401, 403):
            raise ovirtsdk4.AuthError(page, code=response.code)
        raise ovirtsdk4.Error(f"a page instead of a document ({page})")

    def _get_access_token(self) -> str:
        access = self._access
        return access.gate.log_in(self._password_state, access.timeout_s, self._request_token)

    def _request_token(self) -> str:
        parts = urllib.parse.urlsplit(self._url)
        root = f"{parts.scheme}://{parts.netloc}"
        form = {
            "grant_type": "password",
            "scope": "ovirt-app-api",
            "username": self._username,
            "password": self._password,
        }
        bounds = https.Bounds(self._timeout, self._timeout, MAX_TOKEN_SIZE)
        url = f"{root}/ovirt-engine/sso/oauth/token"
        reply = https.post_form("the engine's log-in", url, form, Path(self._ca_file), bounds)
        try:
            members = json_fields.parse_members(reply.body, "log-in", MAX_TOKEN_SIZE)
        except errors.InvalidMessage as e:
            page = f"a page instead of a token (HTTP {reply.status}: {_text(reply.body)})"
            raise errors.Unavailable("the engine's log-in", page) from e
        # For the scope of the API the code has a name of its own
        # (`SsoService.sendJsonDataWithMessage`).
        code = members.get("error_code") or members.get("error")
        if code is None:
            return json_fields.text(members, "access_token", MAX_TOKEN_SIZE)
        text = _line(members.get("error_description") or members.get("error"))
        if code in _PASSWORD_REFUSALS and _DIRECTORY_AWAY not in text:
            raise self._access.login_refused(text)
        raise errors.Unavailable("the engine's log-in", f"{_line(code)}: {text}")


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
            Unavailable: the engine does not answer, or its answer cannot be parsed.
            RequestFailed: it is there, and fails at this.
            AccessRefused: it refuses our password, or lets our user do too little.
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
            raise self._refused(what, e) from e
        except ovirtsdk4.Error as e:
            if e.code in (400, 409):
                raise errors.Conflict(f"the engine refuses ({what}): {_line(e)}") from e
            reason = f"{what}: {_line(e)}"
            if e.fault is not None:
                # The session is good.
                raise errors.RequestFailed(_PEER, reason) from e
            self._drop()
            raise errors.Unavailable(_PEER, reason) from e
        except (errors.InvalidConfig, errors.Unavailable):
            self._drop()
            raise
        except Exception as e:
            # The SDK's readers raise anything on a document that is not what it should be.
            self._drop()
            reason = f"{what}: its answer cannot be parsed: {_line(e)}"
            raise errors.Unavailable(_PEER, reason) from e

    def _refused(self, what: str, error: ovirtsdk4.AuthError) -> errors.Unavailable:
        """Return what HTTP 401 or 403 means. The SDK logged in before, and after a first 401."""
        text = _line(error)
        if _NO_LOGIN_PERMIT in text:
            return self._access.login_permit_missing()
        if error.fault is not None:
            return self._access.permit_missing(what, text)
        return self._access.session_refused(what, text)

    def _system(self) -> Any:
        connection: Optional[ovirtsdk4.Connection] = getattr(self._local, "connection", None)
        if connection is None:
            connection = _Connection(self._access)
            self._local.connection = connection
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


def properties(sdk_properties: Any) -> dict[str, str]:
    """Return the SDK's list of properties, which may be None, as a mapping."""
    return {entry.name: entry.value or "" for entry in sdk_properties or []}


def _line(text: object) -> str:
    return " ".join(str(text).split())[:500]


def _text(page: bytes) -> str:
    """Return what a page says, without its tags."""
    untagged = re.sub(r"<[^>]*>", " ", page[:MAX_TOKEN_SIZE].decode("utf-8", "replace"))
    return _line(html.unescape(untagged))[:MAX_PAGE_TEXT]
