"""Visual question answering: a transformer whose question tokens attend to patches."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from timix_pl.core.types import ItemBatch
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fine_tuned import FineTuned, token_dim


class Fusion(nn.Module):
    """A transformer whose tokens attend to one another and to patches. The output at its first, learnt token is the readout.

    Args:
        text_dim, patch_dim: channels of token and patch features.
        dim: channels of the transformer.
        layers, heads, dropout: of the transformer.
        num_answers: number of open answers; 0: no open answers.
        chooses: whether the head scores choices.
    """

    def __init__(
        self, text_dim: int, patch_dim: int, *, dim: int, layers: int, heads: int, dropout: float, num_answers: int, chooses: bool
    ):
        super().__init__()
        self.text_input = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, dim))
        self.patch_input = nn.Sequential(nn.LayerNorm(patch_dim), nn.Linear(patch_dim, dim))
        self.readout = nn.Parameter(torch.randn(dim) * 0.02)
        self.segments = nn.Parameter(torch.randn(2, dim) * 0.02)
        layer = nn.TransformerDecoderLayer(dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(dim))
        self.answers = nn.Linear(dim, num_answers) if num_answers else None
        self.choice = nn.Linear(dim, 1) if chooses else None

    def forward(
        self,
        texts: list[tuple[Float[Tensor, "N _ E"], Bool[Tensor, "N _"]]],
        patches: Float[Tensor, "B P C"] | None,
        image_index: Int[Tensor, " N"],
    ) -> Float[Tensor, "N D"]:
        """The readout of each row.

        Args:
            texts: the question and, if choices are scored, a choice; each as features of its tokens, and which tokens are padding.
            patches: patch features of the images; None: only the text is read.
            image_index: the image of each row.
        """
        parts = [self.text_input(features) + self.segments[number] for number, (features, _) in enumerate(texts)]
        first = self.readout.to(parts[0].dtype).expand(len(parts[0]), 1, -1)
        padding = F.pad(torch.cat([padding for _, padding in texts], 1), (1, 0))
        tokens = torch.cat((first, *parts), 1)
        memory = torch.zeros_like(first) if patches is None else self.patch_input(patches)[image_index]
        return self.layers(tokens, memory, tgt_key_padding_mask=padding)[:, 0]


class VqaModel(FineTuned):
    """Answers questions: scores given choices, gives open answers, or both.

    Args:
        encoder: the towers.
        answers: the open answers that the model can give, normalised; empty: no open answers.
        chooses: whether the model scores choices.
        use_image: False: a baseline that reads only the text.
        dim, layers, heads, dropout: of the fusion.
        tuning: see :class:`timix_pl.models.fine_tuned.FineTuned`.
    """

    head: Fusion

    def __init__(
        self,
        encoder: DualEncoder,
        *,
        answers: Sequence[str] = (),
        chooses: bool,
        use_image: bool = True,
        dim: int = 256,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        **tuning: Any,
    ):
        sizes: dict[str, Any] = {"dim": dim, "layers": layers, "heads": heads, "dropout": dropout}
        head = Fusion(token_dim(encoder), encoder.image.patch_dim, num_answers=len(answers), chooses=chooses, **sizes)
        head.to(encoder.weights_like.device)
        super().__init__(encoder, head, reads=("image", "text") if use_image else ("text",), **tuning)
        self.answers = list(answers)

    def sums(self, batch: ItemBatch) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy, in nats, summed over questions: of the right choice, and of the open answers with soft targets."""
        patches, question = self.look(batch.images), self.token_features(batch.items["question"])
        sums = {}
        if self.head.choice is not None:
            scores = self.choice_scores(patches, question, batch.items["choices"], batch.items["num_choices"], batch.image_index)
            asked = batch.items["num_choices"] > 0
            sums["multiple_choice"] = -scores.float().log_softmax(1)[:, 0].where(asked, 0.0).sum()
        if self.head.answers is not None:
            known = self.answer_logits(patches, question, batch.image_index).float().log_softmax(1)
            sums["open"] = -(known.gather(1, batch.items["answers"]) * batch.items["shares"]).sum()
        return sums

    def look(self, images: Tensor) -> Float[Tensor, "B P C"] | None:
        """Patch features, or None if the model reads only the text."""
        return self.patch_features(images) if "image" in self.reads else None

    def answer_logits(
        self, patches: Float[Tensor, "B P C"] | None, question: tuple[Tensor, Tensor], image_index: Int[Tensor, " N"]
    ) -> Float[Tensor, "N A"]:
        """Logits of the known answers to each question.

        Args:
            question: from :meth:`token_features`.
        """
        assert self.head.answers is not None
        return self.head.answers(self.head([question], patches, image_index))

    def choice_scores(
        self,
        patches: Float[Tensor, "B P C"] | None,
        question: tuple[Tensor, Tensor],
        choices: Int[Tensor, "N C T"],
        num_choices: Int[Tensor, " N"],
        image_index: Int[Tensor, " N"],
    ) -> Float[Tensor, "N C"]:
        """A score for each choice; choices do not see each other. Padding gets -inf; a question without choices has finite scores.

        Args:
            question: from :meth:`token_features`.
        """
        count = choices.shape[1]
        rows = [part.repeat_interleave(count, 0) for part in question]
        readout = self.head([(rows[0], rows[1]), self.token_features(choices.flatten(0, 1))], patches, image_index.repeat_interleave(count))
        assert self.head.choice is not None
        scores = self.head.choice(readout).unflatten(0, (-1, count))[:, :, 0]
        numbers = torch.arange(count, device=scores.device)
        missing = (numbers >= num_choices[:, None]) & (num_choices[:, None] > 0)
        return scores.masked_fill(missing, -torch.inf)
