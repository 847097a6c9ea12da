"""The code of the page about Clipper runs as it is shown."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.pages import FENCE, text

CODE = [
    (file, code) for language, file, code in FENCE.findall(text("clipbench/clipper/README.md")) if language == "python"
]
REPORT = {
    "settings": [
        {
            "label": "",
            "words": "digits with mlp/sgd",
            "answer": {"verdict": "clipping helps", "arm": "norm@0.5"},
            "rows": [{"arm": "norm@0.5", "strategy": "norm", "tuning": "", "shown": True}],
        }
    ]
}


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
    model.add_module("head", nn.Linear(8, 1))
    return model


class Sentences(nn.Module):
    """What the Trainer trains: a model that returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x, labels):
        return {"loss": nn.functional.mse_loss(self.net(x), labels)}


def lightning_module():
    pl = pytest.importorskip("lightning.pytorch")

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch, _):
            return nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Module()


@pytest.mark.filterwarnings("ignore")  # the libraries have warnings of their own
def test_every_block_of_the_page_runs(tmp_path, monkeypatch, capsys):
    for name in ("transformers", "lightning", "accelerate"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "results" / "study").mkdir(parents=True)
    (tmp_path / "results" / "study" / "report.json").write_text(json.dumps(REPORT))
    model = network()
    data = TensorDataset(torch.randn(16, 3), torch.randn(16, 1))
    names = {
        "torch": torch,
        "device": "cpu",
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batches": [data[:8], data[8:]],
        "loss_of": nn.functional.mse_loss,
        "language_model": Sentences(),
        "sentences": [{"x": x, "labels": y} for x, y in data],
        "lightning_module": lightning_module(),
        "loader": DataLoader(data, batch_size=8),
    }
    for file, code in CODE:
        if file:
            (tmp_path / file).write_text(code)
        else:
            before = [p.detach().clone() for p in model.parameters()]
            exec(compile(code, "clipper/README.md", "exec"), names)
            if "step(optimizer" in code:
                assert not all(map(torch.equal, before, (p.detach() for p in model.parameters())))
    assert "Clipper(norm@0.5)" in capsys.readouterr().out
    assert len(CODE) > 10
