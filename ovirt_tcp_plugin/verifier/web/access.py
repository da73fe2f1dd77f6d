# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who may call what."""

from __future__ import annotations

import enum


class Caller(enum.Enum):
    """Who may call a route. Values are the roles of tokens, but for the first two."""

    ANYONE = "anyone"
    AGENT = "agent"
    VIEWER = "viewer"
    OPERATOR = "operator"
    POLICY = "policy"
    ENROLMENT = "enrolment"


# Who works may look, too; who hands out enrolment tokens need not.
INCLUDES = {
    "viewer": {Caller.VIEWER},
    "operator": {Caller.VIEWER, Caller.OPERATOR},
    "policy": {Caller.VIEWER, Caller.POLICY},
    "enrolment": {Caller.ENROLMENT},
}
TOKEN_ROLES = tuple(INCLUDES)
