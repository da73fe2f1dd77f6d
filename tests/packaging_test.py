# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The wheel has all that an installation needs, in its place, and the sdist the documents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "ovirt-tcp",
    "ovirt-tcp-agent",
    "ovirt-tcp-verifier",
    "ovirt-tcp-broker",
    "ovirt-tcp-filterd",
)
HOOKS = (
    "libexec/vdsm/hooks/before_vdsm_start/50_ovirt_tcp_boot.py",
    "libexec/vdsm/hooks/after_get_caps/50_ovirt_tcp_summary.py",
    "libexec/vdsm/hooks/before_vm_start/50_ovirt_tcp_gate.py",
    "libexec/vdsm/hooks/before_vm_migrate_destination/50_ovirt_tcp_gate.py",
    "libexec/vdsm/hooks/before_vm_dehibernate/50_ovirt_tcp_gate.py",
)
DATA = (
    *HOOKS,
    "share/ovirt-tcp/examples/gate.conf",
    "share/ovirt-tcp/hooks/engine/backend_initialize.py",
    "share/ovirt-tcp/hooks/engine/init_vds_on_up.py",
    "share/ovirt-tcp/scheduler_filters/trusted_hosts.py",
    "share/ovirt-tcp/examples/verifier.yaml",
    "share/ovirt-tcp/examples/systemd/ovirt-tcp-filterd.socket",
)


def build(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a distribution from a copy of what git would give, without the network."""
    source = tmp_path_factory.mktemp("source") / "project"
    built = tmp_path_factory.mktemp(kind)
    patterns = ("build", "dist", ".git", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*patterns))
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(built)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (distribution,) = built.iterdir()
    return distribution


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory)


def test_the_documents_are_in_the_source_distribution(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with tarfile.open(build("sdist", tmp_path_factory)) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(documents) > 30
    assert {str(path.relative_to(ROOT)) for path in documents} <= packed


def test_the_readme_is_the_description_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        described = archive.read(metadata).decode()
    assert "Description-Content-Type: text/markdown" in described
    assert (ROOT / "README.md").read_text() in described


def test_hooks_filter_samples_and_units_are_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {
            name.split(".data/data/")[1]: name
            for name in archive.namelist()
            if ".data/data/" in name
        }
        assert set(DATA) <= set(names)
        # VDSM runs only what is executable; the gate is one file in the sources, and three in an
        # installation.
        for hook in HOOKS:
            assert archive.getinfo(names[hook]).external_attr >> 16 & 0o111
        assert {archive.read(names[hook]) for hook in HOOKS[2:]} == {
            (ROOT / "ovirt_tcp_plugin" / "gate.py").read_bytes()
        }
        assert not any("tests/" in name for name in archive.namelist())


def test_every_command_answers_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(tmp_path),
    ]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name in COMMANDS:
        done = subprocess.run(
            [sys.executable, str(tmp_path / "bin" / name), "--help"],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Usage:" in done.stdout
