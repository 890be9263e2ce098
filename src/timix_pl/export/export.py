"""Write a model in a format, with its model card; completely or not at all."""

import shutil
from pathlib import Path

import timix_pl
from timix_pl.core.choices import EXPORT_FORMATS
from timix_pl.core.files import atomic_folder
from timix_pl.export.model_card import RunFacts, model_card
from timix_pl.export.trained_model import TrainedModel
from timix_pl.export.writing import MARKER, check_out, check_same_features, write_json


def export(model: TrainedModel, facts: RunFacts, format: str, out: Path) -> None:
    """Write the folder ``out``. It appears only after its features were compared with the model's.

    Raises:
        ConfigError: ``out`` has other files, or a package is missing.
        ModelError: the format cannot express the model.
        OSError: the disk is full, or ``out`` cannot be written to.
    """
    check_out(out)
    with atomic_folder(out) as folder:
        written = EXPORT_FORMATS[format](model, folder, out)
        check_same_features(model, written, format)
        card = model_card(facts, written, timix_pl.__version__).replace("FOLDER", out.name if out.is_absolute() else str(out))
        (folder / "README.md").write_text(card, encoding="utf-8")
        for weights in folder.rglob("*.safetensors"):
            shutil.copymode(folder / "README.md", weights)  # safetensors writes files that only their owner may read
        write_json({"format": format, "timix_pl": timix_pl.__version__, "run": facts.name, "step": facts.step}, folder / MARKER)
