from model.pixels.sidecars import is_sidecar


def test_sidecars_are_known_by_name():
    assert all(map(is_sidecar, ("a/README.md", "LICENSE", "Thumbs.db", "x.JSON", "notes.txt")))
    assert not any(map(is_sidecar, ("a.png", "txt", "README.jpg", "a.zip", "noext")))
