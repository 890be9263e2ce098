import pytest
import torch

from tests.unit.evaluation.fakes import Items, OracleModel, item
from timix_pl.evaluation.evaluator import EvaluationError, run_tasks
from timix_pl.evaluation.evaluators.grounding import Grounding
from timix_pl.evaluation.evaluators.retrieval import Retrieval
from timix_pl.evaluation.evaluators.zero_shot import ZeroShot

CPU = torch.device("cpu")
DATASET = Items([item(n, [f"a {n}"], label=n) for n in range(3)])


def evaluators(*names):
    made = {
        "retrieval": Retrieval(DATASET, batch_size=2),
        "zero_shot": ZeroShot(DATASET, ["0", "1", "2"], ["a {}"], batch_size=2),
        "grounding": Grounding(DATASET, batch_size=2),  # there are no boxes
    }
    return [made[name] for name in names]


def test_results_are_joined():
    result = run_tasks(evaluators("retrieval", "zero_shot"), OracleModel(), CPU)
    assert result.metrics["retrieval/mean_recall"] == result.metrics["zero_shot/top_1"] == 1
    assert result.chance["zero_shot/top_1"] == pytest.approx(1 / 3)
    assert result.metrics.keys() == result.chance.keys()


def test_what_can_run_runs_and_the_others_are_named():
    with pytest.raises(EvaluationError, match=r"^grounding: None of the evaluation images has regions") as caught:
        run_tasks(evaluators("grounding", "zero_shot", "retrieval"), OracleModel(), CPU)
    assert list(caught.value.problems) == ["grounding"]
    assert caught.value.result.metrics["zero_shot/top_1"] == caught.value.result.metrics["retrieval/mean_recall"] == 1


def test_a_mistake_in_the_code_is_not_swallowed():
    class Broken(OracleModel):
        def encode_image(self, images):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_tasks(evaluators("retrieval"), Broken(), CPU)
