"""Run folders on disk."""

import json
import os
from pathlib import Path

import pytest

from nas.config import Settings, Training
from nas.folder import CHECKPOINT, FILE, default_folder, open_folder, read_record, read_settings, with_supernet


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        (Settings(), "mbconv-digits-cpu"),
        (Settings(space="my.models:Net", data="/data/my images.npz", device="cpu:4"), "Net-my_images-cpu_4"),
        (Settings(data="../../up"), "mbconv-up-cpu"),
        (Settings(data=".."), "mbconv-..-cpu"),
    ],
)
def test_the_default_folder_names_space_data_and_device(settings, start):
    folder = default_folder(settings)
    assert folder == Path("runs") / f"{start}-{settings.digest}"
    assert folder.parent == Path("runs")


def test_the_default_folder_can_be_made_however_long_the_strategy():
    settings = Training(strategy=f"Among(rows={((0, 1, 2),) * 100})")
    name = default_folder(settings).name
    assert name.startswith("mbconv-digits-Among_rows_0_1_2") and name.endswith(settings.digest) and len(name) < 120


def test_a_folder_is_made_once_and_found_again(tmp_path):
    folder, given = (
        tmp_path / "a" / "b",
        Settings(space="models:Net", data="images", epochs=3, lr=0.1, precisions=("fp32",)),
    )
    assert open_folder(folder, given) is False
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert read_settings(folder) == given
    assert open_folder(folder, given) is True


def test_an_empty_folder_may_be_used(tmp_path):
    assert open_folder(tmp_path, Settings()) is False


def test_a_run_of_other_settings_is_left_alone(tmp_path):
    open_folder(tmp_path, Settings())
    with pytest.raises(ValueError, match=r"holds a run with seed=0, now seed=5: name another folder with --out"):
        open_folder(tmp_path, Settings(seed=5))
    assert read_settings(tmp_path) == Settings()


def test_a_run_of_a_space_that_has_changed_is_left_alone(tmp_path):
    open_folder(tmp_path, Settings(space="m:Net", space_fingerprint="a"))
    with pytest.raises(ValueError, match=r"a run of m:Net before it was changed: name"):
        open_folder(tmp_path, Settings(space="m:Net", space_fingerprint="b"))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(ValueError, match=r"exists and holds no run: name another folder with --out"):
        open_folder(tmp_path, Settings())
    with pytest.raises(ValueError, match=r"exists and holds no run"):
        open_folder(tmp_path / "thesis.tex", Settings())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_killed_while_it_wrote_its_config_is_begun_again(tmp_path):
    (tmp_path / "config.part").write_text('{"space": "mb')
    assert open_folder(tmp_path, Settings()) is False
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_folder_that_cannot_be_made_is_the_systems_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        open_folder(tmp_path / "file" / "run", Settings())


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="the superuser may write everywhere")
def test_an_unwritable_folder_is_the_systems_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        open_folder(tmp_path / "run", Settings())


def test_reading_a_folder_without_a_run_says_what_to_give(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run \(no config.json\): give the folder"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "Invalid JSON"),
        ('{"seed": 1', "Invalid JSON"),
        ("[1, 2]", "Input should be an object"),
        (json.dumps({"sed": 1}), "sed: Extra inputs are not permitted, got 1"),
        (json.dumps({"seed": "x"}), "seed: Input should be a valid integer.*, got 'x'"),
        (json.dumps({"precisions": 8}), "precisions: Input should be a valid array, got 8"),
        (json.dumps({"evaluations": 2}), "evaluations: Input should be greater than or equal to 4, got 2"),
        (json.dumps({"space": ["x" * 10] * 1000}), "space: Input should be a valid string, got "),
    ],
)
def test_a_config_that_cannot_be_read_is_one_line_with_the_reason(tmp_path, content, said):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=f"config.json is not the config of a run of this version: .*{said}") as caught:
        read_settings(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_config_that_is_no_text_is_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not the config of a run"):
        read_settings(tmp_path)


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        read_record(tmp_path)
    open_folder(tmp_path / "run", Settings())
    with pytest.raises(ValueError, match="is not finished: repeat its `nas search`"):
        read_record(tmp_path / "run")
    (tmp_path / "run" / "record.json").write_text(json.dumps({"front": []}))
    assert read_record(tmp_path / "run") == {"front": []}


def test_a_search_with_weights_cannot_ask_for_another_training(tmp_path):
    settings = Training(space="mbconv", train_precisions=("fp32", "int8"))
    open_folder(tmp_path / "run", settings)
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.training.read_history", lambda _: None)
        found = with_supernet(Settings(train_precisions=("fp32", "int8"), data="cifar10"), tmp_path / "run")
        assert found.train_precisions == ("fp32", "int8") and found.data == "digits"
        for other in ({"train_precisions": ("w4a8",)}, {"sparsity": ("channels:0.5",)}, {"epochs": 3}):
            name = next(iter(other))
            with pytest.raises(ValueError, match=rf"has {name}=.*, not .*: leave that out"):
                with_supernet(Settings(**other), tmp_path / "run")
