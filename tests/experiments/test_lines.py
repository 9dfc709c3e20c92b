import json

import pytest

from experiments.lines import open_lines, read_lines

WHOLE = b'{"seed": 0}\n{"seed": 1}\n'


def test_no_file_has_no_rows(tmp_path):
    assert read_lines(tmp_path / "rows.jsonl") == []


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    for seed in range(2):
        with open_lines(path) as file:
            file.write(json.dumps({"seed": seed}) + "\n")
            assert read_lines(path) == [{"seed": s} for s in range(seed + 1)]  # before it is closed
    assert path.read_bytes() == WHOLE


def test_a_run_killed_at_any_byte_goes_on_with_every_whole_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    line = WHOLE + '{"seed": 2, "of": "µ"}\n'.encode()
    for cut in range(len(line) + 1):
        path.write_bytes(line[:cut])
        known = read_lines(path)
        assert known == [{"seed": 0}, {"seed": 1}, {"seed": 2, "of": "µ"}][: len(known)]
        assert len(known) >= line[:cut].count(b"\n")
        with open_lines(path) as file:
            file.write('{"seed": 3}\n')
        assert read_lines(path) == [*known, {"seed": 3}]
        assert path.read_bytes().endswith(b"\n")


def test_a_garbled_line_before_the_last_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"seed": 0}\n{"se{"seed": 1}\n{"seed": 2}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*rows.jsonl is not JSON"):
        read_lines(path)
