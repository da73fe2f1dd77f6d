# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads a role's YAML configuration into frozen dataclasses.

`/etc/ovirt-tcp/<role>.yaml` first, if there is one, then `<role>.conf.d/*.yaml` in name order; a
later file's option wins. A role declares a dataclass of sections, each a dataclass of options. An
option's annotation is its type, and its default is the documentation's default; one without a
default is required.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ovirt_tcp_plugin import bounds, errors

DEFAULT_DIRECTORY = Path("/etc/ovirt-tcp")

# A configuration is written by hand; more than this is a wrong file.
MAX_FILE_SIZE = 1024 * 1024

# What the types of options are called in errors.
_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}

T = TypeVar("T")


class _MergedOptions:
    """The options of all files.

    Attributes:
        sections: the values by section and name; of a later file if it has that option, too.
        origins: the beginning of a fault's sentence by section and option: the name of the drop-in
            in which it stands last; empty for the role's own file.
    """

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, object]] = {}
        self.origins: dict[tuple[str, str], str] = {}

    def add(self, origin: str, section: str, options: Mapping[object, object]) -> None:
        """Add a section of a file."""
        self.origins.setdefault((section, ""), origin)
        values = self.sections.setdefault(section, {})
        for name, value in options.items():
            values[str(name)] = value
            self.origins[section, str(name)] = origin


def load(declared: type[T], role: str, directory: Path) -> T:
    """Return the configuration of `role` as an instance of the dataclass `declared`.

    The file may be absent where every option has a default; its directory may not, which would be a
    mistyped one.

    Raises:
        InvalidConfig: with every unknown section or option, wrong type and missing option at once.
    """
    path = directory / f"{role}.yaml"
    if not directory.is_dir():
        raise errors.InvalidConfig(str(path), ["its directory does not exist"])
    faults: list[str] = []
    merged = _MergedOptions()
    is_there = path.exists()
    if is_there:
        _merge(path, "", merged, faults)
    for drop_in in sorted((directory / f"{role}.conf.d").glob("*.yaml")):
        _merge(drop_in, f"{drop_in.name}: ", merged, faults)
    sections = _sections(declared, merged, faults)
    if faults and not is_there:
        faults.insert(0, "the file does not exist")
    if faults:
        raise errors.InvalidConfig(str(path), faults)
    return declared(**sections)


def show(loaded: object) -> dict[str, Any]:
    """Return a loaded configuration as plain values, for `config show`."""
    shown: dict[str, Any] = {}
    for section in dataclasses.fields(loaded):  # type: ignore[arg-type]
        options = getattr(loaded, section.name)
        values = {}
        for option in dataclasses.fields(options):
            values[option.name] = _plain(getattr(options, option.name))
        shown[section.name] = values
    return shown


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _merge(path: Path, origin: str, merged: _MergedOptions, faults: list[str]) -> None:
    """Add the options of one file to those of the files before it; or what is wrong with it."""
    try:
        content = _read(path)
    except ValueError as e:
        faults.append(f"{path.name} {e}")
        return
    for section, options in content.items():
        if isinstance(options, dict):
            merged.add(origin, str(section), options)
        elif options is not None:
            faults.append(f"{path.name}: section {section} is not a mapping of options")


def _read(path: Path) -> Mapping[object, object]:
    """Return the sections in a file. Raises ValueError "is not ..."."""
    # Only here: no help text of a command needs a parser, which takes long to load.
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_SIZE + 1)
        too_large = len(text) > MAX_FILE_SIZE
        content = None if too_large else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as e:
        reason = " ".join(str(e).split())
        raise ValueError(f"cannot be read: {reason}") from e
    if too_large:
        raise ValueError(f"is larger than {MAX_FILE_SIZE} bytes")
    if content is None:
        return {}
    if isinstance(content, dict):
        return content
    raise ValueError("is not a mapping of sections")


def _sections(declared: type[Any], merged: _MergedOptions, faults: list[str]) -> dict[str, object]:
    types = typing.get_type_hints(declared)
    for name in sorted(set(merged.sections) - set(types)):
        origin = merged.origins[name, ""]
        faults.append(f"{origin}unknown section {name}, known are {', '.join(sorted(types))}")
    sections = {}
    for name, kind in types.items():
        sections[name] = _section(name, kind, merged, faults)
    return sections


def _section(name: str, kind: type[Any], merged: _MergedOptions, faults: list[str]) -> object:
    types = typing.get_type_hints(kind)
    present = merged.sections.get(name, {})
    for option in sorted(set(present) - set(types)):
        origin = merged.origins[name, option]
        known = ", ".join(sorted(types))
        faults.append(f"{origin}unknown option {name}.{option}, known are {known}")
    values: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        option = field.name
        if option in present:
            try:
                values[option] = _convert(types[option], present[option])
            except ValueError as e:
                faults.append(f"{merged.origins[name, option]}{name}.{option} {e}")
        elif _is_required(field):
            faults.append(f"{name}.{option} is missing")
    if faults:
        return None
    try:
        return kind(**values)
    except ValueError as e:
        faults.append(f"{name}: {e}")
        return None


def _is_required(field: dataclasses.Field[Any]) -> bool:
    no_default = field.default is dataclasses.MISSING
    return no_default and field.default_factory is dataclasses.MISSING


def _convert(kind: Any, value: object) -> object:
    """Return `value` as an instance of the annotation `kind`. Raises ValueError "is not ..."."""
    if kind in (int, float):
        return _convert_number(kind, value)
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind in (str, bool) and type(value) is kind:
        return value
    origin = typing.get_origin(kind)
    if origin is tuple and typing.get_args(kind)[0] is Path and isinstance(value, str):
        value = [value]
    if origin is tuple and isinstance(value, list):
        of_item = typing.get_args(kind)[0]
        return tuple(_convert(of_item, item) for item in value)
    if origin is Mapping or origin is typing.get_origin(Mapping[str, str]):
        return _convert_mapping(kind, value)
    raise ValueError(f"is not {_KINDS.get(kind, 'a list')}: {_shortened(value)}")


def _convert_number(kind: Any, value: object) -> object:
    whole = type(value) is int
    if not whole and not (kind is float and type(value) is float):
        raise ValueError(f"is not {_KINDS[kind]}: {_shortened(value)}")
    # Not true of NaN either.
    if not 0 <= value <= bounds.MAX_NUMBER:  # type: ignore[operator]
        raise ValueError(f"is not between 0 and {bounds.MAX_NUMBER:,}: {_shortened(value)}")
    return kind(value)


def _convert_mapping(kind: Any, value: object) -> Mapping[object, object]:
    of_key, of_item = typing.get_args(kind)
    if isinstance(value, dict):
        return {_convert(of_key, key): _convert(of_item, item) for key, item in value.items()}
    raise ValueError("is not a mapping")


def _shortened(value: object) -> str:
    return re.sub(r"\s+", " ", repr(value))[:60]
