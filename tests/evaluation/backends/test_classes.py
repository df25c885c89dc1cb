"""Contract: which class runs a model on text follows from its config alone, for all that transformers has.

The families are those of the installed transformers' own tables, each of which is tried.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import GenerationMixin

from evaluation.backends.classes import own_class, text_model
from rammerge.errors import InputError

AUTO = {
    "AutoModelForSeq2SeqLM": transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    "AutoModelForCausalLM": transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
    "AutoModelForImageTextToText": transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
}
# Models whose first input is an image or a sound, and those that do not generate token by token.
WITHOUT_TEXT = {
    "BlipForConditionalGeneration", "Blip2ForConditionalGeneration", "DiffusionGemmaForBlockDiffusion",
    "GraniteSpeechForConditionalGeneration", "GraniteSpeechPlusForConditionalGeneration",
    "InstructBlipForConditionalGeneration", "InstructBlipVideoForConditionalGeneration",
    "JanusForConditionalGeneration", "Kosmos2ForConditionalGeneration", "MusicgenForCausalLM",
    "MusicgenMelodyForCausalLM", "PI0ForConditionalGeneration", "PPFormulaNetForConditionalGeneration",
    "Pix2StructForConditionalGeneration", "SeamlessM4TForTextToText", "SeamlessM4Tv2ForTextToText",
    "VisionEncoderDecoderModel",
}  # fmt: skip


def families() -> Iterator[tuple[str, Any, Any]]:
    """Yield the auto class, the configuration and the class of each family that transformers has for text."""
    for auto, table in AUTO.items():
        for config in table:
            found = table[config]
            for each in found if isinstance(found, tuple) else (found,):
                yield auto, config, each


def write_config(directory: Path, model_type: str, *architectures: str, **settings: object) -> Path:
    directory.mkdir(exist_ok=True)
    content = {"model_type": model_type, "architectures": list(architectures), **settings}
    (directory / "config.json").write_text(json.dumps(content))
    return directory


@pytest.mark.filterwarnings("ignore")
def test_each_family_for_text_is_loaded_by_an_auto_class_that_has_it(tmp_path: Path) -> None:
    wrong, without = [], set()
    for auto, config, model in families():
        parts = {"encoder": {"model_type": "bert"}, "decoder": {"model_type": "bert"}}
        settings = parts if config.model_type == "encoder-decoder" else {}
        try:
            written = write_config(tmp_path / "model", config.model_type, model.__name__, **settings)
            found = text_model(written).auto.__name__
        except InputError as refusal:
            without.add(model.__name__)
            assert "can be merged but not evaluated" in str(refusal)
            continue
        table = AUTO[found].get(config, ())
        loaded = table if isinstance(table, tuple) else (table,)
        if model not in loaded or model.generate is not GenerationMixin.generate:
            wrong.append((auto, model.__name__, found))
    assert wrong == []
    assert without == WITHOUT_TEXT


@pytest.mark.parametrize(
    ("model_type", "architecture", "auto", "seq2seq"),
    [
        ("llama", "LlamaForCausalLM", "AutoModelForCausalLM", False),
        ("t5", "T5ForConditionalGeneration", "AutoModelForSeq2SeqLM", True),
        ("bart", "BartForConditionalGeneration", "AutoModelForSeq2SeqLM", True),
        ("bart", "BartForCausalLM", "AutoModelForCausalLM", False),
        ("qwen2_vl", "Qwen2VLForConditionalGeneration", "AutoModelForImageTextToText", False),
        # Listed among encoder-decoders, but a decoder that hears.
        ("voxtral", "VoxtralForConditionalGeneration", "AutoModelForSeq2SeqLM", False),
        ("llama", "LLaMAForCausalLM", "AutoModelForCausalLM", False),  # a name of other days
    ],
)
def test_the_class_that_saved_a_model_decides(
    model_type: str, architecture: str, auto: str, seq2seq: bool, tmp_path: Path
) -> None:
    found = text_model(write_config(tmp_path, model_type, architecture, is_encoder_decoder=seq2seq))
    assert (found.auto.__name__, found.seq2seq) == (auto, seq2seq)


def test_without_a_name_the_type_decides(tmp_path: Path) -> None:
    assert text_model(write_config(tmp_path, "llama")).auto is transformers.AutoModelForCausalLM
    assert text_model(write_config(tmp_path, "t5")).auto is transformers.AutoModelForSeq2SeqLM


@pytest.mark.parametrize(
    ("model_type", "architecture", "reason"),
    [
        ("bert", "BertForMaskedLM", "BertForMaskedLM does not generate text from text"),
        ("llama", "LlamaForSequenceClassification", "LlamaForSequenceClassification does not generate text"),
        ("qwen2", "Qwen2Model", "Qwen2Model does not generate text"),
        ("vit", "", "no class that generates text for the type 'vit'"),
        ("unheard_of", "", "transformers cannot read its config.json"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason_and_the_way_out(
    model_type: str, architecture: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        text_model(write_config(tmp_path, model_type, *([architecture] if architecture else [])))
    assert reason in str(refused.value)
    assert "can be merged but not evaluated" in str(refused.value)
    assert "set evaluation: none" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_class_that_saved_a_model_is_found_whatever_it_is_for(tmp_path: Path) -> None:
    assert own_class(write_config(tmp_path, "bert", "BertForMaskedLM")) is transformers.BertForMaskedLM
    assert own_class(write_config(tmp_path, "own", "OwnModel")) is None
    (tmp_path / "config.json").write_text("[1]")
    assert own_class(tmp_path) is None
