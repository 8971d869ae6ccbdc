"""Printed covers that never existed, and phone photos of them: a stand-in for sets that cannot be handed on.

Covers are composed of the shared photos and drawings (panels, colour blocks, titles); several of one series share
layout and colours. Each is then photographed by four made-up phones: warped onto a cluttered background, turned, cut
off, out of focus, with glare, shadows, a colour cast, noise and JPEG. The same seed gives the same pictures.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

SETS_OF_ART = ("caltech_10", "pets3_180", "ucmerced_10", "cacao_360")
SHAPES = ((500, 500), (420, 600), (400, 600))  # CD, DVD, book
COVERS_A_SERIES = 5
SYLLABLES = tuple(
    "ba co da en fir go hal in jo ka lo mer no or pa qui ra sol ta un vel wa xe yo zan the of lux".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Phone:
    """How a phone spoils a picture.

    Parameters
    ----------
    cast : (float, float, float)
        Gain of red, green and blue.
    contrast, blur, noise, quality : float
        Factor; standard deviation in pixels of 640×480; of the noise, in levels; of JPEG.
    """

    cast: tuple[float, float, float]
    contrast: float
    blur: float
    noise: float
    quality: int


PHONES = (
    Phone((1.0, 0.97, 0.92), 0.95, 0.9, 3, 85),
    Phone((0.85, 0.97, 1.12), 0.75, 1.6, 7, 60),
    Phone((1.15, 1.0, 0.75), 0.85, 1.3, 9, 50),
    Phone((0.9, 1.05, 0.88), 0.65, 2.2, 6, 70),
)


@dataclass(frozen=True)
class Pictures:
    """Raw material: photos of the shared sets and drawings."""

    photos: Sequence[Path]
    drawings: Sequence[Path]


def list_pictures(root: Path) -> Pictures:
    """Return the shared pictures under a folder, always in the same order."""
    photos = [path for name in SETS_OF_ART for path in sorted((root / name).rglob("*.*")) if path.is_file()]
    drawings = sorted(path for path in (root / "emoji_third").rglob("*.*") if path.is_file())
    return Pictures(photos, drawings)


def split_pictures(pictures: Pictures, seed: int) -> tuple[Pictures, Pictures]:
    """Return two halves of the material: what is printed, and what lies around it."""
    random = np.random.default_rng([seed, 0])
    photos = [pictures.photos[i] for i in random.permutation(len(pictures.photos))]
    drawings = [pictures.drawings[i] for i in random.permutation(len(pictures.drawings))]
    return (
        Pictures(photos[: len(photos) // 2], drawings[: len(drawings) // 2]),
        Pictures(photos[len(photos) // 2 :], drawings[len(drawings) // 2 :]),
    )


def make_cover(number: int, pictures: Pictures, seed: int) -> Image.Image:
    """Return one printed cover, RGB; those of `COVERS_A_SERIES` consecutive numbers share layout and colours."""
    series = np.random.default_rng([seed, 1, number // COVERS_A_SERIES])
    random = np.random.default_rng([seed, 2, number])
    size = SHAPES[series.integers(len(SHAPES))]
    colours = _palette(series)
    layout = (_full_page, _framed, _collage, _blocks, _lettering)[series.integers(5)]
    return layout(size, colours, pictures, series, random)


def _palette(random: np.random.Generator) -> list[tuple[int, int, int]]:
    hue = random.random()
    steps = [(0.0, 0.75, 0.35), (0.05, 0.5, 0.9), (0.5, 0.8, 0.8), (0.0, 0.05, 0.97), (0.0, 0.2, 0.08)]
    colours = []
    for shift, saturation, value in steps:
        red, green, blue = colorsys.hsv_to_rgb((hue + shift + random.normal(0, 0.03)) % 1, saturation, value)
        colours.append((int(red * 255), int(green * 255), int(blue * 255)))
    return [colours[i] for i in random.permutation(len(colours))]


def _photo(
    pictures: Pictures, size: tuple[int, int], random: np.random.Generator, tint: tuple[int, int, int] | None = None
) -> Image.Image:
    """Return a shared photo that fills a size; with a tint, printed in that one colour."""
    with Image.open(pictures.photos[random.integers(len(pictures.photos))]) as image:
        photo = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC)
    if tint is not None:
        return ImageOps.colorize(ImageOps.grayscale(photo), (0, 0, 0), (255, 255, 255), mid=tint)
    return photo


def _drawing(pictures: Pictures, side: int, random: np.random.Generator) -> Image.Image:
    with Image.open(pictures.drawings[random.integers(len(pictures.drawings))]) as image:
        return image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def _words(random: np.random.Generator, n_words: int) -> str:
    words = ["".join(random.choice(SYLLABLES, random.integers(1, 4))) for _ in range(n_words)]
    return " ".join(words)


def _write(
    cover: Image.Image,
    box: tuple[int, int, int, int],
    colour: tuple[int, int, int],
    random: np.random.Generator,
    n_lines: int = 1,
) -> None:
    """Write made-up words into a box, each line as large as it fits."""
    left, top, right, bottom = box
    height = (bottom - top) // n_lines
    for line in range(n_lines):
        text = _words(random, random.integers(1, 4))
        text = (str.upper, str.title, str.lower)[random.integers(3)](text)
        font = ImageFont.load_default(size=max(8, int(height * 0.8)))
        x0, y0, x1, y1 = font.getbbox(text)
        mask = Image.new("L", (max(1, int(x1)), max(1, int(y1))), 0)
        ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font, stroke_width=int(random.integers(2)))
        mask = mask.crop((int(x0), int(y0), max(int(x1), int(x0) + 1), max(int(y1), int(y0) + 1)))
        width = min(right - left, int(mask.width * random.uniform(0.8, 1.3)))
        mask = mask.resize((max(1, width), max(1, int(height * 0.75))))
        at = (left + int((right - left - width) * random.choice([0.0, 0.5])), top + line * height)
        cover.paste(Image.new("RGB", mask.size, colour), at, mask)


def _full_page(size, colours, pictures, series, random):  # type: ignore[no-untyped-def]
    width, height = size
    cover = _photo(pictures, size, random, colours[2] if series.random() < 0.4 else None)
    if series.random() < 0.6:
        band = int(height * series.uniform(0.15, 0.25))
        top = int(series.choice([0, height - band, height * 0.6]))
        cover.paste(colours[0], (0, top, width, top + band))
        _write(cover, (15, top + 8, width - 15, top + band), colours[1], random)
    else:
        _write(cover, (20, 20, width - 20, 20 + int(height * 0.25)), colours[1], random, 2)
    _write(cover, (20, int(height * 0.9), width - 20, int(height * 0.97)), colours[3], random)
    return cover


def _framed(size, colours, pictures, series, random):  # type: ignore[no-untyped-def]
    width, height = size
    cover = Image.new("RGB", size, colours[0])
    border, top, bottom = int(width * series.uniform(0.04, 0.15)), series.uniform(0.12, 0.3), series.uniform(0.75, 0.9)
    box = (border, int(height * top), width - border, int(height * bottom))
    tint = colours[2] if series.random() < 0.3 else None
    cover.paste(_photo(pictures, (box[2] - box[0], box[3] - box[1]), random, tint), box[:2])
    ImageDraw.Draw(cover).rectangle(box, outline=colours[1], width=int(series.integers(1, 8)))
    _write(cover, (border, 12, width - border, box[1] - 8), colours[1], random, int(series.integers(1, 3)))
    _write(cover, (border, box[3] + 10, width - border, height - 10), colours[3], random, int(series.integers(1, 3)))
    return cover


def _collage(size, colours, pictures, series, random):  # type: ignore[no-untyped-def]
    width, height = size
    cover = Image.new("RGB", size, colours[0])
    columns, rows = int(series.integers(1, 4)), int(series.integers(2, 4))
    gap, head = int(series.integers(0, 14)), int(height * series.uniform(0.1, 0.25))
    tinted = series.random() < 0.3
    cell = ((width - gap) // columns - gap, (height - head - gap) // rows - gap)
    for row in range(rows):
        for column in range(columns):
            tint = colours[int(random.integers(5))] if tinted else None
            at = (gap + column * (cell[0] + gap), head + gap + row * (cell[1] + gap))
            cover.paste(_photo(pictures, cell, random, tint), at)
    _write(cover, (12, 6, width - 12, head), colours[1], random, int(series.integers(1, 3)))
    return cover


def _blocks(size, colours, pictures, series, random):  # type: ignore[no-untyped-def]
    width, height = size
    cover = Image.new("RGB", size, colours[0])
    draw = ImageDraw.Draw(cover)
    for _ in range(series.integers(3, 8)):  # the series' own
        x, y, w, h = series.random(4) * (width, height, width / 2, height / 2)
        draw.rectangle((x, y, x + w, y + h), fill=colours[series.integers(5)])
    for _ in range(random.integers(2, 7)):
        x, y, r, s = random.random(4) * (width, height, width / 4, width / 4)
        shape = (draw.ellipse, draw.rectangle)[random.integers(2)]
        shape((x, y, x + r, y + s), fill=colours[random.integers(5)])
    for _ in range(random.integers(1, 4)):
        side = int(width * random.uniform(0.15, 0.4))
        at = (int(random.random() * (width - side)), int(random.random() * (height - side)))
        cover.paste(_drawing(pictures, side, random), at)
    top = int(height * series.uniform(0.05, 0.7))
    _write(cover, (20, top, width - 20, top + int(height * 0.2)), colours[3], random, int(series.integers(1, 3)))
    return cover


def _lettering(size, colours, pictures, series, random):  # type: ignore[no-untyped-def]
    width, height = size
    cover = Image.new("RGB", size, colours[0])
    if series.random() < 0.5:
        dim = ImageEnhance.Contrast(_photo(pictures, size, random, colours[0])).enhance(0.4)
        cover = Image.blend(cover, dim, 0.6)
    top = int(height * series.uniform(0.05, 0.2))
    middle = int(height * series.uniform(0.5, 0.7))
    _write(cover, (20, top, width - 20, middle), colours[1], random, int(series.integers(2, 5)))
    side = int(width * 0.25)
    if series.random() < 0.6:
        cover.paste(_drawing(pictures, side, random), ((width - side) // 2, min(middle + 10, height - side)))
    _write(cover, (20, int(height * 0.88), width - 20, int(height * 0.96)), colours[2], random)
    return cover


@dataclass(frozen=True)
class Hardship:
    """How hard the photos are: what was tuned so that plain cosine finds about as many as on real phone photos."""

    turn: float = 13.0  # standard deviation, degrees
    quarter_turns: float = 0.1  # share of photos turned by ±90°
    tilt: float = 0.10  # of the cover's side, how far corners move
    extent: tuple[float, float] = (0.42, 0.92)  # of the frame's height
    shift: float = 0.12  # of the frame, standard deviation
    glare: float = 0.7  # share of photos with glare
    spoil: float = 1.2  # factor of the phones' blur and noise


def photograph(
    cover: Image.Image, number: int, shot: int, clutter: Pictures, seed: int, hardship: Hardship = Hardship()
) -> Image.Image:
    """Return a photo of a cover, RGB, 640×480 or 480×640, as one of the phones takes it."""
    random = np.random.default_rng([seed, 3, number, shot])
    phone = PHONES[(number + shot) % len(PHONES)]
    size = (640, 480) if random.random() < 0.6 else (480, 640)
    scene = _clutter(size, clutter, random)
    corners = _corners(cover.size, size, random, hardship)
    scene = _lay(scene, cover, corners)
    return _spoil(scene, phone, random, hardship)


def _clutter(size: tuple[int, int], pictures: Pictures, random: np.random.Generator) -> Image.Image:
    scene = _photo(pictures, size, random)
    for _ in range(random.integers(0, 7)):
        side = int(random.uniform(80, 320))
        thing = _photo(pictures, (side, int(side * random.uniform(0.4, 1.2))), random)
        if random.random() < 0.3:
            thing = _drawing(pictures, side, random)
        if random.random() < 0.3:
            thing = Image.new("RGB", thing.size, tuple(int(v) for v in random.integers(0, 256, 3)))
        turned = thing.convert("RGBA").rotate(random.uniform(0, 360), Image.Resampling.BILINEAR, expand=True)
        at = (int(random.uniform(-0.3, 1) * size[0]), int(random.uniform(-0.3, 1) * size[1]))
        scene.paste(turned, at, turned)
    return scene


def _corners(
    cover: tuple[int, int], frame: tuple[int, int], random: np.random.Generator, hardship: Hardship
) -> np.ndarray:
    """Return where the cover's corners come to lie, (4, 2) pixels, clockwise from the upper left."""
    unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    corners = unit * np.array(cover) / max(cover)
    corners = corners + random.uniform(-hardship.tilt, hardship.tilt, (4, 2))
    angle = np.radians(random.normal(0, hardship.turn))
    if random.random() < hardship.quarter_turns:
        angle += np.pi / 2 * random.choice([-1, 1])
    corners = corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    extent = random.uniform(*hardship.extent) * min(frame) / 0.9
    centre = np.array(frame) * (0.5 + random.normal(0, hardship.shift, 2).clip(-0.3, 0.3))
    return corners * extent + centre


def _lay(scene: Image.Image, cover: Image.Image, corners: np.ndarray) -> Image.Image:
    """Return the scene with the cover warped onto it."""
    longest = max(np.linalg.norm(corners[i] - corners[i - 1]) for i in range(4))
    factor = min(1.0, longest / max(cover.size) * 1.2)  # shrunk with a good filter first: the warp only looks at 4×4
    cover = cover.resize((round(cover.width * factor), round(cover.height * factor)), Image.Resampling.LANCZOS)
    width, height = cover.size
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    coefficients = _perspective(corners, source)
    warp = (Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
    warped = cover.transform(scene.size, *warp)
    mask = Image.new("L", cover.size, 255).transform(scene.size, *warp)
    shadow = mask.filter(ImageFilter.GaussianBlur(6)).point(lambda level: level * 0.5)
    scene = Image.composite(Image.new("RGB", scene.size), scene, shadow)
    return Image.composite(warped, scene, mask)


def _perspective(target: np.ndarray, source: np.ndarray) -> tuple[float, ...]:
    """Return the eight numbers of Pillow's perspective transform, which goes from the result to the source."""
    rows = []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return tuple(np.linalg.solve(np.array(rows), source.reshape(-1)))


def _spoil(scene: Image.Image, phone: Phone, random: np.random.Generator, hardship: Hardship) -> Image.Image:
    """Return the picture after light, lens, sensor and JPEG."""
    blur = phone.blur * hardship.spoil * random.uniform(0.4, 1.5)
    scene = scene.filter(ImageFilter.GaussianBlur(blur))
    light = np.asarray(scene, np.float32) / 255
    height, width = light.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    direction = random.uniform(0, 2 * np.pi)
    shade = 1 - random.uniform(0, 0.6) * (0.5 + np.cos(direction) * (x - 0.5) + np.sin(direction) * (y - 0.5))
    light = light * shade[..., None] * np.array(phone.cast, np.float32) * random.uniform(0.8, 1.25)
    if random.random() < hardship.glare:
        for _ in range(random.integers(1, 3)):
            place, spread = random.uniform(0.15, 0.85, 2), random.uniform(0.03, 0.16, 2)
            spot = np.exp(-(((x - place[0]) / spread[0]) ** 2) - ((y - place[1]) / spread[1]) ** 2)
            light = light + random.uniform(0.4, 1.0) * spot[..., None]
    light = 0.5 + (light - 0.5) * phone.contrast
    noise = random.normal(0, phone.noise * hardship.spoil, light.shape)
    pixels = np.clip(light * 255 + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=phone.quality)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")
