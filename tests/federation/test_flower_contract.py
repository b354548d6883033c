"""What we take from Flower beside its public interface is still there, and still means the same."""

import ast
import importlib
import inspect
from pathlib import Path

import flwr
import pytest
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto import control_pb2, fab_pb2, message_pb2, runtime_pb2, task_pb2
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supercore.retry import http_retry
from flwr.supercore.state.alembic import utils
from flwr.superlink.grid import HttpGrid
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.runtime import run_clientapp

import esn_client.link.guard
import esn_server.app
import esn_server.front.site_calls
import esn_server.link.flower_run
import esn_server.link.flower_superlink
import esn_server.link.grid


def advice(what: str) -> str:
    """Say what to do when a contract is broken."""
    return (
        f"Flower {flwr.__version__} no longer has {what}: "
        "look again at client/esn_client/link/guard.py, server/esn_server/link/grid.py and link.py"
    )


def imports_of(module: object) -> list[tuple[str, str]]:
    """Return what a module of ours imports from Flower, as pairs of module and name."""
    tree = ast.parse(Path(inspect.getfile(module)).read_text())
    return [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "flwr"
        for alias in node.names
    ]


def parameters_of(callable_: object) -> list[str]:
    """Return the names of a callable's parameters."""
    return list(inspect.signature(callable_).parameters)


def test_flower_is_the_version_that_the_contracts_were_written_for():
    assert flwr.__version__.startswith("1.41."), advice("its pinned version 1.41")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        found
        for ours in (
            esn_client.link.guard,
            esn_server.link.flower_superlink,
            esn_server.link.grid,
            esn_server.link.flower_run,
            esn_server.front.site_calls,
        )
        for found in imports_of(ours)
    ],
)
def test_every_import_exists(module, name):
    assert hasattr(importlib.import_module(module), name), advice(f"{module}.{name}")


@pytest.mark.parametrize(
    ("callable_", "parameters"),
    [
        (run_clientapp.pull_task_input, ["client"]),
        (run_clientapp.push_message, ["client", "message", "context"]),
        (run_clientapp.push_task_output, ["client", "context", "sub_status", "details"]),
        (HeartbeatSender, ["heartbeat_fn"]),
        (HttpGrid, ["runtime_api_address", "insecure", "root_certificates", "token"]),
        (
            ProtobufClient.from_server_address,
            ["server_address", "insecure", "root_certificates", "interceptors", "retry_invoker"],
        ),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_every_call_has_the_same_parameters(callable_, parameters):
    assert parameters_of(callable_) == parameters, advice(f"the parameters of {callable_.__qualname__}")


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (control_pb2.StartRunRequest, {"fab"}),
        (control_pb2.StartRunResponse, {"run_id"}),
        (control_pb2.RegisterNodeRequest, {"public_key"}),
        (control_pb2.ListNodesResponse, {"nodes_info"}),
        (fab_pb2.Fab, {"hash_str", "content"}),
        (runtime_pb2.AcquireTaskRequest, {"supported_task_types"}),
        (runtime_pb2.AcquireTaskResponse, {"task", "token"}),
        (runtime_pb2.PullTaskInputResponse, {"task_id", "run", "context"}),
        (runtime_pb2.PushTaskOutputRequest, {"sub_status", "details"}),
        (runtime_pb2.SendTaskHeartbeatResponse, {"success"}),
        (runtime_pb2.PullAppMessagesRequest, {"message_ids"}),
        (runtime_pb2.PullAppMessagesResponse, {"messages_list", "message_object_trees"}),
        (message_pb2.Metadata, {"message_id", "reply_to_message_id"}),
        (message_pb2.PullObjectRequest, {"node", "run_id", "object_id"}),
        (message_pb2.PullObjectResponse, {"object_found", "object_available", "object_content"}),
        (message_pb2.ConfirmMessageReceivedRequest, {"node", "run_id", "message_object_id"}),
        (task_pb2.Task, {"run_id"}),
    ],
)
def test_every_message_has_the_fields_that_we_use(message, fields):
    missing = fields - set(message.DESCRIPTOR.fields_by_name)
    assert not missing, advice(f"{message.DESCRIPTOR.name}.{missing}")


def test_the_grid_connects_by_the_method_that_we_replace():
    grid = HttpGrid(token="token")
    assert {"_runtime_client", "_addr", "_token", "node", "run"} <= set(dir(grid)) | set(vars(grid)), advice(
        "HttpGrid's parts"
    )
    assert "self._connect()" in inspect.getsource(HttpGrid._runtime_client.fget), advice("HttpGrid._connect")
    assert "self._client = RuntimeHttpClient" in inspect.getsource(HttpGrid._connect), advice(
        "HttpGrid._client"
    )


def test_the_superlink_makes_its_database_with_the_settings_that_we_mend():
    workflow = inspect.getsource(utils._run_migration_workflow)
    assert "config = build_alembic_config(engine)" in workflow, advice("build_alembic_config")
    assert parameters_of(utils.build_alembic_config) == ["engine"], advice("build_alembic_config's parameter")


def test_the_words_of_the_supernode_that_we_wait_for_are_still_said():
    worker = inspect.getsource(start_client_internal)
    connection = inspect.getsource(fleet_http_connection)
    for words, source in (("SuperNode ID:", worker), ("Sent successfully", worker), ("[code:", connection)):
        assert words in source, advice(f"the log line {words!r}")
    retrying = inspect.getsource(http_retry)
    for words in ("Giving up reconnection", "SSL/TLS handshake error"):
        assert words in retrying, advice(f"the log line {words!r}")
    assert "terminated gracefully" in worker, advice("the log line 'terminated gracefully'")


def test_error_codes_and_statuses_have_their_values():
    assert esn_server.app._FLOWER_ERRORS == {
        ErrorCode.MESSAGE_UNAVAILABLE: "MessageUnavailable",
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "ReplyUnavailable",
        ErrorCode.NODE_UNAVAILABLE: "SiteUnavailable",
        ErrorCode.CLIENT_APP_CRASHED: "SiteCrashed",
    }, advice("the same error codes")
    statuses = (SubStatus.COMPLETED, SubStatus.FAILED, SubStatus.STOPPED)
    assert statuses == ("completed", "failed", "stopped"), advice("the same statuses")


def test_acquiring_a_task_is_what_the_secret_protects():
    router = importlib.import_module("flwr.supercore.routers.runtime.router")
    assert 'SuperExecAuthDependency("/flwr.proto.Runtime/AcquireTask")' in inspect.getsource(router), advice(
        "the protected call AcquireTask"
    )
