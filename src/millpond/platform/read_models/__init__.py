"""What the faces show, and the few things they do: plain data, and the narrow ports through which it comes.

Command line, server, console and notebooks share these. Every value is plain Python: text, numbers, booleans, aware
instants in UTC, tuples and mappings of those.
"""

from millpond.platform.read_models.features import (
    FeatureViewPage,
    FeatureViewSummary,
)
from millpond.platform.read_models.models import (
    DeploymentState,
    DeploymentSummary,
    GateView,
    MetricLine,
    ModelPage,
    ModelSummary,
    RequestField,
    VersionLineage,
    VersionPage,
    VersionSummary,
)
from millpond.platform.read_models.ports import (
    LakeReader,
    ModelReader,
    Operations,
    Overview,
    PredictionReader,
    Promotion,
    Reader,
    ReleaseReader,
    SkewReader,
    SkewRequest,
)
from millpond.platform.read_models.predictions import (
    Answer,
    FeatureValue,
    PredictionLine,
    Receipt,
)
from millpond.platform.read_models.references import (
    Edge,
    Kind,
    Reference,
)
from millpond.platform.read_models.tables import (
    CheckState,
    CheckView,
    ColumnView,
    SnapshotRef,
    SnapshotView,
    TablePage,
    TableSummary,
)

__all__ = [
    "Answer",
    "CheckState",
    "CheckView",
    "ColumnView",
    "DeploymentState",
    "DeploymentSummary",
    "Edge",
    "FeatureValue",
    "FeatureViewPage",
    "FeatureViewSummary",
    "GateView",
    "Kind",
    "LakeReader",
    "MetricLine",
    "ModelPage",
    "ModelReader",
    "ModelSummary",
    "Operations",
    "Overview",
    "PredictionLine",
    "PredictionReader",
    "Promotion",
    "Reader",
    "Receipt",
    "Reference",
    "ReleaseReader",
    "RequestField",
    "SkewReader",
    "SkewRequest",
    "SnapshotRef",
    "SnapshotView",
    "TablePage",
    "TableSummary",
    "VersionLineage",
    "VersionPage",
    "VersionSummary",
]
