"""A ResNet with batch normalization on images of patterns: augmentation, and gradients of several batches a step."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import clipbench

SIZE, CLASSES = 32, 6


def patterns(count, generator):
    """Colour images of stripes, rings, rays and so on, of random frequency and phase, with noise; and their classes."""
    y = torch.arange(count) % CLASSES
    frequency, phase, row, column = torch.rand(4, count, 1, 1, generator=generator)
    frequency, phase = 0.4 + 0.6 * frequency, 2 * math.pi * phase
    grid = torch.arange(SIZE, dtype=torch.float32)
    across, down = grid.view(1, 1, -1) - SIZE * column, grid.view(1, -1, 1) - SIZE * row
    both = torch.broadcast_tensors(across, down)
    angles = torch.stack(
        [
            *both,  # vertical and horizontal stripes
            both[0].abs() + both[1].abs(),  # diamonds
            torch.hypot(*both),  # rings
            torch.maximum(both[0].abs(), both[1].abs()),  # squares
            6 * torch.atan2(both[1], both[0]),  # rays
        ]
    )
    image = torch.sin(frequency * angles[y, torch.arange(count)] + phase)
    colour = torch.rand(count, 3, 1, 1, generator=generator)
    return image.unsqueeze(1) * colour + 0.7 * torch.randn(count, 3, SIZE, SIZE, generator=generator), y


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, widths=(8, 16, 32)):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, 2, padding=1, bias=False), nn.BatchNorm2d(widths[0]))
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.blocks = nn.Sequential(*(Block(i, o, 1 if i == o else 2) for i, o in pairs))
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def augmented(x):
    """Flip each image with probability 1/2, and cut it out of a frame of 2 pixels at a random place."""
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    down, across = torch.randint(0, 5, (2, len(x))).tolist()
    return torch.stack([image[:, d : d + SIZE, a : a + SIZE] for image, d, a in zip(x, down, across, strict=True)])


@torch.no_grad()
def evaluate(model, x, y):
    model.eval()
    scores = model(x)
    model.train()
    return F.cross_entropy(scores, y), (scores.argmax(1) == y).float().mean()


def build(seed, lr, batch_size, accumulate, epochs):
    data = torch.Generator().manual_seed(0)  # the same images for every trial
    parts = [patterns(count, data) for count in (512, 384, 384)]
    model = ResNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    shuffle = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(*parts[0]), batch_size, shuffle=True, drop_last=True, generator=shuffle)
    steps = epochs * (len(loader) // accumulate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    return model, optimizer, loader, schedule, parts[1], parts[2], steps


def main(clip, seed, lr=0.1, batch_size=16, accumulate=4, epochs=5):
    clip.seed_all()
    model, optimizer, loader, schedule, val, test, steps = build(seed, lr, batch_size, accumulate, epochs)
    clip.attach(model, optimizer, steps=steps)

    first = 0
    if state := clip.resume():
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        loader.generator.set_state(state["shuffle"])
        first = state["epoch"]
    for epoch in range(first, epochs):
        total = 0.0
        for number, (x, y) in enumerate(clip.steps(loader), 1):
            loss = F.cross_entropy(model(augmented(x)), y) / accumulate
            loss.backward()
            total = total + loss.detach()
            if number % accumulate == 0:
                clip.step(total)
                schedule.step()
                total = 0.0
        loss, accuracy = evaluate(model, *val)
        if clip.report({"val/loss": loss, "val/accuracy": accuracy}):
            return None
        clip.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": {name: value for name, value in schedule.state_dict().items() if not callable(value)},
                "shuffle": loader.generator.get_state(),
                "epoch": epoch + 1,
            }
        )
    loss, accuracy = evaluate(model, *test)
    return {"test/loss": loss, "test/accuracy": accuracy}


if __name__ == "__main__":
    clip = clipbench.clip_from_args()
    print(main(clip, clip.seed))
