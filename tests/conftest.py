# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Software TPMs for all tests: manufactured once, copied for each host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

import hypothesis
import pytest

from ovirt_tcp_plugin.lab import launch, swtpm12
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.swtpm import Vendor
from tests import soak
from tests.lab.engine.watch import Watch
from tests.site_pki import authority, site_pki  # noqa: F401 - fixtures

# Inputs are drawn slowly where the library makes its tables of characters first, as in every fresh
# clone, or the machine is busy: that says nothing about us. What a parser may take is measured in
# processor time, and each test ends in time.
hypothesis.settings.register_profile(
    "busy", suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

# One process runs all tests of a file: begun last, these would keep it busy alone.
LONGEST_FILES = (
    "lab/story_test.py",
    "verifier/web_test.py",
    "fuzz/targets_test.py",
    "admin/setup/phases_test.py",
    "verifier/kill_test.py",
)

# The tests of the modules that coverage's gate is for (pyproject.toml). Only they are traced: it
# would add two thirds to what the others take.
TRACED = (
    "admin/doctor",
    "attester/enrolment_test.py",
    "attester/keys_test.py",
    "attester/nv_templates_test.py",
    "backoff_test.py",
    "broker/service_test.py",
    "broker/state",
    "broker/workers/publish_test.py",
    "broker/rule_conflicts_test.py",
    "broker/wall_campaign_test.py",
    "engine",
    "messages",
    "placement",
    "scheduler/trusted_hosts_test.py",
    "scheduler/xmlrpc_test.py",
    "verifier/appraisal",
    "verifier/attestation_test.py",
    "verifier/endorsement12_test.py",
    "verifier/endorsement_test.py",
    "verifier/tpm_family_test.py",
)

# Each takes half a second to make; a test with more hosts than that makes the others itself.
READY_MADE = 3


class TpmPool:
    """TPMs of one vendor that do not run. `state(n)` is always the same chip: copy it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.vendor = Vendor(directory / "vendor")
        self._made: list[Path] = []
        self._made12: list[Path] = []
        self.images = launch.make_images(directory / "images")
        self._make(READY_MADE)

    @property
    def authorities(self) -> bytes:
        """The vendor's certificates, PEM."""
        return self.vendor.authorities

    def state(self, number: int) -> Path:
        """Return the state directory of chip `number`, from 0 on; others are other chips."""
        if number >= len(self._made):
            self._make(number + 1 - len(self._made))
        return self._made[number]

    def state12(self, number: int) -> Path:
        """Return the state directory of TPM 1.2 `number`, from 0 on."""
        while number >= len(self._made12):
            fresh = self._directory / f"chip12-{len(self._made12)}"
            swtpm12.manufacture(self.vendor, fresh)
            self._made12.append(fresh)
        return self._made12[number]

    def _make(self, count: int) -> None:
        start = len(self._made)
        fresh = [self._directory / f"chip-{number}" for number in range(start, start + count)]
        self.vendor.manufacture(fresh)
        self._made += fresh


# What our programs ask the simulated engine in this process, compared with a real one's answers.
WATCH = pytest.StashKey[Watch]()
# Of the processes that pytest-xdist started.
_KINDS: set[str] = set()


def pytest_configure(config: pytest.Config) -> None:
    """Listen to what our programs ask."""
    config.stash[WATCH] = Watch()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    directory = Path(__file__).parent
    longest = [directory / name for name in LONGEST_FILES]
    items.sort(key=lambda item: item.path not in longest)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Trace the test, its fixtures included, if it counts for coverage's gate."""
    tracing = item.config.pluginmanager.getplugin("_cov")
    controller = getattr(tracing, "cov_controller", None)
    if controller is None or _is_traced(item.path):
        yield
        return
    controller.pause()
    yield
    controller.resume()


def _is_traced(path: Path) -> bool:
    directory = Path(__file__).parent
    return any(path.is_relative_to(directory / name) for name in TRACED)


def pytest_report_header() -> str:
    """Tell what the campaigns do at random."""
    return f"seed of the campaigns: {soak.SEED}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the kinds of requests to the process that reports."""
    output = getattr(session.config, "workeroutput", None)
    kinds = session.config.stash[WATCH].kinds
    if output is None:
        _KINDS.update(kinds)
    else:
        output["engine_kinds"] = sorted(kinds)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take them."""
    _KINDS.update(getattr(node, "workeroutput", {}).get("engine_kinds", ()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell how many kinds of requests to the engine were compared with a real one."""
    if _KINDS:
        text = (
            f"{len(_KINDS)} kinds of requests to the engine have the structure of a real one's "
            "answers"
        )
        terminalreporter.write_line(text)


@pytest.fixture(autouse=True)
def watched_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail if one of our programs got what no real engine answers."""
    yield
    found = request.config.stash[WATCH].differences()
    if found:
        pytest.fail("no real engine answers so:\n" + "\n".join(found), pytrace=False)


@pytest.fixture(scope="session")
def tpm_pool(tmp_path_factory: pytest.TempPathFactory) -> TpmPool:
    """TPMs with EK certificates, and the boot files that all hosts share."""
    return TpmPool(tmp_path_factory.mktemp("tpm-pool"))


@pytest.fixture
def make_host(tpm_pool: TpmPool, tmp_path: Path) -> Iterator[Callable[..., LabHost]]:
    """Make hosts that have power and are not booted yet.

    Each has another chip, unless a number is given.
    """
    with ExitStack() as stack:
        made: list[LabHost] = []

        def make(name: str = "", chip: Optional[int] = None, ak_kind: str = "ecc-p256") -> LabHost:
            number = len(made) if chip is None else chip
            own = name or f"host-{len(made) + 1}"
            host = LabHost(own, tmp_path / own, tpm_pool.state(number), tpm_pool.images, ak_kind)
            made.append(host)
            return stack.enter_context(host)

        yield make
