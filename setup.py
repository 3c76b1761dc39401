"""The wheel also contains the pipeline of this repository, which ``cclnet init`` copies, in ``cclnet/template``."""

from itertools import chain
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PIPELINE = ("dvc.yaml", "params.yaml", "stages/*.py", ".dvc/plots/*.json")


class BuildWithPipeline(build_py):
    """Builds the package and copies the files of the pipeline into it; an editable install reads them in place."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for file, copy in zip(self._files(), self._copies(), strict=True):
                self.mkpath(str(copy.parent))
                self.copy_file(str(file), str(copy), preserve_mode=False)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *map(str, self._files())]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        copies = [] if self.editable_mode else map(str, self._copies())
        return [*super().get_outputs(include_bytecode), *copies]

    def _files(self) -> list[Path]:
        return sorted(chain.from_iterable(Path().glob(pattern) for pattern in PIPELINE))

    def _copies(self) -> list[Path]:
        return [Path(self.build_lib, "cclnet", "template", file) for file in self._files()]


setup(cmdclass={"build_py": BuildWithPipeline})
