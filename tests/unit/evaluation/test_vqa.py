"""Answers and scores of a model that says what it is told to, against accuracies counted by hand."""

import pytest
import torch
from torch import nn

from tests.unit.evaluation.fakes import Items, item
from timix_pl.core.errors import DataError
from timix_pl.data.shards.reader import BadSampleError
from timix_pl.evaluation.evaluators.vqa import Vqa

CPU = torch.device("cpu")
ANSWERS = ["yes", "red", "2"]


class Told(nn.Module):
    """Chooses the text that begins with the letter of the image's first pixel; its open answer is that pixel's number."""

    def tokenizer(self, texts):
        return torch.tensor([list(text.ljust(8)[:8].encode()) for text in texts])

    def look(self, images):
        return images[:, 0, 0, 0]

    def token_features(self, tokens):
        return tokens[:, :, None].float(), tokens == 32

    def answer_logits(self, pixels, question, index):
        return torch.nn.functional.one_hot((pixels[index] % 3).long(), 3).float()

    def choice_scores(self, pixels, question, choices, num_choices, index):
        scores = (choices[:, :, 0] == pixels[index][:, None]).float()
        return scores.masked_fill(torch.arange(choices.shape[1]) >= num_choices[:, None], -torch.inf)


def asked(number, pixel, *questions):
    image = torch.full((3, 4, 8), pixel, dtype=torch.uint8)
    return item(number, (), (), questions=list(questions))._replace(image=image)


def evaluate(items, kinds=("multiple_choice", "open"), batch_size=2):
    return Vqa(Items(items), kinds=kinds, answers=ANSWERS, batch_size=batch_size).run(Told(), CPU)


def ask(answers, wrong=(), kind=None):
    return {"question": "what?", "answers": answers, "multiple_choices": list(wrong)} | ({"type": kind} if kind else {})


QUESTIONS = [
    asked(0, ord("r"), ask(["Red."], ["blue", "green", "grey"], "color"), ask(["round"], ["square"], "form")),  # 114 % 3 = 0: "yes"
    asked(1, ord("s")),  # passed over
    asked(2, ord("s"), ask(["round"], ["square"], "form"), ask(["Red"] * 2 + ["blue"] * 8, kind="color")),  # 115 % 3 = 1: "red"
    asked(3, ord("t"), ask(["2"], ["tree", "three", "one"], "number")),  # 116 % 3 = 2: "2"
]


def test_accuracy_and_chance_of_each_kind_and_type():
    """ "Red." has no small r, so that its choices score the same: a quarter. "round" is chosen rightly, "square" wrongly; of "tree" and
    "three" none is right. Two of ten people say red: for eight of the ten left out two agree, for two one."""
    metrics, chance, *_ = evaluate(QUESTIONS)
    half_right = (8 * 2 / 3 + 2 * 1 / 3) / 10
    expected = {
        "multiple_choice/accuracy": (0.25 + 1 + 0 + 0) / 4,
        "multiple_choice/accuracy/color": 0.25,
        "multiple_choice/accuracy/form": 0.5,
        "multiple_choice/accuracy/number": 0.0,
        "open/accuracy": (0 + 0 + 0 + half_right + 1) / 5,
        "open/accuracy/color": half_right / 2,
        "open/accuracy/form": 0.0,
        "open/accuracy/number": 1.0,
        "open/reachable": (1 + 0 + 0 + half_right + 1) / 5,
        "accuracy": (1.25 / 4 + (half_right + 1) / 5) / 2,
    }
    assert metrics == pytest.approx({f"vqa/{name}": value for name, value in expected.items()})
    assert chance["vqa/multiple_choice/accuracy"] == pytest.approx((1 / 4 + 1 / 2 + 1 / 2 + 1 / 4) / 4)
    assert chance["vqa/open/accuracy"] == 0 and chance["vqa/multiple_choice/accuracy/form"] == 0.5
    assert metrics.keys() - chance.keys() == {"vqa/open/reachable"}


def test_figures_do_not_depend_on_the_batch_size():
    assert evaluate(QUESTIONS, batch_size=1)[:2] == evaluate(QUESTIONS, batch_size=7)[:2]


def test_chance_of_open_answers_is_the_most_frequent_answer():
    _, chance, *_ = evaluate([asked(0, 0, ask(["Yes"]), ask(["no"]), ask(["yes."]), ask(["3"]))], ["open"])
    assert chance == {"vqa/open/accuracy": 0.5, "vqa/accuracy": 0.5}


def test_examples_show_the_image_what_was_chosen_and_all_scores():
    examples = evaluate(QUESTIONS).examples["vqa"]
    assert [(example["question"], example["right"]) for example in examples] == [
        ("what?", right) for right in (False, True, False, True, False)
    ]
    second = examples[1]
    assert second["image"].shape == (3, 4, 8) and int(second["image"][0, 0, 0]) == ord("r")
    assert "chosen" not in second and second["given"] == "yes" and second["answers"] == ["round"] and second["type"] == "form"
    assert [choice["choice"] for choice in second["choices"]] == ["round", "square"]
    assert second["choices"][0]["score"] == pytest.approx(torch.tensor([1.0, 0.0]).softmax(0)[0].item(), abs=1e-4)
    many = evaluate([asked(n, ord("r" if n % 4 else "s"), ask(["round"], ["square"])) for n in range(100)]).examples["vqa"]
    assert [sum(example["right"] == right for example in many) for right in (True, False)] == [8, 8]


def test_what_is_missing_is_told():
    with pytest.raises(DataError, match=r"None of the 2 evaluation images has questions.*`dataset`"):
        evaluate([asked(0, 0), asked(1, 0)])
    without = [asked(0, 0, ask(["yes"]))]
    with pytest.raises(DataError, match=r"none of the 1 questions of the evaluation set has choices.*`kinds=\['open'\]`"):
        evaluate(without, ["multiple_choice"])
    with pytest.raises(BadSampleError, match="Sample 'key0': a question needs"):
        evaluate([asked(0, 0, {"question": "who?"})])


def test_of_both_kinds_the_one_that_can_be_asked_is(caplog):
    metrics, *_ = evaluate([asked(0, 0, ask(["yes"]))])
    assert metrics == {"vqa/open/accuracy": 1.0, "vqa/accuracy": 1.0, "vqa/open/reachable": 1.0}
    (message,) = caplog.messages
    assert "vqa/multiple_choice is left out" in message and "has choices" in message
