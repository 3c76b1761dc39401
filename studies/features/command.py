"""Experiments on class counts alone and on fixed features of real images.

    python -m studies features                                    # write the report from the finished cells
    python -m studies features counts network                     # run the missing cells of these experiments first
    python -m studies features sizes course --features FILE.npz   # these need features of ISIC 2018

Each experiment runs on one thread and goes on where it was interrupted; several processes share the cells.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from studies.features.data import COMMAND
from studies.features.report import write
from studies.features.running import EXPERIMENTS, run_missing
from studies.running.settings import ROOT

QUESTION = "What does the head learn from class counts alone, and what from fixed features, and for how long?"


def main(texts: Sequence[str]) -> int:
    """Run the missing cells of the named experiments, and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m studies features", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="*", metavar="experiment", help=", ".join(EXPERIMENTS))
    parser.add_argument("--features", type=Path, metavar="FILE", help=f"made with: {COMMAND}")
    arguments = parser.parse_args(texts)
    run_missing(arguments.experiments, arguments.features)
    write(ROOT / "studies" / "features")
    return 0
