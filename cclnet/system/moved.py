"""The modules of version 0.1 by their old names, which keep working: ``from cclnet.tables import read_table``."""

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "archives": ["dataset.archives"],
    "augmentation": ["images.augmentation"],
    "backbones": ["networks.catalogue", "networks.backbones"],
    "batches": ["images.subset", "images.transfer", "inference.probabilities", "training.batches"],
    "charts": ["views.charts"],
    "checkpoint": ["training.states", "networks.model_file"],
    "checks": ["dataset.checks"],
    "comparison": ["experiments.comparison"],
    "download": ["dataset.download"],
    "engine": ["inference.probabilities", "training.trainer", "training.loop"],
    "errors": ["system.errors"],
    "evaluation": ["inference.labelled"],
    "export": ["inference.onnx"],
    "figures": ["views.figures"],
    "files": ["system.files"],
    "folders": ["dataset.folders"],
    "interruption": ["system.interruption"],
    "isic": ["dataset.isic"],
    "model": ["networks.model"],
    "objectives": ["training.objectives"],
    "pictures": ["inference.pictures"],
    "prediction": ["inference.prediction"],
    "processes": ["training.distributed"],
    "processor": ["system.machine"],
    "progress": ["system.progress"],
    "report": ["views.page"],
    "revisions": ["experiments.revisions"],
    "sample": ["dataset.sample"],
    "splits": ["dataset.splits"],
    "statistics": ["metrics.resampling", "metrics.likeness", "metrics.calibration"],
    "tables": ["dataset.tables"],
    "transfer": ["images.transfer"],
    "workspace": ["system.workspace"],
}
"""Old module → the modules that hold its names now, in the order in which they are searched."""


class MovedModule(ModuleType):
    """A module without contents of its own: each name is looked up where it is now, with a deprecation warning."""

    def __init__(self, name: str, places: Sequence[str]) -> None:
        super().__init__(name, f"Moved to {', '.join(f'cclnet.{place}' for place in places)}.")
        self.__dict__["_places"] = places

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        for place in self.__dict__["_places"]:
            module = import_module(f"cclnet.{place}")
            if hasattr(module, name):
                warnings.warn(f"{self.__name__}.{name} is now cclnet.{place}.{name}", DeprecationWarning, stacklevel=2)
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class MovedLoader:
    """Makes the module of an old name."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return MovedModule(spec.name, MOVED[spec.name.removeprefix("cclnet.")])

    def exec_module(self, module: ModuleType) -> None:
        pass


def find_moved(name: str) -> ModuleSpec | None:
    """The specification of a module of version 0.1, None for any other name."""
    if name.removeprefix("cclnet.") not in MOVED:
        return None
    return ModuleSpec(name, MovedLoader())  # pyright: ignore[reportArgumentType] - the protocol of importlib.abc.Loader
