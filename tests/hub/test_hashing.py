"""Packed Hamming distance against Python's own integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.hashing import HASH_BYTES, distance_matrix, distances, hamming, is_blank, pack, popcount_by_table

hashes = st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)


@given(st.lists(hashes, max_size=12), hashes)
def test_distances_count_the_bits_that_differ(many, query):
    # the module's law
    found = distances(pack(many), pack([query])[0])
    assert found.tolist() == [hamming(value, query) for value in many]


@given(st.lists(hashes, max_size=6), st.lists(hashes, max_size=6))
def test_the_matrix_is_the_rows(a, b):
    matrix = distance_matrix(pack(a), pack(b))
    assert matrix.shape == (len(a), len(b))
    assert matrix.tolist() == [[hamming(x, y) for y in b] for x in a]


@given(st.lists(hashes, max_size=12))
def test_the_table_counts_as_numpy_does(many):
    assert (
        popcount_by_table(pack(many)).tolist()
        == np.array([[int(word).bit_count() for word in row] for row in pack(many)], np.uint8).reshape(-1, 4).tolist()
    )


@pytest.mark.parametrize(
    ("a", "b", "bits"),
    [
        (bytes(32), bytes(32), 0),  # the same
        (bytes(32), b"\xff" * 32, 256),  # nothing in common
        (bytes(32), bytes(31) + b"\x01", 1),  # the last bit counts as the first does
    ],
)
def test_hamming(a, b, bits):
    assert hamming(a, b) == bits


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match=f"got {length}"):
        pack([bytes(32), bytes(length)])


def test_only_zeros_are_blank():
    assert is_blank(bytes(32))
    assert not is_blank(bytes(31) + b"\x01")
