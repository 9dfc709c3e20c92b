import dataclasses
import os

import pytest

from latency import device as device_module
from latency.catalog import DEVICES
from latency.device import (
    Device,
    Environment,
    baseline_of,
    entry_of,
    environment,
    fingerprint,
    parse_cpuinfo,
    parse_device,
    usable_cores,
)
from latency.installed import version

X86 = """\
processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8 made_up

processor\t: 1
model name\t: Another
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd crc32 asimddp i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""
ENVIRONMENT = Environment("cpu", ("avx2",), 4, "Linux", "x86_64", "1.0", "2.0", "3.11.0")


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    """Four cores while a test runs; what is remembered of them must not reach the tests of other files."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    environment.cache_clear()
    yield
    environment.cache_clear()


def test_devices_parse_and_their_names_parse_back():
    assert parse_device("cpu") == Device("cpu", "cpu", 1, "onnxruntime")
    assert parse_device("cpu:threads=2") == Device("cpu:threads=2", "cpu", 2, "onnxruntime")
    assert parse_device("cpu:threads=1") == parse_device("cpu")
    assert parse_device("cpu:torch") == Device("cpu:torch", "cpu", 1, "torch")
    for text in ("cpu:torch,threads=2", "cpu:threads=2,torch"):
        assert parse_device(text) == Device("cpu:torch,threads=2", "cpu", 2, "torch")
    assert parse_device("cpu:batch=8,threads=2") == Device("cpu:threads=2,batch=8", "cpu", 2, "onnxruntime", 8)
    for text in ["cpu", "cpu:torch", "cpu:threads=4", "cpu:torch,threads=3", "cpu:batch=2", "cpu:torch,batch=2"]:
        assert parse_device(parse_device(text).name) == parse_device(text)


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert usable_cores() == 1 and environment().cores == 4
    with pytest.raises(ValueError, match=r"from 1 to 1 \(cores that this process is allowed\), got '2'"):
        parse_device("cpu:threads=2")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == 4 and parse_device("cpu:threads=4").threads == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cqu", r"unknown device 'cqu' \(did you mean 'cpu'\?\): there are cpu"),
        ("toaster", r"unknown device 'toaster': there are cpu"),
        ("", "unknown device ''"),
        ("CPU", "unknown device 'CPU'"),
        ("cuda", r"unknown device 'cuda' \(did you mean 'gpu'\?\)"),
        ("gpu:threads=2", "unknown option 'threads': there is torch, batch=N"),
        (
            "cpu:torhc",
            r"unknown option 'torhc' \(did you mean 'torch'\?\): there is torch, openvino, fused, threads=N, batch=N",
        ),
        ("cpu:torch,threads=9", "from 1 to 4 .*got '9'"),
        ("cpu:torch,openvino", "'openvino' is one option too many"),
        ("cpu:threads=2,threads=3", "'threads=3' is one option too many"),
        ("cpu:fused:threads=2", "options are separated by commas: give cpu:fused,threads=2"),
        ("cpu:thread=2", r"unknown option 'thread' \(did you mean 'threads'\?\)"),
        ("cpu:", "unknown option ''"),
        ("cpu:threads", "from 1 to 4 .*got ''"),
        ("cpu:batch=2,batch=2", "'batch=2' is one option too many"),
        ("cpu:batch=0", "batch must be a whole number from 1 to 65536 .images., got '0'"),
        ("cpu:threads=0", "from 1 to 4 .*got '0'"),
        ("cpu:threads=5", "from 1 to 4 .*got '5'"),
        ("cpu:threads=-1", "got '-1'"),
        ("cpu:threads=two", "got 'two'"),
        ("cpu:threads=٣", "got '٣'"),
    ],
)
def test_what_cannot_be_measured_on_is_refused_by_name(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_device(text)
    assert "\n" not in str(caught.value)


@pytest.fixture
def there(monkeypatch):
    """Makes only the given (kind, run-time) pairs be there."""

    def only(*pairs):
        monkeypatch.setattr(
            device_module, "lacking", lambda kind, runtime: None if (kind, runtime) in pairs else f"no {runtime} there"
        )

    return only


def test_a_gpu_is_onnx_runtimes_where_it_can_be_and_torchs_otherwise(there):
    there(("gpu", "onnxruntime"), ("gpu", "torch"))
    assert parse_device("gpu") == Device("gpu", "gpu", 1, "onnxruntime")
    assert parse_device("gpu:torch") == Device("gpu:torch", "gpu", 1, "torch")
    there(("gpu", "torch"))
    assert parse_device("gpu") == parse_device("gpu:torch") == Device("gpu:torch", "gpu", 1, "torch")


def test_what_is_not_there_is_an_error_and_no_other_device(there):
    there(("cpu", "onnxruntime"))
    for name in ("gpu", "gpu:torch", "cpu:openvino", "cpu:torch"):
        with pytest.raises(ValueError, match=f"device '{name}': no .* there"):
            parse_device(name)


def test_every_device_of_the_catalog_parses_back_where_it_is_there(there):
    there(*((entry.kind, entry.runtime) for entry in DEVICES.values()))
    for name, entry in DEVICES.items():
        device = parse_device(name)
        assert device.name == name and parse_device(device.name) == device and entry_of(device) == entry
        assert entry.precisions and ({"fp32", "int8"} <= set(entry.precisions)) == (not entry.only)


def test_a_baseline_has_as_many_threads_and_images(there):
    there(("cpu", "fused"), ("cpu", "onnxruntime"))
    assert baseline_of(parse_device("cpu:fused,threads=2,batch=3")) == parse_device("cpu:threads=2,batch=3")
    assert baseline_of(parse_device("cpu:fused")) == parse_device("cpu") and baseline_of(parse_device("cpu")) is None


def test_cpuinfo_of_x86_and_arm_and_of_nothing():
    assert parse_cpuinfo(X86) == ("Some CPU @ 2.00GHz", ("amx_int8", "avx2", "avx512_vnni", "avx512f"))
    assert parse_cpuinfo(ARM) == ("Arm implementer 0x41 part 0xd40", ("asimd", "asimddp", "i8mm"))
    assert parse_cpuinfo("") == ("unknown", ())


def test_environment_has_every_field():
    fields = environment().plain()
    assert all(fields[name] for name in fields if name != "isa") and fields["onnxruntime"] != "unknown"
    assert "torch" not in fields and environment(parse_device("cpu:torch")).plain()["torch"] == version("torch")


def test_fingerprints_of_measurements_that_are_stored_stay_as_they_were():
    assert fingerprint(Device("cpu", "cpu", 1, "onnxruntime"), ENVIRONMENT) == "474f781a6f473525"
    assert fingerprint(Device("cpu:threads=2", "cpu", 2, "onnxruntime"), ENVIRONMENT) == "24a36d1a09add90c"


def test_a_fingerprint_has_the_version_of_the_run_time_that_is_used():
    torch_env = dataclasses.replace(ENVIRONMENT, versions=(("torch", "2.6"),))
    device = parse_device("cpu:torch")
    known = fingerprint(device, torch_env)
    assert known != fingerprint(device, dataclasses.replace(torch_env, versions=(("torch", "2.7"),)))
    assert known == fingerprint(device, dataclasses.replace(torch_env, onnxruntime="x"))


def test_fingerprint_sees_environment_and_device_settings():
    cpu = parse_device("cpu")
    assert fingerprint(cpu, ENVIRONMENT) == fingerprint(cpu, ENVIRONMENT) and len(fingerprint(cpu)) == 16
    changes = [
        {"cpu": "x"}, {"isa": ()}, {"cores": 5}, {"system": "x"}, {"machine": "x"},
        {"onnxruntime": "x"}, {"numpy": "x"}, {"python": "x"},
    ]  # fmt: skip
    others = [fingerprint(cpu, dataclasses.replace(ENVIRONMENT, **change)) for change in changes]
    others += [
        fingerprint(dataclasses.replace(cpu, **change), ENVIRONMENT)
        for change in ({"threads": 2}, {"runtime": "x"}, {"batch": 2})
    ]
    assert len({fingerprint(cpu, ENVIRONMENT), *others}) == len(others) + 1
