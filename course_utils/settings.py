"""Settings from a TOML file: a frozen dataclass, or words that name the key that is wrong."""

from __future__ import annotations

import tomllib
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from course_utils.errors import DataError

Settings = TypeVar("Settings")

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}


def read_settings(file: str | Path, kind: type[Settings]) -> Settings:
    """An instance of the dataclass `kind` with the values of a TOML file, else its defaults.

    A field that is itself a dataclass is a table of the file, a tuple is a list in it. Raises
    `DataError` naming file and key, and saying what is allowed: for a file that is missing or is no
    TOML, a key that `kind` lacks, a value of another type, and one that `kind` itself refuses.
    """
    file = Path(file).expanduser()
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"These settings cannot be read: {error.strerror}.",
            where=file,
            do="Give the path of a TOML file, such as configs/pydocs.toml.",
        ) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise DataError(
            f"These settings are not TOML: {error}.",
            where=file,
            do='Write `name = value` in each line, texts in "quotes", in UTF-8.',
        ) from error
    return _build(kind, values, file, "")


def _build(kind: type[Settings], values: dict, file: Path, table: str) -> Settings:
    hints = get_type_hints(kind)
    chosen = {}
    for name, value in values.items():
        key = table + name
        if name not in hints:
            raise DataError(
                f"There is no setting `{key}`.",
                where=file,
                do=f"Take some of {', '.join(table + hint for hint in hints)}.",
            )
        if not _fits(value, hints[name]):
            raise DataError(
                f"`{key}` is {value!r}.", where=file, do=f"It takes {_in_words(hints[name])}."
            )
        if is_dataclass(hints[name]):
            value = _build(hints[name], value, file, f"{key}.")
        chosen[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**chosen)
    except DataError as error:
        where = f"{file}, table [{table[:-1]}]" if table else file
        raise DataError(error.what, where=where, do=error.do) from error


def _fits(value: object, hint: type) -> bool:
    """Whether a value from TOML is of the type; true and 1 are two things, 1 is also a float."""
    kind, arguments = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, each) for each in arguments)
    if kind is Literal:
        return isinstance(value, str) and value in arguments
    if kind is tuple:
        if not isinstance(value, list) or not value:
            return False
        kinds = arguments[:1] * len(value) if Ellipsis in arguments else arguments
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if is_dataclass(hint):
        return isinstance(value, dict)
    return type(value) in ((int, float) if hint is float else (hint,))


def _in_words(hint: type) -> str:
    kind, arguments = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return ", or ".join(_in_words(each) for each in arguments if each is not NoneType)
    if kind is Literal:
        return " or ".join(f'"{value}"' for value in arguments)
    if kind is tuple and Ellipsis in arguments:
        return f"a list, each {_in_words(arguments[0])}"
    if kind is tuple:
        return f"a list of {len(arguments)}, each {_in_words(arguments[0])}"
    return "a table" if is_dataclass(hint) else _WORDS[hint]
