"""jax's primitives by what they cost."""


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


ELEMENTWISE = _names(
    """
    abs add add_any and ceil clamp clz complex conj div eq floor ge gt imag integer_pow is_finite le lt max
    min mul ne neg nextafter not or population_count real rem round select_n shift_left shift_right_arithmetic
    shift_right_logical sign square sub xor
    """
)
TRANSCENDENTAL = _names(
    """
    acos acosh asin asinh atan atan2 atanh cbrt cos cosh digamma erf erf_inv erfc exp exp2 expm1 lgamma log
    log1p logistic pow rsqrt sin sinh sqrt tan tanh
    """
)
REDUCTIONS = _names(
    """
    argmax argmin cumlogsumexp cummax cummin cumprod cumsum reduce_and reduce_max reduce_min reduce_or
    reduce_prod reduce_sum reduce_xor scatter-add scatter_add scatter_max scatter_min scatter_mul
    """
)
# Each result costs one operation for every element of its window.
WINDOWS = _names("reduce_window_max reduce_window_min reduce_window_sum")
# Programs within a program that run exactly once. Other primitives with a program of their own (kernels,
# reductions by a function) have a price of their own or are reported as unpriced.
CALLS = _names(
    """
    call checkpoint closed_call core_call custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr jit pjit remat
    remat2
    """
)
# Moving data, drawing random bits and communicating between devices are free.
FREE = _names(
    """
    all_gather all_gather_invariant all_to_all axis_index bitcast_convert_type broadcast_in_dim concatenate
    convert_element_type copy copy_p create_token debug_callback device_put dynamic_slice dynamic_update_slice
    expand_dims gather iota optimization_barrier pad ppermute psum psum_invariant pvary random_bits
    random_fold_in random_seed random_split random_unwrap random_wrap reduce_precision reshape reshard rev
    scatter sharding_constraint slice sort split squeeze stack stop_gradient threefry2x32 transpose unstack
    """
)
