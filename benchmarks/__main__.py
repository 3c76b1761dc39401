"""Run the benchmarks: one question, all questions, or only the report.

    python -m benchmarks input_path                  # print a table and write benchmarks/results/input_path.csv
    python -m benchmarks input_path --images FOLDER  # measure on your own images
    python -m benchmarks all                         # every question, each in a separate process, and the report
    python -m benchmarks all --tiny                  # every step on tiny data; the numbers have no meaning
    python -m benchmarks report                      # benchmarks/results/report.md and ratios.png from the results

Do not run other programs at the same time, because they affect the measurements.
"""

import argparse
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks.catalogue import QUESTIONS, Settings
from cclnet.system.errors import CCLNetError, errors_in_one_line
from cclnet.system.machine import keep_freed_memory, prepare_processor

RESULTS = Path(__file__).parent / "results"


def measure(question: str, settings: Settings, threads: int | None, folder: Path) -> None:
    """Measure one question, print the table and write the CSV."""
    prepare_processor(QUESTIONS[question].processor, threads)
    keep_freed_memory()
    results, of_machine = import_module("benchmarks.report"), import_module("benchmarks.machine")
    ran_on = {"machine": of_machine.machine(settings.device), "versions": of_machine.versions()}
    own = settings.images and QUESTIONS[question].own_images
    ran_on["images"] = "images of one's own" if own else "drawn images"
    share = of_machine.other_work()
    comparisons = import_module(f"benchmarks.questions.{question}").run(settings)
    ran_on["other_work"] = share()
    rows = [results.row_of(comparison) | ran_on for comparison in comparisons]
    results.show(question, rows)
    results.write(folder, question, rows)


def measure_all(arguments: list[str], folder: Path) -> None:
    """Measure every question in a separate process, with the given further arguments.

    Raises:
        CCLNetError: a process failed.
    """
    for question in QUESTIONS:
        command = [sys.executable, "-m", "benchmarks", question, *arguments, "--results", str(folder)]
        finished = subprocess.run(command, check=False)  # noqa: S603
        if finished.returncode:
            raise CCLNetError(f"{question} ended with exit status {finished.returncode}")


def parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "question", choices=[*QUESTIONS, "all", "report"], metavar="question", help=", ".join(QUESTIONS)
    )
    parser.add_argument("--tiny", action="store_true", help="all steps in small: that they run, not how fast")
    parser.add_argument("--repetitions", type=int, help="of each thing measured")
    parser.add_argument("--threads", type=int, help="that compute; one where it is about a core, else all cores")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="a folder or a zip of images, instead of drawn ones"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where networks are trained (cpu)")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where the tables go; tiny ones go nowhere else")
    return parser


def main(arguments: list[str]) -> None:
    given = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as nowhere:
        folder = given.results or (Path(nowhere) if given.tiny else RESULTS)
        if given.question in QUESTIONS:
            question = QUESTIONS[given.question]
            repetitions = given.repetitions or (1 if given.tiny else question.repetitions)
            settings = Settings(given.tiny, repetitions, given.images, given.device)
            measure(given.question, settings, given.threads or question.threads, folder)
            return
        if given.question == "all":
            measure_all([argument for argument in arguments if argument != "all"], folder)
        print(import_module("benchmarks.report").report(folder))


if __name__ == "__main__":
    with errors_in_one_line("benchmarks"):
        main(sys.argv[1:])
