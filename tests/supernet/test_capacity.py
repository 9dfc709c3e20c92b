import os

import pytest

from supernet.capacity import available_memory_bytes, check_fits


def test_refuses_what_does_not_fit():
    check_fits("photos", 100, 1000, available_bytes=1_000_000)
    with pytest.raises(ValueError, match=r"photos: 1,000 images of 1,000 values need about 0\.0 GB.*image_size"):
        check_fits("photos", 1000, 1000, available_bytes=1_000_000)


def test_available_memory_is_some_of_the_machine():
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine / 1000 < available_memory_bytes() <= machine
