"""multipart/form-data, in memory only: each part is bytes under a name, nothing more."""

import re
from collections.abc import Collection, Generator
from contextlib import contextmanager

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadRequestError, FieldProblem, InvalidParameterError

# A few more than any route has fields; each is known by name, so this only stops repetition.
MAX_PARTS = 32
MAX_HEADERS_PER_PART = 8
MAX_HEADER_BYTES = 1024

_QUOTED = re.compile(rb'"(?:\\.|[^"\\])*"')
# In the spellings of RFC 2231, too: name*=, name*0=, name*0*=.
_NAME = re.compile(rb";\s*name(?:\*[0-9]*\*?)?\s*=", re.IGNORECASE)
_BOUNDARY = re.compile(rb";\s*boundary(?:\*[0-9]*\*?)?\s*=", re.IGNORECASE)


class MultipartReader:
    """Takes chunks as they arrive and refuses at the first unknown or repeated name.

    Per-part content types are read past, and file names, which are echoed at most: nothing a client
    calls a file matters.

    Attributes:
        fields: the parts by name.
        files: those of the one name that may be repeated: the file name of each, and its bytes.
    """

    def __init__(
        self, content_type: str, known: Collection[str], *, repeated: str = "", most: int = 0
    ) -> None:
        self.fields: dict[str, bytes] = {}
        self.files: list[tuple[str | None, bytes]] = []
        self._known = known
        self._repeated, self._most = repeated, most
        self._file_name: str | None = None
        self._part = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._name = ""
        self._is_complete = False
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary or _count(_BOUNDARY, content_type.encode("latin-1", "replace")) != 1:
            raise BadRequestError("multipart/form-data needs one boundary in its Content-Type")
        with _our_errors():
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_part_data": lambda data, a, b: self._part.extend(data[a:b]),
                    "on_part_end": self._end_part,
                    "on_header_field": lambda data, a, b: self._header_name.extend(data[a:b]),
                    "on_header_value": lambda data, a, b: self._header_value.extend(data[a:b]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_end": self._end,
                },
                max_header_count=MAX_HEADERS_PER_PART,
                max_header_size=MAX_HEADER_BYTES,
            )

    def write(self, chunk: bytes) -> None:
        with _our_errors():
            self._parser.write(chunk)

    def finish(self) -> dict[str, bytes]:
        """The parts by name, once the closing boundary was seen."""
        if not self._is_complete:
            raise BadRequestError("the multipart body ends before its closing boundary")
        return self.fields

    def _begin_part(self) -> None:
        if len(self.fields) >= MAX_PARTS:
            raise BadRequestError(f"a multipart body may have {MAX_PARTS} parts at most")
        self._part = bytearray()
        self._headers = {}

    def _end_header(self) -> None:
        name = bytes(self._header_name).lower()
        if name in self._headers:
            raise BadRequestError("a part gives a header more than once")
        self._headers[name] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        header = self._headers.get(b"content-disposition", b"")
        disposition, options = parse_options_header(header)
        # The parser keeps the last of two names, another program may keep the first.
        if disposition != b"form-data" or b"name" not in options or _count(_NAME, header) != 1:
            raise BadRequestError("each part needs Content-Disposition: form-data with one name")
        self._name = options[b"name"].decode("utf-8", errors="replace")
        check_name(self._name, self._known, self.fields)
        if self._name == self._repeated:
            file_name = options.get(b"filename")
            self._file_name = file_name.decode("utf-8", "replace") if file_name else None
            if len(self.files) >= self._most:
                message = f"is given more than {self._most} times: send several requests"
                raise InvalidParameterError([FieldProblem(self._name, message)])

    def _end_part(self) -> None:
        content = bytes(self._part)
        if self._name == self._repeated:
            self.files.append((self._file_name, content))
        else:
            self.fields[self._name] = content

    def _end(self) -> None:
        self._is_complete = True


def _count(parameter: re.Pattern[bytes], header: bytes) -> int:
    """How often a header gives a parameter; what stands inside of quotes is no parameter."""
    return len(parameter.findall(_QUOTED.sub(b'""', header)))


def check_name(name: str, known: Collection[str], seen: Collection[str]) -> None:
    """Refuse a field that this route does not have, or has been given already."""
    if name not in known:
        fields = f"the fields are {', '.join(sorted(known))}" if known else "it has none"
        raise InvalidParameterError(
            [FieldProblem(name[:64], f"is not a field of this route; {fields}")]
        )
    if name in seen:
        raise InvalidParameterError([FieldProblem(name, "is given more than once")])


@contextmanager
def _our_errors() -> Generator[None]:
    """The one boundary at which the parser's errors become ours."""
    try:
        yield
    except FormParserError as error:
        raise BadRequestError("the body is not well-formed multipart/form-data") from error
