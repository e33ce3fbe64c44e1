"""Several nodes on one database: who owns what, and how nodes reach each other."""

from perdure.server.engine.cluster.cluster import Cluster
from perdure.server.engine.cluster.link import ByteStream
from perdure.server.engine.cluster.links import Dialer
from perdure.server.engine.cluster.ownership import Elsewhere, Ownership, SoleOwner
from perdure.server.engine.cluster.settings import ClusterSettings

__all__ = ["ByteStream", "Cluster", "ClusterSettings", "Dialer", "Elsewhere", "Ownership", "SoleOwner"]
