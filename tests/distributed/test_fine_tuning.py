"""Fine-tuning runs on two ranks under Lightning's DDP, against one rank with the same shards; and their evaluation."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from tests.distributed.spawn import run_on_ranks
from tests.optim import optim_settings, slower_towers
from tests.questions import write_question_shards
from tests.step_data import item_data
from tests.tiny import IMAGE_SIZE_PX, tiny_model
from tests.unit.training.running import Rows, same, weights_of
from timix_pl.core.distributed import world_size
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.sets.questions import QuestionItems
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.evaluation.evaluator import run_tasks
from timix_pl.evaluation.evaluators.vqa import Vqa
from timix_pl.metrics.vqa import soft_targets
from timix_pl.models.fusion import VqaModel
from timix_pl.training.module import TrainModule
from timix_pl.training.objective import Objective

NUM_STEPS = 3
KINDS, ANSWERS = ("multiple_choice", "open"), ["nowhere", "blue", "red"]


def model():
    torch.manual_seed(0)
    sizes = {"dim": 16, "layers": 1, "heads": 2, "dropout": 0.0}
    return VqaModel(tiny_model(), answers=ANSWERS, chooses=True, towers="all", **sizes)


def train(folder, micro_batch_size=None):
    """Weights, rows and an evaluation after a run in which the first rank has questions that the second lacks."""
    trained = model()
    # so large an eps that AdamW moves by the gradient, not by its sign: rounding stays rounding
    optim = optim_settings(lr=0.1, eps=1.0, weight_decay=0.0, warmup_frac=0.0, schedule="constant")
    options = {"global_batch_size": 6, "planned_samples": 6 * NUM_STEPS, "seed": 0, "log_every_n_steps": 1}
    groups = slower_towers(0.5)
    module = TrainModule(trained, Objective(), optim, groups=groups, micro_batch_size=micro_batch_size, **options)
    data = item_data(
        SampleStream(str(folder), key="data.train_shards", seed=0, name="train", window_shards=2),
        QuestionItems(trained.tokenizer, KINDS, ANSWERS, soft_targets),
        global_batch_size=6,
        max_steps=NUM_STEPS,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=world_size(),
        strategy=DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=True) if world_size() > 1 else "auto",
        max_steps=NUM_STEPS,
        max_epochs=-1,
        limit_val_batches=0,
        logger=[Rows()],
        enable_checkpointing=False,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, datamodule=data)
    return weights_of(trained), trainer.loggers[0].rows


def evaluate(folder):
    evaluator = Vqa(EvaluationSet(str(folder), IMAGE_SIZE_PX), kinds=KINDS, answers=ANSWERS, batch_size=3)
    metrics, chance, examples, _ = run_tasks([evaluator], model(), torch.device("cpu"))
    return metrics, chance, [{name: value for name, value in example.items() if name != "image"} for example in examples["vqa"]]


def all_of_it(folder):
    return train(folder), train(folder, micro_batch_size=2), evaluate(folder)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Those of one rank, and of each of two. 13 images and their 18 questions divide by nothing."""
    folder = write_question_shards(tmp_path_factory.mktemp("questions") / "shards", 13)
    return all_of_it(folder), *run_on_ranks(all_of_it, 2, folder)


@pytest.mark.parametrize("run", [0, 1], ids=["whole batches", "chunks"])
def test_two_ranks_train_the_model_of_one(results, run):
    """The loss is a mean over the questions of the global batch, however many each rank has."""
    weights, rows = results[0][0]
    start = weights_of(model())
    moved = max((weights[name] - start[name]).abs().max().item() for name in weights)
    for result in results[1:]:
        for name, weight in result[run][0].items():
            torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-3 * moved, msg=name)
    assert same(results[1][run][0], results[2][run][0])
    for one, two in zip(rows, results[1][run][1], strict=True):
        for name in ("train/loss/multiple_choice", "train/loss/open", "train/loss/total", "train/grad_norm", "train/num_items"):
            assert two[name] == pytest.approx(one[name], rel=1e-4), name


def test_two_ranks_evaluate_as_one_to_the_last_bit(results):
    assert results[0][2] == results[1][2] == results[2][2]
    metrics, chance, examples = results[0][2]
    assert len(metrics) == 8 and len(chance) == 7 and len(examples) > 8
