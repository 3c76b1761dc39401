"""The params and the training history of an experiment, beside its results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cclnet.experiments.revisions import files_of
from cclnet.experiments.written import read_history
from cclnet.params import PARAMS_FILE, read_values
from cclnet.system.errors import CCLNetError, DataError

HISTORY = "metrics/history.csv"


@dataclass(frozen=True)
class Record:
    """How an experiment was made, as far as it is known.

    Attributes:
        params: the values of ``params.yaml``, with nested groups; empty if unknown.
        history: a row for each epoch; None if unknown.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    history: pd.DataFrame | None = None


def load_record(name: str) -> Record:
    """Read the record of an experiment.

    Args:
        name: a prediction file (``….csv``), of which nothing is known, or a revision as in ``files_of``.

    Raises:
        CCLNetError: there is no such revision, DVC cannot fetch its files, or they are not what this project writes.
    """
    if name.endswith(".csv"):
        return Record()
    with files_of(name, str(PARAMS_FILE), HISTORY) as folder:
        try:
            params, history = read_values(folder / PARAMS_FILE), read_history(folder / HISTORY)
        except CCLNetError as error:
            raise DataError(f"{name}: {str(error).replace(f'{folder.absolute()}/', '')}") from None
    return Record(params if isinstance(params, Mapping) else {}, history)
