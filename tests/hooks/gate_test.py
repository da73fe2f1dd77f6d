# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The gate, run as VDSM runs it: what a VM is refused for, and what starts."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ovirt_tcp_plugin import gate
from ovirt_tcp_plugin.lab import vdsm
from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.result import Level
from tests.hooks.gate_faults import FAULTS, broken_key, missing, no_config, writable_key
from tests.hooks.gated_host import KEY, NOW_S, OTHER_KEY, ROOT, VM, Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "code"), FAULTS, ids=[f"{n}-{code}" for n, (_, code) in enumerate(FAULTS)]
)
def test_refuses_with_its_code_in_one_sentence(
    host: Host, spoil: Callable[[Host], object], code: str
) -> None:
    spoil(host)

    assert host.refusal() == code


@pytest.mark.parametrize("point", vdsm.GATE_POINTS)
def test_each_point_refuses_and_lets_through(host: Host, point: str) -> None:
    assert host.start(point) == vdsm.HookOutcome("<domain/>", "", (0,))
    host.sign(level=Level.UNTRUSTED)
    assert host.refusal(point=point) == "not_trusted"


def test_a_hanging_openssl_is_refused_in_time_and_not_left_behind(
    host: Host, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    slow = tmp_path / "openssl"
    slow.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 60\n")
    slow.chmod(0o755)
    host.install(OPENSSL=str(slow), OPENSSL_WITHIN_S=1)
    began = time.monotonic()

    assert host.refusal() == "no_openssl"

    assert time.monotonic() - began < 4
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_alarm_refuses_whatever_hangs(host: Host) -> None:
    host.install(WITHIN_S=1)
    script = host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"
    source = script.read_text()
    script.write_text(
        source.replace("    options = read_config()\n", "    while True:\n        pass\n", 1)
    )
    began = time.monotonic()

    assert host.refusal() == "timeout"

    assert time.monotonic() - began < 4


def test_an_error_that_nobody_foresaw_is_refused(host: Host) -> None:
    script = host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"
    script.write_text(
        script.read_text().replace(
            "    options = read_config()\n", "    options = {}['nothing']\n", 1
        )
    )

    assert host.refusal() == "gate_failed"


def test_a_gate_that_cannot_even_be_read_fails_the_start(host: Host) -> None:
    """Exit status 1 at this point fails the operation, too."""
    (host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py").write_text(
        "#!/usr/bin/python3 -IS\n)"
    )

    assert host.start().failure


@pytest.mark.parametrize("mark", ["true", "TRUE", "yes", "0"])
def test_a_marked_vm_needs_the_verdict(host: Host, mark: str) -> None:
    host.write_config("scope = marked_vms")
    missing(host)

    assert host.refusal(trusted_host_flag=mark) == "no_verdict"


@pytest.mark.parametrize(
    "properties", [{}, {"trusted_host_flag": "false"}, {"trusted_host_flag": ""}]
)
def test_a_vm_that_is_not_marked_starts_untouched(host: Host, properties: dict[str, str]) -> None:
    host.write_config("scope = marked_vms  # dynamic filtering")
    missing(host)

    assert host.start(**properties) == vdsm.HookOutcome("<domain/>", "", (0,))


def test_the_mark_counts_for_nothing_where_all_vms_need_trust(host: Host) -> None:
    missing(host)

    assert host.refusal(trusted_host_flag="false") == "no_verdict"


def test_custom_properties_of_a_vm_do_not_reach_into_the_gate(host: Host, tmp_path: Path) -> None:
    """They are in the environment under any name.

    Of Python, of the loader's search, or of openssl.
    """
    (tmp_path / "json.py").write_text("import os; os._exit(0)")
    (tmp_path / "openssl.cnf").write_text("openssl_conf = nowhere\n.include /no/such\n")
    host.sign(OTHER_KEY)
    crafted = {
        "PYTHONPATH": str(tmp_path),
        "PYTHONSTARTUP": str(tmp_path / "json.py"),
        "PATH": str(tmp_path),
        "OPENSSL_CONF": str(tmp_path / "openssl.cnf"),
        "CONFIG": "/dev/null",
        "VERDICT": "/dev/null",
    }

    assert host.refusal(**crafted) == "bad_signature"
    host.sign()
    assert host.start(**crafted).statuses == (0,)


def test_the_engines_own_vm_starts_even_without_any_configuration(host: Host) -> None:
    host.engine.write_text(f"fqdn=engine.example.com\nvmid={VM}\n")
    no_config(host)

    assert host.start().statuses == (0,)
    assert host.refusal(vm_id="another") == "gate_config"


def test_exempt_vms_start_and_others_do_not(host: Host) -> None:
    host.write_config(f"exempt_vms = another {VM.upper()}")
    missing(host)

    assert host.start().statuses == (0,)
    assert host.refusal(vm_id="") == "no_verdict"


def test_each_use_of_an_exemption_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """VDSM logs what good hooks write, too."""
    monkeypatch.setattr(gate, "decide", lambda environment: f"VM {VM} is exempt by gate.conf")

    assert gate.main() == 0

    assert capfd.readouterr().err == f"ovirt-tcp: VM {VM} is exempt by gate.conf\n"


def test_either_key_counts_while_the_key_changes(host: Host) -> None:
    host.trust(OTHER_KEY, "two.pem")
    for key in (KEY, OTHER_KEY):
        host.sign(key)
        assert host.start().statuses == (0,)


def test_forgotten_keys_do_not_close_the_gate_and_are_reported(host: Host) -> None:
    """Each rotation of the key leaves a file behind, if nobody removes it."""
    forgotten = host.sign(OTHER_KEY)
    host.trust(KEY, f"{ear.key_id(KEY.public_key())}.pem")
    for number in range(3):
        host.trust(ec.generate_private_key(ec.SECP256R1()), f"{number}.pem")
    host.sign()
    environment = {**os.environ, "vmId": VM}
    script = host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"

    done = subprocess.run(
        [script], env=environment, capture_output=True, text=True, timeout=20, check=False
    )

    assert done.returncode == 0
    assert re.fullmatch(r"ovirt-tcp: \S+ holds 5 keys: remove those [^\n]+\n", done.stderr)
    host.verdict.write_text(forgotten)
    assert host.refusal() == "bad_signature"


def test_the_newest_two_keys_count_where_no_file_bears_the_name_of_the_verdicts_key(
    host: Host,
) -> None:
    host.trust(OTHER_KEY, "two.pem")
    host.trust(ec.generate_private_key(ec.SECP256R1()), "three.pem")
    for age_s, name in enumerate(["two.pem", "one.pem", "three.pem"]):
        os.utime(host.keys / name, (NOW_S - age_s, NOW_S - age_s))

    assert host.start().statuses == (0,)
    os.utime(host.keys / "three.pem", (NOW_S + 1, NOW_S + 1))
    assert host.refusal() == "bad_signature"


def test_a_spoilt_key_file_does_not_hurt_the_other(host: Host) -> None:
    for spoil in (writable_key, broken_key):
        spoil(host)
        host.trust(OTHER_KEY, "two.pem")
        host.sign(OTHER_KEY)

        assert host.start().statuses == (0,)


def test_openssl_runs_once_where_the_keys_are_named_as_they_were_exported(
    host: Host, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    counted = tmp_path / "openssl"
    counted.write_text(f'#!/bin/sh\necho run >> {runs}\nexec {gate.OPENSSL} "$@"\n')
    counted.chmod(0o755)
    for key in (KEY, OTHER_KEY):
        host.trust(key, f"{ear.key_id(key.public_key())}.pem")
    (host.keys / "one.pem").unlink()
    host.install(OPENSSL=str(counted))

    for key in (KEY, OTHER_KEY):
        host.sign(key)
        assert host.start().statuses == (0,)

    assert runs.read_text() == "run\n" * 2


def test_a_verdict_of_this_host_by_name_counts(host: Host) -> None:
    host.write_config("host = HOST-1\n")

    assert host.start().statuses == (0,)


def test_every_signature_of_jws_is_written_as_openssl_takes_it() -> None:
    """r and s have leading zeros or a leading one bit now and then."""
    for raw in (
        b"\0" * 31 + b"\x01" + b"\xff" * 32,
        b"\x80" + b"\0" * 31 + b"\x7f" + b"\0" * 31,
        b"\0" * 64,
    ):
        numbers = (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        assert gate.encode_signature(raw) == encode_dss_signature(*numbers)


def test_the_hook_files_are_the_gate_and_can_be_executed() -> None:
    for point in vdsm.GATE_POINTS:
        file = ROOT / "hooks" / "vdsm" / point / "50_ovirt_tcp_gate.py"
        assert file.read_bytes() == (ROOT / "ovirt_tcp_plugin" / "gate.py").read_bytes()
        assert file.stat().st_mode & stat.S_IXUSR
        assert file.read_text().startswith("#!/usr/bin/python3 -IS\n")


def test_the_samples_options_are_known(host: Host) -> None:
    host.write_config((ROOT / "examples" / "gate.conf").read_text())

    assert host.start().statuses == (0,)


def test_needs_no_module_beyond_the_standard_library() -> None:
    done = subprocess.run(
        [
            "/usr/bin/python3",
            "-I",
            "-S",
            "-c",
            f"exec(open({str(ROOT / 'ovirt_tcp_plugin/gate.py')!r}).read())",
        ],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        env={},
    )
    assert done.returncode in (0, 2), done.stderr
    assert "refused (gate_config)" in done.stderr


def test_a_signal_from_outside_fails_the_start(host: Host) -> None:
    script = host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"
    killed = f"    os.kill(os.getpid(), {int(signal.SIGTERM)})\n"
    script.write_text(script.read_text().replace("    options = read_config()\n", killed, 1))

    assert host.start().failure


def may_run(environment: object) -> str:
    return "it may run"


def may_not(environment: object) -> str:
    raise gate.StartRefused("no_verdict", "there is none")


def fails(environment: object) -> str:
    raise RuntimeError("nobody foresaw this")


def ends(environment: object) -> str:
    raise SystemExit(2)


@pytest.mark.parametrize("decide", [may_run, may_not, fails, ends])
def test_no_alarm_is_armed_after_the_decision(
    monkeypatch: pytest.MonkeyPatch, decide: Callable[[object], str]
) -> None:
    """Python resets the signal's handler when it ends: the alarm would then kill it silently."""
    monkeypatch.setattr(gate, "decide", decide)
    with contextlib.suppress(SystemExit):
        gate.main()
    left = signal.getitimer(signal.ITIMER_REAL)
    signal.alarm(0)

    assert left == (0.0, 0.0)


def test_a_slow_end_of_the_interpreter_changes_no_decision(host: Host) -> None:
    host.install(WITHIN_S=1)
    script = host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"
    slow = "    status = main()\n    time.sleep(1.5)\n    sys.exit(status)\n"
    script.write_text(script.read_text().replace("    sys.exit(main())\n", slow))

    assert host.start() == vdsm.HookOutcome("<domain/>", "", (0,))
    missing(host)
    assert host.refusal() == "no_verdict"


def test_forty_starts_at_once_on_busy_cores_get_forty_right_answers(tmp_path: Path) -> None:
    """Half of them with two keys of which the second signs, half to be refused, with reasons."""
    hosts = [tmp_path / "good", tmp_path / "bad"]
    for directory in hosts:
        directory.mkdir()
    good = Host(hosts[0])
    good.trust(OTHER_KEY, "two.pem")
    bad = Host(hosts[1])
    bad.sign(level=Level.UNTRUSTED)
    environment = {**os.environ, "vmId": VM}
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        starts = [
            subprocess.Popen(
                [host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            for host in [good, bad] * 20
        ]
        answers = [(start.communicate()[1], start.returncode) for start in starts]
    finally:
        for process in busy:
            process.kill()
            process.wait()

    assert answers[::2] == [("", 0)] * 20
    assert {status for _, status in answers[1::2]} == {2}
    assert {text.split(":")[1] for text, _ in answers[1::2]} == {" refused (not_trusted)"}
