# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whose the files are that a command leaves, and with which mode."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin import durable

SERVICE = 12_345
SERVICES = 12_346

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def of_service(tmp_path: Path) -> Path:
    """Give a directory that belongs to a service's user."""
    directory = tmp_path / "service"
    directory.mkdir(mode=0o700)
    os.chown(directory, SERVICE, SERVICES)
    return directory


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """What administrators set before they write secrets."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@as_root
def test_what_root_leaves_in_a_directory_of_a_service_is_the_services(of_service: Path) -> None:
    key = of_service / "client.pem"
    key.write_text("of an earlier mistake")
    assert owner(key) == (0, os.getegid())
    durable.replace(key, b"key")
    assert key.read_bytes() == b"key"
    assert owner(key) == (SERVICE, SERVICES)
    assert mode(key) == 0o600


@as_root
def test_it_never_has_another_owner_under_its_name(
    of_service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = of_service / "broker.db"
    linked = []
    link = os.link

    def watching_link(source: Path, target: Path) -> None:
        linked.append((owner(source), mode(source)))
        link(source, target)

    monkeypatch.setattr(os, "link", watching_link)
    durable.ensure(database)
    assert linked == [((SERVICE, SERVICES), 0o600)]
    assert list(of_service.iterdir()) == [database]


@as_root
def test_a_file_that_cannot_be_given_away_is_not_left_behind(
    of_service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(PermissionError):
        durable.replace(of_service / "client.pem", b"key")
    assert list(of_service.iterdir()) == []


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    path.write_text("rows")
    durable.ensure(path)
    assert path.read_text() == "rows"
    with pytest.raises(FileExistsError):
        durable.create(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "client.pem.new").symlink_to(tmp_path / "elsewhere")
    durable.replace(tmp_path / "client.pem", b"key")
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        durable.create(tmp_path / "link")


@pytest.mark.usefixtures("strict_umask")
def test_the_owner_of_a_directory_can_reach_it_whatever_the_umask(tmp_path: Path) -> None:
    state = tmp_path / "ovirt-tcp" / "agent"
    durable.make_directory(state)
    assert mode(state) == 0o700
    assert mode(tmp_path / "ovirt-tcp") == 0o755
    durable.make_directory(state)
