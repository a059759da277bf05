"""The Markdown report: the tables a person reads, pivoted from the rows."""

import math
from collections.abc import Iterable, Sequence

from model.cli.tables import markdown_table
from model.evaluate.radii import NORMALISED, PROVED, UPLOAD, stated_over
from model.evaluate.rows import Row, chosen, values

Columns = list[tuple[str, list[Row]]]
"""A title, and the rows whose values stand below it."""

_NORMALISED = "paper's formula (unsound where an embedding's norm is below 1, too small above)"


def markdown(record: Row, rows: Sequence[Row], plots: Iterable[str]) -> str:
    """The report of an evaluation.

    The first metric of the record is the one the report is about; plots are names of files beside
    it.
    """
    names = [metric["name"] for metric in record["metrics"]]
    parts = [f"# Evaluation of {names[0]}", _origin(record), summary(record, rows)]
    for task, section in _SECTIONS.items():
        if of_task := chosen(rows, task=task):
            parts += section(of_task, names, f"l2 over {stated_over(record['side'])} in [0, 1]")
    if plots := list(plots):
        parts += ["## Plots", *(f"![{name}]({name})" for name in plots)]
    if checked := record.get("expectations"):
        parts += ["## Expectations", _expectations(checked)]
    return "\n\n".join(parts) + "\n"


def summary(record: Row, rows: Sequence[Row]) -> str:
    """The table of main figures, which stands first in the report, and of how many cases it is."""
    names = [metric["name"] for metric in record["metrics"]]
    columns = _main_columns(chosen(rows, by="all"), rows)
    titles: dict[int, list[str]] = {}
    for title, found in columns:
        titles.setdefault(found[0]["count"], []).append(title)
    cases = "; ".join(f"{count} ({', '.join(of)})" for count, of in titles.items())
    said = f"Percent of so many cases: {cases}."
    if any(found[0].get("epsilon") for _, found in columns):
        said += f" Certified at so much of l2 over {stated_over(record['side'])}."
    return f"{pivot('metric', names, columns)}\n\n{said}"


def pivot(field: str, keys: Sequence[str | None], columns: Columns, title: str = "") -> str:
    """A table with a row for each value of a field, in percent.

    `field` tells the rows of a column apart, and `keys` are its values. A title in place of the
    field's name brings a column of counts with it.
    """
    cells = [{row.get(field): row for row in rows} for _, rows in columns]
    lines: list[list[str]] = []
    for key in keys:
        found = [column.get(key) for column in cells]
        count = next((row["count"] for row in found if row is not None), 0)
        lines.append([key or "all", *([str(count)] if title else []), *map(_percent, found)])
    head = [title, "cases"] if title else [field]
    return markdown_table([*head, *(name for name, _ in columns)], lines)


def _main_columns(whole: Sequence[Row], rows: Sequence[Row]) -> Columns:
    """A column for each main figure that was measured."""
    certified = chosen(whole, task="retrieval", figure="certified_recall", k=1, **PROVED)
    copied = chosen(whole, task="copies", figure="copy_recall", rate=0.01)
    labels = chosen(rows, task="knn", figure="label_accuracy")
    proved = chosen(whole, task="2afc", figure="certified_score", **PROVED)
    columns: Columns = [
        ("recall@1", chosen(whole, task="retrieval", figure="recall", k=1)),
        *((f"certified at {at:g}", chosen(certified, epsilon=at)) for at in (0.5, 1.0, 2.0, 3.0)),
        ("copies by margin, 1 % FP", chosen(copied, statistic="margin")),
        ("copies by cosine, 1 % FP", chosen(copied, statistic="cosine")),
        ("copies by calibrated sum, 1 % FP", chosen(copied, statistic="calibrated")),
        *(
            (f"1-NN {group or ''}".strip(), chosen(labels, group=group))
            for group in values(labels, "group")
        ),
        ("kNN, k = 20", chosen(whole, task="knn", figure="voted_accuracy", k=20)),
        ("2AFC", chosen(whole, task="2afc", figure="score")),
        ("2AFC certified at 0.5", chosen(proved, epsilon=0.5)),
    ]
    return [(title, found) for title, found in columns if found]


def _origin(record: Row) -> str:
    lines = [
        f"- command: `{record['command']}`",
        f"- seed: {record['seed']}; copies of each picture: {record['copies']}; views in the"
        f" gallery: `{record['views']}`",
    ]
    if side := record["side"]:
        lines.append(f"- radii over a network's input are stated as over {side} x {side} pixels")
    lines += [
        f"- {what}: {one['files']} files of `{one['name']}`;"
        f" sha256 of their sorted hashes `{one['sha256']}`"
        for what, one in record["data"].items()
    ]
    lines += [f"- {metric['name']}: {_about(metric)}" for metric in record["metrics"]]
    lines.append("- shares are in percent, ± a standard error by bootstrap over pictures")
    return "\n".join(lines)


def _about(metric: Row) -> str:
    facts = [f"{metric['dim']} numbers"]
    if metric["input_size"]:
        facts.append(f"input {metric['input_size']} x {metric['input_size']}")
    if metric["lipschitz_bound"] is None:
        facts.append("nothing is proved of it")
    else:
        facts.append(f"Lipschitz bound {metric['lipschitz_bound']:.9f}, {metric['radii']} radii")
    if metric["fingerprint"]:
        facts.append(f"fingerprint `{metric['fingerprint']}`")
    return ", ".join(facts)


def _retrieval(rows: Sequence[Row], names: Sequence[str], lengths: str) -> list[str]:
    natural, certified = chosen(rows, figure="recall"), chosen(rows, figure="certified_recall", k=1)
    columns = [(f"recall@{k}", chosen(natural, by="all", k=k)) for k in values(natural, "k")]
    said = f"Certified recall@1 by budget, {lengths}:"
    return [
        "## Retrieval of originals by edited copies",
        *_proved(names, said, columns, chosen(natural, k=1), certified, lengths=lengths),
    ]


def _copies(rows: Sequence[Row], names: Sequence[str], lengths: str) -> list[str]:
    recall = chosen(rows, figure="copy_recall")
    columns = [
        (f"{statistic}, {100 * rate:g} % FP", chosen(recall, statistic=statistic, rate=rate))
        for rate in values(recall, "rate")
        for statistic in values(recall, "statistic")
    ]
    count = chosen(rows, figure="false_positive_rate")[0]["count"]
    too_few = [f"{100 * rate:g} %" for rate in values(recall, "rate") if rate * count < 1.0]
    alone = f" At {' and '.join(too_few)} of so few none may pass." if too_few else ""
    title, first = columns[0]
    return [
        "## Copy detection with absent originals",
        "Each seventh of the originals is taken out in turn. Recall of copies whose original is"
        " there, where the threshold lets at most the given share of"
        f" {count} copies of absent originals pass (false positives, FP).{alone}",
        pivot("metric", names, [(name, chosen(found, by="all")) for name, found in columns]),
        *_weights(rows),
        *_divided(names, title, chosen(first, by="edit"), [], lengths),
    ]


def _weights(rows: Sequence[Row]) -> list[str]:
    """What `calibrated` is, and which weight each metric got."""
    calibrated = chosen(rows, figure="threshold", statistic="calibrated")
    if not calibrated:
        return []
    weights = [
        f"{row['metric']} {row['cosine_weight']:g} at {100 * row['rate']:g} %" for row in calibrated
    ]
    return [
        "*calibrated*: margin + weight x cosine, the weight chosen on half of the pictures and"
        f" measured on the other, {calibrated[0]['count']} copies: {', '.join(weights)}."
    ]


def _labels(rows: Sequence[Row], names: Sequence[str], lengths: str) -> list[str]:
    parts = ["## Labels of nearest neighbours"]
    if accuracy := chosen(rows, figure="label_accuracy"):
        parts.append("Leave-one-out 1-NN accuracy, classes with at least 6 members:")
        certified = chosen(rows, figure="certified_label_accuracy")
        parts += _divided(names, "accuracy", accuracy, certified, lengths)
    voted = [
        (f"k = {k}, top {top}", chosen(rows, figure=figure, k=k))
        for k in values(chosen(rows, figure="voted_accuracy"), "k")
        for top, figure in ((1, "voted_accuracy"), (5, "voted_accuracy_top5"))
    ]
    if voted:
        parts += ["Weighted kNN (temperature 0.07):", pivot("metric", names, voted)]
    return parts


def _triplets(rows: Sequence[Row], names: Sequence[str], lengths: str) -> list[str]:
    natural, certified = chosen(rows, figure="score"), chosen(rows, figure="certified_score")
    columns = [("score", chosen(natural, by="all"))]
    said = f"Score, and certified score by budget, {lengths}; a tie is not certified:"
    parts = ["## 2AFC", *_proved(names, said, columns, natural, certified, lengths=lengths)]
    for row in chosen(rows, figure="norm_below_1"):
        small = round(row["value"] * row["count"])
        parts.append(
            f"- {row['metric']}: the paper's formula is unsound on {small} triplets, whose"
            f" reference has an embedding norm below 1, and loose on the other"
            f" {row['count'] - small}"
        )
    return parts


_SECTIONS = {"retrieval": _retrieval, "copies": _copies, "knn": _labels, "2afc": _triplets}


def _budgets(rows: Sequence[Row]) -> Columns:
    """A column for each budget."""
    return [(_budget(at), chosen(rows, epsilon=at)) for at in values(rows, "epsilon")]


def _budget(epsilon: float) -> str:
    levels = epsilon * 255.0
    is_level = math.isclose(levels, round(levels), rel_tol=1e-9) and epsilon < 1.0
    return f"{epsilon:.3f} ({round(levels)}/255)" if is_level else f"{epsilon:g}"


def _proved(
    names: Sequence[str],
    said: str,
    columns: Columns,
    natural: Sequence[Row],
    certified: Sequence[Row],
    *,
    lengths: str,
) -> list[str]:
    """A task's shares beside the certified ones: of all cases, by other claims, by each group.

    The first column is what the certified ones are of.
    """
    what, count = columns[0][0], columns[0][1][0]["count"]
    whole = chosen(certified, by="all")
    budgets = _budgets(chosen(whole, **PROVED))
    parts = [f"{count} cases.", said, pivot("metric", names, columns + budgets)]
    for claim, by_what in (
        (UPLOAD, "by budget, l2 over the uploaded picture in [0, 1]"),
        (NORMALISED, f"as the {_NORMALISED} has it, {lengths}"),
    ):
        if rows := chosen(whole, **claim):
            parts.append(f"Certified {what} {by_what}:")
            parts.append(pivot("metric", values(rows, "metric"), _budgets(rows)))
    for by in values(natural, "by"):
        if by != "all":
            parts += _divided(names, what, chosen(natural, by=by), certified, lengths)
    return parts


def _divided(
    names: Sequence[str],
    what: str,
    natural: Sequence[Row],
    certified: Sequence[Row],
    lengths: str,
) -> list[str]:
    """By group: every metric's natural share, and the first one's beside its certified ones."""
    if not natural:
        return []
    by, groups, first = natural[0]["by"], values(natural, "group"), names[0]
    columns = [(name, chosen(natural, metric=name)) for name in names]
    budgets = _budgets(chosen(certified, by=by, metric=first, **PROVED))
    parts = [f"By {by}, {what}:", pivot("group", groups, columns, by)]
    if budgets:
        of_first = [(what, chosen(natural, metric=first)), *budgets]
        parts += [
            f"By {by}, {first}, {what} and certified, {lengths}:",
            pivot("group", groups, of_first, by),
        ]
    return parts


def _expectations(checked: Iterable[Row]) -> str:
    lines = [
        (
            one["name"],
            one["wanted"],
            "-" if one["measured"] is None else f"{one['measured']:.4f}",
            "met" if one["is_met"] else "**failed**",
        )
        for one in checked
    ]
    return markdown_table(["line", "wanted", "measured", ""], lines)


def _percent(row: Row | None) -> str:
    if row is None:
        return "-"
    error = f" ± {100.0 * row['error']:.1f}" if "error" in row else ""
    return f"{100.0 * row['value']:.1f}{error}"
