# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: nix's command lines, one function per verb. Facts hold for nix 2.26 to 2.34."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import quote

from .errors import BadInput, CommandFailed, NixTooOld
from .nix_messages import explained, parsed
from .runner import QUICK, Runner, RunResult, checked

#: Relative path inputs (`path:../..`) keep their locks stable since 2.26; before, they silently evaluate an old copy.
MINIMUM = (2, 26)
#: Time limits in seconds: one evaluator on one chunk of hosts, and one build.
EVALUATION = 1800.0
BUILD = 6 * 3600.0

#: Not by NIX_CONFIG: that would replace the user's own, in which access tokens may stand.
_FEATURES = ("--extra-experimental-features", "nix-command flakes")
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.\d+)?\S*\s*$")
#: Store paths per command line; a line over an Ansible connection is one argument, of at most 128 KiB.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class NixVersion:
    """What `nix --version` says: the whole text, and the version as numbers."""

    text: str
    number: tuple[int, int]


def nix_argv(*words: str) -> list[str]:
    """A nix command that works where flakes are not switched on, and does not talk about dirty trees."""
    return ["nix", *_FEATURES, "--option", "warn-dirty", "false", *words]


def lock_flags(reference_lock: str | None = None) -> list[str]:
    """Flags of every evaluation: the lock is taken as it is, and an incomplete one is an error.

    Never together with --no-write-lock-file, which makes nix lock again in memory. reference_lock: path of a lock file on
    the builder that takes the place of the flake's own.
    """
    flags = ["--no-update-lock-file"]
    if reference_lock is not None:
        # Nix refuses a reference lock where nix.conf says allow-dirty = false, even on a clean tree.
        flags += ["--reference-lock-file", reference_lock, "--option", "allow-dirty", "true"]
    return flags


def flake_ref(repo: str, flake: str, rev: str | None, *, shallow: bool = False) -> str:
    """The flake in directory `flake` of the repository, at a commit; rev None: the work tree's tracked files as they are.

    shallow: the repository is a shallow clone, which nix refuses in a URL unless told.
    """
    query = [] if flake == "." else [f"dir={quote(flake, safe='/')}"]
    query += [f"rev={rev}"] if rev else []
    query += ["shallow=1"] if shallow else []
    return f"git+file://{quote(repo, safe='/')}" + (f"?{'&'.join(query)}" if query else "")


def nix_string(text: str) -> str:
    """The text as a string literal of the nix language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'


def require_nix(runner: Runner) -> NixVersion:
    """The nix there; NixTooOld with what was found and what to do if there is none, or one older than MINIMUM."""
    minimum = ".".join(map(str, MINIMUM))
    result = runner.run(["nix", "--version"])
    if result.status == 127:
        raise NixTooOld(
            runner.name,
            "there is no nix on the PATH that commands get there",
            f"Install nix {minimum} or newer, or name another builder in flotilla_builder.",
            result=result,
        )
    text = checked(result, runner.name, "`nix --version` failed").stdout.strip()
    found = _VERSION.search(text)
    if not found:
        raise NixTooOld(runner.name, f"`nix --version` says {text!r}, which names no version", f"Install nix {minimum} or newer.")
    number = (int(found[1]), int(found[2]))
    if number < MINIMUM:
        raise NixTooOld(
            runner.name,
            f"its nix is too old: it says {text!r}, and {minimum} is the oldest that works",
            f"Install nix {minimum} or newer, or name another builder in flotilla_builder.",
        )
    return NixVersion(text, number)


def eval_json(
    runner: Runner,
    subject: str,
    installable: str,
    *,
    apply: str | None = None,
    reference_lock: str | None = None,
    timeout: float = EVALUATION,
    failure: str = "evaluation failed",
) -> object:
    """The value of an installable, given to the function `apply` first, as JSON. Raises what nix_messages makes of a failure."""
    words = ["eval", "--json", *lock_flags(reference_lock), installable]
    words += ["--apply", apply] if apply is not None else []
    result = runner.run(nix_argv(*words), timeout=timeout)
    if result.status != 0:
        raise explained(result, subject, failure)
    try:
        return json.loads(result.stdout)
    except ValueError as error:
        raise CommandFailed(subject, f"nix gave no JSON: {error}", result=result) from error


def eval_command(installable: str, *flags: str, apply: str | None = None, reference_lock: str | None = None) -> str:
    """An evaluation as a person would type it, to see the whole of nix's message."""
    applied = ["--apply", apply] if apply is not None else []
    return shlex.join(["nix", "eval", *flags, *lock_flags(reference_lock), installable, *applied])


def source_path(runner: Runner, ref: str) -> str | None:
    """The store path of a flake's source tree, by which positions in nix's messages are told; None if nix cannot say."""
    # Not `flake metadata`, which fails where flake.nix is what is wrong. Without the option it asks for the registry.
    result = runner.run(nix_argv("flake", "prefetch", "--json", "--option", "flake-registry", "", ref))
    try:
        path = json.loads(result.stdout)["storePath"]
    except (ValueError, KeyError, TypeError):
        return None
    return path if isinstance(path, str) else None


def require_syntax(runner: Runner, path: str, text: str) -> None:
    """BadInput with nix's message if a text is no nix expression. path: for the message."""
    result = runner.run(["nix-instantiate", "--parse", "-"], stdin=text)
    if result.status != 0:
        message = parsed(result.stderr)
        place = next((f"{path}:{line}" for _file, line in message.positions), path)
        raise BadInput(place, f"nix cannot read what would be written there: {message.text}", "Nothing was changed.")


def require_flake_file(runner: Runner, subject: str, text: str) -> None:
    """BadInput with nix's message if a text is no flake.nix; its outputs are not evaluated, so that it needs no lock."""
    outputs = 'assert builtins.isFunction f.outputs || throw "outputs is not a function"; true'
    expression = f"let f = (\n{text}\n); in builtins.deepSeq (f.inputs or {{ }}) ({outputs})"
    result = runner.run(["nix-instantiate", "--eval", "--strict", "--json", "-"], stdin=expression)
    if result.status != 0:
        raise BadInput(subject, f"its flake.nix does not evaluate: {parsed(result.stderr).text}", "Nothing was changed.")


def flake_inputs(runner: Runner, subject: str, directory: str) -> dict[str, dict[str, Any]]:
    """The inputs that the flake.nix of a directory declares, as it has them; indirect ones are not among them."""
    expression = f"(import {nix_string(f'{directory}/flake.nix')}).inputs or {{ }}"
    result = runner.run(["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression])
    if result.status != 0:
        raise explained(result, subject, "reading the inputs of flake.nix failed")
    found: dict[str, dict[str, Any]] = json.loads(result.stdout)
    return found


def current_system(runner: Runner) -> str:
    """The platform of the machine there, as in x86_64-linux."""
    result = runner.run(["nix-instantiate", "--eval", "--json", "--expr", "builtins.currentSystem"])
    return str(json.loads(checked(result, runner.name, "nix does not say its platform").stdout))


def build(
    runner: Runner, drvs: Iterable[str], *, timeout: float = BUILD, on_line: Callable[[str], None] | None = None
) -> RunResult:
    """Build the outputs `out` of the derivations, as many as can be; stderr is a log in nix's internal-json format.

    The status is 1 if any failed, and says nothing of the others: ask invalid_paths.
    """
    words = ["build", "--no-link", "--keep-going", "--log-format", "internal-json", "--stdin"]
    return runner.run(nix_argv(*words), stdin="".join(f"{drv}^out\n" for drv in drvs), timeout=timeout, on_line=on_line)


def invalid_paths(runner: Runner, subject: str, paths: Sequence[str]) -> frozenset[str]:
    """Those of the store paths that the store there does not have. (`nix path-info` would try to build them.)"""
    found: set[str] = set()
    for some in _batches(paths):
        result = runner.run(["nix-store", "--check-validity", "--print-invalid", *some])
        found.update(checked(result, subject, "asking the store for its paths failed").stdout.split())
    return frozenset(found)


def closure_sizes(runner: Runner, subject: str, paths: Sequence[str]) -> dict[str, int]:
    """Bytes that each path takes with all that it needs. The paths must be valid."""
    if not paths:
        return {}
    # Text, because the JSON form of 2.33 and newer is another one.
    result = runner.run(nix_argv("path-info", "--closure-size", "--stdin"), stdin="".join(f"{p}\n" for p in paths), timeout=300)
    lines = checked(result, subject, "asking for closure sizes failed").stdout.splitlines()
    return {path: int(size) for path, size in (line.split() for line in lines if line.strip())}


def requisites(runner: Runner, subject: str, path: str, *, hint: str = "", timeout: float = QUICK) -> tuple[str, ...]:
    """All that a derivation needs to be built, or another store path to be used, itself included."""
    result = runner.run(["nix-store", "--query", "--requisites", path], timeout=timeout)
    return tuple(checked(result, subject, f"{runner.name} cannot say what {path} needs", hint).stdout.split())


def nar_size(runner: Runner, subject: str, paths: Sequence[str]) -> int:
    """NAR bytes of all these paths, about what they take on a disk."""
    result = runner.run(["xargs", "nix-store", "--query", "--size"], stdin="".join(f"{p}\n" for p in paths), timeout=300)
    return sum(map(int, checked(result, subject, f"{runner.name} cannot say how large the closure is").stdout.split()))


def sign(runner: Runner, path: str, key: str) -> RunResult:
    """Sign a path's closure with a key file that lies there."""
    return runner.run(nix_argv("store", "sign", "--recursive", "--key-file", key, path), timeout=600)


def copy_argv(path: str, to: str, source: str | None, *, check_signatures: bool, substitute: bool) -> list[str]:
    """The command that copies a path's closure to a store, from another one than the local where source names it."""
    words = ["copy", "--log-format", "internal-json", "--to", to]
    words += ["--from", source] if source else []
    words += [] if check_signatures else ["--no-check-sigs"]
    words += ["--substitute-on-destination"] if substitute else []
    return nix_argv(*words, path)


def diff_closures(runner: Runner, subject: str, before: str, after: str) -> str:
    """What nix says of the packages that differ between two paths' closures, in colours."""
    result = runner.run(nix_argv("store", "diff-closures", before, after), timeout=300)
    return checked(result, subject, "comparing the closures failed").stdout


def outputs(runner: Runner, drv: str) -> tuple[str, ...]:
    """The store paths that a derivation makes; none where they are known only when it is built (content-addressed)."""
    result = runner.run(["nix-store", "--query", "--outputs", drv])
    return tuple(result.stdout.split()) if result.status == 0 else ()


#: Reads lines `PATH LINK`. One nix-store for all would number the links, and one for each takes time: not where all is well.
_ADD_ROOTS = """
known=$(find "${NIX_STATE_DIR:-/nix/var/nix}/gcroots/auto" -type l -exec readlink {} + 2>/dev/null) || known=
while read -r path link; do
  case "
$known
" in *"
$link
"*) [ "$(readlink "$link")" = "$path" ] && continue ;; esac
  mkdir -p -- "${link%/*}"
  nix-store --realise "$path" --add-root "$link" >/dev/null
done
"""


def add_roots(runner: Runner, links: Mapping[str, str], *, timeout: float = 300) -> RunResult:
    """Make each link (its absolute path) a GC root of its store path, in one round trip."""
    lines = "".join(f"{path} {link}\n" for link, path in links.items())
    return runner.run(["sh", "-euc", _ADD_ROOTS], stdin=lines, timeout=timeout)


def build_log(runner: Runner, drv: str, lines: int = 20) -> tuple[str, ...]:
    """The last lines of a derivation's build log as the store keeps it; none if it keeps none."""
    result = runner.run(nix_argv("log", drv))
    return tuple(result.stdout.splitlines()[-lines:]) if result.status == 0 else ()


def _batches(items: Sequence[str]) -> Iterable[list[str]]:
    rest = iter(dict.fromkeys(items))
    while some := list(islice(rest, _BATCH)):
        yield some
