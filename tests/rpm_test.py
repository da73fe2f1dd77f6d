# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The packages for EL9: each has what its modules import, and no more, and all files are in one."""

from __future__ import annotations

import ast
import configparser
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = (ROOT / "packaging" / "rpm" / "ovirt-tcp.spec").read_text()
MODULE = "%{module}/"
# What EL9, EPEL and oVirt call the packages of what is imported.
EL9 = {
    "OpenSSL": "python3-pyOpenSSL",
    "alembic": "python3-alembic",
    "click": "python3-click",
    "cryptography": "python3-cryptography",
    "ovirtsdk4": "python3-ovirt-engine-sdk4",
    "prometheus_client": "python3-prometheus_client",
    "psycopg2": "python3-psycopg2",
    "pycurl": "python3-pycurl",
    "sqlalchemy": "python3-sqlalchemy",
    "tornado": "python3-tornado",
    "yaml": "python3-pyyaml",
}
# In common because of its folder, and imported by those only who have tornado.
OF_TWO_ROLES = "json_handler"
PACKAGES = ("common", "verifier", "cli", "engine", "agent", "lab")
# A host has nothing of a database, and nothing of oVirt's SDK.
FORBIDDEN_ON_HOSTS = {"sqlalchemy", "alembic", "ovirtsdk4", "pycurl", "tornado"}


def section(kind: str, package: str) -> str:
    """Return the lines of a section of the spec."""
    lines = re.search(
        rf"^%{kind} {package}\n(.*?)(?=^%(?!dir|config|exclude|doc|license|{{))", SPEC, re.M | re.S
    )
    assert lines, (kind, package)
    return lines[1]


def tagged(package: str, tag: str) -> set[str]:
    found = re.findall(rf"^{tag}: +(\S+)", section("package", package), re.M)
    return set(found)


@functools.cache
def modules(package: str) -> frozenset[str]:
    """Return the modules of a package, dotted, as its files say."""
    names: set[str] = set()
    for line in section("files", package).splitlines():
        words = line.split()
        if not words or not words[-1].startswith(MODULE) or line.startswith("%dir"):
            continue
        pattern = words[-1][len(MODULE) :]
        if "__pycache__" in pattern:
            continue
        paths = set(python_files(pattern))
        names = names - paths if line.startswith("%exclude") else names | paths
    return frozenset(names)


def python_files(pattern: str) -> Iterator[str]:
    package = ROOT / "ovirt_tcp_plugin"
    for path in package.glob(pattern):
        for file in [path] if path.is_file() else path.rglob("*.py"):
            if file.suffix == ".py":
                yield ".".join(file.relative_to(package.parent).with_suffix("").parts)


def imported(module: str) -> set[str]:
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def foreign(package: str) -> set[str]:
    """Return what a package's modules import that is neither Python's nor ours."""
    ours = modules(package)
    if package == "common":
        ours -= {f"ovirt_tcp_plugin.{OF_TWO_ROLES}"}
    return {name.split(".")[0] for module in ours for name in imported(module)} & set(EL9)


def required(package: str) -> set[str]:
    """Return what a package requires, through others of ours, too."""
    names = tagged(package, "Requires")
    for other in PACKAGES:
        if f"ovirt-tcp-{other}" in names:
            names |= required(other)
    return names


@pytest.mark.skipif(sys.version_info < (3, 10), reason="no list of the modules of Python itself")
def test_the_package_of_every_import_is_known() -> None:
    known = {*EL9, *sys.stdlib_module_names, "ovirt_tcp_plugin", "__future__"}
    for package in PACKAGES:
        for module in modules(package):
            assert {name.split(".")[0] for name in imported(module)} <= known, module


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_requires_what_its_modules_import(package: str) -> None:
    missing = {EL9[name] for name in foreign(package)} - required(package)
    assert missing - tagged(package, "Suggests") == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_requires_no_library_that_it_does_not_import(package: str) -> None:
    libraries = {name for name in tagged(package, "Requires") if name in EL9.values()}
    used = {EL9[name] for name in foreign(package)}
    if package in ("verifier", "engine"):
        used |= {EL9[name] for name in {"tornado"}}
    assert libraries - used == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_import_only_what_is_installed_with_them(package: str) -> None:
    here = set(modules(package))
    for other in PACKAGES:
        if f"ovirt-tcp-{other}" in required(package):
            here |= modules(other)
    everything = set().union(*(modules(other) for other in PACKAGES))
    for module in modules(package):
        assert (imported(module) & everything) - here == set(), module


def test_a_host_gets_no_database_and_no_sdk() -> None:
    assert {EL9[name] for name in FORBIDDEN_ON_HOSTS} & required("agent") == set()


def test_every_module_is_in_one_package() -> None:
    everything = set(python_files("**/*.py"))
    packed: list[str] = []
    for package in PACKAGES:
        packed += modules(package)
    assert sorted(packed) == sorted(everything)


def test_the_spec_is_of_this_version() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    version = parser["metadata"]["version"]
    assert re.search(rf"^Version: +{re.escape(version)}$", SPEC, re.M)


def test_no_scriptlet_can_fail() -> None:
    for kind in ("post", "preun", "postun"):
        for package in ("verifier", "engine", "agent"):
            for line in section(kind, package).splitlines():
                if line and not line.startswith(("%systemd_", "#")):
                    assert line.endswith("|| :"), line


@pytest.mark.parametrize("role", ["agent", "broker", "filterd", "verifier"])
def test_every_user_of_a_unit_is_made_with_its_directory(role: str) -> None:
    package = "engine" if role in ("broker", "filterd") else role
    users = (ROOT / "packaging" / "sysusers.d" / f"ovirt-tcp-{package}.conf").read_text()
    directories = (ROOT / "packaging" / "tmpfiles.d" / f"ovirt-tcp-{package}.conf").read_text()
    user = f"ovirt-tcp-{role}"
    assert re.search(rf"^u {user} ", users, re.M)
    if role == "agent":
        assert "m ovirt-tcp-agent tss" in users
    if role != "filterd":
        assert f"d /var/lib/ovirt-tcp/{role} 0700 {user} {user} -" in directories
