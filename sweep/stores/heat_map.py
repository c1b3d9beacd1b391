"""Heat maps: where in a film a network finds what speaks for a class, and a picture of it beside the film.

This file travels with every registered model, as `decode.py` does. It needs torch, pillow and numpy, and nothing of the
project that made it.

A map holds contributions: gradient times feature map at each place (HiResCAM, Draelos and Carin 2020,
arXiv:2011.08891), less the same of a blank film. Two artefacts of plain Grad-CAM (Selvaraju et al. 2017,
arXiv:1610.02391) are the reason:

- Convolutions pad with zeros, which draws a black frame around every film, so feature maps may have their largest
  values along the edges. Grad-CAM multiplies them by the mean gradient of the whole map, so the frame glows even where
  the network's last layer gives the edge no weight at all. Gradient times map at each place has no such mean. Where
  the last layer follows a pooling over all places, the two are the same.
- What is left of the frame, and of everything else that no film changes (a sigmoid is 0.5 at zero), is the same for a
  blank film: one that has the film's own mean gray everywhere. Less that, a map shows what is in this film (the
  difference from a reference, as in DeepLIFT, Shrikumar et al. 2017, arXiv:1704.02685). Where the layers behind the
  maps are linear, contributions add up to the difference between the logits of the two.

Padding of another kind would take the frame away too, but make other networks of those that were trained.

Where a network's last layers are attention (vision transformers), its maps are the tokens that go into the last block:
one for each patch of the film, less those that stand for no place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional

# Contributions of neighbours cancel each other: no more places than these along a side are told apart.
PLACES = 16
MOST_PIXELS = 4096  # along a side of a film in a picture
LEAST_WIDTH = 340  # of a film in a picture; a smaller one is enlarged by a whole factor
# From no evidence to the most, as a reader of radiographs can tell apart on gray: violet, red, orange, yellow.
HEAT = ((60, 0, 90), (160, 30, 90), (220, 70, 40), (250, 150, 10), (250, 250, 120))
OPACITY = 0.6
PAPER, INK, MUTED = (18, 18, 20), (240, 240, 240), (170, 170, 175)


class NoHeatMapError(Exception):
    """No heat map can be made of a network; says why in one sentence."""


def heat_maps(
    network: Any, about: Mapping[str, Any], pixels: np.ndarray, heads: Sequence[int | None] = (None,)
) -> np.ndarray:
    """Computes what speaks for the positive class, or for the label where there are more than two classes.

    Args:
        network: An exported network, as `torch.export.load(...).module()` gives it; or a ModuleList of the members of
            an ensemble, whose map is the mean of theirs.
        about: `mean`, `std`, `classes` and `positive`, as `model.json` has them; with `flip` an ensemble's map is the
            mean of those of the mirror images, too, turned back.
        pixels: uint8 [N, size, size].
        heads: A map for each of these: None for the network itself, a seed for the network with other weights in its
            last layer, drawn as at the start of a training. Maps that stay as they are show nothing of what that
            layer has learned (Adebayo et al. 2018, arXiv:1810.03292).

    Returns:
        float32 [len(heads), N, h, w], 0 to 1: each map has its maximum at 1, or is 0 where nothing speaks for the
        class. h and w are at most PLACES.

    Raises:
        NoHeatMapError: The network has no layer that still knows places of the film, or no last layer to draw anew.
    """
    try:
        return _maps(network, about, pixels, heads)
    except (RuntimeError, LookupError, AttributeError, TypeError, ValueError) as error:  # others' are of any form
        raise NoHeatMapError(
            f"no heat map can be made of this network ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        ) from error


def _maps(network: Any, about: Mapping[str, Any], pixels: np.ndarray, heads: Sequence[int | None]) -> np.ndarray:
    images = (torch.from_numpy(pixels).unsqueeze(1).float() / 255 - about["mean"]) / about["std"]
    if not isinstance(network, torch.nn.ModuleList):
        return _heats(network, about, images, heads).numpy()
    target = None
    if about["positive"] is None:  # each member's map is of the label of them all
        with torch.no_grad():
            target = torch.stack([torch.softmax(_first(member(images)), 1) for member in network]).mean(0).argmax(1)
    heats = [_heats(member, about, images, heads, target) for member in network]
    if about["flip"]:
        heats += [_heats(member, about, images.flip(3), heads, target).flip(3) for member in network]
    return _up_to_one(torch.stack(heats).mean(dim=0)).numpy()


def _heats(
    network: Any,
    about: Mapping[str, Any],
    images: torch.Tensor,
    heads: Sequence[int | None],
    target: torch.Tensor | None = None,
) -> torch.Tensor:
    """The maps of one network, float32 [len(heads), N, h, w]; `target` is the class of each, if not its own answer."""
    watched = _LastMaps(network)
    blank = images.mean(dim=(1, 2, 3), keepdim=True).expand_as(images).contiguous()
    with torch.no_grad():
        maps, logits = watched.maps_of(images)
        change = maps - watched.maps_of(blank)[0]
    classes, positive = about["classes"], about["positive"]
    if target is None:
        target = logits.argmax(dim=1) if positive is None else torch.full((len(images),), classes.index(positive))
    heats = []
    for head in heads:
        contribution = watched.placed(watched.gradient(images, maps, target, head) * change)
        side = min(PLACES, *contribution.shape[2:])
        heat = torch.relu(functional.adaptive_avg_pool2d(contribution, side))[:, 0]
        heats.append(_up_to_one(heat))
    return torch.stack(heats)


def _up_to_one(heats: torch.Tensor) -> torch.Tensor:
    """Divides maps, [..., h, w], by their maximum; one that is 0 everywhere stays so."""
    return heats / heats.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12)


class _LastMaps(torch.fx.Interpreter):
    """Runs a network up to its last feature maps, and on from there."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.nodes = nodes = list(network.graph.nodes)
        values = {node: node.meta.get("val") for node in nodes}
        shapes = {node: value.shape for node, value in values.items() if isinstance(value, torch.Tensor)}
        # By torch's own function, or written by hand: a softmax over tokens, which answers have not.
        attention = [
            index
            for index, node in enumerate(nodes)
            if "attention" in str(node.target) or ("softmax" in str(node.target) and len(shapes.get(node, ())) > 2)
        ]
        convolutions = [index for index, node in enumerate(nodes) if ".conv2d" in str(node.target)]
        self.tokens = bool(attention) and attention[-1] > max(convolutions, default=0)
        if self.tokens:
            normalised = [node for node in nodes[: attention[-1]] if "layer_norm" in str(node.target)]
            if not normalised:
                raise NoHeatMapError(
                    "no heat map can be made of this network: its attention has no layer norm before it"
                )
            self.last = normalised[-1].args[0]
        else:  # what global pooling leaves is four-dimensional too, and knows no place any more
            square = {node: len(shape) == 4 and shape[2] == shape[3] > 1 for node, shape in shapes.items()}
            self.last = [node for node, places in square.items() if places][-1]  # at least the film itself
        self.before = set(nodes[: nodes.index(self.last)])
        # What a second path around the maps uses behind them.
        until = {*self.before, self.last}
        self.around = {node for node in self.before if any(user not in until for user in node.users)}
        self.replaced: dict[torch.fx.Node, torch.Tensor] = {}
        self.known: dict[torch.fx.Node, Any] = {}

    def placed(self, contribution: torch.Tensor) -> torch.Tensor:
        """Sums the contributions of each place: [N, C, h, w] or those of tokens become [N, 1, h, w]."""
        if not self.tokens:
            return contribution.sum(dim=1, keepdim=True)
        summed = contribution.sum(dim=-1)
        if summed.dim() == 2:  # tokens in a row, those of no place first
            side = math.isqrt(summed.shape[1])
            summed = summed[:, summed.shape[1] - side**2 :].unflatten(1, (side, side))
        return summed[:, None]

    def maps_of(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The last feature maps, [N, C, h, w] or tokens [N, T, C], and the logits, [N, classes]."""
        self.replaced, self.known = {}, {}
        logits = _first(self.run(images))
        return self.known[self.last], logits

    def gradient(
        self, images: torch.Tensor, maps: torch.Tensor, target: torch.Tensor, head: int | None
    ) -> torch.Tensor:
        """The gradient of each image's logit of a class, against the other where there are two, at its maps."""
        self.replaced = {} if head is None else self._drawn(head)
        start = maps.detach().requires_grad_()
        known = {node: value for node, value in self.known.items() if node in self.before}
        with torch.enable_grad():
            logits = _first(self.run(images, initial_env={**known, self.last: start}))
            score = logits.gather(1, target[:, None]).sum()
            if logits.shape[1] == 2:
                score = score - logits.gather(1, 1 - target[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, start)
        return gradient

    def run_node(self, n: torch.fx.Node) -> Any:
        """Runs one step; keeps of those before the maps what is small, since all of a batch would fill the memory."""
        result = self.replaced[n] if n in self.replaced else super().run_node(n)
        if n is self.last:
            self.known[n] = result
        elif n in self.before and n.op == "call_function":
            small = not isinstance(result, torch.Tensor) or n in self.around  # sizes are needed again
            self.known[n] = result if small else None
        return result

    def _drawn(self, seed: int) -> dict[torch.fx.Node, torch.Tensor]:
        """Weights of the last layer as torch draws those of a new one."""
        layers = [node for node in self.nodes if node.op == "call_function" and "linear" in str(node.target)]
        given = [node for node in layers[-1].args[1:] if isinstance(node, torch.fx.Node)] if layers else []
        if not given or any(node.op != "get_attr" for node in given):
            raise NoHeatMapError("its last layer is no plain linear layer, so none can be drawn anew")
        parts = {node: self.fetch_attr(str(node.target)) for node in given}
        bound = 1 / math.sqrt(next(iter(parts.values())).shape[1])  # of the weights, which come before the bias
        generator = torch.Generator().manual_seed(seed)
        return {node: (2 * torch.rand(part.shape, generator=generator) - 1) * bound for node, part in parts.items()}


def _first(logits: Any) -> torch.Tensor:
    return logits[0] if isinstance(logits, tuple | list) else logits


def picture(
    film: Image.Image, heat: np.ndarray, about: Mapping[str, Any], answer: Mapping[str, Any], truth: str | None = None
) -> Image.Image:
    """Draws a film, the film with its heat map beside it, and below them a legend and the answer.

    Args:
        film: Gray. It is shown in its own size; a side above MOST_PIXELS is made smaller, one that leaves no room for
            words is enlarged by a whole factor.
        heat: float [h, w], 0 to 1.
        about: `positive`, as `model.json` has it.
        answer: `label`, `probability` and `threshold`, as `ImageClassifier.classify` gives them.
        truth: The true class; None where it is not known.

    Returns:
        A picture in color.
    """
    film = _shown(film)
    width, height = film.size
    gap = max(8, width // 60)
    letters = min(max(15, width // 32), 56)
    font = ImageFont.load_default(letters)
    line = round(1.5 * letters)
    left, right = gap, 2 * gap + width
    sheet = Image.new("RGB", (3 * gap + 2 * width, 2 * gap + height + 5 * line), PAPER)
    sheet.paste(film.convert("RGB"), (left, gap))
    sheet.paste(_heated(film, heat), (right, gap))
    canvas = ImageDraw.Draw(sheet)
    top = height + gap + line // 2

    def write(place: tuple[int, int], text: str, color: tuple[int, int, int] = INK) -> None:
        canvas.text(place, _fitting(text, font, width), fill=color, font=font)

    write((left, top), "true class: not known" if truth is None else f"true class: {truth}")
    write((left, top + line), f"predicted: {answer['label']}")
    write((left, top + 2 * line), _probability(about, answer))
    write((right, top), f"evidence for {about['positive'] or answer['label']}")
    bar = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (line, width))
    sheet.paste(_heated(Image.new("L", (width, line), 110), bar), (right, top + line))
    write((right, top + 2 * line + letters // 4), "nothing" if heat.any() else "nothing: the map is empty", MUTED)
    most = "the most in this film"
    canvas.text(
        (right + width, top + 2 * line + letters // 4), most if heat.any() else "", fill=MUTED, font=font, anchor="ra"
    )
    write((left, top + 3 * line), "Not a finding. Not a medical device.", MUTED)
    return sheet


def _shown(film: Image.Image) -> Image.Image:
    """A film in its own size, unless that is too large or too small for a picture."""
    if max(film.size) > MOST_PIXELS:
        film = film.copy()
        film.thumbnail((MOST_PIXELS, MOST_PIXELS))
    factor = min(-(-LEAST_WIDTH // film.width), max(1, MOST_PIXELS // max(film.size)))
    return film if factor == 1 else film.resize((factor * film.width, factor * film.height), Image.Resampling.NEAREST)


def _heated(film: Image.Image, heat: np.ndarray) -> Image.Image:
    """Colours a gray picture by heat, float [h, w] from 0 to 1, stretched to its size."""
    spread = Image.fromarray(heat.astype(np.float32)).resize(film.size, Image.Resampling.BICUBIC)
    warmth = np.asarray(spread).clip(0, 1)
    opacity, gray, stops = OPACITY * warmth, np.asarray(film, dtype=np.float32), np.linspace(0, 1, len(HEAT))
    mixed = np.empty((*warmth.shape, 3), dtype=np.uint8)
    for channel, values in enumerate(np.transpose(HEAT)):  # one after the other: a film may have 16 million places
        mixed[..., channel] = (gray + opacity * (np.interp(warmth, stops, values) - gray)).round()
    return Image.fromarray(mixed)


def _probability(about: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """The answer's probability in three digits; none is 0 or 1."""
    value = float(answer["probability"])
    written = "below 0.001" if value < 0.001 else "above 0.999" if value > 0.999 else f"{value:.3f}"
    if about["positive"] is None:
        return f"probability {written}"
    return f"{about['positive']}: probability {written} (threshold {float(answer['threshold']):.3g})"


def _fitting(text: str, font: Any, width: int) -> str:
    """A text in letters that Pillow's own font has, cut to a width in pixels."""
    text = text.encode("latin-1", "backslashreplace").decode("latin-1")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
