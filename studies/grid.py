"""A study's grid, read from its ``dvc.yaml``: every stage and every cell of a matrix as one plain command."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from cclnet.system.errors import CCLNetError
from studies.projects import ROOT

Item = dict[str, Any]
"""One value of every key of a matrix; a value may be a table of its own, with a name."""


@dataclass(frozen=True)
class Command:
    """What one stage, or one cell of its matrix, runs.

    Attributes:
        module: ``studies.cell`` of ``python -m studies.cell …``.
        arguments: what follows.
        outputs: the files that it leaves, from the project's root.
        item: where in the matrix, key → value or its name.
        departures: in how many keys, seeds apart, the item is not the first of the matrix.
    """

    module: str
    arguments: list[str]
    outputs: list[Path]
    item: dict[str, str] = field(default_factory=dict)
    departures: int = 0

    @property
    def data(self) -> str:
        """The folder of the data that it makes or, a cell, uses."""
        return self.arguments[self.arguments.index("--data") + 1] if self.is_cell else self.arguments[0]

    @property
    def is_cell(self) -> bool:
        """Whether it trains and evaluates; else it prepares data."""
        return self.module == "studies.cell"

    @property
    def done(self) -> bool:
        """All outputs are there."""
        return all((ROOT / path).exists() for path in self.outputs)


def study_names() -> list[str]:
    """The studies that there are."""
    return sorted(path.parent.name for path in (ROOT / "studies").glob("*/dvc.yaml"))


def commands(study: str) -> list[Command]:
    """All commands of a study: the data that its cells need, then the cells, with the seeds outermost.

    Seeds outermost, so that a study which is cut short has the whole table for the seeds that it has.

    Raises:
        CCLNetError: there is no such study.
    """
    file = ROOT / "studies" / study / "dvc.yaml"
    if not file.is_file():
        raise CCLNetError(f"there is no study '{study}', only {', '.join(study_names())}")
    planned = [*commands_of(ROOT / "studies" / "dvc.yaml"), *commands_of(file)]
    used = {command.data for command in planned if command.is_cell}
    return [command for command in planned if command.data in used]


def commands_of(file: Path) -> Iterator[Command]:
    """Every stage of a ``dvc.yaml``, and every cell of those that have a matrix."""
    for stage in yaml.safe_load(file.read_text(encoding="utf-8"))["stages"].values():
        for item, departures in items(stage.get("matrix", {})):
            program, option, module, *arguments = shlex.split(filled(stage["cmd"], item))
            if (program, option) != ("python", "-m"):
                raise CCLNetError(f"{stage['cmd']!r} does not start with: python -m")
            outputs = [Path(filled(path, item)) for out in stage["outs"] for path in out]
            names = {key: str(value["name"] if isinstance(value, dict) else value) for key, value in item.items()}
            yield Command(module, arguments, outputs, names, departures)


def items(matrix: dict[str, list[Any]]) -> Iterator[tuple[Item, int]]:
    """The cells of a matrix, each with its number of departures from the first; one empty cell if there is none."""
    keys = sorted(matrix, key=lambda key: key != "seed")
    for values in product(*(matrix[key] for key in keys)):
        item = dict(zip(keys, values, strict=True))
        yield item, sum(value != matrix[key][0] for key, value in item.items() if key != "seed")


def filled(text: str, item: Item) -> str:
    """The text with the values of a cell in the place of ``${item.key}`` and ``${item.key.name}``."""

    def value(match: re.Match[str]) -> str:
        key, _, inner = match[1].partition(".")
        return str(item[key][inner] if inner else item[key])

    return re.sub(r"\$\{item\.([\w.]+)\}", value, text)


def only(planned: list[Command], wanted: dict[str, str]) -> list[Command]:
    """The commands at the wanted places of their matrices.

    Args:
        planned: the commands of a study.
        wanted: key of a matrix → its values, with commas between them; a command whose matrix lacks the key stays.

    Raises:
        CCLNetError: no matrix of the study has such a key or value.
    """
    for key, values in wanted.items():
        known = list(dict.fromkeys(command.item[key] for command in planned if key in command.item))
        unknown = set(values.split(",")) - set(known)
        if unknown:
            allowed = f"only {', '.join(known)}" if known else "and no matrix has that key"
            raise CCLNetError(f"{key}={','.join(sorted(unknown))}: there is no such cell in this study, {allowed}")
    places = {key: values.split(",") for key, values in wanted.items()}
    return [
        command
        for command in planned
        if all(command.item.get(key, values[0]) in values for key, values in places.items())
    ]
