"""``task=vqa``: visual question answering on a pre-trained model."""

import fcntl
import json
from pathlib import Path

from timix_pl.building.checkpoints import Facts
from timix_pl.building.keys import FINE_TUNED
from timix_pl.building.task import FineTuning
from timix_pl.config.schema import RootConfig
from timix_pl.core.choices import TASKS
from timix_pl.core.errors import RunError, in_keys
from timix_pl.core.files import atomic_path
from timix_pl.core.words import counted
from timix_pl.data.sets.questions import Question, QuestionItems, frequent_answers, kinds_of, usable_questions
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.metrics.vqa import normalise_answer, soft_targets
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fusion import VqaModel

ASSUMED_TOKENS = 16


@TASKS.register("vqa")
class Vqa(FineTuning):
    """Trains a head that fuses a question with an image and answers it."""

    def learn_facts(self, samples: SampleStream) -> Facts:
        """The kinds of questions, and the open answers. Only one process reads the answers from the shards, to ``RUN_DIR/answers.json``.

        Raises:
            DataError: the shards have no questions.
        """
        kinds = kinds_of(self.cfg.vqa.kind)
        samples.check(lambda sample: usable_questions(sample, kinds))
        return {"kinds": kinds, "answers": _answers(self.cfg, samples) if "open" in kinds else []}

    @in_keys(FINE_TUNED)
    def model(self, encoder: DualEncoder, facts: Facts | None) -> VqaModel:
        """The model with the fusion head. Without facts, it has ``vqa.num_answers`` answers.

        Raises:
            RunError: the facts, from a checkpoint, lack a kind of ``vqa.kind``.
        """
        vqa, tune = self.cfg.vqa, self.cfg.tune
        kinds = kinds_of(vqa.kind) if facts is None else facts["kinds"]
        if lacking := sorted(set(kinds_of(vqa.kind)) - set(kinds)):
            learnt = f"this checkpoint was trained for {', '.join(kinds)}, and not for {', '.join(lacking)}"
            raise RunError(f"vqa.kind={vqa.kind}: {learnt}; remove vqa.kind")
        answers = [""] * vqa.num_answers if facts is None else facts["answers"]
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

    def items(self, model: VqaModel, facts: Facts | None) -> QuestionItems:
        """See :class:`FineTuning`."""
        return QuestionItems(model.tokenizer, kinds_of(self.cfg.vqa.kind), facts["answers"] if facts else [], soft_targets)

    def assumed(self) -> tuple[str, Question]:
        """Questions with the length of the longest one of a step in Visual7W, rounded up."""
        words = f"at most {counted(self.cfg.tune.items_per_image, 'question')}, {ASSUMED_TOKENS} tokens"
        text, chooses = " ".join(["a"] * (ASSUMED_TOKENS - 2)), "multiple_choice" in kinds_of(self.cfg.vqa.kind)
        return f"{words}, 4 choices" if chooses else words, Question(text, (text,), (text,) * 3 if chooses else ())


def _answers(cfg: RootConfig, samples: SampleStream) -> list[str]:
    path = Path(cfg.run_dir) / "answers.json"
    of = {"fingerprint": samples.fingerprint, "num_answers": cfg.vqa.num_answers}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(".answers.lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # ranks started at the same time wait for the first one, and read its file
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            if of.items() <= content.items():
                return content["answers"]
        answers = frequent_answers(samples.reader, cfg.vqa.num_answers, normalise_answer, "data.train_shards")
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(of | {"answers": answers}, ensure_ascii=False, indent=0), encoding="utf-8")
    return answers
