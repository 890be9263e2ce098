"""The report shows what the evaluators themselves write."""

import pytest
import torch

from tests.unit.evaluation.fakes import Items, OracleModel, item
from tests.unit.evaluation.test_captioning import Writer
from tests.unit.evaluation.test_vqa import ANSWERS as KNOWN
from tests.unit.evaluation.test_vqa import QUESTIONS, Told
from tests.unit.reports.test_page import _report
from timix_pl.evaluation.evaluators.captioning import Captioning
from timix_pl.evaluation.evaluators.retrieval import Retrieval
from timix_pl.evaluation.evaluators.vqa import Vqa
from timix_pl.evaluation.evaluators.zero_shot import ZeroShot
from timix_pl.evaluation.results import write_result

CPU = torch.device("cpu")


@pytest.fixture
def shown(tmp_path):
    """What the page of a run says, once an evaluator has left its result there."""

    def show(evaluator, model):
        (tmp_path / "config.yaml").write_text("name: mine\n")
        write_result(tmp_path, evaluator.run(model, CPU), step=5)
        page = _report(tmp_path)
        assert "left out" not in page.text
        return page

    return show


def asked(kinds):
    return Vqa(Items(QUESTIONS), kinds=kinds, answers=KNOWN, batch_size=2)


def test_of_both_kinds_of_questions_the_choice_and_the_open_answer_are_shown(shown):
    page = shown(asked(["multiple_choice", "open"]), Told())
    assert "open answer: ✗ yes people said: round" in page.text
    assert "what? ✓ round round 0.73 ✓ square 0.27 open answer: ✗ yes" in page.text
    assert "what? ✓ red accuracy 60% people said: blue (8), Red (2)" in page.text
    assert "2 of these 5 answers are right" in page.text


def test_choices_alone_and_open_answers_alone(shown):
    chosen = shown(asked(["multiple_choice"]), Told()).text
    assert "✓ round round 0.73 ✓ square 0.27" in chosen and "people said" not in chosen
    assert "1 of these 4 answers are right" in chosen  # the fifth question has no choices
    given = shown(asked(["open"]), Told()).text
    assert "what? ✓ 2 people said: 2" in given and "open answer" not in given and "0.73" not in given


def test_captions_have_the_scores_of_the_table(shown):
    says = ["a dog runs over hills", "a cat sleeps"]
    images = [item(number, [text, f"{text} today"]) for number, text in enumerate(says)]
    page = shown(Captioning(Items(images), batch_size=2), Writer(lambda number: says[number]))
    scores = Captioning(Items(images), batch_size=2).run(Writer(lambda number: says[number]), CPU).examples["captioning"]
    for example in scores:
        assert f"{example['caption']} {' '.join(example['references'])} CIDEr-D {100 * example['cider_d']:.1f}" in page.text


def test_queries_and_confusions(shown):
    images = [item(number, [f"picture {number}", f"again {number}"]) for number in range(6)]
    page = shown(Retrieval(Items(images), batch_size=4), OracleModel())
    assert page.count("img", **{"class": "thumb right"}) == 8 and "✓ rank 1 picture 0" in page.text
    assert "From an image to captions" in page.text and "picture 5 ✓" in page.text
    labelled = [item(number % 3, label=number % 2) for number in range(6)]
    page = shown(ZeroShot(Items(labelled), ["0", "1", "2"], ["a {}"], batch_size=4), OracleModel())
    assert page.count("table", **{"class": "confusion numbers"}) == 1 and "Most frequent confusions" in page.text
