# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The gate, run as VDSM runs it: what a VM is refused for, and what starts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ovirt_tcp_plugin import gate
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.lab import vdsm
from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.ear import SignedResult
from ovirt_tcp_plugin.messages.result import Level

ROOT = Path(__file__).parents[2]
KEY, OTHER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
VM = "11111111-2222-3333-4444-555555555555"
LIFETIME_MS = 600_000
NOW_S = 1_700_000_000


class Host:
    """A host with the gate at its three points; a test spoils what it is about."""

    def __init__(self, directory: Path) -> None:
        self.hooks, self.keys = directory / "hooks", directory / "verdict-keys"
        self.verdict, self.config = directory / "verdict.jwt", directory / "gate.conf"
        self.engine = directory / "hosted-engine.conf"
        self.clock = Clock()
        self.keys.mkdir(mode=0o755)
        self.trust(KEY)
        self.write_config("scope = all_vms")
        self.sign()
        self.install()

    def install(self, **places: object) -> None:
        """Install the gate with the places of this host, or others."""
        own = {
            "CONFIG": str(self.config),
            "KEYS": str(self.keys),
            "VERDICT": str(self.verdict),
            "HOSTED_ENGINE": str(self.engine),
            "OWNER": os.geteuid(),
            **places,
        }
        for point in vdsm.GATE_POINTS:
            vdsm.install(
                ROOT / "hooks" / "vdsm" / point / "50_ovirt_tcp_gate.py", self.hooks, point, **own
            )

    def trust(self, key: ec.EllipticCurvePrivateKey, name: str = "one.pem") -> None:
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        (self.keys / name).write_bytes(key.public_key().public_bytes(encoding, form))
        (self.keys / name).chmod(0o644)

    def write_config(self, content: str) -> None:
        self.config.write_text(content + "\n")
        self.config.chmod(0o644)

    def sign(
        self, key: ec.EllipticCurvePrivateKey = KEY, age_ms: int = 1000, **changes: Any
    ) -> str:
        """Keep a verdict that is good but for the changes."""
        quoted_ms = self.clock.now_ms() - age_ms
        good = SignedResult(
            "host-1", "ab" * 32, Level.TRUSTED, self.clock.boot_id, quoted_ms, LIFETIME_MS
        )
        token = ear.sign(dataclasses.replace(good, **changes), key, NOW_S)
        self.verdict.write_text(token + "\n")
        return token

    def start(
        self, point: str = "before_vm_start", vm_id: str = VM, **properties: str
    ) -> vdsm.HookOutcome:
        return vdsm.run_hooks(self.hooks, point, "<domain/>", vm_id, properties)

    def refusal(self, **how: Any) -> str:
        """Return the code by which a VM is refused."""
        outcome = self.start(**how)
        assert outcome.statuses == (2,), outcome
        found = re.fullmatch(r"ovirt-tcp: refused \(([a-z_]+)\): [^\n]+", outcome.failure)
        assert found, outcome.failure
        return found[1]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def missing(host: Host) -> None:
    host.verdict.unlink()


def garbage(host: Host) -> None:
    host.verdict.write_bytes(os.urandom(700))


def empty(host: Host) -> None:
    host.verdict.write_bytes(b"")


def cut(host: Host) -> None:
    host.verdict.write_text(host.verdict.read_text()[:-20])


def huge(host: Host) -> None:
    host.verdict.write_bytes(b"x" * 10_000_000)


def a_pipe(host: Host) -> None:
    host.verdict.unlink()
    os.mkfifo(host.verdict)


def a_directory(host: Host) -> None:
    host.verdict.unlink()
    host.verdict.mkdir()


def unsigned(host: Host) -> None:
    header, claims, _ = host.sign().split(".")
    host.verdict.write_text(f"{_part({'alg': 'none'})}.{claims}.")


def nested(host: Host) -> None:
    host.verdict.write_text(f"{'W1tb' * 900}.e30.AA")


def zeros(host: Host) -> None:
    """r = s = 0, by which some verifiers took any content (CVE-2022-21449)."""
    header, claims, _ = host.sign(OTHER_KEY).split(".")
    host.verdict.write_text(f"{header}.{claims}.{'A' * 86}")


def mended(host: Host) -> None:
    """The claims of a good verdict under the signature of one that is not."""
    good = host.sign().split(".")
    bad = host.sign(level=Level.UNTRUSTED).split(".")
    host.verdict.write_text(f"{bad[0]}.{good[1]}.{bad[2]}")


def _part(value: object) -> str:
    return ear._base64url(json.dumps(value).encode())


def no_keys(host: Host) -> None:
    (host.keys / "one.pem").unlink()


def no_key_directory(host: Host) -> None:
    no_keys(host)
    host.keys.rmdir()


def writable_key(host: Host) -> None:
    (host.keys / "one.pem").chmod(0o666)


def writable_config(host: Host) -> None:
    host.config.chmod(0o622)


def no_config(host: Host) -> None:
    host.config.unlink()


def broken_key(host: Host) -> None:
    (host.keys / "one.pem").write_text("-----BEGIN PUBLIC KEY-----\nrubbish\n")


FAULTS: list[tuple[Callable[[Host], object], str]] = [
    (missing, "no_verdict"),
    (garbage, "malformed_verdict"),
    (empty, "malformed_verdict"),
    (cut, "malformed_verdict"),
    (huge, "malformed_verdict"),
    (a_pipe, "malformed_verdict"),
    (a_directory, "malformed_verdict"),
    (unsigned, "malformed_verdict"),
    (nested, "malformed_verdict"),
    (zeros, "bad_signature"),
    (mended, "bad_signature"),
    (lambda host: host.sign(OTHER_KEY), "bad_signature"),
    (lambda host: host.sign(age_ms=LIFETIME_MS + 1000), "verdict_ended"),
    (lambda host: host.sign(lifetime_ms=0), "verdict_ended"),
    (lambda host: host.sign(age_ms=-60_000), "clock"),
    (lambda host: host.sign(boot_id="c0ffee00-0000-4000-8000-000000000001"), "other_boot"),
    (lambda host: host.sign(boot_id=""), "other_boot"),
    (lambda host: host.sign(level=Level.UNTRUSTED), "not_trusted"),
    (lambda host: host.sign(level=Level.UNKNOWN), "not_trusted"),
    (lambda host: host.write_config("host = host-2"), "other_host"),
    (lambda host: host.write_config("scope = some_vms"), "gate_config"),
    (lambda host: host.write_config("scpoe = all_vms"), "gate_config"),
    (lambda host: host.write_config("nonsense"), "gate_config"),
    (lambda host: host.config.write_bytes(b"\xff\xfe"), "gate_config"),
    (no_config, "gate_config"),
    (writable_config, "gate_config"),
    (no_keys, "no_keys"),
    (no_key_directory, "no_keys"),
    (writable_key, "no_keys"),
    (broken_key, "no_openssl"),
    (lambda host: host.install(OPENSSL="/usr/bin/no-openssl"), "no_openssl"),
    (lambda host: host.install(OPENSSL="/usr/bin/false"), "no_openssl"),
    # Exit status 0 alone is not the word of openssl.
    (lambda host: host.install(OPENSSL="/usr/bin/true"), "no_openssl"),
    (lambda host: host.install(OWNER=os.geteuid() + 1), "gate_config"),
    (lambda host: host.install(BOOT_ID="/no/such/file"), "no_boot_id"),
]


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
