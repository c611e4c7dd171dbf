"""The pool of pictures: what it keeps, what it gives out, and that its state is all there is to it."""

import pytest
import torch

from styletools.nn.pool import Pool


def flat(*levels, size=(4, 4)):
    """Pictures of one grey each, which 8 bits hold exactly."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, *size) / 255


def levels(images):
    return [round(255 * float(image.mean())) for image in images]


def test_until_it_is_full_all_come_back():
    pool = Pool(5)
    assert levels(pool(flat(1, 2, 3))) == [1, 2, 3]
    assert levels(pool(flat(4, 5))) == [4, 5]
    assert int(pool.count) == 5 and levels(pool.pictures / 255) == [1, 2, 3, 4, 5]


def test_then_half_of_them_are_old_and_nothing_is_lost():
    torch.manual_seed(0)
    pool, out = Pool(10), []
    for i in range(0, 400, 2):
        out += levels(pool(flat(i % 256, (i + 1) % 256)))
    new = [value == i % 256 for i, value in enumerate(out)]
    assert all(new[:10]) and 0.4 < sum(new[10:]) / len(new[10:]) < 0.6
    assert sorted(out + levels(pool.pictures / 255)) == sorted([i % 256 for i in range(400)] + out[:10])


def test_what_comes_in_stays_as_it_is_and_gets_no_gradient():
    torch.manual_seed(0)
    pool = Pool(1)
    pool(flat(9))
    images = torch.rand(8, 3, 4, 4, requires_grad=True)
    before = images.detach().clone()
    given = pool(images)
    assert torch.equal(images.detach(), before) and not given.requires_grad
    assert any(not torch.equal(a, b) for a, b in zip(given, before))


def test_without_capacity_it_keeps_nothing():
    pool, images = Pool(0), torch.rand(2, 3, 4, 4)
    assert torch.equal(pool(images), images) and not pool.pictures.numel()


def test_how_different_its_pictures_are():
    """Those that it holds, not the places that are still empty."""
    pool = Pool(5)
    assert float(pool.diversity()) == 0 == float(Pool(0).diversity())
    pool(flat(100))
    assert float(pool.diversity()) == 0
    pool(flat(110, 120))
    assert float(pool.diversity()) == pytest.approx(10 / 255)


def test_another_size_begins_anew():
    pool = Pool(4)
    pool(flat(1, 2, 3, 4))
    assert levels(pool(flat(5, size=(6, 4)))) == [5]
    assert int(pool.count) == 1 and pool.pictures.shape == (4, 3, 6, 4)


@pytest.mark.parametrize("before", [0, 3, 9])
def test_its_state_is_saved_and_loaded(before):
    torch.manual_seed(1)
    pool, images = Pool(4), torch.rand(before + 6, 3, 8, 8)
    for image in images[:before]:
        pool(image[None])
    other = Pool(4)
    other.load_state_dict(pool.state_dict())
    results = []
    for each in (pool, other):
        torch.manual_seed(2)
        results.append(torch.cat([each(image[None]) for image in images[before:]]))
    assert torch.equal(*results)
    assert all(torch.equal(a, b) for a, b in zip(pool.state_dict().values(), other.state_dict().values()))
    assert not list(pool.parameters()) and not any(b.is_floating_point() for b in pool.buffers())
    with pytest.raises(RuntimeError, match="pictures"):
        Pool(3).load_state_dict(Pool(4).state_dict() | {"pictures": torch.zeros(4, 3, 8, 8, dtype=torch.uint8)})
