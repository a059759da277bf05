import pytest

from model.pixels.containers.sniff import _MAGICS, content_format
from model.pixels.decode import _FORMATS, ALL_FORMATS


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"RIFF\1\2\3\4WEBPVP8 ", "WEBP"),
        (b"RIFF\1\2\3\4WAVEfmt ", "WAVE sound"),
        (b"RIFF\1\2\3\4????", "RIFF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x1cftypavis\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "QuickTime video"),
        (b"\0\0\0\x14ftypmp42\0\0\0\0mp42", "MP4 video"),
        (b"\0\0\0\x14ftypcrx \0\0\0\0crx ", "Canon CR3"),
        (b"\0\0\0\0ftyp", "MP4 video"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"MM\0+", "BigTIFF"),
        (b"BM", "BMP"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"P6\n1 1 255\n", "Netpbm"),
        (b"P6\t1 1 255\n", "Netpbm"),
        (b"Paris", "plain text"),
        (b"\xef\xbb\xbf  <?xml version='1.0'?>\n<svg>", "SVG"),
        (b"<?xml version='1.0'?><x/>", "XML"),
        (b"<!-- hi --><HTML>", "HTML"),
        (b"<what", "markup text"),
        (b"just words", "plain text"),
        (b"PK\x03\x04", "ZIP"),
        (b"x" * 257 + b"ustar", "tar"),
        (b"8BPS", "PSD"),
        (b"\0\0\1\0", "ICO"),
        (b"\0\1\2\3", None),
    ],
)
def test_content_is_named_by_its_first_bytes(head, name):
    assert content_format(head) == name


def test_a_format_that_we_read_goes_by_pillows_name_and_not_by_its_label():
    labels = {kind.label for kind in _FORMATS.values()} - ALL_FORMATS
    assert not labels & {name for *_, name in _MAGICS}, "name these as the keys of _FORMATS do"
