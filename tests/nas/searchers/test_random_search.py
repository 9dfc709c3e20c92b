import numpy as np

from nas.searchers.random_search import RandomSearch, fresh_rows
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("s", [Choice(f"c{j}", (1, 2, 3)) for j in range(6)])
LARGE = SearchSpace("l", [Choice(f"c{j}", (1, 2)) for j in range(20)])


def test_asking_in_pieces_draws_the_same_as_asking_at_once():
    whole = RandomSearch(SPACE, 5).ask(60)
    searcher = RandomSearch(SPACE, 5)
    assert np.array_equal(np.concatenate([searcher.ask(n) for n in (1, 25, 4, 30)]), whole)


def test_every_architecture_is_equally_likely():
    space = SearchSpace("s", [Choice("a", (1, 2)), Choice("b", (1, 2))])
    first = [tuple(RandomSearch(space, seed).ask(1)[0].tolist()) for seed in range(800)]
    counts = [first.count(arch.indices) for arch in space.enumerate()]
    assert min(counts) > 150 and max(counts) < 250


def test_the_last_architectures_of_a_small_space_are_found():
    asked = {arch.indices for arch in SPACE.enumerate()} - {(0, 1, 2, 0, 1, 2), (2, 2, 2, 2, 2, 2)}
    rows = fresh_rows(SPACE, 3, np.random.default_rng(0), asked)
    assert {tuple(row) for row in rows.tolist()} == {(0, 1, 2, 0, 1, 2), (2, 2, 2, 2, 2, 2)}
    assert len(asked) == SPACE.size


def test_a_large_space_is_given_up_and_not_listed(monkeypatch):
    monkeypatch.delattr(SearchSpace, "enumerate")

    class Everything(set):
        def __contains__(self, row):
            return True

    assert fresh_rows(LARGE, 3, np.random.default_rng(0), Everything()).shape == (0, 20)


def test_asking_for_nothing_gives_nothing():
    assert RandomSearch(SPACE, 0).ask(0).shape == (0, 6)
