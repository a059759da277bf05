"""What the commands tell of an index and of what was done to it, for people and for machines."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from index_builder.build.build import BuildReport
from index_builder.calibration.measure import CalibrationReport
from index_builder.errors import GalleryIndexError
from index_builder.store import layout
from index_builder.store.manifest import (
    QUARANTINE,
    Manifest,
    Quarantined,
    read_manifest,
    read_quarantine,
)
from index_builder.store.operating_points import (
    calibration_fields,
    describe,
    points_fields,
    share,
)
from model.cli.console import Output, counted, visible

_SHOWN = 20


def as_lines(lines: Iterable[str]) -> str:
    """Lines for a person, each of them one line whatever the names in it hold."""
    return "\n".join(map(visible, lines))


def show_report(output: Output, index: str, report: BuildReport) -> None:
    manifest = report.manifest
    kept = "" if report.changed else " unchanged"
    done = _in_words(report.counts) or "no files"
    lines = [f"{index} {summary(manifest)}{kept} in {report.seconds:.1f} s: {done}"]
    lines += _quarantine_lines(report.quarantined[:_SHOWN])
    if len(report.quarantined) > _SHOWN:
        lines.append(f"  and {len(report.quarantined) - _SHOWN} more: see `info`")
    if report.skipped:
        more = report.counts["skipped"] - len(report.skipped)
        told = ", ".join(report.skipped) + (f" and {more} more" if more else "")
        lines.append(f"  skipped {told}: no pictures, as their names say")
    if report.dropped:
        lines.append(
            f"  dropped the operating points {', '.join(report.dropped)}: they were measured with "
            "another model, or need more entries; run `calibrate` again, or `rollback`"
        )
    elif is_stale(manifest):
        lines.append(
            f"  the operating points {', '.join(manifest.operating_points)} are stale: their rates "
            "are those of the gallery they were measured on; run `calibrate` again"
        )
    fields = {
        "index": index,
        **counts_of(manifest),
        "counts": report.counts,
        "changed": report.changed,
        "seconds": report.seconds,
        "operating_points_dropped": report.dropped,
        "skipped": report.skipped,
        "quarantined": [asdict(entry) for entry in report.quarantined],
    }
    output.show(fields, as_lines(lines))


def show_indexes(output: Output, data_dir: Path, only: str | None) -> None:
    """The indexes and their versions; of several, one that cannot be read is only named."""
    names = layout.list_indexes(data_dir) if only is None else [only]
    found: list[dict[str, Any]] = []
    lines: list[str] = []
    for name in names:
        paths = layout.index_paths(data_dir, name)
        try:
            served, versions = layout.read_current(paths).version, layout.list_versions(paths)
        except GalleryIndexError as error:
            if only is not None:
                raise
            found.append({"index": name, "served": None, "versions": [], "error": str(error)})
            lines.append(f"{name}: {error}")
            continue
        found.append({"index": name, "served": served, "versions": versions})
        told = [f"{one} (served)" if one == served else one for one in versions]
        lines.append(f"{name}: {', '.join(told)}")
    output.show({"indexes": found}, as_lines(lines or [f"no indexes in {data_dir.absolute()}"]))


def show_version(output: Output, paths: layout.IndexPaths, version: str) -> None:
    """A version, its operating points, and what could not become an item."""
    index, directory = paths.root.name, layout.existing_version(paths, version)
    manifest = read_manifest(directory)
    quarantined = read_quarantine(directory / QUARANTINE)
    fields = asdict(manifest)
    del fields["calibration"], fields["counts"], fields["files"]
    lines = [f"{index} {summary(manifest)}", f"  path: {directory.absolute()}"]
    fields["views"] = ", ".join(manifest.view_names)
    lines += [f"  {name}: {value}" for name, value in fields.items()]
    lines.append(f"  counts: {_in_words(manifest.counts) or 'none'}")
    lines += [
        f"  {name}: {one.bytes} bytes, sha256 {one.sha256}" for name, one in manifest.files.items()
    ]
    shown = asdict(manifest)
    if manifest.calibration is not None:
        shown["calibration"] = calibration_fields(manifest.calibration)
        lines += [f"  {line}" for line in describe(manifest.calibration)]
    lines += _quarantine_lines(quarantined)
    output.show(
        {
            "index": index,
            "path": str(directory.absolute()),
            "versions": layout.list_versions(paths),
            "manifest": shown,
            "quarantined": [asdict(entry) for entry in quarantined],
        },
        as_lines(lines),
    )


def show_calibration(output: Output, index: str, report: CalibrationReport) -> None:
    lines = [f"{index} {summary(report.manifest)} in {report.seconds:.1f} s"]
    lines += [f"  {line}" for line in describe(report.calibration)]
    lines.append(f"  asked about {report.found}")
    lines += [f"  {line}" for line in _weights_in_words(report)]
    own = report.self_matches
    lines += [
        f"  {name}: {count} of {own.pictures} gallery pictures would not match themselves at this "
        "threshold"
        for name, count in own.unmatched.items()
    ]
    lines.append("  wrong entries of the largest statistics (a near-duplicate would show here):")
    lines += [f"    {one.statistic:.6f} {one.query} -> {one.id}" for one in report.alarms]
    fields = {
        "index": index,
        **counts_of(report.manifest),
        "calibration": calibration_fields(report.calibration),
        "found": report.found,
        "cosine_weights": [
            {
                **asdict(one),
                "operating_points": points_fields(one.operating_points),
                "is_chosen": one.cosine_weight == report.calibration.cosine_weight,
            }
            for one in report.cosine_weights
        ],
        "alarms": [asdict(alarm) for alarm in report.alarms],
        "self_matches": asdict(own),
        "seconds": report.seconds,
    }
    output.show(fields, as_lines(lines))


def _weights_in_words(report: CalibrationReport) -> list[str]:
    """What each weight of the cosine would have given; nothing where none was to be chosen."""
    if len(report.cosine_weights) < 2:
        return []
    chosen = report.calibration.cosine_weight
    lines = [
        f"weight of the cosine: {chosen:g}, of the best recall where thresholds are chosen; there,"
        " and held out:"
    ]
    for one in report.cosine_weights:
        told = [
            f"{point.name} {share(point.total.recall)}, false positives"
            f" {share(point.total.false_positive_rate)}"
            for point in one.operating_points
        ]
        mark = " (chosen)" if one.cosine_weight == chosen else ""
        held_out = "; ".join(told) or "no operating point"
        lines.append(f"  {one.cosine_weight:g}: {share(one.recall)}; {held_out}{mark}")
    return lines


def summary(manifest: Manifest) -> str:
    entries = counted(manifest.entries, "entry", "entries")
    told = f"{manifest.version} ({entries}, {counted(manifest.ids, 'id')}"
    if len(manifest.view_names) > 1:
        told += f", {counted(manifest.vector_count, 'vector')}"
    if manifest.operating_points:
        stale = "stale " if is_stale(manifest) else ""
        told += f", {stale}operating points {', '.join(manifest.operating_points)}"
    return f"{told})"


def counts_of(manifest: Manifest) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "entries": manifest.entries,
        "vectors": manifest.vector_count,
        "ids": manifest.ids,
        "counts": manifest.counts,
        "operating_points": manifest.operating_points,
        "operating_points_stale": is_stale(manifest),
    }


def is_stale(manifest: Manifest) -> bool:
    """Whether it has operating points that were measured on another gallery."""
    return manifest.calibration is not None and manifest.calibration.stale


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _quarantine_lines(quarantined: Iterable[Quarantined]) -> list[str]:
    return [f"  quarantined {one.path}: {one.code}: {one.reason}" for one in quarantined]
