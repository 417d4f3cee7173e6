"""What the admin port shows of the cluster that the engine is a node of: ``/v1/cluster``, metrics, health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from marketfeed.gateway.http import Request, Response, error_response, json_response
from marketfeed.gateway.query import check_keys

if TYPE_CHECKING:
    from marketfeed.admin.cluster_metrics import ClusterFigures
    from marketfeed.api.cluster import ClusterAnswer
    from marketfeed.gateway.http import Routes
    from marketfeed.server.conditions import Condition

OFF: Final = "this engine is not part of a cluster: it has no [cluster]"


class ClusterSource(Protocol):
    """The node of the engine."""

    def problems(self) -> list[Condition]:
        """Return why this node cannot serve sessions."""
        ...

    def warnings(self) -> list[Condition]:
        """Return conditions of the cluster that need attention."""
        ...

    def answer(self) -> ClusterAnswer:
        """Return the cluster as this node sees it."""
        ...

    def figures(self) -> ClusterFigures:
        """Return the values of the metrics."""
        ...


class ClusterOperations:
    """The handlers."""

    def __init__(self, cluster: ClusterSource | None) -> None:
        self._cluster = cluster
        self.routes: Routes = {"/v1/cluster": {"GET": self._status}}

    async def _status(self, request: Request) -> Response:
        check_keys(request.query, ())
        if self._cluster is None:
            return error_response(503, OFF)
        return json_response(self._cluster.answer())
