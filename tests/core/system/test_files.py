"""Files are whole or not there, and an error names the file that was meant."""

import errno
import os

import pytest

from esn_core.system.files import write_all, write_new, write_whole


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that takes so many files more, and then is full."""

    def after(files):
        left = iter([False] * files)

        def fsync(_descriptor):
            if next(left, True):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)

    return after


def test_a_new_file_that_cannot_be_written_to_its_end_is_not_there(tmp_path, full_disk):
    full_disk(0)
    with pytest.raises(OSError, match="No space left") as caught:
        write_new(tmp_path / "model.esn", b"half", mode=0o644)
    assert caught.value.filename == str(tmp_path / "model.esn")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "model.esn").write_bytes(b"first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "model.esn", b"second", mode=0o644)
    assert (tmp_path / "model.esn").read_bytes() == b"first"


def test_a_failure_leaves_the_older_file_and_names_it_not_the_temporary_one(tmp_path, full_disk):
    write_whole(tmp_path / "page.html", b"first")
    full_disk(0)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "page.html", b"second")
    assert caught.value.filename == str(tmp_path / "page.html")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


class TestSeveral:
    @pytest.mark.parametrize("files", [1, 2, 3, 4])
    def test_all_of_them_or_none(self, tmp_path, full_disk, files):
        # A file and the name of it reach the disk one after the other.
        full_disk(files)
        out = tmp_path / "predictions"
        with pytest.raises(OSError, match="No space left"):
            write_all({out / name: b"child" for name in ("a.html", "a.json", "b.html")})
        assert not out.exists()

    def test_what_was_there_stays(self, tmp_path, full_disk):
        (tmp_path / "mine.txt").touch()
        full_disk(2)
        with pytest.raises(OSError, match="No space left"):
            write_all({tmp_path / name: b"child" for name in ("a.html", "a.json")})
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
