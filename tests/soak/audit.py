"""Reading an audit log."""

import json
from pathlib import Path
from typing import Any

STREAMS = ("data.train_shards", "data.region_shards")


def audit(run_dir: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of all ranks in the order of their positions: those of pairs and those of region images."""
    lines = [json.loads(line) for path in run_dir.glob("audit-*.jsonl") for line in path.read_text().splitlines()]
    pairs, regions = ([line for line in lines if line["stream"] == stream] for stream in STREAMS)
    return sorted(pairs, key=lambda line: line["position"]), sorted(regions, key=lambda line: line["position"])
