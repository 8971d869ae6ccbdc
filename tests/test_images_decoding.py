"""Any image file becomes the RGB picture that a viewer would show, or an error with a short reason."""

import hashlib
import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, features

from featx.errors import ImageError
from featx.images import FORMATS, EncodedImage, image_extensions, list_images

SHARED_DATA = Path(os.environ.get("FEATX_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
ODDITIES = SHARED_DATA / "oddities"


def encode(picture, image_format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def decode(data):
    """Pixels as int of shape (height, width, 3)."""
    picture = EncodedImage(b"", data).decode()
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def make_picture(width=60, height=40):
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 4, y * 6, x + y], axis=-1).astype(np.uint8))


LOSSLESS = {
    "PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}, "JPEG2000": {},
}  # fmt: skip


@pytest.mark.parametrize("image_format", LOSSLESS)
def test_lossless_formats_come_back(image_format):
    """What was written without loss is read without loss."""
    picture = make_picture()
    assert np.array_equal(decode(encode(picture, image_format, **LOSSLESS[image_format])), np.asarray(picture))


@pytest.mark.parametrize("image_format", ["JPEG", "AVIF", "GIF"])
def test_lossy_formats_come_back_nearly(image_format):
    """What was written with loss is as near as Pillow's own reading says."""
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    data = encode(make_picture(), image_format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode(data), expected)
    assert np.abs(decode(data) - np.asarray(make_picture())).mean() < 12


def test_one_bit_and_gray():
    """1-bit, 8-bit gray and gray JPEG become equal channels."""
    gray = make_picture().convert("L")
    assert np.array_equal(decode(encode(gray, "PNG")), np.asarray(gray)[..., None].repeat(3, axis=-1))
    one_bit = gray.convert("1")
    assert np.array_equal(decode(encode(one_bit, "PNG"))[..., 0], np.asarray(one_bit) * 255)
    channels = decode(encode(gray, "JPEG"))
    assert (channels == channels[..., :1]).all()


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_gray_is_scaled(image_format):
    """16-bit gray is divided by 257, not clipped at 255."""
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    pixels = decode(encode(Image.fromarray(values), image_format))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_big_endian_sixteen_bit_tiff():
    """The byte order of a 16-bit TIFF does not matter."""
    picture = Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 257, 65535))
    assert decode(encode(picture, "TIFF"))[0, :, 0].tolist() == [1, 255]


def test_floats_and_wide_integers_are_stretched():
    """Float and 32-bit values go from the smallest finite one to the largest; not finite and constant are 0."""
    floats = Image.fromarray(np.array([[-1.0, 0.0, 1.0, np.nan, np.inf]], dtype=np.float32))
    assert decode(encode(floats, "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 0, 0]
    integers = Image.fromarray(np.array([[-1000, 0, 1000]], dtype=np.int32))
    assert decode(encode(integers, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    constant = Image.fromarray(np.full((2, 2), 7.5, dtype=np.float32))
    assert not decode(encode(constant, "TIFF")).any()
    nothing = Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32))
    assert not decode(encode(nothing, "TIFF")).any()


def test_alpha_lies_on_white():
    """RGBA and LA are laid over white: 255 - alpha of white, the rest of the colour."""
    colour = Image.new("RGBA", (4, 1))
    for x, alpha in enumerate((0, 51, 204, 255)):
        colour.putpixel((x, 0), (200, 100, 0, alpha))
    pixels = decode(encode(colour, "PNG"))[0]
    assert np.abs(pixels - [(255, 255, 255), (244, 224, 204), (211, 131, 51), (200, 100, 0)]).max() <= 1
    gray = Image.new("LA", (1, 1), (0, 51))
    assert np.abs(decode(encode(gray, "PNG"))[0, 0] - 204).max() <= 1


def test_palettes_and_transparent_colours():
    """A palette is looked up; a transparent entry, alpha per entry, or transparent colour becomes white."""
    picture = Image.new("P", (3, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.putdata([0, 1, 2])
    red, green, blue, white = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    assert decode(encode(picture, "PNG"))[0].tolist() == [list(red), list(green), list(blue)]
    assert decode(encode(picture, "PNG", transparency=1))[0].tolist() == [list(red), list(white), list(blue)]
    assert decode(encode(picture, "GIF", transparency=2))[0].tolist() == [list(red), list(green), list(white)]
    by_entry = decode(encode(picture, "PNG", transparency=bytes([255, 0, 128])))[0]
    assert np.abs(by_entry - [red, white, (127, 127, 255)]).max() <= 1
    keyed = Image.new("RGB", (1, 1), green)
    assert decode(encode(keyed, "PNG", transparency=green))[0].tolist() == [list(white)]


def test_cmyk_jpeg_as_pillow_reads_it():
    """A CMYK JPEG, inverted as Adobe writes it, becomes Pillow's RGB, near to the original colours."""
    picture = make_picture()
    data = encode(picture.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data[:100]
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(decode(data) - np.asarray(picture)).mean() < 8


def test_first_frame_of_animations():
    """Of a GIF, WebP or TIFF with several frames, the first is taken."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for image_format in ("GIF", "WEBP", "TIFF", "PNG"):
        data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
        assert np.abs(decode(data) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(image_format, orientation):
    """Each of the eight EXIF orientations, in each format that has them, is applied once, as Pillow does it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(make_picture(), image_format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(decode(data), np.asarray(expected))
    assert decode(data).shape[:2] == ((40, 60) if orientation < 5 else (60, 40))


def test_damaged_exif_does_not_cost_the_picture():
    """A picture with unreadable metadata is shown as it lies."""
    data = encode(make_picture(), "JPEG", exif=b"Exif\0\0garbage that is no TIFF header")
    assert decode(data).shape == (40, 60, 3)


def test_content_decides_not_the_name(tmp_path):
    """A PNG that is called .jpg is read as PNG."""
    file = tmp_path / "really_a_png.jpg"
    file.write_bytes(encode(make_picture(), "PNG"))
    image = list_images(file).entries[0].read()
    assert np.array_equal(np.asarray(image.decode()), np.asarray(make_picture()))


def test_digest_is_of_the_bytes(tmp_path):
    """The digest is BLAKE2b-128 of the file's bytes."""
    file = tmp_path / "1.png"
    file.write_bytes(b"any bytes")
    assert list_images(file).entries[0].read().digest == hashlib.blake2b(b"any bytes", digest_size=16).digest()


def reason_of(data):
    with pytest.raises(ImageError) as caught:
        EncodedImage(b"", data).decode()
    reason = str(caught.value)
    assert len(reason) < 150
    assert "0x" not in reason
    return reason


def test_what_is_no_image():
    """Nothing, text, and formats that are not allowed are told apart from damaged images."""
    assert reason_of(b"") == "empty file"
    assert reason_of(b"hello, world").startswith("not an image that can be decoded (JPEG, PNG, GIF")
    assert reason_of(encode(make_picture(), "TGA")).startswith("not an image")
    assert reason_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").startswith("not an image")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_truncated_images(image_format):
    """An image that ends half way is refused as truncated, never padded."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    data = encode(noise, image_format)
    assert reason_of(data[: len(data) // 2]) in ("truncated image", f"damaged or truncated {image_format} image")


@pytest.mark.parametrize("image_format", [name for name in FORMATS if name != "AVIF" or features.check("avif")])
def test_cut_and_garbled_images_only_raise_image_errors(image_format):
    """Whatever is cut off or overwritten, the outcome is a picture or an ImageError, without a warning."""
    random = np.random.default_rng(1)
    whole = np.frombuffer(encode(make_picture(), image_format), dtype=np.uint8)
    failures = 0
    for trial in range(40):
        data = whole.copy()
        if trial % 2:
            data = data[: random.integers(1, len(data))]
        else:
            places = random.integers(0, len(data), 12)
            data[places] = random.integers(0, 256, 12)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # Pillow's remarks about metadata
                EncodedImage(b"", data.tobytes()).decode()
        except ImageError:
            failures += 1
    assert failures > 0


def png_header(width, height):
    """A PNG that claims a size, with next to no pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height", "megapixels"), [(10_000, 10_000, 100), (20_000, 20_000, 400)])
def test_bombs_are_refused_before_decoding(width, height, megapixels):
    """Both where Pillow would warn and where it would raise, the size is refused, without a warning."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert reason_of(png_header(width, height)) == f"too large: {megapixels} megapixels, at most 89"
    assert not seen


def test_bomb_check_survives_a_lifted_limit(monkeypatch):
    """Where another library has lifted Pillow's limit, its default still holds here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert reason_of(png_header(20_000, 20_000)).startswith("too large")


def test_switch_for_truncated_images_is_refused(monkeypatch):
    """Where another library lets Pillow pad truncated images, decoding says so instead of padding."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "LOAD_TRUNCATED_IMAGES is on" in reason_of(encode(make_picture(), "JPEG"))


def test_what_cannot_be_read(tmp_path):
    """Missing files, folders and pipes give the reason, without the path, and without waiting for a writer."""
    os.mkfifo(tmp_path / "pipe")
    expected = {"gone.jpg": "No such file or directory", "": "a folder, not a file", "pipe": "not a regular file"}
    for name, reason in expected.items():
        with pytest.raises(ImageError) as caught:
            list_images([tmp_path / name]).entries[0].read()
        assert str(caught.value) == reason


def test_threads_decode_the_same():
    """Many threads at once give what one gives."""
    data = [encode(make_picture(50 + n, 40), "JPEG") for n in range(16)]
    alone = [decode(item) for item in data]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, data * 4))
    assert all(np.array_equal(found, alone[n % 16]) for n, found in enumerate(together))


def test_extensions_are_those_of_the_formats():
    """Listed are the extensions of formats that are decoded: no HDF5, no video, no PostScript."""
    extensions = image_extensions()
    assert {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".mpo"} <= extensions
    assert not {".h5", ".hdf", ".mpg", ".eps", ".ps", ".wmf"} & extensions


@pytest.mark.skipif(not ODDITIES.is_dir(), reason=f"no shared data in {SHARED_DATA}")
def test_real_oddities():
    """A GIF and an RGBA PNG called .jpg, a gray and a turned JPEG, and a palette GIF decode as Pillow shows them."""
    listing = list_images(ODDITIES)
    assert len(listing) == 5
    for entry in listing.entries:
        picture = entry.read().decode()
        with Image.open(ODDITIES / entry.path) as file:
            opened = ImageOps.exif_transpose(file).convert("RGBA")
        white = Image.new("RGBA", opened.size, "white")
        expected = np.asarray(Image.alpha_composite(white, opened).convert("RGB")).astype(int)
        assert np.abs(np.asarray(picture) - expected).max() <= 1
