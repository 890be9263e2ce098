"""Writes the configuration reference: ``python -m timix_pl.config.reference > docs/configuration.md``."""

from itertools import groupby

from timix_pl.config.conf_dir import groups
from timix_pl.config.rules import Range
from timix_pl.config.schema_options import Option, schema_options

HEAD = """\
# Configuration

Generated from `src/timix_pl/config/schema/` by `python -m timix_pl.config.reference`; do not edit.

Type options as `KEY=VALUE`, in any order. An option that you leave out keeps its default, so a command contains only what differs:

```bash
timix-train experiment=demo optim.lr=5e-4 mixing.ratio=0.5 run_dir=runs/lower
```

`timix-train dry_run=true ...` shows the resulting configuration and does not train. Unknown keys, wrong types, values out of range and
contradictions are reported all at once, before any file or GPU is used.

**Values.** `null` means "none". Quote lists and patterns, so that the shell does not change them. A value with braces, an equals sign or a
comma needs double quotes inside single quotes:

```bash
timix-train experiment=demo 'evaluation.tasks=[retrieval,grounding]' 'data.phrase_template="a photo of a {}"'
```

**Sweeps.** With `-m`, every combination of comma-separated values is run: one run after another, or with `launcher=slurm` as one job array.
Job number N writes to `run_dir/N`:

```bash
timix-train -m experiment=demo mixing=timix,none seed=0,1
```

**Your own files.** With `--config-dir`, the YAML files of your own folder are added to the choices below. An example,
`mine/experiment/small.yaml`:

```yaml
# @package _global_
defaults:
  - override /data: scenes
  - override /model: tiny
  - override /mixing: cutmix
name: small
trainer:
  max_steps: 200
```

```bash
timix-train --config-dir mine experiment=small
```
"""


def reference() -> str:
    """The reference in Markdown: the groups of choices, then a table of options for each section."""
    parts = [HEAD, _choices()]
    for title, options in groupby(schema_options().values(), lambda option: option.title):
        parts.append(f"## {title}\n\n| key | takes | default | what it does |\n|---|---|---|---|\n" + "".join(map(_row, options)))
    return "\n".join(parts)


def _choices() -> str:
    rows = "".join(f"| `{group}=` | {', '.join(f'`{name}`' for name in names)} |\n" for group, names in groups().items())
    return (
        "## Choices\n\nA choice sets several options at once; each is a file `conf/GROUP/NAME.yaml`. "
        "An experiment overrides the files of the other groups; options on the command line override everything."
        f"\n\n| group | names |\n|---|---|\n{rows}"
    )


def _row(option: Option) -> str:
    facts = option.facts
    takes = option.takes + (f", {facts.within}" if isinstance(facts.within, Range) else "")
    return f"| `{option.key}` | {takes} | `{option.default_text}` | {facts.help} |\n"


if __name__ == "__main__":
    print(reference(), end="")
