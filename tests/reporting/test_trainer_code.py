"""The code for trainers of other libraries, run with the real ones: they clip as the engine does."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.reporting.test_arm_code import LR, WEIGHTS, by_engine, coded, component, filled

NOTHING = "none"


def run(lines, **names):
    exec(compile("\n".join(lines), "printed.py", "exec"), names)
    return names


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy()


def code_of(name, library):
    """The lines for a rule, and the gradient after it."""
    arm = component(name, {})
    return coded(arm).code(library).lines, by_engine(arm)


@pytest.mark.filterwarnings("ignore")  # of other people's code
@pytest.mark.parametrize("name", ["norm", "value", NOTHING])
def test_lightning_clips_as_the_engine(name, tmp_path, monkeypatch):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = filled()

        def training_step(self, batch):
            return self.model()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=LR)

    monkeypatch.chdir(tmp_path)
    lines, clipped = code_of(name, "lightning")
    trainer = run(lines)["trainer"]
    # The printed trainer, which trains for one step.
    trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = 1, 1
    module = Module()
    trainer.fit(module, DataLoader(torch.zeros(1, 1)))
    np.testing.assert_allclose(flat(module.model), WEIGHTS - LR * clipped, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["norm", NOTHING])
def test_transformers_clips_as_the_engine(name, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = filled()

        def forward(self, x):
            return {"loss": self.model(), "logits": x}

    monkeypatch.chdir(tmp_path)
    lines, clipped = code_of(name, "transformers")
    arguments = run(lines)["arguments"]
    arguments.max_steps, arguments.report_to, arguments.use_cpu = 1, [], True
    module = Module()
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    data = [{"x": torch.zeros(1)}]
    transformers.Trainer(module, arguments, train_dataset=data, optimizers=(optimizer, constant)).train()
    np.testing.assert_allclose(flat(module.model), WEIGHTS - LR * clipped, rtol=1e-5, atol=1e-6)
