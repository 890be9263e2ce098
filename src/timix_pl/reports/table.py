"""Results as a plain text table."""

from collections.abc import Mapping

from timix_pl.core.metric import Metric
from timix_pl.reports.figures import figures


def results_table(metrics: Mapping[str, float], chance: Mapping[str, float], descriptions: Mapping[str, Metric]) -> str:
    """A table for the terminal: each metric with its level of chance, and how many times better it is.

    Args:
        metrics: by name, e.g. ``retrieval/mean_recall``.
        chance: by the same names; those without a known chance level may be absent.
        descriptions: by the same names; those without one are shown as plain numbers.
    Returns:
        Aligned lines without a newline at the end.

    >>> from timix_pl.core.metric import Unit
    >>> accuracy = Metric(Unit.share, higher_is_better=True)
    >>> metrics, chance = {"zero_shot/top_1": 0.5, "zero_shot/top_5": 0.9}, {"zero_shot/top_1": 0.125}
    >>> print(results_table(metrics, chance, {"zero_shot/top_1": accuracy, "zero_shot/top_5": accuracy}))
    metric           final  chance  vs chance
    -----------------------------------------
    zero_shot/top_1  50.0%   12.5%      4.0 ×
    zero_shot/top_5  90.0%       -
    """
    rows = [("metric", "final", "chance", "vs chance")]
    rows += [(figure.name, figure.value_text, figure.chance_text, figure.times_text) for figure in figures(metrics, chance, descriptions)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
