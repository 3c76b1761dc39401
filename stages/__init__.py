"""The stages of the pipeline; each is a separate process, such as ``python -m stages.train``. ``--help`` describes it.

A stage's file calls ``start`` before it imports anything else, because NumPy and torch read the settings made by
``start`` when they are loaded. Importing a stage, or this package, has no side effects.
"""

import argparse
import textwrap
from pathlib import Path
from typing import Any

from cclnet.system.errors import errors_in_one_line
from cclnet.system.interruption import end_at_once_while_loading, end_with_dvc

_PIPELINE = Path(__file__).resolve().parents[1] / "dvc.yaml"
_CODE = ("cclnet", "stages")
_WIDTH = 100


def start(stage: str) -> None:
    """Start a stage's process: handle ``--help``, check ``params.yaml``, prepare the processor.

    Args:
        stage: its name in ``dvc.yaml``.

    Raises:
        SystemExit: help was requested (0), ``params.yaml`` is invalid (1), or there are arguments (2).
    """
    end_at_once_while_loading()
    end_with_dvc()
    _Parser(stage).parse_args()
    prepare()


def prepare() -> None:
    """Check ``params.yaml`` and prepare the processor, before NumPy and torch are loaded.

    Raises:
        SystemExit: ``params.yaml`` is invalid.
    """
    with errors_in_one_line("params"):
        from cclnet.params import Params
        from cclnet.system.machine import prepare_processor

        block = Params.load().block
        prepare_processor(block.processor, block.threads)


class _Parser(argparse.ArgumentParser):
    """A parser that accepts only ``--help``, and reads ``dvc.yaml`` only then."""

    def __init__(self, stage: str) -> None:
        super().__init__(prog=f"python -m stages.{stage}", formatter_class=argparse.RawDescriptionHelpFormatter)
        self._stage = stage

    def format_help(self) -> str:
        import yaml

        self.description = _description(yaml.safe_load(_PIPELINE.read_text(encoding="utf-8"))["stages"][self._stage])
        return super().format_help()


def _description(stage: dict[str, Any]) -> str:
    """The description of a stage, its inputs and its outputs, from ``dvc.yaml``."""
    data = [path for path in stage["deps"] if path.split("/")[0] not in _CODE]
    written = [name for kind in ("outs", "metrics", "plots") for name in _names(stage.get(kind, []))]
    lists = {"reads": data, "params": _names(stage["params"]), "writes": written}
    return "\n\n".join([stage["desc"], *(_wrapped(title, names) for title, names in lists.items() if names)])


def _names(items: list[Any]) -> list[str]:
    """The names of items of the form ``- path`` or ``- path: {options}``."""
    return [next(iter(item)) if isinstance(item, dict) else item for item in items]


def _wrapped(title: str, names: list[str]) -> str:
    return textwrap.fill(", ".join(names), _WIDTH, initial_indent=f"{title + ':':<8}", subsequent_indent=" " * 8)
