"""What the commands tell of an index and of what was done to it, for people and for machines."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from index_builder.build.build import BuildReport
from index_builder.calibration.measure import CalibrationReport
from index_builder.cli.options import as_lines
from index_builder.store import layout
from index_builder.store.manifest import Manifest
from index_builder.store.operating_points import calibration_fields, describe
from model.cli.console import Output

_SHOWN_QUARANTINED = 20


def show_report(output: Output, index: str, report: BuildReport) -> None:
    """What a build, an addition or a removal did."""
    manifest = report.manifest
    done = ", ".join(f"{count} {what}" for what, count in report.counts.items() if count)
    kept = "" if report.changed else " unchanged"
    lines = [f"{index} {summary(manifest)}{kept} in {report.seconds:.1f} s: {done or 'no files'}"]
    shown = report.quarantined[:_SHOWN_QUARANTINED]
    lines += [f"  quarantined {q.path}: {q.code}: {q.reason}" for q in shown]
    if len(report.quarantined) > len(shown):
        lines.append(f"  and {len(report.quarantined) - len(shown)} more: see `info`")
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
        "quarantined": [asdict(entry) for entry in report.quarantined],
    }
    output.show(fields, as_lines(lines))


def describe_index(data_dir: Path, name: str) -> dict[str, Any]:
    """An index's versions, and which is served."""
    paths = layout.index_paths(data_dir, name)
    served = layout.read_current(paths).version
    return {"index": name, "served": served, "versions": layout.list_versions(paths)}


def described(manifest: Manifest) -> dict[str, Any]:
    """A manifest, its calibration as the commands show it."""
    fields = asdict(manifest)
    if manifest.calibration is not None:
        fields["calibration"] = calibration_fields(manifest.calibration)
    return fields


def summary(manifest: Manifest) -> str:
    """A version in one line."""
    points = ", ".join(manifest.operating_points)
    calibrated = f", {'stale ' if is_stale(manifest) else ''}operating points {points}"
    calibrated = calibrated if points else ""
    return f"{manifest.version} ({manifest.entries} entries, {manifest.ids} ids{calibrated})"


def counts_of(manifest: Manifest) -> dict[str, Any]:
    """A version in numbers, for machines."""
    return {
        "version": manifest.version,
        "entries": manifest.entries,
        "ids": manifest.ids,
        "counts": manifest.counts,
        "operating_points": manifest.operating_points,
        "operating_points_stale": is_stale(manifest),
    }


def is_stale(manifest: Manifest) -> bool:
    """Whether it has operating points that were measured on another gallery."""
    return manifest.calibration is not None and manifest.calibration.stale


def show_calibration(output: Output, index: str, report: CalibrationReport) -> None:
    """What a calibration measured."""
    lines = [f"{index} {summary(report.manifest)} in {report.seconds:.1f} s"]
    lines += [f"  {line}" for line in describe(report.calibration)]
    own = report.self_matches
    lines += [
        f"  {name}: {count} of {own.pictures} gallery pictures would not match themselves at this "
        "threshold"
        for name, count in own.unmatched.items()
    ]
    lines.append("  wrong entries of the largest margins (a near-duplicate would show here):")
    lines += [f"    {one.margin:.4f} {one.query} -> {one.id}" for one in report.alarms]
    fields = {
        "index": index,
        **counts_of(report.manifest),
        "calibration": calibration_fields(report.calibration),
        "alarms": [asdict(alarm) for alarm in report.alarms],
        "self_matches": asdict(own),
        "seconds": report.seconds,
    }
    output.show(fields, as_lines(lines))
