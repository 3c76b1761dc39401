"""Check the params before any other stage starts, because DVC removes a stage's outputs before it runs the stage.

The output never changes, so a changed param runs this stage and then only the stages that depend on that param.
"""

if __name__ == "__main__":
    from stages import start

    start("params")

from collections.abc import Callable, Sequence
from pathlib import Path

from cclnet.dataset.sources import output_problem, source_problems
from cclnet.networks.catalogue import PAPER_BACKBONES, name_problems, weights_file
from cclnet.params import Params
from cclnet.system.errors import CCLNetError, ParamsError, errors_in_one_line
from cclnet.system.files import write_bytes

ON_A_PROCESSOR = ("auto", "cpu")


def main() -> None:
    params = Params.load(name_problems=name_problems)
    refuse_problems(
        params,
        [check_source, check_files, check_sample, check_backbone, check_soft_labels, check_processes, check_compiler],
    )
    write_bytes(Path("data/params_checked.txt"), b"params.yaml can be used\n")


def refuse_problems(params: Params, checks: Sequence[Callable[[Params], None]]) -> None:
    """Run all checks, and report all problems together."""
    problems = []
    for check in checks:
        try:
            check(params)
        except CCLNetError as error:
            problems.append(f"  {error}")
    if problems:
        raise ParamsError("\n".join(["params.yaml cannot be used:", *problems]))


def check_source(params: Params) -> None:
    """Check that DVC would not remove files of the user, as source or in the place of an output."""
    if problems := source_problems(params.block.source):
        raise CCLNetError("\n  ".join(f"{where}: {what}" for where, what in problems))


def check_files(params: Params) -> None:
    """Check that a file of weights or of soft labels is not an output, which DVC removes before training."""
    named = {"weights": weights_file(params.weights), "soft_label_source": params.soft_labels_file}
    problems = [f"{key}: {made}" for key, file in named.items() if file and (made := output_problem(file))]
    if problems:
        raise CCLNetError("\n  ".join(problems))


def check_sample(params: Params) -> None:
    """Check that every class of the generated sample gets enough images."""
    if params.block.source == "drawn":
        from cclnet.dataset.sample import class_counts

        class_counts(params.sample.images, params.sample.imbalance)


def check_backbone(params: Params) -> None:
    """Check that the network accepts this crop size and its weights are available; skipped for the paper's networks."""
    if params.backbone in PAPER_BACKBONES and params.weights is None:
        return
    from cclnet.networks.backbones import build_backbone

    build_backbone(params.backbone, params.weights, params.block.crop)


def check_soft_labels(params: Params) -> None:
    """Check that a file of soft labels is a square table; the classes of the data are not known yet."""
    if params.soft_labels_file:
        from cclnet.metrics.matrices import read_soft_label_table

        read_soft_label_table(params.soft_labels_file)


def check_processes(params: Params) -> None:
    """Check that the GPUs exist, and that a batch has enough images for every process."""
    if params.device in ON_A_PROCESSOR and params.processes == 1:
        return
    from cclnet.system.machine import select_device
    from cclnet.training.distributed import IMAGES_EACH, processes_to_start

    count = processes_to_start(params.processes, select_device(params.device))
    if params.block.batch_size < IMAGES_EACH * count:
        raise CCLNetError(
            f"datasets.{params.dataset}.batch_size: {params.block.batch_size} images are too few for {count} "
            f"processes, each of which needs {IMAGES_EACH}; raise it, or lower processes"
        )


def check_compiler(params: Params) -> None:
    """Check that torch can compile here, if required."""
    if not params.computation.compile:
        return
    from torch import nn

    from cclnet.networks.backbones import compile_backbone
    from cclnet.system.machine import select_device

    compile_backbone(nn.Identity(), select_device(params.device))


if __name__ == "__main__":
    with errors_in_one_line("params"):
        main()
