"""The commands and programs that README and docs tell people to run, read out of the pages."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from paths import DOCS, ROOT

# Dated records of what was once done, and the change log, tell nobody to type anything.
_RECORDS = {"lab-log.md"}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(path for path in DOCS.glob("*.md") if path.name not in _RECORDS),
]
_SHELLS = {"", "sh", "bash", "console"}
_PROGRAMS = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(python|curl|make|docker|sudo|torchrun|export|lipsim)\s"
)


@dataclass(frozen=True)
class Command:
    """One command as a page shows it, without the remark behind it."""

    page: str
    text: str

    @property
    def module(self) -> str | None:
        """What `python -m` (or `torchrun -m`) runs, or None."""
        found = re.search(r" -m ([a-z_.]+)", self.text)
        return None if found is None else found[1]

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def options(self) -> set[str]:
        """Long options that its program is given."""
        behind = self.text.split(f"-m {self.module}", 1)[-1]
        return set(re.findall(r"(?<!\S)\[?(--[a-z0-9-]+)", behind))

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def commands(page: Path) -> list[Command]:
    """All commands in the code blocks of a page, in its order."""
    text = page.read_text()
    found: list[str] = []
    for language, block in _blocks(text):
        if language not in _SHELLS:
            continue
        joined = re.sub(r"\\\n\s*", "", block)
        for line in joined.splitlines():
            bare = re.sub(r"\s{2,}#.*|\s+# .*", "", line).strip()
            if _PROGRAMS.match(bare + " "):
                found.append(bare)
    return [Command(page.name, text) for text in found]


def program(page: Path) -> str:
    """All Python blocks of a page, in its order, as one program; empty where there is none."""
    return "".join(block for language, block in _blocks(page.read_text()) if language == "python")


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language, text) of fenced and of indented blocks."""
    fenced = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    \S.*\n(?:^ {4,}\S.*\n)*)", rest, re.MULTILINE)
    return [*fenced, *(("", re.sub(r"^    ", "", block, flags=re.MULTILINE)) for block in indented)]
