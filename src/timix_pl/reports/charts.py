"""Which columns of ``metrics.csv`` are drawn together, and under which title."""

from dataclasses import dataclass
from fnmatch import fnmatch

from timix_pl.reports.chart import Chart, line_chart
from timix_pl.reports.figures import Figure, Unit, unit, value_text, words
from timix_pl.reports.run import Run


@dataclass(frozen=True)
class _Spec:
    title: str
    patterns: tuple[str, ...]
    note: str = ""
    unit: Unit = Unit.number
    ceiling: str = ""
    """A column whose newest value, which no curve can exceed, is told in the note."""


_MI = "mutual_information/"
_LEARNING = (
    _Spec("Loss", ("train/loss/*",), "unweighted terms and their weighted sum"),
    _Spec("Retrieval, mean recall", ("retrieval/mean_recall",), unit=Unit.share),
    _Spec("Retrieval, image to text", ("retrieval/image_to_text/recall_*", "retrieval/image_to_text/map_*"), unit=Unit.share),
    _Spec("Retrieval, text to image", ("retrieval/text_to_image/recall_*", "retrieval/text_to_image/map_*"), unit=Unit.share),
    _Spec("Retrieval, median and mean rank", ("retrieval/*_rank",), "lower is better"),
    _Spec("Zero-shot classification", ("zero_shot/*",), unit=Unit.share),
    _Spec("Grounding, per phrase", ("grounding/pointing*", "grounding/localisation"), unit=Unit.share),
    _Spec("Grounding, per patch", ("grounding/patch_*",), unit=Unit.share),
    _Spec(
        "Mutual information, clean pairs", (f"{_MI}held_out", f"{_MI}train"), "lower bound on held-out pairs, nats", ceiling=f"{_MI}ceiling"
    ),
    _Spec(
        "Mutual information, mixed images",
        (f"{_MI}held_out_mixed", f"{_MI}train_mixed"),
        "lower bound on held-out pairs, nats",
        ceiling=f"{_MI}ceiling_mixed",
    ),
    _Spec("Mutual information, gap", ("mutual_information/gap*",), "training pairs above held-out pairs, nats"),
    _Spec("Noise: misaligned pairs told apart", ("noise/*/roc_auc", "noise/*/average_precision"), unit=Unit.share),
    _Spec(
        "Noise: loss of training pairs",
        ("noise/train/loss_*aligned",),
        "InfoNCE of a pair, nats; misaligned ones that come down are learned",
    ),
    _Spec("Noise: loss of held-out pairs", ("noise/held_out/loss_*aligned",), "InfoNCE of a pair, nats"),
    _Spec("VQA, multiple choice", ("vqa/multiple_choice/*",), unit=Unit.share),
    _Spec("VQA, open answers", ("vqa/open/accuracy*",), "by the known answers", Unit.share, "vqa/open/reachable"),
    _Spec("VQA, accuracy", ("vqa/accuracy",), unit=Unit.share),
    _Spec("Captioning, BLEU", ("captioning/bleu_*",), "times 100", Unit.score),
    _Spec("Captioning, ROUGE-L and CIDEr-D", ("captioning/rouge_l", "captioning/cider_d"), "times 100", Unit.score),
    _Spec("Carry-over of PTA", ("carry_over/best_over_least", "carry_over/roc_auc"), unit=Unit.share),
    _Spec("Carry-over: similarity lost to a blanked window", ("carry_over/drop_*",)),
    _Spec("PTA on training batches", ("train/pta/*",), "patches called relevant, against the boxes", unit=Unit.share),
)
_RUNNING = (
    _Spec("Mixing: lam and gamma", ("train/mixing/lam", "train/mixing/gamma"), "share of the image kept; weight of the mixed loss"),
    _Spec("Mixed images per step", ("train/mixing/num_mixed",)),
    _Spec("Window side", ("train/mixing/side",), "in patches"),
    _Spec("Learning rate", ("train/lr",)),
    _Spec("Gradient norm", ("train/grad_norm",), "before clipping"),
    _Spec("Logit scale", ("train/logit_scale",), "inverse temperature"),
    _Spec("Throughput", ("train/samples_per_s",), "samples/s"),
    _Spec("Model FLOPs utilisation", ("train/mfu",), "share of the device's peak", unit=Unit.share),
    _Spec("Waiting, exchanging, updating", ("train/*_frac",), "share of the time", unit=Unit.share),
    _Spec("Questions or captions per step", ("train/num_items",)),
    _Spec("Peak memory", ("train/peak_memory_gb",), "GB, so far"),
)
_NOT_DRAWN = {"consumed", "epoch", "train/num_skipped_steps", "train/num_bad_samples", "train/samples_per_s_per_device"}
_NOT_DRAWN |= {f"{_MI}ceiling", f"{_MI}ceiling_mixed", "vqa/open/reachable"}


def charts(run: Run) -> tuple[list[Chart], list[Chart]]:
    """The charts of a run: what it learned, and how it ran. A column that no chart knows gets one of its own, named after it."""
    rest = [name for name in run.history if name not in _NOT_DRAWN and not any(_matches(spec, name) for spec in _LEARNING + _RUNNING)]
    running = tuple(_Spec(name, (name,)) for name in rest if name.startswith("train/"))
    learning = tuple(
        _Spec(f"{Figure(name, 0).group}, {Figure(name, 0).label}", (name,), unit=unit(name))
        for name in rest
        if not name.startswith("train/")
    )
    return _drawn(run, _LEARNING + learning), _drawn(run, _RUNNING + running)


def _drawn(run: Run, specs: tuple[_Spec, ...]) -> list[Chart]:
    chance = {figure.name: figure.chance for figure in run.figures if figure.chance is not None}
    drawn = []
    for spec in specs:
        names = [name for name in run.history if _matches(spec, name)]
        if names:
            labels = dict(zip(names, _labels(names), strict=True))
            curves = {labels[name]: run.history[name] for name in names}
            levels = {labels[name]: chance[name] for name in names if name in chance and unit(name) is not Unit.rank}
            note = spec.note + (
                f", at most {value_text(spec.ceiling, run.history[spec.ceiling][-1][1]).removesuffix(' nats')}"
                if spec.ceiling in run.history
                else ""
            )
            drawn.append(line_chart(spec.title, curves, last_step=run.last_step, note=note, chance=levels, unit=spec.unit))
    return drawn


def _matches(spec: _Spec, name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in spec.patterns)


def _labels(names: list[str]) -> list[str]:
    """What tells the names apart: the parts of their paths that not all share; a single one needs no name."""
    if len(names) == 1:
        return ["latest"]
    paths = [name.split("/") for name in names]
    shared = set(paths[0]).intersection(*paths)
    return [", ".join(words(part) for part in path if part not in shared) or words(path[-1]) for path in paths]
