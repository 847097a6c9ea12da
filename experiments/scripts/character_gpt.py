"""A character GPT in the style of nanoGPT: dropout, tied weights, AdamW in two groups, warm-up and cosine."""

import math
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional as F

import clipbench

LENGTH, BATCH, WARMUP = 32, 16, 40


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0, is_causal=True)
        x = x + self.drop(self.out(y.transpose(1, 2).flatten(2)))
        return x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))


class Gpt(nn.Module):
    def __init__(self, tokens, width=32, heads=4, layers=2, dropout=0.1):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(tokens, width), nn.Embedding(LENGTH, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for layer in (block.out, block.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * layers))
        self.head.weight = self.embedding.weight

    def forward(self, x):
        x = self.drop(self.embedding(x) + self.positions(torch.arange(x.shape[1])))
        return self.head(self.norm(self.blocks(x)))


def windows(characters):
    """Python's help texts, cut into train, val and test; each is inputs and targets in windows of characters."""
    text = "\n\n".join(topics[name] for name in sorted(topics))[:characters]
    parts = text[: round(0.8 * len(text))], text[round(0.8 * len(text)) : round(0.9 * len(text))]
    parts = (*parts, text[round(0.9 * len(text)) :])
    codes = {character: code for code, character in enumerate(sorted(set(parts[0])))}
    found = []
    for part in parts:
        numbers = torch.tensor([codes.get(character, len(codes)) for character in part])
        end = (len(numbers) - 1) // LENGTH * LENGTH
        found.append((numbers[:end].view(-1, LENGTH), numbers[1 : end + 1].view(-1, LENGTH)))
    return found, 1 + max(int(x.max()) for x, _ in found)


def loss_of(model, x, y):
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


@torch.no_grad()
def evaluate(model, part):
    model.eval()
    loss = loss_of(model, *part)
    model.train()
    return loss


def make_optimizer(model, lr):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]  # biases and norms do not decay
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))


def lr_factor(step, steps):
    if step < WARMUP:
        return (step + 1) / (WARMUP + 1)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * (step - WARMUP) / max(steps - WARMUP, 1))) / 2


def main(clip, seed, lr=0.005, epochs=4, characters=24_000, double=False):
    clip.seed_all()
    (train, val, test), tokens = windows(characters)
    model = Gpt(tokens).to(torch.float64 if double else torch.float32)
    optimizer = make_optimizer(model, lr)
    steps = epochs * math.ceil(len(train[0]) / BATCH)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, steps))
    batches = torch.Generator().manual_seed(seed)
    clip.attach(model, optimizer, steps=steps)

    step, first = 0, 0
    if state := clip.resume():
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        batches.set_state(state["batches"])
        step, first = state["step"], state["epoch"]
    for epoch in range(first, epochs):
        order = torch.randperm(len(train[0]), generator=batches)
        for x, y in clip.steps((train[0][rows], train[1][rows]) for rows in order.split(BATCH)):
            step += 1
            torch.manual_seed(1_000_003 * seed + step)  # so that dropout is that of `model: gpt` in a YAML file
            loss = loss_of(model, x, y)
            loss.backward()
            clip.step(loss)
            scheduler.step()
        if clip.report({"val/loss": evaluate(model, val)}):
            return None
        clip.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "batches": batches.get_state(),
                "step": step,
                "epoch": epoch + 1,
            }
        )
    return {"test/loss": evaluate(model, test)}


if __name__ == "__main__":
    clip = clipbench.clip_from_args()
    print(main(clip, clip.seed))
