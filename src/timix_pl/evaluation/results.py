"""Names of results."""

from timix_pl.core.types import EvaluationResult


def named(name: str, metrics: dict[str, float], chance: dict[str, float]) -> EvaluationResult:
    """A result whose metrics' names begin with the evaluation's name."""
    return EvaluationResult({f"{name}/{key}": value for key, value in metrics.items()}, {f"{name}/{key}": v for key, v in chance.items()})
