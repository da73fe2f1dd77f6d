# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Every error that crosses a module's edge, in one tree, sorted by whose fault it is.

A failed check is a value (a Finding); being unable to check is one of these.
"""

from __future__ import annotations

from collections.abc import Sequence


class Error(Exception):
    """Base of all errors of this package. `str()` is one plain sentence for a person."""

    template = "{reason}"

    def __init__(self, **parts: object) -> None:
        super().__init__(self.template.format(**parts))
        self.parts = parts


class InvalidConfig(Error):
    """The operator's configuration has faults; all of them are named at once.

    Args:
        source: the file or directory that was read.
        faults: one sentence per fault.
    """

    template = "configuration {source} cannot be used: {reason}"

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        super().__init__(source=source, reason="; ".join(faults))
        self.faults = tuple(faults)


class InvalidMessage(Error):
    """A peer's bytes are not a message. `what` names the message, `reason` the first fault."""

    template = "malformed {what}: {reason}"

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what=what, reason=reason)
        self.what = what
        self.reason = reason


class Unavailable(Error):
    """A peer or device did not answer, or not in time. Says nothing about trust."""

    template = "{peer} is unavailable: {reason}"

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(peer=peer, reason=reason)
        self.peer = peer
        self.reason = reason


class RequestFailed(Unavailable):
    """A peer is there, but fails at this one request: others need not wait for it."""


class CertificateFault(Unavailable):
    """A peer's certificate is not good, or a file that is needed to check it or to show ours."""


class AccessRefused(Unavailable):
    """A peer answers, but does not let our user in, or not do this; an administrator can mend it.

    Args:
        code: stable.
        reason: a whole clause, which names the peer.
        next_step: what the administrator can do.
    """

    template = "{reason}. Next: {next_step}"

    def __init__(self, peer: str, code: str, reason: str, next_step: str) -> None:
        Error.__init__(self, reason=reason, next_step=next_step)
        self.peer = peer
        self.code = code
        self.reason = reason
        self.next_step = next_step


class Refused(Error):
    """A peer may not do what it asked for. `code` is stable, `reason` is the peer's own fault."""

    template = "refused ({code}): {reason}"

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code=code, reason=reason)
        self.code = code
        self.reason = reason


class Conflict(Error):
    """The request contradicts what is already there."""

    template = "conflict: {reason}"

    def __init__(self, reason: str) -> None:
        super().__init__(reason=reason)
        self.reason = reason


class NotFound(Error):
    """The request names something that does not exist."""

    template = "there is no {kind} {name}"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind=kind, name=name)
        self.kind = kind
        self.name = name
