"""How alike matrices are, with every class and without each."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import spearmanr

from cclnet.metrics.likeness import count_pattern, mean_mantel_test, share_explained_by_counts
from cclnet.metrics.resampling import holm
from studies.reporting.cells import Cell
from studies.reporting.matrices import agreement, agreement_table, counts_table

RANDOM = np.random.default_rng(0)
MATRICES = [RANDOM.random((4, 4)) for _ in range(5)]
CLASSES = ["A", "B", "C", "D"]


def slow(a: np.ndarray, b: np.ndarray, left_out: int | None = None) -> float:
    """Spearman's correlation of the cells off the diagonal, cell by cell."""
    kept = [place for place in range(len(a)) if place != left_out]
    cells = [(a[i, j], b[i, j]) for i, j in product(kept, kept) if i != j]
    ours, theirs = zip(*cells, strict=True)
    return float(np.asarray(spearmanr(ours, theirs))[0])


def test_an_agreement_is_that_of_all_pairs():
    pairs = list(product(MATRICES[:2], MATRICES[2:]))
    found = agreement(pairs)
    assert found is not None
    assert found.correlations == pytest.approx([slow(a, b) for a, b in pairs])
    assert found.mean == pytest.approx(np.mean([slow(a, b) for a, b in pairs]))
    assert found.p == mean_mantel_test(pairs).p_two_sided
    for place in range(4):
        assert found.left_out[place] == pytest.approx(np.mean([slow(a, b, place) for a, b in pairs]))
    assert agreement([]) is None


def test_a_table_has_the_range_and_p_after_holm_over_all_of_it():
    several, one = list(product(MATRICES[:2], MATRICES[2:])), [(MATRICES[0], 2 * MATRICES[0])]
    table = {("x", "several"): agreement(several), ("x", "none"): None, ("y", "one"): agreement(one)}
    first, second = agreement_table(table, ("head", "with"), CLASSES)
    values = holm([mean_mantel_test(pairs).p_two_sided for pairs in (several, one)])
    correlations = [slow(a, b) for a, b in several]
    assert first["correlation"] == (
        f"{np.mean(correlations):.2f} ({min(correlations):.2f} to {max(correlations):.2f}), p = {values[0]:.3f}"
    )
    assert second == {"head": "y", "with": "one", "correlation": f"1.00, p = {values[1]:.3f}"} | {
        f"without {name}": "1.00" for name in CLASSES
    }


def test_a_correlation_that_hangs_on_one_class_is_seen():
    """Two matrices that share nothing but that the last class is unlike all others."""
    a, b = (RANDOM.random((7, 7)) for _ in range(2))
    for matrix in (a, b):
        matrix[-1] += 5
        matrix[:, -1] += 5
    found = agreement([(a, b)])
    assert found and found.mean and found.mean > 0.5
    last = found.left_out[-1]
    assert last is not None and last == pytest.approx(slow(a, b, 6)) and abs(last) < 0.4


def test_the_share_that_counts_explain_without_each_class():
    counts = [10, 70, 20, 30]
    matrices = [np.asarray(count_pattern(counts)) + 1e-3 * RANDOM.random((4, 4)), RANDOM.random((4, 4))]
    cells = [
        Cell(f"a-{seed}", {"soft_labels": matrix.tolist(), "training_images": counts}, None)  # type: ignore[arg-type]
        for seed, matrix in enumerate(matrices)
    ]
    (row,) = counts_table({("none",): cells}, ("head",), CLASSES)
    for place, name in enumerate(CLASSES):
        kept = [other for other in range(4) if other != place]
        shares = [
            share_explained_by_counts(matrix[np.ix_(kept, kept)], [counts[other] for other in kept])
            for matrix in matrices
        ]
        assert row[f"without {name}"] == f"{np.mean([share.explained for share in shares if share]):.2f}"
    assert row["n"] == "2"
