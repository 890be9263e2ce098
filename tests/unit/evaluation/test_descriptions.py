"""What evaluators say of their metrics."""

import json
import re

import pytest
import torch

from tests.commands import REPOSITORY
from tests.tiny import tiny_model
from tests.unit.evaluation import test_captioning, test_carry_over, test_grounding, test_pairs, test_probes, test_retrieval, test_vqa
from tests.unit.evaluation.fakes import OracleModel, item
from tests.unit.evaluation.test_zero_shot import run as zero_shot
from timix_pl.core.choices import EVALUATORS
from timix_pl.core.metric import Metric, Unit, describe, descriptions_in
from timix_pl.core.types import EvaluationResult
from timix_pl.evaluation.evaluator import run_tasks
from timix_pl.evaluation.evaluators.knn import Knn
from timix_pl.evaluation.evaluators.linear_probe import LinearProbe
from timix_pl.evaluation.evaluators.mutual_information import MutualInformation
from timix_pl.evaluation.evaluators.noise import Noise
from timix_pl.evaluation.results import write_result

CPU = torch.device("cpu")


def mutual_information():
    held_out, train = test_pairs.pairs(13), test_pairs.pairs(13, seed=1)
    return MutualInformation(held_out, train, mixer=test_pairs.Blend(), num_pairs=6, batch_size=6).run(tiny_model().eval(), CPU)


def noise():
    held_out, train = (test_pairs.pairs(17, seed, wrong=test_pairs.is_wrong) for seed in (0, 1))
    return Noise(held_out, train, field="wrong", num_pairs=5, batch_size=5).run(tiny_model().eval(), CPU)


RESULTS = {
    "retrieval": test_retrieval.run,
    "zero_shot": lambda: zero_shot([item(0, label=0), item(1, label=1)]),
    "grounding": test_grounding.run,
    "carry_over": test_carry_over.run,
    "linear_probe": lambda: test_probes.run(LinearProbe),
    "knn": lambda: test_probes.run(Knn),
    "noise": noise,
    "mutual_information": mutual_information,
    "vqa": lambda: test_vqa.evaluate(test_vqa.QUESTIONS),
    "captioning": test_captioning.run,
}


@pytest.mark.parametrize("task", EVALUATORS.names())
def test_an_evaluator_declares_what_it_finds_and_nothing_else(task):
    assert task in RESULTS, "add a small run of the evaluation to RESULTS"
    result = RESULTS[task]()
    assert result.descriptions.keys() == result.metrics.keys()
    for metric in result.descriptions.values():
        assert metric.label and metric.higher_is_better is not None and metric.group == EVALUATORS[task].title
    assert {name for name, metric in result.descriptions.items() if metric.chance} == result.chance.keys()
    keys = [name.removeprefix(f"{task}/") for name in result.metrics]
    assert all(any(describe({pattern: metric}, key) for key in keys) for pattern, metric in EVALUATORS[task].metrics.items())


def test_descriptions_of_an_evaluator_from_outside_come_with_the_result_and_its_file(tmp_path):
    """The one of the docs, with a metric that it does not declare."""
    found: dict = {}
    exec(re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs/evaluation.md").read_text(), re.M | re.S)[-1], found)
    del found["Language"].metrics["cross_entropy"]
    result = run_tasks([found["Language"](dataset=None)], OracleModel(), CPU)
    expected = {
        "language/perplexity": Metric(Unit.number, False, "perplexity", "all words alike", group="language model"),
        "language/accuracy/rare_words": Metric(Unit.share, True, "accuracy, rare words", group="language model"),
    }
    assert result.metrics["language/cross_entropy"] == 3.15 and result.descriptions == expected
    write_result(tmp_path, result)
    assert descriptions_in(json.loads((tmp_path / "evaluation.json").read_text()), lambda name: None) == expected


def test_an_evaluator_need_not_declare_anything(tmp_path):
    class Silent:
        choice = "silent"

        def run(self, model, device):
            return EvaluationResult({"silent/value": 1.0}, {})

    result = run_tasks([Silent()], OracleModel(), CPU)
    assert result.metrics == {"silent/value": 1.0} and result.descriptions == {}
