# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The filter under the old ovirt-scheduler-proxy: a process a call, one list on stdout, nothing on
stderr."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from tests.scheduler.conftest import BAD, GOOD, MARKED, pool

FILTERS = Path(__file__).parents[2] / "scheduler_filters"


def run(config: Path, hosts: object, vm: object, properties: object) -> list[str]:
    """Run the filter as the proxy does, but with another configuration directory."""
    script = (
        "import pathlib, ovirt_tcp_plugin.config as c; "
        f"c.DEFAULT_DIRECTORY = pathlib.Path({str(config)!r}); "
        f"import trusted_hosts; trusted_hosts.TrustedHosts().do_filter({hosts!r}, {vm!r}, "
        f"{properties!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=FILTERS, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    printed = ast.literal_eval(done.stdout)
    assert isinstance(printed, list)
    return printed


@pytest.fixture
def config(tmp_path: Path) -> Path:
    SnapshotWriter(tmp_path / "snapshot.d").write(pool())
    options = f'snapshots: {{directory: {tmp_path / "snapshot.d"}, owner: ""}}\n'
    (tmp_path / "filterd.yaml").write_text(options)
    return tmp_path


@pytest.mark.parametrize(
    ("hosts", "vm", "properties"),
    [
        (None, MARKED, {}),
        ([GOOD], MARKED, None),
        ([GOOD, {}], MARKED, {}),
        ([BAD], MARKED, {}),
        ([], "", {}),
    ],
)
def test_prints_an_empty_list_in_doubt(
    config: Path, hosts: object, vm: object, properties: object
) -> None:
    assert run(config, hosts, vm, properties) == []


def test_prints_an_empty_list_without_a_configuration(tmp_path: Path) -> None:
    assert run(tmp_path, [GOOD], MARKED, {}) == []


def test_prints_an_empty_list_when_its_snapshot_is_broken(config: Path) -> None:
    for path in (config / "snapshot.d").glob("*.json"):
        path.write_text("half a snap")
    assert run(config, [GOOD], MARKED, {}) == []


def test_prints_the_trusted_hosts(config: Path) -> None:
    assert run(config, [BAD, GOOD], MARKED, {"trust_scope": "all_vms"}) == [GOOD]


def test_describes_itself_as_filterd_does() -> None:
    sys.path.insert(0, str(FILTERS))
    try:
        import trusted_hosts
    finally:
        sys.path.remove(str(FILTERS))
    from ovirt_tcp_plugin.placement import filter_unit

    assert trusted_hosts.TrustedHosts.__name__ == filter_unit.NAME
    assert trusted_hosts.TrustedHosts.do_filter.__doc__ == filter_unit.DESCRIPTION
    # The proxy offers every class of the module that has such a method.
    offered = [name for name, one in vars(trusted_hosts).items() if hasattr(one, "do_filter")]
    assert offered == [filter_unit.NAME]
    assert trusted_hosts.TrustedHosts.properties_validation == filter_unit.PROPERTIES
