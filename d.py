import datasets, sys
from pathlib import Path

names = datasets.Features(
    {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
)
rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=names)
p = "/work/tmp/dsx"
datasets.DatasetDict({"train": rows, "validation": rows.select([1])}).save_to_disk(p + "/both")
rows.save_to_disk(p + "/one")
from adv_plugins_cli.data import own_tables

for f, s in (("both", "train"), ("both", "valid"), ("one", "train")):
    print([dict(c) for _, c in own_tables.rows(Path(p, f), s)])
try:
    print(list(own_tables.rows(Path("/work/tmp/x"))))
except Exception as e:
    print(type(e), e)
