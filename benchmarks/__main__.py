"""`make bench`: every benchmark in turn; each prints its ratios side by side and gates nothing."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (
    ("search.py", "search and certificate against tuned flat search"),
    ("filters.py", "filtered search against the same without a filter"),
    ("near_equal.py", "many results among near-equal rows against the same in random rows"),
    ("network.py", "forward pass: default against naive, published against rebuilding T"),
    ("pixels.py", "decode and resize"),
    ("trim.py", "search with trim against search without, and what is found"),
    ("training.py", "the stages of a training step"),
    ("smoothing.py", "randomised smoothing of a teacher against our certificate"),
    ("throughput.py", "/search over HTTP against the same work offline, then overload"),
    ("batch.py", "/v1/search/batch by one client against the same work offline"),
    ("build_index.py", "build against decode alone and embed alone"),
)


def main() -> None:
    """Run each script and go on when one fails."""
    failed = []
    for script, title in SCRIPTS:
        sys.stdout.write(f"\n== {script}: {title}\n")
        sys.stdout.flush()
        if subprocess.run([sys.executable, HERE / script], check=False).returncode:
            failed.append(script)
    if failed:
        raise SystemExit(f"did not run to their end: {', '.join(failed)}")


if __name__ == "__main__":
    main()
