"""Backends: crops in, logits out; every crop alone, as many at a time as there are threads."""

import json
import multiprocessing
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load, numpy_helper, save

import apn.backends
from apn.backends import find_weights, onnx_backend, onnx_batch_backend, open_backend, to_input

WEIGHT = np.array([[1, -2], [3, 0.5], [-1, 4]], np.float32)  # (3 colours, 2 logits)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """image (N, 3, S, S) -> logits (N, 2): the mean colour times WEIGHT."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "S", "S"])]
    outs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])]
    weight = numpy_helper.from_array(WEIGHT, "weight")
    model = helper.make_model(
        helper.make_graph(nodes, "mean", ends, outs, [weight]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    save(model, path)
    return path


def crops(count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    return (images / 255).mean(axis=(1, 2)) @ WEIGHT


def test_input_is_channels_first_in_0_to_1() -> None:
    image = to_input(np.array([[[[0, 51, 255]]]], np.uint8))
    assert (image.shape, image.dtype) == ((1, 3, 1, 1), np.float32)
    assert image.ravel().tolist() == [0, np.float32(0.2), 1]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(graph: Path) -> None:
    """The default of multiprocessing on Linux, and what servers do that load before they fork."""
    run, images = onnx_backend(graph, threads=2), crops(3)
    run(images)
    results = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(target=lambda: results.put(run(images)))
    child.start()
    child.join(timeout=30)
    waits = child.is_alive()
    child.kill()
    assert not waits, "for threads that were not forked with it"
    np.testing.assert_allclose(results.get(), expected(images), atol=1e-5)
    child.join()
    child.close()
    results.close()


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("threads", [1, 3])
def test_logits_come_in_the_order_of_the_crops(graph: Path, count: int, threads: int) -> None:
    images = crops(count)
    for run in (onnx_backend(graph, threads=threads), onnx_batch_backend(graph, threads=threads)):
        found = run(images)
        assert (found.shape, found.dtype) == ((count, 2), np.float32)
        np.testing.assert_allclose(found, expected(images), atol=1e-5)


def test_a_crop_gets_the_same_bits_in_any_company() -> None:
    shipped = onnx_backend(find_weights("apn-mini") / "model.onnx", threads=2)
    images = crops(3, apn.load("apn-mini").crop_size)
    together = shipped(images)
    assert (np.concatenate([shipped(image[None]) for image in images[::-1]])[::-1] == together).all()


def test_as_many_crops_as_threads_are_in_the_graph_at_a_time(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(2, timeout=20)
    run = apn.backends._run

    def wait_for_another(session, image):
        meeting.wait()  # breaks, and fails the test, unless another crop is there too
        assert len(image) == 1
        return run(session, image)

    monkeypatch.setattr(apn.backends, "_run", wait_for_another)
    images = crops(4)
    np.testing.assert_allclose(onnx_backend(graph, threads=2)(images), expected(images), atol=1e-5)


def test_a_graph_that_is_still_opening_gives_the_same_numbers(graph: Path) -> None:
    opened = open_backend(graph.parent, wait=False)
    assert opened.name == "onnx"
    assert (opened.logits(crops(2)) == onnx_backend(graph)(crops(2))).all()


def test_a_damaged_graph_is_a_value_error_at_once_or_with_the_first_crop(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(graph.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"model\.onnx cannot be opened, make it again with `apn export`"):
        open_backend(tmp_path)
    later = open_backend(tmp_path, wait=False)
    with pytest.raises(ValueError, match=r"model\.onnx cannot be opened"):
        later.logits(crops(1))


def test_a_graph_beside_other_weights_is_refused(graph: Path, tmp_path: Path) -> None:
    """Of older exports, which do not name their weights, nobody can tell."""
    own, others, copied = "1" * 64, "2" * 64, tmp_path / "model.onnx"
    (tmp_path / "training.json").write_text(json.dumps({"sha256": others}))
    model = load(graph)
    for names in ({}, {"weights_sha256": others}):
        helper.set_model_props(model, names)
        save(model, copied)
        assert len(open_backend(tmp_path).logits(crops(1))) == 1
    helper.set_model_props(model, {"weights_sha256": own})
    save(model, copied)
    told = (
        f"{copied}: expected a graph of the weights beside it (sha256 {others}), found one of others ({own}): "
        f"make it again with `apn export {tmp_path} --out {copied}`"
    )
    with pytest.raises(ValueError, match=re.escape(told)):
        open_backend(tmp_path)
    with pytest.raises(ValueError, match=re.escape(told)):
        open_backend(tmp_path, wait=False).logits(crops(1))


def test_a_graph_for_crops_of_another_size_is_a_value_error() -> None:
    size = apn.load("apn-mini").crop_size
    with pytest.raises(ValueError, match=rf"takes crops of {size} pixels, config.json beside it says {size + 2}: "):
        onnx_backend(find_weights("apn-mini") / "model.onnx")(crops(1, size + 2))


def test_what_is_not_there_is_named(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no ONNX graph .*: make it with `apn export"):
        open_backend(tmp_path, "onnx", wait=False)
    with pytest.raises(ValueError, match="has no CoreMLExecutionProvider for device 'mps'"):
        onnx_backend(graph, "mps", wait=False)


def test_a_backend_or_device_that_nobody_knows_is_not_taken_for_another(graph: Path) -> None:
    with pytest.raises(ValueError, match="expected backend auto, onnx, torch, found 'tensorflow'"):
        open_backend(graph.parent, "tensorflow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected device cpu, cuda, mps, found 'tpu'"):
        open_backend(graph.parent, device="tpu")  # type: ignore[arg-type]


def test_a_run_is_told_from_its_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"is a run: expected a checkpoint folder, such as {tmp_path / 'last'} in it"):
        find_weights(tmp_path)


def test_a_graph_is_told_from_its_folder(graph: Path) -> None:
    with pytest.raises(ValueError, match=r"is a file: expected the checkpoint folder, with its config\.json and model"):
        find_weights(graph)
