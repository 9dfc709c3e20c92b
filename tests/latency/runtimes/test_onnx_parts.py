import json

import numpy as np
import pytest

from latency.device import Device, parse_device
from latency.runtimes.onnx_parts import open_parts, read_profile
from tests.latency.small_model import model


def event(name, us, kind="Conv", shapes=1):
    args = {"op_name": kind, "input_type_shape": [{"float": [1]}] * shapes}
    head = f'{{"cat" : "Node","pid" :1,"tid" :1,"dur" :{us},"ts" :7,"ph" : "X","name" :"{name}_kernel_time",'
    return f'{head}"args" : {json.dumps(args)}}},'


RUN = '{"cat" : "Session","dur" :5,"ts" :1,"ph" : "X","name" :"model_run","args" : {}},'


def test_a_profile_is_read_in_the_order_in_which_nodes_ran(tmp_path):
    lines = ["[", '{"cat" : "Session","dur" :5,"ts" :1,"ph" : "X","name" :"session_initialization","args" : {}},']
    for us in (12, 10):
        lines += [event("/x/Conv", us, shapes=3), event("Relu_1", us + 1, "Relu"), event("Relu_1", us + 2, "Relu"), RUN]
    (tmp_path / "p.json").write_text("\n".join([*lines, "]"]))
    found = read_profile(tmp_path / "p.json")
    assert found == {
        "/x/Conv": ("Conv", 3, [12, 10]),
        "Relu_1": ("Relu", 1, [13, 11]),
        "Relu_1 #2": ("Relu", 1, [14, 12]),
    }
    assert list(found) == ["/x/Conv", "Relu_1", "Relu_1 #2"] and not list(tmp_path.iterdir())


def test_seconds_are_in_the_middle_of_the_microseconds_that_the_profiler_tells(tmp_path):
    session = open_parts(model(8), parse_device("cpu"), tmp_path / "p")
    call = session.call(np.zeros(session.batch_shape(1), np.float32))
    for _ in range(3):
        call()
    nodes = session.end()
    assert nodes and all(len(seconds) == 3 for _, _, _, seconds in nodes)
    assert {round(1e7 * t) % 10 for _, _, _, seconds in nodes for t in seconds} == {5}


def test_other_run_times_have_no_such_profiler(tmp_path):
    with pytest.raises(ValueError, match="'cpu:torch' does not run in ONNX Runtime"):
        open_parts(model(8), Device("cpu:torch", "cpu", 1, "torch"), tmp_path / "p")
