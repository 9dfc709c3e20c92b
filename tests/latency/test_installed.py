import os
import subprocess
import sys

import pytest

from latency import installed
from latency.installed import Gpu, gpu, lacking, onnxruntime_cuda, torch_cuda, version, versions

SMI = """#!/bin/sh
echo "$@" > "$0.asked"
echo "NVIDIA H200, 580.65.06"
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """An `nvidia-smi` to be asked, whose file is returned; `NAME.asked` is what it was asked."""
    file = tmp_path / "nvidia-smi"
    file.write_text(SMI)
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu.cache_clear()
    yield file
    gpu.cache_clear()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("visible", "asked"), [(None, "-i 0 "), ("1,0", "-i 1 "), ("GPU-12ab", "-i GPU-12ab "), ("MIG-34cd", "--query")]
)
def test_the_gpu_is_the_first_one_that_is_visible(smi, monkeypatch, visible, asked):
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu() == Gpu("NVIDIA H200", "580.65.06")
    assert smi.with_name("nvidia-smi.asked").read_text().startswith(asked)


@pytest.mark.parametrize("visible", ["", "-1"])
def test_no_gpu_is_visible_where_none_is_let(smi, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu() is None


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\necho No devices were found\n", "#!/bin/sh\n"])
def test_an_nvidia_smi_that_finds_nothing_is_no_gpu(smi, script):
    smi.write_text(script)
    assert gpu() is None
    assert "no NVIDIA GPU was found" in lacking("gpu", "torch")


def test_builds_are_read_from_files_without_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(installed, "_folder", lambda package: tmp_path)
    assert torch_cuda() is None and onnxruntime_cuda() is None
    (tmp_path / "version.py").write_text("__version__ = '2.9'\ncuda: Optional[str] = '13.0'\n")
    assert torch_cuda() == "13.0"
    (tmp_path / "version.py").write_text("__version__ = '2.9'\ncuda = None\n")
    assert torch_cuda() is None
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "build_and_package_info.py").write_text("cuda_version = '12.8'\n")
    assert onnxruntime_cuda() is None  # without the provider itself
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").touch()
    assert onnxruntime_cuda() == "12.8"


def test_what_is_lacking_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(installed, "gpu", lambda: Gpu("a", "1"))
    monkeypatch.setattr(installed, "torch_cuda", lambda: None)
    monkeypatch.setattr(installed, "onnxruntime_cuda", lambda: None)
    assert "is built for CPUs: install" in lacking("gpu", "torch")
    assert "pip install onnxruntime-gpu" in lacking("gpu", "onnxruntime")
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'hwnas[openvino]'" in lacking("cpu", "openvino")
    assert "pip install torch" in lacking("cpu", "torch")
    assert lacking("cpu", "onnxruntime") is None


def test_native_kernels_lack_a_compiler_where_none_is_found(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-c++")
    assert "CXX names 'no-such-c++', which is not there; install g++ or set CXX" in lacking("cpu", "fused")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "none of g++, c++, clang++; install g++ or set CXX" in lacking("cpu", "fused")
    assert dict(versions("cpu", "fused"))["compiler"] == "unknown"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_measurements_of_native_kernels_depend_on_compiler_and_sources(tmp_path, monkeypatch):
    file = tmp_path / "c++"
    file.write_text("#!/bin/sh\necho some-c++ 1.2\necho more\n")
    file.chmod(0o755)
    monkeypatch.setenv("CXX", str(file))
    found = dict(versions("cpu", "fused"))
    assert lacking("cpu", "fused") is None and found["compiler"] == "some-c++ 1.2" and len(found["kernels"]) == 12
    monkeypatch.setattr(installed.toolchain, "kernels_digest", lambda: "other")
    assert dict(versions("cpu", "fused"))["kernels"] == "other"


def test_asking_for_a_compiler_loads_nothing_heavy():
    code = (
        "import sys; from latency.installed import lacking, versions;"
        "lacking('cpu', 'fused'); versions('cpu', 'fused');"
        "assert not {'numpy', 'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_versions_are_those_of_what_runs(monkeypatch):
    monkeypatch.setattr(installed, "gpu", lambda: Gpu("a", "1"))
    monkeypatch.setattr(installed, "torch_cuda", lambda: "13.0")
    assert versions("cpu", "onnxruntime") == ()
    assert versions("cpu", "torch") == (("torch", version("torch")),)
    expected = (("torch", version("torch")), ("cuda", "13.0"), ("gpu", "a"), ("driver", "1"))
    assert versions("gpu", "torch") == expected
    assert version("no-such-distribution", "torch") == version("torch")
    assert version("no-such-distribution") == "unknown"
