"""Write the report of a run as a self-contained HTML page."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from timix_pl.core.files import atomic_path
from timix_pl.core.metric import Metric
from timix_pl.reports.chart import AREA
from timix_pl.reports.charts import charts
from timix_pl.reports.figures import Figure, value_text
from timix_pl.reports.header import facts, settings, status
from timix_pl.reports.run import Run, read_run, undescribed

_HEADLINES = (
    "retrieval/mean_recall",
    "zero_shot/top_1",
    "grounding/pointing",
    "vqa/accuracy",
    "captioning/bleu_4",
    "captioning/rouge_l",
    "captioning/cider_d",
)


@dataclass(frozen=True)
class FigureRow:
    """A figure, and beside it another value: that of an earlier, better evaluation, or that at the end of training."""

    figure: Figure
    beside: str

    @property
    def is_best(self) -> bool:
        """Whether no earlier evaluation was better; False if neither direction is better."""
        return self.figure.metric.higher_is_better is not None and not self.beside


def write_report(run_dir: Path, known: Callable[[str], Metric | None] = undescribed) -> Path:
    """Write ``run_dir/report.html`` with figures, curves, mixed pairs, heat maps and configuration. The page opens offline.

    The page says which parts the run does not have (yet). It is replaced atomically.

    Args:
        known: see ``read_run``.
    Returns:
        The path of the page.
    Raises:
        RunError: ``run_dir`` does not exist or is not a run directory.
    """
    run = read_run(run_dir, known)
    now_s = time.time()
    learning, running = charts(run)
    trained = {figure.name: figure.value_text for figure in run.figures}
    afterwards = run.afterwards.figures if run.afterwards else []
    state, sentence = status(run, now_s)
    return write_page(
        run_dir / "report.html",
        "report.html",
        run=run,
        state=state,
        sentence=sentence,
        facts=facts(run),
        settings=settings(run),
        headlines=[figure for figure in run.figures if figure.name in _HEADLINES],
        rows=[FigureRow(figure, _earlier_best(run, figure)) for figure in run.figures],
        afterwards=[FigureRow(figure, trained.get(figure.name, "")) for figure in afterwards],
        learning=learning,
        running=running,
        area=AREA,
    )


def write_page(path: Path, template: str, **context: Any) -> Path:
    """Render ``templates/TEMPLATE`` and write it to ``path`` atomically. All text is escaped."""
    environment = Environment(
        loader=PackageLoader("timix_pl.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template(template).render(**context)
    with atomic_path(path) as unfinished:
        unfinished.write_text(html, encoding="utf-8")
    return path


def _earlier_best(run: Run, figure: Figure) -> str:
    if figure.metric.higher_is_better is None:
        return ""
    sign = 1 if figure.metric.higher_is_better else -1
    step, best = max(run.history.get(figure.name, [(0, figure.value)]), key=lambda point: sign * point[1])
    better = sign * (best - figure.value) > 1e-6 * abs(figure.value)  # not only a difference from rounding in the files
    return f"{value_text(figure.metric, best)} at step {step:,.0f}" if better else ""
