"""A short campaign of kills at chosen points; ``scripts/measure/campaign_kills.py`` is the long one."""

import pytest

import campaign_kills
from campaign_kills import Death


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    work = tmp_path_factory.mktemp("kills")
    context = campaign_kills.prepare_processes(work / "data" / "RTE-bin")
    subject = campaign_kills.Subject("stock", work / "data", work, context)
    subject.prepare()
    return subject


def test_a_training_killed_inside_a_save_and_before_a_link_ends_the_same(subject, tmp_path):
    """Of the stock criterion, to which our package adds nothing but this."""
    events = [operation.split()[0] for operation in subject.operations]
    links = [index + 1 for index, event in enumerate(events) if event == "os.link"]
    renames = [index + 1 for index, event in enumerate(events) if event == "os.rename"]
    folder = tmp_path / "killed"
    half = subject.size // 2
    assert subject.kill(folder, "save", Death(1, half))
    assert subject.kill(folder, "link", Death(links[1]))
    assert subject.kill(folder, "rename", Death(renames[2]))
    subject.run(folder)
    assert list(campaign_kills.differences(subject.whole, folder)) == []


def test_the_comparison_sees_one_bit(subject, tmp_path):
    import shutil

    import torch

    other = tmp_path / "other"
    shutil.copytree(subject.whole, other)
    assert list(campaign_kills.differences(subject.whole, other)) == []
    state = torch.load(other / "checkpoint_last.pt", weights_only=False)
    name, weight = next((name, value) for name, value in state["model"].items() if value.numel() > 1)
    weight.view(-1)[-1] = weight.view(-1)[-1].nextafter(torch.tensor(9.0))
    torch.save(state, other / "checkpoint_last.pt")
    (other / ".checkpoint_last.pt.12345678.partial").touch()
    assert list(campaign_kills.differences(subject.whole, other)) == [
        "leftover: .checkpoint_last.pt.12345678.partial",
        f"differing checkpoint: checkpoint_last.pt/model/{name}",
    ]
