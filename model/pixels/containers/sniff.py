"""Which format a file's content is of, by its first bytes; never by a name or a declared type."""

_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"BM", "BMP"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\2\0", "CUR"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF-", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x8aMNG\r\n\x1a\n", "MNG"),
    (0, b"qoif", "QOI"),
    (0, b"farbfeld", "farbfeld"),
    (0, b"DDS ", "DDS"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"PK\x05\x06", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard"),
    (0, b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (0, b"Rar!\x1a\x07", "RAR"),
    (257, b"ustar", "tar"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "MP3"),
    (0, b"\x7fELF", "ELF program"),
    (0, b"MZ", "Windows program"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"SQLite format 3\0", "SQLite database"),
)
_RIFF_KINDS = {b"WEBP": "WEBP", b"AVI ": "AVI video", b"WAVE": "WAVE sound"}
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"})
_MARKUP = ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<?xml", "XML"))


def content_format(data: bytes) -> str | None:
    """The name of the format that the first bytes announce.

    Args:
        data: the file, or at least its first KiB.

    Returns:
        Pillow's name for a format that `model.pixels.decode` lists, a readable name for another
        known one, None for an unknown one.
    """
    for offset, magic, name in _MAGICS:
        if data.startswith(magic, offset):
            return name
    if data[:4] == b"RIFF":
        return _RIFF_KINDS.get(data[8:12], "RIFF")
    if data[4:8] == b"ftyp":
        return _media_brand(data)
    if data[:4] in (b"P1\n", b"P4\n") or (data[:1] == b"P" and data[1:2] in b"123456"):
        return "Netpbm" if data[2:3].isspace() else _text_kind(data)
    return _text_kind(data)


def _media_brand(data: bytes) -> str:
    """The kind of an ISO media file; generic brands are settled by the compatible ones."""
    end = min(int.from_bytes(data[:4], "big"), len(data), 1024)
    major = data[8:12]
    brands = {major} | {data[i : i + 4] for i in range(16, end - 3, 4)}
    if major in (b"avif", b"avis"):
        return "AVIF"
    if major in _HEIC_BRANDS:
        return "HEIF"
    if major in (b"mif1", b"msf1", b"miaf"):
        return "AVIF" if brands & {b"avif", b"avis"} else "HEIF"
    if major == b"crx ":
        return "Canon CR3"
    return "QuickTime video" if major == b"qt  " else "MP4 video"


def _text_kind(data: bytes) -> str | None:
    head = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head[:1] == b"<":
        # An XML declaration or a comment may stand before the element that tells.
        for mark, name in _MARKUP:
            if mark in head:
                return name
        return "markup text"
    printable = all(32 <= byte < 127 or byte in b"\t\n\r\f" for byte in data[:256])
    return "plain text" if printable else None
