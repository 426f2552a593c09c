"""A .gguf file as a folder that vLLM and transformers load, in pieces of at most 60 MB; needs transformers, torch and gguf.

Apart from gpu.py, which runs it by the Python that has those: engines usually live in an environment of their own.
"""

import argparse
from pathlib import Path

LARGEST_SHARD = "60MB"
"""So that a folder can be carried by what takes small files only."""


def main() -> None:
    """Convert and say where it lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="the .gguf file")
    parser.add_argument("folder", type=Path, help="where the model is written to")
    arguments = parser.parse_args()
    convert(arguments.weights, arguments.folder)
    print(arguments.folder)


def convert(weights: Path, folder: Path) -> None:
    """Write the model in bfloat16 with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers import AutoTokenizer

    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    # The weights are unpacked by now, and only what still says otherwise stops them from being saved.
    model.hf_quantizer = None
    for owner, name in (
        (model.config, "quantization_config"),
        (model, "is_quantized"),
        (model, "quantization_method"),
    ):
        if name in vars(owner):
            delattr(owner, name)
    model.save_pretrained(folder, max_shard_size=LARGEST_SHARD)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


if __name__ == "__main__":
    main()
