import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.config import Settings, data_setting, first_line, parse_duration, parse_quantity, pretrained_setting
from nas.objectives import Bound, maximize, minimize

LAW = settings(max_examples=200, deadline=None, derandomize=True, database=None)
ROOT = Path(__file__).parents[2]

# One other value for each setting.
OTHER = {
    "space": "models:Net",
    "preset": "tiny",
    "space_fingerprint": "abc",
    "data": "images",
    "data_fingerprint": "abc",
    "image_size": 32,
    "device": "cpu:2",
    "sparsity": ("channels:0.5",),
    "precisions": ("fp32",),
    "objectives": ("size",),
    "searcher": "random",
    "seed": 1,
    "budget_s": 60.0,
    "epochs": 3,
    "batch": 16,
    "lr": 0.1,
    "strategy": "fair",
    "optimizer": "lamb",
    "weight_decay": 0.1,
    "label_smoothing": 0.1,
    "ema_decay": 0.9,
    "clip": 1.0,
    "mixup": 0.2,
    "erase": 0.1,
    "train_precisions": ("fp32", "int8"),
    "autocast": True,
    "pretrained": "weights.pth",
    "pretrained_fingerprint": "ab",
    "supernet": "/runs/super",
    "supernet_fingerprint": "ab",
    "evaluations": 12,
    "baselines": False,
    "max_latency_s": 0.002,
    "max_size_bytes": 1e6,
    "max_macs": 3e7,
    "max_parameters": 1e6,
    "max_memory_bytes": 2e6,
    "max_traffic_bytes": 2e7,
    "max_energy_joules": 0.005,
    "max_roofline_s": 0.001,
    "min_accuracy": 0.9,
    "profile": "/profiles/far.json",
    "profile_fingerprint": "ab",
    "source": "0123abcd-ef",
    "timings": 50,
}


# -- quantities --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("2ms", "s", 0.002),
        (" 2 ms ", "s", 0.002),
        ("150us", "s", 150e-6),
        ("150\N{MICRO SIGN}s", "s", 150e-6),
        ("150\N{GREEK SMALL LETTER MU}s", "s", 150e-6),
        ("80ns", "s", 80e-9),
        ("1.5s", "s", 1.5),
        (".5s", "s", 0.5),
        ("2.", "s", 2.0),
        ("0.002", "s", 0.002),
        ("2e-3", "s", 0.002),
        ("2E-3s", "s", 0.002),
        ("5mJ", "J", 0.005),
        ("1MB", "B", 1e6),
        ("500kB", "B", 5e5),
        ("500KB", "B", 5e5),
        ("2GB", "B", 2e9),
        ("1000000", "B", 1e6),
        ("1e+6", "B", 1e6),
        ("30M", "", 3e7),
        ("1.5G", "", 1.5e9),
        ("400k", "", 4e5),
        ("2T", "", 2e12),
        ("12345", "", 12345.0),
    ],
)
def test_quantities(text, unit, value):
    assert parse_quantity(text, unit) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (text, unit)
        for unit, texts in {
            "s": ["2m", "2k", "2kB", "2Ms", "2 m s", "1h", "5min"],  # 2m: minutes or a thousandth?
            "B": ["1M", "1k", "1mB", "1MiB", "1mb", "1MS", "1b"],
            "": ["30m", "30u", "30MB", "30 M B", "30Ms"],
        }.items()
        for text in [
            *texts,
            "",
            " ",
            "ms",
            "fast",
            "-2",
            "-2ms",
            "0",
            "0.0",
            "1..2",
            ".",
            "1,5",
            "1e999",
            "nan",
            "inf",
            "1e-999",
        ]
    ],
)
def test_what_is_no_quantity_is_refused_with_an_example(text, unit):
    example = {"s": "2ms", "B": "1MB", "": "30M"}[unit]
    with pytest.raises(ValueError, match=f"expected a quantity such as {example}") as caught:
        parse_quantity(text, unit)
    assert str(caught.value).endswith(f"got {text!r}")


@LAW
@given(
    st.floats(1e-3, 1e5),
    st.sampled_from(
        [(p, "s", f) for p, f in {"": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}.items()]
        + [(p, u, f) for u in ("B", "") for p, f in {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.items()]
    ),
    st.sampled_from(["", " ", "  "]),
)
def test_quantities_are_read_back(number, kind, space):
    prefix, unit, factor = kind
    assert parse_quantity(f"{space}{number!r}{space}{prefix}{unit}{space}", unit) == pytest.approx(number * factor)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("90", 90), ("4m", 240), ("4min", 240), ("1.5h", 5400), (" 2 m ", 120), ("1e2s", 100), (".5h", 1800)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "4d", "4ms", "-4m", "0", "0m", "soon", "1:30", "4m30s", "..m", "1e999h", "nan", "4 minutes"]
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="expected a duration such as 90s, 4m or 1h") as caught:
        parse_duration(text)
    assert str(caught.value).endswith(f"got {text!r}")


@LAW
@given(st.floats(1e-3, 1e5), st.sampled_from([("", 1), ("s", 1), ("m", 60), ("min", 60), ("h", 3600)]))
def test_durations_are_read_back(number, kind):
    unit, factor = kind
    assert parse_duration(f"{number!r}{unit}") == pytest.approx(number * factor)


@LAW
@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_one_line_error(text):
    for parse in (parse_duration, *(lambda t, u=u: parse_quantity(t, u) for u in ("s", "B", ""))):
        try:
            assert parse(text) > 0
        except ValueError as error:
            assert str(error).isprintable()
            assert "expected" in str(error) and "got" in str(error)


# -- settings ----------------------------------------------------------------------------------------


def test_every_setting_changes_the_digest_and_equal_settings_share_it():
    assert OTHER.keys() == Settings.model_fields.keys()
    digests = {Settings(**{name: value}).digest for name, value in OTHER.items()}
    assert len(digests | {Settings().digest}) == len(OTHER) + 1
    assert Settings().digest == Settings(**Settings().model_dump()).digest
    assert Settings(precisions=["fp32", "int8"], budget_s=240).digest == Settings().digest


def test_the_digest_is_the_same_in_another_process():
    code = "from nas.config import Settings; print(Settings(seed=3, lr=0.1).digest)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == Settings(seed=3, lr=0.1).digest
    assert len(done.stdout.strip()) == 8


def test_the_problem_is_accuracy_against_latency_within_the_bounds():
    assert Settings().problem.objectives == (maximize("val_accuracy"), minimize("latency_s"))
    assert Settings().problem.bounds == ()
    names = [name for name in OTHER if name.startswith("max_")]
    given = Settings(**{name: OTHER[name] for name in names}, min_accuracy=0.9)
    assert given.problem.bounds == (
        Bound("latency_s", 0.002),
        Bound("energy_joules", 0.005),
        Bound("size_bytes", 1e6),
        Bound("macs", 3e7),
        Bound("parameters", 1e6),
        Bound("memory_bytes", 2e6),
        Bound("traffic_bytes", 2e7),
        Bound("roofline_s", 0.001),
        Bound("val_accuracy", 0.9, at_least=True),
    )


def test_the_costs_that_are_made_small_can_be_chosen():
    chosen = Settings(objectives=("size", "energy"))
    assert chosen.problem.objectives == (maximize("val_accuracy"), minimize("size_bytes"), minimize("energy_joules"))
    assert chosen.problem.names == ("val_accuracy", "size_bytes", "energy_joules")


@pytest.mark.parametrize(
    "name", ["budget_s", "lr", "max_latency_s", "max_size_bytes", "max_memory_bytes", "min_accuracy"]
)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_settings_that_make_no_sense_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        Settings(**{name: value})
    assert first_line(caught.value).startswith(f"{name}: Input should be ")


def test_the_gist_of_an_error_is_one_line():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"


def test_data_are_remembered_by_name_or_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "set.npz").touch()
    assert data_setting("digits") == "digits"
    assert data_setting("mine/set.npz") == data_setting("~/mine/set.npz") == str(tmp_path / "mine" / "set.npz")
    with pytest.raises(ValueError, match=r"'mine/other.npz' does not exist"):
        data_setting("mine/other.npz")


def test_weights_in_files_and_folders_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("run", "a.pth", "b.safetensors"):
        assert pretrained_setting(name) == str(tmp_path / name)
    assert pretrained_setting("resnet18:a.pth") == f"resnet18:{tmp_path / 'a.pth'}"
    for name in ("resnet18", "timm/resnet18.a1_in1k", str(tmp_path / "a.pth"), f"resnet18:{tmp_path / 'a.pth'}"):
        assert pretrained_setting(name) == name
