import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.transfer import DATA, TABLES, Table, chip, leave_out, load, summary

FOLDER = Path(__file__).parents[2] / DATA


def test_a_chip_is_named_without_its_batch_and_its_phone():
    assert {chip(name) for name in ("1080ti_1", "1080ti_256", "eagle_gtx")} == {"1080ti"}
    assert chip("pixel2") == chip("essential_ph_1") == "snapdragon_835"
    assert chip("gold_6240") == "gold_6240" and chip("titanx_1") != chip("titanxp_1")


def test_sources_are_of_other_chips_and_measured_on_all_rows():
    seconds = np.ones((4, 4))
    seconds[2, 3] = np.nan
    table = Table(np.eye(4), seconds, ("1080ti_1", "1080ti_32", "pixel2", "eyeriss"))
    assert table.sources(0, "column", np.arange(4)) == [1, 2]
    assert table.sources(0, "chip", np.arange(4)) == [2]
    assert table.sources(0, "chip", np.array([0, 1])) == [2, 3]


def test_tables_are_read_in_seconds(tmp_path):
    path = tmp_path / "table.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("index,arch_str,lat_help_pixel2\n0,|a_1x1~0|+|b~0|b~1|,3\n1,|b~0|+|b~0|a_1x1~1|,\n")
    table = load(path)
    assert table.devices == ("pixel2",)
    np.testing.assert_array_equal(table.seconds, [[0.003], [np.nan]])
    np.testing.assert_array_equal(table.features, [[1, 0, 1, 0, 1], [0, 1, 1, 1, 0]])


@pytest.mark.skipif(not FOLDER.exists(), reason=f"the benchmark data are not in {DATA}")
def test_transfer_beats_ridge_regression_on_a_slice_of_the_real_table():
    table = load(FOLDER / TABLES["fbnet"])
    table = replace(table, features=table.features[:600], seconds=table.seconds[:600])
    device = table.devices.index("titan_rtx_64")
    rows = list(leave_out("fbnet", table, device, "chip", seeds=1))
    assert [row.samples for row in rows] == [10, 20, 50]
    assert all(row.transfer > 0.93 and row.transfer > row.ridge + 0.2 for row in rows)
    assert all(row.covered > 0.8 for row in rows)
    lines = summary(rows)
    assert [line["worst_device"] for line in lines] == ["titan_rtx_64"] * 3 and lines[0]["unseen"] == rows[0].transfer
