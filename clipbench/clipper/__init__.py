"""The clipping rules for anybody's own training loop: `Clipper`, and `clip_` for rules without memory."""

from clipbench.clipper.clip_info import ClipInfo
from clipbench.clipper.clip_once import clip_
from clipbench.clipper.clipper import Clipper

__all__ = ["ClipInfo", "Clipper", "clip_"]
