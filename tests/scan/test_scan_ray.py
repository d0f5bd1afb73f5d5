"""Scans on a Ray cluster of two nodes, here: every image once, whatever dies."""

import logging
import socket
from pathlib import Path

import pytest
import scanning
from scanning import assert_each_once, folder_of_pictures, kill_a_worker, local, plan_of, rows_of, scan_with, wait_until

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "apn[scan]"')
from ray.cluster_utils import Cluster  # noqa: E402

from apn.scan.cluster import Pool, connect, run_on_ray  # noqa: E402

pytestmark = [
    pytest.mark.slow,  # a cluster takes 10 s to start
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),  # of its own defaults
]


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one core each; the driver is on the first."""
    monkeypatch.setenv("PYTHONPATH", str(Path(scanning.__file__).parent))  # of the nodes' workers
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default: on a busy machine workers would never start
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    cluster.wait_for_nodes()
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def on_ray(**pool):
    return lambda plan, done: run_on_ray(plan, done, Pool(**pool))


def test_a_scan_on_ray_leaves_what_a_local_one_leaves(cluster, tmp_path):
    reds = folder_of_pictures(tmp_path / "in", 60)
    (tmp_path / "in" / "broken.jpg").write_text("not an image")
    summaries = [
        scan_with(runner, tmp_path / "in", plan_of(tmp_path / name, tmp_path / f"{name}-openings", 0.01))
        for name, runner in (("local", local()), ("ray", on_ray()))
    ]
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "local")
    assert len(rows_of(tmp_path / "ray")) == len(reds) + 1
    different = {"seconds", "images_per_second"}
    assert summaries[0].model_dump(exclude=different) == summaries[1].model_dump(exclude=different)


def test_a_killed_worker_costs_nothing_but_time(cluster, tmp_path):
    reds = folder_of_pictures(tmp_path / "in", 160)
    opened = tmp_path / "openings"

    def killing(plan, done):
        for number, outcome in enumerate(on_ray()(plan, done)):
            if number == 2:
                kill_a_worker(opened)
            yield outcome

    summary = scan_with(killing, tmp_path / "in", plan_of(tmp_path / "out", opened, 0.05))
    assert_each_once(tmp_path / "out", reds)
    assert summary.images == 160
    # Two workers, and one for the killed one; a busy machine had a fourth, probably as Ray Data's pool shrank and grew
    # again. A new one for each of the 20 shards would be wrong.
    assert 3 <= len(list(opened.iterdir())) <= 6


def test_a_lost_node_costs_nothing_but_time(cluster, tmp_path):
    reds = folder_of_pictures(tmp_path / "in", 160)
    opened = tmp_path / "openings"

    def losing(plan, done):
        for number, outcome in enumerate(on_ray()(plan, done)):
            if number == 4:
                wait_until(lambda: len(list(opened.iterdir())) >= 2)  # one on each node
                cluster.remove_node(cluster.second, allow_graceful=False)
            yield outcome

    summary = scan_with(losing, tmp_path / "in", plan_of(tmp_path / "out", opened, 0.05))
    assert_each_once(tmp_path / "out", reds)
    assert summary.images == 160
    wait_until(lambda: len([node for node in ray.nodes() if node["Alive"]]) == 1)  # Ray may see it after the scan's end


def test_no_cluster_says_how_to_start_one():
    with pytest.raises(ValueError, match=r"no Ray cluster at 'auto': expected one started with `ray start --head`"):
        connect("auto")


def test_where_nothing_listens_is_said_at_once():
    """Ray itself tries again for minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            with pytest.raises(ValueError, match=f"no Ray cluster at '{address}': .*nothing listens there"):
                connect(address)
