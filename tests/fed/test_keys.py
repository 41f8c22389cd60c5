import itertools

import jax
import numpy as np

from fed.keys import Stream, client_number, evaluation_key, initial_key, round_key, step_key, stream_generator


def test_every_seed_round_client_and_step_has_a_key_of_its_own():
    seen = set()
    for seed, number, client, step in itertools.product((0, 1), (0, 1, 7), ("a", "b", "client3"), (0, 1, 25)):
        key = step_key(round_key(seed, number), np.uint32(client_number(client)), np.int32(step))
        seen.add(np.asarray(jax.random.key_data(key)).tobytes())
    assert len(seen) == 2 * 3 * 3 * 3


def test_a_clients_number_is_the_same_everywhere():
    # CRC-32, so that other processes and versions agree.
    assert client_number("client_0001") == 0xAA003786


def test_purposes_never_share_a_generator():
    # A seed sequence of (1,) and (1, 0) is the same: purposes are told apart by a leading number.
    drawn = {stream_generator(stream, *rest).random() for stream in Stream for rest in ((0,), (0, 1), (1,))}
    assert len(drawn) == 3 * len(Stream)


def test_parameters_and_evaluations_share_no_key_with_a_round():
    keys = [initial_key(0), evaluation_key(0), *(round_key(0, r) for r in range(5))]
    assert len({np.asarray(jax.random.key_data(key)).tobytes() for key in keys}) == 7
