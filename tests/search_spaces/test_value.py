import re

import pytest

from search_spaces.value import (
    Choice,
    Condition,
    Expression,
    choices_of,
    possible,
    possible_ints,
    possible_together,
    resolve,
    round_to,
)

WIDTH = Choice("width", (8, 16))
RATIO = Choice("ratio", (1, 2, 4))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (WIDTH * RATIO, 64),
        (2 * WIDTH, 32),
        (WIDTH + RATIO, 20),
        (3 + WIDTH, 19),
        (WIDTH // 3, 5),
        ((WIDTH * RATIO + 1) // 2, 32),
        ((WIDTH * 0.3).rounded(8), 8),
        (WIDTH, 16),
        (7, 7),
        ("relu", "relu"),
    ],
)
def test_arithmetic_is_resolved_under_an_assignment(value, expected):
    assert resolve(value, {"width": 16, "ratio": 4}) == expected


@pytest.mark.parametrize(("number", "expected"), [(1, 8), (8, 8), (9, 16), (18, 24), (20, 24), (100, 104)])
def test_rounding_takes_the_nearest_multiple_and_loses_at_most_a_tenth(number, expected):
    assert round_to(number, 8) == expected
    assert round_to(number, 8) >= 0.9 * number


def test_the_possible_results_stand_in_order_and_once():
    assert possible(WIDTH * RATIO) == (8, 16, 32, 64)
    assert possible(3) == (3,)
    assert possible_ints(WIDTH + 1, "x") == (9, 17)


def test_possible_together_keeps_values_of_one_choice_in_step():
    assert possible_together(WIDTH, WIDTH * 2, 5) == ((8, 16, 5), (16, 32, 5))


def test_choices_of_an_expression_are_listed_once_in_order():
    assert choices_of((RATIO * WIDTH + RATIO) // 2) == (RATIO, WIDTH)
    assert choices_of(3) == ()


def test_equal_expressions_are_equal_values():
    assert Choice("width", (8, 16)) * 4 == WIDTH * 4
    assert hash(WIDTH * 4) == hash(Expression("*", (WIDTH, 4)))


def test_an_option_is_found_by_value_and_truth_values_are_no_numbers():
    assert Choice("se", (False, True)).index(True) == 1
    assert Choice("bits", (0, 8)).index(8) == 1
    for choice, wrong in ((Choice("se", (False, True)), 1), (Choice("n", (0, 1)), True)):
        with pytest.raises(ValueError, match=re.escape(f"choice '{choice.name}' has options {choice.options}, got")):
            choice.index(wrong)


def test_conditions_are_made_into_clauses():
    condition = WIDTH.among(16)
    assert condition == Condition("width", (16,)) == Condition("width", [16])
    assert Choice("a", (1,), condition).when == ((condition,),)
    assert Choice("a", [1], [[condition]]) == Choice("a", (1,), ((condition,),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice("", (1,)), "a choice needs a name, got ''"),
        (lambda: Choice("a", ()), "choice 'a' has no options"),
        (lambda: Choice("a", (1, 2, 1)), "choice 'a' lists an option twice: (1, 2, 1)"),
        (lambda: Choice("a", (1, True)), "choice 'a' lists an option twice: (1, True)"),
        (lambda: Choice("a", (1, 1.0)), "choice 'a' lists an option twice: (1, 1.0)"),
        (lambda: Choice("a", ([1],)), "choice 'a' takes plain numbers, texts or truth values, got [1]"),
        (lambda: Choice("a", (1,), (WIDTH.among(8),)), "choice 'a': when is one condition or a tuple of clauses"),
        (lambda: Choice("a", (1,), 3), "got the clause 3"),
        (lambda: WIDTH.among(), "a condition on choice 'width' needs at least one of its options (8, 16)"),
        (lambda: WIDTH.among(9), "choice 'width' has options (8, 16), got 9"),
        (lambda: possible_ints(WIDTH + 0.5, "depth"), "depth must be a positive whole number, got 8.5"),
        (lambda: possible_ints(WIDTH // 9, "depth"), "depth must be a positive whole number, got 0"),
        (lambda: possible_ints(True, "depth"), "depth must be a positive whole number, got True"),
    ],
)
def test_wrong_values_are_named(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_arithmetic_with_anything_else_is_a_type_error():
    with pytest.raises(TypeError, match="arithmetic over choices takes choices and numbers, got 'wide'"):
        WIDTH * "wide"
