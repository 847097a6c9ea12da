"""Hugging Face's Trainer in a script: what it must not do itself, rules that refuse steps, and pruning."""

import pytest
import torch

from clipbench.scripts.attached_pair import ScriptError
from tests.scripts.helpers import clip_of
from tests.scripts.test_example_scripts import script_of


@pytest.fixture
def trainer(tmp_path):
    torch.manual_seed(0)
    return script_of("bert_trainer").make_trainer(0, str(tmp_path), lr=0.01, steps=8)


def connected(clip, trainer):
    from clipbench.scripts.hugging_face import ScriptTrainerCallback

    trainer.add_callback(ScriptTrainerCallback(clip, trainer))
    return trainer


@pytest.mark.parametrize(("option", "value"), [("max_grad_norm", 1.0), ("fp16", True)])
def test_what_trainer_must_leave_to_clip_is_said(trainer, option, value):
    setattr(trainer.args, option, value)
    with pytest.raises(ScriptError, match="max_grad_norm=0" if option == "max_grad_norm" else "bf16=True"):
        connected(clip_of(), trainer).train()


def test_a_rule_that_refuses_every_step_leaves_the_weights_as_they_are(trainer):
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    clip = clip_of("skip@0.000001")
    connected(clip, trainer).train()
    assert len(clip.log) == 8
    for name, p in trainer.model.named_parameters():
        assert torch.equal(p, before[name]), name


def test_a_pruned_trial_ends_at_its_report(trainer):
    clip = clip_of(judge=lambda report, measures: report == 2)
    connected(clip, trainer).train()
    assert (len(clip.log), len(clip.reports), clip.pruned) == (4, 2, 2)
    assert set(clip.reports[0]) == {"val/loss", "val/accuracy"}
