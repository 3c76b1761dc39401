"""A study's grid, read from its ``dvc.yaml``: every stage and every cell of a matrix as one plain command."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from cclnet.errors import CCLNetError
from studies.projects import ROOT


@dataclass(frozen=True)
class Command:
    """What one stage, or one cell of its matrix, runs.

    Attributes:
        module: ``studies.cell`` of ``python -m studies.cell …``.
        arguments: what follows.
        outputs: the files that it leaves, from the project's root.
    """

    module: str
    arguments: list[str]
    outputs: list[Path]

    @property
    def done(self) -> bool:
        """All outputs are there."""
        return all((ROOT / path).exists() for path in self.outputs)


def study_names() -> list[str]:
    """The studies that there are."""
    return sorted(path.parent.name for path in (ROOT / "studies").glob("*/dvc.yaml"))


def commands(study: str) -> list[Command]:
    """All commands of a study, in the order of its ``dvc.yaml``; those of a matrix with the seeds outermost.

    Seeds outermost, so that a study which is cut short has the whole table for the seeds that it has.

    Raises:
        CCLNetError: there is no such study.
    """
    file = ROOT / "studies" / study / "dvc.yaml"
    if not file.is_file():
        raise CCLNetError(f"there is no study '{study}', only {', '.join(study_names())}")
    stages = yaml.safe_load(file.read_text(encoding="utf-8"))["stages"]
    return [command for stage in stages.values() for command in commands_of(stage)]


def commands_of(stage: dict[str, Any]) -> Iterator[Command]:
    """The command of a stage, or one for each cell of its matrix."""
    matrix: dict[str, list[Any]] = stage.get("matrix", {})
    keys = sorted(matrix, key=lambda key: key != "seed")
    for values in product(*(matrix[key] for key in keys)):
        item = dict(zip(keys, map(str, values), strict=True))
        program, option, module, *arguments = shlex.split(filled(stage["cmd"], item))
        if (program, option) != ("python", "-m"):
            raise CCLNetError(f"{stage['cmd']!r} does not start with: python -m")
        outputs = [Path(filled(path, item)) for out in stage["outs"] for path in out]
        yield Command(module, arguments, outputs)


def filled(text: str, item: dict[str, str]) -> str:
    """The text with the values of a cell in the place of ``${item.key}``."""
    return re.sub(r"\$\{item\.(\w+)\}", lambda match: item[match[1]], text)
