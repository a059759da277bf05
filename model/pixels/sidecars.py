"""Files that stand beside pictures in real collections, known by name."""

from pathlib import PurePosixPath

# They are passed over only when their content is no image either: formats are known by content,
# never by name.
_SIDECAR_NAMES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "readme", "license"}
_SIDECAR_SUFFIXES = {
    *(".txt", ".md", ".rst", ".html", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml"),
    *(".xmp", ".yaml", ".yml", ".toml", ".ini", ".log", ".sha256", ".md5"),
}


def is_sidecar(path: str) -> bool:
    """Whether a file that is no image is expected beside images: notes, lists, licences."""
    name = PurePosixPath(path)
    return name.name.lower() in _SIDECAR_NAMES or name.suffix.lower() in _SIDECAR_SUFFIXES
