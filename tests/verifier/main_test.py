# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The attestation server's command: tokens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.verifier.administrator import Run


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_a_state_directory_that_others_can_read_is_refused(
    run: Run, tmp_path: Path, mode: int
) -> None:
    (tmp_path / "state").chmod(mode)
    refused = run("init")
    assert refused.exit_code != 0
    assert "make it private: chmod 700" in refused.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_commands_of_root_leave_is_the_services(run: Run, tmp_path: Path) -> None:
    """Whoever runs `init` or `token add` by sudo need not know the user of the service."""
    state = tmp_path / "state"
    for path in state.iterdir():
        path.unlink()
    os.chown(state, 12_345, 12_346)
    assert run("init", "--name", "verifier.example.com").exit_code == 0
    assert run("token", "add", "--role", "viewer").exit_code == 0
    assert run("authority", "renew").exit_code == 0
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in state.iterdir()}
    assert {"ca.key", "ca.pem", "server.key", "server.pem", "verifier.db"} <= set(owners)
    assert set(owners.values()) == {(12_345, 12_346)}
    assert (state / "verifier.db").stat().st_mode & 0o777 == 0o600


class TestTokens:
    def test_a_role_that_there_is_not_is_refused(self, run: Run) -> None:
        assert run("token", "add", "--role", "root").exit_code == 2

    def test_a_token_that_there_is_not_cannot_be_removed(self, run: Run) -> None:
        refused = run("token", "remove", "000000000000")
        assert refused.exit_code != 0
        assert "there is no token 000000000000" in refused.output

    def test_tokens_are_listed_without_their_secrets_and_removed(self, run: Run) -> None:
        secrets = [
            run("token", "add", "--role", "viewer", "--note", "the broker").output.strip(),
            run("token", "add", "--role", "policy", "--days", "30").output.strip(),
            run("token", "enrol", "host-1").output.strip(),
        ]
        listed = run("token", "list").output
        assert len(set(secrets)) == 3
        assert not any(secret in listed for secret in secrets)
        rows = [line.split(None, 3) for line in listed.splitlines()]
        assert [(row[1], *row[3:]) for row in rows] == [
            ("enrolment", "host-1"),
            ("policy",),
            ("viewer", "the broker"),
        ]
        assert [row[2] == "never" for row in rows] == [False, False, True]
        assert run("token", "remove", rows[0][0]).exit_code == 0
        assert len(run("token", "list").output.splitlines()) == 2
