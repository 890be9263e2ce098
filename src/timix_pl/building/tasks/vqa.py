"""``task=vqa``: visual question answering on a pre-trained model."""

import fcntl
import json
from pathlib import Path
from typing import Any

from timix_pl.config.schema import RootConfig
from timix_pl.core.choices import TASKS
from timix_pl.core.errors import RunError
from timix_pl.core.files import atomic_path
from timix_pl.core.words import counted
from timix_pl.data.sets.questions import Question, QuestionItems, frequent_answers, kinds_of, usable_questions
from timix_pl.data.sets.training_set import SampleStream
from timix_pl.metrics.vqa import normalise_answer, soft_targets
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fine_tuned import FineTuned
from timix_pl.models.fusion import VqaModel

ASSUMED_TOKENS = 16


def learn_facts(cfg: RootConfig, samples: SampleStream) -> dict[str, Any]:
    """The kinds, and the open answers; these are also in ``answers.json`` of the run directory, and read once for all its processes.

    Raises:
        DataError: the shards have no questions.
    """
    kinds = kinds_of(cfg.vqa.kind)
    samples.check(lambda sample: usable_questions(sample, kinds))
    return {"kinds": kinds, "answers": _answers(cfg, samples) if "open" in kinds else []}


def _answers(cfg: RootConfig, samples: SampleStream) -> list[str]:
    path = Path(cfg.run_dir) / "answers.json"
    of = {"fingerprint": samples.fingerprint, "num_answers": cfg.vqa.num_answers}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(".answers.lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # ranks that torchrun or srun start at the same time wait for the first, and take what it found
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            if of.items() <= content.items():
                return content["answers"]
        answers = frequent_answers(samples.reader, cfg.vqa.num_answers, normalise_answer, "data.train_shards")
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(of | {"answers": answers}, ensure_ascii=False, indent=0), encoding="utf-8")
    return answers


def build_vqa_model(cfg: RootConfig, encoder: DualEncoder, facts: dict[str, Any] | None) -> VqaModel:
    """The model with the fusion head; without facts, it knows as many answers as it may.

    Raises:
        RunError: ``vqa.kind`` asks for what the facts, a checkpoint's, do not have.
    """
    kinds = kinds_of(cfg.vqa.kind) if facts is None else facts["kinds"]
    if lacking := sorted(set(kinds_of(cfg.vqa.kind)) - set(kinds)):
        raise RunError(
            f"vqa.kind={cfg.vqa.kind}: this checkpoint has learnt {', '.join(kinds)}, and not {', '.join(lacking)}; leave it out"
        )
    answers = [""] * cfg.vqa.num_answers if facts is None else facts["answers"]
    vqa, tune = cfg.vqa, cfg.tune
    return VqaModel(
        encoder,
        answers=answers if "open" in kinds else [],
        chooses="multiple_choice" in kinds,
        use_image=vqa.use_image,
        dim=vqa.dim,
        layers=vqa.layers,
        heads=vqa.heads,
        dropout=vqa.dropout,
        towers=tune.towers,
        last_blocks=tune.last_blocks,
        block=tune.block,
    )


def build_question_items(cfg: RootConfig, model: FineTuned, facts: dict[str, Any]) -> QuestionItems:
    """Questions to learn."""
    return QuestionItems(model.tokenizer, kinds_of(cfg.vqa.kind), facts["answers"], soft_targets)


def assumed_questions(cfg: RootConfig) -> tuple[str, Question]:
    """Of an image in a dry run: texts as long as the longest of a step are in Visual7W, rounded up."""
    words = f"at most {counted(cfg.tune.items_per_image, 'question')}, {ASSUMED_TOKENS} tokens"
    text, chooses = " ".join(["a"] * (ASSUMED_TOKENS - 2)), "multiple_choice" in kinds_of(cfg.vqa.kind)
    return f"{words}, 4 choices" if chooses else words, Question(text, (text,), (text,) * 3 if chooses else ())


@TASKS.register("vqa")
class Vqa:
    """How the task is built."""

    learn_facts = staticmethod(learn_facts)
    model = staticmethod(build_vqa_model)
    items = staticmethod(build_question_items)
    assumed = staticmethod(assumed_questions)
