# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to flotilla.nixos: a target that answers the verbs of target/flotilla.sh over Ansible's connection."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.connection import ConnectionBase

from ..module_utils.activation import ANSWER
from ..module_utils.errors import CommandFailed
from ..module_utils.runner import Runner
from ..module_utils.target_state import Facts, parse_facts, refusal
from .controller_run import owner_of
from .probe import probe
from .runners import LocalRunner
from .ssh_options import SshTarget

_SCRIPT = Path(__file__).with_name("target") / "flotilla.sh"
#: Verbs that leave the script on the target, so that it can go on without us.
_STAYING = ("activate", "reboot")
_CARRIER = """\
flotilla_text() {{
cat <<'FLOTILLA_TEXT_ENDS_HERE'
{script}FLOTILLA_TEXT_ENDS_HERE
}}
"""


class SystemTarget:
    """See module_utils.activation.Target."""

    def __init__(self, runner: Runner, connection: ConnectionBase) -> None:
        self.name = runner.name
        self.runner = runner
        self._connection = connection
        _notice_dead_links(connection)

    def verb(self, verb: str, *arguments: str, timeout: float = ANSWER) -> Facts:
        """Send the script on stdin and read its answer."""
        if verb == "activate":
            # A host that could not be probed would be activated in vain: refuse before, not after.
            self._way()
        script = _SCRIPT.read_text(encoding="utf-8")
        carried = _CARRIER.format(script=script) if verb in _STAYING else ""
        result = self.runner.run(["sh", "-s", "--", verb, *arguments], stdin=carried + script, timeout=timeout)
        facts = parse_facts(result.stdout)
        if facts.one("error"):
            raise refusal(self.name, facts)
        if result.status != 0:
            tail = result.stderr.strip()[-2000:] or result.stdout.strip()[-2000:] or f"exit status {result.status}"
            raise CommandFailed(self.name, f"`{verb}` failed there: {tail}", result=result)
        return facts

    def reset(self) -> None:
        """Drop the shared connection (ControlPersist), if there is one."""
        reset = getattr(self._connection, "reset", None)
        if reset is not None:
            reset()

    def probe(self, system: str | None, timeout: float) -> str | None:
        """Log in over a fresh connection, and see the system there."""
        way = self._way()
        if way is None:
            # Nothing was between us and the host that an activation could have cut.
            found = self.verb("info", timeout=timeout).one("running")
            return None if system in (None, found) else f"{self.name}: it runs {found}, not {system}."
        return probe(way, system, timeout, LocalRunner()).message

    def _way(self) -> SshTarget | None:
        """The host for a connection of our own; None where it is not ssh that reaches it. BadInput for log-ins by password."""
        return SshTarget.from_connection(self._connection, self.name) if self._connection.transport == "ssh" else None


def _notice_dead_links(connection: ConnectionBase) -> None:
    """Have ssh notice within half a minute that a link is dead, unless the user decided otherwise.

    Of no effect on a shared connection that is there already; the runner's own time limit is for those.
    """
    if connection.transport != "ssh":
        return
    given = [str(connection.get_option(name) or "") for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")]
    if "serveraliveinterval" not in " ".join(given).lower():
        connection.set_option("ssh_extra_args", f"{given[2]} -o ServerAliveInterval=10 -o ServerAliveCountMax=3".strip())


def default_owner(task_vars: Mapping[str, Any]) -> str:
    """Who acts, for others who find the host taken: AWX's user and job, or the user, machine and process that Ansible runs as."""
    if task_vars.get("awx_job_id"):
        return f"{task_vars.get('awx_user_name') or 'awx'}@awx job {task_vars['awx_job_id']}"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # An execution environment's uid without a passwd entry.
        user = "somebody"
    return owner_of(f"{user}@{socket.gethostname()}")
