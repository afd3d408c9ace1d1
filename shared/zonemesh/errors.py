"""Every error this project raises on purpose.

MeshError
├── InputError               the caller's fault; the same input fails again          400
│   ├── ConfigError          a configuration that must be changed; exit code 2
│   │   └── DamagedFileError a file of ours that cannot be read
│   ├── ValidationError      named fields of a document                              400
│   ├── TooLargeError        over a documented limit                                 413
│   └── WireError            an entry or record that is not of the format
│       └── NewerFormatError written by a newer build; upgrade this one
├── DeniedError              understood, and not allowed here                        405
├── NotFoundError            no such thing, now                                      404
├── ConflictError            understood, and against the present state               409
│   ├── PoolExhaustedError   no address left
│   └── RefusedError         an append that does not follow the log's head: writer deposed
├── UnavailableError         a peer's or the network's fault; may succeed later      503
│   ├── OverloadedError      too many ask at once; it says when to come again
│   ├── WrongKeyError        the store answers, but one key of it holds what it should not
│   └── FateUnknownError     an append that may or may not have happened: send the same bytes again
└── LogFaultError            what a reader finds wrong with a log; heals by resynchronisation
    ├── GapError             an entry is missing before this one
    ├── ForkError            same positions, other history
    ├── RolledBackError      the log's head is behind what was read
    ├── StateMismatchError   the same log, and another state than its writer has
    ├── StoreLostError       the log is missing, or is another incarnation
    └── StaleLogError        a zone's own log is older than what the zone has published
        └── ForeignLogError  what was published is of another log of that zone altogether

Only `UnavailableError` is ever retried, by `runtime.supervise` (an append's bytes by its writer).
What is not in this tree is a bug, and ends the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple


class MeshError(Exception):
    """Base of the tree above; never raised itself."""

    code: ClassVar[str] = "error"
    """Stable machine-readable name: a metric label and a log key."""


class InputError(MeshError):
    code = "invalid_input"


class ConfigError(InputError):
    """All faults of a configuration at once, one line each."""

    code = "invalid_config"

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class DamagedFileError(ConfigError):
    code = "damaged_file"


class Violation(NamedTuple):
    """One fault of a document, in the shape of Kuma's `invalid_parameters`."""

    field: str
    """Path as a client knows it: `networking.inbound[0].port`, `labels["kuma.io/zone"]`."""

    reason: str


class ValidationError(InputError):
    code = "invalid_resource"

    def __init__(self, violations: Sequence[Violation | tuple[str, str]]) -> None:
        self.violations = tuple(Violation(*violation) for violation in violations)
        super().__init__("; ".join(f"{field}: {reason}" for field, reason in self.violations))


class TooLargeError(InputError):
    code = "too_large"


class WireError(InputError):
    code = "bad_entry"


class NewerFormatError(WireError):
    code = "newer_format"


class DeniedError(MeshError):
    code = "denied"


class NotFoundError(MeshError):
    code = "not_found"


class ConflictError(MeshError):
    code = "conflict"


class PoolExhaustedError(ConflictError):
    code = "pool_exhausted"


class RefusedError(ConflictError):
    code = "append_refused"


class UnavailableError(MeshError):
    code = "unavailable"


class OverloadedError(UnavailableError):
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Whole seconds, as `Retry-After` has them (RFC 9110, 10.2.3)."""


class WrongKeyError(UnavailableError):
    """Whoever reads many logs need not wait with all of them for this one."""

    code = "wrong_key"


class FateUnknownError(UnavailableError):
    code = "fate_unknown"


class LogFaultError(MeshError):
    code = "log_fault"


class GapError(LogFaultError):
    code = "gap"


class ForkError(LogFaultError):
    code = "fork"


class RolledBackError(LogFaultError):
    code = "rolled_back"


class StoreLostError(LogFaultError):
    code = "store_lost"


class StateMismatchError(LogFaultError):
    code = "state_mismatch"


class StaleLogError(LogFaultError):
    code = "stale_log"

    def __init__(self, message: str, *, term: int) -> None:
        super().__init__(message)
        self.term = term
        """The highest term of that log that is known: the next one must be above it."""


class ForeignLogError(StaleLogError):
    code = "foreign_log"
