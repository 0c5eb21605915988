"""A model built from a checkpoint that nobody vouches for.

A checkpoint's configuration chooses what fairseq builds, and fairseq trusts it: some models evaluate
options as Python code, others fetch or import what an option names. So nothing of it reaches fairseq
but the options of tasks and architectures that are known here, each of its type, and sizes only as
large as the weights in the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from adv_plugins_cli.checkpoints.architecture import WORD_ARCHS
from adv_plugins_cli.checkpoints.checkpoint_file import refuse_not_finite, section
from adv_plugins_cli.command import UserError
from fairseq_compat.task_kinds import TASK_KINDS

# Where the classes of the RoBERTa family live; a plug-in's of the same name would be another one.
FAMILY = ("fairseq.models.roberta.", "adv_plugins.models.")
# Of --bpe, the options that name files.
TOKENIZER_FILES = {
    "gpt2": ("gpt2_encoder_json", "gpt2_vocab_bpe"),
    "sentencepiece": ("sentencepiece_model",),
    "wordpiece": ("wordpiece_dir",),
}
HEAD = "sentence_classification_head"
SIZES_OF_WORDS = {"encoder_hidden_size", "encoder_layers", "kernel_maps", "kernel_sizes"}
LARGEST = 2**31 - 1  # of a number that is no size
LONGEST = 4096  # of a text, in characters
# Positions that RoBERTa's table has before its first: those of the padding.
POSITIONS_BEFORE = 2


class Option(NamedTuple):
    """What a value of an option may be."""

    kind: type
    choices: tuple[Any, ...] = ()


def task_name(path: Path, state: Mapping[str, Any]) -> str:
    """fairseq's name of a checkpoint's task; "" if it has none."""
    options = section(path, state, "task")
    return _name(options.get("task")) or _name(options.get("_name"))


def task_options(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a checkpoint's task that are known, with fairseq's defaults for the others.

    Raises:
        UserError: the task is not known, or an option is not what it should be.
    """
    name = task_name(path, state)
    if name not in TASK_KINDS:
        raise UserError(f"{path}: --task {name or '?'} is not known; known are {', '.join(TASK_KINDS)}")
    from fairseq.tasks import TASK_REGISTRY

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    TASK_REGISTRY[name].add_args(parser)
    options = {each.dest: each.default for each in parser._actions}
    # What fairseq takes from other sections of the configuration.
    known = {
        **_options(parser),
        "max_positions": Option(int),
        "regression_target": Option(bool),
        "classification_head_name": Option(str),
        "ranking_head_name": Option(str),
        "seed": Option(int),
    }
    options |= {"classification_head_name": HEAD, "ranking_head_name": HEAD, "seed": 1}
    return options | _checked(path, section(path, state, "task"), known)


def model_options(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """The same of its architecture, ``arch`` its name.

    Raises:
        UserError: the architecture is not known, or an option is not what it should be, or not what
            the weights are.
    """
    from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
    from fairseq.models.roberta import RobertaModel

    from adv_plugins.models.text_classifier import TextClassifier

    given = section(path, state, "model")
    arch = _name(given.get("arch")) or _name(given.get("_name"))
    model = ARCH_MODEL_REGISTRY.get(arch, object)
    known_kind = issubclass(model, (RobertaModel, TextClassifier))
    if not (known_kind and model.__module__.startswith(FAMILY)):
        raise UserError(f"{path}: --arch {arch or '?'} is no architecture of the RoBERTa family")
    defaults = argparse.Namespace()
    ARCH_CONFIG_REGISTRY[arch](defaults)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    model.add_args(parser)
    known = {name: Option(type(value)) for name, value in vars(defaults).items() if value is not None}
    known |= {"tokens_per_sample": Option(int), **_options(parser)}
    options = {**vars(defaults), "arch": arch, **_checked(path, given, known)}
    if issubclass(model, TextClassifier):
        _check_word_sizes(path, options, state["model"])
        return {**options, "pretrained_embedding": None}  # the weights are here; no file is opened
    _check_sizes(path, options, state["model"])
    return options


def build(
    path: Path, state: Mapping[str, Any], data: Path, *, raw_text: bool = False
) -> tuple[Any, Any]:
    """The model of a checkpoint, in evaluation mode, and its task.

    Args:
        data: the folder of the dictionaries.
        raw_text: whether the task is to read raw text with the tokenizer that it was trained with
            (commonsense_qa's data).

    Raises:
        UserError: an option is not known or not as it should be; the model cannot be built, does not
            fit its weights or the dictionaries, or its weights are not finite.
    """
    name, weights = task_name(path, state), state["model"]
    options, architecture = task_options(path, state), model_options(path, state)
    if architecture["arch"] not in WORD_ARCHS:
        _check_positions(path, options.get("max_positions"), weights)
    _check_classes(path, options, weights)
    refuse_not_finite(path, weights)
    from fairseq import tasks

    options |= {"data": str(data), "task": name, "criterion": TASK_KINDS[name].criterion}
    options |= {"dataset_impl": None, "bpe": None}
    if raw_text:
        options |= _tokenizer(path, section(path, state, "task"))
    try:
        task = tasks.setup_task(argparse.Namespace(**options))
        architecture["load_checkpoint_heads"] = True
        cfg = argparse.Namespace(**architecture)
        model = task.build_model(cfg)
        # A copy: fairseq renames what older versions have named differently.
        model.load_state_dict(dict(weights), strict=True, model_cfg=cfg)
    except OSError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be built with {data} ({reason[:300]})") from error
    return model.eval(), task


def _options(parser: argparse.ArgumentParser) -> dict[str, Option]:
    """The options of a command line."""
    known = {}
    for action in parser._actions:
        switch = isinstance(action.const, bool) and action.nargs == 0
        kind = bool if switch else action.type or str
        if isinstance(kind, type):
            known[action.dest] = Option(kind, tuple(action.choices or ()))
    return known


def _checked(path: Path, given: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Any]:
    """The given values of the known options, without those that are None."""
    found = {}
    for name, option in known.items():
        value = given.get(name)
        if value is None:
            continue
        accepted = (float, int) if option.kind is float else (option.kind,)
        if type(value) not in accepted or (option.choices and value not in option.choices):
            raise UserError(f"{path}: {_flag(name)} {_shown(value)} in its configuration is refused")
        if not _harmless(value):
            raise UserError(f"{path}: {_flag(name)} {_shown(value)} in its configuration is refused")
        found[name] = option.kind(value)
    return found


def _harmless(value: str | int | float) -> bool:
    """No number beyond all measure, nor a text that is more than a name: omegaconf fills ${} in."""
    if isinstance(value, str):
        return len(value) <= LONGEST and value.isprintable() and "${" not in value
    return -LARGEST <= value <= LARGEST  # NaN is not, either


def _check_sizes(path: Path, options: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """The sizes are those of the weights, so that no more memory is asked for than the file has."""
    embedding = _table(path, weights, "embed_tokens")
    width, heads = options["encoder_embed_dim"], options["encoder_attention_heads"]
    if width != embedding.size(1):
        raise _unlike(path, "encoder_embed_dim", width, embedding.size(1))
    if heads < 1 or width % heads:
        raise UserError(f"{path}: --encoder-attention-heads {heads} do not part {width} dimensions")
    layer_names = (name.partition(".sentence_encoder.layers.")[2] for name in weights)
    numbers = {name.partition(".")[0] for name in layer_names if name}
    kept = options.get("encoder_layers_to_keep")
    layers = options["encoder_layers"] if not kept else len(kept.split(","))
    if not (1 <= layers <= len(numbers) if kept else layers == len(numbers)):
        raise _unlike(path, "encoder_layers", layers, len(numbers))
    hidden = {value.size(0) for name, value in weights.items() if name.endswith(".fc1.bias")}
    if hidden != {options["encoder_ffn_embed_dim"]}:
        raise _unlike(path, "encoder_ffn_embed_dim", options["encoder_ffn_embed_dim"], sorted(hidden))
    _check_positions(path, options.get("max_positions") or options.get("tokens_per_sample"), weights)


def _check_word_sizes(path: Path, options: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """The same of bilstm, text_cnn and text_han."""
    body = "encoder.sentence_encoder."
    found = {"encoder_embed_dim": _table(path, weights, "embed_tokens").size(1)}
    recurrent = [name for name in weights if name.startswith(f"{body}recurrent.")]
    if recurrent:
        last = weights[next(name for name in recurrent if name.endswith("weight_hh_l0"))]
        found["encoder_hidden_size"] = last.size(-1)
        found["encoder_layers"] = sum(name.endswith("weight_hh_l0") for name in recurrent)
    kernels = [
        value
        for name, value in weights.items()
        if name.startswith(f"{body}convolutions.") and name.endswith("weight")
    ]
    if kernels:
        found["kernel_maps"] = kernels[0].size(0)
        found["kernel_sizes"] = ",".join(str(each.size(-1)) for each in kernels)
    for option in found.keys() | (options.keys() & SIZES_OF_WORDS):
        if options.get(option) != found.get(option):
            raise _unlike(path, option, options.get(option), found.get(option, "none"))


def _check_positions(path: Path, positions: int | None, weights: Mapping[str, Any]) -> None:
    rows = _table(path, weights, "embed_positions").size(0) - POSITIONS_BEFORE
    if positions is not None and not 1 <= positions <= rows:
        raise _unlike(path, "max_positions", positions, rows)


def _check_classes(path: Path, options: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """fairseq makes a head of that many classes, and reads that many choices."""
    classes = options.get("num_classes")
    head = weights.get(f"classification_heads.{options['classification_head_name']}.out_proj.weight")
    if classes is not None and head is not None and classes > max(head.size(0), 100):
        raise UserError(f"{path}: --num-classes {classes}, but its head has {head.size(0)}")
    if classes is not None and head is None and classes > 100:
        raise UserError(f"{path}: --num-classes {classes}, but it has no head")


def _table(path: Path, weights: Mapping[str, Any], name: str) -> Any:
    """An embedding's weights; the encoder was called decoder once."""
    for encoder in ("encoder", "decoder"):
        found = weights.get(f"{encoder}.sentence_encoder.{name}.weight")
        if found is not None and found.dim() == 2:
            return found
    raise UserError(f"{path}: has no {name}, so it is no model of the RoBERTa family")


def _tokenizer(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the tokenizer that a task reads raw text with; its files must be there."""
    name = given.get("bpe")
    if name is None:
        return {}
    if name not in TOKENIZER_FILES:
        raise UserError(f"{path}: --bpe {_shown(name)} in its configuration is refused")
    files = _checked(path, given, {file: Option(str) for file in TOKENIZER_FILES[name]})
    for option in TOKENIZER_FILES[name]:
        # Not where fairseq would fetch them from, either.
        if option not in files or not Path(files[option]).exists():
            raise UserError(f"{path}: {_flag(option)} {files.get(option)}: no such file on this machine")
    return {"bpe": name, **files}


def _unlike(path: Path, option: str, value: Any, weights: Any) -> UserError:
    return UserError(f"{path}: {_flag(option)} {value}, but its weights have {weights}")


def _name(value: Any) -> str:
    """What may be a name, else nothing."""
    return value if isinstance(value, str) and len(value) < 100 and value.isprintable() else ""


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _shown(value: Any) -> str:
    """A value for a message, if it is short."""
    plain = isinstance(value, (str, int, float, bool))
    return repr(value)[:60] if plain else f"(a {type(value).__name__})"
