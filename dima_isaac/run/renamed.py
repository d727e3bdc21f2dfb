"""What stored runs call by another name: configuration keys and state_dict keys of earlier versions.

Run folders and checkpoints are translated when they are read, so the rest of the program knows today's names only. Add
an entry here whenever a key of the configuration or of a module's state_dict is renamed or removed. Torch-free.
"""

from __future__ import annotations

import copy
from typing import Any

from dima_isaac.errors import CheckpointError

RENAMED: dict[str, str] = {
    "world_model.exact_echo": "world_model.copy_last_action",
    "world_model.doubt": "world_model.error_scale",
    "agent.actor.lr": "agent.lr",
    "agent.critic.lr": "agent.lr",
    **{f"agent.{key}": f"agent.ppo.{key}" for key in ("lam", "epochs", "minibatches", "clip", "entropy")},
    "agent.weigh_by_survival": "agent.ppo.weigh_by_survival",
}
"""Old dotted key (a leaf or a branch) -> today's. Two that have become one must have had the same value."""

DROPPED: dict[str, tuple[Any, ...]] = {
    # what nobody varied is a constant; where two values are named, the second is the published model's
    "world_model.linear_every": (50,),
    "world_model.linear_decay": (0.9995,),
    "world_model.linear_penalty": (2.5e-4,),
    "world_model.trust_decay": (0.9, 0.0),
    "world_model.doubt_rows": (4096,),
    "world_model.residual_floor": (0.03,),
    "world_model.change_clamp": (30.0,),
    "world_model.prior_count": (0.0, 1e-4),
    "world_model.denoiser.full_fraction": (0.5,),
    "world_model.denoiser.sigma_data": (0.5,),
    "world_model.denoiser.offset": (0.3,),
    "world_model.denoiser.sigma_min": (0.002,),
    "world_model.denoiser.sigma_max": (5.0,),
    "world_model.denoiser.rho": (7.0,),
    "world_model.denoiser.train_mean": (-0.4,),
    "world_model.denoiser.train_std": (1.2,),
    "world_model.denoiser.train_max": (20.0,),
    "world_model.denoiser.channels": (64,),
    "world_model.denoiser.fourier": (16, 256),
    "world_model.denoiser.cond": (),  # half the width; the published model's 256
    "world_model.denoiser.actions": ("light", "perceiver"),
    "world_model.denoiser.members": (1,),
    "world_model.denoiser.linear_skip": (False,),
    "world_model.denoiser.optim.decay_all": (False,),
    "world_model.reward.layers": (2, 6),
    "world_model.reward.heads": (4,),
    "world_model.reward.block": (15,),
    "world_model.reward.dropout": (0.0, 0.1),
    "world_model.reward.optim.decay_all": (False,),
    "agent.actor.kind": ("gaussian",),
    "agent.actor.clip_action": (),  # follows world_model.clip_actions, which had the same value in every preset
    "agent.actor.std_max": (0.5,),
    "agent.actor.std_init": (1.0,),
    "agent.critic.huber": (10.0,),
    "agent.grad_clip": (10.0,),
    "agent.kl_stop": (0.0,),
    "agent.advantage_eps": (1e-4,),
    "agent.explore.std": (1.0,),
    "agent.explore.correlation": (0.9,),
    "replay.age_weights": ([0.1, 0.1, 0.1, 0.7],),
    "train.learn.decoder_batch": (256, 16),
    "train.probe_horizon": (),
    "engine.pace": ("standard",),
    "engine.share": ("device",),  # engine.pipeline
    "engine.tolerance": (1e-8, 1e-6),
    "engine.contact_time": (0.0,),
    "engine.reference_step": (1.0 / 120.0,),
    "engine.damp_joints": (True,),
    "engine.max_speed": (1000.0,),
    "engine.persistent_share": (),
    "engine.velocity_iterations": (0,),
    "engine.contact_offset": (0.002,),
    "engine.rest_offset": (0.0,),
    "engine.bounce_threshold_velocity": (0.2,),
    "engine.max_depenetration_velocity": (1000.0,),
    "engine.tendon_limit_stiffness": (30.0,),
    "engine.tendon_damping": (0.1,),
    **dict.fromkeys(("engine.num_threads", "engine.spacing", "engine.start_patience", "engine.patience"), ()),
}
"""Removed dotted key -> the stored values that mean what the program does now; () where any value does."""

MERGED: dict[str, dict[Any, dict[str, Any]]] = {
    "world_model.decoder": {kind: {"world_model.decoder.kind": kind} for kind in ("exact", "vq")},
    "agent.ppo.published": {
        False: {
            "agent.actor.activation": "silu",
            "agent.actor.normalise": True,
            "agent.critic.activation": "silu",
            "agent.critic.sees_action": False,
            "agent.critic.value_decay": 0.999,
            "agent.critic.clip_value": False,
            "agent.gamma_twice": False,
        },
        True: {
            "agent.actor.activation": "relu",
            "agent.actor.normalise": False,
            "agent.critic.activation": "relu",
            "agent.critic.sees_action": True,
            "agent.critic.value_decay": 0.99999,
            "agent.critic.clip_value": True,
            "agent.gamma_twice": True,
        },
    },
}
"""Key of today -> each of its values with the values of the removed keys that it stands for."""

STATE: dict[str, dict[str, str | None]] = {
    "": {"learnt": "fitted_steps", "clocks": "schedule"},
    "schedule": {"round": "learning", "eval": "evaluation", "save": "checkpoint"},
    "agent": {"actor.moments": "actor.inputs.moments", "actor.norm": "actor.inputs.norm"},
    "world": {
        "space.relevance": "loss_weights.value",
        "space.value_weights": "loss_weights.value",
        "space.trust": "held_out",
        "space.linear.miss": "target.regression.residual_rms",
        "space.linear": "target.regression",
        "space": "target",
        "surprise.miss": "held_out.errors",
        "denoiser.actions.linear": "denoiser.backbone.action_encoder",
        "denoiser.actions.agent": "denoiser.backbone.action_encoder.agent_embedding",
        "denoiser.actions.time": "denoiser.backbone.action_encoder.time_embedding",
        "denoiser.actions.read": "denoiser.backbone.action_encoder.cross_attention",
        "denoiser.actions.digest": "denoiser.backbone.action_encoder.cross_mlp",
        "denoiser.actions.think": "denoiser.backbone.action_encoder.self_attention",
        "denoiser.actions.reflect": "denoiser.backbone.action_encoder.self_mlp",
        "denoiser.actions": "denoiser.backbone.action_encoder",
        "denoiser.net.noise": "denoiser.backbone.noise_embedding",
        "denoiser.net.enter": "denoiser.backbone.input",
        "denoiser.net.leave": "denoiser.backbone.output",
        "denoiser.net.unet.shrink": "denoiser.backbone.unet.downsample",
        "denoiser.net.unet.stretch": "denoiser.backbone.unet.upsample",
        "denoiser.net": "denoiser.backbone",
        "average.actions.linear": "ema_denoiser.backbone.action_encoder",
        "average.net.noise": "ema_denoiser.backbone.noise_embedding",
        "average.net.enter": "ema_denoiser.backbone.input",
        "average.net.leave": "ema_denoiser.backbone.output",
        "average.net": "ema_denoiser.backbone",
        "reward.net.action.agent": "reward.net.action.agent_embedding",
        "reward.net.action.attend": "reward.net.action.self_attention",
        "reward.net.action.digest": "reward.net.action.self_mlp",
        "reward.net.goes_on": "reward.net.continuation",
        "decoder.bottleneck": "decoder.quantiser",
    },
}
"""Part of a checkpoint -> {old key or prefix (up to a dot) -> today's, None where it is no longer needed}.

The part "" is the checkpoint itself; it comes first, so the others are called by their names of today.
"""

_MISSING = object()


def renamed_config(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of the stored ``config`` (nested) under today's keys.

    A key that cannot be expressed any more stays where it is; ``check_expressible`` refuses it.
    """
    config = copy.deepcopy(config)
    for old, new in RENAMED.items():
        value = _get(config, old)
        branch_to_leaf = old.startswith(new + ".")  # what else the branch held is constant now
        if value is not _MISSING and (branch_to_leaf or _get(config, new) in (_MISSING, value)):
            _pop(config, old)
            _put(config, new, value)
    for key, accepted in DROPPED.items():
        if not accepted or _get(config, key) in accepted:
            _pop(config, key)
    for new, meanings in MERGED.items():
        for value, parts in meanings.items():
            stored = {key: _get(config, key) for key in parts}
            present = {key: part for key, part in stored.items() if part is not _MISSING}
            if present and all(part == parts[key] for key, part in present.items()):
                _put(config, new, value)
                for key in present:
                    _pop(config, key)
                break
    return config


def check_expressible(config: dict[str, Any], where: object) -> None:
    """Refuse a ``renamed_config``, read from ``where``, that needs what this version cannot do.

    Raises:
        CheckpointError: it sets a removed key to a value that meant something else than what is done now.
    """
    gone = [*RENAMED, *DROPPED, *(key for meanings in MERGED.values() for key in next(iter(meanings.values())))]
    left = [f"{key}={value}" for key in gone if (value := _get(config, key)) is not _MISSING]
    if left:
        raise CheckpointError(
            f"{where} was made with {', '.join(left)}, which this version cannot do any more; use the version that"
            " made it (versions.json in the run folder names its commit)."
        )


def renamed_state(state: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint with its state_dicts under today's keys."""
    state = _renamed(state, STATE.get("", {}))
    return {part: _renamed(value, STATE[part]) if part in STATE else value for part, value in state.items()}


def advice(key: str) -> str:
    """For a configuration key that existed once, one sentence about what became of it; '' for any other key."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(old + "."):
            return f"{key} is now called {new + key[len(old) :]}."
    for new, meanings in MERGED.items():
        if any(key in parts for parts in meanings.values()):
            return f"{key} is now part of {new}."
    if key in DROPPED:
        accepted = DROPPED[key]
        return f"{key} no longer exists" + (f"; the program does what {key}={accepted[0]} did." if accepted else ".")
    return ""


def _renamed(state: dict[str, Any], prefixes: dict[str, str | None]) -> dict[str, Any]:
    out = {}
    for name, value in state.items():
        old = next((old for old in prefixes if name == old or name.startswith(old + ".")), "")
        new = prefixes[old] if old else ""
        if new is not None:
            out[new + name[len(old) :]] = value
    return out


def _branch(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The dictionary that holds dotted ``key`` ({} if there is none) and the key's last part."""
    *branches, leaf = key.split(".")
    for branch in branches:
        below = config.get(branch)
        config = below if isinstance(below, dict) else {}
    return config, leaf


def _get(config: dict[str, Any], key: str) -> Any:
    branch, leaf = _branch(config, key)
    return branch.get(leaf, _MISSING)


def _pop(config: dict[str, Any], key: str) -> None:
    branch, leaf = _branch(config, key)
    branch.pop(leaf, None)


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *branches, leaf = key.split(".")
    for branch in branches:
        config = config.setdefault(branch, {})
    config[leaf] = value
