"""A real Redis or Valkey server as a child process, for `stepwell dev`, tests and examples: alone, or a Cluster of them."""

from stepwell_engine.embedded_cluster import EmbeddedCluster
from stepwell_engine.embedded_process import EmbeddedServerError, Flavor, find_binary, free_port
from stepwell_engine.embedded_server import EmbeddedServer

__all__ = [
    "EmbeddedCluster",
    "EmbeddedServer",
    "EmbeddedServerError",
    "Flavor",
    "find_binary",
    "free_port",
]
