# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A configuration names all its faults at once, and nothing that is not declared is accepted."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ovirt_tcp_plugin import config, errors
from ovirt_tcp_plugin.attester.settings import AgentSettings
from ovirt_tcp_plugin.broker.settings import Settings as BrokerSettings
from ovirt_tcp_plugin.scheduler.settings import Settings as FilterdSettings
from ovirt_tcp_plugin.verifier.settings import VerifierSettings


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    port: int = 8443
    share: float = 0.5
    ready: bool = False
    directory: Path = Path("/var")
    urls: tuple[str, ...] = ()
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.port < 1:
            raise ValueError("port is below 1")


@dataclasses.dataclass(frozen=True)
class Store:
    path: Path = Path("/db")


@dataclasses.dataclass(frozen=True)
class Settings:
    server: Server
    store: Store = Store()


def load(directory: Path, text: str, **drop_ins: str) -> Settings:
    (directory / "role.yaml").write_text(text)
    (directory / "role.conf.d").mkdir(exist_ok=True)
    for name, content in drop_ins.items():
        (directory / "role.conf.d" / f"{name}.yaml").write_text(content)
    return config.load(Settings, "role", directory)


def faults(directory: Path, text: str, **drop_ins: str) -> tuple[str, ...]:
    with pytest.raises(errors.InvalidConfig) as caught:
        load(directory, text, **drop_ins)
    return caught.value.faults


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        errors.InvalidConfig, match=r"role\.yaml cannot be used: the file does not exist"
    ):
        config.load(Settings, "role", tmp_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidConfig, match="its directory does not exist"):
        config.load(FilterdSettings, "filterd", tmp_path / "mistyped")


@pytest.mark.parametrize(
    ("declared", "role"), [(VerifierSettings, "verifier"), (FilterdSettings, "filterd")]
)
def test_where_every_option_has_a_default_no_file_is_needed(
    tmp_path: Path, declared: type, role: str
) -> None:
    assert config.load(declared, role, tmp_path) == declared()


def test_drop_ins_may_have_everything(tmp_path: Path) -> None:
    drop_ins = tmp_path / "filterd.conf.d"
    drop_ins.mkdir()
    (drop_ins / "10-port.yaml").write_text("server: {port: 18000}")
    assert config.load(FilterdSettings, "filterd", tmp_path).server.port == 18_000


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, "server: {port: no, colour: red, urls: x}\nstorage: {}\n")
    assert found == (
        "unknown section storage, known are server, store",
        "unknown option server.colour, known are directory, name, names, port, ready, share, urls",
        "server.name is missing",
        "server.port is not a whole number: False",
        "server.urls is not a list: 'x'",
    )


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("port: '1'", "port is not a whole number"),
        ("port: true", "port is not a whole number"),
        ("port: 1.5", "port is not a whole number"),
        ("ready: 1", "ready is not true or false"),
        ("share: x", "share is not a number"),
        ("directory: ''", "directory is not a path"),
        ("urls: [1]", "urls is not a text"),
        ("names: [x]", "names is not a mapping"),
        ("name: null", "name is not a text"),
        ("port: 0", "port is below 1"),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, option: str, fault: str) -> None:
    name = "" if option.startswith("name:") else "name: x, "
    assert any(fault in one for one in faults(tmp_path, f"server: {{{name}{option}}}"))


@pytest.mark.parametrize(
    "text", ["- a", "server: [a]", "server: {name: x", "!!python/object:os.system {}", "\x00"]
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    assert faults(tmp_path, text)


def test_a_drop_in_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    found = faults(tmp_path, "server: {name: x}", **{"50-x": "a: ["})
    assert any(one.startswith("50-x.yaml cannot be read") for one in found)


def test_a_fault_in_a_drop_in_names_the_drop_in(tmp_path: Path) -> None:
    drop_ins = {
        "10-a": "server: {port: many}",
        "50-x": "server: {colour: red, share: x}\nstorage: {}",
        "60-y": "server: {share: 1}",
    }
    assert faults(tmp_path, "server: {name: 1, share: y}", **drop_ins) == (
        "50-x.yaml: unknown section storage, known are server, store",
        "50-x.yaml: unknown option server.colour, known are "
        "directory, name, names, port, ready, share, urls",
        "server.name is not a text: 1",
        "10-a.yaml: server.port is not a whole number: 'many'",
    )


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=200))
def test_any_bytes_give_settings_or_the_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "role.yaml").write_bytes(content)
    try:
        config.load(Settings, "role", tmp_path)
    except errors.InvalidConfig as e:
        assert e.faults


def test_later_files_win_option_by_option(tmp_path: Path) -> None:
    drop_ins = {"10-a": "server: {port: 1, ready: true}", "20-b": "server: {port: 2}"}
    loaded = load(tmp_path, "server: {name: x, share: 1}", **drop_ins)
    assert (loaded.server.port, loaded.server.ready, loaded.server.share) == (2, True, 1.0)


def test_a_loaded_configuration_cannot_be_changed(tmp_path: Path) -> None:
    loaded = load(tmp_path, "server: {name: x}")
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.server.port = 1  # type: ignore[misc]


def test_shows_every_option_in_force(tmp_path: Path) -> None:
    shown = config.show(
        load(tmp_path, "server: {name: x, urls: [a], names: {b: c}, directory: /d}")
    )
    assert shown == {
        "server": {
            "name": "x",
            "port": 8443,
            "share": 0.5,
            "ready": False,
            "directory": "/d",
            "urls": ["a"],
            "names": {"b": "c"},
        },
        "store": {"path": "/db"},
    }


ROLES: list[tuple[type[Any], str, dict[str, dict[str, object]]]] = [
    (VerifierSettings, "verifier", {}),
    (AgentSettings, "agent", {"verifier": {"urls": ["https://a:1"]}}),
    (
        BrokerSettings,
        "broker",
        {
            "engine": {"url": "https://e/api", "username": "u"},
            "verifier": {"urls": ["https://a:1"], "ca_file": "/ca.pem"},
        },
    ),
    (FilterdSettings, "filterd", {}),
]


def number_options() -> Iterator[Any]:
    """Every option of every role that is a number, with what its role requires beside it."""
    for declared, role, required in ROLES:
        for section, kind in typing.get_type_hints(declared).items():
            for option, of_option in typing.get_type_hints(kind).items():
                if of_option in (int, float):
                    name = f"{role}.{section}.{option}"
                    yield pytest.param(declared, role, required, section, option, id=name)


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1.0e+12", "1000000000000", "-1"])
@pytest.mark.parametrize(
    ("declared", "role", "required", "section", "option"), list(number_options())
)
def test_no_number_is_endless_or_below_zero(
    tmp_path: Path,
    declared: type[Any],
    role: str,
    required: dict[str, dict[str, object]],
    section: str,
    option: str,
    value: str,
) -> None:
    (tmp_path / f"{role}.yaml").write_text(yaml.safe_dump(required))
    config.load(declared, role, tmp_path)
    (tmp_path / f"{role}.conf.d").mkdir()
    (tmp_path / f"{role}.conf.d" / "odd.yaml").write_text(f"{section}: {{{option}: {value}}}\n")

    with pytest.raises(errors.InvalidConfig, match=f"{section}.{option} is not"):
        config.load(declared, role, tmp_path)


def test_a_long_life_of_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "verifier.yaml").write_text("appraisal: {lifetime: 86401}\n")

    with pytest.raises(errors.InvalidConfig, match="lifetime is not between 0 and 86,400"):
        config.load(VerifierSettings, "verifier", tmp_path)
