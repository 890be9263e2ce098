"""The dual encoder: an image tower, a text tower, and the PTA head between them."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch._dynamo
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from timix_pl.core.errors import ModelError
from timix_pl.core.types import MixPlan, RegionBatch, Seen
from timix_pl.models.encoded import Encoded
from timix_pl.models.image_tower import ImageTower
from timix_pl.models.open_clip import create_open_clip
from timix_pl.models.patch_dropout import PatchDropout
from timix_pl.models.patch_text_alignment import PatchTextAlignment
from timix_pl.models.text_tower import TextTower

NUM_TEXTS = 3
"""Captions under which a mixed image teaches the PTA head: the row's, the partner's, and that of the partner's partner."""


class Mixing(Protocol):
    """The mixing of one step, as the model needs it. Implemented by :class:`timix_pl.mixing.step.MixStep`."""

    compute: str
    rows: Tensor
    joined_tokens: Tensor | None
    teaches: bool

    @property
    def needs_scores(self) -> bool: ...

    def plan(self, scores: Tensor | None = None) -> MixPlan: ...

    def apply(self, images: Tensor, plan: MixPlan) -> Tensor: ...

    def apply_tokens(self, tokens: Tensor, plan: MixPlan, grid: tuple[int, int]) -> Tensor: ...

    def shows_partner(self, plan: MixPlan) -> Tensor: ...


class DualEncoder(nn.Module):
    """Image and text towers with a shared embedding space, and optionally a PTA head for patch scores.

    Args:
        image: the image tower.
        text: the text tower.
        tokenizer: converts captions to tokens (B T).
        image_size_px: height and width of the images.
        mean, std: per-channel statistics of pixels scaled to 0..1.
        pta: the head, or None.
        pta_grad: where gradients of the PTA loss go. ``full``: the head and both towers; ``trunk``: the head and the image tower up to the
            PTA block; ``head``: only the head.
        init_logit_scale: initial inverse temperature.
        max_logit_scale: upper bound of the inverse temperature.
        init_logit_bias: initial bias of the logits, for the sigmoid loss; None: no bias.
        mixing_level: mix the tokens after this block of the image tower (0: the patch embeddings); None: mix pixels.
        patch_dropout: share of the patches that a training step drops; see :class:`timix_pl.models.patch_dropout.PatchDropout`.
    Raises:
        ModelError: the image tower does not support mixing of tokens or patch dropout, or has no block ``mixing_level``.
    """

    def __init__(
        self,
        image: ImageTower,
        text: TextTower,
        tokenizer: Callable[[list[str]], Tensor],
        *,
        image_size_px: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        pta: PatchTextAlignment | None = None,
        pta_grad: str = "full",
        init_logit_scale: float = 1 / 0.07,
        max_logit_scale: float = 100.0,
        init_logit_bias: float | None = None,
        mixing_level: int | None = None,
        patch_dropout: float = 0.0,
    ):
        super().__init__()
        _check_walk(image, mixing_level, patch_dropout)
        self.mixing_level, self.patch_dropout = mixing_level, patch_dropout
        self.image, self.text, self.pta, self.pta_grad = image, text, pta, pta_grad
        self.tokenizer, self.image_size_px, self.patch_grid = tokenizer, image_size_px, image.patch_grid
        self.terms = nn.ModuleDict()
        self.max_logit_scale = max_logit_scale
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(init_logit_scale)))
        self.logit_bias = nn.Parameter(torch.full((1,), init_logit_bias)) if init_logit_bias is not None else None
        self.statistics = torch.tensor((mean, std)).view(2, 1, 3, 1, 1) * 255  # not a buffer, because .to(torch.bfloat16) would round it
        self.weights_like: Tensor
        self.register_buffer("weights_like", torch.empty(0), persistent=False)

    @classmethod
    def create(
        cls,
        architecture: str,
        *,
        pretrained: str | None = None,
        text_model: str | None = None,
        text_pretrained: bool = True,
        image_size_px: int | None = None,
        context_length: int | None = None,
        pta_block: int = 6,
        pta_hidden_dim: int | None = None,
        with_pta: bool = True,
        load_weights: bool = True,
        device: str = "cpu",
        **options: Any,
    ) -> "DualEncoder":
        """Build from an open_clip architecture.

        Args:
            architecture: any name of ``open_clip.list_models()``, ``timix-tiny`` or ``timix-small``.
            pretrained: an open_clip tag or the path of a weights file.
            text_model: a Hugging Face text tower instead of the architecture's own: hub name or local folder.
            text_pretrained: load the weights of that tower.
            image_size_px, context_length: None: the architecture's.
            pta_block: block of the image tower, counted from 1, after which patch features are taken.
            pta_hidden_dim: None: the image tower's width.
            with_pta: build a PTA head.
            load_weights: False: use ``pretrained`` and ``text_model`` only for the configuration; the weights are random.
            device: ``meta`` builds without memory or weights.
            options: see the class.
        Raises:
            ModelError: unknown architecture (with the nearest names), weights that cannot be loaded, a block that does not exist, an image
                size that the patches do not divide.
        """
        model, tokenizer = create_open_clip(
            architecture,
            pretrained=pretrained,
            text_model=text_model,
            text_pretrained=text_pretrained,
            image_size_px=image_size_px,
            context_length=context_length,
            load_weights=load_weights,
            device=device,
        )
        size = model.visual.image_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        image = ImageTower(model.visual, pta_block, size)
        text = TextTower(model.text)
        pta = None
        if with_pta:
            with torch.device(device), torch.no_grad():
                text_dim = text(torch.zeros(1, tokenizer.context_length or 77, dtype=torch.long))[1].shape[1]
                pta = PatchTextAlignment(image.patch_dim, text_dim, pta_hidden_dim or image.patch_dim)
        statistics = model.visual.preprocess_cfg
        encoder = cls(image, text, tokenizer, image_size_px=size, mean=statistics["mean"], std=statistics["std"], pta=pta, **options)
        return encoder.to(device)

    def add_terms(self, terms: Mapping[str, nn.Module]) -> None:
        """Add further loss terms to the forward pass. Their parameters become parameters of the model.

        Args:
            terms: by name; see :class:`timix_pl.losses.term.LossTerm`.
        """
        self.terms = nn.ModuleDict(terms).to(self.weights_like.device)

    def parts(self) -> dict[str, nn.Module]:
        """The towers and the heads, by name."""
        return {"image": self.image, "text": self.text} | self.heads()

    def heads(self) -> dict[str, nn.Module]:
        """Parts that a step may not use: the PTA head, if there is one, and further loss terms."""
        return ({"pta": self.pta} if self.pta is not None else {}) | dict(self.terms.items())

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks of both towers. Checkpointing, compilation and sharding apply to each of them."""
        return self.image.blocks() + self.text.blocks()

    def checkpoint_gradients(self) -> None:
        """From now on, recompute each block in the backward pass instead of storing its activations.

        Raises:
            ModelError: a tower does not support this.
        """
        self.image.checkpoint_gradients()
        self.text.checkpoint_gradients()

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile each block in place at its first call. Parameter names do not change. Call it before sharding.

        Blocks of the same kind share compiled code. For sizes that vary (mixed rows, region images, phrases), a second version for any size
        is compiled.
        """
        # The default limit of 8 versions is shared by both towers, which need more: with and without gradients, in training and evaluation,
        # for fixed and for any sizes.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        for block in self.blocks():
            block.compile(backend=backend)

    def normalise(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Normalise pixels (0 to 255) for the image tower. Computed in fp32, then cast to the type of the weights."""
        mean, std = self.statistics.to(images.device, non_blocking=True)
        return ((images - mean) / std).to(self.weights_like.dtype)

    def encode_image(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """L2-normalised image features."""
        return F.normalize(self.image(self.normalise(images)).image_features, dim=-1)

    def encode_text(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """L2-normalised text features."""
        return F.normalize(self.text(tokens)[0], dim=-1)

    def patch_scores(self, images: UInt8[Tensor, "B 3 H W"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B h w"]:
        """PTA logits on the patch grid: how well text i describes each patch of image i.

        Raises:
            ModelError: the model has no PTA head.
        """
        if self.pta is None:
            raise ModelError("this model has no PTA head, and so no patch scores; build it with `with_pta=True`")
        logits = self.pta(self._patch_features(images), self.text(tokens)[1])
        return logits.unflatten(1, self.patch_grid)

    def forward(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        tokens: Int[Tensor, "B T"],
        *,
        mix: Mixing | None = None,
        regions: RegionBatch | None = None,
        dropout: PatchDropout | None = None,
        with_sums: bool = True,
    ) -> Encoded:
        """Compute everything that one training step needs from the towers. It is one call of the root module, because FSDP requires that.

        Args:
            mix: this step's mixing; None: only clean images.
            regions: region images and phrases, for the PTA loss.
            dropout: this step's patch dropout for clean and mixed images. Nothing is dropped in evaluation mode, from region images, or in
                a pass that only computes scores.
            with_sums: also run the loss terms that are sums over items. An accumulated step runs them only in its second pass.
        """
        x, level = self.normalise(images), self.mixing_level
        pixels, keep = x, self._keep(len(x), dropout, "clean")
        kept = keep
        text_features, pooled = self.text(tokens)
        mixed_features = mixed_text = plan = None
        if mix is not None and mix.compute == "replace":
            patch_features = None
            if level is not None:
                _, patch_features, x = self.image(x, stop=level, tokens_after=level)
            plan = mix.plan(self._scores_of_rows(x, patch_features, pooled, mix))
            x = x.index_copy(0, plan.rows, self._mixed(x, mix, plan))
            output = self.image(x, start=level, keep=keep)
            image_features = output.image_features
            patch_features = output.patch_features if output.patch_features is not None else patch_features  # level > pta.block
            of_mixed = output.patch_features[plan.rows] if mix.teaches and output.patch_features is not None else None
            keep = None if keep is None else keep[plan.rows]
            if mix.joined_tokens is not None:
                text_features = text_features.index_copy(0, plan.rows, self.text(mix.joined_tokens)[0])
        else:
            image_features, patch_features, clean_tokens = self.image(x, tokens_after=level, keep=keep)
            if mix is not None:
                plan = mix.plan(self._scores(patch_features, pooled, keep) if mix.needs_scores else None)
                mixed = self._mixed(x if level is None else clean_tokens, mix, plan)
                keep = self._keep(len(x), dropout, "mixed", mix.rows)
                output = self.image(mixed, start=level, keep=keep)
                mixed_features, of_mixed = F.normalize(output.image_features, dim=-1), output.patch_features
                if mix.joined_tokens is not None:
                    mixed_text = F.normalize(self.text(mix.joined_tokens)[0], dim=-1)
        image_features, text_features = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
        encoded = Encoded(
            image_features=image_features,
            text_features=text_features,
            mixed_image_features=mixed_features,
            mixed_text_features=mixed_text,
            joined=mix is not None and mix.joined_tokens is not None,
            plan=plan,
            logit_scale=self.logit_scale.clamp(max=math.log(self.max_logit_scale)).exp(),
            logit_bias=self.logit_bias,
        )
        if self.terms:
            assert patch_features is not None
            seen = Seen(
                encoder=self,
                images=pixels,
                tokens=tokens,
                plan=plan if mix is not None and mix.compute == "replace" else None,
                patch_features=patch_features,
                keep=kept,
                image_features=image_features,
                text_features=text_features,
                pooled_text=pooled,
            )
            self._run_terms(seen, encoded, with_sums)
        if mix is not None and mix.teaches and with_sums:
            assert plan is not None
            if self.pta is None or of_mixed is None:
                raise ModelError(
                    "mixed images can teach only a PTA head that reads their own patch features; build the model with `with_pta=True`, "
                    "and mix pixels, or tokens up to the PTA block (`mixing_level`)"
                )
            encoded.mixed_logits, encoded.mixed_labels = self._mixed_logits(of_mixed, pooled, tokens, mix, plan, keep)
            encoded.touched |= {"pta"}
        if regions is not None and with_sums:
            encoded.region_logits = self._region_logits(regions)
            encoded.touched |= {"pta"}
        return encoded

    def _run_terms(self, seen: Seen, encoded: Encoded, with_sums: bool) -> None:
        # Terms that read the batch run in both passes of an accumulated step. They come first, so that in both passes they draw the same.
        for name, term in sorted(self.terms.items(), key=lambda named: not named[1].reads_batch):
            if term.reads_batch or with_sums:
                kept = encoded.term_rows if term.reads_batch else encoded.sums
                kept[name] = term(seen)
                encoded.touched |= {name}

    def _mixed(self, x: Float[Tensor, "B ..."], mix: Mixing, plan: MixPlan) -> Float[Tensor, "M ..."]:
        return mix.apply(x, plan) if self.mixing_level is None else mix.apply_tokens(x, plan, self.patch_grid)

    def _keep(self, num_rows: int, dropout: PatchDropout | None, kind: str, rows: Tensor | None = None) -> Int[Tensor, "B K"] | None:
        """The patches that go through the blocks, for ``rows`` (on the CPU) or all rows; None: all patches."""
        if dropout is None or not self.training:
            return None
        keep, device = dropout.keep(num_rows, math.prod(self.patch_grid), kind), self.weights_like.device
        keep = keep if rows is None else keep[rows]
        return (keep.pin_memory() if device.type == "cuda" else keep).to(device, non_blocking=True)

    @torch.no_grad()
    def _scores(
        self, patch_features: Float[Tensor, "B K C"], pooled_text: Float[Tensor, "B E"], keep: Int[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B P"]:
        """Scores on the whole grid. A dropped patch gets the mean score of its image, which z-normalisation maps to 0."""
        if self.pta is None:
            raise ModelError(
                "this mixing strategy needs patch scores, and the model has no PTA head; build it with `with_pta=True`, "
                "or choose another strategy"
            )
        scores = self.pta(patch_features, pooled_text)
        return scores if keep is None else scores.mean(1, keepdim=True).repeat(1, math.prod(self.patch_grid)).scatter(1, keep, scores)

    @torch.no_grad()
    def _scores_of_rows(
        self, x: Float[Tensor, "B ..."], patch_features: Float[Tensor, "B P C"] | None, pooled_text: Float[Tensor, "B E"], mix: Mixing
    ) -> Float[Tensor, "B P"] | None:
        """Scores of the rows to mix. Other rows are 0 and are not used.

        Args:
            x: images, or tokens after block ``mixing_level``.
            patch_features: given if ``mixing_level`` is at or after the PTA block; otherwise the rows are run up to the PTA block.
        """
        if not mix.needs_scores:
            return None
        rows = mix.rows.to(x.device, non_blocking=True)
        if patch_features is None:
            # The second pass of an accumulated step has no scoring, but must draw the same dropout.
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                features = self.image(x[rows], start=self.mixing_level, stop=self.image.block).patch_features
        else:
            features = patch_features[rows]
        scores = self._scores(features, pooled_text[rows])
        return scores.new_zeros(len(x), scores.shape[1]).index_copy(0, rows, scores)

    def _patch_features(self, images: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N P C"]:
        return self.image(self.normalise(images), stop=self.image.block).patch_features

    def _region_logits(self, regions: RegionBatch) -> Float[Tensor, "R P"]:
        if self.pta is None:
            raise ModelError("the batch has regions, and the model has no PTA head; leave `regions` out, or build it with `with_pta=True`")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.pta_grad != "head"):
            patch_features = self._patch_features(regions.images)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.pta_grad == "full"):
            pooled = self.text(regions.tokens)[1]
        return self.pta(patch_features, pooled, regions.image_index)

    def _mixed_logits(
        self,
        patch_features: Float[Tensor, "M K C"],
        pooled_text: Float[Tensor, "B E"],
        tokens: Int[Tensor, "B T"],
        mix: Mixing,
        plan: MixPlan,
        keep: Int[Tensor, "M K"] | None,
    ) -> tuple[Float[Tensor, "R K"], Float[Tensor, "R K"]]:
        """Logits and labels of mixed images under ``NUM_TEXTS`` captions each.

        A patch is positive under the captions of the image that it shows, also where several images have the same caption.
        """
        assert self.pta is not None
        next_of = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device).index_copy(0, plan.rows, plan.partners)
        texts = torch.stack((plan.rows, plan.partners, next_of[plan.partners]))
        same = [(tokens[texts] == tokens[shown]).all(2) for shown in (plan.rows, plan.partners)]
        of_partner = mix.shows_partner(plan)
        if keep is not None:
            of_partner = of_partner.gather(1, keep)
        labels = torch.where(of_partner, same[1][:, :, None], same[0][:, :, None]).flatten(0, 1)
        if self.pta_grad == "head":
            patch_features = patch_features.detach()
        if self.pta_grad != "full":
            pooled_text = pooled_text.detach()
        image_index = torch.arange(len(plan.rows), device=tokens.device).repeat(len(texts))
        return self.pta(patch_features, pooled_text[texts.flatten()], image_index), labels.float()


def _check_walk(image: ImageTower, mixing_level: int | None, patch_dropout: float) -> None:
    """Check that the image tower supports the mixing level and patch dropout.

    Raises:
        ModelError: it does not.
    """
    asked = []
    if mixing_level is not None:
        asked.append(f"`mixing_level={mixing_level}`")
    if patch_dropout > 0:
        asked.append(f"`patch_dropout={patch_dropout:g}`")
    if not asked:
        return
    if image.walk is None:
        raise ModelError(
            f"{', '.join(asked)}: works only with plain vision transformers, and {type(image.tower).__name__} is not one; "
            "set `mixing_level=None` and `patch_dropout=0`, or choose another `architecture`"
        )
    depth = len(image.walk.blocks)
    if mixing_level is not None and mixing_level >= depth:
        raise ModelError(
            f"`mixing_level={mixing_level}`: the image tower has {depth} blocks, and at least one must follow; "
            f"choose from `mixing_level=0` to `mixing_level={depth - 1}`"
        )
    if mixing_level and patch_dropout:
        raise ModelError(
            f"{', '.join(asked)}: a window's tokens may have been dropped by then; set `mixing_level=0`, `mixing_level=None` or "
            "`patch_dropout=0`"
        )
