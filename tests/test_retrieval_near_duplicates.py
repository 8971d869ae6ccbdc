"""Copies and near-copies of pictures are found, whatever the order of rows and the size of tiles, and nothing else."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from featx.errors import UsageError
from featx.images import list_images, perceptual_hash
from featx.retrieval.near_duplicates import find_near_duplicates, join, likeness, number_groups


def by_hand(digests, phashes, features, least):
    """Return the groups by comparing every pair with plain loops over strings of bits."""
    n_rows = len(digests)
    texts = [f"{int.from_bytes(bytes(row), 'big'):064b}" for row in phashes]
    # A mirrored picture has the other bit in the first, third, … place.
    mirrored = ["".join(str(1 - int(bit)) if at % 2 == 0 else bit for at, bit in enumerate(text)) for text in texts]
    groups = list(range(n_rows))
    for i, j in itertools.combinations(range(n_rows), 2):
        bits = min(sum(a != b for a, b in zip(text, texts[j], strict=True)) for text in (texts[i], mirrored[i]))
        cosine = features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j])
        structured = "1" in texts[i] and "1" in texts[j]
        if bytes(digests[i]) == bytes(digests[j]) or (structured and cosine - bits / 64 >= least):
            old, new = groups[j], groups[i]
            groups = [new if group == old else group for group in groups]
    return groups


def as_partition(groups):
    """Return groups as a set of sets of rows, rows that are alone included."""
    alone = -1 - np.arange(len(groups))
    names = np.where(np.asarray(groups) < 0, alone, groups)
    return {frozenset(np.flatnonzero(names == name).tolist()) for name in names}


def planted(n_rows=70, seed=0):
    """Return random rows with copies of other rows among them: of the file, of the picture, and mirrored."""
    random = np.random.default_rng(seed)
    digests = random.integers(0, 256, (n_rows, 16), np.uint8)
    bits = random.integers(0, 2, (n_rows, 64), np.uint8)
    features = random.normal(size=(n_rows, 24)).astype(np.float32)
    order = random.permutation(n_rows)
    for number, (row, copy) in enumerate(zip(order[:20], order[20:40], strict=True)):
        digests[copy] = digests[row] if number % 4 == 0 else digests[copy]
        bits[copy] = bits[row]
        if number % 4 == 1:
            bits[copy] ^= np.tile(np.array([1, 0], np.uint8), 32)
        bits[copy, random.choice(64, number % 7, replace=False)] ^= 1
        noise = random.normal(size=24).astype(np.float32)
        features[copy] = 3 * features[row] + noise * 0.15 * number
    bits[order[50:55]] = 0
    features[order[50:55]] = 1
    return digests, np.packbits(bits, axis=1), features


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [0.7, 0.8, 0.95])
def test_equals_comparing_every_pair(seed, least):
    """The groups are those of plain loops over all pairs, joined wherever they touch."""
    digests, phashes, features = planted(seed=seed)
    found = find_near_duplicates(digests, phashes, features, min_likeness=least)
    expected = by_hand(digests, phashes, features, least)
    assert as_partition(found.groups) == as_partition(expected)
    n_files = len({bytes(digest) for digest in digests})
    assert found.n_identical == len(digests) - n_files
    assert found.n_near == n_files - len(set(expected))
    assert found.n_identical > 0
    assert found.n_near > 0
    assert found.n_split_up == 0


@pytest.mark.parametrize("tile_rows", [1, 3, 16])
def test_tiles_do_not_matter(tile_rows):
    """Any number of rows at a time gives the same groups."""
    whole, tiled = (find_near_duplicates(*planted(), tile_rows=rows) for rows in (1024, tile_rows))
    np.testing.assert_array_equal(tiled.groups, whole.groups)


def test_order_of_rows_does_not_matter():
    """Rows in another order are in the same groups, and groups are numbered by their first rows."""
    arrays = planted()
    order = np.random.default_rng(1).permutation(len(arrays[0]))
    found, moved = (find_near_duplicates(*(array[rows] for array in arrays)) for rows in (slice(None), order))
    back = np.empty_like(moved.groups)
    back[order] = moved.groups
    assert as_partition(back) == as_partition(found.groups)
    for groups in (found.groups, moved.groups):
        firsts = [int(np.flatnonzero(groups == number)[0]) for number in range(groups.max() + 1)]
        assert firsts == sorted(firsts)
        assert all((groups == number).sum() > 1 for number in range(groups.max() + 1))


def test_equal_hashes_need_like_features():
    """Where all pictures have one hash, only those with like features are together."""
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 50)).astype(np.float32)
    features[200:203] = features[7] * [[1], [2], [0.5]]
    digests = random.integers(0, 256, (300, 16), np.uint8)
    found = find_near_duplicates(digests, np.full((300, 8), 9, np.uint8), features, tile_rows=32)
    assert np.flatnonzero(found.groups == 0).tolist() == [7, 200, 201, 202]
    assert (found.groups >= 0).sum() == 4


def test_hash_of_nothing_says_nothing():
    """Pictures without structure, whose hash is 0, are together by digest only, with and without features."""
    digests = np.arange(5, dtype=np.uint8)[:, None].repeat(16, 1)
    digests[4] = digests[1]
    for features in (np.ones((5, 3), np.float32), None):
        found = find_near_duplicates(digests, np.zeros((5, 8), np.uint8), features)
        assert found.groups.tolist() == [-1, 0, -1, -1, 0]
        assert (found.n_identical, found.n_near) == (1, 0)


def test_without_features_hashes_must_be_equal():
    """Without features one differing bit keeps pictures apart."""
    digests = np.arange(4, dtype=np.uint8)[:, None].repeat(16, 1)
    phashes = np.array([[7] * 8, [7] * 7 + [6], [9] * 8, [7] * 8], np.uint8)
    assert find_near_duplicates(digests, phashes).groups.tolist() == [0, -1, -1, 0]


def alike(n_rows, spread, seed=0):
    """Return different files of one hash whose features lie around one point."""
    random = np.random.default_rng(seed)
    digests = random.integers(0, 256, (n_rows, 16), np.uint8)
    features = 1 + random.normal(0, spread, (n_rows, 400)).astype(np.float32)
    return digests, np.full((n_rows, 8), 9, np.uint8), features


def test_set_of_pictures_that_are_all_alike_is_not_one_group():
    """A group of more than a tenth of the files is held to higher likenesses: copies stay together, the rest falls."""
    digests, phashes, features = alike(40, 0.35)  # cosines about 0.89
    features[5] = features[30] * 1.5
    digests[11] = digests[10]
    found = find_near_duplicates(digests, phashes, features)
    assert as_partition(found.groups) > {frozenset({5, 30}), frozenset({10, 11})}
    assert (found.groups >= 0).sum() == 4
    assert found.n_split_up == 1
    whole = find_near_duplicates(digests, phashes, features, max_group=40)
    assert (whole.groups == 0).all()
    assert whole.n_split_up == 0


def test_group_too_large_at_every_likeness_falls_apart():
    """What is alike at the highest likeness too, and larger than allowed, is together by digest only."""
    digests, phashes, features = alike(40, 0.01)
    digests[11] = digests[10]
    found = find_near_duplicates(digests, phashes, features)
    assert np.flatnonzero(found.groups >= 0).tolist() == [10, 11]
    assert (found.n_identical, found.n_near, found.n_split_up) == (1, 0, 1)
    assert find_near_duplicates(digests, phashes).groups.tolist() == found.groups.tolist()


def test_small_groups_stay_when_a_large_one_falls():
    """Splitting up one group moves no other."""
    digests, phashes, features = alike(60, 0.01)
    phashes[50:] = np.random.default_rng(0).integers(0, 256, (5, 8), np.uint8).repeat(2, axis=0)
    found = find_near_duplicates(digests, phashes, features)
    assert found.groups.tolist() == [-1] * 50 + np.repeat(range(5), 2).tolist()


def test_likeness_by_hand():
    """Cosine less the share of differing bits; a picture and its mirror image differ in none."""
    features = np.array([[1, 0], [1, 1], [5, 0]], np.float32)
    phashes = np.array([[0b10110010] * 8, [0b10110011] * 8, [0b00011000] * 8], np.uint8)
    found = likeness(phashes, features, [0, 0, 2], [1, 2, 2])
    np.testing.assert_allclose(found, [2**-0.5 - 8 / 64, 1, 1], atol=1e-6)


def test_hash_of_a_mirrored_picture_is_known_without_it():
    """Mirroring moves the hash of a structured picture by few bits beyond every other one."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
    picture = small.resize((200, 150), Image.Resampling.BICUBIC)
    pair = np.array([list(perceptual_hash(image)) for image in (picture, ImageOps.mirror(picture))], np.uint8)
    assert np.unpackbits(pair[0] ^ pair[1]).sum() > 20
    assert np.unpackbits(pair[0] ^ pair[1] ^ 0b10101010).sum() <= 6


def test_numbers_and_joins_by_hand():
    """Groups are numbered by first rows, singles are −1, and joining is transitive."""
    assert number_groups(np.array([9, 4, 7, 4, 9, 9, 2])).tolist() == [0, 1, -1, 1, 0, 0, -1]
    joined = join(np.arange(6), np.array([0, 4, 1]), np.array([1, 5, 2]))
    assert as_partition(joined) == {frozenset({0, 1, 2}), frozenset({3}), frozenset({4, 5})}


def test_no_rows():
    """Nothing has no duplicates."""
    found = find_near_duplicates(np.empty((0, 16), np.uint8), np.empty((0, 8), np.uint8), np.empty((0, 4), np.float32))
    assert found.groups.shape == (0,)
    assert (found.n_identical, found.n_near) == (0, 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"digests": np.zeros(3, np.uint8)}, r"digests of shape \(3,\)"),
        ({"phashes": np.zeros((3, 7), np.uint8)}, r"phashes of shape \(3, 7\)"),
        ({"phashes": np.zeros((3, 8), np.int64)}, "int64"),
        ({"features": np.zeros((2, 4))}, r"features of shape \(2, 4\) for 3 digests"),
        ({"min_likeness": 0}, "min_likeness is 0"),
        ({"min_likeness": 1.5}, "min_likeness is 1.5"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    """Shapes and ranges are checked, and the message names what was given."""
    given = {"digests": np.zeros((3, 16), np.uint8), "phashes": np.zeros((3, 8), np.uint8), **changed}
    with pytest.raises(UsageError, match=message):
        find_near_duplicates(**given)


def jpeg(picture, quality):
    """Return a picture after JPEG compression."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


CHANGES = {
    "jpeg": lambda picture: jpeg(picture, 70),
    "size": lambda picture: picture.resize((picture.width * 4 // 5, picture.height * 4 // 5), Image.Resampling.LANCZOS),
    "brightness": lambda picture: ImageEnhance.Brightness(picture).enhance(0.85),
    "mirrored": ImageOps.mirror,
}


def groups_of(pictures, backbone):
    """Return the near-duplicate groups of pictures, by the features of a network."""
    from featx import FeatureExtractor

    extractor = FeatureExtractor(backbone.module, transform_spec=backbone.transform, engine="torch")
    features = extractor.fit_transform(pictures)
    phashes = np.array([list(perceptual_hash(picture)) for picture in pictures], np.uint8)
    digests = np.arange(len(pictures), dtype=np.uint8)[:, None].repeat(16, 1)
    return find_near_duplicates(digests, phashes, features).groups


def read(folder, places):
    """Return some pictures of a real set."""
    entries = list_images(folder).entries
    return [entries[place].read().decode().convert("RGB") for place in places]


def test_changed_copies_of_photos_are_found(shared_data, default_backbone):
    """Photos after compression, scaling, darkening and mirroring are in the group of the original, and in no other."""
    originals = read(shared_data / "pets3_180", (0, 140))
    pictures = [*originals, *(change(picture) for change in CHANGES.values() for picture in originals)]
    assert groups_of(pictures, default_backbone).tolist() == [0, 1] * (len(CHANGES) + 1)


def test_drawings_of_one_character_are_not_copies(shared_data, default_backbone):
    """Characters drawn by different people are not taken for each other, though they look alike."""
    pictures = read(shared_data / "omniglot_121", range(0, 40, 2))
    assert (groups_of(pictures, default_backbone) == -1).all()
