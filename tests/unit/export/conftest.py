"""A text tower of Hugging Face."""

import pytest

from tests.text_model import write_text_model


@pytest.fixture
def bert(tmp_path):
    return write_text_model(tmp_path / "bert", "bert")
