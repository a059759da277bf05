from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import RetrievalError
from service.errors import BadRequestError, InvalidParameterError
from service.http.multipart import MAX_HEADER_BYTES, MAX_HEADERS_PER_PART, MultipartReader

# Drawing the data may take long where other work has the cores.
_ON_A_BUSY_MACHINE = settings(suppress_health_check=[HealthCheck.too_slow])

KNOWN = {"image", "k", "epsilon"}
TYPE = 'multipart/form-data; boundary="a b"'


def body_of(*parts: tuple[str, bytes]) -> bytes:
    head = '--a b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n'
    return b"".join(head.format(n).encode() + v + b"\r\n" for n, v in parts) + b"--a b--\r\n"


def read(*chunks: bytes) -> dict[str, bytes]:
    reader = MultipartReader(TYPE, KNOWN)
    for chunk in chunks:
        reader.write(chunk)
    return reader.finish()


@_ON_A_BUSY_MACHINE
@given(
    image=st.binary(max_size=300).filter(lambda data: b"\r\n--a b" not in b"\r\n" + data),
    cuts=st.lists(st.integers(0, 500), max_size=6),
)
def test_parts_are_the_same_however_the_body_is_cut(image: bytes, cuts: list[int]):
    body = body_of(("k", b"7"), ("image", image))
    places = sorted({0, *(min(cut, len(body)) for cut in cuts), len(body)})
    chunks = [body[a:b] for a, b in pairwise(places)]
    assert read(*chunks) == {"k": b"7", "image": image}


@_ON_A_BUSY_MACHINE
@given(data=st.binary(max_size=300))
def test_any_bytes_are_parts_or_one_of_our_errors(data: bytes):
    try:
        read(data)
        read(b"--a b\r\n" + data)
    except RetrievalError:
        return


def test_an_unknown_name_is_refused_before_its_data_arrives():
    reader = MultipartReader(TYPE, KNOWN)
    with pytest.raises(InvalidParameterError, match="the fields are epsilon, image, k"):
        reader.write(b'--a b\r\nContent-Disposition: form-data; name="url"\r\n\r\n')


def test_a_name_given_twice_is_refused():
    with pytest.raises(InvalidParameterError, match="more than once"):
        read(body_of(("k", b"1"), ("k", b"1")))


def test_file_names_are_read_past():
    part = (
        b'--a b\r\nContent-Disposition: form-data; name="image"; filename="/etc/passwd"\r\n'
        b"Content-Type: text/x-anything\r\n\r\nx\r\n--a b--\r\n"
    )
    assert read(part) == {"image": b"x"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--a b",
        b"--a b\r\n",
        body_of(("image", b"x"))[:-6],
        b"--a b\r\nX: 1\r\n\r\nx\r\n--a b--\r\n",
        b"--a b\r\nContent-Disposition: attachment; name=image\r\n\r\nx\r\n--a b--\r\n",
        b"--a b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a b--\r\n",
        b"--a b\r\nX: " + b"y" * (MAX_HEADER_BYTES + 1) + b"\r\n\r\n",
        b"--a b\r\n" + b"X: y\r\n" * (MAX_HEADERS_PER_PART + 1) + b"\r\n",
        b"--other\r\n",
        *(
            b"--a b\r\nContent-Disposition: form-data; " + names + b"\r\n\r\nx\r\n--a b--\r\n"
            for names in (
                b"name*=UTF-8''image",
                b'name*0="im"; name*1="age"',
                b"name*0*=UTF-8''im; name*1=age",
                b'name="image"; name*0="k"',
                b'name*0="k"; name="image"',
                b'name="im\r\n age"',
                b"name=image\r\nContent-Disposition : form-data; name=k",
            )
        ),
    ],
)
def test_what_is_not_well_formed_is_refused(body: bytes):
    with pytest.raises(BadRequestError):
        read(body)


def test_a_part_is_what_it_is_whatever_its_headers_say_of_it():
    """Neither a multipart inside of it nor an encoding is looked into."""
    for more in (
        b"Content-Type: multipart/mixed; boundary=c",
        b"Content-Transfer-Encoding: base64",
    ):
        inner = b"--c\r\nContent-Disposition: form-data; name=k\r\n\r\n1\r\n--c--"
        head = b"--a b\r\nContent-Disposition: form-data; name=image\r\n" + more + b"\r\n\r\n"
        assert read(head + inner + b"\r\n--a b--\r\n") == {"image": inner}


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a; Boundary*0=b",
        "multipart/form-data; boundary*=UTF-8''a",
        "multipart/form-data; boundary*0=a; boundary*1=b",
        "multipart/form-data; boundary=a, multipart/form-data; boundary=b",
    ],
)
def test_one_boundary_is_needed(content_type: str):
    with pytest.raises(BadRequestError, match="boundary"):
        MultipartReader(content_type, KNOWN)


def read_files(*names: str | None, most: int = 3) -> list[tuple[str | None, bytes]]:
    """The parts of a body with so many files of these names, read byte by byte."""
    head = '--a b\r\nContent-Disposition: form-data; name="image"{}\r\n\r\n{}\r\n'
    parts = [
        head.format("" if name is None else f'; filename="{name}"', number)
        for number, name in enumerate(names)
    ]
    reader = MultipartReader(TYPE, KNOWN, repeated="image", most=most)
    for byte in ("".join(parts) + "--a b--\r\n").encode():
        reader.write(bytes([byte]))
    assert reader.finish() == {}
    return reader.files


def test_the_one_name_that_may_be_repeated_keeps_its_files_in_order():
    names = ("b.jpg", None, "b.jpg")
    expected = [(name, str(number).encode()) for number, name in enumerate(names)]
    assert read_files(*names) == expected


def test_one_file_too_many_is_refused_when_its_headers_have_come():
    with pytest.raises(InvalidParameterError, match="more than 2 times"):
        read_files("a", "b", "c", most=2)
