"""Answers compared as visualqa.org does it, on hand-made cases, and its accuracy against the formula written out."""

import itertools

import numpy as np
import pytest

from timix_pl.metrics.vqa import answer_accuracy, choice_accuracy, mean_by_type, normalise_answer, soft_targets


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The Dog.", "dog"),
        ("a  man\nand\tan owl", "man and owl"),
        ("Two", "2"),
        ("none", "0"),
        ("ten o clock", "10 o clock"),
        ("yes/no", "yes no"),  # a mark between words becomes a space
        ("yes, no", "yes no"),  # with a space beside it, it goes
        ("T-shirt", "t shirt"),
        ("black- white", "black white"),
        ("1,000", "1000"),  # a number written so: all marks go
        ("1,000/day", "1000day"),
        ("2.5", "2.5"),
        ("St. Mary.", "st mary"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("ow's'at", "'ow's'at"),
        ("its the well", "its well"),  # words that contractions could be, and are not
        ("What?!", "what"),
        ("the", ""),
    ],
)
def test_the_form_in_which_answers_are_compared(text, form):
    assert normalise_answer(text) == form


def ten_choose_nine(given, answers):
    """The published formula as it is told: the average over all sets of nine of ten people of min(1, number who agree / 3)."""
    return np.mean([min(1, sum(answer == given for answer in nine) / 3) for nine in itertools.combinations(answers, len(answers) - 1)])


@pytest.mark.parametrize("num_agreeing", range(11))
def test_accuracy_is_the_mean_over_nine_of_ten_people(num_agreeing):
    answers = ["yes"] * num_agreeing + [f"other {number}" for number in range(10 - num_agreeing)]
    assert answer_accuracy("Yes.", answers) == pytest.approx(ten_choose_nine("yes", answers))


def test_accuracy_of_hand_made_cases():
    assert answer_accuracy("yes", ["yes"] * 10) == 1
    assert answer_accuracy("2", ["two"] * 3 + ["3"] * 7) == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)
    assert answer_accuracy("yes", ["yes"] + ["no"] * 9) == pytest.approx(9 * (1 / 3) / 10)
    assert answer_accuracy("maybe", ["yes"] * 5 + ["no"] * 5) == 0
    assert answer_accuracy("During day", ["During the day."]) == 1 and answer_accuracy("at night", ["During the day."]) == 0
    with pytest.raises(ValueError, match="without an answer"):
        answer_accuracy("yes", [])


def test_soft_targets_are_a_third_for_each_person_up_to_one():
    assert soft_targets(["The red", "red", "blue", *["green"] * 7]) == {
        "red": pytest.approx(2 / 3),
        "blue": pytest.approx(1 / 3),
        "green": 1,
    }
    assert soft_targets(["During the day."]) == {"during day": 1}
    assert soft_targets(["a", "yes"]) == {"": 0.5, "yes": 0.5}


def test_of_equal_scores_each_counts_in_part():
    assert choice_accuracy([0.3, 0.2, 0.1], 0) == 1 and choice_accuracy([0.3, 0.2, 0.4], 0) == 0
    assert choice_accuracy([0.3, 0.3, 0.1, 0.3], 0) == pytest.approx(1 / 3) and choice_accuracy([0.5] * 4, 2) == 0.25


def test_means_by_type_leave_no_question_out_of_the_whole():
    means = mean_by_type([1.0, 0.0, 0.5, 0.0], ["who", "when", "who", None])
    assert means == {"accuracy": 0.375, "accuracy/when": 0.0, "accuracy/who": 0.75}
