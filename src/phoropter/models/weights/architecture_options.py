"""Which options may reach an architecture's constructor (no torch): an allow-list of names, with the type of their values.

Options come from a study file, from `bundle.json`, or from the JSON beside weights, and none of these is trusted. timm's
create_model takes more than its networks' constructors do, among it files to load (`checkpoint_path`), so only names listed
here pass. They are the plain arguments of the constructors in timm 1.0.31; timm refuses one that its network does not take.

Left out: arguments that load or fetch (`checkpoint_path`, `pretrained…`, `cache_dir`), that change what is returned
(`features_only`, `out_indices`), that a file cannot state (layers, configurations), and those of torch (`device`, `dtype`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from phoropter.core.errors import did_you_mean

# They follow from a spec's size, weights and pooling.
DERIVED_OPTIONS = ("num_classes", "in_chans", "img_size")

_NAMES = {
    "number": """
        attn_drop_rate attn_groups attn_head_dim_reduction attn_mlp_ratio attn_pool_mlp_ratio attn_pool_num_heads attn_ratio
        base_dim base_dims base_width block_reduce_first bn_eps bn_momentum bn_size bottle_ratio bottleneck_width_ratio
        cardinality ch_div channel_multiplier channels cls_attn_layers cls_ratio conv_ratio d2_scales deepen_factor depth
        depth_mult depth_token_only depths dim dim_mul dims down_kernel_size down_pad down_patch_size down_stride
        downsample_expand_ratios downsample_kernel_size downsample_padding downsample_ratio drop_block_rate drop_path_rate
        drop_rate dropout embed_dim embed_dims eta expand_groups expand_ratio expansion_ratio extra_norm_period feature_dim
        ffn_ratio first_stride focal_levels focal_windows global_att_blocks global_attn_indexes global_block_counts
        global_pos_size group groups growth_rate growth_rates head_dim head_hidden_size head_init_scale head_mul head_widths
        heads hidden_sizes img_scale init_channels init_values initial_chs inner_dim kernel_size kernel_sizes kernels key_dim
        layer_scale layer_scale_init_value layer_scale_init_values layers layerscale_value levels local_conv_size
        local_up_to_layer locality_strength ls_init_value mask_unit_size mbconv_expand_ratio merge_size mix_block_ratio
        mlp_ratio mlp_ratio_token_only mlp_ratios n_div neck_chans norm_eps num_blocks num_features num_heads num_heads_inner
        num_heads_outer num_init_features num_kv_heads num_levels num_reg_tokens num_rnn_layers num_vit output_stride
        parallel_depth partial_dim patch_drop_rate patch_kernel patch_padding patch_size patch_sizes patch_stride pool_size
        pos_drop_rate pos_embed_grid_size proj_drop_rate q_pool q_stride qk_dim ref_feat_shape reg_tokens rel_pos_dim
        repmixer_kernel_size res_scale_init_values rope_grid_offset rope_temperature rope_theta se_ratio serial_depths
        sr_ratios ssd_expand stages state_dim stem_chs stem_expand_ratio stem_hidden_dim stem_kernel_size stem_size
        stem_stride stem_width strides swiglu_align_to transformer_depths transition_compression_ratio widen_factor width
        width_factor width_mult widths window_ratio window_size window_sizes
    """,
    "flag": """
        aa_stem_only abs_win_pos_embed always_partition attn_mlp attn_only_layer_scale avg_down bidirectional
        channel_attention channel_attn_v2 class_token conv_bias conv_init conv_mlp cpe_act crop_scale distilled downsamples
        dynamic_img_pad dynamic_img_size extra_norm_stage fc_norm ffn final_norm fix_init fix_stem fused_conv fused_downsample
        head_bias head_norm head_norm_first input_3x3 legacy lkc_use_act mask_unit_attn memory_efficient mlp_bias multi_conv
        nlhb no_embed_class normalize_modulator outlook_attention patch_norm pool_include_prefix pre_norm preact proj_bias
        qk_norm qkv_bias qkv_fused replace_stem_pool rope_mixed_mode rope_rotate_half scale_attn_inner scale_attn_norm
        scale_mlp scale_mlp_norm se_downsamples se_from_exp sep_pos_embed sequential_attn shared_rel_pos shortcut_root
        small_kernels stem_bias stem_mid_norm stem_norm strict_img_size swiglu_mlp tokens_norm transformer_drop_path
        use_abs_pos use_abs_pos_emb use_expand_proj use_fc_norm use_grn use_lab use_layer_scale use_mlp_head use_overlap_down
        use_pos_emb use_pos_embed use_post_norm use_post_norm_in_modulation use_post_transformer_norm use_pre_transformer_norm
        use_rel_pos use_rel_pos_bias use_rope use_rot_pos_emb use_shared_rel_pos_bias vit_stem zero_init_last
    """,
    "word": """
        aa_layer act_layer attn_act_layer attn_stage attn_type down_op downsample dw_act_layer encoder_pool fc_act_layer
        global_pool head_fn local_mbconv_norm norm_layer norm_layer_cl pad_type pconv_fw_type pool_type pos_embed rel_pos_type
        rope_grid_indexing rope_type se_layer spatial_conv stem stem_type weight_init
    """,
}
_KIND_OF = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_WORD = re.compile(r"[A-Za-z0-9_-]{0,40}")  # neither a path nor an address


def check_options(options: Mapping[str, Any], is_custom: bool) -> dict[str, Any]:
    """The options, where all of them may reach a constructor. Raises ValueError that names the option.

    is_custom: of a custom Backbone, whose build function decides on the names; the values are plain nevertheless
    """
    for name, value in options.items():
        if not is_custom:
            _check_name(name)
        expected, matches = _VALUE_RULES["plain" if is_custom else _KIND_OF[name]]
        if value is not None and not matches(value):
            raise ValueError(f"option '{name}' is {repr(value)[:60]}, expected {expected}")
    return dict(options)


def _check_name(name: str) -> None:
    if name in DERIVED_OPTIONS:
        raise ValueError(f"option '{name}' is set by phoropter; use size, weights or pooling")
    if name not in _KIND_OF:
        raise ValueError(
            f"takes no such option: '{name}'; options are plain arguments of the network's constructor, as drop_path_rate is"
            f"{did_you_mean(name, _KIND_OF)}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _one_or_list(matches: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: all(map(matches, value)) if isinstance(value, (list, tuple)) else matches(value)


_WORD_RULE = "of letters, digits, _ and -"
_VALUE_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "number": ("a number or a list of numbers", _one_or_list(_is_number)),
    "flag": ("true or false", _one_or_list(_is_flag)),
    "word": (f"a word {_WORD_RULE}", _is_word),
    "plain": (
        f"a number, true or false, a list of these, or a word {_WORD_RULE}",
        lambda value: _is_word(value) or _one_or_list(lambda v: _is_number(v) or _is_flag(v))(value),
    ),
}
