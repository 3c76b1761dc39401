"""A study's grid, ``studies/NAME/grid.yaml``: its question and its planned cells.

The head of the file contains the ``question``, the ``command`` to run it, its ``cost`` and the ``expected`` result. The
rest is a grid of experiments:

- ``settings``: the params that all cells share;
- ``matrix``: the values of each key; there is one cell for every combination of values. A plain value is the value of
  the param with the key's name. A value with a ``name`` has ``settings`` for one or several params. A list of such
  mappings plans the cells of each of them.

The name of a cell consists of the names of its values, joined with hyphens in the order of the keys; the last key is
``seed``.

Params that are not set in the grid come from ``base.yaml``, which fixes the params of all studies, so that a changed
default in ``params.yaml`` does not invalidate committed cells.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from cclnet.system.errors import CCLNetError
from studies.running.settings import ROOT, data_params, experiment_params, problems

BASE = ROOT / "studies" / "running" / "base.yaml"
NAME = re.compile(r"[A-Za-z0-9_.]+(-[A-Za-z0-9_.]+)*")
Plain = str | int | float
Settings = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Value(_Keys):
    """One value of a matrix's key: its name, and its params."""

    name: Annotated[str, BeforeValidator(str), Field(pattern=rf"^{NAME.pattern}$")]
    settings: Settings = Field(min_length=1)


Matrix = dict[str, Annotated[list[Plain | Value], Field(min_length=1)]]


class Grid(_Keys):
    """The whole file."""

    question: str = Field(min_length=1)
    command: str = Field(pattern=r"^python -m studies \w+")
    cost: str = Field(min_length=1)
    expected: str = Field(min_length=1)
    settings: Settings = {}
    matrix: Annotated[list[Matrix], BeforeValidator(lambda value: value if isinstance(value, list) else [value])]

    @field_validator("matrix")
    @classmethod
    def _seeds_come_last(cls, matrices: list[Matrix]) -> list[Matrix]:
        for matrix in matrices:
            if not matrix or list(matrix)[-1] != "seed":
                raise ValueError(f"the last key must be seed, and the keys are {', '.join(matrix)}")
        return matrices


class Dataset(_Keys):
    """A dataset in the studies: its title in the reports, and the fixed params of its block."""

    title: str
    settings: Settings


class Base(_Keys):
    """``base.yaml``: the params that are fixed for all studies, and those for each dataset."""

    settings: Settings
    datasets: dict[str, Dataset]


@dataclass(frozen=True)
class PlannedCell:
    """One experiment of a grid.

    Attributes:
        study: the name of the study.
        name: name of its files, unique in the study.
        place: key of the matrix → the name of its value.
        settings: all params that are set for it by ``base.yaml``, the grid and the values.
        departures: number of keys, except the seed, whose value is not the first one of the matrix.
    """

    study: str
    name: str
    place: dict[str, str]
    settings: Settings
    departures: int

    @property
    def path(self) -> Path:
        """The path of its files without suffix, relative to the project's root."""
        return Path("studies") / self.study / "cells" / self.name

    @property
    def done(self) -> bool:
        """Whether it is finished, that is, both of its files exist."""
        return all((ROOT / f"{self.path}.{suffix}").is_file() for suffix in ("json", "csv"))

    @cached_property
    def params(self) -> dict[str, Any]:
        """All params that its result depends on, see ``experiment_params``."""
        return experiment_params(self.settings)

    @cached_property
    def data(self) -> Path:
        """The folder of its prepared data, relative to the project's root; cells with equal data share it."""
        values = data_params(self.params)
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
        return Path("studies") / "data" / f"{values['dataset']}-{values['split']}-{digest}"


def study_names() -> list[str]:
    """The names of all studies."""
    return sorted(path.parent.name for path in (ROOT / "studies").glob("*/grid.yaml"))


def read_grid(study: str) -> Grid:
    """Read and check a study's grid.

    Raises:
        CCLNetError: there is no such study, or its grid is invalid; it lists all problems, one per line.
    """
    path = ROOT / "studies" / study / "grid.yaml"
    if study not in study_names():
        raise CCLNetError(f"there is no study '{study}', only {', '.join(study_names())}")
    return _checked(path, Grid)


@cache
def base() -> Base:
    """Read and check the params that the studies share."""
    return _checked(BASE, Base)


def dataset_titles() -> dict[str, str]:
    """The titles of the datasets in the reports' headings."""
    return {name: dataset.title for name, dataset in base().datasets.items()}


def _checked(path: Path, model: type[Model]) -> Model:
    where = path.relative_to(ROOT)
    try:
        return model.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader))  # noqa: S506
    except yaml.YAMLError as error:
        raise CCLNetError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise _refusal(where, problems(error)) from None


def _refusal(where: Path, found: list[str]) -> CCLNetError:
    return CCLNetError("\n".join([f"{where} cannot be used:", *(f"  {problem}" for problem in found)]))


def planned_cells(study: str) -> list[PlannedCell]:
    """All cells of a study, ordered by seed, so that an interrupted study has the whole table for some seeds.

    Raises:
        CCLNetError: there is no such study, or its grid is invalid.
    """
    grid = read_grid(study)
    cells = [cell for matrix in grid.matrix for cell in _cells_of(study, grid.settings, matrix)]
    found = list(_faults(cells))
    if found:
        raise _refusal(Path("studies") / study / "grid.yaml", found)
    seeds = list(dict.fromkeys(cell.place["seed"] for cell in cells))
    return sorted(cells, key=lambda cell: seeds.index(cell.place["seed"]))


def _cells_of(study: str, shared: Settings, matrix: Matrix) -> Iterator[PlannedCell]:
    """Every combination of a matrix's values."""
    first = {key: values[0] for key, values in matrix.items()}
    for combination in product(*matrix.values()):
        values = dict(zip(matrix, combination, strict=True))
        place = {key: _name_of(value) for key, value in values.items()}
        departures = sum(value != first[key] for key, value in values.items() if key != "seed")
        chosen = shared | _settings_of(values)
        yield PlannedCell(study, "-".join(place.values()), place, _pinned(chosen) | chosen, departures)


def _name_of(value: Plain | Value) -> str:
    return value.name if isinstance(value, Value) else str(value)


def _settings_of(values: Mapping[str, Plain | Value]) -> Settings:
    settings: Settings = {}
    for key, value in values.items():
        settings |= value.settings if isinstance(value, Value) else {key: value}
    return settings


def _pinned(chosen: Settings) -> Settings:
    """The params in ``base.yaml`` for all cells and for the chosen dataset."""
    dataset = base().datasets.get(chosen.get("dataset", ""))
    return base().settings | (dataset.settings if dataset else {})


def _faults(cells: list[PlannedCell]) -> Iterator[str]:
    """The problems of the cells of a grid, each one once, with the first cell that has it."""
    names = [cell.name for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield f"matrix: two cells are called {', '.join(twice)}"
    seen: dict[str, str] = {}
    for cell in cells:
        if cell.settings.get("dataset") not in base().datasets:
            seen.setdefault(f"dataset must be one of {', '.join(base().datasets)}", cell.name)
        if not NAME.fullmatch(cell.name):
            seen.setdefault("only letters, digits, '.', '_' and '-' may be in names", cell.name)
        try:
            cell.params  # noqa: B018 - checks them
        except CCLNetError as error:
            seen.setdefault(str(error), cell.name)
    yield from (f"cell {name}: {fault}" for fault, name in seen.items())


def only(cells: list[PlannedCell], wanted: Mapping[str, str]) -> list[PlannedCell]:
    """Select cells of a grid.

    Args:
        cells: the cells of a study.
        wanted: key of a matrix → names of its values, separated by commas. Cells whose matrix lacks one of the keys are
            left out.

    Raises:
        CCLNetError: the grid has no such key or value.
    """
    for key, names in wanted.items():
        known = list(dict.fromkeys(cell.place[key] for cell in cells if key in cell.place))
        unknown = sorted(set(names.split(",")) - set(known))
        if unknown:
            keys = dict.fromkeys(key for cell in cells for key in cell.place)
            allowed = f"only {', '.join(known)}" if known else f"and the keys are {', '.join(keys)}"
            raise CCLNetError(f"{key}={','.join(unknown)}: there is no such cell in this study, {allowed}")
    return [cell for cell in cells if all(cell.place.get(key) in names.split(",") for key, names in wanted.items())]


class _UniqueKeyLoader(yaml.SafeLoader):
    """A loader that refuses duplicate keys, which YAML otherwise overwrites silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for place, key in enumerate(keys) if key in keys[:place]]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"'{twice[0]}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep)
