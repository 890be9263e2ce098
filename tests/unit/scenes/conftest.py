import pytest

from tests.unit.scenes.shards import SPLITS, make, read_split


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """The samples of every split, misaligned_frac=0.4."""
    folder = make(tmp_path_factory.mktemp("scenes") / "scenes")
    return {split: read_split(folder, split) for split in SPLITS}
