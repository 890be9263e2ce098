"""For transformers' ``CLIPModel`` and ``CLIPProcessor``; only architectures that these can express."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, TextTransformer, VisionTransformer
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from timix_pl.core.choices import EXPORT_FORMATS
from timix_pl.core.errors import ModelError
from timix_pl.export.clip_tokenizer import is_clip_tokenizer, write_clip_tokenizer
from timix_pl.export.trained_model import TrainedModel
from timix_pl.export.writing import Written, save_tensors, write_json

USAGE = """
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

folder = "FOLDER"  # the folder of this file
model = CLIPModel.from_pretrained(folder).eval()
processor = CLIPProcessor.from_pretrained(folder)
inputs = processor(text=["a dog", "a cat"], images=Image.open("photo.jpg"), return_tensors="pt", padding="max_length", truncation=True)
with torch.no_grad():
    outputs = model(**inputs)
image_features, text_features = outputs.image_embeds, outputs.text_embeds  # L2-normalised
logits = outputs.logits_per_imageBIAS
"""
BIAS_NOTE = "`CLIPModel` does not add the bias of the sigmoid loss. The bias is stored in its configuration, and the last line adds it."


@EXPORT_FORMATS.register("hf")
def write(model: TrainedModel, folder: Path, out: Path) -> Written:
    """Write model and processor.

    Raises:
        ModelError: CLIPModel cannot express the model; the message lists all reasons.
    """
    if found := problems(model):
        listed = "".join(f"\n  - {problem}" for problem in found)
        raise ModelError(
            f"format=hf: transformers' CLIPModel cannot express this model:{listed}\nexport it with format=open_clip, safetensors or onnx"
        )
    image, text = model.encoder.image.tower, model.encoder.text.tower
    dim = image.output_dim
    bias: dict[str, Any] = {} if model.logit_bias is None else {"logit_bias": model.logit_bias}
    vision = {"image_size": model.image_size_px[0], "patch_size": image.patch_size[0]}
    words = {
        "vocab_size": text.vocab_size,
        "max_position_embeddings": model.context_length,
        "bos_token_id": model.tokenizer.sot_token_id,
        "eos_token_id": model.tokenizer.eot_token_id,
        "pad_token_id": model.tokenizer.eot_token_id,
    }
    config = CLIPConfig(
        text_config=_transformer_config(text) | words | {"projection_dim": dim},
        vision_config=_transformer_config(image) | vision | {"projection_dim": dim},
        projection_dim=dim,
        **bias,
    )
    loaded = CLIPModel(config).eval()
    loaded.load_state_dict(_state_dict(model))
    config.architectures = ["CLIPModel"]
    config.save_pretrained(folder)
    save_tensors(loaded.state_dict(), folder / "model.safetensors")
    write_clip_tokenizer(model.tokenizer, folder)
    side = model.image_size_px[0]
    statistics = image.preprocess_cfg
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(statistics["mean"]),
        "image_std": list(statistics["std"]),
        "processor_class": "CLIPProcessor",
    }
    write_json(processor, folder / "preprocessor_config.json")

    return Written(
        "transformers",
        USAGE.replace("BIAS", " + model.config.logit_bias" if bias else ""),
        [BIAS_NOTE] if bias else [],
        lambda images: F.normalize(loaded.get_image_features(model.encoder.normalise(images)).pooler_output, dim=-1),
        lambda tokens: F.normalize(loaded.get_text_features(tokens).pooler_output, dim=-1),
    )


def problems(model: TrainedModel) -> list[str]:
    """The reasons why CLIPModel cannot express the model; empty if it can."""
    image, text = model.encoder.image.tower, model.encoder.text.tower
    return [*_image_problems(image), *_text_problems(text, model.encoder.text.projection, model.tokenizer)]


def _image_problems(tower: Any) -> list[str]:
    if not isinstance(tower, VisionTransformer):
        return [f"the image tower is {type(tower).__name__}, not open_clip's VisionTransformer"]
    found = _block_problems(tower, "image")
    (height, width), patch = tower.image_size, tower.patch_size
    if height != width or patch[0] != patch[1]:
        found.append(f"images of {height} x {width} pixels in patches of {patch[0]} x {patch[1]}; it takes only squares")
    if tower.attn_pool is not None:
        found.append("the image tower pools by attention (attentional_pool); it takes the class token")
    elif tower.pool_type != "tok":
        found.append(f"the image tower's pool_type is '{tower.pool_type}'; it takes the class token ('tok')")
    if not isinstance(tower.ln_pre, nn.LayerNorm):
        found.append("the image tower has no norm before its blocks (no_ln_pre)")
    return found


def _text_problems(tower: Any, projection: Any, tokenizer: Any) -> list[str]:
    if not isinstance(tower, TextTransformer):
        return [f"the text tower is {type(tower).__name__}, not open_clip's TextTransformer"]
    found = _block_problems(tower, "text")
    if tower.attn_mask is None:
        found.append("the text tower has no causal mask (no_causal_mask)")
    if tower.cls_emb is not None:
        found.append("the text tower has a class token (embed_cls)")
    at_end = tower.pool_type == "argmax" or (tower.pool_type == "eos" and tower.eos_id == getattr(tokenizer, "eot_token_id", None))
    if not at_end:
        found.append(f"the text tower's pool_type is '{tower.pool_type}'; it takes the end token ('argmax')")
    if not isinstance(projection, Tensor) and (not isinstance(projection, nn.Linear) or projection.bias is not None):
        found.append("the text projection is none or has a bias (proj_type, proj_bias)")
    if not is_clip_tokenizer(tokenizer):
        found.append("the tokenizer is not CLIP's own")
    return found


def _block_problems(tower: Any, side: str) -> list[str]:
    block = tower.transformer.resblocks[0]
    if not isinstance(block, ResidualAttentionBlock):
        return [f"the {side} tower's blocks are {type(block).__name__} (block_type, qk_norm, scale_...)"]
    found = []
    if not isinstance(block.ls_1, nn.Identity):
        found.append(f"the {side} tower scales its layers (ls_init_value)")
    if _activation(block) is None:
        found.append(f"the {side} tower's activation is {type(block.mlp.gelu).__name__}; it takes GELU and QuickGELU")
    return found


def _activation(block: Any) -> str | None:
    gelu = block.mlp.gelu
    if isinstance(gelu, nn.GELU):
        return {"none": "gelu", "tanh": "gelu_pytorch_tanh"}[gelu.approximate]
    return "quick_gelu" if isinstance(gelu, QuickGELU) else None


def _transformer_config(tower: Any) -> dict[str, Any]:
    blocks = tower.transformer.resblocks
    return {
        "hidden_size": tower.transformer.width,
        "intermediate_size": blocks[0].mlp.c_fc.out_features,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": blocks[0].attn.num_heads,
        "hidden_act": _activation(blocks[0]),
        "layer_norm_eps": blocks[0].ln_1.eps,
    }


def _state_dict(model: TrainedModel) -> dict[str, Tensor]:
    image, text = model.encoder.image.tower, model.encoder.text.tower
    projection = model.encoder.text.projection
    state = {
        "logit_scale": torch.tensor(model.logit_scale).log(),
        "visual_projection.weight": image.proj.T,
        "text_projection.weight": projection.weight if isinstance(projection, nn.Linear) else projection.T,
        "vision_model.embeddings.class_embedding": image.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": image.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": image.positional_embedding,
        "text_model.embeddings.token_embedding.weight": text.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": text.positional_embedding,
    }
    norms = {
        "vision_model.pre_layrnorm": image.ln_pre,
        "vision_model.post_layernorm": image.ln_post,
        "text_model.final_layer_norm": text.ln_final,
    }
    for name, norm in norms.items():
        state |= _named(name, norm.weight, norm.bias)
    for name, tower in {"vision_model": image, "text_model": text}.items():
        for number, block in enumerate(tower.transformer.resblocks):
            at = f"{name}.encoder.layers.{number}"
            weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
            for part, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
                state |= _named(f"{at}.self_attn.{part}", weight, bias)
            layers = {
                "self_attn.out_proj": block.attn.out_proj,
                "layer_norm1": block.ln_1,
                "layer_norm2": block.ln_2,
                "mlp.fc1": block.mlp.c_fc,
                "mlp.fc2": block.mlp.c_proj,
            }
            for part, layer in layers.items():
                state |= _named(f"{at}.{part}", layer.weight, layer.bias)
    return state


def _named(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": weight, f"{name}.bias": bias}
