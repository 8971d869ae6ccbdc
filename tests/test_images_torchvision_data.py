"""Data sets of torchvision are listed from what is on the disk, never downloaded, never when damaged."""

import socket
import struct

import numpy as np
import pytest
from PIL import Image

from featx.errors import ImageError, SourceError
from featx.images import NO_SPLIT, TEST, TRAIN, VAL, list_images


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt to reach the network fails the test."""

    def refuse(*_args, **_options):
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def write_idx(file, values):
    """A file in the format of MNIST: magic number, sizes, bytes."""
    header = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    file.write_bytes(header + values.tobytes())


def make_mnist(root, name="MNIST"):
    """A small MNIST: 5 training and 3 test images; returns the training images."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    write_idx(raw / "train-images-idx3-ubyte", images)
    write_idx(raw / "train-labels-idx1-ubyte", np.array([3, 0, 3, 9, 1], dtype=np.uint8))
    write_idx(raw / "t10k-images-idx3-ubyte", images[:3])
    write_idx(raw / "t10k-labels-idx1-ubyte", np.array([9, 9, 0], dtype=np.uint8))
    return images


def class_of(listing, entry):
    return listing.class_names[entry.label] if entry.label >= 0 else None


def test_loader_with_a_train_switch(tmp_path):
    """MNIST gives train and test, its class names, and its pixels."""
    images = make_mnist(tmp_path)
    listing = list_images(f"torchvision-data:MNIST:{tmp_path}")
    assert [entry.path for entry in listing.entries] == [f"train/{n:06d}" for n in range(5)] + [
        f"test/{n:06d}" for n in range(3)
    ]
    assert listing.splits.tolist() == [TRAIN] * 5 + [TEST] * 3
    assert listing.class_names == ("0 - zero", "1 - one", "3 - three", "9 - nine")
    assert class_of(listing, listing.entries[3]) == "9 - nine"
    assert np.array_equal(np.asarray(listing.entries[1].read().decode())[..., 0], images[1])
    assert listing.source == f"torchvision-data:MNIST:{tmp_path}"


def test_class_names_are_sorted_and_labels_follow(tmp_path):
    """Where the loader's classes are in another order, labels are renumbered with them."""
    make_mnist(tmp_path, "FashionMNIST")
    listing = list_images(f"torchvision-data:FashionMNIST:{tmp_path}")
    assert listing.class_names == tuple(sorted(listing.class_names))
    assert [class_of(listing, entry) for entry in listing.entries[:5]] == [
        "Dress", "T-shirt/top", "Dress", "Ankle boot", "Trouser",
    ]  # fmt: skip


def test_digest_is_of_the_pixels(tmp_path):
    """Equal pixels have equal digests wherever they lie, different pixels different ones."""
    make_mnist(tmp_path)
    entries = list_images(f"torchvision-data:MNIST:{tmp_path}").entries
    digests = [entry.read().digest for entry in entries]
    assert digests[:3] == digests[5:]
    assert len(set(digests)) == 5
    assert all(len(digest) == 16 for digest in digests)


def test_loader_with_named_splits(tmp_path):
    """Country211 calls its splits train, valid and test; classes are its folders."""
    for split in ("train", "valid", "test"):
        for name in ("FR", "DE"):
            folder = tmp_path / "country211" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (9, 9), (1, 2, 3)).save(folder / "1.jpg")
    listing = list_images(f"torchvision-data:Country211:{tmp_path}")
    assert listing.splits.tolist() == [TRAIN] * 2 + [VAL] * 2 + [TEST] * 2
    assert [entry.path for entry in listing.entries[2:4]] == ["val/000000", "val/000001"]
    assert [class_of(listing, entry) for entry in listing.entries] == ["DE", "FR"] * 3


def test_loader_without_splits_and_a_bad_image(tmp_path):
    """EuroSAT has no splits; an image that its loader cannot open is an ImageError when it is read."""
    folder = tmp_path / "eurosat" / "2750" / "Forest"
    folder.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.new("RGB", (9, 9)).save(folder / name)
    (folder / "b.jpg").write_bytes(b"no image")
    listing = list_images(f"torchvision-data:EuroSAT:{tmp_path}")
    assert [(entry.path, entry.split) for entry in listing.entries] == [(f"{n:06d}", NO_SPLIT) for n in range(3)]
    assert listing.entries[2].read().decode().size == (9, 9)
    with pytest.raises(ImageError, match="cannot identify"):
        listing.entries[1].read()


def test_damaged_files_are_refused(tmp_path):
    """CIFAR-10 files with the wrong content do not pass their checksums, and are never unpickled."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    trap = tmp_path / "trap"
    pickled = f"cposix\nsystem\n(S'touch {trap}'\ntR.".encode()  # would run a command if it were unpickled
    for name in ("batches.meta", "test_batch", *(f"data_batch_{n}" for n in range(1, 6))):
        (folder / name).write_bytes(pickled)
    with pytest.raises(SourceError, match=r"missing or damaged\. featx never downloads"):
        list_images(f"torchvision-data:CIFAR10:{tmp_path}")
    assert not trap.exists()


def test_missing_files_are_not_downloaded(tmp_path):
    """An empty root is refused, by loaders with and without named splits."""
    for name in ("MNIST", "CIFAR100", "SVHN", "EuroSAT", "Country211"):
        with pytest.raises(SourceError, match=f"{name} does not accept the files in"):
            list_images(f"torchvision-data:{name}:{tmp_path}")


def test_unknown_names_and_incomplete_specifications(tmp_path):
    """A name that is near another is answered with it; loaders of any folder are not offered."""
    with pytest.raises(SourceError, match="did you mean CIFAR10"):
        list_images(f"torchvision-data:cifar10:{tmp_path}")
    with pytest.raises(SourceError, match="'ImageFolder' is not known"):
        list_images(f"torchvision-data:ImageFolder:{tmp_path}")
    with pytest.raises(SourceError, match="is not complete; write torchvision-data:NAME:ROOT"):
        list_images("torchvision-data:MNIST")
