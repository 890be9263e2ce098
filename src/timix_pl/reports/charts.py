"""Group the columns of ``metrics.csv`` into charts with titles."""

from dataclasses import dataclass
from fnmatch import fnmatch

from timix_pl.core.metric import Metric, Unit
from timix_pl.reports.chart import Chart, line_chart
from timix_pl.reports.figures import Figure, heading, label, number_text, unit_word
from timix_pl.reports.run import Run


@dataclass(frozen=True)
class _Spec:
    """Columns of one unit that share a chart.

    If ``title`` and ``note`` are empty, a chart of a single column takes them from the column's description. ``ceiling``: a column whose
    newest value is an upper bound of all curves; the note shows it.
    """

    title: str
    patterns: tuple[str, ...]
    note: str = ""
    ceiling: str = ""


def _alone(name: str, note: str = "") -> _Spec:
    return _Spec("", (name,), note)


_MI = "mutual_information/"
_LEARNING = (
    _Spec("Loss", ("train/loss/*",), "unweighted terms and their weighted sum"),
    _alone("retrieval/mean_recall"),
    _Spec("Retrieval, image to text", ("retrieval/image_to_text/recall_*", "retrieval/image_to_text/map_*")),
    _Spec("Retrieval, text to image", ("retrieval/text_to_image/recall_*", "retrieval/text_to_image/map_*")),
    _Spec("Retrieval, median and mean rank", ("retrieval/*_rank",), "lower is better"),
    _Spec("Zero-shot classification", ("zero_shot/top_*", "zero_shot/mean_per_class")),
    _Spec("Grounding, per phrase", ("grounding/pointing*", "grounding/localisation")),
    _Spec("Grounding, per patch", ("grounding/patch_precision", "grounding/patch_recall", "grounding/patch_ap")),
    _Spec("Grounding, errors per patch", ("grounding/patch_calibration_error", "grounding/patch_brier_score"), "lower is better"),
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
    _Spec("Noise: separation of misaligned pairs", ("noise/*/roc_auc", "noise/*/average_precision")),
    _Spec(
        "Noise: loss of training pairs",
        ("noise/train/loss_*aligned",),
        "InfoNCE of a pair, nats; misaligned ones that come down are learned",
    ),
    _Spec("Noise: loss of held-out pairs", ("noise/held_out/loss_*aligned",), "InfoNCE of a pair, nats"),
    _Spec("VQA, multiple choice", ("vqa/multiple_choice/accuracy*",)),
    _Spec("VQA, open answers", ("vqa/open/accuracy*",), "by the known answers", "vqa/open/reachable"),
    _alone("vqa/accuracy"),
    _Spec("Captioning, BLEU", ("captioning/bleu_*",), "times 100"),
    _Spec("Captioning, ROUGE-L and CIDEr-D", ("captioning/rouge_l", "captioning/cider_d"), "times 100"),
    _Spec("Carry-over of PTA", ("carry_over/best_over_least", "carry_over/roc_auc")),
    _Spec("Carry-over: similarity lost to a blanked window", ("carry_over/drop_*",)),
    _Spec("PTA on training batches", ("train/pta/*",), "patches with probability above 0.5, against their labels"),
)
_RUNNING = (
    _Spec("Mixing: lam and gamma", ("train/mixing/lam", "train/mixing/gamma"), "share of the image kept; weight of the mixed loss"),
    _alone("train/mixing/num_mixed"),
    _alone("train/mixing/side", "in patches"),
    _alone("train/lr"),
    _alone("train/grad_norm", "before clipping"),
    _alone("train/logit_scale", "inverse temperature"),
    _alone("train/samples_per_s"),
    _alone("train/mfu", "share of the device's peak"),
    _Spec("Waiting, exchanging, updating", ("train/*_frac",), "share of the time"),
    _alone("train/num_items"),
    _alone("train/peak_memory_gb", "GB, so far"),
)
_NOT_DRAWN = {"consumed", "epoch", "train/num_skipped_steps", "train/num_bad_samples", "train/samples_per_s_per_device"}
_NOT_DRAWN |= {f"{_MI}ceiling", f"{_MI}ceiling_mixed", "vqa/open/reachable"}


def charts(run: Run) -> tuple[list[Chart], list[Chart]]:
    """The charts of a run: of its metrics, and of its speed and memory. Columns that are in no group get their own chart."""
    rest = [name for name in run.history if name not in _NOT_DRAWN and not any(_matches(spec, name) for spec in _LEARNING + _RUNNING)]
    learning = tuple(_alone(name) for name in rest if not _is_of_training(name))
    running = tuple(_alone(name) for name in rest if _is_of_training(name))
    return _drawn(run, _LEARNING + learning), _drawn(run, _RUNNING + running)


def _is_of_training(name: str) -> bool:
    return name.startswith("train/")


def _drawn(run: Run, specs: tuple[_Spec, ...]) -> list[Chart]:
    chance = {figure.name: figure.chance for figure in run.figures if figure.chance is not None}
    drawn = []
    for spec in specs:
        columns = {name: run.columns[name] for name in run.history if _matches(spec, name)}
        if not columns:
            continue
        first, unit = next(iter(columns)), next(iter(columns.values())).unit
        labels = dict(zip(columns, _labels(columns), strict=True))
        drawn.append(
            line_chart(
                spec.title or _title(first, columns[first]),
                {labels[name]: run.history[name] for name in columns},
                last_step=run.last_step,
                note=_note(run, spec, columns),
                chance={labels[name]: chance[name] for name in columns if name in chance and unit is not Unit.rank},
                unit=unit,
            )
        )
    return drawn


def _matches(spec: _Spec, name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in spec.patterns)


def _title(name: str, metric: Metric) -> str:
    if _is_of_training(name):
        return heading(metric.label) or name
    figure = Figure(name, metric, 0.0)
    return f"{figure.group}, {figure.label}"


def _note(run: Run, spec: _Spec, columns: dict[str, Metric]) -> str:
    if spec.ceiling in run.history:
        return f"{spec.note}, at most {number_text(run.columns[spec.ceiling], run.history[spec.ceiling][-1][1])}"
    if spec.note or len(columns) > 1:
        return spec.note
    (metric,) = columns.values()
    return ", ".join(filter(None, [unit_word(metric), "lower is better" if metric.higher_is_better is False else ""]))


def _labels(columns: dict[str, Metric]) -> list[str]:
    """Short labels: only the parts that differ between the curves; empty for a single curve."""
    if len(columns) == 1:
        return ["latest"]
    parts = [label(name, metric).split(", ") for name, metric in columns.items()]
    shared = set(parts[0]).intersection(*parts)
    return [", ".join(part for part in of_one if part not in shared) or of_one[-1] for of_one in parts]
