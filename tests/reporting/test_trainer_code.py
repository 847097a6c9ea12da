"""The code for trainers of other libraries, run with the real ones: they clip as the engine does."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from clipbench.reporting.arm_code import CodedArm
from tests.reporting.test_arm_code import LR, WEIGHTS, by_engine, coded, component, filled

pytestmark = pytest.mark.filterwarnings("ignore")  # of other people's code
NOTHING = "none"


def run(name, library, **names):
    """What the lines for a rule define, and the weights that they should lead to."""
    arm = component(name, {})
    code = coded(arm).code(library)
    if code.is_adapted:
        pytest.importorskip("clipbench.adapters")
    exec(compile(code.text, "printed.py", "exec"), names)
    return names, WEIGHTS - LR * by_engine(arm)


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy()


@pytest.mark.parametrize("name", ["norm", "value", "agc", "skip", NOTHING])
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
    names, expected = run(name, "lightning")
    trainer, module = names["trainer"], Module()
    trainer.fit_loop.max_epochs = trainer.fit_loop.epoch_loop.max_steps = 1
    trainer.fit(module, DataLoader(torch.zeros(1, 1)))
    np.testing.assert_allclose(flat(module.model), expected, rtol=1e-5, atol=1e-6)


class WithLoss(nn.Module):
    """As Hugging Face has models: the output holds the loss."""

    def __init__(self):
        super().__init__()
        self.model = filled()

    def forward(self, x):
        return {"loss": self.model(), "logits": x}


@pytest.mark.parametrize("name", ["norm", "value", "agc", "skip", NOTHING])
def test_transformers_clips_as_the_engine(name, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    module, data = WithLoss(), [{"x": torch.zeros(1)}]
    names, expected = run(name, "transformers", model=module, data=data)
    trainer = names.get("trainer") or transformers.Trainer(module, names["arguments"], train_dataset=data)
    trainer.args.max_steps, trainer.args.report_to = 1, []
    trainer.optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    trainer.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(trainer.optimizer, factor=1.0)
    trainer.train()
    np.testing.assert_allclose(flat(module.model), expected, rtol=1e-5, atol=1e-6)


def test_an_optimizer_is_wrapped_for_a_rule_that_acts_after_its_step():
    pytest.importorskip("clipbench.adapters")
    model = filled()
    names = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=LR)}
    exec(CodedArm("weight_clamp@0.1", "weight_clamp", 0.1).code("lightning").text, names)
    model().backward()
    names["optimizer"].step()
    assert np.abs(flat(model)).max() == pytest.approx(0.1)
