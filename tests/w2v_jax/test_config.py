import dataclasses
import json
import math

import pytest

from tests.configs import SMALL
from w2v_jax.config import (
    BASE,
    BEST_RQ_PRESETS,
    BEST_RQ_SMALL,
    LARGE,
    LARGE_LV60,
    LOG_MEL_PRESETS,
    PRESETS,
    TINY,
    WAV2VEC2_PRESETS,
    ModelConfig,
    nearest_preset,
    preset_of,
)


def test_num_frames_of_the_papers_clip():
    # 5.5 s: 274 frames (the paper, Table 1).
    assert BASE.num_frames(88_000) == 274


def test_receptive_field_is_the_shortest_clip_with_a_frame():
    for config in (BASE, SMALL, TINY):
        assert config.num_frames(config.receptive_field_samples) == 1
        assert config.num_frames(config.receptive_field_samples - 1) == 0
    assert BASE.receptive_field_samples == 400


def test_presets_are_the_published_variants():
    assert set(WAV2VEC2_PRESETS) == {"tiny", "base", "large", "large-lv60"}
    assert set(BEST_RQ_PRESETS) == {"best-rq-tiny", "best-rq-small", "best-rq-base"}
    assert set(LOG_MEL_PRESETS) == {"log-mel-tiny", "log-mel-small"}
    assert PRESETS == WAV2VEC2_PRESETS | LOG_MEL_PRESETS | BEST_RQ_PRESETS
    assert (LARGE.feature_norm, LARGE.pre_norm) == ("group", False)
    assert (LARGE_LV60.feature_norm, LARGE_LV60.pre_norm, LARGE_LV60.conv_bias) == ("layer", True, True)
    assert (LARGE_LV60.normalise_waveform, LARGE.normalise_waveform) == (True, False)


def test_configurations_survive_json():
    for config in PRESETS.values():
        assert ModelConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    "changes", [{"num_heads": 5}, {"positional_groups": 3}, {"codebook_groups": 3}, {"conv_strides": (5, 2)}]
)
def test_impossible_shapes_are_refused_by_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        SMALL.replace(**changes)


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ("codebook_groups num_heads positional_groups num_layers mask_span num_negatives", (0, -1, 10**30)),
        ("conv_channels conv_kernels conv_strides", ((10, 0, 2),)),
        ("dropout attention_dropout layer_drop mask_probability", (1.5, -0.1, math.nan)),
        ("contrastive_temperature gumbel_temperature_end", (0.0, math.nan, math.inf)),
        ("diversity_weight feature_penalty_weight encoder_gradient_scale", (-0.1, math.nan, math.inf)),
        ("mask_min_spans diversity_warmup_updates", (-1,)),
    ],
)
def test_numbers_outside_their_range_are_refused_by_name(names, values):
    for name in names.split():
        for value in values:
            with pytest.raises(ValueError, match=f"{name} must be "):
                SMALL.replace(**{name: value})


def test_the_ends_of_the_ranges_are_inside():
    SMALL.replace(layer_drop=1.0, mask_probability=0.0, mask_min_spans=0, diversity_weight=0.0, mask_span=1)


def test_the_nearest_preset_has_the_same_front_end():
    for name, preset in PRESETS.items():
        assert nearest_preset(preset) == name
    assert nearest_preset(BEST_RQ_SMALL.replace(hidden_dim=300, num_heads=5)) == "best-rq-small"
    assert [nearest_preset(config) for config in PRESETS.values()] == list(PRESETS)
    alike = TINY.replace(hidden_dim=320, num_layers=6, num_heads=5, positional_groups=5, pre_norm=True)
    assert nearest_preset(alike) in WAV2VEC2_PRESETS


def test_an_objective_and_a_size_name_a_preset():
    assert [preset_of(*named) for named in ((None, None), ("best-rq", None), ("best-rq", "small"))] == [
        "tiny",
        "best-rq-tiny",
        "best-rq-small",
    ]
    assert preset_of("best-rq", "best-rq-base") == preset_of(None, "best-rq-base") == "best-rq-base"
    for objective, model in (("wav2vec2", "best-rq-tiny"), ("best-rq", "large"), (None, "huge")):
        with pytest.raises(ValueError, match=f"there is no model .*{model}"):
            preset_of(objective, model)
