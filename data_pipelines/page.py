"""Write an inspection as one self-contained HTML page that opens offline."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from data_pipelines.inspection import QUANTILES, Inspection, number_text, problem_tables, scope, shares
from timix_pl.core.files import atomic_path


def write_page(found: Inspection, path: Path) -> None:
    """Write the page atomically. All text is escaped."""
    environment = Environment(
        loader=PackageLoader("data_pipelines"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    histograms = found.histograms()
    html = environment.get_template("inspect.html").render(
        found=found,
        scope=scope(found),
        shares=shares(found),
        quantiles=list(QUANTILES),
        rows=[(what, [number_text(value) for value in values], histograms[what]) for what, values in found.quantiles().items()],
        problem_tables=problem_tables(found),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as unfinished:
        unfinished.write_text(html, encoding="utf-8", errors="backslashreplace")
