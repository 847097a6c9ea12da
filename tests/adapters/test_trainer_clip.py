"""The callback of Hugging Face's Trainer gives the weights of a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

transformers = pytest.importorskip("transformers")

from clipbench.adapters import TrainerClip  # noqa: E402
from clipbench.errors import ClipbenchError  # noqa: E402
from tests.adapters.plain_loop import (  # noqa: E402
    ARMS,
    BATCH,
    examples,
    loss_of,
    model_of,
    optimizer_of,
    plain_loop,
    steps_of,
    weights_of,
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries have warnings of their own


class Examples(Dataset):
    def __len__(self):
        return len(examples()[0])

    def __getitem__(self, number):
        x, y = examples()
        return {"x": x[number], "y": y[number]}


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = model_of()

    def forward(self, x, y):
        return {"loss": loss_of(self.net, (x, y))}


class InOrder(transformers.Trainer):
    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def trainer_of(folder, callback, **options):
    options = {"max_grad_norm": 0.0, "num_train_epochs": 1, "save_strategy": "no"} | options
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=BATCH, report_to=[], use_cpu=True, disable_tqdm=True,
        lr_scheduler_type="constant", label_names=["y"], **options,
    )  # fmt: skip
    model = Regression()
    optimizers = (optimizer_of(model), None)
    return InOrder(model, arguments, train_dataset=Examples(), callbacks=[callback], optimizers=optimizers)


@pytest.mark.parametrize("arm", ARMS)
def test_a_trainer_takes_the_steps_of_a_plain_loop(arm, tmp_path):
    trainer = trainer_of(tmp_path, TrainerClip(arm))
    trainer.train()
    weights, plain = plain_loop(arm)
    torch.testing.assert_close(weights_of(trainer.model), weights)
    assert steps_of(trainer.optimizer.optimizer) == steps_of(plain)
    assert (arm == "skip@4.0") == (steps_of(plain) != {6.0})


def test_gradients_are_accumulated_before_they_are_clipped(tmp_path):
    trainer = trainer_of(tmp_path, TrainerClip("norm@0.5"), gradient_accumulation_steps=2)
    trainer.train()
    torch.testing.assert_close(weights_of(trainer.model), plain_loop("norm@0.5", accumulate=2)[0])


def test_a_schedule_of_the_threshold_knows_the_length_of_the_training(tmp_path):
    trainer = trainer_of(tmp_path, TrainerClip("norm(schedule=linear)@0.5"))
    trainer.train()
    torch.testing.assert_close(weights_of(trainer.model), plain_loop("norm(schedule=linear)@0.5", steps=6)[0])


def test_a_training_goes_on_from_a_checkpoint_with_what_the_rule_remembers(tmp_path):
    arm = "zclip(warmup=2)@0.5"
    trainer_of(tmp_path, TrainerClip(arm), save_strategy="steps", save_steps=3, max_steps=3).train()
    assert (tmp_path / "checkpoint-3" / "clipper.pt").exists()
    trainer = trainer_of(tmp_path, TrainerClip(arm))
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    torch.testing.assert_close(weights_of(trainer.model), plain_loop(arm)[0])


def test_clipping_twice_is_refused(tmp_path):
    with pytest.raises(ClipbenchError, match=r"max_grad_norm is 1\. Write TrainingArguments\(\.\.\., max_grad_norm=0"):
        trainer_of(tmp_path, TrainerClip("norm@0.5"), max_grad_norm=1.0).train()


def test_a_rule_that_acts_after_the_step_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ClipbenchError, match=r"acts after the optimizer's step.*ClippedOptimizer"):
        trainer_of(tmp_path, TrainerClip("max_norm@1.0")).train()
