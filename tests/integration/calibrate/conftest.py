"""A collection of noise, its index, and a calibrated copy of it: made once, copied to change."""

import shutil

import pytest
from calibrate_tools import PICTURES, calibrate, copies
from index_tools import build, write_folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures"), PICTURES)


@pytest.fixture(scope="session")
def pristine(pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("pristine")
    build(root, pictures)
    return root / "indexes"


@pytest.fixture
def data_dir(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "indexes")
    return tmp_path


@pytest.fixture(scope="session")
def calibrated(pristine, pictures, tmp_path_factory):
    """A copy with operating points of one query a picture, and what the calibration reported."""
    root = tmp_path_factory.mktemp("calibrated")
    shutil.copytree(pristine, root / "indexes")
    return root, calibrate(root, copies(pictures, PICTURES))


@pytest.fixture
def calibrated_dir(calibrated, tmp_path):
    """A copy of that which may be changed; its files are copied, not linked."""
    shutil.copytree(calibrated[0] / "indexes", tmp_path / "indexes")
    return tmp_path
