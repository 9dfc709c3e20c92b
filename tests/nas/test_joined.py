"""Modules joined to a script."""

import ast
import runpy

import pytest

from latency import pace, timing
from nas.joined import joined


@pytest.fixture(scope="module")
def source():
    return joined("latency.standalone", "", "")


def test_a_script_needs_nothing_but_numpy_and_onnxruntime(source):
    tree = ast.parse(source, feature_version=(3, 10))
    found = {
        name.partition(".")[0]
        for node in tree.body
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert {"numpy", "onnxruntime"} < found
    assert not found & {"latency", "nas", "scipy", "torch", "onnx", "pydantic"}


def test_private_names_of_several_modules_are_told_apart(source, tmp_path):
    (tmp_path / "script.py").write_text(source)
    names = runpy.run_path(str(tmp_path / "script.py"), run_name="script")
    assert pace._DISTURBED != timing._DISTURBED
    assert (names["_pace_DISTURBED"], names["_timing_DISTURBED"]) == (pace._DISTURBED, timing._DISTURBED)
    assert "_DISTURBED" not in names


def test_what_a_script_cannot_have_is_refused():
    with pytest.raises(ValueError, match=r"latency\.lowering imports onnx, which a script cannot have"):
        joined("latency.lowering", "", "")
