"""What to add to a DNS server that is there already, so that it asks the agent. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

RELOAD: Final = "200ms"
"""How often a CoreDNS looks at the hosts file; its default is 5 s."""


def server_block(domains: Sequence[str], agent: str) -> str:
    """For a Corefile: the mesh's domains are asked of the agent at `agent` (`address:port`)."""
    names = " ".join(f"{domain}:53" for domain in domains)
    return f"{names} {{\n    errors\n    forward . {agent} {{\n        max_fails 0\n    }}\n}}\n"


def hosts_block(domains: Sequence[str], path: str) -> str:
    """For a Corefile: names are read from the hosts file that the agent keeps."""
    names = " ".join(f"{domain}:53" for domain in domains)
    return (
        f"{names} {{\n    errors\n    hosts {path} {{\n        ttl 60\n"
        f"        reload {RELOAD}\n    }}\n}}\n"
    )


def kube_dns(domains: Sequence[str], agent: str) -> str:
    """The ConfigMap by which kube-dns asks the agent."""
    stubs = json.dumps({domain: [agent] for domain in domains})
    return (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kube-dns\n  namespace: kube-system\n"
        f"data:\n  stubDomains: |\n    {stubs}\n"
    )
