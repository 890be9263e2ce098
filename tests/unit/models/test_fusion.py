"""The question answerer: what its scores depend on and what not, and the losses against those written out."""

from dataclasses import replace

import pytest
import torch

from tests.tiny import random_images, tiny_model
from timix_pl.core.types import ItemBatch
from timix_pl.data.sets.questions import Question, QuestionItems
from timix_pl.metrics.vqa import soft_targets
from timix_pl.models.fusion import VqaModel

ANSWERS = ["red", "green", "blue"]
ITEMS = [
    Question("what color is it?", ("Red.",), ("blue", "green")),
    Question("who is it?", ("nobody known",)),
    Question("is it a ring or a square?", ("green", "blue", "blue", "grey"), ("of",)),
]


def model(**options):
    torch.manual_seed(0)
    sizes = {"dim": 16, "layers": 2, "heads": 2, "dropout": 0.0}
    return VqaModel(tiny_model(), **({"answers": ANSWERS, "chooses": True} | sizes | options))


def batch_for(answerer, items=ITEMS):
    kinds = ("multiple_choice",) * (answerer.head.choice is not None) + ("open",) * (answerer.head.answers is not None)
    tensors, items_of_term = QuestionItems(answerer.tokenizer, kinds, ANSWERS, soft_targets).collate(items)
    images = {"images": random_images(2, 0), "keys": ["a", "b"], "first": 0}
    index = torch.tensor([0, 1, 1])
    return ItemBatch(**images, image_index=index, items_per_image=[1, 2], items=tensors, items_of_term=items_of_term)


def scores_and_logits(answerer, batch):
    patches, asked = answerer.look(batch.images), answerer.token_features(batch.items["question"])
    scores = answerer.choice_scores(patches, asked, batch.items["choices"], batch.items["num_choices"], batch.image_index)
    return scores, answerer.answer_logits(patches, asked, batch.image_index)


def test_the_losses_are_cross_entropies_summed_over_the_questions():
    """Three choices, none and two; one known answer, none, and two of which one was given twice as often."""
    answerer = model()
    batch = batch_for(answerer)
    sums = answerer.sums(batch)
    scores, logits = scores_and_logits(answerer, batch)
    choice = torch.nn.functional.cross_entropy(scores[0, :3][None], torch.tensor([0])) + torch.logsumexp(scores[2, :2], 0) - scores[2, 0]
    torch.testing.assert_close(sums["multiple_choice"], choice)
    log_shares = logits.log_softmax(1)
    torch.testing.assert_close(sums["open"], -(log_shares[0, 0] + (1 / 3) * log_shares[2, 1] + (2 / 3) * log_shares[2, 2]))
    assert batch.items_of_term == {"multiple_choice": 2, "open": 2} and torch.isinf(scores[2, 2]) and torch.isfinite(scores[1]).all()
    sum(sums.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in answerer.head.parameters())


def test_a_question_is_answered_alike_whatever_else_is_asked():
    """Padding of longer questions and of more choices, and the order of choices, change nothing."""
    answerer = model().eval()
    whole = batch_for(answerer)
    scores, logits = scores_and_logits(answerer, whole)
    turned = Question(ITEMS[0].question, ("green",), ("Red.", "blue"))
    alone = replace(batch_for(answerer, [turned]), image_index=torch.tensor([0]))
    scores_alone, logits_alone = scores_and_logits(answerer, alone)
    torch.testing.assert_close(scores_alone[0], scores[0, [2, 0, 1]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits_alone[0], logits[0], rtol=1e-4, atol=1e-5)


def test_the_image_counts_unless_it_is_left_out():
    batch = batch_for(model())
    swapped = replace(batch, images=batch.images.flip(0))
    seeing, blind = model().eval(), model(use_image=False).eval()
    for one, other in zip(scores_and_logits(seeing, batch), scores_and_logits(seeing, swapped), strict=True):
        assert not torch.allclose(one[0], other[0])
    for one, other in zip(scores_and_logits(blind, batch), scores_and_logits(blind, swapped), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize(("options", "terms"), [({"answers": []}, {"multiple_choice"}), ({"chooses": False}, {"open"})])
def test_a_model_of_one_kind_has_nothing_of_the_other(options, terms):
    answerer = model(**options)
    assert set(answerer.sums(batch_for(answerer))) == terms
    assert (answerer.head.answers is None) == ("open" not in terms) and (answerer.head.choice is None) == ("multiple_choice" not in terms)
