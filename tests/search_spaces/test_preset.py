import importlib
import re

import pytest

from search_spaces.catalog import SPACES
from search_spaces.mbconv import PRESETS
from search_spaces.preset import find_preset, preset_for


def test_a_preset_is_chosen_by_the_image_size():
    found = [preset_for("mbconv", PRESETS, size) for size in (8, 32, 33, 224)]
    assert found == ["tiny", "tiny", "mobile", "mobile"]
    assert find_preset("mbconv", PRESETS, 8, None) is PRESETS["tiny"]
    assert find_preset("mbconv", PRESETS, 8, "mobile") is PRESETS["mobile"]


@pytest.mark.parametrize(
    ("size", "preset", "multiple", "message"),
    [
        (32, "huge", 1, "unknown mbconv preset 'huge': there are tiny, mobile"),
        (5000, None, 1, "no mbconv preset is meant for images of 5000 pixels: shrink them to at most 4096"),
        (30, None, 4, "mbconv takes image sizes that are multiples of 4 pixels, got 30: resize images to 32"),
        (0, None, 4, "mbconv takes image sizes that are multiples of 4 pixels, got 0: resize images to 4"),
    ],
)
def test_wrong_arguments_are_named(size, preset, multiple, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find_preset("mbconv", PRESETS, size, preset, multiple)


@pytest.mark.parametrize("space", SPACES)
def test_the_catalog_knows_every_preset_and_a_size_that_it_is_meant_for(space):
    entry = SPACES[space]
    known = importlib.import_module(entry.builder.partition(":")[0]).PRESETS
    assert list(entry.presets) == list(known)
    for name, (size, _) in entry.presets.items():
        default = preset_for(space, known, size)
        assert size <= known[name].largest_image
        assert default == name or known[default].largest_image == known[name].largest_image  # one that must be named
