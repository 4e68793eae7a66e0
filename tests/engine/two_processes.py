"""What test_two_processes starts in each process: every exchange once; the outcome goes to FOLDER/rank<N>.pth."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from maskrcnn_benchmark.engine.distributed import synchronize_buffers, wrap_model
from maskrcnn_benchmark.engine.early_exit import EarlyExit, PerEpochEvaluation
from maskrcnn_benchmark.engine.inference import gather_predictions
from maskrcnn_benchmark.engine.trainer import do_train
from maskrcnn_benchmark.utils import comm
from tests.engine.stand_ins import RecordingSink, TinyLoader, make_run

CPU = torch.device("cpu")


def train(folder, loader, **options):
    model, optimizer, scheduler, checkpointer = make_run(folder)
    checkpointer.save_to_disk = comm.is_main_process()
    model = wrap_model(model, CPU)
    sink = RecordingSink()
    do_train(model, loader, optimizer, scheduler, checkpointer, CPU, 100, {"iteration": 0}, sink=sink, **options)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), sink.rows


def main(folder):
    comm.init_process_group(CPU)
    rank = comm.get_rank()
    outcome = {"world_size": comm.get_world_size()}
    outcome["gathered"] = comm.all_gather({"rank": rank, "tensor": torch.full((rank + 1,), float(rank))})
    outcome["broadcast"] = comm.broadcast("from 0" if rank == 0 else None)
    outcome["mean"] = comm.reduce_dict({"b": torch.tensor(float(rank)), "a": torch.tensor(2.0 * rank)})
    outcome["sum"] = comm.reduce_dict({"b": torch.tensor(float(rank))}, average=False)
    outcome["predictions"] = gather_predictions({0: "a", 4: "b", 2: "c"} if rank == 0 else {1: "d", 2: "c", 3: "e"})
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(rank + 3.0)
    synchronize_buffers(norm)
    outcome["running_mean"] = norm.running_mean

    # Each process sees every other batch of one image.
    loader = TinyLoader(6, batch_size=1, size=24, offset=rank, stride=2)
    outcome["weights"], rows = train(folder / f"ddp{rank}", loader, log_period=6)
    outcome["losses"] = [(step, {name: data[name] for name in ("loss", "loss_one")}) for step, data, _ in rows]
    outcome["accumulated"], _ = train(folder / "accumulated", loader, accumulate_steps=3)
    outcome["files"] = sorted(path.name for path in (folder / f"ddp{rank}").iterdir()) if rank == 0 else []
    outcome["wrote"] = (folder / f"ddp{rank}").exists()

    aim = EarlyExit(min_bbox_map=0.3, min_segm_map=0.3)
    stop = PerEpochEvaluation(lambda _: {"bbox": {"AP": 0.5}} if rank == 0 else {}, 2, aim)
    _, rows = train(folder / "stopped", loader, per_iter_end_callback_fn=stop, log_period=1)
    outcome["stopped_at"] = rows[-1][0]

    loader.dataset.values[5] = float("nan")  # process 1, iteration 3
    try:
        train(folder / "broken", loader)
    except FloatingPointError as error:
        outcome["error"] = str(error)
    torch.save(outcome, folder / f"rank{rank}.pth")
    comm.synchronize()
    comm.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
