"""The model that judges arrays, against what is known of the format and against itself."""

import random
from itertools import combinations

import numpy as np
import pytest

from orionfs.array.layout import LEFT_SYMMETRIC
from orionfs.array.levels import LEVELS
from orionfs.units import SECTOR

from . import redundancy
from .redundancy import Copies, Mirror, Parity, Place, multiply, power

CHUNK = SECTOR


def filled(model, seed=0):
    """Data areas of an array with random contents, its redundancy made byte by byte and chunk by chunk."""
    generator = np.random.default_rng(seed)
    areas = {slot: np.zeros(model.rows * model.chunk, np.uint8) for slot in range(model.slots)}
    for number in range(model.size // model.chunk):
        piece = generator.integers(0, 256, model.chunk, np.uint8)
        for place in model.places(number):
            areas[place.slot][place.offset : place.offset + model.chunk] = piece
    if isinstance(model, Parity):
        for row, stripe in enumerate(model.stripes):
            low, high = row * model.chunk, (row + 1) * model.chunk
            for number, slot in enumerate(stripe.data):
                areas[stripe.p][low:high] ^= areas[slot][low:high]
                if stripe.q >= 0:
                    factor = power(stripe.exponents[number])
                    areas[stripe.q][low:high] ^= np.array(
                        [multiply(factor, int(value)) for value in areas[slot][low:high]], np.uint8
                    )
    return areas


def every_model():
    for count in (2, 3, 4):
        yield f"raid1 x{count}", Mirror(count, 8 * SECTOR)
    for level in ("raid4", "raid5", "raid6"):
        for count in range(4 if level == "raid6" else 3, 7):
            for number in _layouts(level):
                yield f"{level} {number} x{count}", Parity(int(level[4:]), count, number, CHUNK, 8 * CHUNK)
    for layout in (0x102, 0x103, 0x201, 0x301, 0x10201, 0x10301, 0x202):
        for count in range(2, 7):
            if (layout & 0xFF) * (layout >> 8 & 0xFF) <= count:
                yield f"raid10 {layout:#x} x{count}", Copies(count, layout, CHUNK, 12 * CHUNK)


def _layouts(level):
    return {"raid4": [0], "raid5": range(6), "raid6": [*range(6), 8, 9, 10, *range(16, 21)]}[level]


MODELS = list(every_model())


@pytest.mark.parametrize("model", [model for _name, model in MODELS], ids=[name for name, _model in MODELS])
def test_every_byte_of_the_members_is_used_once_and_every_flip_is_found(model):
    used = [place for number in range(model.size // model.chunk) for place in model.places(number)]
    if isinstance(model, Parity):
        rows = enumerate(model.stripes)
        used += [Place(slot, row * CHUNK) for row, stripe in rows for slot in (stripe.p, stripe.q) if slot >= 0]
        assert len(used) == model.slots * model.rows
        assert all(len(set(stripe.exponents)) == len(stripe.exponents) for stripe in model.stripes)
    assert len(set(used)) == len(used)
    areas = filled(model)
    assert model.disagreements(areas) == []
    before = {slot: area.copy() for slot, area in areas.items()}
    generator = random.Random(0)
    for _ in range(5):
        place = generator.choice(used)
        at = place.offset + generator.randrange(model.chunk)
        areas[place.slot][at] ^= 1 << generator.randrange(8)
        assert model.disagreements(areas), place
        areas[place.slot][at] = before[place.slot][at]


@pytest.mark.parametrize("model", [model for _name, model in MODELS], ids=[name for name, _model in MODELS])
def test_what_survives_is_what_still_holds_every_block(model):
    for count in range(model.slots + 1):
        for gone in combinations(range(model.slots), count):
            if not isinstance(model, Parity):
                assert model.survives(gone) == (not model.held_by(gone).any())
            elif model.survives(gone):
                assert count <= model.parities
            else:
                assert count > model.parities


def test_the_field_is_that_of_raid_6():
    assert [power(exponent) for exponent in range(10)] == [1, 2, 4, 8, 16, 32, 64, 128, 0x1D, 0x3A]
    assert power(255) == 1
    assert len({power(exponent) for exponent in range(255)}) == 255
    assert all(multiply(one, 3) == multiply(3, one) for one in range(256))


def test_known_places():
    """Rows that the format's table gives by hand: left-symmetric on four members, near-2 on three, far-2 on four."""
    raid5 = Parity(5, 4, LEFT_SYMMETRIC, CHUNK, 4 * CHUNK)
    assert [(stripe.p, stripe.data) for stripe in raid5.stripes] == [
        (3, (0, 1, 2)),
        (2, (3, 0, 1)),
        (1, (2, 3, 0)),
        (0, (1, 2, 3)),
    ]
    near = Copies(3, 0x102, CHUNK, 4 * CHUNK)
    assert [near.places(number) for number in range(3)] == [
        [Place(0, 0), Place(1, 0)],
        [Place(2, 0), Place(0, CHUNK)],
        [Place(1, CHUNK), Place(2, CHUNK)],
    ]
    far = Copies(4, 0x201, CHUNK, 4 * CHUNK)
    assert far.places(3) == [Place(3, 0), Place(0, 2 * CHUNK)]
    raid6 = Parity(6, 4, LEFT_SYMMETRIC, CHUNK, 4 * CHUNK)
    assert [(stripe.p, stripe.q, stripe.data) for stripe in raid6.stripes] == [
        (3, 0, (1, 2)),
        (2, 3, (0, 1)),
        (1, 2, (3, 0)),
        (0, 1, (2, 3)),
    ]


def test_a_whole_stripe_is_one_that_lies_inside():
    model = Parity(5, 3, LEFT_SYMMETRIC, CHUNK, 4 * CHUNK)
    width = 2 * CHUNK // SECTOR
    assert not model.whole_stripes(1, width).any()
    found = model.whole_stripes(1, 3 * width + 1)
    assert np.flatnonzero(found).tolist() == list(range(width, 3 * width))
    assert model.stripes_of(np.arange(4 * width) == width).sum() == width


@pytest.mark.parametrize("level", [name for name, level in LEVELS.items() if level.tolerates(6)])
def test_there_is_a_model_of_every_level_that_can_lose_a_member(level):
    for layout in LEVELS[level].layouts.values():
        model = redundancy.model_of(LEVELS[level].md_level, 6, layout, CHUNK, 12 * CHUNK)
        assert model.slots == 6
        assert model.survives([0])
