"""What a running service holds, read from /proc, and what it says of itself."""

import os
from pathlib import Path
from statistics import median
from time import sleep

import httpx
from service_helpers import Server

MIB = 1 << 20


def family_of(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def rss_of(pid: int) -> int:
    """Resident bytes of one process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def settled_rss(server: Server, samples: int = 9) -> tuple[int, int]:
    """Resident bytes of the service, and with its decode processes: medians of some looks."""
    own, together = [], []
    for _ in range(samples):
        each = [rss_of(pid) for pid in family_of(server.process.pid)]
        own.append(each[0])
        together.append(sum(each))
        sleep(0.2)
    return int(median(own)), int(median(together))


def mapped_versions(server: Server) -> set[str]:
    """Versions whose vectors are mapped into the service, deleted ones too."""
    maps = Path(f"/proc/{server.process.pid}/maps").read_text().splitlines()
    return {line.split()[5] for line in maps if "vectors.npy" in line}


def version_of(url: str) -> str:
    return httpx.get(f"{url}/v1/indexes/default", timeout=60).json()["version"]


def metric(url: str, name: str) -> float:
    """One number of /metrics, by its name with labels as they stand there."""
    for line in httpx.get(f"{url}/metrics", timeout=60).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"there is no {name}")
