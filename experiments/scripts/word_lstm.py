"""A language model of words after PyTorch's classic example: an LSTM that carries its state, SGD at a rate of 20."""

import math
import re
from collections import Counter
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional as F

import clipbench

COLUMNS, BPTT = 10, 20


def corpus(words, vocabulary=500):
    """Words of Python's help texts as numbers, each part in columns: [words, COLUMNS]; rare words are one symbol."""
    text = "\n".join(topics[name] for name in sorted(topics))
    found = re.findall(r"\w+|[^\w\s]", text)[:words]
    known = {word: number for number, (word, _) in enumerate(Counter(found).most_common(vocabulary - 1))}
    numbers = torch.tensor([known.get(word, vocabulary - 1) for word in found])
    parts = numbers.split([round(0.6 * len(found)), round(0.2 * len(found)), len(found) - round(0.8 * len(found))])
    return [batchified(part) for part in parts]


def batchified(numbers):
    length = len(numbers) // COLUMNS
    return numbers[: length * COLUMNS].view(COLUMNS, length).t().contiguous()


def batches(data):
    """Yield inputs and targets, the words that come next."""
    for start in range(0, len(data) - 1, BPTT):
        stop = min(start + BPTT, len(data) - 1)
        yield data[start:stop], data[start + 1 : stop + 1]


class WordLstm(nn.Module):
    def __init__(self, vocabulary=500, width=64, layers=2, dropout=0.2):
        super().__init__()
        self.drop, self.encoder = nn.Dropout(dropout), nn.Embedding(vocabulary, width)
        self.rnn, self.decoder = nn.LSTM(width, width, layers, dropout=dropout), nn.Linear(width, vocabulary)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, words, hidden):
        output, hidden = self.rnn(self.drop(self.encoder(words)), hidden)
        return self.decoder(self.drop(output)), hidden


def repackaged(hidden):
    """The state without its history: no gradient goes back beyond the batch."""
    return None if hidden is None else tuple(state.detach() for state in hidden)


@torch.no_grad()
def evaluate(model, data):
    model.eval()
    hidden, total = None, 0.0
    for x, y in batches(data):
        scores, hidden = model(x, hidden)
        total += len(x) * F.cross_entropy(scores.flatten(0, 1), y.flatten()).item()
    model.train()
    return total / (len(data) - 1)


def main(clip, seed, lr=20.0, epochs=5, words=16_000):
    clip.seed_all()
    train, val, test = corpus(words)
    model = WordLstm()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    clip.attach(model, optimizer, steps=epochs * math.ceil((len(train) - 1) / BPTT))

    best = math.inf
    for _ in range(epochs):
        hidden = None
        for x, y in clip.steps(batches(train)):
            hidden = repackaged(hidden)
            scores, hidden = model(x, hidden)
            loss = F.cross_entropy(scores.flatten(0, 1), y.flatten())
            loss.backward()
            clip.step(loss)
        val_loss = evaluate(model, val)
        if clip.report({"val/loss": val_loss, "val/perplexity": math.exp(min(val_loss, 50))}):
            return None
        if val_loss > best:
            optimizer.param_groups[0]["lr"] /= 4  # as the example does when there is no improvement
        best = min(best, val_loss)
    test_loss = evaluate(model, test)
    return {"test/loss": test_loss, "test/perplexity": math.exp(min(test_loss, 50))}


if __name__ == "__main__":
    clip = clipbench.clip_from_args()
    print(main(clip, clip.seed))
