"""The class of transformers that runs a model on text, chosen by transformers' own tables from config.json alone.

transformers is imported by the first call.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.errors import InputError
from rammerge.system.reading import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_trusted: ContextVar[bool] = ContextVar("rammerge_trust_remote_code", default=False)


@contextmanager
def trusting(trusted: bool) -> Iterator[None]:
    """While the context lasts, let models run the code that they bring, if `trusted`."""
    token = _trusted.set(trusted)
    try:
        yield
    finally:
        _trusted.reset(token)


def local(model_dir: Path) -> dict[str, Any]:
    """Return how transformers is to load: from files, and without a checkpoint's own code unless that is trusted.

    If that were left unsaid, transformers would ask on a terminal.

    Raises:
        InputError: the code is trusted, and a file of the model names code of a different repository.
    """
    if trusted := _trusted.get():
        for name in ("config.json", "tokenizer_config.json"):
            _refuse_code_elsewhere(model_dir / name)
    return {"local_files_only": True, "trust_remote_code": trusted}


def _refuse_code_elsewhere(file: Path) -> None:
    """Refuse `ORG/NAME--module.Class` in `auto_map`, which is code of another repository at no particular commit."""
    if file.is_file() and "--" in json.dumps(read_json_object(file).get("auto_map")):
        raise InputError(
            f"{file} names code of a different repository in auto_map, which is not pinned; copy that code into the "
            "model's own repository, or leave trust_remote_code out"
        )


@dataclass(frozen=True)
class TextModel:
    """How transformers runs a model on text.

    Attributes:
        auto: the auto class that loads it.
        seq2seq: whether an encoder reads the prompt.
        config: its configuration.
    """

    auto: type[Any]
    seq2seq: bool
    config: "PreTrainedConfig"


def text_model(model_dir: Path) -> TextModel:
    """Return how transformers runs the model in `model_dir`, without reading its weights.

    Causal language models, encoder-decoders, and models of images and text, which are asked with text alone. The class
    that saved the model decides, if config.json names it, and the model's type otherwise.

    Raises:
        InputError: transformers cannot run the model on text; the model can still be merged.
    """
    config = _config(model_dir)
    named = config.architectures or []
    offered = list(_offered(config))
    chosen = next((auto for auto, name in offered if name in named), None)
    if chosen is None and (others := [name for name in named if _is_known(name)]):
        raise _refusal(model_dir, f"{others[0]} does not generate text from text token by token")
    if chosen is None and not offered:
        raise _refusal(model_dir, f"transformers has no class that generates text for the type '{config.model_type}'")
    return TextModel(chosen or offered[0][0], bool(config.is_encoder_decoder), config)


def own_class(model_dir: Path) -> type[Any] | None:
    """Return the class that saved the model in `model_dir`, whatever it is for, or None if transformers lacks it."""
    import transformers

    try:
        named = json.loads((model_dir / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
    except (OSError, ValueError, AttributeError):
        return None
    return getattr(transformers, named[0], None) if _is_known(named[0]) else None


def _config(model_dir: Path) -> "PreTrainedConfig":
    from transformers import AutoConfig

    if not (model_dir / "config.json").is_file():
        raise InputError(f"{model_dir} is not a model directory: it has no config.json")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(model_dir, **local(model_dir))
    except Exception as error:  # what a file from elsewhere makes transformers' parsers raise
        raise _refusal(model_dir, f"transformers cannot read its config.json: {_first_sentence(error)}") from error
    return config


def _offered(config: "PreTrainedConfig") -> Iterator[tuple[type[Any], str]]:
    """Yield each auto class that loads models of this configuration and runs them on text, and what it loads."""
    import transformers

    if _trusted.get():
        own = getattr(config, "auto_map", None) or {}
        for name in ("AutoModelForSeq2SeqLM", "AutoModelForCausalLM"):
            if isinstance(own.get(name), str):
                yield getattr(transformers, name), own[name].rpartition(".")[2]
    # Encoder-decoders first: transformers offers their decoders as causal models too.
    for auto, classes in (
        (transformers.AutoModelForSeq2SeqLM, transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING),
        (transformers.AutoModelForCausalLM, transformers.MODEL_FOR_CAUSAL_LM_MAPPING),
        (transformers.AutoModelForImageTextToText, transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING),
    ):
        found = classes.get(type(config), ())
        for each in found if isinstance(found, tuple) else (found,):
            if _answers_text(each):
                yield auto, each.__name__


def _answers_text(model: type[Any]) -> bool:
    """Tell whether a model works without an image or a sound, and generates token by token, as lm-eval expects."""
    from transformers import GenerationMixin

    return model.can_generate() and model.main_input_name == "input_ids" and model.generate is GenerationMixin.generate


def _is_known(name: object) -> bool:
    import transformers

    return isinstance(name, str) and isinstance(getattr(transformers, name, None), type)


def _refusal(model_dir: Path, reason: str) -> InputError:
    return InputError(f"{model_dir} can be merged but not evaluated: {reason}; set evaluation: none in the recipe")


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or repr(error)
    return text.split(". ")[0].rstrip(".")
