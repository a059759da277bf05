"""The files that the fuzzers make: whole where they should be, damaged where that reaches far."""

import random

import pytest
from fuzz.mutations import change_structure, damage
from fuzz.pictures import valid_file
from fuzz.structures import structure_of
from image_files import sound_images

from model.errors import ImageError
from model.pixels.decode import decode_image


@pytest.mark.parametrize("first", range(5))
def test_every_valid_file_is_accepted(first):
    """Of one format each, with any number."""
    formats = {decode_image(valid_file(number)).format for number in range(first, 100, 5)}
    assert formats == {("JPEG", "PNG", "WEBP", "AVIF", "GIF")[first]}


@pytest.mark.parametrize("name", sound_images())
def test_a_file_taken_apart_and_joined_is_the_same_file(name):
    data = sound_images()[name][0]
    found = structure_of(data)
    assert found is not None
    split, join = found
    parts = split(data)
    assert len(parts) > 1 or name.startswith("webp")
    assert join(parts) == data


def test_changed_and_damaged_files_are_pictures_or_image_errors():
    chance = random.Random(5)
    ended = {"picture": 0, "error": 0}
    for number in range(400):
        file = valid_file(number % 100)
        for data in (change_structure(file, chance), damage(file, number)):
            try:
                decode_image(data)
                ended["picture"] += 1
            except ImageError:
                ended["error"] += 1
    assert min(ended.values()) > 100
