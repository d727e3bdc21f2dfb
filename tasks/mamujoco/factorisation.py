"""Which agent drives which actuators and sees which columns of the state: a robot's joint graph, shared out.

Graphs, named partitions and the rule "what is seen k joints away" come from gymnasium-robotics by import. Its
``build_obs`` reads a simulation and returns one agent's numbers; run once on a simulation whose every number
is the *column of the global state* that holds it, it returns the columns that the agent sees. From then on an
observation is a gather.

Columns are encoded as multiples of 2^-20, which the clipping in upstream's graphs leaves unchanged.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dima_isaac.errors import UsageError, unknown

_UNIT = 2.0**-20


@dataclass(frozen=True)
class Factorisation:
    """A robot shared out among N agents, whose lists may differ in length."""

    actuators: list[list[int]]  # the actuators that each agent drives
    columns: list[list[int]]  # the state columns that each agent sees; the state's width stands for a constant zero


@dataclass(frozen=True)
class Graph:
    """Upstream's joint graph with one partition of its nodes."""

    parts: list[list[Any]]
    edges: list[Any]
    roots: list[Any]


def factorise(
    graph: Graph, columns: Any, width: int, depth: int | None, local: Sequence[Sequence[str]], everywhere: Sequence[str]
) -> Factorisation:
    """Actuators and visible state columns of every agent.

    Args:
        columns: an object with MjData's fields, holding encoded columns (see ``encode``).
        width: D; its own number is the column of zeros.
        depth: joints that an agent sees beyond its own, None for the whole state.
        local: categories seen at depth 0, 1, ...; the last entry serves all deeper ones.
        everywhere: categories seen of the root, whatever the depth.

    Raises:
        UsageError: a category that the robot's state does not have, or agents that would see nothing.
    """
    obsk = upstream("obsk")
    if depth is not None:
        _check_categories(graph, columns, {*everywhere, *(name for level in local for name in level)})
    seen: list[list[int]] = []
    for part in graph.parts:
        if depth is None:
            seen.append(list(range(width)))
            continue
        near = obsk.get_joints_at_kdist(tuple(part), graph.edges, depth)
        # upstream sorts a set by label; where labels repeat (Pusher) its order changes from process to process
        near = {k: sorted(nodes, key=lambda node: (node.label, node.act_ids)) for k, nodes in near.items()}
        categories = [list(local[min(k, len(local) - 1)]) for k in range(depth + 1)]
        codes = obsk.build_obs(columns, near, categories, graph.roots, tuple(everywhere))
        seen.append([int(code) for code in np.rint(np.asarray(codes) / _UNIT)])
    if not any(seen):
        raise UsageError("local_categories and global_categories leave the agents nothing to see.")
    return Factorisation(actuators=[[node.act_ids for node in part] for part in graph.parts], columns=seen)


def _check_categories(graph: Graph, columns: Any, wanted: set[str]) -> None:
    """Raise ``UsageError`` for a category that upstream would silently leave out."""
    nodes = [*(node for part in graph.parts for node in part), *graph.roots]
    known = {name for name in vars(columns) if name != "body"} | {name for node in nodes for name in node.extra_obs}
    for name in sorted(wanted - known):
        raise unknown("observation category", name, known)


def encode(columns: Any) -> np.ndarray:
    """Columns as small numbers, which upstream's clipping leaves unchanged."""
    return np.asarray(columns, dtype=np.float64) * _UNIT


def named_graph(scenario: str, conf: str, known: Sequence[str]) -> Graph:
    """The graph of ``scenario`` under a partition that upstream names, or one counted off in actuator order.

    "AxB" that upstream does not name is A agents of B consecutive actuators; "a|b|..." is agents of a, b, ... of
    them. ``known`` are upstream's own names, which come first.

    Raises:
        UsageError: neither, or the numbers do not add up to the robot's actuators.
    """
    if conf in known:
        return upstream_graph(scenario, conf)
    graph = upstream_graph(scenario, known[0])
    nodes = _in_order(graph)
    if match := re.fullmatch(r"(\d+)x(\d+)", conf):
        sizes = [int(match[2])] * int(match[1])
    elif re.fullmatch(r"\d+(\|\d+)+", conf):
        sizes = [int(size) for size in conf.split("|")]
    else:
        sizes = []
    if not sizes or 0 in sizes or sum(sizes) != len(nodes):
        raise UsageError(
            f"{scenario} cannot be shared out as agent_conf='{conf}'. Known: {', '.join(known)}; or AxB with "
            f"A times B = {len(nodes)} actuators, or sizes such as {len(nodes) - 1}|1; or list joints in partition."
        )
    ends = np.cumsum(sizes)
    return Graph([nodes[end - size : end] for size, end in zip(sizes, ends, strict=True)], graph.edges, graph.roots)


def custom_graph(scenario: str, partition: Sequence[Sequence[str]], known: Sequence[str]) -> Graph:
    """The graph of ``scenario`` with agents listed joint by joint (names, or actuator numbers where names repeat).

    Raises:
        UsageError: a joint that does not exist, or one not given to exactly one agent.
    """
    graph = upstream_graph(scenario, known[0])
    nodes = _in_order(graph)
    names = {node.label: node for node in nodes} | {str(node.act_ids): node for node in nodes}
    wanted = [name for part in partition for name in part]
    missing = [name for name in wanted if name not in names]
    if missing:
        known_names = ", ".join(node.label for node in nodes)
        raise UsageError(f"{scenario} has no joint {', '.join(missing)}. Known: {known_names}.")
    parts = [[names[name] for name in part] for part in partition]
    given = sorted(node.act_ids for part in parts for node in part)
    if given != [node.act_ids for node in nodes] or not all(parts):
        raise UsageError(f"partition must give each joint of {scenario} to one agent, each agent a joint: {wanted}.")
    return Graph(parts, graph.edges, graph.roots)


def _in_order(graph: Graph) -> list[Any]:
    return sorted((node for part in graph.parts for node in part), key=lambda node: node.act_ids)


def upstream_graph(scenario: str, conf: str) -> Graph:
    """The graph of ``scenario`` under a partition of upstream's."""
    parts, edges, roots = upstream("obsk").get_parts_and_edges(scenario, conf)
    return Graph([list(part) for part in parts], list(edges), list(roots))


@cache
def upstream(module: str) -> ModuleType:
    """A file of gymnasium-robotics' Multi-Agent MuJoCo by path: importing the package registers all of its robots.

    Raises:
        UsageError: gymnasium-robotics is not installed, or is too old to have that file.
    """
    cure = "pip install 'gymnasium-robotics>=1.3'"
    package = find_spec("gymnasium_robotics")
    if package is None or package.origin is None:
        raise UsageError(f"the joint graphs come from gymnasium-robotics, which is not installed; {cure}.")
    path = Path(package.origin).parent / "envs" / "multiagent_mujoco" / f"{module}.py"
    spec = spec_from_file_location(f"gymnasium_robotics_{module}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"the installed gymnasium-robotics has no {path.name}; {cure}.")
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
