# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The documents agree with each other and with the code.

Links, codes, routes, options and command lines are compared.
"""

from __future__ import annotations

import configparser
import importlib
import re
import shlex
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest
import yaml

from ovirt_tcp_plugin import config, gate
from ovirt_tcp_plugin.admin.commands.settings import CliSettings
from ovirt_tcp_plugin.attester.settings import AgentSettings
from ovirt_tcp_plugin.broker.settings import Settings as BrokerSettings
from ovirt_tcp_plugin.engine import sdk
from ovirt_tcp_plugin.messages import components, findings
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.placement.filter_unit import FilterState
from ovirt_tcp_plugin.scheduler.settings import Settings as FilterdSettings
from ovirt_tcp_plugin.verifier.settings import VerifierSettings
from ovirt_tcp_plugin.verifier.web.handler import Handler
from ovirt_tcp_plugin.verifier.web.server import ROUTES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ovirt_tcp_plugin"
DOCS = ROOT / "docs"
README = ROOT / "README.md"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.rglob("*.md")),
]
README_WORDS = 900
SETTINGS: dict[str, type] = {
    "agent": AgentSettings,
    "broker": BrokerSettings,
    "cli": CliSettings,
    "filterd": FilterdSettings,
    "verifier": VerifierSettings,
}
METHODS = ("GET", "POST", "PUT", "DELETE")
# Made of the level that an OpenAttestation server says.
MADE_OF_LEVELS = frozenset({"oat_unknown", "oat_timeout"})
# What a code span such as `verifier.token` ends in when it is a file, and no option.
FILE_ENDINGS = frozenset(
    [
        *("yaml", "conf", "md", "py", "json", "db", "broken"),
        *("pem", "key", "token", "password"),
        *("service", "socket"),
    ]
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def without_code(text: str) -> str:
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", text)


# Links


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", without_code(path.read_text()))
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {slug.strip().replace(" ", "-") for slug in slugs}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_document_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [README]
    while waiting:
        path = waiting.pop()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        for link in re.findall(r"\]\(([^)\s#]+)", path.read_text()):
            if "://" not in link:
                waiting.append((path.parent / link).resolve())
    assert set(DOCUMENTS) - reached == set()


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= README_WORDS


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_says_context_choice_and_price(path: Path) -> None:
    text = path.read_text()
    headings = re.findall(r"(?m)^## (.+)$", text)
    assert headings == ["Context", "Decision", "Consequences"]
    assert 100 <= len(text.split()) <= 250


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))


# Tables of codes


def section(title: str) -> str:
    """Return the section of codes.md under a heading."""
    parts = re.split(r"(?m)^## ", (DOCS / "codes.md").read_text())
    (found,) = [part for part in parts if part.startswith(title + "\n")]
    return found


def rows(title: str) -> list[list[str]]:
    """Return the cells of all table rows in a section of codes.md, headers and rules left out."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    table = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [row for row in table if any("`" in cell for cell in row[:2])]


def codes_in(cells: Iterable[str]) -> list[str]:
    return [code for cell in cells for code in re.findall(r"`([a-z_0-9A-Z]+)`", cell)]


FINDINGS = "Findings of the attestation server"


def test_every_finding_stands_under_its_check_with_its_advice() -> None:
    table = [row for row in rows(FINDINGS) if len(row) == 4]
    listed = {codes_in([row[1]])[0]: (int(row[0]), row[3]) for row in table}
    assert listed == {one.code: (int(one.check), one.next_step) for one in FindingCode}


def test_every_part_of_a_boot_is_listed_by_its_code() -> None:
    table = [row for row in rows(FINDINGS) if len(row) == 2]
    listed = {codes_in([row[0]])[0]: row[1] for row in table}
    texts = {f"{word}_differs": components.text(word) for word in components.WORDS}
    assert listed == {"event_differs": "a step without a known name", **texts}
    assert set(listed) == findings.PART_CODES
    assert findings.next_step("kernel_differs") in section(FINDINGS)


def test_every_refused_enrolment_is_listed() -> None:
    files = (
        "enrolment",
        "endorsement",
        "endorsement12",
        "vendor_path",
        "revocation",
        "store/hosts",
        "store/tokens",
    )
    sources = [(PACKAGE / "verifier" / f"{name}.py").read_text() for name in files]
    made = re.compile(r'(?:Refused\(|code = )\s*"([a-z_0-9]+)"')
    refused = {code for text in sources for code in made.findall(text)}
    assert len(refused) > 15
    assert set(codes_in(row[0] for row in rows("Refused enrolments"))) == refused


def test_every_refusal_of_the_gate_is_listed() -> None:
    text = Path(gate.__file__).read_text()
    refused = set(re.findall(r'Refused\(\s*"([a-z_]+)"', text))
    refused |= set(re.findall(r"refused \(([a-z_]+)\)", text))
    assert len(refused) > 10
    assert set(codes_in(row[0] for row in rows("Refusals of the gate"))) == refused


def doctor_codes() -> dict[str, set[str]]:
    """Return the states in which the doctor gives each code."""
    states: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("doctor/*.py"):
        text = path.read_text()
        for state, code in re.findall(r'(fail|warning)\(\s*"([a-z_]+)"', text):
            states.setdefault(code, set()).add({"fail": "FAIL"}.get(state, state))
        for code in re.findall(r'"([a-z]+_silent)"', text):
            states.setdefault(code, set()).add("FAIL")
    refusals = (sdk.LOGIN_REFUSED, sdk.LOGIN_PERMIT_MISSING, sdk.PERMIT_MISSING)
    faults = [state.value for state in FilterState if state is not FilterState.ASKED]
    for code in (*refusals, *faults):
        states.setdefault(code, set()).add("FAIL")
    # One of several servers that is away is no outage (`services.servers`).
    for code in ("server_unreachable", "server_certificate", "server_token", "server_answer"):
        states[code].add("warning")
    return states


def test_every_code_of_the_doctor_is_listed_with_its_state() -> None:
    table = rows("What `ovirt-tcp doctor` finds")
    listed = {codes_in([row[0]])[0]: set(row[1].split(" or ")) for row in table}
    assert len(listed) > 40
    assert listed == doctor_codes()


# Names of other things that begin like the codes of VMs.
OF_LISTINGS = {"vm_id", "vm_ids", "vm_pool"}


def test_every_code_of_the_history_is_listed() -> None:
    texts = [path.read_text() for path in (PACKAGE / "broker").rglob("*.py")]
    notices = re.compile(r'(?:Notice\(|_note\(|key =)\s*f?"([a-z_]+)[" ]')
    told = {code for text in texts for code in notices.findall(text)}
    told |= {state.value for state in FilterState}
    told |= {code for text in texts for code in re.findall(r'"(vm_[a-z_]+)"', text)} - OF_LISTINGS
    listed = set(codes_in(row[0] for row in rows("Entries of the history")))
    assert len(listed) > 25
    assert told - listed == set()


@pytest.mark.parametrize(
    "title", ["Reasons of the broker", "Entries of the history", "Errors of the interfaces"]
)
def test_a_listed_code_stands_in_the_code(title: str) -> None:
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for row in rows(title):
        # In the table of lines the code stands in the second column.
        for code in codes_in(row[:1]) or codes_in(row[1:2]):
            word = code[len("oat_") :] if code in MADE_OF_LEVELS else code
            assert re.search(rf'["( ]{word}[" (:]', source), code


# Routes


def test_the_protocol_names_every_route_and_its_callers() -> None:
    text = (DOCS / "protocol.md").read_text().replace("\\|", "|")
    table = re.findall(r"^\| `(/\S+)` \| ([A-Z, ]+) \| ([a-z_, ]+) \|", text, re.MULTILINE)
    described = {
        (path, method): set(callers.split(", "))
        for path, methods, callers in table
        for method in methods.split(", ")
    }
    answered = {
        (path, method): {caller.value for caller in handler.callers_of(method)}
        for path, handler in ROUTES
        for method in METHODS
        if getattr(handler, method.lower()) is not getattr(Handler, method.lower())
    }
    assert described == answered


# Options


def option_names() -> dict[str, set[str]]:
    """Return the options of each role, as `section.option`."""
    return {role: set(_options(declared)) for role, declared in SETTINGS.items()}


def _options(declared: type) -> Iterator[str]:
    for name, kind in typing.get_type_hints(declared).items():
        for option in typing.get_type_hints(kind):
            yield f"{name}.{option}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_option_that_is_named_exists(path: Path) -> None:
    options = set().union(*option_names().values())
    sections = {option.partition(".")[0] for option in options}
    spans = re.findall(r"`([a-z_0-9]+\.[a-z_0-9]+)(?:: [^`]*)?`", without_code(path.read_text()))
    named = {span for span in spans if span.partition(".")[0] in sections}
    assert {one for one in named if one.rpartition(".")[2] not in FILE_ENDINGS} - options == set()


def yaml_blocks() -> Iterator[tuple[str, str, str]]:
    for path in DOCUMENTS:
        for block in re.findall(r"(?ms)^ *```yaml\n(.*?)^ *```$", path.read_text()):
            role = re.search(r"# /etc/ovirt-tcp/([a-z]+)\.yaml", block)
            assert role is not None, f"{name_of(path)}: a YAML block does not say which file it is"
            yield name_of(path), role[1], block


@pytest.mark.parametrize(("document", "role", "block"), list(yaml_blocks()))
def test_every_sample_configuration_can_be_used(
    document: str, role: str, block: str, tmp_path: Path
) -> None:
    assert isinstance(yaml.safe_load(block), dict), document
    (tmp_path / f"{role}.yaml").write_text(block)
    config.load(SETTINGS[role], role, tmp_path)


# Command lines

BEFORE_A_COMMAND = ("--", "(", ";", "|", "&&", "$")


def console_scripts() -> dict[str, str]:
    """Return the module of each of our commands, as an installation has them."""
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    lines = declared["options.entry_points"]["console_scripts"].strip().splitlines()
    scripts = [line.split(" = ") for line in lines]
    return {name: target.partition(":")[0] for name, target in scripts}


COMMANDS = console_scripts()


def shell_lines(text: str) -> Iterator[str]:
    """Return the lines of the shell blocks in a document, continued lines joined."""
    for block in re.findall(r"(?ms)^ *```(?:sh|console)?\n(.*?)^ *```$", text):
        yield from block.replace("\\\n", " ").splitlines()


def calls_in(line: str) -> Iterator[list[str]]:
    """Return the calls of our commands in a line of shell, each as its words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return
    for start, word in enumerate(words):
        if word in COMMANDS and (start == 0 or words[start - 1] in BEFORE_A_COMMAND):
            ends = [end for end in range(start, len(words)) if set(words[end]) <= set("();<>|&")]
            yield words[start : min(ends, default=len(words))]


def check_call(words: list[str], whole: bool) -> None:
    """Raise UsageError unless our command takes these words.

    Args:
        whole: whether all required arguments have to be there; a sentence may leave them out.
    """
    command: click.Command = importlib.import_module(COMMANDS[words[0]]).main
    rest = words[1:]
    while True:
        context = click.Context(command, info_name=words[0])
        values, rest, _ = command.make_parser(context).parse_args(rest)
        if not isinstance(command, click.Group) or not rest:
            break
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"there is no command {rest[0]}")
        command, rest = found, rest[1:]
    if rest:
        raise click.UsageError(f"it does not take {rest}")
    required = [parameter for parameter in command.params if parameter.required]
    missing = [parameter.name for parameter in required if not values.get(parameter.name or "")]
    is_group = isinstance(command, click.Group) and not command.invoke_without_command
    if whole and (missing or (is_group and len(words) > 1)):
        raise click.UsageError(f"it lacks {missing or 'a command'}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_command_line_is_taken(path: Path) -> None:
    text = path.read_text()
    calls = [(call, True) for line in shell_lines(text) for call in calls_in(line)]
    spans = re.findall(r"`(ovirt-tcp[^`]*)`", without_code(text))
    calls += [(call, False) for span in spans for call in calls_in(span)]
    for call, whole in calls:
        try:
            check_call(call, whole)
        except click.UsageError as e:
            pytest.fail(f"{name_of(path)}: `{' '.join(call)}`: {e.format_message()}")


@pytest.mark.parametrize(
    "line",
    [
        "ovirt-tcp explian HOST",
        "ovirt-tcp setup --clusters NAME",
        "ovirt-tcp reference import golden",
        "ovirt-tcp-verifier token add",
        "runuser -u x -- ovirt-tcp-agent enrol",
    ],
)
def test_a_wrong_command_line_is_found(line: str) -> None:
    (call,) = calls_in(line)
    with pytest.raises(click.UsageError):
        check_call(call, whole=True)


def test_the_documents_show_many_command_lines() -> None:
    lines = [line for path in DOCUMENTS for line in shell_lines(path.read_text())]
    calls = [call for line in lines for call in calls_in(line)]
    assert len(calls) > 20
    assert set(COMMANDS) - {call[0] for call in calls} == {"ovirt-tcp-filterd"}
