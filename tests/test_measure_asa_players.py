"""The script that measures ASA's two players, on a tiny encoder."""

import json
import shutil
import sys

import pytest

import measure_asa_players
import training

SIZES = training.TINY.split(" --cpu")[0].split()


@pytest.mark.parametrize("kind", ["classification", "masked-lm"])
def test_it_prints_a_row_for_each_block(tmp_path, monkeypatch, capsys, kind):
    data = training.write_data(tmp_path / "data", kind)
    stock = {"classification": "sentence_prediction", "masked-lm": "masked_lm"}[kind]
    training.train(data, tmp_path / "saved", kind, stock, "--max-epoch", "1", arch="roberta")
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    shutil.copy(tmp_path / "saved" / "checkpoint_last.pt", encoder / "model.pt")
    (encoder / "architecture.json").write_text(
        json.dumps({"flags": ["--arch", "roberta", *SIZES], "separators": 2})
    )
    line = f"x {encoder} {data} --task {stock} --num-classes 3 --updates 6 --block 4"
    line += " --batch-size 4 --length 16"
    monkeypatch.setattr(sys, "argv", [*line.split(), "--clip-norm", "0.1"])
    measure_asa_players.main()
    rows = [row for row in capsys.readouterr().out.splitlines() if row[:3] in ("| 1", "| 5")]
    assert [row.split(" | ")[0] for row in rows] == ["| 1 - 4", "| 5 - 6"]
    for row in rows:
        _, plain, loss, asa_loss, masked, layers, model, adversary = row.strip("| ").split(" | ")
        assert float(plain) > 0 and float(loss) > 0 and float(asa_loss) >= 0
        assert 0 < float(masked) < 1 and len(layers.split()) == 2
        # Before the clipping, and each by itself.
        assert float(model.split()[0]) > 0.1 and 0 < float(adversary.split()[0]) < float(
            model.split()[0]
        )
