import pytest

from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Blocks, Channels, Dense, NofM, Unstructured


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("dense", Dense()),
        ("channels:0.75", Channels(0.75)),
        ("channels:.75", Channels(0.75)),
        ("2:4", NofM(2, 4)),
        ("1:16", NofM(1, 16)),
        ("16x4:0.5", Blocks(16, 4, 0.5)),
        ("unstructured:0.8", Unstructured(0.8)),
    ],
)
def test_texts_and_their_patterns(text, pattern):
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("chanels:0.5", "channels:0.5"),
        ("Channels:0.5", "channels:0.5"),
        ("channels", "channels:0.75"),
        ("channels:half", "channels:0.75"),
        ("unstructred:0.9", "unstructured:0.9"),
        ("Dense", "dense"),
        ("UNSTRUCTURED:0.9", "unstructured:0.9"),
        ("16*4:0.5", "16x4:0.5"),
    ],
)
def test_what_was_meant_is_suggested(text, meant):
    with pytest.raises(ValueError, match="unknown sparsity") as error:
        parse_pattern(text)
    assert f"(did you mean {meant!r}?): there are dense, channels:0.75, 2:4, 16x4:0.5" in str(error.value)
    parse_pattern(meant)


def test_what_resembles_nothing_is_told_what_there_is():
    with pytest.raises(ValueError, match=r"^unknown sparsity 'winograd': there are dense, "):
        parse_pattern("winograd")


@pytest.mark.parametrize("text", ["channels:1.5", "unstructured:1", "4:4", "0x4:0.5"])
def test_numbers_out_of_range_are_refused(text):
    with pytest.raises(ValueError, match=f"sparsity '{text.partition(':')[0]}"):
        parse_pattern(text)
