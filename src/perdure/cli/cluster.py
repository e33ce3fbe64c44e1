"""`perdure cluster`: what operators ask a running cluster."""

from __future__ import annotations

from typing import Final, cast

import click
import msgspec

_TIMEOUT_SECONDS: Final = 10.0
_DESCRIBE: Final = "/perdure.cluster.v1.ClusterService/DescribeCluster"
_COLUMNS: Final = ("node", "release", "state", "shards", "lease")


class _Node(msgspec.Struct):
    node: str
    release: str
    shards: int
    lease_seconds_left: float
    is_alive: bool
    is_leaving: bool
    is_linked: bool

    @property
    def state(self) -> str:
        if not self.is_alive:
            return "dead"
        if self.is_leaving:
            return "leaving"
        return "up" if self.is_linked else "unreachable"


class _Cluster(msgspec.Struct):
    cluster_id: str
    node: str
    nodes: list[_Node]


@click.group("cluster")
def cluster() -> None:
    """Look at the nodes of a running cluster."""


@cluster.command("status")
@click.option(
    "--address",
    default="127.0.0.1:7233",
    show_default=True,
    envvar="TEMPORAL_ADDRESS",
    help="Any node of the cluster, as host:port.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(*, address: str, as_json: bool) -> None:
    """Show nodes, shards and leases, as one node knows them. Exit status 1 if any node is not well."""
    told = _describe(address)
    described = msgspec.json.decode(told, type=_Cluster, strict=False)
    if as_json:
        click.echo(told)
    else:
        _print(described)
    if any(node.state != "up" for node in described.nodes):
        raise SystemExit(1)


def _describe(address: str) -> str:
    # Imported here: most commands need no gRPC.
    import grpc
    from google.protobuf.json_format import MessageToJson
    from google.protobuf.struct_pb2 import Struct

    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, Struct] = channel.unary_unary(
            _DESCRIBE, response_deserializer=Struct.FromString
        )
        try:
            return MessageToJson(call(b"", timeout=_TIMEOUT_SECONDS))
        except grpc.RpcError as error:
            # It is the call itself, of which the stubs know nothing.
            why = cast("grpc.Call", error).details()
            raise click.ClickException(
                f"{address} does not answer: {why}. Start a server there, or name another with --address"
            ) from None


def _print(described: _Cluster) -> None:
    click.echo(f"cluster {described.cluster_id}, as {described.node} knows it")
    rows = [_COLUMNS, *(_row(node) for node in described.nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _row(node: _Node) -> tuple[str, ...]:
    return node.node, node.release, node.state, str(node.shards), f"{node.lease_seconds_left:.1f} s"
