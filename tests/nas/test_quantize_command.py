"""`nas quantize` from the command line, on a network that was really trained."""

import functools
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command import nas as command
from onnx import numpy_helper
from rich.console import Console
from taught import teach
from torch import nn

import nas
from latency.lowering import to_onnx
from latency.worker import Effort
from nas import quantizing
from nas.quantized import quantized_view, write_quantized
from quant_search.dyadic import run_integers, with_dyadic_scales
from quant_search.islands import share_in_int8
from quant_search.ptq import reconstruct
from quant_search.ptq.fold import fold_constants
from quant_search.ptq.learned_rounding import Setting
from quant_search.sensitivity.kl import divergence
from supernet.data import load_data


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", image_size=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    """A folder with a network that knows digits."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
    place = tmp_path_factory.mktemp("quantize")
    onnx.save(to_onnx(teach(network, digits, epochs=8), (1, 16, 16)), place / "net.onnx")
    return place


def quantize(folder, *arguments):
    size = [] if "--image-size" in arguments else ["--image-size", 16]
    return command("quantize", *arguments, "--data", "digits", *size, cwd=folder, cache=folder / "cache")


@pytest.fixture(scope="module")
def done(folder):
    done = quantize(folder, "net.onnx", "--max-drop", 2, "--json")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def glance(monkeypatch):
    """Files are timed, hardly: where it is not by their time that one is chosen."""
    monkeypatch.setattr(quantizing, "CAREFUL", Effort(rounds=1, most_rounds=1, samples=4))


def test_the_file_is_what_was_measured(folder, done, digits):
    record = json.loads(done.stdout)
    session = onnxruntime.InferenceSession(folder / "quantized" / "net" / "model.onnx")
    logits = session.run(None, {"input": digits.x_test})[0]
    chosen = record["final"][record["chosen"]]
    assert np.mean(logits.argmax(1) == digits.y_test) == pytest.approx(chosen["accuracy"], abs=0.006)
    assert chosen["size_bytes"] == (folder / "quantized" / "net" / "model.onnx").stat().st_size
    assert record["final"]["fp32"]["val_accuracy"] - chosen["val_accuracy"] <= 0.02
    assert json.loads((folder / "quantized" / "net" / "quantize.json").read_text())["final"] == record["final"]


def test_each_layer_has_a_precision_and_a_reason(done):
    record = json.loads(done.stdout)
    in_fp32 = next(f["in_fp32"] for f in record["files"] if f["name"] == record["chosen"])
    assert len(record["layers"]) == 3
    for layer in record["layers"]:
        assert layer["precision"] == ("fp32" if layer["layer"] in in_fp32 else "int8")
        assert layer["why"] in done.stderr.replace("\n", " ") or layer["why"]
        assert set(layer["seconds"]) == {"fp32", "int8"} and set(layer["damage"]) == {"int8"}
    assert {t["name"] for t in record["tried"]} >= {"ranges: min-max", "equalization", "bias correction"}


def test_a_folder_with_something_in_it_is_left_alone(folder, done):
    again = quantize(folder, "net.onnx", "--out", folder / "quantized" / "net")
    assert again.returncode == 2 and "holds something already" in again.stderr


def test_size_takes_four_bits(folder, digits, glance, monkeypatch):
    forms, learn = [], quantizing.improve

    def improve(*arguments):
        form, trials = learn(*arguments)
        forms.append(replace(form, correcting=None))  # which leaves four bits as they are
        return form, trials

    monkeypatch.setattr(quantizing, "improve", improve)
    monkeypatch.setattr(reconstruct, "Setting", functools.partial(Setting, steps=100))
    x = digits.x_val[: quantizing.JUDGING]
    found = nas.quantize(
        folder / "net.onnx",
        replace(digits, x_val=x, y_val=digits.y_val[: len(x)]),
        precisions=("fp32", "int8", "w4a8"),
        objective="size",
        max_drop=0.05,
        rounding="adaround",
        quiet=True,
    )
    sizes = {made.name: len(made.model) for made in found.files}
    assert sizes["w4a8"] < sizes["int8"] < sizes["fp32"]
    assert len(found.chosen.model) <= sizes["int8"]
    (form,) = forms
    for layer in form.groups:  # alone in four bits: the file that is made is the file that damage is taken on
        outputs = [session_of(form.build(chosen)).run(None, {"input": x})[0] for chosen in ({layer: "w4a8"}, {})]
        assert found.damage.of(layer, "w4a8") == pytest.approx(divergence(*outputs), rel=1e-3, abs=1e-7)


def session_of(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_zeros_are_refused_with_the_factor_that_was_measured(folder, tmp_path):
    shutil.copy(folder / "net.onnx", tmp_path)
    done = quantize(tmp_path, "net.onnx", "--sparsity", "unstructured:0.8")
    assert done.returncode == 2 and "is not faster on cpu in int8: measured factor" in done.stderr, done.stderr
    assert not (tmp_path / "quantized").exists()


def test_fewer_channels_stand_beside_the_dense_network(folder, digits):
    found = nas.quantize(folder / "net.onnx", digits, sparsity="channels:0.5", max_drop=1.0, quiet=True)
    dense = [made for made in found.files if not made.twin]
    sparse = {made.twin: made for made in found.files if made.twin}
    assert [made.name for made in dense][:2] == ["fp32", "int8"] and list(sparse) == [made.name for made in dense]
    for made in dense:
        twin = sparse[made.name]
        assert twin.name == f"sparse {made.name}" and twin.chosen == made.chosen
        assert len(twin.model) < 0.8 * len(made.model)
    assert {"fp32", "int8", found.chosen.name, found.chosen.twin} - {""} == set(found.final)
    if found.chosen.twin:
        seconds = [found.final[name].measured.median_s for name in (found.chosen.name, found.chosen.twin)]
        assert seconds[1] > 1.03 * seconds[0]


def test_int8_is_there_to_compare_where_it_is_not_wanted(folder, digits, glance, tmp_path):
    found = nas.quantize(
        folder / "net.onnx", digits, precisions=("fp32", "w2"), objective="size", max_drop=0.001, quiet=True
    )
    record = write_quantized(found, tmp_path, "net.onnx", digits.name)
    assert "int8" in record["final"] and record["chosen"] != "int8"
    assert {layer["precision"] for layer in record["layers"]} <= {"fp32", "w2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.onnx"], "there is no file missing.onnx"),
        (["net"], "'net' is no network: give FILE.onnx"),
        (["net.onnx", "--precision", "int8"], "precisions are fp32 and what may take its place"),
        (["net.onnx", "--precision", "fp32,int9"], "unknown precision 'int9'"),
        (["net.onnx", "--precision", "fp32,w4a8"], "in the kernels of int8 on cpu: less accurate, and measured factor"),
        (["net.onnx", "--objective", "speed"], "unknown objective 'speed'"),
        (["net.onnx", "--rounding", "adarond"], "did you mean 'adaround'?"),
        (["net.onnx", "--sensitivity", "hesian"], "did you mean 'hessian'?"),
        (["net.onnx", "--sparsity", "chanels:0.5"], "did you mean 'channels:0.5'"),
        (
            ["net.onnx", "--finetune", "10"],
            "points of a search are trained on by `nas search --finetune`",
        ),
        (["net.onnx", "--integer-only"], "'fp32,int8' would leave the rest of it in fp32: give --precision int8"),
        (["net.onnx", "--integer-only", "--precision", "w4a8"], "an integer-only file is in int8 throughout"),
        (["net.onnx", "--pixels", "imagnet"], "unknown pixels 'imagnet'"),
        (["net.onnx", "--device", "cpu:torch"], "'cpu:torch' is another run-time: give --device cpu"),
        (["net.onnx", "--image-size", "12"], "give --image-size 16"),
        (["text.onnx"], "is no ONNX model"),
    ],
)
def test_bad_wishes_are_refused_before_any_work(folder, tmp_path, arguments, message):
    shutil.copy(folder / "net.onnx", tmp_path)
    (tmp_path / "text.onnx").write_text("no model")
    done = quantize(tmp_path, *arguments)
    assert (done.returncode, message in done.stderr) == (2 if "missing" not in message else 1, True), done.stderr
    assert sorted(file.name for file in tmp_path.iterdir() if file.name != "cache") == ["net.onnx", "text.onnx"]


def test_zeros_that_are_not_stored_make_files_smaller(folder, digits, glance, tmp_path):
    found = nas.quantize(
        folder / "net.onnx", digits, sparsity="unstructured:0.8", objective="size", max_drop=1.0, quiet=True
    )
    record = write_quantized(found, tmp_path, "net.onnx", digits.name)
    chosen, said = record["final"][record["chosen"]], io.StringIO()
    assert (tmp_path / "model.onnx").stat().st_size == chosen["size_bytes"] < chosen["dense_bytes"]
    Console(file=said).print(quantized_view(record))
    assert "Its zeros are not stored: with them it would be" in " ".join(said.getvalue().split())
    assert record["chosen"] == f"sparse {chosen['twin']}" and chosen["twin"] in record["final"]
    files = {made.name: made for made in found.files}
    int8, share = files["sparse int8"], share_in_int8(files["sparse int8"].model, found.device)
    assert share.share == 1 and not share.islands and len(int8.model) < int8.dense_bytes
    assert files["fp32"].dense_bytes is None and files["int8"].dense_bytes is None  # of the network that was given
    assert len(files["sparse fp32"].model) < 0.7 * files["sparse fp32"].dense_bytes


def test_integers_alone_give_the_same_classes(folder, tmp_path, digits, glance):
    shutil.copy(folder / "net.onnx", tmp_path)
    done = quantize(tmp_path, "net.onnx", "--precision", "int8", "--integer-only", "--max-drop", 5, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["chosen"], set(record["final"])) == ("int8", {"fp32", "int8"}) and record["wanted"]["integer_only"]
    found = record["in_integers"]
    assert found["images"] == 64 and found["same_class"] > 0.95
    assert "of 64 validation images fall into the same class as in ONNX Runtime" in " ".join(done.stderr.split())
    file = onnx.load(tmp_path / "quantized" / "net" / "model.onnx")
    again = with_dyadic_scales(file)
    scales = [{t.name: numpy_helper.to_array(t) for t in model.graph.initializer} for model in (file, again)]
    for name, values in scales[0].items():  # they are dyadic already
        np.testing.assert_allclose(scales[1][name], values, rtol=2**-22, err_msg=name)
    classes = run_integers(file, digits.x_test).argmax(1)
    assert np.mean(classes == digits.y_test) == pytest.approx(record["final"]["int8"]["accuracy"], abs=0.02)


def test_zeros_stay_while_a_pruned_network_is_trained(folder, tmp_path, glance):
    shutil.copy(folder / "net.onnx", tmp_path)
    wanted = ["--sparsity", "unstructured:0.8", "--finetune", 60, "--objective", "size", "--max-drop", 100]
    done = quantize(tmp_path, "net.onnx", *wanted, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    file, chosen = tmp_path / "quantized" / "net" / "model.onnx", record["final"][record["chosen"]]
    assert file.stat().st_size == chosen["size_bytes"] < chosen["dense_bytes"]
    sizes = {made["name"]: made for made in record["files"]}
    trained, shown = record["finetuned"], " ".join(done.stderr.split())
    assert trained["steps"] == record["wanted"]["finetune"] == 60 and trained["kept"]
    assert trained["val_accuracy"]["after"] == sizes["sparse fp32"]["val_accuracy"] > trained["val_accuracy"]["before"]
    assert "unstructured:0.8 in fp32, trained on for 60 steps" in shown and "before training" in shown
    weights = [numpy_helper.to_array(t) for t in fold_constants(onnx.load(file)).graph.initializer if len(t.dims) > 1]
    zeros = [np.mean(weight == 0) for weight in weights]
    assert len(zeros) == 3 and min(zeros) > 0.75, zeros  # zeros of weights stay zeros in codes
