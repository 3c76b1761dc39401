import csv
import hashlib
import io
import math
import os
import subprocess
import sys
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.stats import spearmanr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from cclnet.dataset import sample
from cclnet.dataset.archives import DATE
from cclnet.dataset.isic import CLASSES, GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.system.errors import CCLNetError, DataError
from cclnet.system.files import write_json

IMAGES, IMBALANCE = 120, 4.0
PLANTED = np.array(sample.PLANTED_SIMILARITY)
OFF_DIAGONAL = ~np.eye(len(CLASSES), dtype=bool)
PAIRS = np.triu_indices(len(CLASSES), 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "made"
    sample.draw_sample(folder, IMAGES, IMBALANCE, 1, seed=1)
    return folder


def read_labels(folder: Path) -> list[list[str]]:
    with zipfile.ZipFile(folder / GROUND_TRUTH_ZIP) as archive:
        (name,) = archive.namelist()
        return list(csv.reader(io.StringIO(archive.read(name).decode())))


def read_lesions(folder: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO((folder / LESION_TABLE).read_text())))


def read_images(folder: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(folder / INPUT_ZIP) as archive:
        names = archive.namelist()
        return {Path(name).stem: np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names}


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    result: Any = spearmanr(first, second)
    return float(result.statistic)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


# --- the planted similarity


def test_the_table_is_the_overlap_of_the_class_points() -> None:
    for row, first in enumerate(CLASSES):
        for column, second in enumerate(CLASSES):
            pairs = zip(sample.CLASS_POINTS[first], sample.CLASS_POINTS[second], strict=True)
            squared_distance = sum((a - b) ** 2 for a, b in pairs)
            assert abs(PLANTED[row, column] - np.exp(-squared_distance / 8)) <= 0.005 + 1e-9, (first, second)


def test_the_table_is_the_overlap_of_two_gaussians_by_numerical_integration() -> None:
    step = 0.01
    grid = np.arange(-12, 12, step)
    for row, column in [(0, 1), (2, 3), (5, 6), (0, 3)]:
        first, second = (sample.CLASS_POINTS[CLASSES[index]] for index in (row, column))
        overlap = 1.0
        for a, b in zip(first, second, strict=True):
            densities = (np.exp(-((grid - mean) ** 2) / 2) / np.sqrt(2 * np.pi) for mean in (a, b))
            overlap *= np.sqrt(np.prod(list(densities), axis=0)).sum() * step
        assert overlap == pytest.approx(PLANTED[row, column], abs=0.006)


@pytest.mark.parametrize("separation", [0.0, 0.5, 1.0, 1.3])
def test_overlap_at_another_separation_is_that_of_points_so_much_further_apart(separation: float) -> None:
    found = sample.planted_similarity(separation)
    for row, first in enumerate(CLASSES):
        for column, second in enumerate(CLASSES):
            distance = separation * math.dist(sample.CLASS_POINTS[first], sample.CLASS_POINTS[second])
            assert found[row, column] == pytest.approx(math.exp(-(distance**2) / 8))
    if separation > 0:
        assert rank_correlation(found[OFF_DIAGONAL], PLANTED[OFF_DIAGONAL]) == pytest.approx(1, abs=0.01)


def test_the_table_is_symmetric_with_clear_pairs_clear_strangers_and_no_ties() -> None:
    assert np.array_equal(PLANTED, PLANTED.T)
    assert np.all(np.diag(PLANTED) == 1)
    assert len(set(PLANTED[PAIRS])) == len(PLANTED[PAIRS])
    assert PLANTED[PAIRS].max() > 0.5
    assert PLANTED[PAIRS].min() < 0.05
    assert np.all(np.where(OFF_DIAGONAL, PLANTED, 0).max(axis=1) > 0.4)


@pytest.mark.parametrize("imbalance", [5, 10, 50])
def test_the_table_does_not_follow_the_counts(imbalance: float) -> None:
    counts = np.array(list(sample.class_counts(1200, imbalance).values()))
    row, column = (axis[OFF_DIAGONAL] for axis in np.meshgrid(counts, counts, indexing="ij"))
    for followed in (row, column, row * column, np.minimum(row, column), np.maximum(row, column)):
        assert abs(rank_correlation(PLANTED[OFF_DIAGONAL], followed)) <= 0.1


# --- class sizes and lesions


@pytest.mark.parametrize(("images", "imbalance"), [(1200, 10), (1200, 5), (1200, 50), (1003, 1), (35, 1), (101, 2.5)])
def test_class_counts_add_up_and_fall_in_order(images: int, imbalance: float) -> None:
    counts = sample.class_counts(images, imbalance)
    assert tuple(counts) == CLASSES
    assert sum(counts.values()) == images
    in_order = [counts[label] for label in sample.SIZE_ORDER]
    assert in_order == sorted(in_order, reverse=True)
    # each count is within one of its exact share
    assert (in_order[0] - 1) / (in_order[-1] + 1) <= imbalance <= (in_order[0] + 1) / (in_order[-1] - 1)


def test_class_counts_by_hand() -> None:
    # weights 64^(-k/6) = 1, 1/2, … 1/64; their sum is 127/64, so 1,270 images are 640, 320, … 10
    expected = {"MEL": 320, "NV": 640, "BCC": 80, "AKIEC": 40, "BKL": 160, "DF": 10, "VASC": 20}
    assert sample.class_counts(1270, 64) == expected
    assert max(sample.class_counts(1200, 1).values()) - min(sample.class_counts(1200, 1).values()) == 1


@pytest.mark.parametrize(
    ("images", "imbalance", "words"), [(34, 1, "fewer than 5"), (1200, 200, "less imb"), (1200, 0.5, "1 or more")]
)
def test_impossible_sizes_are_refused_in_one_line(images: int, imbalance: float, words: str) -> None:
    with pytest.raises(CCLNetError, match=words) as caught:
        sample.class_counts(images, imbalance)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [5, 6, 7, 8, 9, 12, 50])
def test_small_classes_have_three_lesions_at_least(images: int) -> None:
    for seed in range(50):
        sizes = sample.lesion_sizes(np.random.default_rng(seed), images)
        assert sum(sizes) == images
        assert len(sizes) >= 3
        assert set(sizes) <= {1, 2, 3, 4}


def test_lesions_have_as_many_images_as_in_ham10000() -> None:
    sizes = sample.lesion_sizes(np.random.default_rng(0), 20_000)
    assert np.mean(sizes) == pytest.approx(10_015 / 7_470, abs=0.02)
    assert set(sizes) == {1, 2, 3, 4}


# --- the files


def test_same_arguments_same_bytes_another_seed_other_bytes(folder: Path, tmp_path: Path) -> None:
    sample.draw_sample(tmp_path / "again", IMAGES, IMBALANCE, 1, seed=1)
    sample.draw_sample(tmp_path / "other", IMAGES, IMBALANCE, 1, seed=2)
    first, again, other = hashes(folder), hashes(tmp_path / "again"), hashes(tmp_path / "other")
    assert set(first) == {INPUT_ZIP, GROUND_TRUTH_ZIP, LESION_TABLE}
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_same_bytes_without_vector_instructions_and_with_another_hash_seed(folder: Path, tmp_path: Path) -> None:
    command = (
        "import sys; from pathlib import Path; from cclnet.dataset.sample import draw_sample;"
        f"draw_sample(Path(sys.argv[1]), {IMAGES}, {IMBALANCE}, 1, 1)"
    )
    slow = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX2 FMA3 AVX512F AVX512_SKX", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", command, str(tmp_path)], check=True, env=os.environ | slow)
    assert hashes(tmp_path) == hashes(folder)


def test_importing_the_sample_leaves_torch_alone() -> None:
    command = "import sys, cclnet.sample; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True)


def test_every_image_is_a_readable_jpeg_of_one_size(folder: Path) -> None:
    with zipfile.ZipFile(folder / INPUT_ZIP) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == IMAGES
        for member in archive.infolist():
            assert Path(member.filename).parent.name == Path(INPUT_ZIP).stem
            assert member.compress_type == zipfile.ZIP_STORED
            assert member.date_time == DATE
            with Image.open(io.BytesIO(archive.read(member))) as image:
                image.load()
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (128, 96))


def test_the_labels_are_one_hot_in_the_official_layout(folder: Path) -> None:
    with zipfile.ZipFile(folder / GROUND_TRUTH_ZIP) as archive:
        stem = Path(GROUND_TRUTH_ZIP).stem
        assert archive.namelist() == [f"{stem}/{stem}.csv"]
    header, *rows = read_labels(folder)
    assert header == ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names) == IMAGES
    assert set(names) == set(read_images(folder))
    assert all(len(name) == len("ISIC_0024306") and name.startswith("ISIC_00") for name in names)
    assert all(sorted(row[1:]) == ["0.0"] * 6 + ["1.0"] for row in rows)
    counts = Counter(header[row.index("1.0")] for row in rows)
    assert counts == sample.class_counts(IMAGES, IMBALANCE)


def test_the_lesion_table_is_in_the_official_layout(folder: Path) -> None:
    text = (folder / LESION_TABLE).read_bytes().decode()
    assert text.count("\r\n") == text.count("\n") == IMAGES + 1
    header, *rows = read_lesions(folder)
    assert header == ["image", "lesion_id", "diagnosis_confirm_type"]
    labels = {row[0]: row.index("1.0") for row in read_labels(folder)[1:]}
    assert [row[0] for row in rows] == list(labels)
    diagnoses: dict[str, set[tuple[int, str]]] = {}
    for image, lesion, confirmation in rows:
        diagnoses.setdefault(lesion, set()).add((labels[image], confirmation))
    assert all(len(found) == 1 for found in diagnoses.values())
    assert set(Counter(lesion for _, lesion, _ in rows).values()) <= {1, 2, 3, 4}
    lesions_of_a_class = Counter(label for found in diagnoses.values() for label, _ in found)
    assert min(lesions_of_a_class[label] for label in range(1, 8)) >= 3


def test_the_numbers_of_the_images_do_not_tell_their_classes(folder: Path) -> None:
    labels = [row.index("1.0") for row in read_labels(folder)[1:]]
    assert sum(a == b for a, b in pairwise(labels)) < IMAGES / 2


def test_progress_is_reported_to_the_end(tmp_path: Path) -> None:
    reported: list[int] = []

    def report(name: str, done: int, total: int, detail: str = "") -> None:
        assert (name, total, detail) == ("drawing the sample", 35, "")
        reported.append(done)

    sample.draw_sample(tmp_path, 35, 1, 1, 0, report)
    assert reported == sorted(reported)
    assert reported[-1] == 35


# --- what the pictures show


def lesion_with(attribute: str, value: float) -> np.ndarray:
    values = [value if name == attribute else 0.0 for name in sample.ATTRIBUTES]
    return np.asarray(sample.draw_lesion(np.random.default_rng(5), values), dtype=float) / 255


def inside(lesion: np.ndarray) -> np.ndarray:
    return lesion[..., 3] > 0.5


def unevenness_of_the_outline(lesion: np.ndarray) -> float:
    area = inside(lesion)
    edge = area & ~ndimage.binary_erosion(area)
    y, x = np.nonzero(edge)
    distance = np.hypot(y - 63.5, x - 63.5)
    return float(distance.std() / distance.mean())


VISIBLE: dict[str, Any] = {
    "pigment": lambda lesion: -lesion[inside(lesion)][:, :3].mean(),
    "size": lambda lesion: inside(lesion).sum(),
    "irregularity": unevenness_of_the_outline,
    "globules": lambda lesion: (lesion[..., 1] - ndimage.gaussian_filter(lesion[..., 1], 5))[inside(lesion)].std(),
    "veil": lambda lesion: lesion[54:74, 54:74, 2].mean(),
}


@pytest.mark.parametrize("attribute", sample.ATTRIBUTES)
def test_every_attribute_shows_more_and_more(attribute: str) -> None:
    seen = [float(VISIBLE[attribute](lesion_with(attribute, value))) for value in (-3, -1, 1, 3)]
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen)


def test_an_outline_has_radius_one_and_the_irregularity_asked_for() -> None:
    angle = (np.arange(720) * np.pi / 360).astype(np.float32)
    for seed in range(5):
        radius = sample.outline(np.random.default_rng(seed), np.cos(angle), np.sin(angle), 0.15)
        assert radius.mean() == pytest.approx(1, abs=1e-4)
        assert radius.std() == pytest.approx(0.15, rel=1e-3)


def test_an_outline_is_the_fourier_series_of_its_weights() -> None:
    angle = np.linspace(0, 2 * np.pi, 50)
    weights = np.random.default_rng(3).standard_normal((5, 2)) / np.array([[1.0], [1.5], [2.0], [2.5], [3.0]])
    weights *= 0.1 / np.sqrt((weights**2).sum() / 2)
    cosine, sine = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    slow = [1 + sum(w[0] * np.cos(k * a) + w[1] * np.sin(k * a) for k, w in enumerate(weights, 2)) for a in angle]
    radius = sample.outline(np.random.default_rng(3), cosine, sine, 0.1)
    np.testing.assert_allclose(radius, slow, atol=1e-5)


def test_views_of_a_lesion_are_nearer_to_each_other_than_to_another_lesion() -> None:
    random = np.random.default_rng(0)
    within, between = [], []
    for _ in range(20):
        first, second = (sample.draw_lesion(random, random.standard_normal(5)) for _ in range(2))
        views = [features(np.asarray(sample.photograph(random, lesion))) for lesion in (first, first, second)]
        within.append(views[0] - views[1])
        between.append(views[0] - views[2])
    assert np.median(np.median(np.square(within), axis=0) / np.median(np.square(between), axis=0)) < 0.5


def features(image: np.ndarray) -> np.ndarray:
    """What an eye would note of a picture: size, outline, colours of core and rim against the skin, dark spots."""
    y, x = np.mgrid[0:96, 0:128]
    window = np.hypot(y - 47.5, x - 63.5) < 50
    relative = image / np.median(image[window & (np.hypot(y - 47.5, x - 63.5) > 42)], axis=0)
    contrast = ndimage.gaussian_filter(np.abs(relative - 1).sum(axis=2) + np.ptp(relative, axis=2), 1.5)
    parts: Any = ndimage.label(ndimage.binary_opening(window & (contrast > 0.35), iterations=2))
    if parts[1] == 0:
        return np.zeros(14)
    lesion: Any = ndimage.binary_fill_holes(parts[0] == np.argmax(np.bincount(parts[0].ravel())[1:]) + 1)
    depth: Any = ndimage.distance_transform_edt(lesion)
    edge = (depth > 0) & (depth < 1.5)
    centre_y, centre_x = ndimage.center_of_mass(lesion)
    distance = np.hypot(y - centre_y, x - centre_x)[edge]
    core, rim = depth > 0.6 * depth.max(), (depth > 1) & (depth < 0.4 * depth.max())
    spots = np.array([ndimage.gaussian_laplace(relative[..., 1], width)[depth > 2] for width in (1.5, 2.5)])
    size = np.sqrt(lesion.sum())
    outline = [size, edge.sum() / size, distance.std() / distance.mean(), depth.max() / size]
    colours = [*relative[core].mean(axis=0), *relative[rim].mean(axis=0)]
    return np.array([*outline, *colours, *spots.std(axis=1), *(spots > 0.02).mean(axis=1)])


def test_the_pictures_show_the_planted_similarity(tmp_path: Path) -> None:
    sample.draw_sample(tmp_path, 840, 1, 1, seed=0)
    labels = {row[0]: row.index("1.0") - 1 for row in read_labels(tmp_path)[1:]}
    lesions = [row[1] for row in read_lesions(tmp_path)[1:]]
    seen = np.array([features(image) for image in read_images(tmp_path).values()])
    truth = np.array(list(labels.values()))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    predicted = cross_val_predict(LinearDiscriminantAnalysis(), seen, truth, groups=lesions, cv=folds)
    confusion = confusion_matrix(truth, predicted, normalize="true")
    assert 0.5 < np.mean(predicted == truth) < 0.9
    assert rank_correlation((confusion + confusion.T)[PAIRS], PLANTED[PAIRS]) > 0.8


def test_separation_moves_the_lesions_of_a_class_by_its_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: dict[float, list[np.ndarray]] = {}
    draw = sample.draw_lesion

    def spy(random: np.random.Generator, values: np.ndarray) -> Image.Image:
        drawn[separation].append(np.array(values))
        return draw(np.random.default_rng(0), values)

    monkeypatch.setattr(sample, "draw_lesion", spy)
    monkeypatch.setattr(sample, "photograph", lambda random, lesion: np.zeros((4, 4, 3)))
    monkeypatch.setattr(sample, "encode", lambda pixels: b"")
    for separation in (0.0, 1.0, 2.0):
        drawn[separation] = []
        sample.draw_sample(tmp_path / str(separation), 70, 1, separation, seed=3)
    shifts = np.array(drawn[1.0]) - np.array(drawn[0.0])
    np.testing.assert_allclose(np.array(drawn[2.0]) - np.array(drawn[0.0]), 2 * shifts)
    rows = np.unique(shifts.round(9), axis=0)
    assert sorted(map(tuple, rows)) == sorted(sample.CLASS_POINTS.values())


def test_images_of_one_s_own_under_the_name_of_the_sample_were_not_drawn(tmp_path: Path):
    record = tmp_path / "provenance.json"
    for sources, expected in ((["drawn", "drawn"], True), (["drawn", "images"], False), (["/images"], False)):
        write_json(record, [{"name": "a.zip", "source": source} for source in sources])
        assert sample.was_drawn(record) == expected
    for spoilt in ([{"name": "a.zip"}], {"source": "drawn"}, 3):
        write_json(record, spoilt)
        with pytest.raises(DataError, match=r"provenance.json is not what the download stage wrote: run it again$"):
            sample.was_drawn(record)
