import errno

import pytest

from supernet.atomic import remove_parts, write_atomic, write_folder


def test_writes_and_replaces(tmp_path):
    file = tmp_path / "new" / "a.txt"
    write_atomic(file, lambda part: part.write_text("one"))
    write_atomic(file, lambda part: part.write_text("two"))
    assert file.read_text() == "two"
    assert list(file.parent.iterdir()) == [file]


def test_failure_keeps_the_old_file_and_leaves_no_part(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fail(part):
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomic(file, fail)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_permissions_are_those_of_a_plain_file(tmp_path):
    plain, atomic = tmp_path / "plain", tmp_path / "atomic"
    plain.write_text("")
    write_atomic(atomic, lambda part: part.write_text(""))
    assert plain.stat().st_mode == atomic.stat().st_mode


def test_parts_of_killed_writers_are_removed(tmp_path):
    file, left, other = tmp_path / "a.bin", tmp_path / ".a.bin.x1y2.bin", tmp_path / "b.bin"
    for each in (file, left, other):
        each.write_text("")
    remove_parts(file)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.bin", "b.bin"]


def test_folders_are_whole_or_absent(tmp_path):
    folder = tmp_path / "new" / "folder"
    write_folder(folder, {"a": b"1", "b": b"2"})
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"a": b"1", "b": b"2"}
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(OSError, match="not empty"):
        write_folder(folder, {"c": b"3"})
    with pytest.raises(FileNotFoundError):
        write_folder(tmp_path / "other", {"a": b"1", "no/such": b"2"})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new", "plain"]
    assert [entry.name for entry in folder.parent.iterdir()] == ["folder"]
    assert sorted(entry.name for entry in folder.iterdir()) == ["a", "b"]
