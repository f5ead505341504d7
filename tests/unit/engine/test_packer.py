"""A packer that is kept: what one value leaves behind is in no other's bytes."""

import threading

import msgpack
import pytest

from stepwell_engine.packer import Packer


def test_it_packs_as_msgpack_does():
    value = {"a": [1, "x", None], "b": b"raw"}
    packer = Packer()
    assert [packer.pack(value), packer.pack(value)] == [msgpack.packb(value)] * 2
    assert Packer(use_bin_type=False).pack(b"raw") == b"\xa3raw"


def test_a_value_that_fails_leaves_nothing_behind():
    packer = Packer()
    for bad in ({"a": object()}, ["x" * 5_000, "\ud800"]):
        with pytest.raises((TypeError, UnicodeEncodeError)):
            packer.pack(bad)
        assert packer.pack(1) == b"\x01"


def test_another_thread_has_one_of_its_own_with_the_same_options():
    packer, packed = Packer(use_bin_type=False), list[bytes]()
    thread = threading.Thread(target=lambda: packed.append(packer.pack(b"raw")))
    thread.start()
    thread.join()
    assert packed == [b"\xa3raw"]
