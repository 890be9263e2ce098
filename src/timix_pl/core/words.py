"""Numbers of things in messages."""


def counted(number: int, noun: str) -> str:
    """``1 shard``, ``2 shards``, ``1,000 shards``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
