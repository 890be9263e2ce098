"""The configuration reference says what the schema says."""

from pathlib import Path

from timix_pl.config.reference import reference
from timix_pl.config.schema_options import schema_options

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_document_is_up_to_date():
    assert DOCUMENT.read_text(encoding="utf-8") == reference(), "python -m timix_pl.config.reference > docs/configuration.md"


def test_every_option_has_a_row_with_its_default():
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    for key, option in schema_options().items():
        (row,) = [line for line in lines if line.startswith(f"| `{key}` |")]
        assert f"| `{option.default_text}` | {option.facts.help} |" in row
