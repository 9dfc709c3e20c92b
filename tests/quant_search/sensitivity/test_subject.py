import numpy as np
import pytest

from quant_search.sensitivity.subject import Sensitivity, Subject, by_layer
from tests.quant_search.small_digits import digits, trained
from tests.quant_search.tied import tied

X, Y = (part[:8] for part in digits())


def test_a_group_is_a_layer_and_what_runs_before_the_next():
    groups = by_layer(trained())
    layers = ("stem.0/Conv", "block.0/Conv", "block.3/Conv", "block.6/Conv", "down.0/Conv", "last/Gemm")
    assert list(groups) == [f"/{layer}" for layer in layers]
    assert groups["/block.6/Conv"] == ["/block.6/Conv", "/block.6/Add"]
    every = [name for nodes in groups.values() for name in nodes]
    assert sorted(every) == sorted(node.name for node in trained().graph.node if node.op_type != "Constant")


def test_layers_that_share_a_weight_are_one_group():
    groups = by_layer(tied())
    assert list(groups) == ["stem", "one", "last"]
    assert groups["one"] == ["one", "relu1", "two", "flatten"]


def test_options_are_for_every_group_or_for_each():
    groups = by_layer(trained())
    subject = Subject(trained(), groups, ["fp32", "int8"], X)
    assert set(subject.of_group.values()) == {("fp32", "int8")} and subject.every_option == ("fp32", "int8")
    own = dict.fromkeys(groups, ("int8",)) | {"/last/Gemm": ("w4a8", "int8")}
    assert Subject(trained(), groups, own, X).every_option == ("int8", "w4a8")


def test_a_table_has_no_number_where_a_group_lacks_the_option():
    groups = by_layer(trained())
    own = dict.fromkeys(groups, ("int8",)) | {"/last/Gemm": ("w4a8", "int8")}
    calls = []
    table = Subject(trained(), groups, own, X).table(lambda g, o: len(g) + len(o), lambda *done: calls.append(done))
    assert np.isnan(table[:-1, 1]).all() and table[-1, 1] == len("/last/Gemm") + 4
    assert table[0, 0] == len("/stem.0/Conv") + 4 and calls == [(i, 7) for i in range(1, 8)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"groups": {}}, "needs groups of nodes"),
        ({"options": ()}, "with one precision at least"),
        ({"options": {"/stem.0/Conv": ("int8",)}}, "for every group or for each by name"),
        ({"options": ("int4",)}, "unknown precision 'int4': there are fp32, int8"),
        ({"groups": {"a": ["no such"]}}, "group 'a' has a node 'no such'"),
        ({"groups": {"a": ["/stem.0/Conv"], "b": ["/stem.0/Conv"]}}, "in the groups 'a' and 'b'"),
        ({"images": X[:0]}, "images of float32, one at least, got 0"),
        ({"images": X.astype(np.float64)}, "got 8 of float64"),
        ({"labels": Y[:3]}, r"got \(3,\) for 8 images"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(changed, message):
    given = {"model": trained(), "groups": by_layer(trained()), "options": ("int8",), "images": X, "labels": Y}
    with pytest.raises(ValueError, match=message):
        Subject(**given | changed)


def test_damages_are_found_and_ranked_by_name():
    damage = np.array([[0.1, np.nan], [0.3, 0.2], [0.2, 0.4]])
    found = Sensitivity("sqnr", ("a", "b", "c"), ("int8", "w4a8"), damage, 1.0)
    assert found.of("b", "w4a8") == 0.2 and np.isnan(found.of("a", "w4a8"))
    assert found.ranking("int8") == ("b", "c", "a") and found.ranking("w4a8") == ("c", "b")
    assert found.rows()["a"] == {"int8": 0.1} and found.rows()["c"] == {"int8": 0.2, "w4a8": 0.4}
    with pytest.raises(KeyError, match="no damage of 'fp32' to 'a'"):
        found.of("a", "fp32")
