# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Tokens that commands write into files, and what is said of files that others may read."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ovirt_tcp_plugin import errors, secret_files
from ovirt_tcp_plugin.attester import enrolment
from ovirt_tcp_plugin.broker import main as broker
from ovirt_tcp_plugin.secret_files import SecretOutput
from ovirt_tcp_plugin.tokens import Listed, command_group

SECRET = "s3cret-token"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


class Tokens:
    """Keeps tokens, or refuses to."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.fault: Exception | None = None

    def __enter__(self) -> Tokens:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, secret: str, role: str, note: str, end_s: int) -> None:
        if self.fault:
            raise self.fault
        self.secrets.append(secret)

    def every(self) -> list[Listed]:
        return []

    def remove(self, identifier: str) -> None:
        raise errors.NotFound("token", identifier)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


def add(tokens: Tokens, *arguments: str) -> Result:
    group = command_group(["viewer"], "", lambda _: tokens)
    return CliRunner().invoke(group, ["add", "--role", "viewer", *arguments], obj=Path())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_file_that_exists_is_kept_and_no_token_is_made(tokens: Tokens, tmp_path: Path) -> None:
    out = tmp_path / "viewer.token"
    out.write_text("of somebody else")
    refused = add(tokens, "--out", str(out))
    assert isinstance(refused.exception, errors.Conflict)
    assert "exists: choose another name, or remove it first" in str(refused.exception)
    assert out.read_text() == "of somebody else"
    assert tokens.secrets == []
    assert list(tmp_path.iterdir()) == [out]


def test_a_token_that_could_not_be_kept_is_in_no_file(tokens: Tokens, tmp_path: Path) -> None:
    tokens.fault = errors.Unavailable("the database", "disk full")
    out = tmp_path / "viewer.token"
    assert add(tokens, "--out", str(out)).exception is tokens.fault
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_missing_is_said(tokens: Tokens, tmp_path: Path) -> None:
    refused = add(tokens, "--out", str(tmp_path / "none" / "viewer.token"))
    assert isinstance(refused.exception, errors.Unavailable)
    assert "No such file or directory" in str(refused.exception)
    assert tokens.secrets == []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--owner", "root"], "--owner is the owner of the file of --out"),
        (["--out", "token", "--owner", "nobody-of-this-name"], "has no user nobody-of-this-name"),
    ],
)
def test_an_owner_needs_a_file_and_an_account(
    tokens: Tokens, arguments: list[str], fault: str
) -> None:
    refused = add(tokens, *arguments)
    assert refused.exit_code == 2
    assert fault in refused.output
    assert tokens.secrets == []


def test_without_a_file_the_token_is_printed(tokens: Tokens) -> None:
    assert [add(tokens).output.strip()] == tokens.secrets


def test_the_token_is_in_the_file_for_its_owner_alone_whatever_the_umask(
    tokens: Tokens, tmp_path: Path
) -> None:
    out = tmp_path / "viewer.token"
    before = os.umask(0)
    done = add(tokens, "--out", str(out))
    os.umask(before)
    assert done.exit_code == 0
    assert [out.read_text().strip()] == tokens.secrets
    assert mode(out) == 0o600
    assert tokens.secrets[0] not in done.output
    assert list(tmp_path.iterdir()) == [out]


@as_root
def test_the_token_belongs_to_the_service_before_it_is_in_the_file(
    tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_away = []
    fchown = os.fchown

    def watching_fchown(descriptor: int, user: int, group: int) -> None:
        given_away.append(os.fstat(descriptor).st_size)
        fchown(descriptor, user, group)

    monkeypatch.setattr(os, "fchown", watching_fchown)
    out = tmp_path / "verifier.token"
    assert add(tokens, "--out", str(out), "--owner", "nobody").exit_code == 0
    assert given_away == [0]
    assert out.stat().st_uid == 65_534
    assert mode(out) == 0o600


def test_the_broker_writes_its_token_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(
        "engine: {url: 'https://e', username: b}\nverifier: {urls: ['https://v']}\n"
        f"state: {{directory: {tmp_path / 'state'}}}\n"
    )
    out = tmp_path / "broker-api.token"
    arguments = ["--config-dir", str(tmp_path), "token", "add", "--role", "viewer"]
    done = CliRunner().invoke(broker.main, [*arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert mode(out) == 0o600
    again = CliRunner().invoke(broker.main, [*arguments, "--out", str(out)])
    assert again.exit_code == 1
    assert "exists" in again.output


@pytest.mark.parametrize(
    ("mode_", "is_open"),
    [(0o600, False), (0o640, False), (0o644, True), (0o660, True), (0o602, True)],
)
def test_a_group_may_read_a_secret_and_nobody_else(
    tmp_path: Path, mode_: int, is_open: bool
) -> None:
    path = tmp_path / "cli.token"
    path.write_text(SECRET)
    path.chmod(mode_)
    assert secret_files.is_open(path) is is_open


def test_a_program_that_reads_an_open_secret_says_so_and_uses_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text(SECRET)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert enrolment.read_token(path) == SECRET
    assert f"path={path} mode=0644; chmod 600 {path}" in caplog.text
    assert SECRET not in caplog.text


def test_a_secret_that_is_not_there_is_not_open(tmp_path: Path) -> None:
    assert not secret_files.is_open(tmp_path / "none")
    with SecretOutput(tmp_path / "fresh", "").giving(SECRET):
        assert (tmp_path / "fresh").read_text() == f"{SECRET}\n"
