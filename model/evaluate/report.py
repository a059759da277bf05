"""The Markdown report: the tables a person reads, drawn from the measurements."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.evaluate.expectations import Verdict
from model.evaluate.measurement import Book
from model.evaluate.radii import OURS, PUBLISHED
from model.evaluate.results import Results
from model.evaluate.tables import Column, budget_columns, by_metric, cases, compared, divided, table

_PUBLISHED = "published formula (unsound where the embedding norm is below 1)"
_INPUT = "l2 over the network's input in [0, 1]"


def write_report(results: Results, verdicts: Sequence[Verdict], plots: Sequence[str]) -> str:
    """The report of a run as Markdown.

    Args:
        results: of the run; the first metric is the one it is about.
        verdicts: of the expectations, if any.
        plots: names of picture files beside the report.
    """
    book = Book(results.measurements)
    names = [str(metric["name"]) for metric in results.metrics]
    parts = [f"# Evaluation of {names[0]}", _origin(results), summary(results)]
    for task, section in _SECTIONS.items():
        if book.values("task", task=task):
            parts += section(book, names)
    if plots:
        parts += ["## Plots", *(f"![{name}]({name})" for name in plots)]
    if verdicts:
        parts += ["## Expectations", *_verdict_table(verdicts)]
    return "\n\n".join(parts) + "\n"


def summary(results: Results) -> str:
    """The table of main figures, which stands first in the report, and of how many cases it is."""
    book = Book(results.measurements)
    names, columns = [str(metric["name"]) for metric in results.metrics], _main_columns(book)
    counts = [f"{count} ({', '.join(titles)})" for count, titles in cases(book, names, columns)]
    return f"{by_metric(book, names, columns)}\n\nPercent of so many cases: {'; '.join(counts)}."


def _main_columns(book: Book) -> list[Column]:
    """One column for each main figure that was measured."""
    recall = {"task": "retrieval", "figure": "recall", "k": 1}
    labels = {"task": "knn", "figure": "label_accuracy", "k": 1}
    score = {"task": "2afc", "figure": "score"}
    copied = {"task": "copies", "figure": "copy_recall", "rate": 0.01}
    proved = {"unit": "input", "formula": OURS}
    certified = {**recall, "figure": "certified_recall", **proved}
    columns: list[Column] = [
        ("recall@1", recall),
        ("certified at 0.5", {**certified, "epsilon": 0.5}),
        ("certified at 1", {**certified, "epsilon": 1.0}),
        ("copies by margin, 1 % FP", {**copied, "statistic": "margin"}),
        ("copies by cosine, 1 % FP", {**copied, "statistic": "cosine"}),
        *(
            (f"1-NN {group}".strip(), {**labels, "by": by, "group": group})
            for by in book.values("by", **labels)
            for group in book.values("group", **labels, by=by)
        ),
        ("kNN, k = 20", {"task": "knn", "figure": "voted_accuracy", "k": 20}),
        ("2AFC", score),
        (
            "2AFC certified at 0.5",
            {"task": "2afc", "figure": "certified_score", "epsilon": 0.5, **proved},
        ),
    ]
    return [(title, fields) for title, fields in columns if book.values("value", **fields)]


def _origin(results: Results) -> str:
    lines = [f"- command: `{results.command}`", f"- seed: {results.seed}"]
    lines += [
        f"- {what}: {one.files} files of `{one.name}`; sha256 of their sorted hashes `{one.sha256}`"
        for what, one in results.data.items()
    ]
    for metric in results.metrics:
        lines.append(f"- {metric['name']}: {_about(metric)}")
    lines.append(
        "- shares are in percent; a share p of n cases has a standard error of sqrt(p (1 - p) / n)"
    )
    return "\n".join(lines)


def _about(metric: Mapping[str, Any]) -> str:
    facts = [f"{metric['dim']} numbers"]
    if metric["input_size"]:
        facts.append(f"input {metric['input_size']} x {metric['input_size']}")
    if metric["lipschitz_bound"] is None:
        facts.append("nothing is proved of it")
    else:
        facts.append(f"Lipschitz bound {metric['lipschitz_bound']:.9f}")
    if metric["fingerprint"]:
        facts.append(f"fingerprint `{metric['fingerprint']}`")
    return ", ".join(facts)


def _retrieval(book: Book, names: Sequence[str]) -> list[str]:
    fields = {"task": "retrieval"}
    natural = [
        (f"recall@{k}", {**fields, "figure": "recall", "k": k})
        for k in book.values("k", **fields, figure="recall", by="all")
    ]
    certified = {**fields, "figure": "certified_recall", "k": 1}
    parts = ["## Retrieval of originals by edited copies", _cases(book, names, natural[0][1])]
    parts.append("Certified recall@1 by budget, " + _INPUT + ":")
    parts.append(by_metric(book, names, natural + budget_columns(book, certified, "input", OURS)))
    parts += _other_claims(book, names, certified, "recall@1")
    for by in ("edit", "source", "kind"):
        parts += compared(book, names, natural[0], by)
        parts += divided(book, names, natural[0], certified, by)
    return parts


def _copies(book: Book, names: Sequence[str]) -> list[str]:
    fields = {"task": "copies", "figure": "copy_recall"}
    columns = [
        (f"{statistic}, {100 * rate:g} % FP", {**fields, "statistic": statistic, "rate": rate})
        for rate in book.values("rate", **fields)
        for statistic in book.values("statistic", **fields)
    ]
    negatives = book.find(**{**columns[0][1], "figure": "false_positive_rate", "metric": names[0]})
    count = negatives.count if negatives else 0
    parts = [
        "## Copy detection with absent originals",
        "Each seventh of the originals is taken out in turn. Recall of copies whose original is"
        " there, where the threshold lets at most the given share of"
        f" {count} copies of absent originals pass (false positives, FP):",
        by_metric(book, names, columns),
    ]
    first = columns[0]
    parts += compared(book, names, first, "edit")
    return parts


def _labels(book: Book, names: Sequence[str]) -> list[str]:
    parts = ["## Labels of nearest neighbours"]
    fields = {"task": "knn", "figure": "label_accuracy", "k": 1}
    if book.values("group", **fields):
        parts.append("Leave-one-out 1-NN accuracy, classes with at least 6 members:")
        by = "source" if book.values("group", **fields, by="source") else "all"
        parts += compared(book, names, ("", fields), by, titled=False)
        certified = {**fields, "figure": "certified_label_accuracy"}
        parts += divided(book, names, ("accuracy", fields), certified, by)
    voted = {"task": "knn", "figure": "voted_accuracy"}
    columns = [
        (f"k = {k}{suffix}", {**voted, "figure": "voted_accuracy" + tail, "k": k})
        for k in book.values("k", **voted)
        for suffix, tail in ((", top 1", ""), (", top 5", "_top5"))
    ]
    if columns:
        parts += ["Weighted kNN (temperature 0.07):", by_metric(book, names, columns)]
    return parts


def _triplets(book: Book, names: Sequence[str]) -> list[str]:
    score = {"task": "2afc", "figure": "score"}
    certified = {"task": "2afc", "figure": "certified_score"}
    columns = [("score", score), *budget_columns(book, certified, "input", OURS)]
    parts = ["## 2AFC", _cases(book, names, score)]
    parts.append("Score, and certified score by budget, " + _INPUT + "; a tie is not certified:")
    parts.append(by_metric(book, names, columns))
    parts += _other_claims(book, names, certified, "score")
    parts += _small_norms(book, names)
    for by in book.values("by", **score):
        if by != "all":
            parts += compared(book, names, ("score", score), by)
            parts += divided(book, names, ("score", score), certified, by)
    return parts


_SECTIONS = {"retrieval": _retrieval, "copies": _copies, "knn": _labels, "2afc": _triplets}


def _cases(book: Book, names: Sequence[str], fields: Mapping[str, Any]) -> str:
    found = book.find(**fields, metric=names[0])
    return f"{found.count if found else 0} cases."


def _other_claims(
    book: Book, names: Sequence[str], certified: Mapping[str, Any], what: str
) -> list[str]:
    """The tables of certified shares in uploaded pixels, and by the published formula."""
    parts: list[str] = []
    proved = [name for name in names if book.values("value", **certified, metric=name)]
    if columns := budget_columns(book, certified, "upload", OURS):
        parts.append(f"Certified {what} by budget, l2 over the uploaded picture in [0, 1]:")
        parts.append(by_metric(book, proved, columns))
    if columns := budget_columns(book, certified, "input", PUBLISHED):
        parts.append(f"Certified {what} as the {_PUBLISHED} has it:")
        parts.append(by_metric(book, proved, columns))
    return parts


def _small_norms(book: Book, names: Sequence[str]) -> list[str]:
    """Of how many references the published formula is unsound, and of how many only loose."""
    lines: list[str] = []
    for name in names:
        found = book.find(task="2afc", figure="norm_below_1", metric=name)
        if found is not None:
            small = round(found.value * found.count)
            lines.append(
                f"- {name}: the published formula is unsound on {small} triplets, whose reference"
                f" has an embedding norm below 1, and loose on the other {found.count - small}"
            )
    return ["\n".join(lines)] if lines else []


def _verdict_table(verdicts: Iterable[Verdict]) -> list[str]:
    rows = [
        [one.name, one.wanted, "-" if one.measured is None else f"{one.measured:.4f}",
         "met" if one.is_met else "**failed**"]
        for one in verdicts
    ]  # fmt: skip
    return [table(["line", "wanted", "measured", ""], rows)]
