# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`make test-site`: the packages and their units on a booted machine with a real systemd.

python -m tests.site.run
"""

from __future__ import annotations

import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.site.machine import CannotBoot, Machine, booted

PACKAGES = Path(__file__).parents[2] / "build" / "rpm" / "RPMS" / "noarch"
ANSWERS_WITHIN_S = 30.0
# Five starts are systemd's own limit: more than that show that nobody gives up.
RESTARTS = 7
RESTARTED_WITHIN_S = 90.0
SERVER_ANSWERS = "curl -sk https://127.0.0.1:8443/ -o /dev/null"
BROKER_ANSWERS = (
    'curl -sf -H "Authorization: Bearer $(cat /etc/ovirt-tcp/broker-api.token)"'
    " http://127.0.0.1:18782/v1/pools"
)
FILTERD_ANSWERS = "curl -s http://127.0.0.1:18781/ -o /dev/null"


def packages_are_installed(machine: Machine) -> None:
    """Install all packages; libraries and interpreter are this machine's."""
    version = machine.run("/usr/bin/python3 -c 'import sys; print(sys.version_info[1])'").strip()
    libraries = sysconfig.get_paths()["purelib"]
    machine.run(
        f"printf '%s\\n' /usr/lib/python3.{version}/site-packages {libraries} "
        "> /usr/lib/python3/dist-packages/ovirt-tcp-site.pth"
    )
    machine.run("rpm -i --nodeps --nosignature /srv/packages/*.rpm")
    for role in ("agent", "broker", "verifier"):
        place = f"/var/lib/ovirt-tcp/{role}"
        owner = machine.run(f"stat -c '%U %G %a' {place}").strip()
        assert owner == f"ovirt-tcp-{role} ovirt-tcp-{role} 700", owner
    assert "tss" in machine.run("id -nG ovirt-tcp-agent").split()


def the_server_starts_and_root_may_make_its_files(machine: Machine) -> None:
    """Nothing is made by hand: `init` as root, then the unit."""
    machine.run("printf 'appraisal: {profile: uefi}\\n' > /etc/ovirt-tcp/verifier.yaml")
    machine.run("ovirt-tcp-verifier init --name localhost")
    machine.run("systemctl start ovirt-tcp-verifier")
    machine.wait_for(SERVER_ANSWERS, ANSWERS_WITHIN_S)
    machine.run("ovirt-tcp-verifier authority renew")
    machine.run("systemctl restart ovirt-tcp-verifier")
    machine.wait_for(SERVER_ANSWERS, ANSWERS_WITHIN_S)
    foreign = machine.run("find /var/lib/ovirt-tcp/verifier ! -user ovirt-tcp-verifier")
    assert foreign == "", foreign


def a_killed_server_comes_back(machine: Machine) -> None:
    """systemd starts it again."""
    machine.run("systemctl kill -s KILL ovirt-tcp-verifier")
    machine.wait_for(SERVER_ANSWERS, ANSWERS_WITHIN_S)
    assert int(machine.property("ovirt-tcp-verifier", "NRestarts")) >= 1


def a_database_that_is_late_is_waited_for(machine: Machine) -> None:
    """With systemd's own limit the unit would be failed for good after five starts."""
    drop_in = "/etc/ovirt-tcp/verifier.conf.d/database.yaml"
    machine.run("mkdir -p /etc/ovirt-tcp/verifier.conf.d")
    url = "postgresql://verifier@127.0.0.1:5999/ovirt_tcp"
    machine.run(f"printf 'store: {{url: \"{url}\"}}\\n' > {drop_in}")
    machine.run("systemctl restart ovirt-tcp-verifier")
    restarts = "systemctl show -P NRestarts ovirt-tcp-verifier"
    machine.wait_for(f"test $({restarts}) -ge {RESTARTS}", RESTARTED_WITHIN_S)
    assert machine.property("ovirt-tcp-verifier", "ActiveState") != "failed"
    assert "the database cannot be opened" in machine.run("journalctl -u ovirt-tcp-verifier -n 40")
    machine.run(f"rm {drop_in}")
    machine.wait_for(SERVER_ANSWERS, ANSWERS_WITHIN_S)


def a_wrong_mode_is_said_and_healed(machine: Machine) -> None:
    """One sentence says what to do, and doing it is enough."""
    machine.run("chmod 644 /var/lib/ovirt-tcp/verifier/ca.key")
    machine.run("systemctl restart ovirt-tcp-verifier", check=False)
    command = "chmod 600 /var/lib/ovirt-tcp/verifier/ca.key"
    journal = "journalctl -u ovirt-tcp-verifier -n 20"
    machine.wait_for(f"{journal} | grep 'make it private: {command}'", ANSWERS_WITHIN_S)
    machine.run(command)
    machine.wait_for(SERVER_ANSWERS, ANSWERS_WITHIN_S)


def the_filter_keeps_its_socket_while_it_is_killed(machine: Machine) -> None:
    """A call that comes while it is away waits."""
    machine.run("systemctl start ovirt-tcp-filterd.socket ovirt-tcp-filterd.service")
    machine.run(FILTERD_ANSWERS)
    for _ in range(RESTARTS):
        machine.run("systemctl kill -s KILL ovirt-tcp-filterd.service")
        machine.run(FILTERD_ANSWERS)
    machine.wait_for("systemctl is-active ovirt-tcp-filterd.service", ANSWERS_WITHIN_S)


def the_broker_starts_without_its_engine(machine: Machine) -> None:
    """Its interface answers, with a token that root made, and after a kill."""
    machine.run(
        'printf \'engine: {url: "https://127.0.0.1:1/ovirt-engine/api", username: b@internal, '
        "ca_file: /etc/ovirt-tcp/verifier-ca.pem}\\n"
        'verifier: {urls: ["https://localhost:8443"]}\\n\' > /etc/ovirt-tcp/broker.yaml'
    )
    machine.run("install -m 644 /var/lib/ovirt-tcp/verifier/ca.pem /etc/ovirt-tcp/verifier-ca.pem")
    token = "/etc/ovirt-tcp/verifier.token"
    role = "--role viewer --owner ovirt-tcp-broker"
    machine.run(f"ovirt-tcp-verifier token add {role} --out {token}")
    owner = machine.run(f"stat -c '%U %a' {token}").strip()
    assert owner == "ovirt-tcp-broker 600", owner
    machine.run("install -m 644 /dev/null /etc/ovirt-tcp/engine.password")
    out = "--out /etc/ovirt-tcp/broker-api.token"
    machine.run(f"ovirt-tcp-broker token add --role viewer {out}")
    machine.run("systemctl start ovirt-tcp-broker")
    machine.wait_for(BROKER_ANSWERS, ANSWERS_WITHIN_S)
    machine.run("systemctl kill -s KILL ovirt-tcp-broker")
    machine.wait_for(BROKER_ANSWERS, ANSWERS_WITHIN_S)
    journal = machine.run("journalctl -u ovirt-tcp-broker")
    assert "others may read the secret in path=/etc/ovirt-tcp/engine.password" in journal


def an_agent_is_enrolled_twice_by_root(machine: Machine) -> None:
    """Its service reads what the second enrolment left, too."""
    machine.run("systemctl start ovirt-tcp-agent")
    journal = "journalctl -u ovirt-tcp-agent"
    machine.wait_for(f"{journal} | grep 'cannot be used'", ANSWERS_WITHIN_S)
    machine.run("mkdir -p /srv/tpm && swtpm_setup --tpm2 --tpmstate /srv/tpm --createek")
    tpm = "--tpmstate dir=/srv/tpm --server type=tcp,port=2321 --ctrl type=tcp,port=2322"
    machine.run(f"systemd-run --unit=chip swtpm socket --tpm2 {tpm} --flags startup-clear")
    machine.run(
        'printf \'verifier: {urls: ["https://localhost:8443"]}\\nhost: {name: host1}\\n'
        'tpm: {device: "tcp:127.0.0.1:2321"}\\n\' > /etc/ovirt-tcp/agent.yaml'
    )
    machine.run("systemctl stop ovirt-tcp-agent")
    machine.run("ovirt-tcp-verifier ek add $(ovirt-tcp-agent ek 2>/dev/null)")
    for number in range(2):
        token = f"/run/token{number}"
        machine.run(f"ovirt-tcp-verifier token enrol host1 --out {token}")
        machine.run(f"ovirt-tcp-agent enrol --token-file {token}")
        foreign = machine.run("find /var/lib/ovirt-tcp/agent ! -user ovirt-tcp-agent")
        assert foreign == "", foreign
    machine.run("systemctl start ovirt-tcp-agent")
    machine.wait_for("test -s /var/lib/ovirt-tcp/agent/status.json", ANSWERS_WITHIN_S)
    machine.run("systemctl kill -s KILL ovirt-tcp-agent")
    machine.wait_for("systemctl is-active ovirt-tcp-agent", ANSWERS_WITHIN_S)


def nothing_runs_after_the_removal(machine: Machine) -> None:
    """The packages go, with their units; what people made stays."""
    machine.run("rpm -qa | grep ovirt-tcp | xargs rpm -e --nodeps")
    assert "ovirt-tcp" not in machine.run("systemctl list-units --state=active --plain --no-legend")
    machine.run("test -s /var/lib/ovirt-tcp/verifier/ca.key")


STEPS: tuple[Callable[[Machine], None], ...] = (
    packages_are_installed,
    the_server_starts_and_root_may_make_its_files,
    a_killed_server_comes_back,
    a_database_that_is_late_is_waited_for,
    a_wrong_mode_is_said_and_healed,
    the_filter_keeps_its_socket_while_it_is_killed,
    the_broker_starts_without_its_engine,
    an_agent_is_enrolled_twice_by_root,
    nothing_runs_after_the_removal,
)


def main() -> int:
    """Print each step with its time, and return 1 as soon as one does not hold."""
    try:
        with tempfile.TemporaryDirectory() as workplace, booted(Path(workplace), PACKAGES) as box:
            return _play(box)
    except CannotBoot as e:
        print(f"not tested: this machine cannot boot a container: {e}")
        return 0


def _play(machine: Machine) -> int:
    for step in STEPS:
        began = time.monotonic()
        name = step.__name__.replace("_", " ")
        try:
            step(machine)
        except AssertionError as e:
            print(f"FAIL  {name}\n{e}\n{machine.run('journalctl -n 40 --no-pager')}")
            return 1
        print(f"ok    {name} ({time.monotonic() - began:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
