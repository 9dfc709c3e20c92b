import json

import pytest

from supernet.history import Entry, History, entries_from

HISTORY = History(9, (Entry(0, 0.5, None, 0.1, 0.1, 0.2), Entry(3, 1.0, 2.0, 0.2), Entry(9, 2.0, 1.0, 0.0, 0.9, 0.8)))


def test_evaluated_and_final():
    assert [entry.step for entry in HISTORY.evaluated] == [0, 9]
    assert HISTORY.final.val_smallest == 0.8
    with pytest.raises(ValueError, match="no validation accuracies yet"):
        _ = History(9, HISTORY.entries[1:2]).final


def test_json_round_trip():
    assert tuple(entries_from(json.loads(json.dumps(HISTORY.plain())))) == HISTORY.entries
