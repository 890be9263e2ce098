"""Questions of shards, and the tensors that a step learns from."""

import pytest
import torch

from tests.questions import question, write_question_shards
from tests.tiny import write_shards
from timix_pl.core.errors import DataError
from timix_pl.core.sample import Sample
from timix_pl.data.sets.questions import Question, QuestionItems, frequent_answers, questions_of, shortened
from timix_pl.data.shards.reader import BadSampleError, ShardReader
from timix_pl.data.shards.sources import resolve_shards
from timix_pl.metrics.vqa import normalise_answer, soft_targets


def tokenizer(texts):
    """Bytes, an end, and padding."""
    return torch.tensor([[*text.encode(), 255, *[0] * 30][:30] for text in texts])


def items_of(kinds, answers=("red", "blue", "green")):
    return QuestionItems(tokenizer, kinds, answers, soft_targets)


def reader_of(folder):
    return ShardReader([source.tars.manifest() for source in resolve_shards(str(folder))])


def test_questions_of_a_sample():
    found = questions_of({"questions": [question(1), question(2, choices=False, people=10)]})
    assert found[0] == Question("what color is it?", ("green",), ("red", "blue", "yellow"), "what")
    assert found[0].choices == ("green", "red", "blue", "yellow") and found[1].choices == ()
    assert found[1].answers == ("Blue",) * 9 + ("yellow",)
    assert questions_of({}) == ()


@pytest.mark.parametrize(
    "broken",
    [
        {"questions": "who?"},
        {"questions": [{"question": "who?"}]},
        {"questions": [{"question": "who?", "answers": []}]},
        {"questions": [{"question": "who?", "answers": "me"}]},
        {"questions": [{"question": " ", "answers": ["me"]}]},
        {"questions": [{"question": "who?", "answers": ["me"], "multiple_choices": [1]}]},
        {"questions": ["who?"]},
    ],
)
def test_other_forms_are_refused(broken):
    with pytest.raises(BadSampleError, match="question"):
        questions_of(broken)


def test_the_right_choice_is_the_first_and_missing_ones_are_empty():
    two = Question("who?", ("me",), ("you",))
    tensors, num_items = items_of(["multiple_choice"]).collate(
        [two, Question("what color?", ("red",)), questions_of({"questions": [question(0)]})[0]]
    )
    assert num_items == {"multiple_choice": 2} and tensors["num_choices"].tolist() == [2, 0, 4]
    assert tensors["choices"].shape == (3, 4, len("yellow") + 1)
    texts = [[bytes(row).partition(b"\xff")[0].decode() for row in rows] for rows in tensors["choices"].tolist()]
    assert texts == [["me", "you", "", ""], [""] * 4, ["red", "green", "blue", "yellow"]]
    assert set(tensors) == {"question", "choices", "num_choices"}


def test_known_answers_share_what_they_are_worth():
    """Of three answers two are known; of ten, each counts a third per person, up to one."""
    people = Question("what color?", (*["red"] * 1, *["Blue"] * 6, *["grey"] * 3))
    tensors, num_items = items_of(["open"]).collate([people, Question("where?", ("at sea",)), Question("what?", ("The green.",))])
    assert num_items == {"open": 2}
    rows = [{int(a): float(s) for a, s in zip(*row, strict=True) if s} for row in zip(tensors["answers"], tensors["shares"], strict=True)]
    assert rows == [{0: pytest.approx(0.25), 1: pytest.approx(0.75)}, {}, {2: 1.0}]


def test_samples_without_what_is_learnt_are_bad_ones():
    with pytest.raises(BadSampleError, match="no questions"):
        items_of(["open"]).of(Sample("a", b"", "png"))
    open_alone = Sample("a", b"", "png", extra={"questions": [question(0, choices=False)]})
    assert len(items_of(["open"]).of(open_alone)) == len(items_of(["open", "multiple_choice"]).of(open_alone)) == 1
    with pytest.raises(BadSampleError, match=r"none of the sample's questions has multiple_choices; set `kinds=\['open'\]`"):
        items_of(["multiple_choice"]).of(open_alone)
    mixed = Sample("a", b"", "png", extra={"questions": [question(0, choices=False), question(1)]})
    assert [item.answers for item in items_of(["multiple_choice"]).of(mixed)] == [("green",)]


def test_only_padding_is_cut():
    tokens = tokenizer(["red", "yellow", "of"])
    assert shortened(tokens).equal(tokens[:, :7]) and bytes(shortened(tokens)[1].tolist()) == b"yellow\xff"
    full = tokenizer(["a text that is longer than it may be and is cut", "red"])
    assert shortened(full).equal(full)
    assert shortened(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 1)


def test_the_most_frequent_answers_in_order(tmp_path):
    """Ten pictures: three red, three green, two blue, two yellow, and four places."""
    reader = reader_of(write_question_shards(tmp_path / "shards", 10))
    assert frequent_answers(reader, 9, normalise_answer, "k") == ["nowhere", "green", "red", "blue", "yellow"]
    assert frequent_answers(reader, 2, normalise_answer, "k") == ["nowhere", "green"]


def test_shards_without_questions_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.train_shards: none of the 3 samples has questions.*docs/your_own_data\.md"):
        frequent_answers(reader_of(write_shards(tmp_path / "shards", 3)), 9, normalise_answer, "data.train_shards")
