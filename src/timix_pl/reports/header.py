"""The header of a report: the status of the run, and facts about it."""

from datetime import UTC, datetime

from timix_pl.reports.run import Run

_SILENT_AFTER_S = 900.0


def status(run: Run, now_s: float) -> tuple[str, str]:
    """A word for the status of a run, and a sentence if it did not finish.

    Args:
        now_s: the time of the report, in seconds since the epoch. A run with the status "running" that has written nothing for long is
            called "silent".
    """
    word = str(run.summary.get("status", "unfinished"))
    if word == "finished":
        return word, ""
    silent_s = now_s - run.written_at_s
    go_on = "The same command with resume=auto goes on from its last checkpoint."
    if word in ("running", "unfinished") and silent_s < _SILENT_AFTER_S:
        return "running", "This run was still going when the report was written; write it again for newer figures."
    if word == "running":
        return "silent", f"This run says that it is running, but wrote nothing for {duration(silent_s)}: it was probably killed. {go_on}"
    return word, f"This run did not reach its end. {go_on}"


def facts(run: Run) -> list[tuple[str, str]]:
    """The known facts about a run, as label and text."""
    max_steps = run.setting("trainer.max_steps")
    known: list[tuple[str, str]] = []
    planned = f" of {max_steps:,}" if isinstance(max_steps, int) and max_steps > run.last_step else ""
    known.append(("Steps", f"{run.last_step:,}{planned}"))
    consumed = run.counts.get("consumed") or _last(run, "consumed")
    if consumed:
        num_pairs = run.summary.get("num_train_samples")
        passes = f" ({consumed / num_pairs:.1f} passes over {num_pairs:,})" if num_pairs else ""
        known.append(("Images seen" if run.is_task else "Pairs seen", f"{consumed:,.0f}{passes}"))
    if wall_s := run.counts.get("wall_s"):
        known.append(("Time", duration(wall_s)))
    samples_per_s = run.counts.get("samples_per_s") or _last(run, "train/samples_per_s")
    if samples_per_s:
        known.append(("Throughput", f"{samples_per_s:,.0f} samples/s"))
    if mfu := _last(run, "train/mfu"):
        known.append(("Model FLOPs utilisation", f"{mfu:.1%}"))
    if peak_memory_gb := _last(run, "train/peak_memory_gb"):
        known.append(("Peak memory", f"{peak_memory_gb:,.2f} GB"))
    for label, column in (("Skipped steps", "train/num_skipped_steps"), ("Bad samples", "train/num_bad_samples")):
        if (count := _last(run, column)) is not None:
            known.append((label, f"{count:,.0f}"))
    if parameters := {tower: number for tower, number in run.summary.get("num_parameters", {}).items() if number}:
        towers = ", ".join(f"{'PTA' if tower == 'pta' else tower} {_count(number)}" for tower, number in parameters.items())
        known.append(("Parameters", f"{_count(sum(parameters.values()))} ({towers})"))
    known.append(("Last written", datetime.fromtimestamp(run.written_at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")))
    return known


def settings(run: Run) -> list[str]:
    """The main settings of a run, e.g. 'mixing timix, ratio 1.0'."""
    of_task = ("task", "init", "tune.towers") if run.is_task else ("mixing.kind", "mixing.ratio", "loss.kind")
    keys = ("model.architecture", "data.kind", "data.global_batch_size", *of_task, "seed")
    return [f"{key.removesuffix('.kind')}={value}" for key in keys if (value := run.setting(key)) is not None]


def duration(seconds: float) -> str:
    """A duration as text: '45 s', '6 min 12 s', '3 h 05 min', '2 d 4 h'."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {s:02d} s" if minutes else f"{s} s"


def _last(run: Run, column: str) -> float | None:
    return run.history[column][-1][1] if column in run.history else None


def _count(number: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"
