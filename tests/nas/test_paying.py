"""What a search refuses, and what it says then."""

import pytest

from latency.device import parse_device
from nas.config import Settings
from nas.paying import check_wishes, refuse_zeros
from nas.progress import SilentReporter
from quant_search.sparsity import factor

CPU = parse_device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path))


@pytest.fixture
def unmeasured(monkeypatch):
    def compared(*_):
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(factor, "compare_models", compared)


@pytest.mark.parametrize("sparsity", [(), ("channels:0.5", "channels:0.75")])
def test_channels_and_precisions_with_kernels_need_no_proof(sparsity, unmeasured):
    check_wishes(Settings(sparsity=sparsity, precisions=("fp32", "int8")), CPU, SilentReporter())


def test_few_bits_and_zeros_may_be_asked_for_where_size_counts(unmeasured):
    check_wishes(Settings(precisions=("fp32", "w4a8"), objectives=("latency", "size")), CPU, SilentReporter())
    with pytest.raises(ValueError, match="search without it, and then `nas quantize FILE --sparsity 2:4 --objective"):
        check_wishes(Settings(sparsity=("2:4",), objectives=("size",)), CPU, SilentReporter())


def test_zeros_are_refused_whatever_they_bring():
    with pytest.raises(ValueError, match=r"nas quantize FILE --sparsity 16x4:0\.5"):
        refuse_zeros(("channels:0.5", "16x4:0.5"))
    refuse_zeros(("channels:0.5",))


def test_what_brings_nothing_is_refused_with_its_factor():
    with pytest.raises(ValueError, match=r"sparsity '2:4' is not faster on cpu in fp32: measured factor \d\.\d\d"):
        check_wishes(Settings(sparsity=("2:4",)), CPU, SilentReporter())
