"""One of a thing is told otherwise than several."""

import pytest

from timix_pl.core.words import counted, with_keys


@pytest.mark.parametrize(("number", "told"), [(0, "0 shards"), (1, "1 shard"), (2, "2 shards"), (12345, "12,345 shards")])
def test_one_and_several(number, told):
    assert counted(number, "shard") == told


@pytest.mark.parametrize(
    ("marked", "said"),
    [
        ("`level=None` or `level=0`", "mixing.level=pixels or mixing.level=tokens:0"),
        ("`size=None`, `size=True`, `size=4`, `size`", "model.size=null, model.size=true, model.size=4, model.size"),
        ("set `whole=False`, not `whole`", "set data.remote=range, not `whole`"),
        ("`dim=3` stays", "`dim=3` stays"),
    ],
)
def test_a_mark_is_said_as_the_whole_of_it_as_its_beginning_or_as_its_name(marked, said):
    keys = {"level=None": "mixing.level=pixels", "level=": "mixing.level=tokens:", "size": "model.size", "whole=False": "data.remote=range"}
    assert with_keys(marked, keys) == said
