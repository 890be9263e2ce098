"""One of a thing is told otherwise than several."""

import pytest

from timix_pl.core.words import counted


@pytest.mark.parametrize(("number", "told"), [(0, "0 shards"), (1, "1 shard"), (2, "2 shards"), (12345, "12,345 shards")])
def test_one_and_several(number, told):
    assert counted(number, "shard") == told
