import numpy as np
import pytest

from nas.searchers.listed import Listed


def test_it_proposes_the_list_in_order_each_once_and_nothing_else():
    searcher = Listed(np.array([[1, 2], [0, 0], [1, 2], [3, 1]]))
    assert searcher.ask(2).tolist() == [[1, 2], [0, 0]]
    searcher.tell([])
    assert searcher.ask(5).tolist() == [[3, 1]]
    assert searcher.ask(5).shape == (0, 2)


def test_no_list_of_rows_is_refused():
    with pytest.raises(ValueError, match=r"must have shape \(n, d\), got \(3,\)"):
        Listed(np.array([1, 2, 3]))
