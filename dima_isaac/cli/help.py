"""``--help`` of every command, from the dataclasses, their comments and the YAML files."""

import inspect
import re
import shlex
import textwrap
from dataclasses import MISSING, fields
from enum import Enum

from dima_isaac.cli.args import OPTIONS
from dima_isaac.config import RunConfig
from dima_isaac.run.catalog import GROUPS, Catalog
from dima_isaac.run.folder import program

_WORDS = {"train": "task=NAME [key=value ...]", "plot": "RUN [RUN ...] [key=value ...]"}
_NOTES = {
    "train": """
flags: -m (several runs: seed=1,2,3), --config-dir DIR (your own YAML), --cfg (print every value and stop)
layers: world_model.denoiser.reveal=joint, agent.gamma=0.96, train.eval.every=10000, task.KEY, engine.KEY""",
    **{"plot": "", "export": ""},
    "bench": "\nalso every key of train",
}
_OTHERWISE = "\nwithout a checkpoint also every key of train; with one also task.KEY and engine.KEY"


def usage(command: str, catalog: Catalog) -> str:
    """What can be typed behind ``command``."""
    cls = OPTIONS[command] or RunConfig
    lines = [
        f"usage: {shlex.join(program(command))} {_WORDS.get(command, 'key=value ...')}",
        "",
        str(inspect.getdoc(cls)),
    ]
    for group in GROUPS if command == "train" else ():
        names = f"  {group + '=':<8}{', '.join(catalog.names(group))}"
        lines += textwrap.wrap(names, 112, subsequent_indent=" " * 10)
    return "\n".join([*lines, "", *_keys(cls), _NOTES.get(command, _OTHERWISE)]).rstrip()


def _keys(cls: type) -> list[str]:
    """``key=default  comment`` for every field, as the user would type it; '...' for a group of keys."""
    comments: dict[str, str] = {}
    for base in cls.__mro__[:-1]:
        comments |= re.findall(r"^    (\w+): [^#\n]+?  # (.*)$", inspect.getsource(base), re.MULTILINE)
    lines = []
    for item in fields(cls):
        value = item.default.name if isinstance(item.default, Enum) else item.default
        shown = "..." if value is MISSING else str(value) or "''"
        lines.append(f"  {item.name + '=' + shown:<28}{comments.get(item.name, '')}".rstrip())
    return [line for line in lines if not line.startswith("  runs=")]  # those are words, without a key
