# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The rules of the design, as tests: who may import whom, and what is pure.

`docs_test.py` compares documents with the code.
"""

from __future__ import annotations

import ast
import configparser
import dataclasses
import fnmatch
import functools
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import ovirt_tcp_plugin
from ovirt_tcp_plugin import config, errors
from ovirt_tcp_plugin.admin.commands.settings import CliSettings
from ovirt_tcp_plugin.attester.settings import AgentSettings
from ovirt_tcp_plugin.broker.settings import Settings as BrokerSettings
from ovirt_tcp_plugin.engine.events import EngineEvent
from ovirt_tcp_plugin.messages import findings
from ovirt_tcp_plugin.scheduler.settings import Settings as FilterdSettings
from ovirt_tcp_plugin.verifier.appraisal import appraise
from ovirt_tcp_plugin.verifier.settings import VerifierSettings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ovirt_tcp_plugin"
ROLES = ("attester", "verifier", "broker", "scheduler")

# Where trust is decided and what it rests on: nothing here reaches the world through any chain of
# imports. Folders and modules below the package, as globs.
PURE = (
    "backoff.py",
    "messages/**",
    "placement/**",
    "broker/state/**",
    "verifier/appraisal/**",
    "verifier/endorsement*",
    "verifier/tpm_family.py",
)
# These keep the rule themselves; what they import is not looked through.
PURE_MODULES = (
    "admin.doctor.findings",
    "admin.doctor.observations",
    "admin.doctor.scheduling_policies",
    "admin.doctor.walls",
    "admin.doctor.hosts",
    "admin.doctor.services",
    "engine.affinity_conflicts",
    "engine.events",
    "engine.scheduling_policies",
    "engine.starts",
    "scheduler.trusted_hosts",
    "scheduler.xmlrpc",
)
# What pure code may have of the world after all: the one lock of the broker's state, how long it is
# held, and the lock of what it hands over; and options that are names of files.
ALLOWED = {
    "ovirt_tcp_plugin.broker.settings": {"pathlib"},
    "ovirt_tcp_plugin.broker.state.broker_state": {"threading"},
    "ovirt_tcp_plugin.broker.state.outbox": {"threading"},
    "ovirt_tcp_plugin.broker.state.turns": {"time"},
}
IMPURE_IMPORTS = {
    "asyncio",
    "io",
    "os",
    "pathlib",
    "random",
    "requests",
    "secrets",
    "shutil",
    "socket",
    "sqlalchemy",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "tornado",
    "urllib",
}
COMMANDS = {
    "ovirt-tcp": "ovirt_tcp_plugin.admin.cli",
    "ovirt-tcp-agent": "ovirt_tcp_plugin.attester.main",
    "ovirt-tcp-verifier": "ovirt_tcp_plugin.verifier.main",
    "ovirt-tcp-broker": "ovirt_tcp_plugin.broker.main",
    "ovirt-tcp-filterd": "ovirt_tcp_plugin.scheduler.main",
}


@functools.lru_cache(maxsize=1)
def modules() -> tuple[tuple[str, ast.Module], ...]:
    return tuple(_parsed())


def _parsed() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield module_name(path), ast.parse(path.read_text())


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module) -> set[str]:
    """Return the modules that a module imports, at any depth of it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if _is_module(name) else node.module for name in names}
    return found


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def role_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "ovirt_tcp_plugin" else ""


def imports_between(importer: str, *imported: str) -> list[tuple[str, str]]:
    """Return which modules below `importer` import one below these; all are folders or modules."""
    return [
        (name, target)
        for name, tree in modules()
        for target in imports(tree)
        if _is_below(name, importer) and any(_is_below(target, folder) for folder in imported)
    ]


def _is_below(name: str, folder: str) -> bool:
    return f"{name}.".startswith(f"ovirt_tcp_plugin.{folder}.")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_imports_no_other_role(role: str) -> None:
    others = [other for other in ROLES if other != role]
    assert imports_between(role, *others, "admin", "lab") == []


@pytest.mark.parametrize("shared", ["messages", "placement", "engine"])
def test_what_roles_share_imports_no_role(shared: str) -> None:
    assert imports_between(shared, *ROLES, "admin", "lab") == []


def test_the_sdk_of_ovirt_is_known_to_engine_and_lab_alone() -> None:
    users = {name.split(".")[1] for name, tree in modules() if "ovirtsdk4" in imports(tree)}
    assert users <= {"engine", "lab"}


# What a worker is made of beside its own module.
PARTS_OF_WORKERS = {
    "enforce": {"wall_builder", "pool_ender", "calls", "contact"},
    "pool_ender": {"calls", "contact"},
    "wall_builder": {"wall_work", "calls", "contact"},
    "wall_work": {"contact"},
    "next_runs": {"contact"},
    "observe": {"contact", "next_runs", "vm_monitor"},
    "watch": {"contact", "event_cursor", "filter_reports", "group_edits"},
    "read_vms": {"contact"},
}


def test_workers_import_no_other_worker_but_their_own_parts_and_not_the_interface() -> None:
    breaches: list[tuple[str, str]] = []
    for importer, imported in imports_between("broker.workers", "broker.workers", "broker.api"):
        parts = PARTS_OF_WORKERS.get(importer.rpartition(".")[2], set())
        if imported.rpartition(".")[2] not in parts:
            breaches.append((importer, imported))
    assert breaches == []


@pytest.mark.parametrize("wing", ["broker.api", "broker.store", "broker.state", "broker.verifiers"])
def test_no_other_wing_of_the_broker_imports_a_worker(wing: str) -> None:
    assert imports_between(wing, "broker.workers") == []


def test_messages_import_no_role() -> None:
    breaches = [
        (name, imported)
        for name, tree in modules()
        for imported in imports(tree)
        if role_of(name) == "messages" and role_of(imported) not in ("", "messages", "errors")
    ]
    assert breaches == []


def codes_of_events(tree: ast.Module) -> list[int]:
    """Return the numbers of events in sets and ranges, and what their codes are compared with."""
    numbers: list[int] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Set):
            numbers += _numbers_of_events(node.elts)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "range":
            numbers += [number for number in _numbers_of_events(node.args) if number >= 10_000]
        elif isinstance(node, ast.Compare) and _is_code_of_event(node.left):
            numbers += _integers(node.comparators)
    return numbers


def _integers(nodes: list[ast.expr]) -> list[int]:
    constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return [value for value in constants if type(value) is int]


def _numbers_of_events(nodes: list[ast.expr]) -> list[int]:
    known = {int(event) for event in EngineEvent}
    return [number for number in _integers(nodes) if number in known]


def _is_code_of_event(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node).endswith("event.code")


def test_events_of_the_engine_are_named_in_one_place() -> None:
    roles = ("broker", "commands", "engine")
    numbers = {name: codes_of_events(tree) for name, tree in modules() if role_of(name) in roles}
    assert {name: found for name, found in numbers.items() if found} == {}


@pytest.mark.parametrize(
    "source", ["frozenset({12, 13})", "range(10001, 10013)", "event.code == 13"]
)
def test_a_bare_number_of_an_event_is_found(source: str) -> None:
    assert codes_of_events(ast.parse(source)) != []


def impurities(tree: ast.Module) -> set[str]:
    """Return by what a module reaches the world itself."""
    reached = {imported.split(".")[0] for imported in imports(tree)} & IMPURE_IMPORTS
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return reached | (called & {"open"})


def pure_by_folder() -> list[str]:
    paths = {path for pattern in PURE for path in PACKAGE.glob(pattern)}
    if any(not list(PACKAGE.glob(pattern)) for pattern in PURE):
        raise AssertionError("a pattern of PURE fits no file")
    paths |= {inner for path in paths if path.is_dir() for inner in path.rglob("*.py")}
    return sorted(module_name(path) for path in paths if path.suffix == ".py")


def chain_to_the_world(name: str) -> list[str]:
    """Return the shortest chain of imports from a module to what is not pure, or nothing."""
    known = dict(modules())
    chains, seen = [[name]], {name}
    for chain in chains:
        tree = known[chain[-1]]
        impure = impurities(tree) - ALLOWED.get(chain[-1], set())
        if impure:
            return [*chain, *sorted(impure)]
        for imported in sorted(imports(tree)):
            # Importing a module runs the packages that it is in.
            for part in (imported, *parents(imported)):
                if part in known and part not in seen:
                    seen.add(part)
                    chains.append([*chain, part])
    return []


def parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


@pytest.mark.parametrize("name", pure_by_folder())
def test_pure_folders_reach_the_world_through_no_chain_of_imports(name: str) -> None:
    assert " -> ".join(chain_to_the_world(name)) == ""


def test_a_chain_to_the_world_is_found() -> None:
    assert chain_to_the_world("ovirt_tcp_plugin.attester.measure")[-1] in IMPURE_IMPORTS
    assert len(chain_to_the_world("ovirt_tcp_plugin.verifier.store")) <= 2
    assert chain_to_the_world("ovirt_tcp_plugin.verifier.store.hosts")[1:] != []


@pytest.mark.parametrize("name", PURE_MODULES)
def test_pure_modules_do_no_io_and_know_no_clock(name: str) -> None:
    assert impurities(dict(modules())[f"ovirt_tcp_plugin.{name}"]) == set()


def test_the_coverage_gate_is_for_the_pure_folders() -> None:
    gate = re.search(r"(?ms)^include = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text())
    assert gate is not None
    covered = {path for pattern in re.findall(r'"(.+?)"', gate[1]) for path in gated(pattern)}
    assert set(pure_by_folder()) - covered == set()


def gated(pattern: str) -> set[str]:
    """Return the modules that a pattern of coverage fits; its `*` crosses folders."""
    return {
        module_name(path)
        for path in PACKAGE.rglob("*.py")
        if fnmatch.fnmatch(str(path.relative_to(ROOT)), pattern)
    }


def test_there_is_no_import_cycle() -> None:
    known = {
        name: {one for one in imports(tree) if one.startswith("ovirt_tcp_plugin.")}
        for name, tree in modules()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for imported in sorted(known.get(name, set())):
                visit(imported, (*path, name))
            done.add(name)

    for name in known:
        visit(name, ())


def test_what_tests_share_stands_in_no_file_of_tests() -> None:
    # The fuzzer runs what tests of parsers check.
    files = set((ROOT / "tests").rglob("*.py")) - set((ROOT / "tests" / "fuzz").iterdir())
    breaches = [
        (str(path.relative_to(ROOT)), imported)
        for path in sorted(files)
        for imported in imports(ast.parse(path.read_text()))
        if imported.startswith("tests.") and imported.endswith("_test")
    ]
    assert breaches == []


def test_every_module_can_be_imported() -> None:
    for found in pkgutil.walk_packages(ovirt_tcp_plugin.__path__, "ovirt_tcp_plugin."):
        # alembic runs env.py in a context of its own.
        if not found.name.endswith(("__main__", "migrations.env")):
            importlib.import_module(found.name)


def test_every_file_says_its_licence() -> None:
    files = [path for pattern in ("*.py", "Makefile", ".ci/run") for path in ROOT.rglob(pattern)]
    own = [path for path in files if "build" not in path.relative_to(ROOT).parts]
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in own}
    assert [
        name
        for name, text in texts.items()
        if text and "SPDX-License-Identifier: Apache-2.0" not in text
    ] == []


def test_public_functions_have_docstrings() -> None:
    missing = [
        f"{name}.{node.name}"
        for name, tree in modules()
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert missing == []


def test_functions_are_short() -> None:
    long = [
        f"{name}.{node.name}: {node.end_lineno - node.lineno + 1}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and node.end_lineno - node.lineno - len((ast.get_docstring(node) or "").splitlines()) >= 50
    ]
    assert long == []


MAX_CLASS_LINES = 300
MAX_PUBLIC_METHODS = 25


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                yield f"{name}.{node.name}", node


def public_methods(node: ast.ClassDef) -> list[str]:
    methods = [member.name for member in node.body if isinstance(member, ast.FunctionDef)]
    return [method for method in methods if not method.startswith("_")]


def test_no_class_is_large() -> None:
    large: list[str] = []
    for name, node in classes():
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > MAX_CLASS_LINES or len(public_methods(node)) > MAX_PUBLIC_METHODS:
            large.append(name)
    assert large == []


def public_attributes(class_name: str) -> set[str]:
    """Return the names that a class's methods assign to, and that do not begin with _."""
    node = dict(classes())[f"ovirt_tcp_plugin.{class_name}"]
    assigned: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            assigned.add(ast.unparse(inner))
    return {name for name in assigned if name.startswith("self.") and not name.startswith("self._")}


def test_what_the_broker_knows_is_read_by_methods_which_take_its_lock() -> None:
    # The outbox has a lock of its own.
    assert public_attributes("broker.state.broker_state.BrokerState") == {"self.outbox"}


@pytest.mark.parametrize(
    "part",
    [
        "pending_changes.PendingChanges",
        "questions.Questions",
        "quarantine_controller.QuarantineController",
        "vm_reads.VmReads",
        "walls.Walls",
    ],
)
def test_so_are_its_parts(part: str) -> None:
    assert public_attributes(f"broker.state.{part}") == set()


def test_broad_excepts_stand_at_the_edges_only() -> None:
    edges = {
        # the SDK's readers raise whatever comes to them on an odd document
        "ovirt_tcp_plugin.engine.sdk",
        "ovirt_tcp_plugin.broker.hooks",
        "ovirt_tcp_plugin.admin.doctor.checks",
        "ovirt_tcp_plugin.admin.doctor.collector",
        "ovirt_tcp_plugin.broker.workers.attest",
        "ovirt_tcp_plugin.broker.workers.observe",  # a hook's own code
        "ovirt_tcp_plugin.broker.workers.watch",  # the same
        "ovirt_tcp_plugin.broker.service",
        "ovirt_tcp_plugin.scheduler.snapshots",
        "ovirt_tcp_plugin.scheduler.web",
        "ovirt_tcp_plugin.attester.agent",
        "ovirt_tcp_plugin.gate",
        # the end of a process that was forked; nothing above it would say why
        "ovirt_tcp_plugin.verifier.processes",
    }
    broad = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
        )
        and not any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
    }
    assert broad <= edges


@pytest.mark.parametrize(
    ("file", "declared"),
    [
        ("agent.yaml", AgentSettings),
        ("broker.yaml", BrokerSettings),
        ("cli.yaml", CliSettings),
        ("filterd.yaml", FilterdSettings),
        ("verifier.yaml", VerifierSettings),
    ],
)
def test_the_sample_shows_every_option_at_its_default(
    file: str, declared: type, tmp_path: Path
) -> None:
    role = file.removesuffix(".yaml")
    (tmp_path / file).write_text((ROOT / "examples" / file).read_text())
    loaded = config.load(declared, role, tmp_path)
    shown = config.show(loaded)
    written = yaml.safe_load((ROOT / "examples" / file).read_text())
    assert {k: set(v) for k, v in written.items()} == {k: set(v) for k, v in shown.items()}
    for section in dataclasses.fields(loaded):  # type: ignore[arg-type]
        kind = typing.get_type_hints(declared)[section.name]
        for option in dataclasses.fields(kind):
            if option.default is not dataclasses.MISSING:
                assert getattr(getattr(loaded, section.name), option.name) == option.default, (
                    option.name
                )


def test_every_error_formats() -> None:
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, errors.Error) and kind is not errors.Error:
            parameters = [p for p in inspect.signature(kind).parameters if p != "self"]
            assert "something" in str(
                kind(*(["something"] if p == "faults" else "something" for p in parameters))
            )


@pytest.mark.parametrize(("command", "module"), COMMANDS.items())
def test_every_command_teaches_by_its_help(command: str, module: str) -> None:
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    assert f"{command} = {module}:main" in declared["options.entry_points"]["console_scripts"]
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage:" in done.stdout
    assert len(done.stdout.splitlines()) > 8


def test_findings_are_made_from_their_codes_only() -> None:
    made = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Finding"
    }
    of_the_verifier = {name for name in made if role_of(name) in ("messages", "verifier")}
    # The first makes them; the others read what was kept or sent.
    allowed = ("messages.findings", "messages.result", "verifier.store.results")
    assert of_the_verifier == {f"ovirt_tcp_plugin.{name}" for name in allowed}


def test_every_finding_code_comes_with_advice() -> None:
    assert {code for code in findings.CHECKS if not findings.next_step(code)} == set()
    assert findings.next_step("nonsense") == ""


def test_the_list_of_checks_names_every_number() -> None:
    listed = re.findall(r"^ ?\((\d+)\) ", inspect.getdoc(appraise) or "", re.MULTILINE)
    assert [int(number) for number in listed] == [int(number) for number in findings.CheckNumber]
