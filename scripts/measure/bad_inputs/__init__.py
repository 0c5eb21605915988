"""The cases of the campaign of bad inputs, a module for the commands that share what is fed."""

from __future__ import annotations

from bad_inputs.checkpoints import checkpoint_cases
from bad_inputs.comparisons import compare_cases, pretrain_cases
from bad_inputs.downloads import download_cases
from bad_inputs.evaluations import evaluate_cases
from bad_inputs.finetuning import finetune_cases
from bad_inputs.from_hf import convert_from_hf_cases, convert_to_hf_cases
from bad_inputs.glue_files import preprocess_glue_cases
from bad_inputs.good import good_cases
from bad_inputs.measurements import benchmark_cases
from bad_inputs.own_data import own_cases
from bad_inputs.packages import package_cases
from bad_inputs.plots import plot_cases, strip_cases
from bad_inputs.predictions import predict_cases
from bad_inputs.runners import runner_cases
from bad_inputs.task_files import preprocess_task_cases
from bad_inputs.text_files import preprocess_text_cases
from bad_inputs.tokenizer_files import tokenizer_cases
from bad_inputs.training import training_cases
from campaign_judge import Case

GROUPS = (
    good_cases,
    checkpoint_cases,
    training_cases,
    package_cases,
    convert_from_hf_cases,
    convert_to_hf_cases,
    tokenizer_cases,
    preprocess_glue_cases,
    preprocess_task_cases,
    preprocess_text_cases,
    predict_cases,
    evaluate_cases,
    plot_cases,
    strip_cases,
    runner_cases,
    finetune_cases,
    own_cases,
    compare_cases,
    pretrain_cases,
    benchmark_cases,
    download_cases,
)


def all_cases() -> list[Case]:
    """Every case, those of one command together."""
    return [case for group in GROUPS for case in group()]
