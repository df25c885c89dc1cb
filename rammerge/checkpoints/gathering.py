"""Weights that a trainer saved before it gathered them from its ranks."""

from collections.abc import Sequence

from rammerge.errors import InputError


def check_gathered(who: str, name: str, shape: Sequence[int]) -> None:
    """Refuse the tensor `name` of `who` if it has no elements: DeepSpeed's ZeRO-3 leaves such placeholders."""
    if 0 in shape:
        raise InputError(
            f"{who} has {name} of shape {list(shape)}: it was saved without gathering the shards of ZeRO-3; run the "
            "zero_to_fp32.py in the DeepSpeed checkpoint, or save again with "
            "stage3_gather_16bit_weights_on_model_save"
        )
