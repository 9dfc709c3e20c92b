import pytest

from nas.searchers.exhaustive import ExhaustiveSearch
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from tests.nas.searchers.bowl import SPACE, tuples


def test_asking_in_pieces_walks_the_same_way():
    whole, pieces = ExhaustiveSearch(SPACE, 1), ExhaustiveSearch(SPACE, 1)
    assert tuples(whole.ask(256)) == tuples(pieces.ask(100)) + tuples(pieces.ask(1000))


def test_the_order_is_random():
    first = tuples(ExhaustiveSearch(SPACE, 0).ask(20))
    assert first != sorted(first) and first != tuples(ExhaustiveSearch(SPACE, 1).ask(20))


def test_a_large_space_is_refused_with_its_size():
    large = SearchSpace("large", [Choice(f"c{j}", (0, 1)) for j in range(17)])
    with pytest.raises(ValueError, match=r"'large' has 131072 architectures, .* lists 100000 at most: take another"):
        ExhaustiveSearch(large, 0)
