"""Synthetic chest radiographs of children, so that everything runs with no download.

Each film is computed from two seeds: one for the patient, whose body all films of that patient share, and one for the
film, which decides pose, exposure and noise. Array arithmetic keeps to + - * / and sqrt, which IEEE 754 rounds alike
everywhere, and textures to Pillow's 8-bit resampling, which counts in integers, so that machines agree on the pixels as
far as they can. Whoever changes a pixel raises VERSION.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAME = "synthetic"
FORMER_NAME = "phantom"  # of data set, experiment and registered model in older stores, which keep it
NAMES = (NAME, FORMER_NAME)
VERSION = 1
SIZE = 192
CLASSES = ("NORMAL", "PNEUMONIA")
COUNTS = {"train": 1000, "test": 400}
# The proportions of Kermany's data set: about 1 : 2.2 in train and 3 : 5 in test.
NORMALS = {"train": 312, "test": 150}
FIRST_PATIENT = {"train": 1, "test": 5001}
# How likely a patient has one film, two, ... up to five.
FILMS_OF_A_PATIENT = (0.4, 0.25, 0.2, 0.1, 0.05)
# How likely a pneumonia is bacterial rather than viral.
BACTERIAL = 0.6
LETTERS = {"R": ("### ", "#  #", "### ", "# # ", "#  #"), "L": ("#   ", "#   ", "#   ", "#   ", "####")}


@dataclass(frozen=True)
class Film:
    """One radiograph, before it is drawn.

    Attributes:
        name: Its name, in Kermany's manner, unique within both splits.
        label: Index into CLASSES.
        patient: The part of the name that identifies the patient.
        finding: `none`, `bacteria` (patches in one or two places) or `virus` (haze in both lungs).
        split: A key of COUNTS; the test films come from a machine with other exposures and more noise.
        patient_seed: Decides the body and where it is ill.
        film_seed: Decides pose, exposure, noise and how visible the illness is.
    """

    name: str
    label: int
    patient: str
    finding: str
    split: str
    patient_seed: int
    film_seed: int


# The films in `examples/`: of two patients who are in neither split, with the manner of the test films.
EXAMPLES = (
    Film("IM-9002-0001", 0, "IM-9002", "none", "test", 9002, 1),
    Film("person9003_bacteria_0001", 1, "person9003", "bacteria", "test", 9003, 1),
)


def films(split: str) -> tuple[Film, ...]:
    """Lists the films of one split, patient by patient, normals first; the same on every call.

    Args:
        split: A key of COUNTS.

    Returns:
        COUNTS[split] films.

    Raises:
        KeyError: There is no such split.
    """
    number = FIRST_PATIENT[split]
    rng = np.random.default_rng([VERSION, number])
    made: list[Film] = []
    for label, end in enumerate((NORMALS[split], COUNTS[split])):
        while len(made) < end:
            wanted = 1 + int(np.searchsorted(np.cumsum(FILMS_OF_A_PATIENT), rng.random()))
            virus = rng.random() >= BACTERIAL
            finding = "none" if label == 0 else "virus" if virus else "bacteria"
            patient = f"IM-{number:04d}" if label == 0 else f"person{number:04d}"
            for film in range(1, 1 + min(wanted, end - len(made))):
                name = f"{patient}-{film:04d}" if label == 0 else f"{patient}_{finding}_{film:04d}"
                made.append(Film(name, label, patient, finding, split, number, film))
            number += 1
    return tuple(made)


def draw(film: Film) -> np.ndarray:
    """Draws one film; the same pixels on every call.

    Returns:
        uint8 array of shape [SIZE, SIZE], 0 black to 255 white.
    """
    body, shot = generators(film)
    pose = draw_pose(shot)
    x, y = grid(pose)
    lungs, absorption = draw_chest(x, y, body, shot)
    absorption += 0.12 * lungs * draw_vessels(body, pose)
    absorption += draw_soft_tissue(x, y, body)
    if film.finding == "bacteria":
        absorption += draw_patches(x, y, lungs, body, shot)
    elif film.finding == "virus":
        absorption += draw_haze(x, y, lungs, body, shot)
    return develop(absorption, film.split, shot)


def write_examples(folder: Path) -> list[Path]:
    """Draws EXAMPLES into a folder, as `CLASS/NAME.png`; returns the files."""
    paths = []
    for film in EXAMPLES:
        path = folder / CLASSES[film.label] / f"{film.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(film)).save(path, optimize=True)
        paths.append(path)
    return paths


def lung_box(film: Film) -> tuple[float, float, float, float]:
    """Finds the bounding box of both lungs on a film, from the drawing itself.

    Returns:
        Top, bottom, left and right, as shares of the film's height and width, 0 to 1. A place is lung where the lungs
        are drawn with at least half of their strength.
    """
    body, shot = generators(film)
    lungs, _ = draw_chest(*grid(draw_pose(shot)), body, shot)
    rows, columns = np.nonzero(lungs >= 0.5)
    top, left = rows.min() / SIZE, columns.min() / SIZE
    return float(top), float((rows.max() + 1) / SIZE), float(left), float((columns.max() + 1) / SIZE)


def generators(film: Film) -> tuple[np.random.Generator, np.random.Generator]:
    """The random numbers of a film: those of the patient's body, and those of the film."""
    body = np.random.default_rng([VERSION, film.patient_seed])
    return body, np.random.default_rng([VERSION, film.patient_seed, film.film_seed])


def draw_pose(shot: np.random.Generator) -> tuple[float, ...]:
    """Draws how the child lies: up to 4 degrees turned, 3 % shifted, 7 % nearer or farther.

    Returns:
        The six coefficients of Pillow's AFFINE, from the film's pixels to the body's.
    """
    turn, scale = shot.uniform(-0.07, 0.07), shot.uniform(0.84, 0.96)
    across, down = shot.uniform(-6, 6), shot.uniform(-6, 6)
    middle = SIZE / 2
    # The turn is small enough for its tangent to stand for its sine, and 1 for its cosine.
    to_x = (scale, scale * turn, middle - scale * (1 + turn) * middle + across)
    to_y = (-scale * turn, scale, middle - scale * (1 - turn) * middle + down)
    return to_x + to_y


def grid(pose: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Finds the place in the body that each pixel of the film shows.

    Returns:
        float32 x and y of shape [SIZE, SIZE]; the body's middle is (0, 0), x grows to the film's right and y downwards,
        and a straight, unscaled film reaches from -1 to 1.
    """
    pixel = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    column, row, half = pixel[None, :], pixel[:, None], SIZE / 2
    a, b, c, d, e, f = pose
    return (a * column + b * row + c) / half - 1, (d * column + e * row + f) / half - 1


def edge(depth: np.ndarray, softness: float) -> np.ndarray:
    """Turns a depth inside a shape into its presence: 0 far outside, 0.5 on the border, 1 deep inside."""
    steps = depth / softness
    return 0.5 + 0.5 * steps / np.sqrt(1 + steps * steps)


def distance(x: np.ndarray, y: np.ndarray, across: float, down: float, width: float, height: float) -> np.ndarray:
    """Squared distance from an ellipse's centre (across, down), 1 on the ellipse."""
    return ((x - across) / width) ** 2 + ((y - down) / height) ** 2


def texture(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise, about `cells` waves along a side: float32 [SIZE, SIZE], -1 to 1."""
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32) / 127.5 - 1


def draw_chest(
    x: np.ndarray, y: np.ndarray, body: np.random.Generator, shot: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the anatomy that all films share: skin, lungs, bones, heart and belly.

    Returns:
        float32 presence of lungs, 0 to 1, and float32 absorption, both [SIZE, SIZE].
    """
    width, apex = body.uniform(0.92, 1.08), body.uniform(-0.72, -0.62)
    spacing, bend = body.uniform(0.125, 0.155), body.uniform(0.75, 1.25)
    heart_size, thymus = body.uniform(0.88, 1.15), body.uniform(0.0, 0.08)
    gas, gas_across = body.uniform(0.0, 0.3), body.uniform(0.3, 0.45)
    # Breath moves the diaphragm and makes lungs darker: half empty ones are hazy though healthy. A turn of the trunk
    # moves the heart against the ribs.
    breath, trunk = shot.uniform(-0.06, 0.1), shot.uniform(-0.04, 0.04)
    air = 0.53 + breath + shot.uniform(-0.08, 0.08)
    x = x / width
    side = np.abs(x)

    # Neck, shoulders and trunk.
    skin = edge(0.2 + 0.75 * edge(y + 0.78, 0.06) - 0.12 * edge(y + 0.2, 0.2) - side, 0.025)
    absorption = skin * (0.78 + 0.1 * edge(-distance(x, y, 0, 0.2, 0.8, 1.2) + 1, 0.4))

    cage = 1 - ((side - 0.35 - 0.1 * y) / 0.29) ** 2 - ((y - 0.2) / (0.2 - apex)) ** 2
    dome = 0.5 + breath + 0.05 * edge(x, 0.05) + 1.4 * (side - 0.28) ** 2 - y
    lungs = edge(cage, 0.13) * edge(dome, 0.018)
    absorption -= air * lungs
    absorption += 0.14 * skin * edge(-dome, 0.05)
    absorption -= gas * edge(1 - distance(x, y, gas_across, 0.72 + breath, 0.16, 0.1), 0.3)

    # Ribs are one band each, repeated: behind they fall outwards, in front, wider and fainter, inwards.
    boned = edge(cage + 0.12, 0.1) * (0.35 + 0.65 * lungs)
    for course, strength, thickness in (
        (y - bend * (side - 0.12) ** 2, 0.1, 0.25),
        (y + 0.55 * side * side, 0.06 * edge(side - 0.3, 0.06), 0.28),
    ):
        order = course / spacing
        off = np.abs(order - np.round(order)) / thickness
        absorption += strength * boned * edge(1 - off, 0.25) * (0.7 + 0.3 * off * edge(1 - off, 0.25))

    vertebrae = np.abs(y / 0.105 - np.round(y / 0.105))
    absorption += skin * edge(0.075 - np.abs(x), 0.02) * (0.2 + 0.12 * edge(0.4 - vertebrae, 0.08))
    middle = np.abs(x - trunk)
    absorption += 0.3 * edge(0.115 + thymus * edge(-y - 0.1, 0.1) - middle, 0.025) * edge(y + 0.8, 0.1)
    absorption -= 0.16 * edge(0.03 - middle, 0.012) * edge(-0.12 - y, 0.05)
    heart = distance(x - 0.25 * y, y, 0.05 + trunk, 0.24, 0.3 * heart_size, 0.28 * heart_size)
    absorption += 0.3 * edge(1 - heart, 0.16) * edge(dome + 0.1, 0.05)

    clavicle = y - (apex + 0.16 - 0.22 * side + 0.35 * (side - 0.35) * side)
    absorption += 0.22 * edge(0.024 - np.abs(clavicle), 0.009) * edge(side - 0.07, 0.015) * edge(0.72 - side, 0.02)
    blade = distance(side + 0.12 * y, y, 0.68, -0.3, 0.1, 0.28)
    absorption += 0.13 * skin * edge(1 - blade, 0.2)
    absorption += 0.2 * skin * edge(1 - distance(side, y, 0.88, -0.62, 0.11, 0.13), 0.2)
    return lungs, absorption


def draw_vessels(body: np.random.Generator, pose: tuple[float, ...]) -> np.ndarray:
    """Draws arteries that leave the hila, bend at random and thin out: float32 [SIZE, SIZE], 0 to 1."""
    image = Image.new("L", (SIZE, SIZE))
    canvas = ImageDraw.Draw(image)
    for side in (-1, 1):
        for _ in range(11):
            place = np.array([SIZE / 2 * (1 + 0.17 * side), SIZE / 2 * body.uniform(0.94, 1.14)])
            step = np.array([side * body.uniform(0.5, 5.5), body.uniform(-5.5, 5.5)])
            for thickness in (3, 3, 2, 2, 1, 1, 1, 1):
                step += body.uniform(-1.5, 1.5, 2)
                canvas.line([*place, *(place + step)], fill=255 - 45 * (3 - thickness), width=thickness)
                place += step
    posed = image.transform((SIZE, SIZE), Image.Transform.AFFINE, pose, Image.Resampling.BILINEAR)
    return np.asarray(posed, dtype=np.float32) / 255


def draw_soft_tissue(x: np.ndarray, y: np.ndarray, body: np.random.Generator) -> np.ndarray:
    """Draws harmless shadows, in every class: breasts or fat over both bases and a fold of skin.

    Returns:
        float32 absorption of shape [SIZE, SIZE].
    """
    weight = max(0.0, body.uniform(-0.12, 0.16))
    low, wide = body.uniform(0.2, 0.45), body.uniform(0.2, 0.3)
    shadow = weight * edge(1 - distance(np.abs(x), y, 0.38, low, wide, 0.24), 0.35)
    fold, slope = body.uniform(-0.7, 0.7), body.uniform(-0.4, 0.4)
    return shadow + max(0.0, body.uniform(-0.08, 0.08)) * edge(x - fold - slope * y, 0.02)


def draw_patches(
    x: np.ndarray, y: np.ndarray, lungs: np.ndarray, body: np.random.Generator, shot: np.random.Generator
) -> np.ndarray:
    """Draws one or two lobar consolidations with frayed borders: float32 absorption of shape [SIZE, SIZE]."""
    frayed = texture(body, 9)
    shadow = np.zeros_like(lungs)
    for share in (1.0, max(0.0, body.uniform(-0.6, 1.0))):
        side = 1 if body.random() < 0.5 else -1
        across, down = side * body.uniform(0.22, 0.5), body.uniform(-0.4, 0.45)
        wide, high = body.uniform(0.2, 0.32), body.uniform(0.2, 0.36)
        inside = 1 - distance(x, y, across, down, wide, high) + 0.9 * frayed
        shadow += share * edge(inside, 0.6)
    return visibility(shot) * 0.7 * shadow * (0.1 + 0.9 * lungs)


def draw_haze(
    x: np.ndarray, y: np.ndarray, lungs: np.ndarray, body: np.random.Generator, shot: np.random.Generator
) -> np.ndarray:
    """Draws haze around both hila with fine strands in it: float32 absorption of shape [SIZE, SIZE]."""
    reach, down = body.uniform(0.36, 0.55), body.uniform(-0.05, 0.2)
    cloud = edge(1 - distance(np.abs(x), y, 0.25, down, reach, 1.4 * reach) + 0.7 * texture(body, 7), 0.8)
    strands = 1 - np.abs(texture(body, 26)) - np.abs(texture(body, 38))
    return visibility(shot) * lungs * cloud * (0.26 + 0.21 * strands)


def visibility(shot: np.random.Generator) -> float:
    """Draws how visible an illness is, 0 to 1. Some films show next to nothing of it, so no model can be perfect."""
    return 0.04 if shot.random() < 0.05 else shot.uniform(0.4, 1.0)


def develop(absorption: np.ndarray, split: str, shot: np.random.Generator) -> np.ndarray:
    """Exposes the film: motion, noise, exposure, contrast, a letter that marks the side, and the collimator's border.

    Args:
        absorption: float32 [SIZE, SIZE], 0 for air and about 1 for a body.
        split: A key of COUNTS; the machine of the test films exposes more and is noisier.
        shot: Draws everything.

    Returns:
        uint8 array of shape [SIZE, SIZE].
    """
    other_machine = float(split == "test")
    if shot.random() < 0.2:
        padded = np.pad(absorption, ((2, 2), (0, 0)), "edge")
        absorption = (padded[:-4] + padded[2:-2] + padded[4:]) / 3
    noise = 0.01 + 0.01 * other_machine + 0.02 * shot.random()
    grain = noise * shot.standard_normal((SIZE, SIZE), dtype=np.float32)
    dense = np.maximum(absorption + 0.05 * texture(shot, 5) + grain, 0)

    # Automatic exposure meters the chest, as real machines do, so an ill lung is not simply a brighter film. The sum is
    # in float64, where the order of its terms, which differs between machines, is lost in rounding.
    metered = float(dense[SIZE // 4 : -SIZE // 4, SIZE // 6 : -SIZE // 6].mean(dtype=np.float64))
    dense *= (shot.uniform(0.85, 1.2) + 0.04 * other_machine) / (0.35 + 1.1 * metered)
    contrast, brightness = shot.uniform(0.9, 1.1), shot.uniform(0.42, 0.56)
    light = contrast * (1.15 * dense / np.sqrt(1 + dense * dense) - 0.5) + brightness
    film = (np.clip(light, 0, 1) * 255).astype(np.uint8)

    mark_side(film, shot)
    top, bottom, left, right = np.maximum(shot.integers(-12, 14, 4), 0).tolist()
    window = slice(top, SIZE - bottom), slice(left, SIZE - right)
    framed = np.full_like(film, 8)
    framed[window] = film[window]
    return framed


def mark_side(film: np.ndarray, shot: np.random.Generator) -> None:
    """Puts a lead R or L beside a shoulder of most films, in place."""
    drawn, row, column = shot.random(), int(shot.integers(16, 40)), int(shot.integers(6, 20))
    if drawn < 0.7:
        letter, left = ("R", column) if drawn < 0.35 else ("L", SIZE - column - 8)
        lead = np.array([[dot == "#" for dot in line] for line in LETTERS[letter]]).repeat(2, 0).repeat(2, 1)
        film[row : row + lead.shape[0], left : left + lead.shape[1]][lead] = 250
