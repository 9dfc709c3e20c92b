import json
import math
import random
import re
from collections import Counter
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from nas.figures import _staircase, _ticks, figures, precision_words
from nas.report import headline, page, write_report

SECTIONS = {
    "front": "The front",
    "search": "Was the search worth it?",
    "profile": "Latency prediction on held-out networks",
    "verify": "What verification changed",
    "training": "Training",
    "space": "The search space",
}


def _score(mape, rank):
    return {"items": 8, "mape": mape, "within_10": 1 - mape, "spearman": rank, "kendall": rank - 0.05}


def _point(index, rng):
    latency = 1.4e-5 * 1.16**index
    accuracy = 0.975 - 0.09 * math.exp(-index / 4)
    blocks = ["stem", *(f"stage{i // 3}.{i % 3}" for i in range(9)), "classifier"]
    return {
        "file": f"front/point-{index:02d}.onnx",
        "arch": {"resolution": 8, "stem_width": 16, **{f"expansion{i}": rng.choice((2, 3, 4)) for i in range(9)}},
        "policy": {name: "fp32" if index > 11 else rng.choice(("fp32", "int8")) for name in blocks},
        "accuracy": accuracy - rng.uniform(0, 0.008),
        "val_accuracy": accuracy,
        "latency_s": {"median": latency, "ci95": [latency * 0.985, latency * 1.02]},
        "size_bytes": 33570 + 9000 * index,
        "macs": 40000 * (index + 1),
        "parameters": 8000 * (index + 1),
        "int8_share": 0.6,
        "provenance": "verified",
        "found_by": "search" if index % 5 else "uniform",
    }


def _group(rng, n, handicap):
    latencies = [1.4e-5 * 10 ** rng.uniform(0, 1) for _ in range(n)]
    return [[0.975 - handicap * rng.random() - 1e-6 / s, s] for s in latencies]


def _entry(step):
    value = 1 - math.exp(-step / 120)
    loss = 2.4 - 1.9 * value if step else None
    return {
        "step": step,
        "seconds": step * 0.18,
        "loss": loss,
        "lr": 0.03,
        "val_largest": 0.1 + 0.87 * value,
        "val_smallest": 0.1 + 0.78 * value,
    }


def _prediction(rng):
    accuracy, latency = rng.uniform(0.88, 0.975), 1.4e-5 * 10 ** rng.uniform(0, 1)
    return {
        "val_accuracy": {"predicted": accuracy + rng.gauss(0, 0.004), "verified": accuracy},
        "latency_s": {"predicted": latency * rng.gauss(1, 0.04), "verified": latency},
    }


@pytest.fixture
def record():
    """What the pipeline writes for a search on digits."""
    rng = random.Random(0)
    rows = [("smallest", 40_000, 8_000, 33_570, 1.4e-5), ("middle", 310_000, 61_000, 251_000, 5.2e-5)]
    rows.append(("largest", 1_400_000, 270_000, 1_090_000, 1.38e-4))
    names = ("what", "macs", "parameters", "size_bytes", "latency_s")
    latencies = [1.4e-5 * 10 ** rng.uniform(0, 1) for _ in range(8)]
    choices = ["resolution", "stem_width", "depth1", "depth2", "stage1.0.precision", "stage2.1.expansion", "head"]
    return {
        "settings": {
            "space": "mbconv",
            "data": "digits",
            "device": "cpu",
            "seed": 0,
            "budget_s": 240.0,
            "evaluations": 36,
            "precisions": ["fp32", "int8"],
            "max_latency_s": None,
        },
        "space": {
            "name": "mbconv",
            "architectures": 5_700_000_000_000,
            "policies_included": 19_500_000_000_000_000,
            "choices": 32,
            "rows": [dict(zip(names, row, strict=True)) for row in rows],
        },
        "data": {
            "name": "digits",
            "train": 1079,
            "val": 359,
            "test": 359,
            "classes": 10,
            "image_shape": [1, 8, 8],
        },
        "device": {
            "name": "cpu",
            "threads": 1,
            "fingerprint": "ab12cd34ef56",
            "environment": {
                "cpu": "An Example Processor 9000",
                "flags": ["avx2", "avx512f", "avx512_vnni", "fma"],
                "cores": 2,
                "onnxruntime": "1.31.1",
            },
        },
        "training": {"total_steps": 510, "seconds": 91.0, "entries": [_entry(s) for s in range(0, 511, 30)]},
        "profile": {
            "blocks": 60,
            "networks": 12,
            "seconds": 30.1,
            "held_out": _score(0.04, 0.99),
            "macs_only": _score(0.31, 0.85),
            "block_sum": _score(0.12, 0.97),
            "points": [{"predicted_s": s * rng.gauss(1, 0.05), "measured_s": s} for s in latencies],
        },
        "accuracy_predictor": {"inherited": 64, "cross_validated": _score(0.01, 0.88)},
        "search": {
            "evaluations": 36,
            "failed": 1,
            "groups": {
                "search": _group(rng, 36, 0.05),
                "random": _group(rng, 36, 0.13),
                "uniform": _group(rng, 9, 0.1),
            },
            "hypervolume": {"search": 0.83, "random": 0.71, "uniform": 0.69},
            "predictions": [_prediction(rng) for _ in range(28)],
            "importance": [
                {"choice": c, "val_accuracy": 0.5 / (i + 1), "latency_s": 0.6 / (i + 1.5)}
                for i, c in enumerate(choices)
            ],
        },
        "verify": {
            "candidates": 17,
            "dropped": [{"arch": "resolution=8 stem_width=16 depth1=2", "why": "dominated after re-measuring"}],
            "latency_miss": 0.03,
            "accuracy_miss": 0.004,
        },
        "front": [_point(i, rng) for i in range(16)],
    }


class _Parsed(HTMLParser):
    """The attributes, and the text of scripts and of the page, of an HTML file."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.scripts, self.text, self.tags, self._ids = [], {}, "", Counter(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs
        self._ids = [dict(attrs).get("id", "") if tag == "script" else None]

    def handle_endtag(self, tag):
        self._ids = []

    def handle_data(self, data):
        if self._ids and self._ids[0] is not None:
            self.scripts[self._ids[0]] = data
        else:
            self.text += data


def test_opens_offline(record, tmp_path):
    text = write_report(record, tmp_path).read_text()
    parsed = _Parsed(text)
    assert not [v for k, v in parsed.attributes if k in ("src", "href") and re.match(r"\w+:|//", v)]
    assert not parsed.tags["link"] and "@import" not in text.split("</style>")[0]
    assert text.count("plotly.js v") == 1
    assert "default-src 'none'" in text and "form-action 'none'" in text
    assert "showSendToCloud: false" in text


def test_is_written_whole_or_not_at_all(record, tmp_path):
    file = write_report(record, tmp_path / "run")
    assert file == tmp_path / "run" / "report.html"
    assert list(file.parent.iterdir()) == [file]
    file.write_text("old")
    with pytest.raises(TypeError):
        write_report(record | {"settings": {"seed": object()}}, file.parent)
    assert [f.read_text() for f in file.parent.iterdir()] == ["old"]


def test_record_travels_with_the_page(record):
    assert json.loads(_Parsed(page(record)).scripts["record"]) == record


def test_every_front_point_has_its_row(record):
    parsed = _Parsed(page(record))
    links = [v for k, v in parsed.attributes if k == "href"]
    assert links == [p["file"] for p in record["front"]]
    assert parsed.text.count("stem_width = 16") == 16
    assert "14 µs (13.8–14.3 µs)" in parsed.text
    assert "33.6 kB" in parsed.text


def test_figures_are_valid_plotly_and_drawn_where_the_page_has_room(record):
    parsed, drawn = _Parsed(page(record)), figures(record)
    places = [v.removeprefix("figure-") for k, v in parsed.attributes if k == "id" and v.startswith("figure-")]
    assert sorted(places) == sorted(drawn) == sorted(json.loads(parsed.scripts["figures"]))
    assert len(drawn) == 7
    for figure in drawn.values():
        go.Figure(figure)


def test_a_differentiable_search_shows_how_sure_it_became(record):
    assert "How sure the search became" not in page(record)
    entropy = {"op<0>": [1.0, 0.5], "op1": [1.0, 0.1]}
    trace = {"progress": [0.0, 0.9], "entropy": entropy}
    record["relaxed"] = {"table": {"error": 0.064}, "training": {"total_steps": 141}, "trace": trace}
    del record["accuracy_predictor"], record["verify"]["accuracy_miss"]
    lines = figures(record)["entropies"]["data"]
    assert [line["y"] for line in lines] == [[1.0, 0.5], [1.0, 0.1], [1.0, pytest.approx(0.3)]]
    assert [line["name"] for line in lines] == ["op&lt;0&gt;", "op1", "all choices, on average"]
    text = _Parsed(page(record)).text
    assert "The search trained 141 steps, with a table of costs that errs by 6.4 % on average." in text
    assert "accuracy predictor" not in text


def test_front_figure_shows_test_accuracy_and_offers_validation(record):
    test, validation = figures(record)["front"]["data"]
    assert test["y"] == [p["accuracy"] for p in record["front"]]
    assert validation["y"] == [p["val_accuracy"] for p in record["front"]]
    assert validation["visible"] == "legendonly" and "visible" not in test
    assert test["error_x"]["array"][0] == pytest.approx(1.4e-5 * 0.02)
    assert test["error_x"]["arrayminus"][0] == pytest.approx(1.4e-5 * 0.015)


def test_everything_inserted_is_escaped(record):
    evil = "</script><b onclick='x'>&\"$title"
    record["space"]["name"] = record["data"]["name"] = record["settings"]["note"] = evil
    record["device"]["environment"] = {"cpu": evil, evil: evil}
    record["verify"]["dropped"] = [{"arch": evil, "why": evil}]
    record["search"]["importance"][0]["choice"] = evil
    record["space"]["rows"][0]["what"] = evil
    record["front"][0] |= {"file": "javascript:" + evil, "arch": {evil: evil}, "policy": {evil: evil}, "found_by": evil}
    parsed = _Parsed(page(record))
    assert not parsed.tags["b"] and not [k for k, _ in parsed.attributes if k == "onclick"]
    assert not [v for k, v in parsed.attributes if k == "href" and v.startswith("javascript:")]
    assert json.loads(parsed.scripts["record"]) == record
    assert not set("<>&") & set(parsed.scripts["record"] + parsed.scripts["figures"])
    assert "<b " not in json.dumps(figures(record))
    assert parsed.text.count(evil) >= 9


@pytest.mark.parametrize("part", sorted(SECTIONS))
def test_missing_part_is_left_out(record, part):
    assert f"<h2>{SECTIONS[part]}</h2>" in page(record)
    assert f"<h2>{SECTIONS[part]}</h2>" not in page(record | {part: None})
    del record[part]
    assert f"<h2>{SECTIONS[part]}</h2>" not in page(record)


def test_nothing_known_is_still_a_page():
    parsed = _Parsed(page({}))
    assert "No point was verified" in parsed.text
    assert not parsed.tags["section"]
    assert len(page({})) < 20_000


def test_missing_numbers_are_a_dash_never_invented(record):
    record["profile"]["held_out"]["spearman"] = float("nan")
    record["search"]["predictions"].append({"val_accuracy": None, "latency_s": {"predicted": None, "verified": 1e-5}})
    record["front"][0] = {"file": None, "accuracy": None, "latency_s": None}
    parsed = _Parsed(page(record))
    assert not re.search(r"\bnan\b", parsed.text, re.I) and "None" not in parsed.text
    assert json.loads(parsed.scripts["record"])["profile"]["held_out"]["spearman"] is None
    assert len(figures(record)["latency_pairs"]["data"][1]["x"]) == 28
    assert len(figures(record)["front"]["data"][0]["x"]) == 15


def test_groups_that_were_not_run_are_not_shown(record):
    del record["search"]["groups"]["random"], record["search"]["hypervolume"]["random"]
    text = _Parsed(page(record)).text
    assert "random sampling" not in text and "uniform scaling" in text
    names = [t.get("name") for t in figures(record)["evaluated"]["data"]]
    assert names == [None, "uniform scaling (9)", None, "search (36)"]


def test_headline_tells_what_was_found(record):
    record["front"][0]["accuracy"], record["front"][-1]["accuracy"] = 0.88, 0.9731
    assert headline(record) == (
        "Found 16 ONNX files, measured after export: latency 14–130 µs, test accuracy 88.0–97.3 %. "
        "The search was worth it: better than random sampling and uniform scaling (hypervolume 0.830 from 36 "
        "evaluations, against 0.710 from 36 evaluations for random sampling, 0.690 from 9 evaluations for uniform "
        "scaling)."
    )


def test_headline_warns_of_latencies_that_were_disturbed_throughout(record):
    for point, rounds in zip(record["front"], [*range(3, 19)], strict=True):
        point["latency_s"]["quiet_rounds"] = rounds
    assert "2 of 16 latencies may be too high: others used the core" in headline(record)


@pytest.mark.parametrize("random_volume", [0.83, 0.9, 0.83 / 1.009])
def test_headline_says_when_random_was_as_good(record, random_volume):
    record["search"]["hypervolume"]["random"] = random_volume
    said = headline(record)
    assert (
        "No advantage: the search was not surely better than random sampling, though better than uniform scaling"
        in said
    )
    assert "not worth its evaluations" in said and "The search was worth it" not in said


def test_a_lead_that_chance_may_have_made_is_no_advantage(record):
    record["search"]["advantage"] = {
        "random": {"ratio": 1.17, "interval": [0.9, 1.4], "chance": 0.12},
        "uniform": {"ratio": 1.2, "interval": [1.1, 1.3], "chance": 0.001},
    }
    said = headline(record)
    assert "No advantage: the search was not surely better than random sampling, though better than" in said
    assert "as good by chance 12.0 % of the time against random sampling: it was not worth" in said


def test_points_with_fewer_channels_say_how_much_faster_they_are(record):
    assert "channels" not in headline(record)
    for point, factor in zip(record["front"], (1.1, 1.25), strict=False):
        point["arch"] = {"stem.density": 0.5}
        point["twins"] = {"dense": {"latency_s": factor * point["latency_s"]["median"]}}
    assert "2 of 16 files keep fewer channels, 1.10 to 1.25 times as fast as with all." in headline(record)
    del record["front"][0]["twins"]
    assert "2 of 16 files keep fewer channels, 1.25 times as fast as with all (1 of them)." in headline(record)
    assert "1.25 times as fast as with all channels" in page(record)


def test_points_of_mixed_precisions_say_how_fast_they_are_beside_one(record):
    assert "mix precisions" not in headline(record)
    for point, factor in zip(record["front"], (1.1, 1.25), strict=False):
        point["policy"] = {"stem": "fp32", "head": "int8"}
        median = point["latency_s"]["median"]
        point["twins"] = {"fp32": {"latency_s": factor * median}, "int8": {"latency_s": 0.9 * median}}
    said = headline(record)
    mixed = sum(len(set(point["policy"].values())) > 1 for point in record["front"])
    assert (
        f"{mixed} of 16 files mix precisions, 1.10 to 1.25 times as fast as in fp32 throughout (2 of them), 0" in said
    )
    assert "1.25 times as fast as in fp32 throughout, 0.90 times as fast as in int8 throughout" in page(record)


def test_headline_without_baselines_claims_nothing(record):
    record["search"]["hypervolume"] = {"search": 0.83, "random": None}
    assert headline(record).endswith("No baseline was run, so whether the search was worth it is not known.")
    assert "worth" not in headline(record | {"search": None})


def test_headline_calls_only_verified_points_measured(record):
    record["front"] = [record["front"][0] | {"accuracy": 0.88}]
    assert headline(record).startswith("Found one ONNX file, measured after export: latency 14 µs, test accuracy 88.")
    record["front"][0]["provenance"] = "inherited"
    assert headline(record).startswith("Found one ONNX file: latency")


def test_precision_in_words():
    assert precision_words({"policy": {"a": "int8", "b": "fp32", "c": "int8"}}) == "int8 in 2 of 3 blocks, fp32 in 1"
    assert precision_words({"policy": {"a": "fp32", "b": "fp32", "c": "int8"}}) == "int8 in 1 of 3 blocks, fp32 in 2"
    assert precision_words({"policy": {"a": "int8", "b": "int8"}}) == "int8 in all 2 blocks"
    assert precision_words({"int8_share": 0.6}) == "60 % int8"
    assert precision_words({}) == ""


def test_staircase_rises_and_runs_to_the_slowest():
    points = [(0.5, 2.0), (0.4, 1.0), (0.45, 3.0), (0.6, 2.5), (0.3, 1.0)]
    assert _staircase(points) == [(0.4, 1.0), (0.5, 2.0), (0.6, 2.5), (0.6, 3.0)]


@pytest.mark.parametrize("ratio", [1.06, 1.5, 3.0, 7.9, 8.1, 40.0, 3e3, 1e6])
@pytest.mark.parametrize("low", [1e-6, 1.37e-5, 0.9])
def test_ticks_are_few_and_inside(low, ratio):
    ticks = _ticks(low, low * ratio)
    assert 2 <= len(ticks) <= 14
    assert ticks == sorted(ticks) and low <= ticks[0] and ticks[-1] <= low * ratio * (1 + 1e-9)
