"""``timix-export``: a trained model in the formats of open_clip and Hugging Face; it comes with a later version."""

import sys
from collections.abc import Sequence

from timix_pl.cli.arguments import parse, parser

LATER = "export to open_clip and Hugging Face comes with a later version of timix-pl"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments`` (of the process, by default)."""
    details = (
        f"Not in this version: {LATER}. Until then, a checkpoint in RUN_DIR/checkpoints is a PyTorch file (torch.load)\n"
        "whose 'state_dict' holds the weights."
    )
    parse(parser("timix-export", "Write a trained model in the formats that open_clip and Hugging Face load.", details), arguments)
    print(f"timix-export: {LATER}; timix-export --help says what can be done until then", file=sys.stderr)
    sys.exit(2)
