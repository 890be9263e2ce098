import pytest
import torch

from tests.unit.evaluation.fakes import Items, OracleModel, item
from timix_pl.core.errors import DataError, ModelError
from timix_pl.evaluation.evaluators.captioning import Captioning
from timix_pl.metrics.caption_tokens import caption_tokens
from timix_pl.metrics.captioning import captioning_chance, captioning_metrics

CPU = torch.device("cpu")
NOUNS = ["dog", "cat", "boy", "girl", "horse"]


class Writer(OracleModel):
    """Says of image n what it is told to."""

    def __init__(self, says):
        super().__init__()
        self.says = says
        self.images_seen = []

    def caption(self, images):
        assert not torch.is_grad_enabled() and not any(module.training for module in self.modules())
        numbers = images[:, 0, 0, 0].tolist()
        self.images_seen += numbers
        return [self.says(number) for number in numbers]


def references_of(number):
    noun = NOUNS[number % 5]
    return [f"A {noun} runs over {number} hills.", f"One {noun}'s run, over the {number}th hill", f"the {noun} is running"][
        : 1 + number % 3
    ]


def says(number):
    return references_of(number)[0] if number % 4 else "a man on a bike"


DATASET = Items([item(number, references_of(number)) for number in range(43)])


def run(model=None, dataset=DATASET, **options):
    return Captioning(dataset, **{"batch_size": 8, **options}).run(model or Writer(says), CPU)


def test_figures_are_those_of_the_metrics_over_all_images():
    result = run()
    references = [[caption_tokens(caption) for caption in references_of(number)] for number in range(43)]
    metrics, _ = captioning_metrics([caption_tokens(says(number)) for number in range(43)], references)
    assert result.metrics == {f"captioning/{name}": value for name, value in metrics.items()}
    assert result.chance == {f"captioning/{name}": value for name, value in captioning_chance(references).items()}
    assert result.metrics["captioning/cider_d"] > 2 * result.chance["captioning/cider_d"] > 0


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 100}, {"batch_size": 5, "num_workers": 2}])
def test_batches_and_workers_change_nothing(options):
    def without_pictures(result):
        examples = [example | {"image": example["image"].tolist()} for example in result.examples["captioning"]]
        return result.metrics, result.chance, examples

    assert without_pictures(run(**options)) == without_pictures(run())


def test_examples_are_the_best_the_middling_and_the_worst():
    examples = run().examples["captioning"]
    assert len(examples) == 16
    scores = [example["cider_d"] for example in examples]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[7] > scores[-1] == 0
    numbers = [int(example["image"][0, 0, 0]) for example in examples]
    assert len(set(numbers)) == 16
    for number, example in zip(numbers, examples, strict=True):
        assert example["image"].dtype == torch.uint8
        assert (example["caption"], example["references"]) == (says(number), references_of(number))


def test_few_images_are_all_shown():
    result = run(dataset=Items([item(number, references_of(number)) for number in range(3)]))
    assert len(result.examples["captioning"]) == 3


def test_each_image_is_seen_once_also_when_it_runs_again():
    model, evaluator = Writer(says), Captioning(DATASET, batch_size=8)
    first, second = evaluator.run(model, CPU), evaluator.run(model, CPU)
    assert model.images_seen == 2 * list(range(43))
    assert (first.metrics, first.chance) == (second.metrics, second.chance)


def test_an_image_without_captions_is_named():
    for num_workers in (0, 1):
        with pytest.raises(DataError, match=r"^Sample 'key1' has no captions.*`evaluators`"):
            run(dataset=Items([item(0, ["a 0"]), item(1)]), num_workers=num_workers)


def test_a_model_that_writes_nothing_is_told_so():
    with pytest.raises(ModelError, match=r"writes no captions.*Captioner"):
        run(OracleModel())


def test_the_model_gets_its_modes_back():
    model = Writer(says)
    run(model)
    assert model.active.training and not model.frozen.training
