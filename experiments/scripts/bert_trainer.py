"""A tiny BERT that learns which of two tokens is more frequent, by the Trainer of Hugging Face's transformers."""

import tempfile

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import clipbench
from clipbench.scripts.hugging_face import ScriptTrainerCallback, measures_of

TOKENS, LENGTH = 16, 15


def sentences(count, seed):
    """Random tokens, an odd number of which are 1 or 2; the label says whether there are more 2s."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        tokens = draw.integers(3, TOKENS, LENGTH)
        marked = draw.choice(LENGTH, draw.choice([1, 3, 5, 7]), replace=False)
        tokens[marked] = draw.integers(1, 3, len(marked))
        found.append({"input_ids": torch.tensor(tokens), "labels": int((tokens == 2).sum() > (tokens == 1).sum())})
    return found


def accuracy(predicted):
    return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}


def make_trainer(seed, folder, lr, steps, accumulate=1):
    config = BertConfig(
        vocab_size=TOKENS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        num_labels=2,
    )
    arguments = TrainingArguments(
        output_dir=folder,
        seed=seed,
        learning_rate=lr,
        lr_scheduler_type="linear",
        warmup_steps=10,
        max_steps=steps,
        per_device_train_batch_size=32 // accumulate,
        gradient_accumulation_steps=accumulate,
        max_grad_norm=0,  # clip does it
        eval_strategy="steps",
        eval_steps=steps // 4,
        per_device_eval_batch_size=256,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    return Trainer(
        BertForSequenceClassification(config),
        arguments,
        train_dataset=sentences(1024, seed=0),
        eval_dataset=sentences(256, seed=1),
        compute_metrics=accuracy,
    )


def main(clip, seed, lr=0.01, steps=80, accumulate=1):
    clip.seed_all()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(seed, folder, lr, steps, accumulate)
        trainer.add_callback(ScriptTrainerCallback(clip, trainer))
        trainer.train()
        if clip.pruned:
            return None
        test = trainer.evaluate(sentences(512, seed=2), metric_key_prefix="test")
    return measures_of(test, "test", "test")


if __name__ == "__main__":
    clip = clipbench.clip_from_args()
    print(main(clip, clip.seed))
