"""The page read back as a browser would, against numbers that were come by in another way."""

import base64
import io
import json
import re
from dataclasses import replace
from hashlib import sha256
from itertools import permutations

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import accuracy_score, cohen_kappa_score, log_loss, roc_auc_score

from cclnet import __version__
from cclnet.metrics.scores import evaluate
from cclnet.views.page import Report, report_page
from tests.views.builders import HOSTILE, PROJECT, Page, made_up_report


@pytest.fixture(scope="module")
def report() -> Report:
    return made_up_report()


@pytest.fixture(scope="module")
def source(report: Report) -> str:
    return report_page(report)


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def truth(report: Report) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, probabilities and lesions of the validation images, image by image."""
    rows = {row["image"]: row for row in report.split.to_dict("records")}
    images = report.run.truth.index
    labels = np.array([report.run.classes.index(rows[image]["label"]) for image in images])
    probabilities = report.run.probabilities / report.run.probabilities.sum(axis=1, keepdims=True)
    return labels, probabilities, [rows[image]["lesion"] for image in images]


# numbers


def test_metrics_and_their_intervals_are_those_of_resampled_lesions(report: Report, page: Page):
    labels, probabilities, lesions = truth(report)
    predicted = probabilities.argmax(axis=1)
    names = list(dict.fromkeys(lesions))
    members = [[image for image, lesion in enumerate(lesions) if lesion == name] for name in names]
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(8):
        for draw in rng.integers(len(names), size=(250, len(names))):
            images = [image for lesion in draw for image in members[lesion]]
            hits = labels[images] == predicted[images]
            resampled.append((hits.mean(), -np.log(probabilities[images, labels[images]]).mean()))
    (accuracy_low, nll_low), (accuracy_high, nll_high) = np.quantile(resampled, [0.025, 0.975], axis=0)
    accuracy = accuracy_score(labels, predicted)
    assert page.row("Model of the last", "accuracy")[:2] == [
        f"{accuracy:.3f}",
        f"{accuracy_low:.3f} to {accuracy_high:.3f}",
    ]
    nll = log_loss(labels, probabilities)
    assert page.row("Model of the last", "NLL")[:2] == [f"{nll:.3f}", f"{nll_low:.3f} to {nll_high:.3f}"]
    kappa = cohen_kappa_score(labels, predicted)
    assert page.row("Model of the last", "Cohen's kappa")[0] == f"{kappa:.3f}".replace("-", "−")
    assert page.row("Model of the last", "AUC")[1] == "–"


def test_the_baseline_looks_at_no_image(report: Report, page: Page):
    labels, _, _ = truth(report)
    trained = report.split[report.split["subset"] == "train"]
    shares = np.array([(trained["label"] == name).mean() for name in report.run.classes])
    assert shares.argmax() == 0
    images = (labels == 0).sum()
    number, others = len(labels), len(labels) - images
    expected = {
        "accuracy": images / number,
        "balanced accuracy": 1 / 4,
        "macro F1": 2 * images / (2 * images + others) / 4,
        "Cohen's kappa": 0,
        "macro Jaccard": images / number / 4,
        "AUC": 1 / 2,
        "NLL": -np.log(shares[labels]).mean(),
        "Brier score": ((shares - np.eye(4)[labels]) ** 2).sum(axis=1).mean(),
        "ECE": abs(images / number - shares[0]),
        "classwise ECE": np.abs(np.eye(4)[labels].mean(axis=0) - shares).mean(),
    }
    header, *_ = page.table("Model of the last")
    assert header[-1] == f"always {report.run.classes[0]}"
    for name, value in expected.items():
        assert page.row("Model of the last", name)[-1] == f"{value:.3f}", name


def test_the_baseline_predicts_the_largest_class_of_training_and_not_of_validation():
    report = made_up_report(["A", "B"])
    split = report.split.assign(label=["A"] * 50 + ["B"] * 50)  # 50 images to validate, then 50 to train
    page = Page(report_page(replace(report, split=split)))
    assert page.table("Model of the last")[0][-1] == "always B"
    share = (np.asarray(report.run.truth["label"]) == "B").mean()
    assert page.row("Model of the last", "accuracy")[-1] == f"{share:.3f}"


def test_the_table_has_all_figures_of_merit(page: Page):
    rows = [cells for cells in page.table("Model of the last") if len(cells) == 4]
    assert len(rows) - 1 == len(evaluate([0, 1], np.eye(2)))


def test_images_lesions_and_leakage(report: Report, page: Page):
    lesions = truth(report)[2]
    text = " ".join(page.text.split())
    for words in (
        f"validation images {len(lesions)} their lesions {len(set(lesions))} training images 50 leakage 25.0 %",
        "2,000 resamples of whole lesions",
        "a lesion that is also trained on. It makes every metric look better than it is for new lesions.",
    ):
        assert words.replace(" ", "") in text.replace(" ", "")


def test_an_undefined_metric_says_why():
    page = Page(report_page(made_up_report(["A", "B", "C"], lacking="C")))
    assert page.row("Model of the last", "AUC") == ["–", "–", "–"]
    assert "Without C: a curve needs validation images of the class and of others." in page.text
    assert {line["curve"].split(",")[0] for line in page.charts()[-1]["data"]["values"]} == {"A", "B"}
    assert "undefined: no image of C" in page.text
    assert "without C: no image" in page.text
    assert page.row("Agreement of the off", "the model's own confusions") == ["–", "–"]
    assert "a class has no validation image" in page.text
    assert page.row("Confusion matrix", "C") == ["0", "0", "0"]
    assert page.row("Each class", "C")[1] == "–"


def test_matrices_hold_their_numbers_in_the_order_of_the_data(report: Report, page: Page):
    names = list(report.run.classes)
    soft = np.asarray(report.run.soft_labels)
    title, header, *rows = page.table("Learned soft labels")
    assert title == ["", "probability given to"]
    assert header == ["class", *names]
    assert rows == [[name, *(f"{value:.2f}" for value in row)] for name, row in zip(names, soft, strict=True)]
    labels, probabilities, _ = truth(report)
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    assert [row[1:] for row in page.table("Confusion matrix")[2:]] == counts.astype(str).tolist()


def test_colours_are_scaled_to_the_cells_off_the_diagonal_which_is_grey(report: Report, page: Page):
    labels, probabilities, _ = truth(report)
    rates = np.array([np.eye(4)[probabilities.argmax(axis=1)][labels == k].mean(axis=0) for k in range(4)])
    coloured = [attrs for attrs in page.all("td") if "style" in attrs]
    kinds = ["own" if cell % 5 == 0 else None for cell in range(16)]
    assert [attrs.get("class") for attrs in coloured] == kinds * 2
    expected: list[float] = []
    for shares in (np.asarray(report.run.soft_labels), rates):
        largest = off_diagonal(shares).max()
        expected += [float(share) if kind else share / largest for share, kind in zip(shares.flat, kinds, strict=True)]
        assert f"from 0 to {largest:.2f}, the largest off the diagonal" in page.text
    assert [attrs["style"] for attrs in coloured] == [f"--share: {value:.3f}" for value in expected]


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix[~np.eye(len(matrix), dtype=bool)]


def test_what_the_matrix_follows_has_exact_p(report: Report, page: Page):
    names = list(report.run.classes)
    soft = np.asarray(report.run.soft_labels)
    trained = report.split[report.split["subset"] == "train"]
    images = np.array([(trained["label"] == name).sum() for name in names])
    labels, probabilities, _ = truth(report)
    rates = np.array([np.eye(len(names))[probabilities.argmax(axis=1)][labels == k].mean(axis=0) for k in range(4)])
    others = {
        "class counts": 1 / np.outer(images, images),
        "the model's own": (rates + rates.T) / 2,
        "the similarity planted": np.asarray(report.planted),
    }
    for name, other in others.items():
        found = [
            float(np.asarray(spearmanr(off_diagonal(soft), off_diagonal(other[np.ix_(order, order)])))[0])
            for order in map(list, permutations(range(4)))
        ]
        p = np.mean(np.abs(found) >= abs(found[0]) - 1e-9)
        assert page.row("Agreement of the off", name) == [f"{found[0]:.2f}".replace("-", "−"), f"{p:.4f}"], name
    assert "the share of 24 permutations" in page.text


def test_what_counts_leave_unexplained_and_would_by_chance(report: Report, page: Page):
    soft = np.asarray(report.run.soft_labels)
    trained = report.split[report.split["subset"] == "train"]
    rank = rankdata([(trained["label"] == name).sum() for name in report.run.classes])
    rank -= rank.mean()
    explained = []
    for order in map(list, permutations(range(4))):
        cells = rankdata(off_diagonal(soft[np.ix_(order, order)]))
        row, column = np.meshgrid(rank, rank, indexing="ij")
        design = np.column_stack([np.ones(12), *(off_diagonal(term) for term in (row, column, row * column))])
        residual = cells - design @ np.linalg.lstsq(design, cells, rcond=None)[0]
        explained.append(1 - residual @ residual / ((cells - cells.mean()) ** 2).sum())
    p = np.mean(np.array(explained) >= explained[0] - 1e-9)
    sentence = (
        f"{1 - explained[0]:.2f} of this matrix is not explained by class counts; with unrelated counts it would "
        f"be {1 - np.mean(explained):.2f} (p = {p:.4f})"
    )
    assert sentence in " ".join(page.text.split())


def test_classes_and_bins_are_tabled(report: Report, page: Page):
    labels, probabilities, _ = truth(report)
    for number, name in enumerate(report.run.classes):
        said, true = probabilities.argmax(axis=1) == number, labels == number
        hits = (said & true).sum()
        area = roc_auc_score(true, probabilities[:, number])
        order = np.argsort(-probabilities[:, number], kind="stable")
        tied = [(probabilities[:, number] >= probabilities[image, number]) for image in order[true[order]]]
        precision = np.mean([true[above].mean() for above in tied])
        assert page.row("Each class", name) == [
            str(true.sum()),
            *(f"{value:.3f}" for value in (hits / true.sum(), (~said & ~true).sum() / (~true).sum())),
            *(f"{value:.3f}" for value in (hits / said.sum(), 2 * hits / (said.sum() + true.sum()), area, precision)),
        ]
    confidence = probabilities.max(axis=1)
    for number, images, mean, accuracy in page.table("Confidence and accuracy in 15 bins")[1:]:
        inside = (confidence > (int(number) - 1) / 15) & (confidence <= int(number) / 15)
        right = (labels == probabilities.argmax(axis=1))[inside]
        assert (int(images), mean, accuracy) == (
            inside.sum(),
            f"{confidence[inside].mean():.3f}",
            f"{right.mean():.3f}",
        )


def test_epochs_are_drawn_and_tabled(report: Report, page: Page):
    losses, validation, softness, _, bins, *_ = page.charts()
    assert len(losses["data"]["values"]) == 3 * 6
    assert len(validation["data"]["values"]) == 5 * 6
    assert [point["softness"] for point in softness["data"]["values"]] == list(report.history["softness"])
    assert softness["description"].endswith("dictionary frozen in epoch 5; lowest in epoch 2")
    assert sum(bar["count"] for bar in bins["data"]["values"]) == len(report.run.truth)
    header, *rows = page.table("Training losses")
    assert [row[header.index("p̄")] for row in rows] == [f"{value:.3f}" for value in report.history["softness"]]
    assert "The dictionary is that of epoch 2, frozen in epoch 5." in " ".join(page.text.split())


# images


def test_mistakes_are_the_most_confident_ones_in_order_as_the_network_saw_them(report: Report, page: Page):
    labels, probabilities, _ = truth(report)
    names = list(report.run.classes)
    wrong = [
        (-probabilities[row].max(), row, names[labels[row]], names[probabilities[row].argmax()])
        for row in range(len(labels))
        if probabilities[row].argmax() != labels[row]
    ]
    assert len(wrong) > 12
    wrong = sorted(wrong)[:12]
    assert len({sure for sure, *_ in wrong}) < 12  # there are equals
    pictures = page.all("img")
    images = [report.run.truth.index[row] for _, row, _, _ in wrong]
    assert [picture["alt"] for picture in pictures] == [
        f"{image}: {true}, predicted as {said}" for image, (_, _, true, said) in zip(images, wrong, strict=True)
    ]
    assert re.findall(r"probability ([\d.]+)", page.text) == [f"{-sure:.3f}" for sure, *_ in wrong]
    for image, picture in zip(images, pictures, strict=True):
        data = str(picture["src"]).removeprefix("data:image/png;base64,")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        row = report.cache.images.index(str(image))
        np.testing.assert_array_equal(pixels, report.cache[row][2:34, 8:40])  # 32 of 36 × 48 pixels
    assert "do not publish it" in page.text


def test_large_images_are_made_small():
    values = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))["datasets"]
    values["sample"] |= {"short_side": 260, "crop": 250}
    page = Page(report_page(made_up_report(datasets=values)))
    pictures = [str(picture["src"]).removeprefix("data:image/png;base64,") for picture in page.all("img")]
    assert {Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures} == {(128, 128)}


def test_without_a_mistake_there_is_no_image(report: Report):
    labels, _, _ = truth(report)
    right = replace(report.run, probabilities=np.eye(4)[labels])
    page = Page(report_page(replace(report, run=right)))
    assert page.all("img") == []
    assert "every validation image was recognised" in page.text
    assert "do not publish" not in page.text


# what else


@pytest.mark.parametrize("method", ["baseline", "lsr"])
def test_a_method_without_a_head_has_no_learned_matrix(method: str):
    page = Page(report_page(made_up_report(method=method)))
    assert "There is no learned matrix: this method has no CCL head." in page.text
    assert not [caption for caption in page.tables if caption.startswith(("Learned", "What the matrix"))]
    assert len(page.charts()) == 6
    assert "p̄" not in page.text
    assert {point["curve"] for point in page.charts()[0]["data"]["values"]} == {"classification"}


@pytest.mark.parametrize(("num_classes", "orders"), [(2, "2"), (9, "10,000")])
def test_any_number_of_classes(num_classes: int, orders: str):
    classes = [f"class {number}" for number in range(num_classes)]
    page = Page(report_page(made_up_report(classes)))
    assert [row[0] for row in page.table("Learned soft labels")[2:]] == classes
    assert f"the share of {orders} permutations" in page.text


def test_title_says_what_was_trained_on_what(page: Page):
    text = " ".join(page.text.split())
    assert "CCL-Net on sample resnet18, 16 epochs, 32 pixels, seed 0. For research only, not a medical device." in text
    assert "shuffled." not in text


def test_a_control_is_said_to_be_one():
    page = Page(report_page(made_up_report(training_labels="shuffled")))
    assert "A control: the labels of the training images were shuffled." in page.text


def definitions(source: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", source))


def test_params_and_provenance_are_complete(report: Report, source: str, page: Page):
    shown = definitions(source)
    params = report.params.model_dump()
    assert not any(name.startswith("peers") for name in shown)  # none was the method
    del params["peers"]
    for group in [name for name, value in params.items() if isinstance(value, dict)]:
        params |= {f"{group}.{key}": value for key, value in params.pop(group).items()}
    for name, value in params.items():
        assert shown[name] == (value if isinstance(value, str) else json.dumps(value)), name
    assert (shown["cclnet"], shown["processor"], shown["versions.torch"]) == (__version__, "portable", "2.15.0")
    assert page.table("Files of the dataset")[1] == [f"images.zip{'ab' * 32}", "1,234,567"]


def test_the_drawn_sample_is_no_param_of_another_dataset():
    source = report_page(made_up_report(dataset="isic2018_64"))
    assert not [name for name in definitions(source) if name.startswith("sample")]
    assert "planted" not in Page(source).text


def test_nothing_depends_on_when_where_and_as_whom(report: Report, source: str):
    assert source == report_page(replace(report))
    assert "somebody" not in source
    assert str(PROJECT) not in source


def test_hostile_names_are_text(page: Page):
    libraries = 3
    assert len(page.scripts) == libraries + len(page.charts()) + 1
    assert not [script for script in page.scripts if "alert(1)" in script and "<" in script]
    for name in HOSTILE:
        assert page.row("Each class", name)


def test_page_loads_nothing_and_forbids_to(page: Page):
    loading = {"src", "href", "srcset", "data", "action", "poster"}
    attributes = [value for _, attrs in page.elements for name, value in attrs.items() if name in loading]
    elsewhere = [value for value in map(str, attributes) if not value.startswith("#")]
    assert all(value.startswith("data:image/png;base64,") for value in elsewhere)
    [policy] = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
    assert str(policy).startswith("default-src 'none';")
    assert "http" not in str(policy)
    assert not {"link", "iframe", "base", "object"} & {tag for tag, _ in page.elements}


def test_libraries_and_their_licence_are_those_of_the_plots(page: Page):
    plots = (PROJECT / "cclnet" / "views" / "pages" / "plots.html").read_text(encoding="utf-8")
    assert page.scripts[:3] == re.findall(r"<script data-file=.*?>(.*?)</script>", plots, re.DOTALL)
    [licence] = page.comments
    assert f"<!--{licence}-->" in plots
    assert "Redistributions of source code must retain the above copyright notice" in licence


def test_the_policy_allows_the_page_s_own_scripts_alone(page: Page):
    [policy] = [str(attrs["content"]) for attrs in page.all("meta") if "http-equiv" in attrs]
    scripts = [
        text
        for attrs, text in zip(page.all("script"), page.scripts, strict=True)
        if attrs.get("type") != "application/json"
    ]
    digests = [base64.b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    [allowed] = re.findall(r"script-src (.*?);", policy)
    assert allowed.split() == [f"'sha256-{digest}'" for digest in digests]


def test_every_section_is_in_the_contents(page: Page):
    links = [str(attrs["href"]) for attrs in page.all("a")]
    sections = [f"#{attrs['id']}" for attrs in page.all("section")]
    assert links == sections == list(dict.fromkeys(sections))
    assert len(sections) == len(page.all("h2")) == 8


def test_abbreviations_of_classes_are_explained():
    page = Page(report_page(made_up_report(["MEL", "NV", "other"])))
    assert "MEL: melanoma; NV: melanocytic nevus." in page.text
    assert page.row("Each class", "MELmelanoma")
    assert {(attrs["title"]) for attrs in page.all("abbr")} >= {"melanoma", "melanocytic nevus"}
    curves = {str(line["curve"]).partition(",")[0] for line in page.charts()[-1]["data"]["values"]}
    assert curves == {"melanoma (MEL)", "melanocytic nevus (NV)", "other"}
    assert re.search(r"(melanoma|melanocytic nevus), predicted as ", str(page.all("img")[0]["alt"]))
    assert "melanoma" not in Page(report_page(made_up_report(["cat", "dog"]))).text


def test_many_classes_are_a_picture_and_the_largest_cells():
    classes = [f"class {number}" for number in range(50)]
    report = made_up_report(classes, images=300)
    page = Page(report_page(report))
    picture = next(attrs for attrs in page.all("img") if str(attrs["alt"]).startswith("Learned soft labels"))
    data = str(picture["src"]).removeprefix("data:image/png;base64,")
    opacity = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))[..., 3]
    beside = np.where(np.eye(50, dtype=bool), 0, np.asarray(report.run.soft_labels))
    np.testing.assert_allclose(opacity / 255, beside / beside.max(), atol=0.5 / 255 + 1e-9)
    _, *rows = page.table("Learned soft labels")
    order = np.argsort(-beside, axis=None)[:20]
    assert rows == [[classes[cell // 50], classes[cell % 50], f"{beside.flat[cell]:.2f}"] for cell in order]
    assert not [attrs for attrs in page.all("td") if "style" in attrs]


def test_everything_has_a_name_for_who_cannot_see_it(page: Page):
    assert len(page.tables) == len(page.all("table"))
    assert all(page.tables)
    assert all(attrs.get("scope") in ("col", "row", "colgroup", "rowgroup") for attrs in page.all("th"))
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert all(chart["description"] for chart in page.charts())
    assert [attrs["lang"] for attrs in page.all("html")] == ["en"]
    assert len(page.all("h1")) == 1
