# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Software TPMs: made, run, reset, and never left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import keys
from ovirt_tcp_plugin.lab import processes
from ovirt_tcp_plugin.lab import swtpm as swtpm_module
from ovirt_tcp_plugin.lab.launch import power_on
from ovirt_tcp_plugin.lab.swtpm import Swtpm, Vendor, clone
from tests.conftest import TpmPool


@pytest.fixture
def swtpm(tmp_path: Path) -> Iterator[Swtpm]:
    with Swtpm(tmp_path / "tpm") as made:
        yield made


def alive(pid: int) -> bool:
    """Return whether a process lives; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_vendors_chips_are_certified_and_different(tpm_pool: TpmPool, tmp_path: Path) -> None:
    root, issuer = x509.load_pem_x509_certificates(tpm_pool.authorities)
    issuer.verify_directly_issued_by(root)
    seen = set()
    for number in range(2):
        clone(tpm_pool.state(number), tmp_path / str(number))
        with Swtpm(tmp_path / str(number)) as swtpm:
            tpm = swtpm.connect()
            for kind in ("rsa-2048", "ecc-p384"):
                with keys.endorsement_key(tpm, [kind]) as endorsement:
                    certificate = x509.load_der_x509_certificate(endorsement.certificate)
                certificate.verify_directly_issued_by(issuer)
                seen.add(endorsement.area)
            tpm.close()
    assert len(seen) == 4


def test_a_vendor_goes_on_where_it_stopped(tmp_path: Path) -> None:
    Vendor(tmp_path / "vendor").manufacture([tmp_path / "first"])
    before = Vendor(tmp_path / "vendor").authorities

    Vendor(tmp_path / "vendor").manufacture([tmp_path / "second"])

    assert Vendor(tmp_path / "vendor").authorities == before
    assert (tmp_path / "second" / "tpm2-00.permall").exists()


def test_says_why_no_chip_was_made(tmp_path: Path) -> None:
    vendor = Vendor(tmp_path / "vendor")
    (tmp_path / "vendor" / "setup.conf").write_text("create_certs_tool = /nonexistent\n")

    with pytest.raises(errors.Unavailable, match="swtpm_setup is unavailable"):
        vendor.manufacture([tmp_path / "chip"])


def test_says_that_a_program_is_not_installed() -> None:
    with pytest.raises(errors.Unavailable, match="swtpm_none is unavailable: it is not installed"):
        processes.find_program("swtpm_none")


def test_a_deep_directory_does_not_matter(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["directory-with-a-long-name"] * 8)

    with Swtpm(deep) as swtpm:
        swtpm.connect().close()


def test_says_that_the_temporary_directory_is_too_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path.joinpath(*["directory-with-a-long-name"] * 4)
    deep.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(deep))

    with pytest.raises(errors.Unavailable, match="set a shorter TMPDIR"):
        Swtpm(tmp_path / "tpm").start()


def test_stops_and_leaves_nothing(tmp_path: Path) -> None:
    with Swtpm(tmp_path / "tpm") as swtpm:
        sockets, pid = Path(swtpm.address[len("unix:") :]).parent, swtpm.pid
        swtpm.connect().close()

    assert not sockets.exists()
    assert not alive(pid)
    with pytest.raises(errors.Unavailable, match="does not run"):
        swtpm.connect()


def test_a_restart_has_the_same_address_and_the_same_chip(
    tmp_path: Path, tpm_pool: TpmPool
) -> None:
    clone(tpm_pool.state(0), tmp_path / "tpm")
    swtpm, seen = Swtpm(tmp_path / "tpm"), []
    for _ in range(2):
        with swtpm:
            tpm = swtpm.connect()
            seen.append((swtpm.address, tpm.read_public(0x81010001)))
            tpm.close()
    assert seen[0] == seen[1]


def test_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ovirt_tcp_plugin.lab.swtpm import Swtpm\n"
        "swtpm = Swtpm(Path(sys.argv[1])); swtpm.start(); print(swtpm.pid, flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "tpm")]
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path),
    }  # the killed parent cannot remove the socket directory
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)

        parent.send_signal(signal.SIGKILL)
        parent.wait()

    while alive(pid):  # the test's time limit bounds it
        time.sleep(0.01)


def test_many_run_at_once(tmp_path: Path, tpm_pool: TpmPool) -> None:
    made = [Swtpm(tmp_path / str(number)) for number in range(20)]
    started = time.monotonic()
    try:
        for swtpm in made:
            swtpm.start()
        for swtpm in made:
            swtpm.connect().close()
        assert time.monotonic() - started < 10
    finally:
        for swtpm in made:
            swtpm.stop()


def test_a_launch_measures_what_it_is_given(swtpm: Swtpm) -> None:
    data = os.urandom(10_000)
    tpm = swtpm.connect()
    assert tpm.read_pcrs({"sha256": (17, 22)}) == {"sha256": {17: b"\xff" * 32, 22: b"\xff" * 32}}

    swtpm.control.measure_launch(data)

    expected = hashlib.sha256(bytes(32) + hashlib.sha256(data).digest()).digest()
    assert tpm.read_pcrs({"sha256": (17, 22)}) == {"sha256": {17: expected, 22: bytes(32)}}
    tpm.close()


def test_a_reset_undoes_a_launch(swtpm: Swtpm) -> None:
    tpm = swtpm.connect()
    swtpm.control.measure_launch(b"x")

    power_on(swtpm, tpm, [])

    assert tpm.read_pcrs({"sha256": (17,)}) == {"sha256": {17: b"\xff" * 32}}
    tpm.close()


def test_a_stopped_tpm_can_be_reset(swtpm: Swtpm) -> None:
    tpm = swtpm.connect()
    swtpm.control.stop()

    power_on(swtpm, tpm, [])

    tpm.read_pcrs({"sha256": (0,)})
    tpm.close()


def test_shuts_down_on_request(swtpm: Swtpm) -> None:
    swtpm.connect().close()
    swtpm.control.shutdown()

    while swtpm._processes.running("swtpm"):
        time.sleep(0.01)


def test_says_that_a_control_command_was_refused(swtpm: Swtpm) -> None:
    swtpm.connect().close()

    with pytest.raises(
        errors.Unavailable, match="swtpm control channel is unavailable: command 5 failed"
    ):
        swtpm.control.set_locality(9)


def test_says_that_there_is_no_control_channel(tmp_path: Path) -> None:
    with pytest.raises(
        errors.Unavailable, match="swtpm control channel is unavailable: No such file"
    ):
        swtpm_module.Control(tmp_path / "none").reset()
