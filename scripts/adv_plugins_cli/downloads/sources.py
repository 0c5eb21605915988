"""Where the public files are, and what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FAIRSEQ_HOST = "https://dl.fbaipublicfiles.com"
AMAZON_HOST = "https://s3.amazonaws.com"
AI2_HOST = "https://ai2-public-datasets.s3.amazonaws.com"
GOOGLE_HOST = "https://storage.googleapis.com"
GITHUB_HOST = "https://raw.githubusercontent.com"
STANFORD_HOST = "https://ai.stanford.edu"
ADVGLUE_HOST = "https://adversarialglue.github.io"


@dataclass(frozen=True)
class Source:
    """One file to fetch: where from, where to below --out-dir, and what to expect.

    `sha256` is empty where no checksum is published or known; length and archive checks remain.
    `members` are the files that an archive leaves behind: once they exist it is not fetched again.
    """

    path: str
    target: str
    host: str = FAIRSEQ_HOST
    sha256: str = ""
    members: tuple[str, ...] = ()


def _glue_archive(task: str, archive: str, valid: Sequence[str] = ("dev",)) -> tuple[Source, ...]:
    members = tuple(f"glue/{task}/{name}.tsv" for name in ("train", *valid))
    return (Source(f"/glue/data/{archive}.zip", f"glue/{archive}.zip", members=members),)


def _from_github(folder: str, path: str, *names: str) -> tuple[Source, ...]:
    """Files of a repository's folder."""
    return tuple(Source(f"{path}/{name}", f"{folder}/{name}", host=GITHUB_HOST) for name in names)


def _clue(task: str) -> tuple[Source, ...]:
    members = tuple(f"{task}/{name}.json" for name in ("train", "dev", "test"))
    archive = f"{task.lower()}_public.zip"
    return (
        Source(f"/cluebenchmark/tasks/{archive}", f"{task}/{archive}", GOOGLE_HOST, members=members),
    )


ARC = "ARC-V1-Feb2018-2"
ARC_MEMBERS = tuple(
    f"{ARC}/ARC-{level}/ARC-{level}-{split}.jsonl"
    for level in ("Easy", "Challenge")
    for split in ("Train", "Dev", "Test")
)
ANLI_MEMBERS = tuple(
    f"anli_v1.0/R{number}/{split}.jsonl" for number in (1, 2, 3) for split in ("train", "dev")
)


def _checkpoint(name: str) -> tuple[Source, ...]:
    members = (f"{name}/model.pt", f"{name}/dict.txt")
    return (Source(f"/fairseq/models/{name}.tar.gz", f"{name}.tar.gz", members=members),)


GPT2_DICTIONARY = "2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6"
MRPC_TRAIN = "glue/MRPC/msr_paraphrase_train.txt"
MRPC_TEST = "glue/MRPC/msr_paraphrase_test.txt"
MRPC_DEV_IDS = "glue/MRPC/mrpc_dev_ids.tsv"

PACKAGES: dict[str, tuple[Source, ...]] = {
    "gpt2_bpe": (
        Source(
            "/fairseq/gpt2_bpe/encoder.json",
            "gpt2_bpe/encoder.json",
            sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        ),
        Source(
            "/fairseq/gpt2_bpe/vocab.bpe",
            "gpt2_bpe/vocab.bpe",
            sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        ),
        Source("/fairseq/gpt2_bpe/dict.txt", "gpt2_bpe/dict.txt", sha256=GPT2_DICTIONARY),
    ),
    "roberta.base": _checkpoint("roberta.base"),
    "roberta.large": _checkpoint("roberta.large"),
    "roberta.large.mnli": _checkpoint("roberta.large.mnli"),
    # The names below CommonsenseQA are those that fairseq's commonsense_qa task reads.
    "commonsense_qa": (
        Source(
            "/commensenseqa/train_rand_split.jsonl",
            "CommonsenseQA/train.jsonl",
            host=AMAZON_HOST,
            sha256="58ffa3c8472410e24b8c43f423d89c8a003d8284698a6ed7874355dedd09a2fb",
        ),
        Source(
            "/commensenseqa/dev_rand_split.jsonl",
            "CommonsenseQA/valid.jsonl",
            host=AMAZON_HOST,
            sha256="3210497fdaae614ac085d9eb873dd7f4d49b6f965a93adadc803e1229fd8a02a",
        ),
        Source(
            "/commensenseqa/test_rand_split_no_answers.jsonl",
            "CommonsenseQA/test.jsonl",
            host=AMAZON_HOST,
            sha256="b426896d71a9cd064cf01cfaf6e920817c51701ef66028883ac1af2e73ad5f29",
        ),
        Source("/fairseq/gpt2_bpe/dict.txt", "CommonsenseQA/dict.txt", sha256=GPT2_DICTIONARY),
    ),
    "glue/CoLA": _glue_archive("CoLA", "CoLA"),
    "glue/SST-2": _glue_archive("SST-2", "SST-2"),
    "glue/MRPC": (
        Source("/senteval/senteval_data/msr_paraphrase_train.txt", MRPC_TRAIN),
        Source("/senteval/senteval_data/msr_paraphrase_test.txt", MRPC_TEST),
        Source("/glue/data/mrpc_dev_ids.tsv", MRPC_DEV_IDS),
    ),
    "glue/STS-B": _glue_archive("STS-B", "STS-B"),
    "glue/QQP": _glue_archive("QQP", "QQP-clean"),
    "glue/MNLI": _glue_archive("MNLI", "MNLI", ("dev_matched", "dev_mismatched")),
    "glue/QNLI": _glue_archive("QNLI", "QNLIv2"),
    "glue/RTE": _glue_archive("RTE", "RTE"),
    "glue/WNLI": _glue_archive("WNLI", "WNLI"),
    "ARC": (Source("/arc/ARC-V1-Feb2018.zip", "ARC.zip", AI2_HOST, members=ARC_MEMBERS),),
    "ANLI": (Source("/anli/anli_v1.0.zip", "anli_v1.0.zip", members=ANLI_MEMBERS),),
    "IMDB": (
        Source(
            "/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            "aclImdb_v1.tar.gz",
            STANFORD_HOST,
            members=("aclImdb/README",),
        ),
    ),
    "AG-News": _from_github(
        "AG-News", "/mhjabreel/CharCnn_Keras/master/data/ag_news_csv", "train.csv", "test.csv"
    ),
    "DREAM": _from_github("DREAM", "/nlpdata/dream/master/data", "train.json", "dev.json", "test.json"),
    "HellaSwag": _from_github(
        "HellaSwag",
        "/rowanz/hellaswag/master/data",
        *(f"hellaswag_{split}.jsonl" for split in ("train", "val", "test")),
    ),
    "WNUT-17": _from_github(
        "WNUT-17",
        "/leondz/emerging_entities_17/master",
        *("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
    ),
    "WSC": (
        Source(
            "/glue/superglue/data/v2/WSC.zip",
            "WSC.zip",
            members=("WSC/train.jsonl", "WSC/val.jsonl", "WSC/test.jsonl"),
        ),
    ),
    # Sets that people made to find a model out: see adv-plugins evaluate --list-sets.
    "AdvGLUE": (
        Source("/dataset/dev.zip", "AdvGLUE/dev.zip", ADVGLUE_HOST, members=("AdvGLUE/dev/dev.json",)),
    ),
    "IMDB-contrast": _from_github(
        "IMDB-contrast",
        "/allenai/contrast-sets/main/IMDb/data",
        *(f"{split}_{part}.tsv" for split in ("dev", "test") for part in ("original", "contrast")),
    ),
    "HANS": _from_github("HANS", "/tommccoy1/hans/master", "heuristics_evaluation_set.txt"),
    "counterfactual": _from_github(
        "counterfactual",
        "/acmi-lab/counterfactually-augmented-data/master",
        "sentiment/combined/paired/test_paired.tsv",
        "NLI/revised_combined/test.tsv",
    ),
    "PAWS": (
        Source(
            "/paws/english/paws_wiki_labeled_final.tar.gz",
            "PAWS/paws_wiki_labeled_final.tar.gz",
            GOOGLE_HOST,
            members=("PAWS/final/test.tsv",),
        ),
    ),
    "TNEWS": _clue("TNEWS"),
    "IFLYTEK": _clue("IFLYTEK"),
}
