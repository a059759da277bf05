"""A builder that stays: reads folders from stdin, one a line, and makes the index hold each.

    python tests/chaos/chaos_builder.py DATA_DIR

Says the new version, a line each. Old versions are pruned as an operator's timer would.
"""

import sys
from pathlib import Path

from index_builder.build.build import build_index
from index_builder.build.maintenance import prune
from index_builder.sources.open_source import open_source
from model.cli.threads import limit_threads
from model.embedder import Embedder


def main() -> None:
    data_dir = Path(sys.argv[1])
    limit_threads(1)
    embedder = Embedder.load()
    for line in sys.stdin:
        folder = Path(line.strip())
        source = open_source(folder, max_bytes=1 << 24)
        report = build_index(data_dir, "default", source, embedder, source_name=folder.name)
        prune(data_dir, "default", 2)
        sys.stdout.write(f"{report.manifest.version}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
