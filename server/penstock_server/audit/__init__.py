"""`penstock audit`: whether a run kept the delivery contract, from counts that were made apart.

Three parties count, each by itself: the clients (steps they sent, in the coordinator's database),
the shards (ledgers, journals of admissions) and the trainer (its log of draws). The audit holds
them against each other; none of its figures comes from the party that it judges.

    reading     a run's folder as values                      the one file that reads
    tables      these values
    places      sets of (simulation, step)
    production, training, roles, contents    the checks: functions of the tables
    findings    what a check says
    verdict     all checks, and the three counts side by side
    printing    the same for a terminal, and as JSON
"""

from penstock_server.audit.reading import AuditError, read_tables
from penstock_server.audit.verdict import Audit, audit

__all__ = ["Audit", "AuditError", "audit", "read_tables"]
