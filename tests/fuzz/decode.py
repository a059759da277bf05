"""Fuzz the decode module: `make fuzz-decode`, or `python -m fuzz.decode --seconds 60`.

Coverage-guided (atheris over our Python and Pillow's), from whole and hostile files of each format,
with changes that keep checksums and lengths right. A finding is anything but a picture within its
limits or an ImageError, memory beyond a decode process's bound, or an input that takes too long. A
crash of the process itself is a finding of libFuzzer's, in the same folder.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from hashlib import sha256
from pathlib import Path

import atheris  # pyright: ignore[reportMissingModuleSource] - in .fuzz/env alone

# Its published types lack the one function that its manual begins with.
with atheris.instrument_imports(  # pyright: ignore
    include=["PIL", "model"]
):
    import model.pixels.decode
    import model.pixels.network_input

from fuzz.memory import PeakMeter
from fuzz.mutations import change_structure

from model.errors import ImageError
from model.pixels.decode import PILLOW_FORMATS, DecodeLimits
from service.decoding.worker import memory_bound, memory_of_one_image

SIZE = 64
# Small, so that an execution is short; the rules and their bounds are those of any limits.
LIMITS = DecodeLimits(max_image_bytes=1 << 16, max_pixels=2_000_000, formats=PILLOW_FORMATS)
MOST_SECONDS = 5.0
MOST_BYTES = memory_of_one_image(LIMITS)
# Instrumented generators that end early keep what they held: measured, 1.5 MB a second. The same
# files leave nothing behind in a decode process.
KEPT_BYTES_PER_SECOND = 4 << 20
HANG_SECONDS = 60
REPORT_SECONDS = 1.0
STRUCTURED_SHARE = 0.75
SEED_SHARE = 0.2


class Finding(Exception):  # noqa: N818 - it is the name of the thing
    """Something that decoding must not do, which is no exception of its own."""


class Session:
    """What was tried, what came out, and what broke."""

    def __init__(self, folder: Path) -> None:
        self._findings = folder / "findings"
        self._report = folder / "report.json"
        self._seen: set[str] = set()
        self._begun = time.monotonic()
        self._outcomes: Counter[str] = Counter()
        self._slowest_s = 0.0
        self._most_bytes = 0
        self._meter = PeakMeter()
        self._report_due = 0.0
        self._findings.mkdir(parents=True, exist_ok=True)

    def test(self, data: bytes) -> None:
        """One execution; a finding is kept, and the fuzzer goes on."""
        self._meter.start()
        begun = time.process_time()
        try:
            outcome = try_decoding(data)
            self._check_costs(time.process_time() - begun, self._meter.growth())
        except Exception as error:
            outcome = "finding"
            self._keep(data, error)
        self._outcomes[outcome] += 1
        # libFuzzer ends the process without a word to Python: what is to be told is told before.
        if time.monotonic() >= self._report_due:
            self.report()
            self._report_due = time.monotonic() + REPORT_SECONDS

    def _check_costs(self, seconds: float, growth: int) -> None:
        self._slowest_s = max(self._slowest_s, seconds)
        self._most_bytes = max(self._most_bytes, growth)
        if seconds > MOST_SECONDS:
            raise Finding(f"{seconds:.1f} s of CPU time")
        if growth > MOST_BYTES:
            raise Finding(f"{growth} bytes of memory, of {MOST_BYTES} for one image")

    def _keep(self, data: bytes, error: Exception) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__}-{Path(frame.filename).stem}-{frame.lineno}"
        if place in self._seen:
            return
        self._seen.add(place)
        file = self._findings / f"{place}-{sha256(data).hexdigest()[:12]}"
        file.write_bytes(data)
        file.with_name(file.name + ".txt").write_text("".join(traceback.format_exception(error)))

    def report(self) -> None:
        """Write what was measured until now."""
        seconds = time.monotonic() - self._begun
        executions = self._outcomes.total()
        measured = {
            "executions": executions,
            "seconds": round(seconds, 1),
            "executions_per_second": round(executions / seconds, 1),
            "outcomes": dict(self._outcomes.most_common()),
            "slowest_cpu_seconds": round(self._slowest_s, 3),
            "most_memory_of_one_input_mib": self._most_bytes >> 20,
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "bound_of_one_input_mib": MOST_BYTES >> 20,
            "findings": sorted(self._seen),
        }
        self._report.write_text(json.dumps(measured, indent=2) + "\n")


def try_decoding(data: bytes) -> str:
    """How a file ended: its format, or the name of the error.

    Raises:
        Exception: it ended in a way that it must not.
    """
    try:
        image = model.pixels.decode.decode_image(data, LIMITS)
    except ImageError as error:
        if isinstance(error.__cause__, MemoryError):
            raise Finding("more memory was asked for than its bound") from error
        return type(error).__name__ + _cause(error)
    height, width = image.pixels.shape[:2]
    if max(height, width) > LIMITS.max_side or height * width > LIMITS.max_pixels:
        raise Finding(f"{width} x {height} pixels are more than the limits allow")
    given = model.pixels.network_input.network_input(image, SIZE)
    if not (given.values.min() >= -1e-9 and given.values.max() <= 1 + 1e-9 and given.gain > 0):
        raise Finding("the network's input is not in [0, 1]")
    return image.format


def _cause(error: ImageError) -> str:
    """Which exception, raised in which file, became an error of ours; empty if none did."""
    cause = error.__cause__
    if cause is None or cause.__traceback__ is None:
        return ""
    file = Path(traceback.extract_tb(cause.__traceback__)[-1].filename)
    return f" of {type(cause).__name__} in {file.parent.name}/{file.name}"


class Mutator:
    """Changes of one part, libFuzzer's own, or both; now and then of a seed, which is whole."""

    def __init__(self, seeds: Path) -> None:
        self._seeds = [file.read_bytes() for file in sorted(seeds.iterdir())]

    def __call__(self, data: bytes, most: int, seed: int) -> bytes:
        """What libFuzzer tries next, from a file of its corpus."""
        chance = random.Random(seed)
        if chance.random() < SEED_SHARE:
            data = chance.choice(self._seeds)
        changed = change_structure(data, chance) if chance.random() < STRUCTURED_SHARE else b""
        if not changed or len(changed) > most:
            changed = atheris.Mutate(data, most)
        return changed


def fuzz(folder: Path, seconds: int) -> None:
    """Fuzz in this process, which libFuzzer ends."""
    bound = memory_bound(LIMITS) + KEPT_BYTES_PER_SECOND * seconds
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LIMITS.max_image_bytes}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={bound >> 20}",
        f"-artifact_prefix={folder / 'findings'}/",
        "-len_control=0",
        "-print_final_stats=1",
        "-close_fd_mask=2",  # libtiff writes lines of its own.
    ]
    places = [str(folder / "corpus"), str(folder / "seeds")]
    test, mutate = Session(folder).test, Mutator(folder / "seeds")
    atheris.Setup([sys.argv[0], *options, *places], test, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    """Fuzz for a time, in a process that may crash; 0 if nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"))
    given = parser.parse_args()
    (given.folder / "corpus").mkdir(parents=True, exist_ok=True)
    # In a process of its own: the thumbnails' code brings torch, which is not to be measured.
    seeds = [str(given.folder / "seeds"), str(LIMITS.max_image_bytes)]
    subprocess.run([sys.executable, "-m", "fuzz.seeds", *seeds], check=True)
    log = given.folder / "libfuzzer.log"
    process = os.fork()
    if process == 0:
        os.dup2(os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644), sys.stderr.fileno())
        fuzz(given.folder, given.seconds)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return conclude(given.folder, log.read_text(errors="replace"), status)


def conclude(folder: Path, log: str, status: int) -> int:
    """Print libFuzzer's last words and the report; 0 if there is nothing but numbers in them."""
    lines = [line for line in log.splitlines() if "DONE" in line or "stat::" in line]
    if status:
        lines += [f"the fuzzing process ended with status {status}:", *log.splitlines()[-15:]]
    report = (folder / "report.json").read_text()
    sys.stdout.write("\n".join([*lines, report]))
    return 1 if status or json.loads(report)["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
