"""A tiny RoBERTa, tiny batches of each task kind, and plain-PyTorch stand-ins, for the tests."""

from argparse import Namespace
from types import SimpleNamespace

import torch
from fairseq.data import Dictionary
from fairseq.models.roberta import RobertaModel, base_architecture
from fairseq.tasks.masked_lm import MaskedLMTask
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.tasks.sentence_ranking import SentenceRankingTask

BATCH, CLASSES, CHOICES, WORDS = 3, 4, 5, 30
KINDS = ("classification", "regression", "multiple-choice", "masked-lm")


def dictionary():
    """30 words and fairseq's specials."""
    words = Dictionary()
    for index in range(WORDS):
        words.add_symbol(f"w{index}")
    words.add_symbol("<mask>")
    return words


class Task:
    """Just enough of the four tasks: their type decides which base criterion is wrapped."""

    def __new__(cls, kind):
        stock = {
            "classification": SentencePredictionTask,
            "regression": SentencePredictionTask,
            "multiple-choice": SentenceRankingTask,
            "masked-lm": MaskedLMTask,
        }[kind]
        task = stock.__new__(stock)
        words = dictionary()
        task.dictionary = words
        task.args = SimpleNamespace(num_classes=CHOICES)
        task.cfg = task.args
        return task


def model_args(**changes):
    """Arguments of a two-layer RoBERTa whose activation works in float64."""
    values = dict(
        encoder_layers=2,
        encoder_embed_dim=8,
        encoder_ffn_embed_dim=16,
        encoder_attention_heads=2,
        dropout=0.0,
        attention_dropout=0.0,
        pooler_dropout=0.0,
        max_positions=32,
        tokens_per_sample=32,
        activation_fn="gelu_accurate",
    )
    args = Namespace(**{**values, **changes})
    base_architecture(args)
    return args


def model(kind, model_class=RobertaModel, double=True, seed=1, **changes):
    """A model in training mode with the head that ``kind`` needs; weights large enough to matter."""
    torch.manual_seed(seed)
    built = model_class.build_model(model_args(**changes), Task(kind))
    classes = {"classification": CLASSES, "regression": 1, "multiple-choice": 1}.get(kind)
    if classes:
        built.register_classification_head("sentence_classification_head", num_classes=classes)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
        embeddings = built.encoder.sentence_encoder
        for table in (embeddings.embed_tokens, embeddings.embed_positions):
            table.weight[table.padding_idx].zero_()
    return (built.double() if double else built).train()


def tokens(generator, lengths, pad=1):
    """(B, T) ids with right padding; words repeat within and across sentences."""
    rows = torch.full((len(lengths), max(lengths)), pad)
    for row, length in zip(rows, lengths):
        row[:length] = torch.randint(4, 4 + WORDS // 2, (length,), generator=generator)
        row[0] = 0
        row[length - 1] = 2
    return rows


def sample(kind, seed=1, lengths=(12, 5, 10)):
    """A batch of ``kind`` with padding."""
    generator = torch.Generator().manual_seed(seed)
    batch = len(lengths)

    def net_input(these):
        return {
            "src_tokens": tokens(generator, these),
            "src_lengths": torch.tensor(these),
        }

    made = {"id": torch.arange(batch), "nsentences": batch, "ntokens": sum(lengths)}
    if kind == "multiple-choice":
        for choice in range(CHOICES):
            made[f"net_input{choice + 1}"] = net_input([n - choice % 3 for n in lengths])
        made["target"] = torch.randint(CHOICES, (batch,), generator=generator)
        return made
    made["net_input"] = net_input(lengths)
    if kind == "classification":
        made["target"] = torch.randint(CLASSES, (batch, 1), generator=generator)
    elif kind == "regression":
        made["target"] = torch.rand(batch, generator=generator, dtype=torch.float64)
    else:
        source = made["net_input"]["src_tokens"]
        chosen = torch.rand(source.shape, generator=generator).lt(0.4) & source.gt(3)
        chosen[:, 1] = True
        made["target"] = torch.where(chosen, source, torch.ones_like(source))
        made["net_input"]["src_tokens"] = source.masked_fill(chosen, len(dictionary()) - 1)
    return made


def gradients(model):
    """Name -> gradient, zeros for parameters without one."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def logits_and_loss(kind, model, sample):
    """The pass f(.) and its summed cross entropy (squared error), written without any criterion."""
    head = "sentence_classification_head"
    if kind == "multiple-choice":
        scores = [
            model(sample[f"net_input{c + 1}"]["src_tokens"], classification_head_name=head)[0]
            for c in range(CHOICES)
        ]
        logits = torch.cat(scores, dim=1)
    elif kind == "masked-lm":
        logits = model(sample["net_input"]["src_tokens"])[0][sample["target"].ne(1)]
        target = sample["target"][sample["target"].ne(1)]
        return logits, -logits.log_softmax(-1).gather(1, target[:, None]).sum()
    else:
        logits = model(
            sample["net_input"]["src_tokens"], features_only=True, classification_head_name=head
        )[0]
    if kind == "regression":
        return logits, (logits.view(-1) - sample["target"]).pow(2).sum()
    return logits, -logits.log_softmax(-1).gather(1, sample["target"].view(-1, 1)).sum()
