"""What is asked of `nas.quantize`, checked before anything is read."""

import pytest

import nas


@pytest.mark.parametrize("precisions", ["fp32, int8", ("fp32", "int8"), ["fp32", "int8"]])
def test_precisions_are_a_list_or_stand_between_commas(precisions):
    with pytest.raises(ValueError, match="max_drop is a share"):  # what is checked after them
        nas.quantize("missing.onnx", "digits", precisions=precisions, max_drop=7, quiet=True)


def test_a_precision_is_asked_for_by_its_one_name():
    with pytest.raises(ValueError, match="'w8a8': weights and activations of 8 bits are called int8, give that"):
        nas.quantize("missing.onnx", "digits", precisions="fp32,w8a8", quiet=True)
