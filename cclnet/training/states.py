"""Saved states, from which an interrupted training resumes.

They are kept outside everything that DVC manages, because DVC deletes a stage's outputs before it runs the stage.
"""

import hashlib
import io
import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import torch

from cclnet.system.errors import exhausted
from cclnet.system.files import write_bytes
from cclnet.system.locks import only_process

logger = logging.getLogger(__name__)

KEPT_STATES = 2
"""The latest state, and the previous one in case the latest is damaged."""


class StateStore:
    """The states of one training run, in a folder that only one process at a time may use.

    Args:
        root: the folder that contains the folders of all runs.
        key: identifies the run; it is a function of code, params and data, so that no other run resumes from the state.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.folder = root / key
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        self._lock.enter_context(only_process(self.folder / "lock", "is training this very run"))
        for unfinished in self.folder.glob("*.partial"):  # left by a process that was killed while writing
            unfinished.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.finish()
        finally:
            self._writer.shutdown()
            self._lock.close()

    def save(self, state: dict[str, Any], images_seen: int) -> None:
        """Save the state after ``images_seen`` training images; the previous state is kept too.

        A copy of the state is written in the background; ``finish`` waits for it.

        Raises:
            CCLNetError: the previous state could not be written.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.finish()
        self._writing = self._writer.submit(self._write, buffer.getbuffer(), images_seen)

    def _write(self, content: memoryview, images_seen: int) -> None:
        write_bytes(self.folder / f"images-{images_seen:012}", hashlib.sha256(content).digest(), content)
        for old in self._files()[:-KEPT_STATES]:
            old.unlink()

    def finish(self) -> None:
        """Wait until the latest state is on the disk.

        Raises:
            CCLNetError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def load(self) -> dict[str, Any] | None:
        """The latest intact state, None if there is none; damaged ones are skipped with a warning."""
        self.finish()
        for path in reversed(self._files()):
            content = path.read_bytes()
            digest, content = content[:32], content[32:]
            if hashlib.sha256(content).digest() == digest:
                try:
                    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
                except (UnpicklingError, EOFError, RuntimeError) as error:  # not a state: nothing in it is executed
                    if exhausted(error):
                        raise
            logger.warning("%s is damaged; going on from the state before it", path.name)
        return None

    def clear(self) -> None:
        """Delete the states, once the run is finished and its results are written."""
        self.finish()
        shutil.rmtree(self.folder)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("images-*"))
