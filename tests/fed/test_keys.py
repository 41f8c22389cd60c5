import itertools

import jax
import numpy as np

from fed.keys import client_number, round_key, step_key


def test_every_seed_round_client_and_step_has_a_key_of_its_own():
    seen = set()
    for seed, number, client, step in itertools.product((0, 1), (0, 1, 7), ("a", "b", "client3"), (0, 1, 25)):
        key = step_key(round_key(seed, number), np.uint32(client_number(client)), np.int32(step))
        seen.add(np.asarray(jax.random.key_data(key)).tobytes())
    assert len(seen) == 2 * 3 * 3 * 3


def test_a_clients_number_is_the_same_everywhere():
    # CRC-32, so that other processes and versions agree.
    assert client_number("client_0001") == 0xAA003786
