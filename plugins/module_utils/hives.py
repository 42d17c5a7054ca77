# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: how hosts are reached, as a flake says it for colmena and deploy-rs. Nothing is built for it.

Facts hold for colmena 0.4 and 0.5 (src/nix/hive/eval.nix and options.nix) and deploy-rs d5eff7f (README, interface.json).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import nix
from .errors import CommandTimeout, ConnectionLost, FlotillaError
from .evaluation import CONFIGURATIONS, HIVE, FlakeSource, evaluate_values
from .runner import Runner

#: What sources are called in options: each is read from outputs of its own.
SOURCES = ("colmena", "deploy-rs")

#: Each node by itself, so that one whose options throw leaves the others.
_EACH = """
  each = names: f: builtins.listToAttrs (map (name: {
    inherit name;
    value = let r = builtins.tryEval (let v = f name; in builtins.deepSeq v v); in if r.success then r.value else null;
  }) names);
"""
_DEPLOYMENT = """
  wanted = d: {
    host = d.targetHost or null; user = d.targetUser or null; port = d.targetPort or null; tags = d.tags or [ ];
  };
"""
#: The output colmenaHive, which colmena.lib.makeHive made: whole configurations.
_HIVE = f"""h: let {_EACH} {_DEPLOYMENT}
in each (builtins.attrNames h.nodes) (name: wanted h.nodes.${{name}}.config.deployment)"""
#: The output colmena: modules. Those that say `deployment` without asking the module system for anything can be read alone.
_RAW = f"""h: let {_EACH} {_DEPLOYMENT}
  hive = if builtins.isFunction h || h ? __functor then h {{ }} else h;
  meta = hive.meta or hive.network or {{ }};
  names = builtins.filter (n: ! builtins.elem n [ "meta" "network" "defaults" ]) (builtins.attrNames hive);
  unknown = what: throw "${{what}} is not known without the module system";
  arguments = name: {{
    inherit name;
    lib = meta.nixpkgs.lib or (unknown "lib");
    pkgs = meta.nixpkgs or (unknown "pkgs");
    nodes = unknown "nodes"; config = unknown "config"; options = unknown "options";
  }} // (meta.specialArgs or {{ }}) // (meta.nodeSpecialArgs.${{name}} or {{ }});
  call = name: f: let all = arguments name; formals = builtins.functionArgs f; in
    f (if formals == {{ }} then all else builtins.mapAttrs (n: _: all.${{n}} or (unknown n))
      (builtins.removeAttrs formals (builtins.filter (n: formals.${{n}} && ! all ? ${{n}}) (builtins.attrNames formals))));
  modules = name: m:
    if builtins.isList m then builtins.concatMap (modules name) m
    else if builtins.isPath m || builtins.isString m then modules name (import m)
    else if builtins.isFunction m || m ? __functor then modules name (call name m)
    else builtins.concatMap (modules name) (m.imports or [ ]) ++ [ (m.config.deployment or m.deployment or {{ }}) ];
  nothing = {{ priority = 9999; value = null; }};
  plain = value:
    if (value._type or "") == "override" then {{ inherit (value) priority; value = (plain value.content).value; }}
    else if (value._type or "") == "if" then (if value.condition then plain value.content else nothing)
    else if value ? _type then unknown "what ${{value._type}} gives"
    else {{ priority = 100; inherit value; }};
  one = key: found: builtins.foldl' (best: d: let p = plain (d.${{key}} or null); in
    if d ? ${{key}} && p.priority <= best.priority then p else best) nothing found;
  deployment = name: let
    read = modules name (hive.defaults or {{ }}) ++ modules name hive.${{name}};
    found = map (d: (plain d).value or {{ }}) (builtins.filter (d: (plain d).value != null) read);
    given = builtins.any (d: d ? targetHost) found;
  in {{
    targetHost = if given then (one "targetHost" found).value else name;
    targetUser = let u = one "targetUser" found; in if u.priority == 9999 then "root" else u.value;
    targetPort = (one "targetPort" found).value;
    tags = builtins.concatMap (d: let v = (plain (d.tags or [ ])).value; in if v == null then [ ] else v) found;
  }};
in each names (name: wanted (deployment name))"""
#: Settings of a profile come before its node's, and these before those of all.
_NODES = f"""d: let {_EACH}
in each (builtins.attrNames (d.nodes or {{ }})) (name: let
  node = d.nodes.${{name}}; profile = node.profiles.system or {{ }};
in {{
  host = node.hostname or null;
  user = profile.sshUser or node.sshUser or d.sshUser or null;
  options = (profile.sshOpts or [ ]) ++ (node.sshOpts or [ ]) ++ (d.sshOpts or [ ]);
  system = node ? profiles.system;
  made = profile.path.name or null;
}})"""
_NAME_OF_SYSTEM = '{ it = c.config.system.build.toplevel.name or ""; }'


@dataclass(frozen=True, slots=True)
class Address:
    """How one source says that a host is reached. source: its name and where in the flake. variables: for Ansible."""

    source: str
    variables: Mapping[str, Any]
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Found:
    """What a flake says. addresses: by attribute, as evaluation.in_output takes it. problems: sentences.

    unbuilt: of those, hosts of which no system can be evaluated, with why.
    """

    addresses: dict[str, list[Address]] = field(default_factory=dict)
    unbuilt: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, attribute: str, address: Address) -> None:
        """Add what one more source says of a host."""
        self.addresses.setdefault(attribute, []).append(address)


def look(
    runner: Runner,
    source: FlakeSource,
    outputs: Iterable[str],
    configurations: Sequence[str],
    sources: Iterable[str] = SOURCES,
    *,
    timeout: float = nix.EVALUATION,
) -> Found:
    """Ask the flake's hives and nodes. configurations: the names in its nixosConfigurations."""
    found, there, wanted = Found(), set(outputs), set(sources)
    asking = _Asking(runner, source, configurations, found, timeout)
    if "colmena" in wanted and there & {"colmenaHive", "colmena"}:
        asking.colmena(evaluated="colmenaHive" in there)
    if "deploy-rs" in wanted and "deploy" in there:
        asking.deploy()
    return found


@dataclass(frozen=True, slots=True)
class _Asking:
    runner: Runner
    source: FlakeSource
    configurations: Sequence[str]
    found: Found
    timeout: float

    def _values(self, output: str, apply: str, hint: str) -> dict[str, Any]:
        """Node → what it says, None where that throws; problems are noted."""
        installable, lock = f"{self.source.ref}#{output}", self.source.reference_lock
        failure = f"the hosts of its output {output} cannot be read"
        try:
            answer = nix.eval_json(
                self.runner,
                self.source.group,
                installable,
                apply=apply,
                reference_lock=lock,
                timeout=self.timeout,
                failure=failure,
            )
        except (CommandTimeout, ConnectionLost):
            raise
        except FlotillaError as error:
            self.found.problems.append(f"{error.subject}: {error.what}. {hint}")
            return {}
        values = answer if isinstance(answer, dict) else {}
        if silent := sorted(name for name, value in values.items() if value is None):
            self.found.problems.append(
                f"{self.source.group}: how {', '.join(silent)} in its output {output} are reached cannot be read. {hint}"
            )
        return values

    def colmena(self, *, evaluated: bool) -> None:
        """The nodes of a hive. One of nixosConfigurations with the same name is the same host."""
        output = "colmenaHive" if evaluated else "colmena"
        make = "Give the flake the output colmenaHive = colmena.lib.makeHive self.outputs.colmena, which can be evaluated whole."
        see = f"See: nix eval {self.source.flake}#colmenaHive.nodes.NAME.config.deployment"
        for name, said in self._values(output, _HIVE if evaluated else _RAW, see if evaluated else make).items():
            attribute = name if name in self.configurations else f"{HIVE}.{name}"
            if attribute != name and not evaluated:
                what = f"{self.source.group}: {name} is in no output but colmena, of which it cannot be built. {make}"
                self.found.unbuilt[attribute] = what
            said = said or {}
            variables = _variables(host=said.get("host"), user=said.get("user"), port=said.get("port"))
            self.found.add(attribute, Address(f"{output}.{name}", variables, tuple(map(str, said.get("tags") or ()))))

    def deploy(self) -> None:
        """The nodes of deploy-rs. Their systems are those of nixosConfigurations, by the node's name or by what it deploys."""
        nodes = self._values("deploy", _NODES, f"See: nix eval {self.source.flake}#deploy.nodes.NAME.hostname")
        strange = [name for name, said in nodes.items() if said and said["system"] and name not in self.configurations]
        made = self._made() if strange else {}
        for name, said in nodes.items():
            if not said or not said["system"]:
                continue
            attribute = name if name in self.configurations else made.get(str(said["made"] or ""))
            if attribute is None:
                self.found.problems.append(
                    f"{self.source.group}: deploy.nodes.{name} deploys none of {CONFIGURATIONS} that could be told. "
                    "Give the configuration the node's name."
                )
                continue
            port, rest = port_of(said["options"])
            variables = _variables(host=said["host"], user=said["user"], port=port, arguments=shlex.join(rest))
            self.found.add(attribute, Address(f"deploy.nodes.{name}", variables))

    def _made(self) -> dict[str, str]:
        """What deploy-rs calls a system that it deploys → the one configuration that it is of."""
        chunk = max(1, len(self.configurations))
        values, _errors = evaluate_values(
            self.runner, self.source, self.configurations, _NAME_OF_SYSTEM, chunk=chunk, timeout=self.timeout
        )
        names = [str(value["it"]) for value in values.values()]
        return {f"activatable-{value['it']}": name for name, value in values.items() if names.count(str(value["it"])) == 1}


def _variables(*, host: str | None, user: str | None, port: int | None, arguments: str = "") -> dict[str, Any]:
    given = {"ansible_host": host, "ansible_user": user, "ansible_port": port, "ansible_ssh_common_args": arguments}
    return {name: value for name, value in given.items() if value not in (None, "")}


def port_of(options: Sequence[str]) -> tuple[int | None, list[str]]:
    """The port that options of ssh name, and the options without it."""
    rest: list[str] = []
    port: int | None = None
    words = list(options)
    while words:
        word = words.pop(0)
        value = None
        if word in ("-p", "-o") and words:
            following = words.pop(0)
            value = following if word == "-p" else _port_setting(following)
            if value is None:
                rest += [word, following]
        elif word.startswith("-p"):
            value = word[2:]
        elif word.startswith("-o"):
            value = _port_setting(word[2:])
            rest += [] if value else [word]
        else:
            rest.append(word)
        if value is not None and value.strip().isdigit():
            port = port or int(value)
    return port, rest


def _port_setting(text: str) -> str | None:
    name, _sign, value = text.replace("=", " ", 1).strip().partition(" ")
    return value.strip() if name.lower() == "port" else None


def agreed(host: str, addresses: Sequence[Address]) -> tuple[dict[str, Any], tuple[str, ...], str]:
    """What the sources say together: variables and tags; and a sentence where they contradict each other, "" if they do not.

    What they do not agree on is left out: a rollout must not go to the wrong machine.
    """
    said: dict[str, dict[Any, str]] = {}
    for address in addresses:
        for name, value in address.variables.items():
            said.setdefault(name, {}).setdefault(value, address.source)
    variables = {name: next(iter(values)) for name, values in said.items() if len(values) == 1}
    differ = [
        f"{name} is " + " and ".join(f"{value} in {source}" for value, source in values.items())
        for name, values in said.items()
        if len(values) > 1
    ]
    tags = tuple(dict.fromkeys(tag for address in addresses for tag in address.tags))
    problem = f"{host}: {'; '.join(differ)}. Let both say the same, or leave one source out (sources)." if differ else ""
    return variables, tags, problem
